//! One life of a member: from opening its disk to the power going, on a runtime of its own.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate::consensus::NoPeers;
use quorate::keyspace::{InitialMember, Keyspace, KeyspaceConfig, Seams};
use quorate::storage::device::double::DoubleDevice;
use quorate::storage::journal::{Journal, JournalOptions, Runner};
use quorate::storage::{EngineKind, StoreOptions, UpkeepRunner};
use quorate::support::clock::Clock;
use quorate::support::spawn::Blocking;
use quorate_core::api::ids::{ClusterId, GroupId, MemberId};

/// The simulated hour: tokio's paused clock.
#[derive(Debug)]
pub struct SimulatedClock {
    start: tokio::time::Instant,
}

impl Clock for SimulatedClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn unix_ms(&self) -> i64 {
        1_700_000_000_000 + i64::try_from(self.start.elapsed().as_millis()).unwrap_or(0)
    }
}

/// The disks of one member: they outlive its process.
#[derive(Clone, Debug, Default)]
pub struct Disks {
    /// Holds the journal's segments.
    pub journal: DoubleDevice,
    /// Holds the bases.
    pub bases: DoubleDevice,
}

impl Disks {
    /// A copy of what they hold now, as a running machine sees it.
    pub fn as_of_now(&self) -> Disks {
        Disks { journal: self.journal.after_kill(), bases: self.bases.after_kill() }
    }

    /// What a machine that lost power would find.
    pub fn after_power_cut(&self, seed: u64) -> Disks {
        Disks {
            journal: self.journal.after_power_cut(seed),
            bases: self.bases.after_power_cut(seed.rotate_left(17)),
        }
    }
}

/// A running member.
pub struct Member {
    /// What clients call.
    pub keyspace: Keyspace,
    /// Its journal, closed by the host.
    pub journal: Journal,
}

/// Opens the member on `disks`; every choice it makes comes from `seed`.
pub async fn open(disks: &Disks, seed: u64) -> Result<Member, String> {
    let clock: Arc<dyn Clock> = Arc::new(SimulatedClock { start: tokio::time::Instant::now() });
    let options = JournalOptions {
        segment_bytes: 256 << 10,
        seed: Some(seed),
        clock: Arc::clone(&clock),
        ..JournalOptions::default()
    };
    let device = Arc::new(disks.journal.clone());
    let journal =
        Journal::open(device, options, Runner::InPlace).map_err(|error| error.to_string())?;
    let member = InitialMember { id: MemberId(1), peer_urls: vec!["http://sim:2380".to_owned()] };
    let config = KeyspaceConfig::single(ClusterId(7), member);
    let bases = Arc::new(disks.bases.clone());
    let mut store = StoreOptions::new(GroupId(0), PathBuf::from("/simulated"), bases);
    store.engine = EngineKind::Memory;
    store.runner = UpkeepRunner::InPlace;
    store.single_voter = true;
    store.base_after_bytes = 128 << 10;
    store.clock = Arc::clone(&clock);
    let seams = Seams {
        clock,
        blocking: Arc::new(Blocking::in_place()),
        transport: Arc::new(NoPeers),
        incarnation: seed,
    };
    let keyspace = Keyspace::open(config, store, journal.group(GroupId(0)), seams)
        .await
        .map_err(|error| error.to_string())?;
    Ok(Member { keyspace, journal })
}

/// Runs one life to its end on a paused, seeded, single-threaded runtime; its tasks die with it.
pub fn live<T>(seed: u64, life: impl Future<Output = T> + Send) -> T {
    runtime(seed).block_on(quorate::consensus::seeded(seed, life))
}

/// More than the shards in which tokio keeps the tasks of a runtime of one thread.
const SHARDS: u64 = 64;

/// Has this run's tasks numbered from a multiple of [`SHARDS`] on. A runtime that ends drops its tasks shard by shard,
/// and the shard of a task is its number, which tokio counts over the whole process: two runs of a seed in one process
/// would part ways there. A run beside another one, on another thread, may still.
pub fn number_tasks_anew() {
    let runtime = runtime(0);
    loop {
        let task = runtime.spawn(async {});
        let number: u64 = task.id().to_string().parse().expect("tokio's task ids are numbers");
        if (number + 1) % SHARDS == 0 {
            break;
        }
    }
}

/// A runtime of one thread whose scheduling is seeded and whose clock moves only when all its tasks wait.
pub fn runtime(seed: u64) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_be_bytes()))
        .build()
        .expect("a runtime without io always builds")
}
