//! Opening a member inside its process, and what it runs on.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use quorate::consensus::Members;
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

/// Who was removed is spoken with for so long.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often others are dialled.
const DIAL: Duration = Duration::from_millis(200);

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
        tokio::select! {
            cause = keyspace.failed() => {
                self.fleet.report(self.id, self.life, format!("failed: {cause}"));
            }
            () = removed(&keyspace, &self.fleet, &self.net, self.id) => {
                self.fleet.leave(self.id, self.life);
            }
            never = hang_up_on_who_leaves(&keyspace, &self.net, self.id) => match never {},
        }
    }

    async fn open(&self) -> Result<Keyspace, String> {
        let mut config = KeyspaceConfig::single(ClusterId(7), initial(self.id));
        config.strict_reconfig_check = false;
        match MEMBERS.contains(&self.id) {
            true => config.initial_members = MEMBERS.map(initial).to_vec(),
            false => {
                config.initial_members = Vec::new();
                config.introducers = MEMBERS.map(|id| initial(id).peer_urls[0].clone()).to_vec();
            }
        }
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

/// What the host does (`src/host/membership.rs`): a member that was removed finds it out by itself, and has the time to
/// answer, or is told by any other that it dials.
async fn removed(keyspace: &Keyspace, fleet: &Fleet, net: &Net, id: u64) {
    let applied = async {
        keyspace.removed().await;
        tokio::time::sleep(FAREWELL).await;
    };
    let told = async {
        loop {
            tokio::time::sleep(DIAL).await;
            let own = fleet.member(id);
            if own.is_some_and(|own| net.is_told_of_its_removal(&own, id)) {
                return;
            }
        }
    };
    tokio::select! {
        () = applied => {}
        () = told => {}
    }
}

async fn hang_up_on_who_leaves(keyspace: &Keyspace, net: &Net, id: u64) -> Infallible {
    let mut known = Members::new();
    loop {
        let next = keyspace.members_other_than(&known).await;
        let left: Vec<u64> =
            known.keys().filter(|id| !next.contains_key(id)).map(|id| id.0).collect();
        if !left.is_empty() {
            tokio::time::sleep(FAREWELL).await;
        }
        for other in left {
            net.hang_up(id, other);
        }
        known = next;
    }
}
