//! Making a base in the background and letting the journal behind it go.
//!
//! ```text
//!   due? ──▶ freeze (records, content sum, revision)          upkeep thread
//!        ──▶ copy history block by block, hashes checked      a thread of its own, in the background, paced
//!        ──▶ sum equal to the frozen one? ──no──▶ the base is thrown away, the state store distrusted
//!        ──▶ fsync, read back (paced), rename, dir fsync ──▶ GroupLog::mark_base ──▶ purge ──▶ old base removed
//! ```
//!
//! Requests wait neither for a lock nor for a file of this, but they share the disk and the cores with it: so nothing
//! here is done as fast as it could be.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::api::batch::Space;
use quorate_core::api::ids::{LogId, Revision};

use super::base::{
    BaseError, BaseReader, BaseWriter, Pace, Part, Preamble, Written, base_name, check_block,
    temporary,
};
use super::device::BACKGROUND_PACE;
use super::engine_sled::is_full;
use super::error::StoreError;
use super::format::ContentSum;
use super::history::{Block, BlockBuilder, Header};
use super::journal::{BaseMark, Done, JournalError};
use super::key_space::{headers_key, headers_key_revision, values_key};
use super::options::Meter;
use super::shared::Shared;
use super::source::{BaseSource, membership_in};
use super::upkeep::{Step, Upkeep};
use crate::support::spawn::background_thread;

/// Reading back leaves nothing for the journal's syncs to wait for: it may go so many times as fast.
const READ_BACK_SPEED: f64 = 2.0;
/// Bytes read back between two looks at the pace: what is checked of them takes less than a millisecond.
const READ_BACK_BYTES: u64 = 256 << 10;
/// How often a base whose mark waits looks whether the store closes.
const MARK_LOOK: Duration = Duration::from_millis(100);
/// Rounds of upkeep before a base is tried again for which there was no room.
const REST_AFTER_FULL: u32 = 25;

/// The state at one log id, but for its history, which does not change.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) at: LogId,
    pub(crate) generation: u64,
    pub(crate) revision: i64,
    pub(crate) records: Vec<(Space, Bytes, Bytes)>,
    pub(crate) content: ContentSum,
}

pub(crate) type BaseOutcome = Result<BaseMark, StoreError>;

impl Upkeep {
    /// Begins a base if one is due or was asked for.
    pub(crate) fn begin_base(&mut self) -> Result<Step, StoreError> {
        if self.base_rest > 0 {
            self.base_rest -= 1;
            return Ok(Step::Idle);
        }
        let Some(applied) = self.applied.filter(|_| self.base_is_due()) else {
            return Ok(Step::Idle);
        };
        let seconds = &self.shared.meter.seconds;
        let frozen = self.shared.timed(&seconds.freeze, || self.freeze(applied))?;
        self.shared.orders.lock().base_wanted = false;
        self.shared.meter.since_base.store(0, Ordering::Relaxed);
        self.shared.meter.requests_since_base.store(0, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        if self.is_in_place() {
            let outcome = shared.timed(&shared.meter.seconds.base, || make_base(&shared, &frozen));
            self.settle_base(outcome)?;
            return Ok(Step::Worked);
        }
        let spawned = background_thread("base", move || {
            let outcome = shared.timed(&shared.meter.seconds.base, || make_base(&shared, &frozen));
            shared.orders.lock().base_outcome = Some(outcome);
            shared.wake.notify_all();
        });
        self.base_task = Some(spawned.map_err(BaseError::Io)?);
        Ok(Step::Worked)
    }

    fn base_is_due(&self) -> bool {
        let at = self.shared.base.lock().as_ref().map(|base| (base.at, base.len));
        let (base_at, base_len) = at.map_or((None, 0), |(at, len)| (Some(at), len));
        if base_at.is_some() && base_at >= self.applied {
            self.shared.orders.lock().base_wanted = false;
            return false;
        }
        let (meter, options) = (&self.shared.meter, &self.shared.options);
        let grown = meter.since_base.load(Ordering::Relaxed);
        let requests = meter.requests_since_base.load(Ordering::Relaxed);
        // In neither case are more bytes written for bases than there are of changes.
        let many = grown > options.base_after_bytes || requests > options.base_after_requests;
        let wanted = self.shared.orders.lock().base_wanted;
        (many && grown > base_len)
            || wanted
            || (self.is_purged_to(base_at) && self.shared.log.pins_oldest())
    }

    /// Another base would let more of the log go than the last one does.
    fn is_purged_to(&self, base_at: Option<LogId>) -> bool {
        let purged = self.shared.log.state().purged;
        base_at.is_none_or(|at| purged.is_some_and(|purged| purged.index >= at.index))
    }

    /// Takes the outcome of a base that has been written.
    pub(crate) fn collect_base(&mut self) -> Result<(), StoreError> {
        if self.base_task.as_ref().is_none_or(|task| !task.is_finished()) {
            return Ok(());
        }
        let Some(task) = self.base_task.take() else {
            return Ok(());
        };
        // It may have waited for this base; the next one may be due already.
        self.owes_defrag = self.defrag.is_some();
        let _panicked = task.join();
        let outcome = self.shared.orders.lock().base_outcome.take();
        self.settle_base(outcome.unwrap_or_else(|| {
            Err(BaseError::Source("the thread that wrote it panicked".to_owned()).into())
        }))
    }

    fn settle_base(&mut self, outcome: BaseOutcome) -> Result<(), StoreError> {
        match outcome {
            Ok(mark) => {
                tracing::info!(group = self.shared.options.group.0, at = %mark.at, bytes = mark.len, "base written");
                Ok(())
            }
            Err(StoreError::Base(BaseError::Cancelled)) => Ok(()),
            // Not enough room, or a disk that will not take it now: the journal is kept, and it is tried again.
            Err(StoreError::Base(BaseError::Io(error))) => {
                tracing::warn!(group = self.shared.options.group.0, %error, full = is_full(&error), "base not written");
                self.shared.orders.lock().base_wanted = true;
                self.base_rest = REST_AFTER_FULL;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Writes, verifies, marks.
fn make_base(shared: &Shared, frozen: &Frozen) -> BaseOutcome {
    let device = &shared.options.device;
    let _under_way = shared.meter.begin_base();
    let temporary = temporary(frozen.generation);
    let written = write_base(shared, frozen, &temporary);
    let written = match written {
        Ok(written) => written,
        Err(error) => {
            let _ = device.remove(&temporary);
            return Err(error);
        }
    };
    let name = base_name(frozen.generation, frozen.at);
    device.rename(&temporary, &name).map_err(BaseError::Io)?;
    device.sync_dir().map_err(BaseError::Io)?;
    let mark = BaseMark {
        at: frozen.at,
        generation: frozen.generation,
        file_name: name,
        len: written.len,
        content_hash: written.hash,
    };
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let done = Box::new(move |result| {
        let _gone = sender.send(result);
    });
    mark_base(shared, mark.clone(), done)?;
    await_mark(shared, &receiver)?;
    let membership = membership_in(&frozen.records)?.unwrap_or_default();
    let source = BaseSource::of(&shared.options, &mark, membership)?;
    let old = shared.base.lock().replace(mark.clone());
    *shared.source.lock() = Some(Arc::new(source));
    shared.tell_marked(mark.at);
    shared.forget_overtaken(mark.at).map_err(BaseError::Io)?;
    if let Some(old) = old.filter(|old| old.file_name != mark.file_name) {
        let removed = device.remove(&old.file_name);
        removed.and_then(|()| device.sync_dir()).map_err(BaseError::Io)?;
    }
    shared.meter.bases.fetch_add(1, Ordering::Relaxed);
    Ok(mark)
}

/// Hands the journal the record, unless this generation is being replaced: then its bases count no more.
fn mark_base(shared: &Shared, mark: BaseMark, done: Done) -> Result<(), StoreError> {
    let may_mark = shared.may_mark.lock();
    if !*may_mark {
        return Err(BaseError::Cancelled.into());
    }
    Ok(shared.log.mark_base(mark, done)?)
}

/// Waits for the journal's word. While it waits for space it has none, and the store may be closed before it does.
fn await_mark(
    shared: &Shared,
    told: &Receiver<Result<(), JournalError>>,
) -> Result<(), StoreError> {
    loop {
        match told.recv_timeout(MARK_LOOK) {
            Ok(result) => return Ok(result?),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(StoreError::Stopped("the journal is closed".to_owned()));
            }
            Err(RecvTimeoutError::Timeout) if shared.orders.lock().closing => {
                return Err(BaseError::Cancelled.into());
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn write_base(shared: &Shared, frozen: &Frozen, temporary: &str) -> Result<Written, StoreError> {
    let device = &shared.options.device;
    let file = device.create(temporary).map_err(BaseError::Io)?;
    let preamble = Preamble {
        group: shared.options.group,
        generation: frozen.generation,
        at: frozen.at,
        revision: frozen.revision,
    };
    let mut writing = Pacer::new(shared, 1.0);
    let mut pace = |bytes| {
        Meter::add(&shared.meter.base, bytes);
        writing.pace(bytes)
    };
    let mut writer = BaseWriter::begin(Arc::clone(&file), &preamble, &mut pace)?;
    writer.records(&frozen.records)?;
    copy_history(shared, frozen.revision, &mut writer)?;
    if writer.content() != frozen.content {
        let words =
            format!("its content is {:?}, the batches made {:?}", writer.content(), frozen.content);
        return Err(BaseError::Source(words).into());
    }
    let written = shared.timed(&shared.meter.seconds.base_sync, || writer.finish())?;
    file.forget_cached().map_err(BaseError::Io)?;
    let file = device.open(temporary).map_err(BaseError::Io)?;
    let mut reading = Pacer::new(shared, READ_BACK_SPEED);
    verify(file, &preamble, &written, &mut |bytes| reading.pace(bytes))?;
    Ok(written)
}

/// Copies every block up to main revision `to`, checking each value.
fn copy_history(shared: &Shared, to: i64, writer: &mut BaseWriter<'_>) -> Result<(), StoreError> {
    let engine = shared.engine();
    let low = headers_key(Revision::default());
    let high = headers_key(Revision::new(to + 1, 0));
    let mut result = Ok(());
    engine.scan(&low, &high, &mut |key, headers| {
        let copied = headers_key_revision(&key).map_err(StoreError::from).and_then(|first| {
            let values = engine.get(&values_key(first))?;
            let values = values.ok_or_else(|| {
                BaseError::Source(format!("the values of block {first} are missing"))
            })?;
            copy_block(first, &headers, values, to, writer)
        });
        match copied {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                result = Err(error);
                ControlFlow::Break(())
            }
        }
    })?;
    result
}

fn copy_block(
    first: Revision,
    headers: &Bytes,
    values: Bytes,
    to: i64,
    writer: &mut BaseWriter<'_>,
) -> Result<(), StoreError> {
    let source =
        |error: super::format::Malformed| BaseError::Source(format!("block {first}: {error}"));
    let decoded = Block::decode_headers(first, headers).map_err(source)?;
    // A block that grew since the headers were read: what follows belongs to later revisions.
    let total: usize = decoded.iter().map(|header| header.value_len).sum();
    if total > values.len() {
        return Err(BaseError::Source(format!("block {first}: its values are too short")).into());
    }
    let values = values.slice(..total);
    let checked = check_block(first, headers, &values).map_err(source)?;
    let kept = checked.partition_point(|header| header.revision.main <= to);
    let hashes = checked[..kept].iter().map(Header::content_hash);
    if kept == checked.len() {
        return Ok(writer.block(first, headers, &values, hashes)?);
    }
    let mut trimmed: Option<BlockBuilder> = None;
    let mut at = 0;
    for header in &checked[..kept] {
        let value = &values[at..at + header.value_len];
        at += header.value_len;
        match &mut trimmed {
            Some(block) => block.push(header, value),
            None => trimmed = Some(BlockBuilder::begin(header, value)),
        }
    }
    match trimmed {
        Some(block) => Ok(writer.block(block.first(), block.headers(), block.values(), hashes)?),
        None => Ok(()),
    }
}

/// Reads the file back and compares it with what was to be written.
fn verify(
    file: Arc<dyn super::device::LogFile>,
    preamble: &Preamble,
    written: &Written,
    pace: &mut Pace<'_>,
) -> Result<(), BaseError> {
    let mut reader = BaseReader::begin(file, written.len)?;
    let mut paced = 0;
    while let Some(part) = reader.next()? {
        if let Part::Block { first, headers, values } = part {
            let checked = check_block(first, &headers, &values)?;
            reader.count(&checked);
        }
        let more = reader.position() - paced;
        if more >= READ_BACK_BYTES {
            paced += more;
            if pace(more).is_break() {
                return Err(BaseError::Cancelled);
            }
        }
    }
    if reader.preamble() != *preamble || reader.finish()? != *written {
        return Err(BaseError::Damaged("it reads back otherwise than it was written".to_owned()));
    }
    Ok(())
}

/// Keeps a base to twice the journal's own pace, or `speed` times that, so that the journal's syncs do not wait
/// behind it.
pub(crate) struct Pacer<'a> {
    shared: &'a Shared,
    speed: f64,
    started: Duration,
    committed_before: u64,
    moved: u64,
}

impl<'a> Pacer<'a> {
    pub(crate) fn new(shared: &'a Shared, speed: f64) -> Self {
        Pacer {
            shared,
            speed,
            started: shared.options.clock.monotonic(),
            committed_before: shared.meter.committed.load(Ordering::Relaxed),
            moved: 0,
        }
    }

    pub(crate) fn pace(&mut self, bytes: u64) -> ControlFlow<()> {
        self.moved += bytes;
        let in_place = self.shared.options.runner == super::options::UpkeepRunner::InPlace;
        let mut orders = self.shared.orders.lock();
        loop {
            if orders.closing || self.shared.stopped.load(Ordering::Acquire) {
                return ControlFlow::Break(());
            }
            let elapsed = self.shared.options.clock.monotonic().saturating_sub(self.started);
            let committed =
                self.shared.meter.committed.load(Ordering::Relaxed) - self.committed_before;
            let allowed = (elapsed.as_secs_f64() * BACKGROUND_PACE).max(2.0 * committed as f64);
            let ahead = self.moved as f64 - allowed * self.speed;
            if in_place || ahead <= 0.0 {
                return ControlFlow::Continue(());
            }
            let wait = ahead / (BACKGROUND_PACE * self.speed);
            let wait = Duration::from_secs_f64(wait.clamp(0.001, 0.1));
            self.shared.wake.wait_for(&mut orders, wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::api::ids::GroupId;

    use super::*;
    use crate::storage::device::LogDevice;
    use crate::storage::device::double::DoubleDevice;

    fn revision_block(main: i64) -> BlockBuilder {
        let value = vec![main as u8; 30_000];
        let header = Header {
            revision: Revision::new(main, 0),
            tombstone: false,
            key: Bytes::from_static(b"key"),
            create_revision: 1,
            version: main,
            lease: 0,
            value_len: value.len(),
            value_hash: super::super::format::xxh3(&value),
        };
        BlockBuilder::begin(&header, &value)
    }

    /// A base that is read back as fast as it can be takes a whole core, and the disk with it.
    #[test]
    fn a_base_is_read_back_at_a_pace_and_may_be_called_off() {
        let device = DoubleDevice::default();
        let preamble =
            Preamble { group: GroupId(0), generation: 0, at: LogId::new(1, 100), revision: 100 };
        let mut free = |_| ControlFlow::Continue(());
        let file = device.create(&temporary(0)).unwrap();
        let mut writer = BaseWriter::begin(Arc::clone(&file), &preamble, &mut free).unwrap();
        for main in 1..=100 {
            let block = revision_block(main);
            let headers = Block::decode_headers(block.first(), &block.headers().to_vec().into());
            let hashes: Vec<_> = headers.unwrap().iter().map(Header::content_hash).collect();
            let hashes = hashes.into_iter();
            writer.block(block.first(), block.headers(), block.values(), hashes).unwrap();
        }
        let written = writer.finish().unwrap();
        let mut paced = Vec::new();
        let mut pace = |bytes| {
            paced.push(bytes);
            ControlFlow::Continue(())
        };
        verify(Arc::clone(&file), &preamble, &written, &mut pace).unwrap();
        let all: u64 = paced.iter().sum();
        assert!(written.len - all < READ_BACK_BYTES, "{all} of {} bytes were paced", written.len);
        assert!(paced.iter().all(|bytes| *bytes < 2 * READ_BACK_BYTES), "{paced:?}");
        let mut off = |_| ControlFlow::Break(());
        let called_off = verify(file, &preamble, &written, &mut off);
        assert!(matches!(called_off, Err(BaseError::Cancelled)), "{called_off:?}");
    }
}
