//! Facts about watches, counted for the metrics page.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Plain counters, read at any time (etcd `server/storage/mvcc/metrics.go`).
#[derive(Debug, Default)]
pub struct WatchCounters {
    streams: AtomicI64,
    watchers: AtomicI64,
    slow_watchers: AtomicI64,
    pending_events: AtomicI64,
    events: AtomicU64,
}

impl WatchCounters {
    /// Open streams.
    pub fn streams(&self) -> i64 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Watchers on all streams.
    pub fn watchers(&self) -> i64 {
        self.watchers.load(Ordering::Relaxed)
    }

    /// Watchers that lag behind the newest revision.
    pub fn slow_watchers(&self) -> i64 {
        self.slow_watchers.load(Ordering::Relaxed)
    }

    /// Events that stand in queues.
    pub fn pending_events(&self) -> i64 {
        self.pending_events.load(Ordering::Relaxed)
    }

    /// Events handed to streams since the start.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    pub(super) fn add_streams(&self, by: i64) {
        self.streams.fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn add_watchers(&self, by: i64) {
        self.watchers.fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn add_slow(&self, by: i64) {
        self.slow_watchers.fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn queued(&self, events: usize) {
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        self.pending_events.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn taken(&self, events: usize) {
        let count = i64::try_from(events).unwrap_or(i64::MAX);
        self.pending_events.fetch_sub(count, Ordering::Relaxed);
        self.events.fetch_add(events as u64, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self, events: usize) {
        let count = i64::try_from(events).unwrap_or(i64::MAX);
        self.pending_events.fetch_sub(count, Ordering::Relaxed);
    }
}
