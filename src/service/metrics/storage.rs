//! What the journal and each keyspace's store have written and what they take: our own names, `quorate_`.
//!
//! The journal is one of the process; what belongs to a keyspace has the label `group`.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::facts::{raise, signed};
use crate::host::JournalGauge;
use crate::keyspace::Keyspace;
use crate::support::metrics::Metrics;

/// Counters and gauges that follow the disk.
#[derive(Debug)]
pub(super) struct StorageFigures {
    journal: JournalGauge,
    journal_counters: [IntCounter; JOURNAL_COUNTERS.len()],
    journal_gauges: [IntGauge; JOURNAL_GAUGES.len()],
    bases: IntCounterVec,
    base_written: IntCounterVec,
    base_in_progress: IntGaugeVec,
    base_size: IntGaugeVec,
    since_base: IntGaugeVec,
    requests_since_base: IntGaugeVec,
    state_store_written: IntCounterVec,
    state_store_size: IntGaugeVec,
    committed: IntCounterVec,
    tail: IntGaugeVec,
    defragmenting: IntGauge,
    readers: IntGauge,
}

const JOURNAL_COUNTERS: [(&str, &str); 7] = [
    (
        "quorate_journal_written_bytes_total",
        "Bytes of frames, seals and segment headers written to the journal.",
    ),
    (
        "quorate_journal_zeroed_bytes_total",
        "Bytes of zeroes that new journal segments were filled with before their use.",
    ),
    ("quorate_journal_frames_total", "Frames written to the journal: one group commit each."),
    ("quorate_journal_records_total", "Records in the frames written to the journal."),
    ("quorate_journal_syncs_total", "Calls of fdatasync on the journal's segments."),
    ("quorate_journal_segments_created_total", "Journal segments begun in new files."),
    ("quorate_journal_segments_recycled_total", "Journal segments begun in freed files."),
];

const JOURNAL_GAUGES: [(&str, &str); 4] = [
    ("quorate_journal_segments", "Segments that the journal needs now."),
    ("quorate_journal_size_bytes", "Size of the segments that the journal needs now."),
    ("quorate_journal_prepared_segments", "Files that wait to become segments."),
    ("quorate_journal_tail_bytes", "Payload of log entries kept in memory."),
];

impl StorageFigures {
    pub(super) fn new(metrics: &Metrics, journal: JournalGauge) -> Self {
        let group = ["group"];
        let counters = |name, help| metrics.counters(name, help, &group);
        let gauges = |name, help| metrics.gauges(name, help, &group);
        StorageFigures {
            journal,
            journal_counters: JOURNAL_COUNTERS.map(|(name, help)| metrics.counter(name, help)),
            journal_gauges: JOURNAL_GAUGES.map(|(name, help)| metrics.gauge(name, help)),
            bases: counters("quorate_bases_total", "Bases written, verified and named."),
            base_written: counters(
                "quorate_base_written_bytes_total",
                "Bytes of bases written, finished or not.",
            ),
            base_in_progress: gauges(
                "quorate_base_in_progress",
                "Whether a base is being written now: 1 until the journal names it, else 0.",
            ),
            base_size: gauges("quorate_base_size_bytes", "Size of the newest whole base."),
            since_base: gauges(
                "quorate_since_base_bytes",
                "Bytes stored since the last base was begun: the next is due beyond its size and \
                 --base-after-bytes.",
            ),
            requests_since_base: gauges(
                "quorate_since_base_requests",
                "Requests stored since the last base was begun: beyond --snapshot-count the next is due once their \
                 bytes exceed its size.",
            ),
            state_store_written: counters(
                "quorate_state_store_written_bytes_total",
                "Bytes handed to the state store, which itself writes more.",
            ),
            state_store_size: gauges(
                "quorate_state_store_size_bytes",
                "Size of the state store's files.",
            ),
            committed: counters(
                "quorate_store_committed_bytes_total",
                "Bytes of keys, values and records that entries have changed.",
            ),
            tail: gauges(
                "quorate_store_tail_bytes",
                "Bytes committed that the state store does not have yet.",
            ),
            defragmenting: metrics.gauge(
                "etcd_disk_defrag_inflight",
                "Whether or not defrag is active on the member. 1 means active, 0 means not.",
            ),
            readers: metrics.gauge(
                "etcd_mvcc_db_open_read_transactions",
                "The number of currently open read transactions",
            ),
        }
    }

    /// Reads everything anew.
    pub(super) fn refresh(&self, keyspace: &Keyspace) {
        let usage = self.journal.usage();
        let counted = [
            usage.bytes_written,
            usage.bytes_zeroed,
            usage.frames,
            usage.records,
            usage.syncs,
            usage.segments_created,
            usage.segments_recycled,
        ];
        for (counter, value) in self.journal_counters.iter().zip(counted) {
            raise(counter, value);
        }
        let now = [usage.segments, usage.segment_bytes, usage.prepared, usage.tail_bytes];
        for (gauge, value) in self.journal_gauges.iter().zip(now) {
            gauge.set(signed(value));
        }
        self.refresh_store(keyspace);
    }

    fn refresh_store(&self, keyspace: &Keyspace) {
        let group = keyspace.config().group.0.to_string();
        let group = [group.as_str()];
        let figures = keyspace.store_figures();
        self.defragmenting.set(figures.defragmenting.into());
        self.readers.set(signed(figures.readers));
        for (counter, value) in [
            (&self.bases, figures.bases),
            (&self.base_written, figures.base_bytes),
            (&self.state_store_written, figures.state_store_bytes),
            (&self.committed, figures.committed_bytes),
        ] {
            raise(&counter.with_label_values(&group), value);
        }
        for (gauge, value) in [
            (&self.base_in_progress, figures.base_in_progress.into()),
            (&self.base_size, figures.base_size_bytes),
            (&self.since_base, figures.since_base_bytes),
            (&self.requests_since_base, figures.since_base_requests),
            (&self.state_store_size, figures.state_store_files_bytes),
            (&self.tail, figures.tail_bytes),
        ] {
            gauge.with_label_values(&group).set(signed(value));
        }
    }
}
