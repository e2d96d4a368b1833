//! Clients at work while members are hurt, each keeping what it was told.
//!
//! ```text
//!   puts · counters · rewrites · registers · leases · watchers ── each at home at one member, elsewhere while it is gone
//!        │ what each was told
//!        └──▶ judge ◀── the whole history, from every member
//! ```
//!
//! **Invariant:** no client sends a write twice. A write whose answer was lost stays open for ever: it may have happened
//! once or not at all. The one exception, the [`prober`], sends what does no harm twice.

pub(crate) mod judge;
pub(crate) mod leases;
pub(crate) mod linear;
pub(crate) mod prober;
pub(crate) mod puts;
pub(crate) mod registers;
pub(crate) mod revisions;
pub(crate) mod watchers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use parking_lot::RwLock;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use self::judge::Told;
use crate::client::Client;
use crate::cluster::Endpoints;
use crate::pb::etcdserverpb::PutRequest;

/// So long a client waits for its own member to come back before it goes elsewhere.
const LOYALTY: Duration = Duration::from_secs(1);
/// With no fault left, a write goes by then.
const HEALED: Duration = Duration::from_secs(20);

/// Where the members are, and whether the load goes on.
#[derive(Debug, Clone)]
pub(crate) struct Arena {
    endpoints: Endpoints,
    home: usize,
    over: Arc<AtomicBool>,
    begun: Instant,
}

impl Arena {
    pub(crate) fn new(endpoints: Endpoints) -> Self {
        Self { endpoints, home: 0, over: Arc::default(), begun: Instant::now() }
    }

    pub(crate) fn alone(endpoint: String) -> Self {
        Self::new(Arc::new(RwLock::new(vec![endpoint])))
    }

    /// The same, for a client of member `home`.
    fn at(&self, home: usize) -> Self {
        Self { home: home % self.members(), ..self.clone() }
    }

    pub(crate) fn members(&self) -> usize {
        self.endpoints.read().len()
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Since the load began.
    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn endpoint(&self, nth: usize) -> String {
        let endpoints = self.endpoints.read();
        endpoints[nth % endpoints.len()].clone()
    }

    /// A fresh connection, at home if there is one to be had within a second, else at any member.
    pub(crate) async fn client(&self) -> Option<Client> {
        let asked = Instant::now();
        let mut nth = self.home;
        while !self.over() {
            if let Ok(client) = Client::connect(&self.endpoint(nth)).await {
                return Some(client);
            }
            if asked.elapsed() > LOYALTY {
                nth += 1;
            }
            sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// A connection to member `nth`, if it can be had now.
    async fn client_at(&self, nth: usize) -> Option<Client> {
        Client::connect(&self.endpoint(nth)).await.ok()
    }
}

/// How many clients of each kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowd {
    pub(crate) puts: usize,
    pub(crate) counters: usize,
    pub(crate) rewrites: usize,
    pub(crate) registers: usize,
    pub(crate) leases: usize,
    pub(crate) watchers: usize,
}

/// The clients, each with what it will have been told.
pub(crate) struct Traffic {
    puts: Vec<JoinHandle<puts::Puts>>,
    counters: Vec<JoinHandle<puts::Increments>>,
    rewrites: Vec<JoinHandle<puts::Rewrites>>,
    registers: Vec<JoinHandle<registers::Moves>>,
    leases: Vec<JoinHandle<leases::Held>>,
    watchers: Vec<JoinHandle<watchers::Seen>>,
}

impl Traffic {
    /// Spreads each kind over the members.
    pub(crate) fn start(arena: &Arena, seed: u64, crowd: Crowd) -> Self {
        let at = |nth: usize| arena.at(nth);
        Self {
            puts: (0..crowd.puts)
                .map(|n| tokio::spawn(puts::puts(at(n), seed, n as u64)))
                .collect(),
            counters: (0..crowd.counters)
                .map(|n| tokio::spawn(puts::increments(at(n), seed, n as u64)))
                .collect(),
            rewrites: (0..crowd.rewrites).map(|n| tokio::spawn(puts::rewrites(at(n), n))).collect(),
            registers: (0..crowd.registers)
                .map(|n| tokio::spawn(registers::move_registers(at(n), seed, n as u64)))
                .collect(),
            leases: (0..crowd.leases)
                .map(|n| tokio::spawn(leases::hold(at(n), n as i64)))
                .collect(),
            watchers: (0..crowd.watchers)
                .map(|n| tokio::spawn(watchers::watch(at(n), seed, n as u64)))
                .collect(),
        }
    }

    /// Waits for the writers, then tells the watchers that nothing comes any more, and waits for them.
    pub(crate) async fn finish(self, arena: &Arena) -> Result<Told> {
        async fn all<T>(handles: Vec<JoinHandle<T>>) -> Result<Vec<T>> {
            let mut results = Vec::new();
            for handle in handles {
                results.push(handle.await?);
            }
            Ok(results)
        }
        let mut told = Told {
            puts: all(self.puts).await?,
            counters: all(self.counters).await?,
            rewrites: all(self.rewrites).await?,
            registers: all(self.registers).await?,
            leases: all(self.leases).await?,
            watchers: Vec::new(),
        };
        if arena.members() > 1 {
            write_last_key(arena).await?;
        }
        told.watchers = all(self.watchers).await?;
        Ok(told)
    }
}

async fn write_last_key(arena: &Arena) -> Result<()> {
    let put = PutRequest { key: watchers::LAST_KEY.into(), ..PutRequest::default() };
    let asked = Instant::now();
    for nth in (0..arena.members()).cycle() {
        ensure!(
            asked.elapsed() < HEALED,
            "everything is healed, and no write has gone for {HEALED:?}"
        );
        if let Some(mut client) = arena.client_at(nth).await
            && let Ok(Ok(_)) = timeout(HEALED, client.kv.put(put.clone())).await
        {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
