//! The table of metrics: etcd's names with the facts of this member behind them.
//!
//! A name stands here only if its value is a fact, or if etcd itself shows a fixed value on a member that was
//! started as ours is. What is read from the keyspace is read when somebody scrapes.

mod absent;
mod facts;
mod sent;
mod storage;

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::response_op::Response as OpResponse;

use self::facts::Facts;
pub(crate) use self::sent::Sent;
pub use self::sent::WatchSendTimes;
use self::storage::StorageFigures;
use super::version::{ETCD_VERSION, cluster_minor};
use crate::host::JournalGauge;
use crate::keyspace::Keyspace;
use crate::support::metrics::{Metrics, ProcessFigures, histogram};

/// What operations clients had done, counted one by one, those inside transactions too
/// (etcd `server/storage/mvcc/metrics_txn.go`).
#[derive(Clone, Debug)]
pub(crate) struct KvCounts {
    pub(crate) ranges: IntCounter,
    pub(crate) puts: IntCounter,
    pub(crate) deletes: IntCounter,
    txns: IntCounter,
}

impl KvCounts {
    fn new(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.counter(name, help);
        KvCounts {
            ranges: counter("etcd_mvcc_range_total", "Total number of ranges seen by this member."),
            puts: counter("etcd_mvcc_put_total", "Total number of puts seen by this member."),
            deletes: counter(
                "etcd_mvcc_delete_total",
                "Total number of deletes seen by this member.",
            ),
            txns: counter("etcd_mvcc_txn_total", "Total number of txns seen by this member."),
        }
    }

    /// Counts what a transaction did; it counts itself when it did more than one operation.
    pub(crate) fn txn(&self, response: &pb::TxnResponse) {
        if self.operations(response) > 1 {
            self.txns.inc();
        }
    }

    fn operations(&self, response: &pb::TxnResponse) -> usize {
        let mut count = 0;
        for op in &response.responses {
            match &op.response {
                Some(OpResponse::ResponseRange(_)) => self.ranges.inc(),
                Some(OpResponse::ResponsePut(_)) => self.puts.inc(),
                Some(OpResponse::ResponseDeleteRange(_)) => self.deletes.inc(),
                Some(OpResponse::ResponseTxn(nested)) => {
                    count += self.operations(nested);
                    continue;
                }
                None => continue,
            }
            count += 1;
        }
        count
    }
}

/// How long the journal takes to write and to sync. Made before the journal is opened, registered after.
#[derive(Clone, Debug)]
pub struct JournalFigures {
    sync: Histogram,
    write: Histogram,
    bytes: IntGauge,
}

impl Default for JournalFigures {
    fn default() -> Self {
        let buckets = (0.001, 2.0, 14);
        JournalFigures {
            sync: histogram(
                "etcd_disk_wal_fsync_duration_seconds",
                "The latency distributions of fsync called by WAL.",
                buckets,
            ),
            write: histogram(
                "etcd_disk_wal_write_duration_seconds",
                "The latency distributions of write called by WAL.",
                buckets,
            ),
            bytes: IntGauge::new(
                "etcd_disk_wal_write_bytes_total",
                "Total number of bytes written in WAL.",
            )
            .expect("the name is valid"),
        }
    }
}

impl JournalFigures {
    /// One frame was written and synced.
    pub fn frame(&self, bytes: u32, write: Duration, sync: Duration) {
        self.bytes.add(bytes.into());
        self.write.observe(write.as_secs_f64());
        self.sync.observe(sync.as_secs_f64());
    }

    fn register(&self, metrics: &Metrics) {
        metrics.add(self.sync.clone());
        metrics.add(self.write.clone());
        metrics.add(self.bytes.clone());
    }
}

/// One server's metrics.
#[derive(Debug)]
pub(crate) struct ServerMetrics {
    metrics: Metrics,
    pub(crate) kv: KvCounts,
    pub(crate) health_success: IntCounter,
    pub(crate) health_failures: IntCounter,
    pub(crate) check_result: IntGaugeVec,
    pub(crate) checks: IntCounterVec,
    pub(crate) watch_sends: WatchSendTimes,
    scrapes: Scrapes,
    facts: Facts,
    storage: Option<StorageFigures>,
}

/// Scrapes of the metrics themselves, in the words of Prometheus's own handler.
#[derive(Debug)]
struct Scrapes {
    in_flight: IntGauge,
    answered: IntCounter,
}

impl Scrapes {
    fn new(metrics: &Metrics) -> Self {
        let total = metrics.counters(
            "promhttp_metric_handler_requests_total",
            "Total number of scrapes by HTTP status code.",
            &["code"],
        );
        let [answered, ..] = ["200", "500", "503"].map(|code| total.with_label_values(&[code]));
        let in_flight = metrics.gauge(
            "promhttp_metric_handler_requests_in_flight",
            "Current number of scrapes being served.",
        );
        Scrapes { in_flight, answered }
    }
}

impl ServerMetrics {
    /// Everything registered, and what never changes set.
    pub(crate) fn new(
        member: MemberId,
        gates: &BTreeMap<&'static str, (&'static str, bool)>,
        journal: &JournalFigures,
    ) -> Self {
        let metrics = Metrics::default();
        journal.register(&metrics);
        metrics.add(ProcessFigures::default());
        fixed(&metrics, member, gates);
        let kv = KvCounts::new(&metrics);
        ServerMetrics {
            kv,
            health_success: metrics.counter(
                "etcd_server_health_success",
                "The total number of successful health checks",
            ),
            health_failures: metrics
                .counter("etcd_server_health_failures", "The total number of failed health checks"),
            check_result: metrics.gauges(
                "etcd_server_healthcheck",
                "The result of each kind of healthcheck.",
                &["type", "name"],
            ),
            checks: metrics.counters(
                "etcd_server_healthchecks_total",
                "The total number of each kind of healthcheck.",
                &["type", "name", "status"],
            ),
            watch_sends: WatchSendTimes::default(),
            scrapes: Scrapes::new(&metrics),
            facts: Facts::new(&metrics),
            storage: None,
            metrics,
        }
    }

    /// The same with what a running keyspace adds: times of its applies, and what it writes.
    pub(crate) fn with_storage(mut self, keyspace: &Keyspace, journal: JournalGauge) -> Self {
        keyspace.apply_figures().register(&self.metrics);
        keyspace.figures().register(&self.metrics);
        keyspace.store_seconds().register(&self.metrics);
        self.metrics.add(keyspace.lease_counters().ttl());
        self.watch_sends.register(&self.metrics);
        self.storage = Some(StorageFigures::new(&self.metrics, journal));
        self
    }

    /// Where further metrics are registered.
    pub(crate) fn registry(&self) -> &Metrics {
        &self.metrics
    }

    /// Everything in Prometheus's text format, the keyspace's facts fresh.
    pub(crate) fn text(&self, keyspace: &Keyspace) -> String {
        self.facts.refresh(keyspace);
        if let Some(storage) = &self.storage {
            storage.refresh(keyspace);
        }
        self.scrapes.in_flight.inc();
        let text = self.metrics.text();
        self.scrapes.in_flight.dec();
        self.scrapes.answered.inc();
        text
    }
}

/// Facts that hold from start to stop, and counters of what a member like ours never does.
fn fixed(
    metrics: &Metrics,
    member: MemberId,
    gates: &BTreeMap<&'static str, (&'static str, bool)>,
) {
    let one = |name, help, label, value: &str| {
        metrics.gauges(name, help, &[label]).with_label_values(&[value]).set(1);
    };
    one(
        "etcd_server_version",
        "Which version is running. 1 for 'server_version' label with current version.",
        "server_version",
        ETCD_VERSION,
    );
    one(
        "etcd_cluster_version",
        "Which version is running. 1 for 'cluster_version' label with current cluster version",
        "cluster_version",
        &cluster_minor(),
    );
    one(
        "etcd_server_id",
        "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
        "server_id",
        &member.to_string(),
    );
    let features = metrics.gauges(
        "etcd_server_feature_enabled",
        "Whether or not a feature is enabled. 1 is enabled, 0 is not.",
        &["name", "stage"],
    );
    for (name, (stage, on)) in gates {
        features.with_label_values(&[name, stage]).set((*on).into());
    }
    absent::register(metrics);
    metrics.gauge(
        "etcd_server_snapshot_apply_in_progress_total",
        "1 if the server is applying the incoming snapshot. 0 if none.",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_inside_transactions_are_counted() {
        let metrics =
            ServerMetrics::new(MemberId(0xab), &BTreeMap::new(), &JournalFigures::default());
        let op = |response| pb::ResponseOp { response: Some(response) };
        let put = || op(OpResponse::ResponsePut(pb::PutResponse::default()));
        let single = pb::TxnResponse { responses: vec![put()], ..Default::default() };
        metrics.kv.txn(&single);
        assert_eq!((metrics.kv.puts.get(), metrics.kv.txns.get()), (1, 0));
        let nested = pb::TxnResponse {
            responses: vec![put(), op(OpResponse::ResponseTxn(single))],
            ..Default::default()
        };
        metrics.kv.txn(&nested);
        assert_eq!((metrics.kv.puts.get(), metrics.kv.txns.get()), (3, 1));
        let text = metrics.metrics.text();
        assert!(text.contains("etcd_mvcc_put_total 3"));
        assert!(text.contains("etcd_server_version{server_version=\"3.7.1\"} 1"));
        assert!(text.contains("etcd_cluster_version{cluster_version=\"3.7\"} 1"));
        assert!(text.contains("etcd_server_id{server_id=\"ab\"} 1"));
    }
}
