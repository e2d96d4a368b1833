//! The writer: takes what is queued, composes frames, writes and syncs them one at a time, answers.
//!
//! ```text
//!   queue ──all of it──▶ compose ──▶ frame ──write, fdatasync──▶ publish (runs, durable end) ──▶ callbacks
//!                           │  full                                   │
//!                           └──▶ flush, or a new segment              └──▶ a higher floor frees segments
//! ```
//!
//! One frame is in flight: while it syncs, the queue grows, and the next frame is as large as the disk is slow.
//!
//! **Invariant:** when a frame is written, every data frame before it is synced.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_core::api::ids::GroupId;
use rand::rngs::StdRng;

use super::error::{JournalError, JournalId};
use super::frame::{self, FRAME_HEADER, FRAME_MAX};
use super::ledger::Ledger;
use super::options::{FrameFigures, Rule};
use super::pool::Pool;
use super::record::{ENTRY_OVERHEAD, LogRecord, RECORD_HEADER, Record, Seal, Vote};
use super::runs::{Place, Run};
use super::segment::FileName;
use super::shared::{Change, Done, Group, Shared, Submission};
use crate::storage::device::LogFile;
use crate::support::failpoints::failpoint;

/// Kept free at a segment's end: a seal frame, and the padding of the frame before it.
pub(crate) const SEAL_ROOM: u64 = (FRAME_HEADER + RECORD_HEADER + 16) as u64;
/// Memory kept for composing the next frame, after one that needed more.
const DRAFT_KEPT: usize = 4 << 20;
const STAMP_BYTES: usize = RECORD_HEADER + 8;

/// The segment that frames go to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn LogFile>,
    pub(crate) salt: u64,
    pub(crate) bytes: u64,
    /// Where the next frame goes.
    pub(crate) offset: u64,
    /// The name it still has, while it is being recovered into.
    pub(crate) staged_as: Option<String>,
}

/// One group as written: ahead of the disk by at most the frame being composed.
pub(crate) struct Written {
    pub(crate) ledger: Ledger,
    pub(crate) group: Arc<Group>,
}

/// What a synced record means for the group's front.
pub(crate) enum Note {
    Entries { first: u64, count: u32, bytes: u32, end_serial: u64 },
    Restated { first: u64, count: u32, bytes: u32 },
    TruncatedFrom(u64),
    PurgedTo(u64),
    Cleared,
}

/// The frame being composed.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) bytes: Vec<u8>,
    pub(crate) records: u32,
    notes: Vec<(Arc<Group>, Note)>,
    done: Vec<Done>,
}

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) journal: JournalId,
    pub(crate) rng: StdRng,
    pub(crate) active: Active,
    /// The sequence of the next frame.
    pub(crate) sequence: u64,
    /// The newest frame known to be synced.
    pub(crate) durable: u64,
    /// The CRC of the last frame.
    pub(crate) chain: u32,
    /// The first segment needed.
    pub(crate) floor: u64,
    pub(crate) written: BTreeMap<GroupId, Written>,
    /// The last frame written is a seal.
    pub(crate) sealed: bool,
    /// Something let entries go since the floor was last looked at.
    pub(crate) floor_due: bool,
    pub(crate) frame: Draft,
}

/// Where a journal stands when its writer starts.
pub(crate) struct Position {
    pub(crate) active: Active,
    pub(crate) sequence: u64,
    pub(crate) durable: u64,
    pub(crate) chain: u32,
    pub(crate) floor: u64,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        pool: Arc<Pool>,
        journal: JournalId,
        rng: StdRng,
        at: Position,
    ) -> Writer {
        Writer {
            shared,
            pool,
            journal,
            rng,
            active: at.active,
            sequence: at.sequence,
            durable: at.durable,
            chain: at.chain,
            floor: at.floor,
            written: BTreeMap::new(),
            sealed: false,
            floor_due: true,
            frame: Draft::default(),
        }
    }

    /// Writes all of `batch` and answers every caller, with the error if there is one.
    pub(crate) fn process(&mut self, mut batch: VecDeque<Submission>) {
        let written = self
            .shared
            .refuse_if_poisoned()
            .and_then(|()| self.compose_all(&mut batch))
            .and_then(|()| self.flush());
        if let Err(error) = written {
            self.fail(&error, batch);
        }
    }

    fn fail(&mut self, error: &JournalError, batch: VecDeque<Submission>) {
        if self.shared.options.keeps(Rule::Poisons) {
            self.shared.poison(&error.to_string());
        }
        let frame = std::mem::take(&mut self.frame);
        let waiting = batch.into_iter().filter_map(|submission| submission.done);
        for done in frame.done.into_iter().chain(waiting) {
            done(Err(error.clone()));
        }
    }

    fn compose_all(&mut self, batch: &mut VecDeque<Submission>) -> Result<(), JournalError> {
        while let Some(mut submission) = batch.pop_front() {
            let done = submission.done.take();
            let composed = self.compose(submission);
            self.frame.done.extend(done);
            composed?;
        }
        Ok(())
    }

    fn compose(&mut self, submission: Submission) -> Result<(), JournalError> {
        let group = submission.group;
        let size = submission.change.bytes();
        match submission.change {
            Change::Append { records, first_serial } => {
                for (serial, record) in (first_serial + 1..).zip(&records) {
                    self.add_entry(&group, record, Some(serial))?;
                }
                Ok(())
            }
            Change::Alone { vote, records, first_serial } => {
                // What follows needs no more: it is all in one frame.
                self.reserve(size)?;
                self.add_alone(&group, vote, &records, first_serial)
            }
            Change::Record(record) => self.add_record(&group, &record),
        }
    }

    fn add_alone(
        &mut self,
        group: &Arc<Group>,
        vote: Vote,
        records: &[LogRecord],
        first_serial: u64,
    ) -> Result<(), JournalError> {
        self.add_record(group, &Record::Vote(vote))?;
        for (serial, record) in (first_serial + 1..).zip(records) {
            self.add_entry(group, record, Some(serial))?;
        }
        match records.last() {
            Some(last) => self.add_record(group, &Record::Committed(last.id)),
            None => Ok(()),
        }
    }

    /// Adds an entry to the frame: a new one, or one `restated` when it has no serial.
    pub(crate) fn add_entry(
        &mut self,
        group: &Arc<Group>,
        record: &LogRecord,
        end_serial: Option<u64>,
    ) -> Result<(), JournalError> {
        self.reserve(ENTRY_OVERHEAD + record.payload.len())?;
        let restated = end_serial.is_none();
        let ledger = &mut written_entry(&mut self.written, group).ledger;
        let check = ledger.check_entry(record.id, restated);
        check.map_err(JournalError::Refused)?;
        if !restated {
            ledger.append(record.id);
        }
        super::record::encode_entry(group.id, record, restated, &mut self.frame.bytes);
        self.frame.records += 1;
        self.note_entry(group, record, end_serial);
        Ok(())
    }

    fn note_entry(&mut self, group: &Arc<Group>, record: &LogRecord, end_serial: Option<u64>) {
        let more = u32::try_from(record.payload.len()).expect("an entry fits a frame");
        let index = record.id.index;
        if let Some((last, note)) = self.frame.notes.last_mut()
            && Arc::ptr_eq(last, group)
        {
            match (note, end_serial) {
                (Note::Entries { first, count, bytes, end_serial }, Some(serial))
                    if *first + u64::from(*count) == index =>
                {
                    *count += 1;
                    *bytes += more;
                    *end_serial = serial;
                    return;
                }
                (Note::Restated { first, count, bytes }, None)
                    if *first + u64::from(*count) == index =>
                {
                    *count += 1;
                    *bytes += more;
                    return;
                }
                _other_stretch => {}
            }
        }
        let note = match end_serial {
            Some(end_serial) => Note::Entries { first: index, count: 1, bytes: more, end_serial },
            None => Note::Restated { first: index, count: 1, bytes: more },
        };
        self.frame.notes.push((Arc::clone(group), note));
    }

    /// Adds any other record to the frame.
    pub(crate) fn add_record(
        &mut self,
        group: &Arc<Group>,
        record: &Record,
    ) -> Result<(), JournalError> {
        self.reserve(record.size_bound())?;
        let ledger = &mut written_entry(&mut self.written, group).ledger;
        ledger.check(record).map_err(JournalError::Refused)?;
        ledger.apply(record);
        self.push(group.id, record);
        let note = match record {
            Record::TruncateFrom { from, .. } => Some(Note::TruncatedFrom(*from)),
            Record::PurgedTo(id) => Some(Note::PurgedTo(id.index)),
            Record::Install { mark, keeps_log: true } => Some(Note::PurgedTo(mark.snapshot.index)),
            Record::Install { keeps_log: false, .. } => Some(Note::Cleared),
            Record::GroupDropped => {
                self.written.remove(&group.id);
                Some(Note::Cleared)
            }
            Record::Entry { .. }
            | Record::Vote(_)
            | Record::Committed(_)
            | Record::Base(_)
            | Record::GroupState(_)
            | Record::Floor(_)
            | Record::Seal(_) => None,
        };
        if let Some(note) = note {
            self.floor_due |= !matches!(note, Note::TruncatedFrom(_));
            self.frame.notes.push((Arc::clone(group), note));
        }
        Ok(())
    }

    pub(crate) fn push(&mut self, group: GroupId, record: &Record) {
        if self.frame.bytes.is_empty() {
            self.frame.bytes.resize(FRAME_HEADER, 0);
        }
        record.encode(group, &mut self.frame.bytes);
        self.frame.records += 1;
    }

    /// Makes room for `size` more bytes in the frame, by flushing it or by going on to a new segment.
    pub(crate) fn reserve(&mut self, size: usize) -> Result<(), JournalError> {
        let mut rotated = false;
        loop {
            if self.frame.bytes.is_empty() {
                self.frame.bytes.resize(FRAME_HEADER, 0);
            }
            if self.frame.bytes.len() + size <= self.frame_limit() {
                return Ok(());
            }
            if self.frame.records > 0 {
                self.flush()?;
                continue;
            }
            if rotated {
                return Err(JournalError::Poisoned {
                    cause: format!("a record of {size} bytes does not fit a segment"),
                });
            }
            self.rotate()?;
            rotated = true;
        }
    }

    /// The length that a frame may have now.
    pub(crate) fn frame_limit(&self) -> usize {
        let room = (self.active.bytes - SEAL_ROOM).saturating_sub(self.active.offset);
        usize::try_from(room).map_or(FRAME_MAX, |room| room.min(FRAME_MAX))
    }

    /// Adds commit stamps (rule 7) of groups whose commit index moved and whose written entries reach it.
    fn stamp(&mut self) {
        let due = std::mem::take(&mut *self.shared.stamps_due.lock());
        let within = self.shared.options.keeps(Rule::StampsWithin);
        let mut later = Vec::new();
        for group in due {
            let mut front = group.front.lock();
            front.stamp_due = false;
            let Some(committed) = front.ledger.state.committed else {
                continue;
            };
            let Some(written) = self.written.get_mut(&group.id) else {
                // Its first entries are still in the queue.
                front.stamp_due = true;
                drop(front);
                later.push(group);
                continue;
            };
            let stamped = written.ledger.state.committed;
            if stamped.is_some_and(|stamped| stamped.index >= committed.index) {
                continue;
            }
            if self.frame.bytes.is_empty() {
                self.frame.bytes.resize(FRAME_HEADER, 0);
            }
            let limit = (self.active.bytes - SEAL_ROOM).saturating_sub(self.active.offset);
            let fits =
                ((self.frame.bytes.len() + STAMP_BYTES) as u64) <= limit.min(FRAME_MAX as u64);
            if fits && (!within || written.ledger.holds(committed)) {
                let record = Record::Committed(committed);
                written.ledger.apply(&record);
                record.encode(group.id, &mut self.frame.bytes);
                self.frame.records += 1;
            } else {
                front.stamp_due = true;
                drop(front);
                later.push(group);
            }
        }
        if !later.is_empty() {
            self.shared.stamps_due.lock().extend(later);
        }
    }

    /// Writes the frame, syncs it, answers its callers; then sees whether segments can be freed.
    pub(crate) fn flush(&mut self) -> Result<(), JournalError> {
        self.stamp();
        if self.frame.records > 0 {
            self.write_frame(true)?;
        }
        self.publish();
        if self.floor_due {
            self.floor_due = false;
            self.raise_floor()?;
        }
        Ok(())
    }

    pub(crate) fn write_frame(&mut self, sync: bool) -> Result<(), JournalError> {
        let active = &mut self.active;
        let salt = if self.shared.options.keeps(Rule::SaltSeedsCrc) { active.salt } else { 0 };
        let frame = &mut self.frame;
        let crc = frame::finish(
            &mut frame.bytes,
            salt,
            active.offset,
            self.chain,
            self.sequence,
            self.durable,
            frame.records,
        );
        let clock = &self.shared.options.clock;
        let begun = clock.monotonic();
        let name = || FileName::live(active.number);
        let write = active.file.write_at(active.offset, &frame.bytes);
        write.map_err(|e| JournalError::io(format!("writing {}", name()))(e))?;
        let written = clock.monotonic();
        if sync {
            failpoint!(walBeforeSync);
            let synced = active.file.sync_data();
            failpoint!(walAfterSync);
            if self.shared.options.keeps(Rule::Poisons) {
                synced.map_err(|e| JournalError::io(format!("syncing {}", name()))(e))?;
            }
        }
        let synced = clock.monotonic();
        let length = frame.bytes.len() as u64;
        self.shared.figures.bytes_written.fetch_add(length, Ordering::Relaxed);
        active.offset += length;
        self.chain = crc;
        self.sequence += 1;
        self.sealed = false;
        if sync {
            self.durable = self.sequence - 1;
            self.count(written.saturating_sub(begun), synced.saturating_sub(written));
        }
        self.ask_ahead();
        Ok(())
    }

    /// Asks for the next segment in time: in the second half of this one, or at once where a start made it short.
    fn ask_ahead(&self) {
        let Active { offset, bytes, .. } = self.active;
        if offset > bytes / 2 || bytes < self.shared.options.segment_bytes {
            self.pool.request(offset, bytes);
        }
    }

    fn count(&self, write: Duration, sync: Duration) {
        let figures = &self.shared.figures;
        figures.frames.fetch_add(1, Ordering::Relaxed);
        figures.syncs.fetch_add(1, Ordering::Relaxed);
        let records = u64::from(self.frame.records);
        figures.records.fetch_add(records, Ordering::Relaxed);
        self.shared.options.observer.frame_synced(FrameFigures {
            records: self.frame.records,
            bytes: u32::try_from(self.frame.bytes.len()).expect("a frame is at most 16 MiB"),
            write,
            sync,
        });
    }

    /// Tells the fronts what is durable now, then the callers. The draft is empty afterwards.
    pub(crate) fn publish(&mut self) {
        let length = self.frame.bytes.len() as u64;
        let place = Place {
            segment: self.active.number,
            offset: self.active.offset.saturating_sub(length),
        };
        self.frame.bytes.clear();
        self.frame.bytes.shrink_to(DRAFT_KEPT);
        self.frame.records = 0;
        let notes = std::mem::take(&mut self.frame.notes);
        for (group, note) in &notes {
            self.publish_note(group, note, place);
        }
        for done in self.frame.done.drain(..) {
            done(Ok(()));
        }
        self.evict_anywhere();
        self.frame.notes = notes;
        self.frame.notes.clear();
    }

    /// Keeps the tail within its budget when the groups just written have nothing more to give.
    fn evict_anywhere(&self) {
        let tail = &self.shared.figures.tail_bytes;
        for written in self.written.values() {
            let over = tail.load(Ordering::Relaxed).saturating_sub(self.shared.options.tail_bytes);
            if over == 0 {
                return;
            }
            let freed = written.group.front.lock().evict(over);
            tail.fetch_sub(freed, Ordering::Relaxed);
        }
    }

    fn publish_note(&self, group: &Arc<Group>, note: &Note, place: Place) {
        let tail = &self.shared.figures.tail_bytes;
        let mut front = group.front.lock();
        match note {
            Note::Entries { first, count, bytes, end_serial } => {
                front.runs.push(Run::new(*first, *count, place, *bytes));
                front.durable_serial = front.durable_serial.max(*end_serial);
                let over =
                    tail.load(Ordering::Relaxed).saturating_sub(self.shared.options.tail_bytes);
                if over > 0 {
                    tail.fetch_sub(front.evict(over), Ordering::Relaxed);
                }
            }
            Note::Restated { first, count, bytes } => {
                front.runs.relocate(Run::new(*first, *count, place, *bytes));
            }
            Note::TruncatedFrom(from) => front.runs.truncate_from(*from),
            Note::PurgedTo(index) => front.runs.purge_to(*index),
            Note::Cleared => front.runs.clear(),
        }
        let listeners = front.listeners.clone();
        let durable = front.durable();
        drop(front);
        group.durable_moved.notify_all();
        if let Some(durable) = durable {
            for listener in listeners {
                listener(durable);
            }
        }
    }

    /// A frame that proves the one before it, written without a sync when idle (rule 5), with one when closing.
    pub(crate) fn seal(&mut self, closing: bool) -> Result<(), JournalError> {
        self.shared.refuse_if_poisoned()?;
        if closing {
            let due = self.shared.stamps_due.lock().len();
            if due > 0 {
                self.reserve(due * STAMP_BYTES)?;
            }
            self.flush()?;
            self.sync_idle_seal()?;
        } else {
            self.stamp();
        }
        if !self.shared.options.keeps(Rule::Seals) {
            return self.flush();
        }
        let room = self.active.bytes - self.active.offset;
        if self.sealed && !closing && self.frame.records == 0
            || room < (FRAME_HEADER + RECORD_HEADER) as u64
        {
            self.sealed = true;
            return Ok(());
        }
        let seal = if closing { Seal::Closing } else { Seal::Idle };
        self.push(GroupId::default(), &Record::Seal(seal));
        self.write_frame(closing)?;
        self.publish();
        self.sealed = true;
        Ok(())
    }

    /// Poisons after a failed seal or close; such a failure has no caller to tell.
    pub(crate) fn seal_or_poison(&mut self, closing: bool) -> Result<(), JournalError> {
        let sealed = self.seal(closing);
        if let Err(error) = &sealed {
            self.fail(error, VecDeque::new());
        }
        sealed
    }
}

/// The writer's table of `group`, begun if it has none.
pub(crate) fn written_entry<'a>(
    written: &'a mut BTreeMap<GroupId, Written>,
    group: &Arc<Group>,
) -> &'a mut Written {
    written
        .entry(group.id)
        .or_insert_with(|| Written { ledger: Ledger::default(), group: Arc::clone(group) })
}
