//! What the proxy counts of itself: `/proxy/metrics` (etcd `server/proxy/grpcproxy/metrics.go`).

use prometheus::{IntCounter, IntGauge};

use crate::support::metrics::Metrics;

/// The counters of one proxy.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    /// Watchers beyond the first of each watch at a member.
    pub(super) watchers_shared: IntGauge,
    /// Responses that reached watchers beyond the first.
    pub(super) events_shared: IntCounter,
    pub(super) cache_keys: IntGauge,
    pub(super) cache_hits: IntGauge,
    pub(super) cache_misses: IntGauge,
}

impl Figures {
    pub(super) fn new(metrics: &Metrics) -> Figures {
        let gauge =
            |name: &str, help: &str| metrics.gauge(&format!("etcd_grpc_proxy_{name}"), help);
        Figures {
            watchers_shared: gauge(
                "watchers_coalescing_total",
                "Total number of current watchers coalescing",
            ),
            events_shared: metrics.counter(
                "etcd_grpc_proxy_events_coalescing_total",
                "Total number of events coalescing",
            ),
            cache_keys: gauge("cache_keys_total", "Total number of keys/ranges cached"),
            cache_hits: gauge("cache_hits_total", "Total number of cache hits"),
            cache_misses: gauge("cache_misses_total", "Total number of cache misses"),
        }
    }
}
