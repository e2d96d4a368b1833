//! The store's background work, all by one hand: the only writer of the state store.
//!
//! ```text
//!   wait ──▶ flush:  durable batches of the tail ──▶ blocks + records + state mark ──▶ one engine batch ──▶ pop
//!        ──▶ drop:   dead revisions ──▶ blocks rewritten, a bounded piece at a time      (compaction.rs)
//!        ──▶ base:   records copied here, history read by a thread of its own            (base_maker.rs)
//! ```
//!
//! **Invariant:** a batch enters the state store only when the journal frame of its entry is synced: the state store
//! is never ahead of the truth.
//! **Invariant:** the state store is not written while the disk has no room for it.
//! **Invariant:** while a base is being written no block is rewritten, and none while one is due to begin.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::api::batch::{Space, WriteBatch};
use quorate_core::api::ids::LogId;

use super::base_maker::Frozen;
use super::compaction::DropPass;
use super::defrag::{Defrag, Stale, TICK};
use super::engine::EngineBatch;
use super::error::StoreError;
use super::format::ContentSum;
use super::history::{BlockBuilder, Header, record_hash};
use super::key_space::{
    STATE_MARK, headers_key, record_key, record_payload, record_value, values_key,
};
use super::mark::StateMark;
use super::options::Meter;
use super::shared::Shared;
use super::size;
use super::tail::TailBatch;

/// What one flush takes at most, in bytes of the tail.
const FLUSH_BYTES_MAX: usize = 4 << 20;

/// See the module.
pub(crate) struct Upkeep {
    pub(crate) shared: Arc<Shared>,
    /// Which of the generation's state stores this is: each fresh one has the next.
    pub(crate) serial: u32,
    pub(crate) applied: Option<LogId>,
    pub(crate) content: ContentSum,
    /// The newest block: grows in place until it is full.
    pub(crate) open_block: Option<BlockBuilder>,
    pub(crate) pass: Option<DropPass>,
    pub(crate) base_task: Option<JoinHandle<()>>,
    /// Steps to let pass before a base that failed is tried again.
    pub(crate) base_rest: u32,
    /// Revisions were dropped since the disk was last found short.
    pub(crate) dropped: bool,
    /// The highest serial that a state store was begun with.
    pub(crate) serials: u32,
    pub(crate) defrag: Option<Defrag>,
    /// Other work has had a turn since the defragmentation had one.
    pub(crate) owes_defrag: bool,
    /// State stores that were defragmented, while somebody reads them.
    pub(crate) stale: Vec<Stale>,
    /// When the tail was last written out.
    pub(crate) flushed_at: Duration,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There may be more.
    Worked,
    /// Nothing to do now.
    Idle,
}

impl Upkeep {
    /// The thread's body: steps until the store closes or fails.
    pub(crate) fn run(mut self) {
        loop {
            let closing = self.wait();
            if let Err(error) = self.work(closing) {
                self.shared.stop(&error);
                tracing::error!(group = self.shared.options.group.0, %error, "the store stopped");
            }
            if closing || self.shared.stopped.load(Ordering::Acquire) {
                self.end();
                return;
            }
        }
    }

    /// Does all there is to do now.
    pub(crate) fn work(&mut self, closing: bool) -> Result<(), StoreError> {
        self.shared.clear_remains();
        self.shared.bury_predecessors();
        self.bury_stale();
        self.watch_disk();
        while self.step(closing)? == Step::Worked {}
        Ok(())
    }

    pub(crate) fn step(&mut self, closing: bool) -> Result<Step, StoreError> {
        self.shared.refuse_if_stopped()?;
        if self.shared.retired.load(Ordering::Acquire) {
            return Ok(Step::Idle);
        }
        if !self.shared.options.state_store_has_room() {
            // Batches wait in the tail; their truth is in the journal.
            if self.is_copying() {
                self.cancel_defrag("no space left on device");
            }
            self.collect_base()?;
            return Ok(Step::Idle);
        }
        if !closing {
            self.collect_base()?;
            if std::mem::take(&mut self.owes_defrag) && self.defragment()? == Step::Worked {
                return Ok(Step::Worked);
            }
        }
        let step = self.other_work(closing)?;
        if step == Step::Worked {
            self.owes_defrag = self.defrag.is_some();
            return Ok(step);
        }
        if closing { Ok(Step::Idle) } else { self.defragment() }
    }

    /// All but defragmentation, which has every other turn: work that never ends would starve it else.
    fn other_work(&mut self, closing: bool) -> Result<Step, StoreError> {
        if self.flush_is_due(closing) && self.flush()? == Step::Worked {
            return Ok(Step::Worked);
        }
        if closing || self.base_task.is_some() {
            return Ok(Step::Idle);
        }
        if self.pass.is_none() && self.begin_base()? == Step::Worked {
            return Ok(Step::Worked);
        }
        self.drop_some()
    }

    /// While a store is copied, this thread is up far more often than the tail wants to be written out.
    fn flush_is_due(&mut self, closing: bool) -> bool {
        let options = &self.shared.options;
        let now = options.clock.monotonic();
        let due = closing
            || self.defrag.is_none()
            || options.runs_in_place()
            || self.shared.tail.read().weight() >= options.flush_bytes
            || now.saturating_sub(self.flushed_at) >= options.flush_every;
        if due {
            self.flushed_at = now;
        }
        due
    }

    /// Waits for work; returns whether the store closes.
    fn wait(&self) -> bool {
        let mut orders = self.shared.orders.lock();
        if !orders.closing {
            let every = match self.defrag {
                Some(_) => TICK,
                None => self.shared.options.flush_every,
            };
            self.shared.wake.wait_for(&mut orders, every);
        }
        orders.closing
    }

    /// Ends the background work.
    pub(crate) fn end(&mut self) {
        self.end_defrags();
        self.bury_stale();
        if let Some(task) = self.base_task.take() {
            let _cancelled = task.join();
        }
        self.shared.clear_remains();
        self.shared.bury_predecessors();
        if self.shared.retired.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = self.shared.engine().flush() {
            tracing::warn!(group = self.shared.options.group.0, %error, "the state store was not written out");
        }
    }

    /// Moves one helping of durable batches into the state store.
    fn flush(&mut self) -> Result<Step, StoreError> {
        let durable = self.shared.log.durable();
        let taken = self.shared.tail.read().leading(durable, FLUSH_BYTES_MAX);
        let Some(last) = taken.last() else {
            return Ok(Step::Idle);
        };
        let applied = last.batch.applied;
        let mut batch = EngineBatch::default();
        let mut content = self.content;
        let mut block = self.open_block.take();
        for record in taken.iter().flat_map(|batch| &batch.batch.revisions) {
            let header = Header::of(record);
            content.add(header.content_hash());
            let value: &[u8] = if record.tombstone { &[] } else { &record.kv.value };
            match &mut block {
                Some(open) if !open.is_full_for(&header) => open.push(&header, value),
                Some(_) | None => {
                    if let Some(full) = block.replace(BlockBuilder::begin(&header, value)) {
                        put_block(&mut batch, &full);
                    }
                }
            }
        }
        if let Some(open) = &block {
            put_block(&mut batch, open);
        }
        self.put_records(&taken, &mut content, &mut batch)?;
        self.commit(batch, applied, content)?;
        self.open_block = block;
        self.let_go(taken.len());
        Ok(Step::Worked)
    }

    /// Adds the last state of each record that the batches changed.
    fn put_records(
        &self,
        taken: &[Arc<TailBatch>],
        content: &mut ContentSum,
        batch: &mut EngineBatch,
    ) -> Result<(), StoreError> {
        let mut changed: BTreeMap<(Space, &Bytes), Option<&Bytes>> = BTreeMap::new();
        for change in taken.iter().flat_map(|batch| &batch.batch.records) {
            changed.insert((change.space, &change.key), change.value.as_ref());
        }
        let engine = self.shared.engine();
        for ((space, key), value) in changed {
            let stored = record_key(space, key);
            if let Some(old) = engine.get(&stored)? {
                content.remove(record_hash(space as u8, key, record_payload(&old)?));
            }
            match value {
                Some(value) => {
                    content.add(record_hash(space as u8, key, value));
                    batch.put(stored, record_value(value));
                }
                None => batch.remove(stored),
            }
        }
        Ok(())
    }

    /// Commits `batch` together with the mark that tells what the store then holds.
    pub(crate) fn commit(
        &mut self,
        mut batch: EngineBatch,
        applied: LogId,
        content: ContentSum,
    ) -> Result<(), StoreError> {
        let mark = self.mark(applied, content);
        batch.put(STATE_MARK.to_vec(), mark.encode());
        Meter::add(&self.shared.meter.state_store, batch.size());
        self.mirror(&batch);
        let engine = self.shared.engine();
        self.shared.timed(&self.shared.meter.seconds.commit, || engine.commit(batch))?;
        self.applied = Some(applied);
        self.content = content;
        Ok(())
    }

    /// What tells that a state store of this generation holds `content`, up to `applied`.
    pub(crate) fn mark(&self, applied: LogId, content: ContentSum) -> StateMark {
        StateMark {
            generation: self.shared.generation,
            applied: Some(applied),
            content,
            high_water: self.shared.size.lock().size(),
        }
    }

    fn let_go(&self, count: usize) {
        let gone = self.shared.tail.write().pop(count);
        let bytes: usize = gone.iter().map(|batch| batch.bytes).sum();
        let requests: usize = gone.iter().map(|batch| batch.batch.revisions.len().max(1)).sum();
        Meter::add(&self.shared.meter.since_base, bytes as u64);
        Meter::add(&self.shared.meter.requests_since_base, requests as u64);
        self.shared.room.notify_waiters();
    }

    /// Refuses growth while the disk has no room for the journal's next segments and the next base.
    fn watch_disk(&mut self) {
        let options = &self.shared.options;
        let base = self.shared.base.lock().as_ref().map_or(0, |base| base.len);
        let reserve = options.reserve_bytes.saturating_add(base);
        let mut refused = self.shared.growth_refused.lock();
        let asked = if refused.is_some() { options.reserve_for(base) } else { reserve };
        let short = self.shared.log.growth_refused(asked);
        if short && std::mem::take(&mut self.dropped) {
            // A compaction made the state smaller: so is its next base, and the journal behind it goes.
            self.shared.orders.lock().base_wanted = true;
        }
        if short == refused.is_some() {
            return;
        }
        *refused = short.then(|| {
            format!("the disk has less than {reserve} bytes beside the journal's reserve")
        });
        match &*refused {
            Some(reason) => tracing::warn!(
                group = options.group.0,
                reason,
                "the disk is nearly full: growth is refused"
            ),
            None => tracing::info!(group = options.group.0, "the disk has room again"),
        }
    }

    /// What a base of this moment holds beside history; copied, because records change and history does not.
    pub(crate) fn freeze(&self, applied: LogId) -> Result<Frozen, StoreError> {
        let mut records = Vec::new();
        let mut damage = None;
        let low = [Space::ALL[0] as u8];
        let high = [Space::ALL[Space::ALL.len() - 1] as u8 + 1];
        self.shared.engine().scan(&low, &high, &mut |key, stored| {
            let space = key.first().and_then(|prefix| Space::from_prefix(*prefix));
            match (space, record_payload(&stored)) {
                (Some(space), Ok(_)) => {
                    records.push((space, key.slice(1..), stored.slice(1..)));
                    std::ops::ControlFlow::Continue(())
                }
                (Some(_) | None, Ok(_) | Err(_)) => {
                    damage = Some(StoreError::Damaged("a record does not decode".to_owned()));
                    std::ops::ControlFlow::Break(())
                }
            }
        })?;
        // Whoever sends the base needs it for the label.
        records.sort_by_key(|(space, _, _)| *space != Space::Membership);
        match damage {
            Some(damage) => Err(damage),
            None => Ok(Frozen {
                at: applied,
                generation: self.shared.generation,
                revision: self.shared.tail.read().stored(),
                records,
                content: self.content,
            }),
        }
    }

    /// Whether work is done by whoever commits.
    pub(crate) fn is_in_place(&self) -> bool {
        self.shared.options.runs_in_place()
    }
}

/// Adds both records of a block.
pub(crate) fn put_block(batch: &mut EngineBatch, block: &BlockBuilder) {
    batch.put(headers_key(block.first()), block.headers().to_vec());
    batch.put(values_key(block.first()), block.values().to_vec());
}

/// Counts what `batch` adds to the accounted size.
pub(crate) fn count_size(shared: &Shared, batch: &WriteBatch) {
    let mut accounted = shared.size.lock();
    for record in &batch.revisions {
        let (key, value) = size::row(&Header::without_hash(record));
        accounted.add(key, value);
    }
}
