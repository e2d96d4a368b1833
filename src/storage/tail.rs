//! The memory tail: batches that were committed and are not in the state store yet.
//!
//! ```text
//!   commit ──push──▶ [ batch | batch | batch ] ──pop, after the engine has them──▶ gone
//!                      stored + 1 …        newest
//! ```
//!
//! **Invariant:** a revision is in the tail exactly when its main is above `stored`; at or below, it is in the
//! state store. Batches leave only after the store has committed them.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use quorate_core::api::batch::{RevisionRecord, WriteBatch};
use quorate_core::api::ids::{LogId, Revision};

/// Memory a revision or record takes beside its bytes, roughly.
const OVERHEAD: usize = 160;

/// One committed batch and its weight.
#[derive(Debug)]
pub(crate) struct TailBatch {
    pub(crate) batch: WriteBatch,
    /// Memory it takes.
    pub(crate) weight: usize,
    /// Bytes of its keys, values and records: about what its entry takes in the journal.
    pub(crate) bytes: usize,
}

impl TailBatch {
    pub(crate) fn new(batch: WriteBatch) -> Self {
        let revisions = batch.revisions.iter();
        let revision_bytes: usize =
            revisions.map(|record| record.kv.key.len() + record.kv.value.len()).sum();
        let records = batch.records.iter();
        let record_bytes: usize = records
            .map(|change| change.key.len() + change.value.as_ref().map_or(0, Bytes::len))
            .sum();
        let bytes = revision_bytes + record_bytes;
        let weight = bytes + OVERHEAD * (1 + batch.revisions.len() + batch.records.len());
        TailBatch { batch, weight, bytes }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Tail {
    batches: VecDeque<Arc<TailBatch>>,
    weight: usize,
    /// Everything up to this main revision is in the state store.
    stored: i64,
    /// The last batch taken, stored or not.
    applied: Option<LogId>,
}

impl Tail {
    pub(crate) fn new(stored: i64, applied: Option<LogId>) -> Self {
        Tail { batches: VecDeque::new(), weight: 0, stored, applied }
    }

    pub(crate) fn push(&mut self, batch: TailBatch) {
        debug_assert!(
            self.applied.is_none_or(|at| at.index < batch.batch.applied.index),
            "batches come in log order"
        );
        self.applied = Some(batch.batch.applied);
        self.weight += batch.weight;
        self.batches.push_back(Arc::new(batch));
    }

    /// Leading batches up to log id `durable`, until `max_weight` is reached; at least one if any may leave.
    pub(crate) fn leading(&self, durable: Option<LogId>, max_weight: usize) -> Vec<Arc<TailBatch>> {
        let mut taken = Vec::new();
        let mut weight = 0;
        for batch in &self.batches {
            let safe = durable.is_some_and(|durable| batch.batch.applied.index <= durable.index);
            if !safe || weight >= max_weight {
                break;
            }
            weight += batch.weight;
            taken.push(Arc::clone(batch));
        }
        taken
    }

    /// Lets the first `count` batches go: the state store has them. They are handed back so that they are freed
    /// outside the caller's lock.
    pub(crate) fn pop(&mut self, count: usize) -> Vec<Arc<TailBatch>> {
        let gone: Vec<_> = self.batches.drain(..count).collect();
        for batch in &gone {
            self.weight -= batch.weight;
            self.stored = self.stored.max(batch.batch.revision);
        }
        gone
    }

    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    pub(crate) fn stored(&self) -> i64 {
        self.stored
    }

    pub(crate) fn applied(&self) -> Option<LogId> {
        self.applied
    }

    /// The record of `revision`, if the tail has it.
    pub(crate) fn record(&self, revision: Revision) -> Option<&RevisionRecord> {
        let revisions = &self.batches.get(self.batch_of(revision.main))?.batch.revisions;
        let found = revisions.binary_search_by(|record| record.revision.cmp(&revision));
        revisions.get(found.ok()?)
    }

    /// Copies records from `from` on into `out` until `budget` bytes are used up; whole main revisions only.
    pub(crate) fn scan(&self, from: Revision, budget: &mut Budget, out: &mut Vec<RevisionRecord>) {
        for batch in self.batches.range(self.batch_of(from.main)..) {
            for record in &batch.batch.revisions {
                if record.revision < from {
                    continue;
                }
                let size = record.kv.key.len() + record.kv.value.len();
                if !budget.admit(record.revision.main, size) {
                    return;
                }
                out.push(RevisionRecord { prev: None, ..record.clone() });
            }
        }
    }

    /// The first batch after which the current revision is at least `main`: the one that holds it.
    fn batch_of(&self, main: i64) -> usize {
        self.batches.partition_point(|batch| batch.batch.revision < main)
    }
}

/// How much a scan may still hand out. Counts bytes of keys and values; never splits a main revision.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
    current: Option<i64>,
    full: bool,
}

impl Budget {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Budget { left: max_bytes, current: None, full: false }
    }

    /// Whether one more record of main revision `main` is to be handed out.
    pub(crate) fn admit(&mut self, main: i64, size: usize) -> bool {
        if self.current != Some(main) {
            if self.current.is_some() && self.left == 0 {
                self.full = true;
                return false;
            }
            self.current = Some(main);
        }
        self.left = self.left.saturating_sub(size + 32);
        true
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full
    }
}
