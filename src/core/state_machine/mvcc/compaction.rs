//! Compaction: a revision moves at once, the sweep follows in bounded steps.
//!
//! ```text
//!   apply(Compaction R)     compact_revision = R: nothing below can be read any more
//!   compaction_begin()      how far a sweep may go: R, or the lowest pin below it
//!   compaction_step(..)     some keys: dead revisions leave the index and are named for storage to drop
//! ```
//!
//! **Invariant:** the sweep is not replicated and changes no answer: what it drops could no longer be read.

use crate::api::ids::Revision;
use crate::api::refusal::Refusal;

use super::super::StateMachine;
use super::super::changes::Changes;
use super::Mvcc;
use super::pins::Pin;

/// How far a sweep of the index has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionCursor {
    to: i64,
    after: Option<Box<[u8]>>,
}

impl CompactionCursor {
    /// The revision this sweep compacts to.
    pub fn compacts_to(&self) -> i64 {
        self.to
    }
}

/// What a step of a sweep did.
#[derive(Debug)]
pub struct CompactionStep {
    /// Revisions that storage may drop. Those of one key come oldest first, and storage must drop an older one no
    /// later than a newer one of the same key: a put that outlives its tombstone would come back to life when the
    /// index is rebuilt.
    pub dead: Vec<Revision>,
    /// Where to go on; `None` when the sweep is done.
    pub next: Option<CompactionCursor>,
}

impl Mvcc {
    /// Compacts logically (etcd `server/storage/mvcc/kvstore.go`).
    pub(crate) fn compact(&mut self, to: i64, changes: &mut Changes) -> Result<(), Refusal> {
        if to <= self.compact_revision {
            return Err(Refusal::Compacted);
        }
        if to > self.revision {
            return Err(Refusal::FutureRevision);
        }
        self.compact_revision = to;
        changes.compacted(to);
        Ok(())
    }
}

impl StateMachine {
    /// Starts a sweep if there is anything to sweep: to the compact revision, or to the lowest pin if that is
    /// lower. After a sweep that stopped at a pin, begin again once the pin is gone.
    pub fn compaction_begin(&self) -> Option<CompactionCursor> {
        let mut to = self.mvcc.compact_revision;
        if let Some(pinned) = self.mvcc.pins.lowest() {
            to = to.min(pinned);
        }
        (to > self.mvcc.swept_revision).then_some(CompactionCursor { to, after: None })
    }

    /// Sweeps up to `max_keys` keys. Sweeps must not overlap.
    pub fn compaction_step(&mut self, cursor: CompactionCursor, max_keys: usize) -> CompactionStep {
        let mut dead = Vec::new();
        let after =
            self.mvcc.index.compact(cursor.to, cursor.after.as_deref(), max_keys.max(1), &mut dead);
        let next = after.map(|after| CompactionCursor { to: cursor.to, after: Some(after) });
        if next.is_none() {
            self.mvcc.swept_revision = self.mvcc.swept_revision.max(cursor.to);
        }
        CompactionStep { dead, next }
    }

    /// The revision that the index has been swept to.
    pub fn swept_revision(&self) -> i64 {
        self.mvcc.swept_revision
    }

    /// Keeps what a compaction at `revision` would keep until the pin is dropped. Take it before a sweep past
    /// `revision` begins: what is swept does not come back.
    pub fn pin(&self, revision: i64) -> Pin {
        self.mvcc.pins.pin(revision)
    }
}
