//! How a store is set up, and how it tells what it does.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_core::api::ids::{GroupId, MemberId};

use super::device::LogDevice;
use super::figures::StoreSeconds;
use crate::support::clock::{Clock, SystemClock};

/// What keeps the state between a base and the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// sled, in `state-<generation>` of the group's folder.
    Sled,
    /// A map that is gone with the process: each start rebuilds it. For simulation.
    Memory,
}

/// Who does the background work: writing the state store, compaction, bases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpkeepRunner {
    /// Threads of the store's own, joined when it closes.
    Threads,
    /// The caller of [`super::Store::commit`], now and then: for simulation and tests.
    InPlace,
}

/// Settings of one keyspace's store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Which keyspace.
    pub group: GroupId,
    /// The group's folder, where sled lives: [`super::directory::Directory::group`].
    pub folder: PathBuf,
    /// The same folder as a device, for bases.
    pub device: Arc<dyn LogDevice>,
    /// What keeps the state.
    pub engine: EngineKind,
    /// Who does the background work.
    pub runner: UpkeepRunner,
    /// sled's page cache, in bytes.
    pub sled_cache_bytes: u64,
    /// The tick of sled's own flusher and garbage collector; `None`: neither runs.
    pub sled_tick: Option<Duration>,
    /// Memory for what is committed and not yet in the state store; when full, [`super::Store::tail_pressure`].
    pub tail_bytes: usize,
    /// Cache of decoded blocks for cold reads, in bytes.
    pub block_cache_bytes: usize,
    /// Newest values that the index keeps in memory, in bytes.
    pub value_budget_bytes: usize,
    /// The state store is written when the tail has grown to this many bytes ...
    pub flush_bytes: usize,
    /// ... or this long after the last time.
    pub flush_every: Duration,
    /// A base is written when the journal since the last has grown beyond this and beyond that base's size.
    pub base_after_bytes: u64,
    /// ... or when it has grown by this many requests and beyond the last base's size.
    pub base_after_requests: u64,
    /// Apply the whole journal, not only up to the commit index: right only for a group of a single voter.
    pub single_voter: bool,
    /// Apply the whole journal while the membership in force has this voter and no other.
    pub lone_voter: Option<MemberId>,
    /// Make this member the only one and apply the whole journal, whoever was in its cluster: for when a quorum is lost
    /// for good.
    pub forced_voter: Option<MemberId>,
    /// Growth is refused while the disk has less than two segments of the journal, the last base's size and this
    /// many bytes free.
    pub reserve_bytes: u64,
    /// Where time is read.
    pub clock: Arc<dyn Clock>,
}

/// Three of sled's segments: without them it is not written, and less is never gained by making it anew.
pub(crate) const STATE_STORE_ROOM: u64 = 12 << 20;

impl StoreOptions {
    /// Whether the state store may be written: sled never works again once the disk refuses it a segment.
    pub(crate) fn state_store_has_room(&self) -> bool {
        self.engine == EngineKind::Memory || self.has_room(STATE_STORE_ROOM)
    }

    /// Whether whoever commits does the background work.
    pub(crate) fn runs_in_place(&self) -> bool {
        self.runner == UpkeepRunner::InPlace
    }

    /// Whether so many bytes are free; a disk that cannot be asked is no reason to stop.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.device.free_space().map_or(true, |free| free >= bytes)
    }

    /// Bytes beside the journal's own reserve below which growth is refused, with a last base of `base` bytes. Once
    /// it is refused, an eighth more must be free before it goes on.
    pub(crate) fn reserve_for(&self, base: u64) -> u64 {
        let reserve = self.reserve_bytes.saturating_add(base);
        reserve.saturating_add(reserve / 8)
    }

    /// The daemon's settings for `group` in `folder`.
    pub fn new(group: GroupId, folder: PathBuf, device: Arc<dyn LogDevice>) -> Self {
        StoreOptions {
            group,
            folder,
            device,
            engine: EngineKind::Sled,
            runner: UpkeepRunner::Threads,
            sled_cache_bytes: 32 << 20,
            sled_tick: None,
            tail_bytes: 64 << 20,
            block_cache_bytes: 16 << 20,
            value_budget_bytes: 64 << 20,
            flush_bytes: 512 << 10,
            flush_every: Duration::from_millis(200),
            base_after_bytes: 64 << 20,
            base_after_requests: u64::MAX,
            single_voter: false,
            lone_voter: None,
            forced_voter: None,
            reserve_bytes: 16 << 20,
            clock: Arc::new(SystemClock::default()),
        }
    }
}

/// Bytes moved since the store was opened, for metrics. Goes on over installs.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) state_store: AtomicU64,
    pub(crate) base: AtomicU64,
    pub(crate) bases: AtomicU64,
    pub(crate) base_in_progress: AtomicBool,
    /// Bytes that entered the state store since the last base was begun.
    pub(crate) since_base: AtomicU64,
    /// And requests, each entry being at least one.
    pub(crate) requests_since_base: AtomicU64,
    pub(crate) committed: AtomicU64,
    /// Bytes of other members' bases that came in.
    pub(crate) received: AtomicU64,
    /// Generations that came into force.
    pub(crate) installs: AtomicU64,
    /// A defragmentation is under way.
    pub(crate) defragmenting: AtomicBool,
    pub(crate) seconds: StoreSeconds,
}

/// A reading of the store's figures, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreFigures {
    /// Bytes handed to the state store; sled itself writes some three times as many.
    pub state_store_bytes: u64,
    /// Bytes of bases written.
    pub base_bytes: u64,
    /// Bases written and marked.
    pub bases: u64,
    /// A base is being written, verified or marked now.
    pub base_in_progress: bool,
    /// Size of the base that the journal names; 0 before the first.
    pub base_size_bytes: u64,
    /// Bytes that entered the state store since the last base was begun: beyond `base_after_bytes` and that base's
    /// size, the next is due.
    pub since_base_bytes: u64,
    /// Requests since then: beyond `base_after_requests` it is due once the bytes are beyond that base's size.
    pub since_base_requests: u64,
    /// Bytes of keys, values and records committed.
    pub committed_bytes: u64,
    /// Bytes of other members' bases received.
    pub received_bytes: u64,
    /// States of other members that took the place of this one's.
    pub installs: u64,
    /// Bytes in the memory tail now.
    pub tail_bytes: u64,
    /// Size of the state store's files now.
    pub state_store_files_bytes: u64,
    /// A defragmentation is under way.
    pub defragmenting: bool,
    /// Views that somebody holds.
    pub readers: u64,
}

impl Meter {
    pub(crate) fn add(counter: &AtomicU64, bytes: u64) {
        counter.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Says that a base is being written, until the answer is dropped.
    pub(crate) fn begin_base(&self) -> BaseUnderWay<'_> {
        self.base_in_progress.store(true, Ordering::Release);
        BaseUnderWay(&self.base_in_progress)
    }
}

/// A base is being written as long as this lives.
#[derive(Debug)]
pub(crate) struct BaseUnderWay<'a>(&'a AtomicBool);

impl Drop for BaseUnderWay<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
