//! The progress clock of a stream: every watcher that asked for it hears, from time to time, how far it is.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::interval::scatter;

/// Ticks every interval (plus up to a tenth, so that streams opened together do not all tick together), and names the
/// watchers that were quiet since the tick before (etcd `v3rpc/watch.go`, `GetProgressReportInterval`).
#[derive(Debug)]
pub(super) struct ProgressClock {
    interval: Duration,
    next: Instant,
    asked: BTreeSet<i64>,
    due: VecDeque<i64>,
}

impl ProgressClock {
    /// A clock that starts now, for the stream of that number.
    pub(super) fn start(interval: Duration, stream: u64) -> ProgressClock {
        let tenth = interval.as_nanos() as u64 / 10;
        let jitter = Duration::from_nanos(scatter(stream) % tenth.max(1));
        let interval = interval + jitter;
        ProgressClock {
            interval,
            next: Instant::now() + interval,
            asked: BTreeSet::new(),
            due: VecDeque::new(),
        }
    }

    /// The watcher wants to hear from the clock.
    pub(super) fn add(&mut self, id: i64) {
        self.asked.insert(id);
    }

    /// The watcher is gone.
    pub(super) fn remove(&mut self, id: i64) {
        self.asked.remove(&id);
    }

    /// When it ticks next, if anyone listens.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        (!self.asked.is_empty()).then_some(self.next)
    }

    /// Ticks, if it is time. `quiet` says whether a watcher got no events since the tick before.
    pub(super) fn tick(&mut self, quiet: impl Fn(i64) -> bool) {
        if self.asked.is_empty() {
            return;
        }
        let now = Instant::now();
        if now < self.next {
            return;
        }
        while self.next <= now {
            self.next += self.interval;
        }
        self.due = self.asked.iter().copied().filter(|id| quiet(*id)).collect();
    }

    /// A watcher that is due to hear.
    pub(super) fn pop_due(&mut self) -> Option<i64> {
        self.due.pop_front()
    }

    /// Some watcher is due.
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }
}
