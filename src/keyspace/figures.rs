//! What calls and upkeep take and come to, under etcd's names
//! (`server/etcdserver/{metrics.go,read/metrics.go,txn/metrics.go}`, `server/storage/mvcc/metrics.go`).

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntGauge};
use quorate_core::api::pb::internal::command::Request;

use super::apply_figures::{OPS, op_of};
use super::error::KeyspaceError;
use crate::support::clock::unix_micros;
use crate::support::metrics::{Metrics, histogram, histograms};

/// Counters and times of one keyspace, filled where the work is done.
#[derive(Debug)]
pub struct KeyspaceFigures {
    requests: ByOutcome,
    ranges: ByOutcome,
    /// `etcd_server_read_indexes_failed_total`: rounds that named no index.
    pub(crate) failed_read_indexes: IntCounter,
    /// `etcd_server_slow_read_indexes_total`: reads that waited a whole request timeout for one.
    pub(crate) slow_read_indexes: IntCounter,
    /// `etcd_mvcc_hash_duration_seconds`.
    pub(crate) hash: Histogram,
    /// `etcd_mvcc_hash_rev_duration_seconds`.
    pub(crate) hash_at_revision: Histogram,
    index_pause_ms: Histogram,
    compaction_ms: Histogram,
    compacted_keys: IntCounter,
    last_compaction: IntGauge,
}

/// Requests that never enter the log, behind those that do.
const READS: [&str; 2] = ["Range", "ReadonlyTxn"];

/// A request that is only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Range.
    Range,
    /// A txn of nothing but ranges.
    Txn,
}

impl Default for KeyspaceFigures {
    fn default() -> Self {
        let counter = |name, help| IntCounter::new(name, help).expect("the name is valid");
        KeyspaceFigures {
            requests: ByOutcome::new(
                "etcd_server_request_duration_seconds",
                "Response latency distribution in seconds for each type.",
                Some("type"),
                (0.001, 2.0, 14),
                OPS.iter().chain(&READS).copied().collect(),
            ),
            ranges: ByOutcome::new(
                "etcd_server_range_duration_seconds",
                "The latency distributions of txn.Range",
                None,
                (0.0001, 2.0, 20),
                vec![""],
            ),
            failed_read_indexes: counter(
                "etcd_server_read_indexes_failed_total",
                "The total number of failed read indexes seen.",
            ),
            slow_read_indexes: counter(
                "etcd_server_slow_read_indexes_total",
                "The total number of pending read indexes not in sync with leader's or timed out read index requests.",
            ),
            hash: histogram(
                "etcd_mvcc_hash_duration_seconds",
                "The latency distribution of storage hash operation.",
                (0.01, 2.0, 15),
            ),
            hash_at_revision: histogram(
                "etcd_mvcc_hash_rev_duration_seconds",
                "The latency distribution of storage hash by revision operation.",
                (0.01, 2.0, 15),
            ),
            index_pause_ms: histogram(
                "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
                "Bucketed histogram of index compaction pause duration.",
                (0.5, 2.0, 14),
            ),
            compaction_ms: histogram(
                "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
                "Bucketed histogram of db compaction total duration.",
                (100.0, 2.0, 14),
            ),
            compacted_keys: counter(
                "etcd_debugging_mvcc_db_compaction_keys_total",
                "Total number of db keys compacted.",
            ),
            last_compaction: IntGauge::new(
                "etcd_debugging_mvcc_db_compaction_last",
                "The unix time of the last db compaction. Resets to 0 on start.",
            )
            .expect("the name is valid"),
        }
    }
}

impl KeyspaceFigures {
    /// Hands all of them to a server's registry.
    pub fn register(&self, metrics: &Metrics) {
        metrics.add(self.requests.all.clone());
        metrics.add(self.ranges.all.clone());
        for counter in [&self.failed_read_indexes, &self.slow_read_indexes, &self.compacted_keys] {
            metrics.add(counter.clone());
        }
        for times in [&self.hash, &self.hash_at_revision, &self.index_pause_ms, &self.compaction_ms]
        {
            metrics.add(times.clone());
        }
        metrics.add(self.last_compaction.clone());
    }

    /// A request for the log was answered. One that was refused when it was applied has come through, as with etcd.
    pub(crate) fn proposed<T>(
        &self,
        request: Option<&Request>,
        outcome: &Result<T, KeyspaceError>,
        took: Duration,
    ) {
        let came_through = matches!(outcome, Ok(_) | Err(KeyspaceError::Refused(_)));
        if let Some(request) = request {
            self.requests.observe(op_of(request), came_through, took);
        }
    }

    /// A request that is only read was answered.
    pub(crate) fn read(&self, read: Read, success: bool, took: Duration) {
        let place = match read {
            Read::Range => 0,
            Read::Txn => 1,
        };
        self.requests.observe(OPS.len() + place, success, took);
    }

    /// Rows were picked and fetched.
    pub(crate) fn ranged(&self, success: bool, took: Duration) {
        self.ranges.observe(0, success, took);
    }

    /// One step of a sweep held the machine's lock for so long and dropped `keys` revisions.
    pub(crate) fn swept_some(&self, keys: usize, took: Duration) {
        self.index_pause_ms.observe(took.as_secs_f64() * 1000.0);
        self.compacted_keys.inc_by(keys as u64);
    }

    /// A sweep came to its end.
    pub(crate) fn swept(&self, took: Duration) {
        self.compaction_ms.observe(took.as_secs_f64() * 1000.0);
        self.last_compaction.set(unix_micros() as i64 / 1_000_000);
    }
}

/// Times told apart by kind and by success; a pair that never came has no series, as with etcd.
#[derive(Debug)]
struct ByOutcome {
    all: HistogramVec,
    kinds: Vec<&'static str>,
    known: Vec<[OnceLock<Histogram>; 2]>,
    has_kind: bool,
}

impl ByOutcome {
    fn new(
        name: &str,
        help: &str,
        kind: Option<&str>,
        buckets: (f64, f64, usize),
        kinds: Vec<&'static str>,
    ) -> Self {
        let labels: Vec<&str> = kind.into_iter().chain(["success"]).collect();
        ByOutcome {
            all: histograms(name, help, &labels, buckets),
            known: kinds.iter().map(|_| Default::default()).collect(),
            kinds,
            has_kind: kind.is_some(),
        }
    }

    fn observe(&self, kind: usize, success: bool, took: Duration) {
        let times = self.known[kind][usize::from(success)].get_or_init(|| {
            let word = if success { "true" } else { "false" };
            match self.has_kind {
                true => self.all.with_label_values(&[self.kinds[kind], word]),
                false => self.all.with_label_values(&[word]),
            }
        });
        times.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::api::pb::etcdserverpb as pb;
    use quorate_core::api::refusal::Refusal;

    use super::*;

    #[test]
    fn a_refused_request_came_through_and_one_that_ran_out_of_time_did_not() {
        let figures = KeyspaceFigures::default();
        let put = Request::Put(pb::PutRequest::default());
        let refused: Result<(), _> = Err(KeyspaceError::Refused(Refusal::NoSpace));
        figures.proposed(Some(&put), &refused, Duration::from_millis(3));
        figures.proposed(Some(&put), &Err::<(), _>(KeyspaceError::NoLeader), Duration::ZERO);
        figures.read(Read::Txn, true, Duration::from_millis(1));
        figures.ranged(true, Duration::from_millis(1));
        let metrics = Metrics::default();
        figures.register(&metrics);
        let text = metrics.text();
        for line in [
            "etcd_server_request_duration_seconds_count{success=\"true\",type=\"Put\"} 1",
            "etcd_server_request_duration_seconds_count{success=\"false\",type=\"Put\"} 1",
            "etcd_server_request_duration_seconds_bucket{success=\"true\",type=\"Put\",le=\"0.004\"} 1",
            "etcd_server_request_duration_seconds_count{success=\"true\",type=\"ReadonlyTxn\"} 1",
            "etcd_server_range_duration_seconds_count{success=\"true\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
