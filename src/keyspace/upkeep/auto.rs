//! Compaction by itself, on the leader alone (etcd `server/etcdserver/api/v3compactor`).
//!
//! Periodic: the revision is sampled ten times a period (of an hour at most); once a whole period has been seen, and
//! then every min(period, 1 h), history up to the revision of one period ago goes. Revision: every five minutes,
//! all but the newest N revisions go.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use quorate_core::api::refusal::Refusal;
use tokio::time::Instant;

use crate::keyspace::config::AutoCompaction;
use crate::keyspace::error::KeyspaceError;

/// Periodic compaction runs at least this often.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// Samples, and tries, in such an interval.
const SAMPLES: u32 = 10;
/// Between two looks in revision mode.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);

/// What compacting needs of the keyspace.
pub(crate) trait Compactable: Send + Sync {
    /// The current revision.
    fn revision(&self) -> i64;
    /// Whether this member leads: nobody else compacts.
    fn leads(&self) -> bool;
    /// Proposes a compaction.
    fn compact(&self, revision: i64) -> impl Future<Output = Result<(), KeyspaceError>> + Send;
}

/// Compacts for ever; the keyspace's owner drops it.
pub(crate) async fn compact_by_itself(mode: AutoCompaction, keyspace: impl Compactable) {
    match mode {
        AutoCompaction::Periodic(period) => periodic(period, &keyspace).await,
        AutoCompaction::Revision(keep) => by_revision(keep, &keyspace).await,
    }
}

async fn periodic(period: Duration, keyspace: &impl Compactable) {
    let began = Instant::now();
    let mut samples = Samples::new(period);
    loop {
        samples.take(keyspace.revision());
        tokio::time::sleep(samples.step).await;
        if !keyspace.leads() {
            continue;
        }
        if let Some(due) = samples.due(began.elapsed())
            && compact(keyspace, due).await
        {
            samples.compacted(due, began.elapsed());
        }
    }
}

async fn by_revision(keep: i64, keyspace: &impl Compactable) {
    let mut last = None;
    loop {
        tokio::time::sleep(REVISION_INTERVAL).await;
        let to = keyspace.revision() - keep;
        if !keyspace.leads() || to <= 0 || last == Some(to) {
            continue;
        }
        if compact(keyspace, to).await {
            last = Some(to);
        }
    }
}

/// The revisions of the last period, and when the next compaction is due.
#[derive(Debug)]
struct Samples {
    step: Duration,
    interval: Duration,
    /// Until the first compaction a whole period passes, then an interval.
    wait: Duration,
    kept: usize,
    revisions: VecDeque<i64>,
    last: Option<i64>,
    compacted_at: Duration,
}

impl Samples {
    fn new(period: Duration) -> Self {
        let interval = period.min(INTERVAL_MAX);
        let step = (interval / SAMPLES).max(Duration::from_millis(1));
        let kept = period.as_nanos() / step.as_nanos() + 1;
        Samples {
            step,
            interval,
            wait: period,
            kept: usize::try_from(kept).unwrap_or(usize::MAX),
            revisions: VecDeque::new(),
            last: None,
            compacted_at: Duration::ZERO,
        }
    }

    fn take(&mut self, revision: i64) {
        self.revisions.push_back(revision);
        if self.revisions.len() > self.kept {
            self.revisions.pop_front();
        }
    }

    /// The revision to compact to, if it is time: that of one period before the last sample.
    fn due(&mut self, now: Duration) -> Option<i64> {
        let oldest = self.revisions.front().copied()?;
        if now.saturating_sub(self.compacted_at) < self.wait || self.last == Some(oldest) {
            return None;
        }
        self.wait = self.interval;
        Some(oldest)
    }

    fn compacted(&mut self, to: i64, now: Duration) {
        self.last = Some(to);
        self.compacted_at = now;
    }
}

/// Whether history up to `revision` is compacted now.
async fn compact(keyspace: &impl Compactable, revision: i64) -> bool {
    match keyspace.compact(revision).await {
        Ok(()) | Err(KeyspaceError::Refused(Refusal::Compacted)) => {
            tracing::info!(revision, "completed auto compaction");
            true
        }
        Err(error) => {
            tracing::warn!(revision, %error, "auto compaction failed; trying again later");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is compacted when, in minutes, of a store that gains ten revisions a minute.
    fn compactions(period: Duration, minutes: u64) -> Vec<(u64, i64)> {
        let mut samples = Samples::new(period);
        let mut now = Duration::ZERO;
        let mut compacted = Vec::new();
        while now < Duration::from_secs(minutes * 60) {
            samples.take(now.as_secs() as i64 / 6);
            now += samples.step;
            if let Some(due) = samples.due(now) {
                compacted.push((now.as_secs() / 60, due));
                samples.compacted(due, now);
            }
        }
        compacted
    }

    #[test]
    fn periodic_waits_a_period_and_keeps_one() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        assert_eq!(compactions(hours(1), 180), [(60, 0), (120, 540), (180, 1140)]);
        assert_eq!(compactions(hours(2), 240), [(120, 0), (180, 540), (240, 1140)]);
        assert_eq!(compactions(hours(1) / 6, 30), [(10, 0), (20, 90), (30, 190)]);
    }

    #[test]
    fn the_same_revision_is_not_compacted_twice() {
        let mut samples = Samples::new(Duration::from_secs(10));
        samples.take(5);
        assert_eq!(samples.due(Duration::from_secs(10)), Some(5));
        samples.compacted(5, Duration::from_secs(10));
        assert_eq!(samples.due(Duration::from_secs(30)), None);
    }
}
