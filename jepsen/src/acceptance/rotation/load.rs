//! Clients that never try again: every second one keeps its connection, the others make a new one for each call, by
//! what their files hold then.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::client::Client;
use crate::pb::etcdserverpb::{PutRequest, RangeRequest};
use crate::tls::{Dialer, Folder, Speaks, Trusting};

/// With long connections, and with new ones.
const CLIENTS: [usize; 2] = [8, 8];
/// Of the rate, what those with new connections do.
const ANEW_SHARE: f64 = 0.2;
const PATIENCE: Duration = Duration::from_secs(5);
/// Files that are being replaced belong together again by then.
const TORN_MAX: Duration = Duration::from_secs(1);
const KEYS: u64 = 100;

/// What clients were told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) answered: u64,
    pub(super) failed: Vec<String>,
    pub(super) slowest: Duration,
    pub(super) dialled: u64,
    /// Connections that were to last and did not.
    pub(super) redialled: u64,
}

impl Told {
    pub(super) fn rate(&self, seconds: f64) -> f64 {
        self.answered as f64 / seconds
    }

    fn add(&mut self, other: Told) {
        self.answered += other.answered;
        self.failed.extend(other.failed);
        self.slowest = self.slowest.max(other.slowest);
        self.dialled += other.dialled;
        self.redialled += other.redialled;
    }
}

/// Clients at work.
pub(super) struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<Told>>>,
}

impl Load {
    pub(super) fn start(endpoints: &[String], files: &Folder, rate: f64) -> Self {
        let (over, answered) = (Arc::default(), Arc::default());
        let [staying, anew] = CLIENTS;
        let mut clients = Vec::new();
        for nth in 0..staying + anew {
            let stays = nth < staying;
            let (of, share) = if stays { (staying, 1.0 - ANEW_SHARE) } else { (anew, ANEW_SHARE) };
            let one = One {
                nth,
                endpoint: endpoints[nth % endpoints.len()].clone(),
                files: files.clone(),
                every: Duration::from_secs_f64(of as f64 / (rate * share)),
                stays,
                over: Arc::clone(&over),
                answered: Arc::clone(&answered),
            };
            clients.push(tokio::spawn(one.run()));
        }
        Self { over, answered, clients }
    }

    pub(super) fn told_so_far(&self) -> String {
        format!("{} requests so far", self.answered.load(Ordering::Relaxed))
    }

    /// Ends the load.
    pub(super) async fn end(self) -> Result<Told> {
        self.over.store(true, Ordering::Relaxed);
        let mut told = Told::default();
        for client in self.clients {
            told.add(client.await??);
        }
        Ok(told)
    }
}

struct One {
    nth: usize,
    endpoint: String,
    files: Folder,
    every: Duration,
    stays: bool,
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

impl One {
    async fn run(self) -> Result<Told> {
        let mut told = Told::default();
        let dialer = self.dialer().await?;
        let staying = match self.stays {
            true => Some(dialer.client(&self.endpoint).await.context("the first connection")?),
            false => None,
        };
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut number = 0;
        while !self.over.load(Ordering::Relaxed) {
            ticks.tick().await;
            number += 1;
            let asked = Instant::now();
            match timeout(PATIENCE, self.call(staying.as_ref(), number)).await {
                Ok(Ok(())) => {
                    told.answered += 1;
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Err(why)) => told.failed.push(format!("client {}: {why:#}", self.nth)),
                Err(_) => told.failed.push(format!("client {}: {PATIENCE:?}", self.nth)),
            }
            told.slowest = told.slowest.max(asked.elapsed());
        }
        if self.stays {
            told.dialled = dialer.dialled();
            told.redialled = dialer.dialled() - 1;
        } else {
            told.dialled = number;
        }
        Ok(told)
    }

    /// A put, or a read of what was put before, in turn.
    async fn call(&self, staying: Option<&Client>, number: u64) -> Result<()> {
        let client = match staying {
            Some(client) => client.clone(),
            None => self.dialer().await?.client(&self.endpoint).await?,
        };
        let pair = number.div_ceil(2);
        let key = format!("rotation/{}/{}", self.nth, pair % KEYS);
        let value = pair.to_string();
        if number % 2 == 1 {
            let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
            client.kv.clone().put(put).await?;
            return Ok(());
        }
        let read = RangeRequest { key: key.into(), ..RangeRequest::default() };
        let found = client.kv.clone().range(read).await?.into_inner();
        let newest = found.kvs.first().is_some_and(|kv| kv.value == value);
        ensure!(newest, "it is not there, or not the newest");
        Ok(())
    }

    /// By what the files hold now; for a moment they may not belong together.
    async fn dialer(&self) -> Result<Dialer> {
        let begun = Instant::now();
        loop {
            let read = |name: &str| fs::read_to_string(self.files.path(name));
            let shows = Some((read("cert.pem")?, read("key.pem")?));
            match Dialer::new(&Trusting { bundle: read("ca.pem")?, shows }, Speaks::Grpc) {
                Err(_) if begun.elapsed() < TORN_MAX => sleep(Duration::from_millis(2)).await,
                made => return made,
            }
        }
    }
}
