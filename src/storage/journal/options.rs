//! How a journal is set up, and how it tells what it does.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use super::error::JournalId;
use super::frame::{FRAME_HEADER, FRAME_MAX};
use super::record::ENTRY_OVERHEAD;
use super::segment::SEGMENT_HEADER;
use crate::support::clock::{Clock, SystemClock};

/// Settings of one journal. Nothing here is written down except the segment size, which each segment's header names:
/// it may change from one start to the next.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// Size of a new segment in bytes; a multiple of 4096, at least 16 KiB.
    pub segment_bytes: u64,
    /// Bytes of live segments above which the oldest pinner is asked for a base (rule 9).
    pub retained_bytes_max: u64,
    /// Bytes of entries kept in memory for readers, all groups together.
    pub tail_bytes: usize,
    /// Bytes queued for the writer above which a caller waits.
    pub queue_bytes_max: usize,
    /// Without work for this long, a seal frame is written.
    pub idle_seal: Duration,
    /// The journal that must be found; `None` on the first start of a directory without identity.
    pub expected: Option<JournalId>,
    /// Seed of ids and salts, for simulation; `None` draws them from the system.
    pub seed: Option<u64>,
    /// Where durations are read.
    pub clock: Arc<dyn Clock>,
    /// Who is told about syncs.
    pub observer: Arc<dyn JournalObserver>,
    /// A rule taken out, to prove the test that guards it.
    #[cfg(test)]
    pub(crate) broken: Option<Rule>,
}

impl Default for JournalOptions {
    fn default() -> Self {
        JournalOptions {
            segment_bytes: 64 << 20,
            retained_bytes_max: 2 << 30,
            tail_bytes: 64 << 20,
            queue_bytes_max: 64 << 20,
            idle_seal: Duration::from_millis(10),
            expected: None,
            seed: None,
            clock: Arc::new(SystemClock::default()),
            observer: Arc::new(Unobserved),
            #[cfg(test)]
            broken: None,
        }
    }
}

impl JournalOptions {
    /// The longest entry's payload, in bytes: a quarter of a segment, and what a frame holds.
    pub fn entry_bytes_max(&self) -> usize {
        entry_bytes_max(self.segment_bytes)
    }

    /// Whether `rule` is in force: always, but in the tests that take one out.
    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        #[cfg(test)]
        {
            self.broken != Some(rule)
        }
        #[cfg(not(test))]
        {
            let _ = rule;
            true
        }
    }
}

/// The longest payload of an entry in a journal of segments of `segment_bytes`, in bytes.
pub fn entry_bytes_max(segment_bytes: u64) -> usize {
    let quarter = segment_bytes.saturating_sub(SEGMENT_HEADER as u64) / 4;
    let quarter = usize::try_from(quarter).unwrap_or(usize::MAX);
    quarter.min(FRAME_MAX - FRAME_HEADER - ENTRY_OVERHEAD - 64)
}

/// The rules of the journal that a test can take out, by the number they have in docs/DATA_FORMAT.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// 1: a bad frame with proof of later durable ones refuses.
    RotRefuses,
    /// 2: sizes, chains and headers are checked.
    ChainChecked,
    /// 2: the CRC is seeded with the segment's salt.
    SaltSeedsCrc,
    /// 3: frames above the durable sequence are written anew.
    Rewrites,
    /// 4: the floor is synced before a segment is reused.
    FloorFirst,
    /// 4: a segment's name is synced before its first frame.
    NameSynced,
    /// 5: a seal frame follows the last frame.
    Seals,
    /// 6: a failed write or sync poisons.
    Poisons,
    /// 7: a commit stamp stays within the group's written entries.
    StampsWithin,
    /// 8: replay checks indexes, truncations and votes.
    ReplayChecks,
    /// 9: a group's state is restated at the head of each segment, from the writer's table.
    Restates,
    /// 9: entries that pin the oldest segment are moved when the journal is over its limit.
    MovesPinned,
    /// 10: install drops a log that does not hold the snapshot's id.
    InstallDrops,
}

/// Who runs the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runner {
    /// A thread of its own, and one that prepares segments.
    Thread,
    /// The caller's thread, within the call: for simulation and tests. No seal is written when idle;
    /// [`super::Journal::idle`] does it.
    InPlace,
    /// Whoever calls [`super::Journal::step`], when it likes: for a simulated disk that takes its time. Marks, which
    /// a caller may wait for on its own thread, are written within the call, and with them all that waits.
    Stepped,
}

impl Runner {
    pub(crate) fn has_threads(self) -> bool {
        match self {
            Runner::Thread => true,
            Runner::InPlace | Runner::Stepped => false,
        }
    }
}

/// One synced frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameFigures {
    /// Records in it.
    pub records: u32,
    /// Its bytes, header and padding included.
    pub bytes: u32,
    /// Time of the write.
    pub write: Duration,
    /// Time of the fdatasync.
    pub sync: Duration,
}

/// Told on the writer's thread; must not block, nor call the journal.
pub trait JournalObserver: Send + Sync + Debug {
    /// A data frame is durable; its callers are answered next.
    fn frame_synced(&self, figures: FrameFigures) {
        let _ = figures;
    }
    /// The journal has stopped for good.
    fn poisoned(&self, cause: &str) {
        let _ = cause;
    }
}

/// Nobody watches.
#[derive(Debug)]
pub struct Unobserved;

impl JournalObserver for Unobserved {}
