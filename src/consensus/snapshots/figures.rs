//! Counts of whole states sent and taken, as etcd tells them (`server/etcdserver/api/rafthttp/metrics.go`).

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec, Opts};
use quorate_core::api::ids::MemberId;

use crate::support::metrics::{Metrics, histograms};

/// One direction.
#[derive(Clone, Debug)]
pub(super) struct Direction {
    success: IntCounterVec,
    failures: IntCounterVec,
    inflights: IntGaugeVec,
    seconds: HistogramVec,
}

impl Direction {
    fn new(word: &str, label: &str) -> Self {
        const VALID: &str = "the name is valid";
        let name = |end: &str| format!("etcd_network_snapshot_{word}_{end}");
        let opts = |end: &str, help: String| Opts::new(name(end), help);
        let labels = [label];
        Direction {
            success: IntCounterVec::new(
                opts("success", format!("Total number of successful snapshot {word}s")),
                &labels,
            )
            .expect(VALID),
            failures: IntCounterVec::new(
                opts("failures", format!("Total number of snapshot {word} failures")),
                &labels,
            )
            .expect(VALID),
            inflights: IntGaugeVec::new(
                opts("inflights_total", format!("Total number of inflight snapshot {word}s")),
                &labels,
            )
            .expect(VALID),
            seconds: histograms(
                &name("total_duration_seconds"),
                &format!("Total latency distributions of v3 snapshot {word}s"),
                &labels,
                (0.1, 2.0, 10),
            ),
        }
    }

    pub(super) fn begin(&self, member: MemberId) {
        self.inflights.with_label_values(&[&member.to_string()]).inc();
    }

    /// `took` when it ended well.
    pub(super) fn end(&self, member: MemberId, took: Option<Duration>) {
        let member = member.to_string();
        self.inflights.with_label_values(&[&member]).dec();
        match took {
            Some(took) => {
                self.success.with_label_values(&[&member]).inc();
                self.seconds.with_label_values(&[&member]).observe(took.as_secs_f64());
            }
            None => self.failures.with_label_values(&[&member]).inc(),
        }
    }

    fn register(&self, metrics: &Metrics) {
        metrics.add(self.success.clone());
        metrics.add(self.failures.clone());
        metrics.add(self.inflights.clone());
        metrics.add(self.seconds.clone());
    }
}

/// `etcd_network_snapshot_{send,receive}_*`, by member. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct SnapshotFigures {
    pub(super) send: Direction,
    pub(super) receive: Direction,
}

impl Default for SnapshotFigures {
    fn default() -> Self {
        SnapshotFigures {
            send: Direction::new("send", "To"),
            receive: Direction::new("receive", "From"),
        }
    }
}

impl SnapshotFigures {
    /// Has them shown.
    pub fn register(&self, metrics: &Metrics) {
        self.send.register(metrics);
        self.receive.register(metrics);
    }

    /// Whole states that were sent and installed by a member, and that were received and installed here.
    pub fn successes(&self, member: MemberId) -> (u64, u64) {
        let member = member.to_string();
        let count = |direction: &Direction| direction.success.with_label_values(&[&member]).get();
        (count(&self.send), count(&self.receive))
    }

    /// The same of those that failed.
    pub fn failures(&self, member: MemberId) -> (u64, u64) {
        let member = member.to_string();
        let count = |direction: &Direction| direction.failures.with_label_values(&[&member]).get();
        (count(&self.send), count(&self.receive))
    }
}
