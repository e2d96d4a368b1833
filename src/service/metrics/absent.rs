//! What every etcd shows and a member like ours has none of: of its proxy, of its store of version 2, of its database
//! and of its runtime. All of it stays at zero, which is the truth, so that whoever asks for the names finds them.

use crate::support::metrics::{Metrics, histogram};

/// Registers them all.
pub(super) fn register(metrics: &Metrics) {
    for (name, help) in COUNTERS {
        metrics.counter(name, help);
    }
    for (name, help) in GAUGES {
        metrics.gauge(name, help);
    }
    for (name, help, buckets) in TIMES {
        metrics.add(histogram(name, help, buckets));
    }
    go_runtime(metrics);
}

const COUNTERS: [(&str, &str); 4] = [
    ("etcd_debugging_store_expires_total", "Total number of expired keys."),
    (
        "etcd_debugging_store_watch_requests_total",
        "Total number of incoming watch requests (new or reestablished).",
    ),
    ("etcd_grpc_proxy_events_coalescing_total", "Total number of events coalescing"),
    (
        "etcd_server_heartbeat_send_failures_total",
        "The total number of leader heartbeat send failures (likely overloaded from slow disk).",
    ),
];

/// Of the proxy and the old store, which etcd made gauges.
const GAUGES: [(&str, &str); 5] = [
    ("etcd_debugging_store_watchers", "Count of currently active watchers."),
    ("etcd_grpc_proxy_cache_hits_total", "Total number of cache hits"),
    ("etcd_grpc_proxy_cache_misses_total", "Total number of cache misses"),
    ("etcd_grpc_proxy_cache_keys_total", "Total number of keys/ranges cached"),
    ("etcd_grpc_proxy_watchers_coalescing_total", "Total number of current watchers coalescing"),
];

/// Of bbolt, whose commits have parts, and whose file is what a snapshot sends.
const TIMES: [(&str, &str, (f64, f64, usize)); 4] = [
    (
        "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
        "The latency distributions of commit.rebalance called by bboltdb backend.",
        (0.001, 2.0, 14),
    ),
    (
        "etcd_debugging_disk_backend_commit_spill_duration_seconds",
        "The latency distributions of commit.spill called by bboltdb backend.",
        (0.001, 2.0, 14),
    ),
    (
        "etcd_debugging_disk_backend_commit_write_duration_seconds",
        "The latency distributions of commit.write called by bboltdb backend.",
        (0.001, 2.0, 14),
    ),
    (
        "etcd_disk_backend_snapshot_duration_seconds",
        "The latency distribution of backend snapshots.",
        (0.01, 2.0, 17),
    ),
];

/// There is no Go: no goroutines, no garbage collection, no heap of its.
fn go_runtime(metrics: &Metrics) {
    let named = |name, help, label| {
        metrics.gauges(name, help, &[label]).with_label_values(&["none"]).set(1);
    };
    named("go_info", "Information about the Go environment: there is none.", "version");
    named(
        "etcd_server_go_version",
        "Which Go version server is running with. 1 for 'server_go_version' label with current version.",
        "server_go_version",
    );
    for name in GO_COUNTERS {
        metrics.counter(name, "Of the Go runtime: there is none.");
    }
    for name in GO_GAUGES {
        metrics.gauge(name, "Of the Go runtime: there is none.");
    }
}

const GO_COUNTERS: [&str; 3] =
    ["go_memstats_alloc_bytes_total", "go_memstats_frees_total", "go_memstats_mallocs_total"];

const GO_GAUGES: [&str; 25] = [
    "go_gc_duration_seconds",
    "go_gc_gogc_percent",
    "go_gc_gomemlimit_bytes",
    "go_goroutines",
    "go_memstats_alloc_bytes",
    "go_memstats_buck_hash_sys_bytes",
    "go_memstats_gc_sys_bytes",
    "go_memstats_heap_alloc_bytes",
    "go_memstats_heap_idle_bytes",
    "go_memstats_heap_inuse_bytes",
    "go_memstats_heap_objects",
    "go_memstats_heap_released_bytes",
    "go_memstats_heap_sys_bytes",
    "go_memstats_last_gc_time_seconds",
    "go_memstats_mcache_inuse_bytes",
    "go_memstats_mcache_sys_bytes",
    "go_memstats_mspan_inuse_bytes",
    "go_memstats_mspan_sys_bytes",
    "go_memstats_next_gc_bytes",
    "go_memstats_other_sys_bytes",
    "go_memstats_stack_inuse_bytes",
    "go_memstats_stack_sys_bytes",
    "go_memstats_sys_bytes",
    "go_sched_gomaxprocs_threads",
    "go_threads",
];
