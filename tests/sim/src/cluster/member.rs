//! Starting one of three members, and what it runs on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use quorate::keyspace::{InitialMember, Keyspace, KeyspaceConfig, Seams};
use quorate::storage::journal::{GroupLog, Journal, JournalOptions, Runner};
use quorate::storage::{EngineKind, StoreOptions, UpkeepRunner};
use quorate::support::clock::Clock;
use quorate::support::spawn::Blocking;
use quorate_core::api::ids::{ClusterId, GroupId, MemberId};

use super::net::{End, Net};
use crate::life::Disks;

pub const MEMBERS: [u64; 3] = [1, 2, 3];

/// tokio's paused clock, and an hour that may jump.
#[derive(Debug)]
pub struct JumpingClock {
    start: tokio::time::Instant,
    pub offset_ms: Arc<AtomicI64>,
}

impl Clock for JumpingClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn unix_ms(&self) -> i64 {
        let since = i64::try_from(self.start.elapsed().as_millis()).unwrap_or(0);
        1_700_000_000_000 + since + self.offset_ms.load(Ordering::Relaxed)
    }
}

fn initial(id: u64) -> InitialMember {
    InitialMember { id: MemberId(id), peer_urls: vec![format!("http://m{id}:2380")] }
}

/// Opens member `id` on `disks` and attaches it to the network.
pub async fn start(
    net: &Arc<Net>,
    id: u64,
    life: u64,
    disks: &Disks,
    offset_ms: &Arc<AtomicI64>,
) -> Result<(Keyspace, GroupLog), String> {
    net.begin(id, life);
    let clock: Arc<dyn Clock> = Arc::new(JumpingClock {
        start: tokio::time::Instant::now(),
        offset_ms: Arc::clone(offset_ms),
    });
    let options = JournalOptions {
        segment_bytes: 1 << 20,
        seed: Some(life),
        clock: Arc::clone(&clock),
        ..JournalOptions::default()
    };
    let device = Arc::new(disks.journal.clone());
    let journal =
        Journal::open(device, options, Runner::InPlace).map_err(|error| error.to_string())?;
    let mut config = KeyspaceConfig::single(ClusterId(7), initial(id));
    config.initial_members = MEMBERS.map(initial).to_vec();
    config.name = format!("m{id}");
    let bases = Arc::new(disks.bases.clone());
    let mut store = StoreOptions::new(GroupId(0), PathBuf::from("/simulated"), bases);
    store.engine = EngineKind::Memory;
    store.runner = UpkeepRunner::InPlace;
    store.clock = Arc::clone(&clock);
    // No base, so no purge: whole states between members are not sent yet.
    store.base_after_bytes = 1 << 30;
    let seams = Seams {
        clock,
        blocking: Arc::new(Blocking::in_place()),
        transport: Arc::new(End { net: Arc::clone(net), id, life }),
        incarnation: life,
    };
    let log = journal.group(GroupId(0));
    let keyspace = Keyspace::open(config, store, log.clone(), seams)
        .await
        .map_err(|error| error.to_string())?;
    net.attach(id, life, keyspace.clone(), disks.clone());
    Ok((keyspace, log))
}
