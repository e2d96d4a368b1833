//! What the store, its views and its upkeep share.
//!
//! **Invariant:** locks are taken in this order: `layout`, `engine`, `tail`, `cache`, the rest; none but `layout` is
//! held over a read or write of the state store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};
use prometheus::Histogram;
use quorate_core::api::ids::{LogId, Revision};
use quorate_core::state_machine::quota::DbSize;
use tokio::sync::{Notify, watch};

use super::base_maker::BaseOutcome;
use super::cache::BlockCache;
use super::defrag::Served;
use super::engine::Engine;
use super::error::StoreError;
use super::history::{Block, Header};
use super::incoming::Incoming;
use super::install::Remains;
use super::journal::{BaseMark, GroupLog};
use super::key_space::{headers_key, headers_key_revision, values_key};
use super::options::{Meter, StoreOptions};
use super::retire::Predecessor;
use super::source::BaseSource;
use super::tail::Tail;

/// File whose presence makes the next start rebuild the state store; it says why.
pub(crate) const DISTRUST: &str = "distrust";

pub(crate) struct Shared {
    pub(crate) options: StoreOptions,
    pub(crate) log: GroupLog,
    /// The group's generation in the journal that this store belongs to.
    pub(crate) generation: u64,
    pub(crate) engine: RwLock<Arc<dyn Engine>>,
    /// Shared while a block is read from the engine and cached; alone while blocks are rewritten.
    pub(crate) layout: RwLock<()>,
    pub(crate) tail: RwLock<Tail>,
    pub(crate) cache: Mutex<BlockCache>,
    pub(crate) size: Mutex<DbSize>,
    pub(crate) orders: Mutex<Orders>,
    /// Wakes the upkeep thread.
    pub(crate) wake: Condvar,
    pub(crate) stopped: AtomicBool,
    pub(crate) stop_reason: Mutex<Option<String>>,
    pub(crate) growth_refused: Mutex<Option<String>>,
    /// Told when the tail has room again.
    pub(crate) room: Notify,
    pub(crate) base: Mutex<Option<BaseMark>>,
    /// That base, open.
    pub(crate) source: Mutex<Option<Arc<BaseSource>>>,
    /// Where that base is, told to whoever listens; one channel for all generations.
    pub(crate) marked: Arc<watch::Sender<Option<LogId>>>,
    /// Whether bases may be marked: not from the moment on at which another generation is to be
    /// recorded. Held while the journal is told.
    pub(crate) may_mark: Mutex<bool>,
    /// Another generation has taken this one's place; it is only read any more.
    pub(crate) retired: AtomicBool,
    /// A base of another member, as far as it was received.
    pub(crate) incoming: Mutex<Option<Arc<Incoming>>>,
    /// State stores begun for the next generation: each has a folder of its own, because sled may write to one for a
    /// moment after it was closed.
    pub(crate) begun: AtomicU32,
    /// What is to be removed from the disk.
    pub(crate) remains: Mutex<Vec<Remains>>,
    /// Generations before this one that somebody may still read.
    pub(crate) predecessors: Mutex<Vec<Predecessor>>,
    pub(crate) meter: Arc<Meter>,
    /// The last defragmentation that ended.
    pub(crate) defragmented: watch::Sender<Served>,
}

/// What the upkeep is asked to do.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    pub(crate) closing: bool,
    /// Revisions to drop, as the core's sweeps name them.
    pub(crate) dead: Vec<Revision>,
    /// More came since the upkeep last looked: a sweep is under way.
    pub(crate) dead_grew: bool,
    pub(crate) base_wanted: bool,
    /// How many defragmentations were asked for.
    pub(crate) defrag_asked: u64,
    /// What the thread that writes a base left on its way out.
    pub(crate) base_outcome: Option<BaseOutcome>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("group", &self.options.group)
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        Arc::clone(&self.engine.read())
    }

    /// Does `work` and notes how long it took, in seconds.
    pub(crate) fn timed<T>(&self, seconds: &Histogram, work: impl FnOnce() -> T) -> T {
        let began = self.options.clock.monotonic();
        let done = work();
        let took = self.options.clock.monotonic().saturating_sub(began);
        seconds.observe(took.as_secs_f64());
        done
    }

    /// The error that an earlier failure makes of every call.
    pub(crate) fn refuse_if_stopped(&self) -> Result<(), StoreError> {
        if !self.stopped.load(Ordering::Acquire) {
            return Ok(());
        }
        let reason = self.stop_reason.lock().clone().unwrap_or_default();
        Err(StoreError::Stopped(reason))
    }

    /// Stops the store for good, once. Damage is noted beside the state store, so that the next start rebuilds it.
    pub(crate) fn stop(&self, error: &StoreError) {
        {
            let mut reason = self.stop_reason.lock();
            if reason.is_some() {
                return;
            }
            *reason = Some(error.to_string());
        }
        self.stopped.store(true, Ordering::Release);
        let damage = match error {
            StoreError::Damaged(_) | StoreError::Engine(_) | StoreError::Base(_) => true,
            StoreError::Stopped(_) | StoreError::Journal(_) => false,
        };
        // Of a retired one the next start knows nothing any more.
        if damage && !self.retired.load(Ordering::Acquire) {
            self.distrust(&error.to_string());
        }
        self.wake.notify_all();
        self.room.notify_waiters();
    }

    /// Makes the next start rebuild the state store. Best effort: without it the next start finds out by itself,
    /// or when the same bytes are read again.
    pub(crate) fn distrust(&self, reason: &str) {
        let note = || -> std::io::Result<()> {
            let file = self.options.device.create(DISTRUST)?;
            file.write_at(0, reason.as_bytes())?;
            file.sync_data()?;
            self.options.device.sync_dir()
        };
        if let Err(error) = note() {
            tracing::warn!(group = self.options.group.0, %error, "cannot note the damage of the state store");
        }
    }

    /// The block of the state store that would hold `revision`, with its place in it. Values unchecked.
    pub(crate) fn find(
        &self,
        revision: Revision,
    ) -> Result<Option<(Arc<Block>, usize)>, StoreError> {
        if let Some(found) = self.cache.lock().find(revision) {
            return Ok(Some(found));
        }
        let _layout = self.layout.read();
        let Some(block) = self.read_block(revision)? else {
            return Ok(None);
        };
        let block = Arc::new(block);
        self.cache.lock().insert(Arc::clone(&block));
        let position = block.position(revision);
        Ok(position.map(|position| (block, position)))
    }

    /// The last block that begins at or before `revision`. The caller holds `layout`.
    fn read_block(&self, revision: Revision) -> Result<Option<Block>, StoreError> {
        let engine = self.engine();
        let low = headers_key(Revision::default());
        let Some((key, headers)) = engine.last_within(&low, &headers_key(revision))? else {
            return Ok(None);
        };
        let first = headers_key_revision(&key)?;
        let decoded = Block::decode_headers(first, &headers)?;
        read_values(&*engine, first, decoded, headers.len()).map(Some)
    }
}

/// Joins decoded headers with their values. Whoever calls keeps blocks from being rewritten meanwhile.
pub(crate) fn read_values(
    engine: &dyn Engine,
    first: Revision,
    headers: Vec<Header>,
    encoded_len: usize,
) -> Result<Block, StoreError> {
    let values = engine.get(&values_key(first))?;
    let values = values
        .ok_or_else(|| StoreError::Damaged(format!("the values of block {first} are missing")))?;
    Ok(Block::join(headers, values, encoded_len)?)
}
