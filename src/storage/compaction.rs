//! Physical compaction: dropping the revisions that the core's sweep has named, by rewriting their blocks.
//!
//! ```text
//!   dead: 5.0 6.1 9.0          block 5.0: [5.0 6.0 6.1]   block 7.0: [7.0 8.0]   block 9.0: [9.0]
//!   rewritten, oldest first               [    6.0    ]+             [7.0 8.0]              gone
//!                              = block 6.0: [6.0 7.0 8.0]       small neighbours are joined
//! ```
//!
//! **Invariant:** of one key, an older revision never goes later than a newer one: blocks are rewritten in ascending
//! order, each batch whole, so that a crash between leaves no put without the tombstone that ended it.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use quorate_core::api::ids::Revision;

use super::engine::{Engine, EngineBatch};
use super::error::StoreError;
use super::format::ContentSum;
use super::history::{Block, BlockBuilder, Header};
use super::key_space::{headers_key, headers_key_revision, values_key};
use super::shared::read_values;
use super::size;
use super::upkeep::{Step, Upkeep, put_block};

/// Bytes of blocks read in one step, about.
const STEP_BYTES: usize = 1 << 20;
/// A pass begins at once when so many revisions wait; else when a sweep has paused for a moment.
const PASS_REVISIONS: usize = 256 << 10;

/// One pass over the history, oldest block first.
pub(crate) struct DropPass {
    /// Ascending.
    dead: Vec<Revision>,
    /// How many of them are behind us.
    done: usize,
}

impl DropPass {
    /// A pass that has not begun; `dead` ascends.
    pub(crate) fn new(dead: Vec<Revision>) -> Self {
        DropPass { dead, done: 0 }
    }
}

/// One batch in the making.
pub(crate) struct Rewrite {
    pub(crate) batch: EngineBatch,
    pub(crate) content: ContentSum,
    /// Survivors that may still be joined by those of the next block.
    joined: Option<BlockBuilder>,
    /// First revisions of the blocks that the batch replaces.
    replaced: Vec<Revision>,
    pub(crate) dropped: Vec<Header>,
    bytes: usize,
}

impl Upkeep {
    /// Drops a bounded piece of what is dead.
    pub(crate) fn drop_some(&mut self) -> Result<Step, StoreError> {
        if self.pass.is_none() {
            self.begin_pass();
            if self.begin_renewal()? {
                return Ok(Step::Worked);
            }
        }
        let Some(mut pass) = self.pass.take() else {
            return Ok(Step::Idle);
        };
        // Nobody reads blocks between the first look at them and the commit.
        let shared = Arc::clone(&self.shared);
        let began = shared.options.clock.monotonic();
        let _layout = shared.layout.write();
        let engine = shared.engine();
        let mut rewrite = Rewrite::new(self.content);
        while rewrite.bytes < STEP_BYTES && pass.done < pass.dead.len() {
            rewrite.next_block(&*engine, &mut pass, self.open_block.as_ref())?;
        }
        rewrite.close();
        let done = pass.done >= pass.dead.len();
        if !done {
            self.pass = Some(pass);
        }
        if let (Some(applied), false) = (self.applied, rewrite.replaced.is_empty()) {
            {
                let mut accounted = shared.size.lock();
                for (key, value) in rewrite.dropped.iter().map(size::row) {
                    accounted.remove(key, value);
                }
            }
            self.commit(rewrite.batch, applied, rewrite.content)?;
            self.dropped = true;
            let mut cache = shared.cache.lock();
            rewrite.replaced.iter().for_each(|first| cache.forget(*first));
        }
        let took = shared.options.clock.monotonic().saturating_sub(began);
        shared.meter.seconds.drop_pause_ms.observe(took.as_secs_f64() * 1000.0);
        Ok(Step::Worked)
    }

    pub(crate) fn begin_pass(&mut self) {
        let stored = self.shared.tail.read().stored();
        let mut orders = self.shared.orders.lock();
        let many = orders.dead.len() >= PASS_REVISIONS;
        if orders.dead.is_empty() || (!many && std::mem::take(&mut orders.dead_grew)) {
            return;
        }
        // What is not in the state store yet waits for the next pass, with all that is newer.
        let mut dead = std::mem::take(&mut orders.dead);
        dead.sort_unstable();
        dead.dedup();
        let ready = dead.partition_point(|revision| revision.main <= stored);
        orders.dead = dead.split_off(ready);
        drop(orders);
        if !dead.is_empty() {
            self.open_block = None;
            self.pass = Some(DropPass::new(dead));
        }
    }

    /// Where the disk is nearly full, what a new pass would drop is left behind in a fresh state store instead. Whether
    /// it was.
    pub(crate) fn begin_renewal(&mut self) -> Result<bool, StoreError> {
        if self.shared.growth_refused.lock().is_none() || self.is_copying() {
            return Ok(false);
        }
        let Some(pass) = self.pass.take() else {
            return Ok(false);
        };
        if self.renew(&pass.dead)? {
            return Ok(true);
        }
        self.pass = Some(pass);
        Ok(false)
    }
}

impl Rewrite {
    /// Nothing yet, of a state store with this sum.
    pub(crate) fn new(content: ContentSum) -> Self {
        Rewrite {
            batch: EngineBatch::default(),
            content,
            joined: None,
            replaced: Vec::new(),
            dropped: Vec::new(),
            bytes: 0,
        }
    }

    /// The batch so far, less the removals: for a state store that has none of the replaced blocks.
    pub(crate) fn take_puts(&mut self) -> EngineBatch {
        let mut batch = std::mem::take(&mut self.batch);
        batch.changes.retain(|(_, value)| value.is_some());
        batch
    }

    /// Takes in the block of the next dead revision, or the direct neighbour of what is being joined.
    fn next_block(
        &mut self,
        engine: &dyn Engine,
        pass: &mut DropPass,
        open: Option<&BlockBuilder>,
    ) -> Result<(), StoreError> {
        let next_dead = pass.dead[pass.done];
        let found = match self.replaced.last().filter(|_| self.joined.is_some()) {
            Some(last) => next_after(engine, *last)?,
            None => {
                engine.last_within(&headers_key(Revision::default()), &headers_key(next_dead))?
            }
        };
        let Some((key, headers)) = found else {
            // Dropped before, by a pass that a crash cut short after this piece.
            self.close();
            pass.done += 1;
            return Ok(());
        };
        let first = headers_key_revision(&key)?;
        let is_open = open.is_some_and(|open| open.first() == first);
        let decoded = Block::decode_headers(first, &headers)?;
        let last = decoded.last().map_or(first, |header| header.revision);
        let touched = next_dead <= last && !is_open;
        if self.joined.is_some() && !touched && (is_open || !is_small(&decoded)) {
            self.close();
            return Ok(());
        }
        if !touched && self.joined.is_none() {
            pass.done += 1;
            return Ok(());
        }
        self.bytes += headers.len();
        self.take_block(engine, first, decoded, headers.len(), pass)
    }

    pub(crate) fn take_block(
        &mut self,
        engine: &dyn Engine,
        first: Revision,
        headers: Vec<Header>,
        encoded_len: usize,
        pass: &mut DropPass,
    ) -> Result<(), StoreError> {
        let mut is_dead = Vec::with_capacity(headers.len());
        for header in &headers {
            while pass.dead.get(pass.done).is_some_and(|dead| *dead < header.revision) {
                pass.done += 1;
            }
            let dead = pass.dead.get(pass.done) == Some(&header.revision);
            pass.done += usize::from(dead);
            is_dead.push(dead);
            if dead {
                self.content.remove(header.content_hash());
                self.dropped.push(header.clone());
            }
        }
        self.replaced.push(first);
        self.batch.remove(headers_key(first));
        self.batch.remove(values_key(first));
        if is_dead.iter().all(|dead| *dead) {
            return Ok(());
        }
        let block = read_values(engine, first, headers, encoded_len)?;
        self.bytes += block.weight();
        for (position, header) in block.headers().iter().enumerate() {
            if !is_dead[position] {
                let value = block.value(position);
                header.check_value(&value)?;
                self.keep(header, &value);
            }
        }
        Ok(())
    }

    fn keep(&mut self, header: &Header, value: &[u8]) {
        match &mut self.joined {
            Some(open) if !open.is_full_for(header) => open.push(header, value),
            Some(_) | None => {
                self.close();
                self.joined = Some(BlockBuilder::begin(header, value));
            }
        }
    }

    pub(crate) fn close(&mut self) {
        if let Some(block) = self.joined.take() {
            put_block(&mut self.batch, &block);
        }
    }
}

fn is_small(headers: &[Header]) -> bool {
    let bytes = headers.iter().map(|header| header.key.len() + header.value_len + 24);
    bytes.sum::<usize>() < super::history::BLOCK_BYTES / 4
}

/// The block that follows the one that begins (or began) at `first`.
fn next_after(engine: &dyn Engine, first: Revision) -> Result<Option<(Bytes, Bytes)>, StoreError> {
    let low = headers_key(Revision::new(first.main, first.sub + 1));
    let high = headers_key(Revision::new(i64::MAX, i64::MAX));
    let mut found = None;
    engine.scan(&low, &high, &mut |key, headers| {
        found = Some((key, headers));
        ControlFlow::Break(())
    })?;
    Ok(found)
}
