//! One group's log, as the floors above use it.
//!
//! Every change is seen by readers when the call returns and is durable when its `done` is called with `Ok`. An error
//! returned by the call means that nothing was queued and `done` is dropped; an error handed to `done` means that the
//! journal has stopped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_core::api::ids::{GroupId, LogId};

use super::Inner;
use super::error::{JournalError, Violation};
use super::options::{Rule, Runner};
use super::reader;
use super::record::{BaseMark, GroupState, InstallMark, LogRecord, Record, Vote};
use super::shared::{
    Change, Done, DurableListener, Front, Group, Submission, TailEntry, bytes_alone,
};

/// A handle on one group of a [`super::Journal`]. Clones are the same group.
#[derive(Clone)]
pub struct GroupLog {
    pub(crate) inner: Arc<Inner>,
    pub(crate) group: Arc<Group>,
}

impl std::fmt::Debug for GroupLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GroupLog({})", self.group.id)
    }
}

impl GroupLog {
    /// Which group.
    pub fn id(&self) -> GroupId {
        self.group.id
    }

    /// The longest payload of an entry, in bytes; [`GroupLog::append`] refuses a longer one.
    pub fn entry_bytes_max(&self) -> usize {
        self.inner.shared.options.entry_bytes_max()
    }

    /// What callers see of the group now, ahead of the disk.
    pub fn state(&self) -> GroupState {
        self.group.front.lock().ledger.state.clone()
    }

    /// The term of the entry at `index`; also of the last purged one.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.group.front.lock().ledger.term_at(index)
    }

    /// Appends entries, contiguous after the last (an empty log takes any first index), terms never falling.
    pub fn append(&self, records: Vec<LogRecord>, done: Done) -> Result<(), JournalError> {
        let limit = self.entry_bytes_max();
        self.submit(done, |front, figures_tail| {
            check_entries(front, &records, limit)?;
            let first_serial = front.next_serial;
            figures_tail.fetch_add(take_entries(front, &records), Ordering::Relaxed);
            Ok(Change::Append { records, first_serial })
        })
    }

    /// Keeps a vote, appends entries and commits them to the last: of all this either everything is durable or nothing.
    /// For a member that asks nobody. Together no longer than one entry may be.
    pub fn decide_alone(
        &self,
        vote: Vote,
        records: Vec<LogRecord>,
        done: Done,
    ) -> Result<(), JournalError> {
        let limit = self.entry_bytes_max();
        self.submit(done, |front, figures_tail| {
            front.ledger.check(&Record::Vote(vote)).map_err(JournalError::Refused)?;
            check_entries(front, &records, limit)?;
            let bytes = bytes_alone(&records);
            if bytes > limit {
                return Err(JournalError::Refused(Violation::TooLarge { bytes, limit }));
            }
            let first_serial = front.next_serial;
            front.ledger.apply(&Record::Vote(vote));
            figures_tail.fetch_add(take_entries(front, &records), Ordering::Relaxed);
            if let Some(last) = records.last() {
                front.ledger.raise_committed(last.id);
            }
            Ok(Change::Alone { vote, records, first_serial })
        })
    }

    /// Keeps a vote; one that the vote held is not superseded by is refused.
    pub fn save_vote(&self, vote: Vote, done: Done) -> Result<(), JournalError> {
        self.change(Record::Vote(vote), done)
    }

    /// Voids entries from `index` on; nothing happens when there are none. Refused at or below the commit index.
    pub fn truncate_from(&self, index: u64, done: Done) -> Result<(), JournalError> {
        self.submit_record(done, |front| {
            let state = &front.ledger.state;
            if state.last.is_none_or(|last| last.index < index) {
                return Ok(None);
            }
            let last = front.ledger.last_before(index);
            Ok(Some(Record::TruncateFrom { from: index, last }))
        })
    }

    /// Lets entries up to `id` go; refused above the base. Not waited for: losing it is harmless.
    pub fn purge_to(&self, id: LogId) -> Result<(), JournalError> {
        self.submit_record(Box::new(|_| {}), |front| {
            let purged = front.ledger.state.purged;
            if purged.is_some_and(|purged| purged.index >= id.index) {
                return Ok(None);
            }
            Ok(Some(Record::PurgedTo(id)))
        })
    }

    /// Tells the commit index. Kept in memory; written into a later frame, once the group's entries in it and
    /// before it hold `id`. Never falls.
    pub fn set_committed(&self, id: LogId) {
        let mut front = self.group.front.lock();
        let held = front.ledger.state.committed;
        if held.is_some_and(|held| held.index >= id.index) {
            return;
        }
        front.ledger.state.committed = Some(id);
        if !front.stamp_due {
            front.stamp_due = true;
            let mut due = self.inner.shared.stamps_due.lock();
            due.push(Arc::clone(&self.group));
        }
    }

    /// Names a base file that is whole and synced. Entries up to it may then be purged.
    pub fn mark_base(&self, mark: BaseMark, done: Done) -> Result<(), JournalError> {
        self.change(Record::Base(mark), done)
    }

    /// A snapshot takes the place of the state and of the log up to it. Entries above it stay only if the log holds
    /// the snapshot's own id; the mark's base must be at that id. Its file must be whole and synced.
    pub fn install(&self, mark: InstallMark, done: Done) -> Result<(), JournalError> {
        let drops = self.inner.shared.options.keeps(Rule::InstallDrops);
        self.submit_record(done, |front| {
            let past = front.ledger.state.last.is_some_and(|l| l.index > mark.snapshot.index);
            let keeps_log = front.ledger.holds(mark.snapshot) || (!drops && past);
            Ok(Some(Record::Install { mark, keeps_log }))
        })
    }

    /// Forgets the group and all its entries.
    pub fn drop_group(&self, done: Done) -> Result<(), JournalError> {
        self.change(Record::GroupDropped, done)
    }

    /// Bytes of this group's entries that the journal keeps: what a base at its end would let go.
    pub fn retained_bytes(&self) -> u64 {
        self.group.front.lock().runs.bytes()
    }

    /// Whether this group keeps the oldest segment of a journal that is above its cap: it should write a base.
    pub fn pins_oldest(&self) -> bool {
        let journal = super::Journal { inner: Arc::clone(&self.inner) };
        journal.oldest_pinner() == Some(self.group.id)
    }

    /// Whether the journal asks for growth to be refused: see [`super::Journal::growth_refused`].
    pub fn growth_refused(&self, reserve: u64) -> bool {
        let journal = super::Journal { inner: Arc::clone(&self.inner) };
        journal.growth_refused(reserve)
    }

    /// The last entry that is synced (or purged).
    pub fn durable(&self) -> Option<LogId> {
        self.group.front.lock().durable()
    }

    /// Waits until the log's entries up to index `index` are synced; `false` when `timeout` passed first.
    /// For threads that may block; without a writer's thread it only looks.
    pub fn wait_durable(&self, index: u64, timeout: Duration) -> Result<bool, JournalError> {
        let mut front = self.group.front.lock();
        loop {
            if front.durable().is_some_and(|durable| durable.index >= index) {
                return Ok(true);
            }
            self.inner.shared.refuse_if_poisoned()?;
            if self.inner.shared.queue.lock().closed {
                return Err(JournalError::Closed);
            }
            if !self.inner.shared.runner.has_threads() {
                return Ok(false);
            }
            let wait = self.group.durable_moved.wait_for(&mut front, timeout);
            if wait.timed_out() {
                return Ok(front.durable().is_some_and(|durable| durable.index >= index));
            }
        }
    }

    /// Registers `listener`, told the durable end after each frame that moved it, on the writer's thread.
    pub fn on_durable(&self, listener: DurableListener) {
        self.group.front.lock().listeners.push(listener);
    }

    /// Whether [`GroupLog::entries`] from `from` on takes no disk.
    pub fn is_in_memory(&self, from: u64) -> bool {
        let front = self.group.front.lock();
        let first = front.tail.front().map(|entry| entry.record.id.index);
        first.is_none_or(|first| first <= from) || front.ledger.state.last.is_none()
    }

    /// Entries `from .. to_exclusive` that exist, in order, until about `max_bytes` of payload: at least one if there
    /// is any. From memory where it reaches, else from disk with the frame's CRC checked.
    pub fn entries(
        &self,
        from: u64,
        to_exclusive: u64,
        max_bytes: usize,
    ) -> Result<Vec<LogRecord>, JournalError> {
        let mut out = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        let mut purged_meanwhile = false;
        loop {
            let place = {
                let front = self.group.front.lock();
                if let Some(purged) = front.ledger.state.purged.filter(|p| next <= p.index) {
                    // Nothing of what was read before is given: the caller asks again, from above.
                    return Err(JournalError::Purged { purged, asked: from });
                }
                let Some(last) = front.ledger.state.last else {
                    return Ok(out);
                };
                next = next.max(front.ledger.first_index());
                let end = to_exclusive.min(last.index.saturating_add(1));
                let first_in_tail = front.tail.front().map(|entry| entry.record.id.index);
                if let Some(first) = first_in_tail.filter(|first| next >= *first) {
                    let skip = usize::try_from(next - first).unwrap_or(usize::MAX);
                    let rest = front.tail.iter().skip(skip).map(|entry| &entry.record);
                    take(rest.cloned(), &mut next, end, max_bytes, &mut bytes, &mut out);
                    return Ok(out);
                }
                if next >= end || (bytes >= max_bytes && !out.is_empty()) {
                    return Ok(out);
                }
                let Some(run) = front.runs.find(next) else {
                    return Err(JournalError::Damaged {
                        file: "memory".to_owned(),
                        offset: next,
                        reason: format!("entry {next} of group {} has no place", self.group.id),
                    });
                };
                (run.place(), end.min(run.end()))
            };
            match reader::entries_at(&self.inner.shared, self.group.id, place.0, next, place.1) {
                Ok(found) => {
                    let end = place.1;
                    take(found.into_iter(), &mut next, end, max_bytes, &mut bytes, &mut out);
                }
                // The segment may have been freed or the entries moved since the lock was released: look once more.
                Err(error) if purged_meanwhile => return Err(error),
                Err(_) => purged_meanwhile = true,
            }
        }
    }

    fn change(&self, record: Record, done: Done) -> Result<(), JournalError> {
        self.submit_record(done, |_| Ok(Some(record)))
    }

    fn submit_record(
        &self,
        done: Done,
        make: impl FnOnce(&Front) -> Result<Option<Record>, JournalError>,
    ) -> Result<(), JournalError> {
        self.submit(done, |front, tail_bytes| {
            let Some(record) = make(front)? else {
                return Ok(Change::Append { records: Vec::new(), first_serial: front.next_serial });
            };
            front.ledger.check(&record).map_err(JournalError::Refused)?;
            front.ledger.apply(&record);
            tail_bytes.fetch_sub(front.trim_tail(), Ordering::Relaxed);
            Ok(Change::Record(record))
        })
    }

    fn submit(
        &self,
        done: Done,
        make: impl FnOnce(&mut Front, &std::sync::atomic::AtomicUsize) -> Result<Change, JournalError>,
    ) -> Result<(), JournalError> {
        let shared = &self.inner.shared;
        shared.refuse_if_poisoned()?;
        self.inner.wait_for_room()?;
        let (wake, waits) = {
            let mut front = self.group.front.lock();
            let change = make(&mut front, &shared.figures.tail_bytes)?;
            let waits = change.is_waited_for();
            let mut queue = shared.queue.lock();
            if queue.closed {
                // Closed since there was room: the writer may have taken its last look.
                return Err(JournalError::Closed);
            }
            queue.bytes += change.bytes();
            queue.items.push_back(Submission {
                group: Arc::clone(&self.group),
                change,
                done: Some(done),
            });
            (std::mem::take(&mut queue.writer_sleeps), waits)
        };
        if wake {
            shared.work.notify_one();
        }
        match shared.runner {
            Runner::InPlace => self.inner.drive(),
            Runner::Stepped if waits => self.inner.drive(),
            Runner::Thread | Runner::Stepped => {}
        }
        Ok(())
    }
}

/// Shows entries to readers; returns their bytes.
fn take_entries(front: &mut Front, records: &[LogRecord]) -> usize {
    let mut bytes = 0;
    for record in records {
        front.ledger.append(record.id);
        bytes += record.payload.len();
        front.tail.push_back(TailEntry { record: record.clone(), serial: front.next_serial });
        front.next_serial += 1;
    }
    bytes
}

fn check_entries(front: &Front, records: &[LogRecord], limit: usize) -> Result<(), JournalError> {
    let mut last = None::<LogId>;
    for record in records {
        let bytes = record.payload.len();
        let check = match last {
            _ if bytes > limit => Err(Violation::TooLarge { bytes, limit }),
            None => front.ledger.check_entry(record.id, false),
            Some(last) if last.index + 1 == record.id.index && record.id.term >= last.term => {
                Ok(())
            }
            Some(last) => Err(Violation::NotContiguous { expected: Some(last), found: record.id }),
        };
        check.map_err(JournalError::Refused)?;
        last = Some(record.id);
    }
    Ok(())
}

fn take(
    records: impl Iterator<Item = LogRecord>,
    next: &mut u64,
    end: u64,
    max_bytes: usize,
    bytes: &mut usize,
    out: &mut Vec<LogRecord>,
) {
    for record in records {
        let full = !out.is_empty() && *bytes + record.payload.len() > max_bytes;
        if *next >= end || full {
            if full {
                *bytes = max_bytes;
            }
            return;
        }
        debug_assert_eq!(record.id.index, *next);
        *bytes += record.payload.len();
        *next += 1;
        out.push(record);
    }
}
