//! How long the store's background work takes, under the names that etcd has for what answers to it.
//!
//! What etcd calls a backend's commit is here the batch that goes to the state store; its snapshot file is the base.

use prometheus::Histogram;

use crate::support::metrics::{Metrics, histogram};

/// Times in seconds; cheap to clone, and the same wherever it is held. Goes on over installs.
#[derive(Clone, Debug)]
pub struct StoreSeconds {
    /// `etcd_disk_backend_commit_duration_seconds`: one batch into the state store.
    pub(crate) commit: Histogram,
    /// `etcd_disk_backend_defrag_duration_seconds`.
    pub(crate) defragment: Histogram,
    /// `etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds`: rewriting one piece of history.
    pub(crate) drop_pause_ms: Histogram,
    /// `etcd_debugging_snap_save_total_duration_seconds`: a base, from its first byte to the journal's word.
    pub(crate) base: Histogram,
    /// `etcd_snap_fsync_duration_seconds`: the sync of a base.
    pub(crate) base_sync: Histogram,
    /// `etcd_debugging_snap_save_marshalling_duration_seconds`: freezing what goes into a base.
    pub(crate) freeze: Histogram,
    /// `etcd_snap_db_fsync_duration_seconds`: the sync of another member's base.
    pub(crate) received_sync: Histogram,
    /// `etcd_snap_db_save_total_duration_seconds`: checking another member's base and building its state.
    pub(crate) received: Histogram,
}

/// A millisecond, doubled thirteen times.
const SHORT: (f64, f64, usize) = (0.001, 2.0, 14);
/// A tenth of a second, doubled nine times.
const LONG: (f64, f64, usize) = (0.1, 2.0, 10);

impl Default for StoreSeconds {
    fn default() -> Self {
        StoreSeconds {
            commit: histogram(
                "etcd_disk_backend_commit_duration_seconds",
                "The latency distributions of commit called by backend.",
                SHORT,
            ),
            defragment: histogram(
                "etcd_disk_backend_defrag_duration_seconds",
                "The latency distribution of backend defragmentation.",
                (0.1, 2.0, 13),
            ),
            drop_pause_ms: histogram(
                "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
                "Bucketed histogram of db compaction pause duration.",
                (1.0, 2.0, 13),
            ),
            base: histogram(
                "etcd_debugging_snap_save_total_duration_seconds",
                "The total latency distributions of save called by snapshot.",
                SHORT,
            ),
            base_sync: histogram(
                "etcd_snap_fsync_duration_seconds",
                "The latency distributions of fsync called by snap.",
                SHORT,
            ),
            freeze: histogram(
                "etcd_debugging_snap_save_marshalling_duration_seconds",
                "The marshalling cost distributions of save called by snapshot.",
                SHORT,
            ),
            received_sync: histogram(
                "etcd_snap_db_fsync_duration_seconds",
                "The latency distributions of fsyncing .snap.db file",
                SHORT,
            ),
            received: histogram(
                "etcd_snap_db_save_total_duration_seconds",
                "The total latency distributions of v3 snapshot save",
                LONG,
            ),
        }
    }
}

impl StoreSeconds {
    /// Hands all of them to a server's registry.
    pub fn register(&self, metrics: &Metrics) {
        let all = [
            &self.commit,
            &self.defragment,
            &self.drop_pause_ms,
            &self.base,
            &self.base_sync,
            &self.freeze,
            &self.received_sync,
            &self.received,
        ];
        all.into_iter().for_each(|one| metrics.add(one.clone()));
    }
}
