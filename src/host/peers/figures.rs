//! What goes to and comes from each member, as etcd tells it (`server/etcdserver/api/rafthttp/metrics.go`).

use std::time::Duration;

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts};
use quorate_core::api::ids::MemberId;

use crate::support::metrics::{Metrics, histograms};

/// `etcd_network_peer_*`, `active_peers` and `disconnected_peers_total`. Clones count together.
#[derive(Clone, Debug)]
pub struct PeerFigures {
    sent_bytes: IntCounterVec,
    received_bytes: IntCounterVec,
    sent_failures: IntCounterVec,
    active: IntGaugeVec,
    disconnected: IntCounterVec,
    round_trip: HistogramVec,
}

/// One connection's share.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    pub(super) sent: IntCounter,
    pub(super) received: IntCounter,
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("the name is valid")
}

impl Default for PeerFigures {
    fn default() -> Self {
        PeerFigures {
            sent_bytes: counters(
                "etcd_network_peer_sent_bytes_total",
                "The total number of bytes sent to peers.",
                &["To"],
            ),
            received_bytes: counters(
                "etcd_network_peer_received_bytes_total",
                "The total number of bytes received from peers.",
                &["From"],
            ),
            sent_failures: counters(
                "etcd_network_peer_sent_failures_total",
                "The total number of send failures from peers.",
                &["To"],
            ),
            active: IntGaugeVec::new(
                Opts::new(
                    "etcd_network_active_peers",
                    "The current number of active peer connections.",
                ),
                &["Local", "Remote"],
            )
            .expect("the name is valid"),
            disconnected: counters(
                "etcd_network_disconnected_peers_total",
                "The total number of disconnected peers.",
                &["Local", "Remote"],
            ),
            round_trip: histograms(
                "etcd_network_peer_round_trip_time_seconds",
                "Round-Trip-Time histogram between peers",
                &["To"],
                (0.0001, 2.0, 16),
            ),
        }
    }
}

impl PeerFigures {
    /// Has them shown.
    pub fn register(&self, metrics: &Metrics) {
        metrics.add(self.sent_bytes.clone());
        metrics.add(self.received_bytes.clone());
        metrics.add(self.sent_failures.clone());
        metrics.add(self.active.clone());
        metrics.add(self.disconnected.clone());
        metrics.add(self.round_trip.clone());
    }

    pub(super) fn traffic(&self, peer: MemberId) -> Traffic {
        let peer = peer.to_string();
        // Shown before the first one, so that a rate of it is known to be none.
        self.sent_failures.with_label_values(&[&peer]);
        Traffic {
            sent: self.sent_bytes.with_label_values(&[&peer]),
            received: self.received_bytes.with_label_values(&[&peer]),
        }
    }

    pub(super) fn failed(&self, peer: MemberId) {
        self.sent_failures.with_label_values(&[&peer.to_string()]).inc();
    }

    /// A heartbeat and its answer: etcd measures a probe of its own.
    pub(super) fn round_trip(&self, peer: MemberId, took: Duration) {
        self.round_trip.with_label_values(&[&peer.to_string()]).observe(took.as_secs_f64());
    }

    /// The member has streams to this one, or has none any more.
    pub(super) fn connected(&self, own: MemberId, peer: MemberId, connected: bool) {
        let labels = [own.to_string(), peer.to_string()];
        let active = self.active.with_label_values(&labels);
        if active.get() == 1 && !connected {
            self.disconnected.with_label_values(&labels).inc();
        }
        active.set(connected.into());
    }
}
