//! Opening one of three members inside its process, and what it runs on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use quorate::keyspace::{InitialMember, Keyspace, KeyspaceConfig, Seams};
use quorate::storage::journal::GroupLog;
use quorate::storage::{EngineKind, StoreOptions, UpkeepRunner};
use quorate::support::clock::Clock;
use quorate::support::spawn::Blocking;
use quorate_core::api::ids::{ClusterId, GroupId, MemberId};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::fleet::{Fleet, MEMBERS, Running};
use super::net::{Net, Port};
use crate::life::Disks;

/// The clock of a member's runtime, and a wall clock that may jump.
#[derive(Debug)]
pub struct LocalClock {
    start: tokio::time::Instant,
    wall_offset_ms: Arc<AtomicI64>,
}

impl LocalClock {
    /// To be made inside the runtime.
    pub fn new(wall_offset_ms: Arc<AtomicI64>) -> LocalClock {
        LocalClock { start: tokio::time::Instant::now(), wall_offset_ms }
    }
}

impl Clock for LocalClock {
    fn monotonic(&self) -> Duration {
        // Outside the runtime its paused clock cannot be read; nothing there measures time.
        match Handle::try_current() {
            Ok(_) => self.start.elapsed(),
            Err(_) => Duration::ZERO,
        }
    }

    fn unix_ms(&self) -> i64 {
        let since = i64::try_from(self.monotonic().as_millis()).unwrap_or(0);
        1_700_000_000_000 + since + self.wall_offset_ms.load(Ordering::Relaxed)
    }
}

fn initial(id: u64) -> InitialMember {
    InitialMember { id: MemberId(id), peer_urls: vec![format!("http://m{id}:2380")] }
}

/// A process that has just started.
pub struct Start {
    pub fleet: Arc<Fleet>,
    pub net: Arc<Net>,
    pub id: u64,
    pub life: u64,
    pub log: GroupLog,
    pub disks: Disks,
    pub clock: Arc<dyn Clock>,
    pub handle: Handle,
    pub still: (watch::Sender<bool>, watch::Receiver<bool>),
}

impl Start {
    /// Opens the keyspace, attaches it, and reports its failure if there is one.
    pub async fn run(self) {
        let keyspace = match self.open().await {
            Ok(keyspace) => keyspace,
            Err(error) => {
                return self.fleet.report(self.id, self.life, format!("does not start: {error}"));
            }
        };
        let (tell, still) = self.still;
        let running = Running {
            life: self.life,
            keyspace: keyspace.clone(),
            log: self.log,
            disks: self.disks,
            handle: self.handle,
            still,
        };
        self.fleet.attach(self.id, running, tell);
        let cause = keyspace.failed().await;
        self.fleet.report(self.id, self.life, format!("failed: {cause}"));
    }

    async fn open(&self) -> Result<Keyspace, String> {
        let mut config = KeyspaceConfig::single(ClusterId(7), initial(self.id));
        config.initial_members = MEMBERS.map(initial).to_vec();
        config.name = format!("m{}", self.id);
        let bases = Arc::new(self.disks.bases.clone());
        let mut store = StoreOptions::new(GroupId(0), PathBuf::from("/simulated"), bases);
        store.engine = EngineKind::Memory;
        store.runner = UpkeepRunner::InPlace;
        store.clock = Arc::clone(&self.clock);
        // Bases, and so purges, every few seconds: who is away for long is brought up by a whole state.
        store.base_after_bytes = 16 << 10;
        store.flush_bytes = 8 << 10;
        config.catch_up_requests = 20;
        config.snapshots.piece_bytes = 16 << 10;
        config.snapshots.bytes_per_second = 256 << 10;
        let transport = Port { net: Arc::clone(&self.net), id: self.id, life: self.life };
        let seams = Seams {
            clock: Arc::clone(&self.clock),
            blocking: Arc::new(Blocking::in_place()),
            transport: Arc::new(transport),
            incarnation: self.life,
        };
        let opened = Keyspace::open(config, store, self.log.clone(), seams).await;
        opened.map_err(|error| error.to_string())
    }
}
