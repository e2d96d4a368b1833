//! How long watch streams take to be sent what they are handed, by kind
//! (etcd `server/etcdserver/api/v3rpc/metrics.go`).

use std::time::Duration;

use prometheus::Histogram;
use quorate_core::api::pb::etcdserverpb::WatchResponse;

use crate::support::metrics::{Metrics, histogram};

/// Times of all watch streams of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WatchSendTimes {
    events: Histogram,
    per_event: Histogram,
    control: Histogram,
    progress: Histogram,
}

/// What a response carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Created or cancelled.
    Control,
    /// No events: how far the watch has come.
    Progress,
    /// So many events.
    Events(u32),
}

impl Sent {
    pub(crate) fn of(response: &WatchResponse) -> Self {
        let events = u32::try_from(response.events.len()).unwrap_or(u32::MAX);
        match (response.created || response.canceled, events) {
            (true, _) => Sent::Control,
            (false, 0) => Sent::Progress,
            (false, events) => Sent::Events(events),
        }
    }
}

impl Default for WatchSendTimes {
    fn default() -> Self {
        let times = |name, help| histogram(name, help, (0.001, 2.0, 14));
        WatchSendTimes {
            events: times(
                "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
                "The total duration in seconds of running through the send loop watch stream response all events.",
            ),
            per_event: times(
                "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
                "The average duration in seconds of running through the send loop watch stream response, per event.",
            ),
            control: times(
                "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
                "The total duration in seconds of running through the send loop control stream response.",
            ),
            progress: times(
                "etcd_debugging_server_watch_send_loop_progress_duration_seconds",
                "The total duration in seconds of running through the progress loop control stream response.",
            ),
        }
    }
}

impl WatchSendTimes {
    pub(crate) fn register(&self, metrics: &Metrics) {
        for times in [&self.events, &self.per_event, &self.control, &self.progress] {
            metrics.add(times.clone());
        }
    }

    /// The transport took a response after `took` of having it.
    pub(crate) fn sent(&self, what: Sent, took: Duration) {
        match what {
            Sent::Control => self.control.observe(took.as_secs_f64()),
            Sent::Progress => self.progress.observe(took.as_secs_f64()),
            Sent::Events(count) => {
                self.events.observe(took.as_secs_f64());
                self.per_event.observe(took.as_secs_f64() / f64::from(count.max(1)));
            }
        }
    }
}
