//! The physical half of compaction: what can no longer be read leaves index and store, in bounded steps.
//!
//! ```text
//!   queue of applied compactions (from, to)
//!     --> hash of `to`, computed as of `from`     kept for HashKV, so that members can compare afterwards
//!     --> sweep to the newest `to`                a thousand keys a step, as a rule; pins of running reads hold it up
//! ```
//!
//! **Invariant:** no sweep goes past a compaction whose hash has not been computed: the hash reads what the sweep
//! drops.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_core::api::refusal::Corrupt;
use quorate_core::state_machine::{CompactionCursor, HashCache, KvHash};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::hash;
use crate::keyspace::config::SweepPace;
use crate::keyspace::error::KeyspaceError;
use crate::keyspace::figures::KeyspaceFigures;
use crate::keyspace::state::State;
use crate::storage::Store;
use crate::support::failpoints::failpoint;

/// How soon a sweep that a reader's pin held up is tried again.
const PINNED_RETRY: Duration = Duration::from_millis(100);

/// Compactions that wait to be swept, and how far sweeping has come.
#[derive(Debug)]
pub(crate) struct Sweeper {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    swept: watch::Sender<i64>,
    hashes: Mutex<HashCache>,
    figures: Arc<KeyspaceFigures>,
    pace: SweepPace,
}

#[derive(Debug)]
struct Waiting {
    compactions: VecDeque<(i64, i64)>,
    /// The compaction before was cut off by a stop: the next one's hash would not cover all since the last whole
    /// one, and is not kept (etcd `server/storage/mvcc/kvstore_compaction.go`).
    interrupted: bool,
}

/// What a sweep finds when it looks for work.
enum Begun {
    /// A compaction was applied meanwhile: its hash comes first.
    HashFirst,
    /// Sweep from here, in this generation.
    At(CompactionCursor, u64),
    /// A pin is in the way.
    Pinned,
    /// Nothing is left.
    Done,
}

impl Sweeper {
    /// A sweeper over a machine as it was opened.
    pub(crate) fn new(
        swept: i64,
        compacted: i64,
        pace: SweepPace,
        figures: Arc<KeyspaceFigures>,
    ) -> Self {
        let waiting = Waiting { compactions: VecDeque::new(), interrupted: swept < compacted };
        Sweeper {
            waiting: Mutex::new(waiting),
            arrived: Notify::new(),
            swept: watch::Sender::new(swept),
            hashes: Mutex::default(),
            figures,
            pace,
        }
    }

    /// A compaction was decided. Called under the machine's write lock, so that no sweep can begin in between.
    pub(crate) fn compacted(&self, from: i64, to: i64) {
        self.waiting.lock().compactions.push_back((from, to));
    }

    /// The state was replaced by a snapshot's, swept to `swept` and compacted to `compacted`. Called under the
    /// machine's write lock. Hashes of compactions that are known stay true; of those that were not computed yet the
    /// revisions may be gone.
    pub(crate) fn restored(&self, swept: i64, compacted: i64) {
        *self.waiting.lock() =
            Waiting { compactions: VecDeque::new(), interrupted: swept < compacted };
        self.swept.send_replace(swept);
    }

    /// There is something to sweep.
    pub(crate) fn wake(&self) {
        self.arrived.notify_one();
    }

    /// The hash that the compaction to exactly `revision` left.
    pub(crate) fn cached_hash(&self, revision: i64) -> Option<KvHash> {
        self.hashes.lock().get(revision)
    }

    /// Puts a hash in the cache that is not this member's.
    #[cfg(test)]
    pub(crate) fn forge(&self, hash: KvHash) {
        self.hashes.lock().store(hash);
    }

    /// Those of all compactions that are kept, by revision.
    pub(crate) fn cached_hashes(&self) -> Vec<KvHash> {
        self.hashes.lock().all().to_vec()
    }

    /// Waits until everything that a compaction to `revision` dropped is gone.
    pub(crate) async fn wait_swept(&self, revision: i64) -> Result<(), KeyspaceError> {
        let mut swept = self.swept.subscribe();
        match swept.wait_for(|swept| *swept >= revision).await {
            Ok(_) => Ok(()),
            Err(_closed) => Err(KeyspaceError::Stopped),
        }
    }

    /// Sweeps for ever; the keyspace's owner drops it. What it returns is damage, and the member must stop.
    pub(crate) async fn run(&self, state: &Arc<State>) -> Corrupt {
        loop {
            match self.sweep_all(state).await {
                Ok(true) => self.arrived.notified().await,
                Ok(false) => tokio::time::sleep(PINNED_RETRY).await,
                Err(corrupt) => return corrupt,
            }
        }
    }

    /// Whether nothing is left to sweep; else a pin is in the way.
    async fn sweep_all(&self, state: &Arc<State>) -> Result<bool, Corrupt> {
        loop {
            self.hash_waiting(state).await?;
            match self.begin(state) {
                Begun::HashFirst => {}
                Begun::At(cursor, generation) => self.sweep(state, cursor, generation).await,
                Begun::Pinned => return Ok(false),
                Begun::Done => {
                    // Whatever a stop cut off has been swept by now.
                    self.waiting.lock().interrupted = false;
                    return Ok(true);
                }
            }
        }
    }

    fn begin(&self, state: &State) -> Begun {
        let machine = state.machine.read();
        if !self.waiting.lock().compactions.is_empty() {
            return Begun::HashFirst;
        }
        match machine.compaction_begin() {
            Some(cursor) => Begun::At(cursor, machine.number()),
            None if machine.swept_revision() < machine.compact_revision() => Begun::Pinned,
            None => Begun::Done,
        }
    }

    async fn sweep(&self, state: &State, begin: CompactionCursor, generation: u64) {
        let began = Instant::now();
        let mut dropped = 0;
        let mut cursor = Some(begin);
        while let Some(at) = cursor {
            {
                let mut now = state.machine.write();
                if now.number() != generation {
                    return;
                }
                let locked = Instant::now();
                failpoint!(compactAfterAcquiredBatchTxLock);
                let step = now.compaction_step(at, self.pace.keys_max);
                self.figures.swept_some(step.dead.len(), locked.elapsed());
                dropped += step.dead.len();
                now.store().drop_revisions(step.dead);
                cursor = step.next;
                if cursor.is_none() {
                    failpoint!(compactBeforeSetFinishedCompact);
                    self.ended(now.swept_revision(), dropped, began, now.store());
                    failpoint!(compactAfterSetFinishedCompact);
                }
            }
            match self.pace.rest {
                Some(rest) if cursor.is_some() => tokio::time::sleep(rest).await,
                Some(_) | None => tokio::task::yield_now().await,
            }
        }
    }

    /// A sweep to `swept` came to its end.
    fn ended(&self, swept: i64, dropped: usize, began: Instant, store: &Store) {
        let took = began.elapsed();
        self.figures.swept(took);
        tracing::info!(
            "compact-revision" = swept,
            took = ?took,
            "number-of-keys-compacted" = dropped,
            hash = self.cached_hash(swept).map(|hash| hash.hash),
            "current-db-size-bytes" = store.db_size(),
            "current-db-size-in-use-bytes" = store.db_size_in_use(),
            "finished scheduled compaction"
        );
        self.swept.send_replace(swept);
    }

    async fn hash_waiting(&self, state: &Arc<State>) -> Result<(), Corrupt> {
        loop {
            let (scope, generation) = {
                let now = state.machine.read();
                let Some((from, to)) = self.waiting.lock().compactions.front().copied() else {
                    return Ok(());
                };
                (now.hash_begin_compaction(from, to), now.number())
            };
            let hash = hash::hash(state, scope, generation).await?;
            let now = state.machine.read();
            let (Some(hash), true) = (hash, now.number() == generation) else {
                continue;
            };
            let mut waiting = self.waiting.lock();
            if !std::mem::take(&mut waiting.interrupted) {
                self.hashes.lock().store(hash);
            }
            waiting.compactions.pop_front();
        }
    }
}
