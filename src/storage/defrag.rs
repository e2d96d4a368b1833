//! Defragmentation: the content moves to a fresh state store while everything else goes on.
//!
//! ```text
//!   asked ──▶ dead revisions dropped ──▶ copied, a piece at a time and at a pace ──▶ mark ──▶ flushed ──▶ swap ──▶ told
//!                                          ▲                                        a thread of its own
//!   what is written meanwhile ─────────────┴── to both stores, as far as the copy has come; blocks begun since, always
//!   state-0: read until the swap, removed when nobody reads it any more; then a new base is made
//! ```
//!
//! A crash before the mark leaves the old store in charge; one after it finds two whole ones, of which the newer is
//! taken; the older goes only when the newer has been flushed ([`open`](super::open)).
//!
//! **Invariant:** below its place the fresh store has exactly what the old one has, and all blocks that were begun after
//! the copy was; of the rest, nothing.
//! **Invariant:** what is to be copied does not grow: no load outruns the copy.
//! **Invariant:** a failure of the fresh store is no failure of the store: its folder goes, and the old one stays.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_core::api::batch::Space;
use quorate_core::api::ids::Revision;

use super::base::check_block;
use super::device::BACKGROUND_PACE;
use super::engine::{Engine, EngineBatch, EngineError};
use super::error::StoreError;
use super::folders::{engine_folder, open_engine};
use super::format::revision_key;
use super::install::BUILD_SPEED;
use super::key_space::{
    HEADERS, STATE_MARK, VALUES, headers_key, headers_key_revision, values_key,
};
use super::options::{EngineKind, Meter, STATE_STORE_ROOM};
use super::renew::{SLED_FACTOR, Stopped, remove};
use super::shared::Shared;
use super::upkeep::{Step, Upkeep};
use crate::support::failpoints::failpoint;
use crate::support::spawn::background_thread;

/// Bytes that are copied between two looks at the pace and at what else there is to do.
const PIECE_BYTES: u64 = 256 << 10;
/// Pieces of one turn, while the upkeep has other work too.
const TURN_PIECES: u32 = 4;
/// Between two looks while a store is copied, or waits for its flush.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// Rounds of dropping before the copy begins anyway: compactions may go on for ever.
const DROP_ROUNDS: u32 = 16;

/// One defragmentation under way.
pub(crate) struct Defrag {
    /// Whoever asked up to here is served by it.
    ticket: u64,
    began: Duration,
    stage: Stage,
}

enum Stage {
    /// What is dead goes first, so that it is not copied. The serial is the store's at the beginning.
    Dropping {
        rounds: u32,
        serial: u32,
    },
    Copying(Copy),
    /// Whole, marked, and on its way to the disk.
    Flushing(Copy, Flush),
}

/// A fresh state store that is being filled.
pub(crate) struct Copy {
    fresh: Arc<dyn Engine>,
    serial: u32,
    place: Place,
    /// Above all blocks that were there when the copy began: those from here on go to both stores.
    end: Revision,
    began: Duration,
    moved: u64,
}

/// How far a copy has come: everything below is in it.
enum Place {
    /// Blocks that begin before this revision; no records.
    Blocks(Revision),
    /// All blocks, and the records below this key.
    Records(Vec<u8>),
    /// Everything, and the mark.
    Whole,
}

/// A flush in a thread of its own.
struct Flush {
    thread: Option<JoinHandle<()>>,
    outcome: Arc<Mutex<Option<Result<(), EngineError>>>>,
}

/// The last defragmentation that ended: whom it served, and why it failed, if it did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served {
    pub(crate) ticket: u64,
    pub(crate) failed: Option<String>,
}

/// A state store whose place was taken, until nobody reads it.
pub(crate) struct Stale {
    engine: Arc<dyn Engine>,
    folder: PathBuf,
}

impl Upkeep {
    /// Does the next bounded piece of a defragmentation that was asked for.
    pub(crate) fn defragment(&mut self) -> Result<Step, StoreError> {
        let Some(Defrag { ticket, began, stage }) = self.defrag.take() else {
            return Ok(self.begin_defrag());
        };
        let next = match stage {
            Stage::Dropping { rounds, serial } => self.drop_before_copy(rounds, serial),
            Stage::Copying(copy) => self.copy_some(copy),
            Stage::Flushing(copy, flush) => self.await_flush(copy, flush),
        };
        match next {
            Ok((Some(stage), step)) => {
                self.defrag = Some(Defrag { ticket, began, stage });
                Ok(step)
            }
            Ok((None, _)) => {
                self.end_defrag(ticket, began, None);
                Ok(Step::Worked)
            }
            Err(Stopped::Old(error)) => {
                self.end_defrag(ticket, began, Some(error.to_string()));
                Err(error)
            }
            Err(Stopped::New(error)) => {
                self.end_defrag(ticket, began, Some(error.to_string()));
                Ok(Step::Worked)
            }
            Err(Stopped::NoRoom) => {
                let words = "no space left on device".to_owned();
                self.end_defrag(ticket, began, Some(words));
                Ok(Step::Worked)
            }
        }
    }

    fn begin_defrag(&mut self) -> Step {
        let asked = self.shared.orders.lock().defrag_asked;
        if asked <= self.shared.defragmented.borrow().ticket {
            return Step::Idle;
        }
        let (size, in_use) = {
            let accounted = self.shared.size.lock();
            (accounted.size(), accounted.in_use())
        };
        tracing::info!(
            group = self.shared.options.group.0,
            "current-db-size-bytes" = size,
            "current-db-size-in-use-bytes" = in_use,
            "defragmenting"
        );
        self.shared.meter.defragmenting.store(true, Ordering::Release);
        let began = self.shared.options.clock.monotonic();
        let stage = Stage::Dropping { rounds: 0, serial: self.serial };
        self.defrag = Some(Defrag { ticket: asked, began, stage });
        Step::Worked
    }

    fn end_defrag(&mut self, ticket: u64, began: Duration, failed: Option<String>) {
        let shared = &self.shared;
        let took = shared.options.clock.monotonic().saturating_sub(began);
        shared.meter.defragmenting.store(false, Ordering::Release);
        shared.meter.seconds.defragment.observe(took.as_secs_f64());
        let (group, took_ms) = (shared.options.group.0, took.as_millis() as u64);
        match &failed {
            None => {
                let accounted = *shared.size.lock();
                tracing::info!(
                    group,
                    "current-db-size-bytes" = accounted.size(),
                    "current-db-size-in-use-bytes" = accounted.in_use(),
                    took_ms,
                    "finished defragmenting"
                );
            }
            Some(reason) => {
                tracing::warn!(group, error = reason, took_ms, "failed to defragment");
            }
        }
        shared.defragmented.send_replace(Served { ticket, failed });
    }

    /// Lets what is dead go: it would be copied else.
    fn drop_before_copy(&mut self, rounds: u32, serial: u32) -> Next {
        let here = |rounds| Some(Stage::Dropping { rounds, serial });
        if self.serial != serial {
            // The disk was short, and a fresh store has been made without what is dead.
            self.shared.size.lock().defragment();
            return Ok((None, Step::Worked));
        }
        if self.pass.is_some() || self.base_task.is_some() {
            return Ok((here(rounds), Step::Idle));
        }
        let dead = {
            let mut orders = self.shared.orders.lock();
            orders.dead_grew = false;
            !orders.dead.is_empty()
        };
        if dead && rounds < DROP_ROUNDS {
            self.begin_pass();
            // No copy is under way: where the disk is short this may do it all.
            self.begin_renewal()?;
            return Ok((here(rounds + 1), Step::Worked));
        }
        if self.shared.options.engine == EngineKind::Memory || self.applied.is_none() {
            self.shared.size.lock().defragment();
            return Ok((None, Step::Worked));
        }
        Ok((Some(Stage::Copying(self.begin_copy()?)), Step::Worked))
    }

    fn begin_copy(&mut self) -> Result<Copy, Stopped> {
        let shared = Arc::clone(&self.shared);
        let live = SLED_FACTOR * shared.size.lock().in_use();
        let wanted = live.min(shared.engine().size_on_disk()) + STATE_STORE_ROOM;
        if !shared.options.has_room(wanted) {
            return Err(Stopped::NoRoom);
        }
        failpoint!(defragOpenFileError, |words| return Err(refused(words)));
        let serial = self.next_serial();
        let fresh = open_engine(&shared.options, shared.generation, serial)
            .map_err(|error| Stopped::New(error.into()))?;
        let began = shared.options.clock.monotonic();
        let place = Place::Blocks(Revision::default());
        failpoint!(defragBeforeCopy);
        let end = end_of_blocks(&*shared.engine())?;
        Ok(Copy { fresh, serial, place, end, began, moved: 0 })
    }

    fn copy_some(&mut self, mut copy: Copy) -> Next {
        if copy.is_ahead(&self.shared) {
            return Ok((Some(Stage::Copying(copy)), Step::Idle));
        }
        if let Err(error) = copy.turn(&self.shared) {
            self.give_up(copy);
            return Err(error);
        }
        if !matches!(copy.place, Place::Whole) {
            return Ok((Some(Stage::Copying(copy)), Step::Worked));
        }
        if let Some(applied) = self.applied {
            let mut batch = EngineBatch::default();
            batch.put(STATE_MARK.to_vec(), self.mark(applied, self.content).encode());
            if let Err(error) = copy.fresh.commit(batch) {
                self.give_up(copy);
                return Err(Stopped::New(error.into()));
            }
        }
        match Flush::begin(&self.shared, &copy.fresh, self.is_in_place()) {
            Ok(flush) => Ok((Some(Stage::Flushing(copy, flush)), Step::Worked)),
            Err(error) => {
                self.give_up(copy);
                Err(Stopped::New(EngineError::Io(error).into()))
            }
        }
    }

    fn await_flush(&mut self, copy: Copy, mut flush: Flush) -> Next {
        // A base that is being written reads the old store.
        if !flush.has_ended() || self.base_task.is_some() {
            return Ok((Some(Stage::Flushing(copy, flush)), Step::Idle));
        }
        match flush.end() {
            Ok(()) => {
                self.swap(copy)?;
                Ok((None, Step::Worked))
            }
            Err(error) => {
                self.give_up(copy);
                Err(Stopped::New(error.into()))
            }
        }
    }

    /// Puts the fresh store in force. Blocks are the same in both, so what is cached stays true.
    fn swap(&mut self, copy: Copy) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        failpoint!(defragBeforeRename);
        shared.size.lock().defragment();
        let engine = {
            let _layout = shared.layout.write();
            std::mem::replace(&mut *shared.engine.write(), copy.fresh)
        };
        let folder = engine_folder(&shared.options, shared.generation, self.serial);
        self.serial = copy.serial;
        self.stale.push(Stale { engine, folder });
        // The state is smaller: so is its next base, and the journal behind it goes.
        shared.orders.lock().base_wanted = true;
        match self.applied {
            Some(applied) => self.commit(EngineBatch::default(), applied, self.content),
            None => Ok(()),
        }
    }

    /// Removes a fresh store that will not be.
    fn give_up(&self, copy: Copy) {
        let options = &self.shared.options;
        let folder = engine_folder(options, self.shared.generation, copy.serial);
        drop(copy);
        remove(&folder, options.group.0);
    }

    /// What is written to the state store goes to the copy too, as far as that has come.
    pub(crate) fn mirror(&mut self, batch: &EngineBatch) {
        let Some(Defrag { stage, .. }) = &mut self.defrag else { return };
        let copy = match stage {
            Stage::Dropping { .. } => return,
            Stage::Copying(copy) | Stage::Flushing(copy, _) => copy,
        };
        let Err(error) = copy.fresh.commit(copy.share_of(batch)) else { return };
        self.cancel_defrag(&error.to_string());
    }

    /// Ends a defragmentation that cannot go on. The old store is as good as ever.
    pub(crate) fn cancel_defrag(&mut self, reason: &str) {
        let Some(Defrag { ticket, began, stage }) = self.defrag.take() else { return };
        match stage {
            Stage::Dropping { .. } => {}
            Stage::Copying(copy) => self.give_up(copy),
            Stage::Flushing(copy, mut flush) => {
                let _too_late = flush.end();
                self.give_up(copy);
            }
        }
        self.end_defrag(ticket, began, Some(reason.to_owned()));
    }

    /// Whether a fresh store is being made.
    pub(crate) fn is_copying(&self) -> bool {
        match self.defrag.as_ref().map(|defrag| &defrag.stage) {
            Some(Stage::Copying(_) | Stage::Flushing(..)) => true,
            Some(Stage::Dropping { .. }) | None => false,
        }
    }

    /// Removes state stores that nobody reads any more.
    pub(crate) fn bury_stale(&mut self) {
        let group = self.shared.options.group.0;
        for stale in std::mem::take(&mut self.stale) {
            // Whoever reads took it before the swap.
            if Arc::strong_count(&stale.engine) > 1 {
                self.stale.push(stale);
                continue;
            }
            drop(stale.engine);
            remove(&stale.folder, group);
        }
    }

    /// Tells those who wait that nothing comes any more. Another generation's state store is a fresh one by itself.
    pub(crate) fn end_defrags(&mut self) {
        let retired = self.shared.retired.load(Ordering::Acquire);
        self.cancel_defrag("the store is closing");
        let failed = (!retired).then(|| "the store is closed".to_owned());
        self.shared.defragmented.send_replace(Served { ticket: u64::MAX, failed });
    }
}

/// What a test wants a fresh store to have failed with.
#[cfg(feature = "failpoints")]
fn refused(words: String) -> Stopped {
    Stopped::New(EngineError::Io(std::io::Error::other(words)).into())
}

/// The next stage, `None` at the end, and whether there may be more to do at once.
type Next = Result<(Option<Stage>, Step), Stopped>;

impl Copy {
    /// More was copied than the pace allows. Who does the work in place has no pace.
    fn is_ahead(&self, shared: &Shared) -> bool {
        let elapsed = shared.options.clock.monotonic().saturating_sub(self.began);
        let allowed = elapsed.as_secs_f64() * BACKGROUND_PACE * BUILD_SPEED;
        !shared.options.runs_in_place() && self.moved as f64 > allowed
    }

    /// Copies some pieces, as far as the pace allows.
    fn turn(&mut self, shared: &Shared) -> Result<(), Stopped> {
        let pieces = if shared.options.runs_in_place() { 1 } else { TURN_PIECES };
        for _ in 0..pieces {
            self.piece(shared)?;
            if matches!(self.place, Place::Whole) || self.is_ahead(shared) {
                break;
            }
        }
        Ok(())
    }

    /// Copies about [`PIECE_BYTES`]; only the upkeep writes to either store, so nothing changes meanwhile.
    fn piece(&mut self, shared: &Shared) -> Result<(), Stopped> {
        failpoint!(defragdbFail, |words| return Err(refused(words)));
        let old = shared.engine();
        let mut batch = EngineBatch::default();
        let next = match &self.place {
            Place::Blocks(from) => match blocks(&*old, *from, self.end, &mut batch)? {
                Some(next) => Place::Blocks(next),
                None => Place::Records(vec![Space::ALL[0] as u8]),
            },
            Place::Records(from) => match records(&*old, from, &mut batch)? {
                Some(next) => Place::Records(next),
                None => Place::Whole,
            },
            Place::Whole => Place::Whole,
        };
        if !shared.options.state_store_has_room() {
            return Err(Stopped::NoRoom);
        }
        self.moved += batch.size();
        Meter::add(&shared.meter.state_store, batch.size());
        self.fresh.commit(batch).map_err(|error| Stopped::New(error.into()))?;
        self.place = next;
        Ok(())
    }

    /// What of `batch` belongs below the place that the copy has reached, or is newer than the copy.
    fn share_of(&self, batch: &EngineBatch) -> EngineBatch {
        let changes = batch.changes.iter().filter(|(key, _)| self.place.is_behind(key, self.end));
        EngineBatch { changes: changes.cloned().collect() }
    }
}

impl Place {
    /// Whether `key`, if it is there at all, has been copied, or is a block's from `end` on.
    fn is_behind(&self, key: &[u8], end: Revision) -> bool {
        let Some((prefix, rest)) = key.split_first() else { return false };
        let is_block = *prefix == HEADERS || *prefix == VALUES;
        let is_mark = key == STATE_MARK;
        match self {
            Place::Blocks(next) => {
                is_block && (*rest < revision_key(*next)[..] || *rest >= revision_key(end)[..])
            }
            Place::Records(next) => is_block || (!is_mark && *key < next[..]),
            Place::Whole => true,
        }
    }
}

/// Just above the newest block.
fn end_of_blocks(old: &dyn Engine) -> Result<Revision, StoreError> {
    let newest = old.last_within(&[HEADERS], &headers_key(Revision::new(i64::MAX, i64::MAX)))?;
    let Some((key, _)) = newest else { return Ok(Revision::default()) };
    let first = headers_key_revision(&key)?;
    Ok(Revision::new(first.main, first.sub + 1))
}

/// Adds blocks from `from` up to `end`; where to go on, if there are more.
fn blocks(
    old: &dyn Engine,
    from: Revision,
    end: Revision,
    batch: &mut EngineBatch,
) -> Result<Option<Revision>, StoreError> {
    let mut next = None;
    scan_piece(old, &headers_key(from), &headers_key(end), &mut |key, headers| {
        let first = headers_key_revision(&key)?;
        if batch.size() >= PIECE_BYTES {
            next = Some(first);
            return Ok(ControlFlow::Break(()));
        }
        let values = old.get(&values_key(first))?;
        let values = values.ok_or_else(|| {
            StoreError::Damaged(format!("the values of block {first} are missing"))
        })?;
        check_block(first, &headers, &values)?;
        batch.put(key.to_vec(), headers.to_vec());
        batch.put(values_key(first), values.to_vec());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(next)
}

/// The same for records, by key.
fn records(
    old: &dyn Engine,
    from: &[u8],
    batch: &mut EngineBatch,
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut next = None;
    scan_piece(old, from, &[0xff], &mut |key, value| {
        if batch.size() >= PIECE_BYTES {
            next = Some(key.to_vec());
            return Ok(ControlFlow::Break(()));
        }
        batch.put(key.to_vec(), value.to_vec());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(next)
}

fn scan_piece(
    engine: &dyn Engine,
    low: &[u8],
    high: &[u8],
    take: &mut dyn FnMut(Bytes, Bytes) -> Result<ControlFlow<()>, StoreError>,
) -> Result<(), StoreError> {
    let mut result = Ok(());
    engine.scan(low, high, &mut |key, value| match take(key, value) {
        Ok(flow) => flow,
        Err(error) => {
            result = Err(error);
            ControlFlow::Break(())
        }
    })?;
    result
}

impl Flush {
    fn begin(
        shared: &Arc<Shared>,
        fresh: &Arc<dyn Engine>,
        in_place: bool,
    ) -> std::io::Result<Self> {
        let outcome = Arc::new(Mutex::new(None));
        if in_place {
            *outcome.lock() = Some(fresh.flush());
            return Ok(Flush { thread: None, outcome });
        }
        let (shared, fresh, told) = (Arc::clone(shared), Arc::clone(fresh), Arc::clone(&outcome));
        let thread = background_thread("defragment", move || {
            let flushed = fresh.flush();
            drop(fresh);
            *told.lock() = Some(flushed);
            shared.wake.notify_all();
        })?;
        Ok(Flush { thread: Some(thread), outcome })
    }

    fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn end(&mut self) -> Result<(), EngineError> {
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
        let outcome = self.outcome.lock().take();
        outcome.unwrap_or_else(|| Err(EngineError::Panicked("its flush".to_owned())))
    }
}
