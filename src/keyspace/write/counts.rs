//! Requests on their way into the log, counted for the metrics page (etcd `server/etcdserver/metrics.go`).

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Plain counters, read at any time.
#[derive(Debug, Default)]
pub struct ProposalCounts {
    pending: AtomicI64,
    failed: AtomicU64,
}

impl ProposalCounts {
    /// Requests that wait to be committed and applied.
    pub fn pending(&self) -> i64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Requests that the log did not take, or not in time. A refusal by the state machine is none: it was applied.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn fail(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// One more waits, until the answer is dropped.
    pub(super) fn wait(&self) -> Pending<'_> {
        self.pending.fetch_add(1, Ordering::Relaxed);
        Pending(&self.pending)
    }
}

/// A request that waits; its caller may give up at any time.
#[derive(Debug)]
pub(super) struct Pending<'a>(&'a AtomicI64);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
