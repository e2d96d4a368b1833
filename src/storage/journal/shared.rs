//! What callers and the writer share: the queue, each group's front, the open segments, the figures.
//!
//! **Invariant:** locks are taken in this order: a group's front, then the queue, then the rest; none is held over a
//! write, a sync or a callback. A change enters the queue under its group's front lock, so that the order in which
//! callers see changes is the order in which they are written.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;

use parking_lot::{Condvar, Mutex};
use quorate_core::api::ids::{GroupId, LogId};

use super::error::JournalError;
use super::ledger::Ledger;
use super::options::{JournalOptions, Runner};
use super::record::{LogRecord, Record, Vote};
use super::runs::Runs;
use crate::storage::device::{LogDevice, LogFile};

/// Called once on the writer's thread, when a change is durable or cannot become so. Must not block.
pub type Done = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

/// Called on the writer's thread after each frame that moved the group's durable end.
pub type DurableListener = Arc<dyn Fn(LogId) + Send + Sync>;

/// A change on its way to the writer.
pub(crate) struct Submission {
    pub(crate) group: Arc<Group>,
    pub(crate) change: Change,
    pub(crate) done: Option<Done>,
}

pub(crate) enum Change {
    /// Entries, the first of which has serial `first_serial`.
    Append { records: Vec<LogRecord>, first_serial: u64 },
    /// A vote, then entries, the first of which has serial `first_serial`, then the stamp that commits the last: one
    /// frame.
    Alone { vote: Vote, records: Vec<LogRecord>, first_serial: u64 },
    /// Any other record.
    Record(Record),
}

impl Change {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Change::Append { records, .. } => bytes_of(records),
            Change::Alone { records, .. } => bytes_alone(records),
            Change::Record(record) => record.size_bound(),
        }
    }

    /// Its caller may wait for it with a thread: the base maker, an installation.
    pub(crate) fn is_waited_for(&self) -> bool {
        match self {
            Change::Record(Record::Base(_) | Record::Install { .. } | Record::GroupDropped) => true,
            Change::Append { .. } | Change::Alone { .. } | Change::Record(_) => false,
        }
    }
}

/// Bytes that these entries take in a frame, or a few more.
fn bytes_of(records: &[LogRecord]) -> usize {
    records.iter().map(|record| record.payload.len() + 64).sum()
}

/// The same with a vote and a stamp.
pub(crate) fn bytes_alone(records: &[LogRecord]) -> usize {
    bytes_of(records) + 128
}

/// The queue before the writer.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) items: VecDeque<Submission>,
    pub(crate) bytes: usize,
    pub(crate) closed: bool,
    /// The journal was dropped, not closed: finish the queue, write no seal.
    pub(crate) abandoned: bool,
    /// The writer sleeps and wants to be woken.
    pub(crate) writer_sleeps: bool,
}

/// One group: what callers see of it.
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) front: Mutex<Front>,
    /// Woken when the group's durable end moves, and when the journal stops.
    pub(crate) durable_moved: Condvar,
}

#[derive(Default)]
pub(crate) struct Front {
    /// As callers see it, ahead of the disk. `committed` is what [`super::GroupLog::set_committed`] said.
    pub(crate) ledger: Ledger,
    /// The newest entries, contiguous up to the last; every one that is not durable is among them.
    pub(crate) tail: VecDeque<TailEntry>,
    /// Serial of the next entry. Serials rise with each append and are never reused, unlike indexes.
    pub(crate) next_serial: u64,
    /// Entries below this serial are durable.
    pub(crate) durable_serial: u64,
    /// Where durable entries lie.
    pub(crate) runs: Runs,
    /// The commit index moved since it was last stamped, and the group is in the list of those.
    pub(crate) stamp_due: bool,
    pub(crate) listeners: Vec<DurableListener>,
}

pub(crate) struct TailEntry {
    pub(crate) record: LogRecord,
    pub(crate) serial: u64,
}

impl Front {
    /// The last entry that is durable, or `purged`.
    pub(crate) fn durable(&self) -> Option<LogId> {
        let durable = self.tail.partition_point(|entry| entry.serial < self.durable_serial);
        match (durable.checked_sub(1), self.tail.front()) {
            (Some(at), _) => Some(self.tail[at].record.id),
            (None, Some(first)) => self.ledger.last_before(first.record.id.index),
            (None, None) => self.ledger.state.last,
        }
    }

    /// Drops durable entries from the tail's old end while `over` bytes are too many; returns what was freed.
    pub(crate) fn evict(&mut self, over: usize) -> usize {
        let mut freed = 0;
        while freed < over {
            match self.tail.front() {
                Some(entry) if entry.serial < self.durable_serial => {
                    freed += entry.record.payload.len();
                    self.tail.pop_front();
                }
                Some(_) | None => break,
            }
        }
        freed
    }

    /// Forgets tail entries that the ledger no longer holds, at either end; returns their bytes.
    pub(crate) fn trim_tail(&mut self) -> usize {
        let mut freed = 0;
        let state = &self.ledger.state;
        let last = state.last.map(|last| last.index);
        while let Some(entry) = self.tail.back() {
            if last.is_some_and(|last| entry.record.id.index <= last) {
                break;
            }
            freed += entry.record.payload.len();
            self.tail.pop_back();
        }
        while let Some(entry) = self.tail.front() {
            if state.purged.is_none_or(|p| entry.record.id.index > p.index) {
                break;
            }
            freed += entry.record.payload.len();
            self.tail.pop_front();
        }
        freed
    }
}

/// A live segment, open for readers.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub(crate) file: Arc<dyn LogFile>,
    pub(crate) salt: u64,
    pub(crate) bytes: u64,
}

#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) bytes_written: AtomicU64,
    pub(crate) frames: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) tail_bytes: AtomicUsize,
    pub(crate) segments_created: AtomicU64,
    pub(crate) segments_recycled: AtomicU64,
}

/// The state behind a [`super::Journal`].
pub(crate) struct Shared {
    pub(crate) device: Arc<dyn LogDevice>,
    pub(crate) options: JournalOptions,
    pub(crate) runner: Runner,
    pub(crate) queue: Mutex<Queue>,
    /// Wakes the writer.
    pub(crate) work: Condvar,
    /// Wakes callers that wait for room in the queue.
    pub(crate) room: Condvar,
    pub(crate) groups: Mutex<BTreeMap<GroupId, Arc<Group>>>,
    pub(crate) segments: Mutex<BTreeMap<u64, Arc<OpenSegment>>>,
    pub(crate) stamps_due: Mutex<Vec<Arc<Group>>>,
    pub(crate) poison: Mutex<Option<String>>,
    pub(crate) poisoned: AtomicBool,
    /// The writer's thread, if it has one.
    pub(crate) writer_thread: OnceLock<ThreadId>,
    pub(crate) figures: Figures,
}

impl Shared {
    /// The group of that id, made if there was none.
    pub(crate) fn group(&self, id: GroupId) -> Arc<Group> {
        let mut groups = self.groups.lock();
        let group = groups.entry(id).or_insert_with(|| {
            Arc::new(Group {
                id,
                front: Mutex::new(Front::default()),
                durable_moved: Condvar::new(),
            })
        });
        Arc::clone(group)
    }

    /// Stops the journal for good, once, and wakes all who wait.
    pub(crate) fn poison(&self, cause: &str) {
        {
            let mut poison = self.poison.lock();
            if poison.is_some() {
                return;
            }
            *poison = Some(cause.to_owned());
            self.poisoned.store(true, Ordering::Release);
        }
        self.options.observer.poisoned(cause);
        self.wake_all();
    }

    pub(crate) fn wake_all(&self) {
        self.room.notify_all();
        let groups: Vec<_> = self.groups.lock().values().cloned().collect();
        for group in groups {
            // The lock makes sure that a waiter either sees the flag or is already waiting.
            drop(group.front.lock());
            group.durable_moved.notify_all();
        }
    }

    /// The error that an earlier failure makes of every call.
    pub(crate) fn refuse_if_poisoned(&self) -> Result<(), JournalError> {
        if !self.poisoned.load(Ordering::Acquire) {
            return Ok(());
        }
        let cause = self.poison.lock().clone().unwrap_or_default();
        Err(JournalError::Poisoned { cause })
    }
}
