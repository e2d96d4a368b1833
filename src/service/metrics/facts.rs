//! What is read from the keyspace when somebody scrapes.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use quorate_core::api::ids::{MemberId, Term};
use quorate_core::api::pb::etcdserverpb as pb;

use crate::keyspace::{Keyspace, StatusFacts};
use crate::support::metrics::Metrics;

/// Gauges and counters that follow the keyspace.
#[derive(Debug)]
pub(super) struct Facts {
    raft: RaftGauges,
    store: StoreGauges,
    watch: WatchGauges,
    lease: LeaseCounts,
    alarms: AlarmGauges,
}

/// Every alarm that a scrape has seen: 1 while it stands, 0 from then on, as in etcd until the next start.
#[derive(Debug)]
struct AlarmGauges {
    standing: IntGaugeVec,
    /// Member and type.
    seen: Mutex<BTreeSet<(u64, i32)>>,
}

#[derive(Debug)]
struct RaftGauges {
    has_leader: IntGauge,
    is_leader: IntGauge,
    is_learner: IntGauge,
    leader_changes: IntCounter,
    committed: IntGauge,
    applied: IntGauge,
    pending: IntGauge,
    failed: IntCounter,
    known_peers: IntGaugeVec,
    promoted: IntCounter,
    not_promoted: IntCounterVec,
    last_leader: Mutex<Option<(MemberId, Term)>>,
}

#[derive(Debug)]
struct StoreGauges {
    quota: IntGauge,
    size: IntGauge,
    size_in_use: IntGauge,
    revision: IntGauge,
    compact_revision: IntGauge,
    keys: IntGauge,
    auth_revision: IntGauge,
}

#[derive(Debug)]
struct WatchGauges {
    streams: IntGauge,
    watchers: IntGauge,
    slow: IntGauge,
    pending: IntGauge,
    events: IntCounter,
}

#[derive(Debug)]
struct LeaseCounts {
    granted: IntCounter,
    revoked: IntCounter,
    renewed: IntCounter,
    expired: IntCounter,
}

pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Brings a counter to what was counted elsewhere.
pub(super) fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

impl Facts {
    pub(super) fn new(metrics: &Metrics) -> Facts {
        Facts {
            raft: RaftGauges::new(metrics),
            store: StoreGauges::new(metrics),
            watch: WatchGauges::new(metrics),
            lease: LeaseCounts::new(metrics),
            alarms: AlarmGauges::new(metrics),
        }
    }

    /// Reads everything anew.
    pub(super) fn refresh(&self, keyspace: &Keyspace) {
        let status = keyspace.status();
        self.raft.show(keyspace, &status);
        self.store.show(keyspace, &status);
        self.watch.show(keyspace);
        self.lease.show(keyspace);
        self.alarms.show(&status.alarms);
    }
}

impl AlarmGauges {
    fn new(metrics: &Metrics) -> Self {
        let standing = metrics.gauges(
            "etcd_debugging_server_alarms",
            "Alarms for every member in cluster. 1 for 'server_id' label with current ID. \
             2 for 'alarm_type' label with type of this alarm",
            &["server_id", "alarm_type"],
        );
        AlarmGauges { standing, seen: Mutex::default() }
    }

    fn show(&self, alarms: &[pb::AlarmMember]) {
        let mut seen = self.seen.lock();
        seen.extend(alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm)));
        for &(member, kind) in seen.iter() {
            let stands =
                alarms.iter().any(|alarm| (alarm.member_id, alarm.alarm) == (member, kind));
            let known = pb::AlarmType::try_from(kind).map(|kind| kind.as_str_name().to_owned());
            let kind = known.unwrap_or_else(|_| kind.to_string());
            self.standing
                .with_label_values(&[format!("{member:x}").as_str(), kind.as_str()])
                .set(stands.into());
        }
    }
}

impl RaftGauges {
    fn new(metrics: &Metrics) -> Self {
        let gauge = |name, help| metrics.gauge(name, help);
        RaftGauges {
            has_leader: gauge(
                "etcd_server_has_leader",
                "Whether or not a leader exists. 1 is existence, 0 is not.",
            ),
            is_leader: gauge(
                "etcd_server_is_leader",
                "Whether or not this member is a leader. 1 if is, 0 otherwise.",
            ),
            is_learner: gauge(
                "etcd_server_is_learner",
                "Whether or not this member is a learner. 1 if is, 0 otherwise.",
            ),
            leader_changes: metrics.counter(
                "etcd_server_leader_changes_seen_total",
                "The number of leader changes seen.",
            ),
            committed: gauge(
                "etcd_server_proposals_committed_total",
                "The total number of consensus proposals committed.",
            ),
            applied: gauge(
                "etcd_server_proposals_applied_total",
                "The total number of consensus proposals applied.",
            ),
            pending: gauge(
                "etcd_server_proposals_pending",
                "The current number of pending proposals to commit.",
            ),
            failed: metrics.counter(
                "etcd_server_proposals_failed_total",
                "The total number of failed proposals seen.",
            ),
            known_peers: metrics.gauges(
                "etcd_network_known_peers",
                "The current number of known peers.",
                &["Local", "Remote"],
            ),
            promoted: metrics.counter(
                "etcd_server_learner_promote_successes",
                "The total number of successful learner promotions while this member is leader.",
            ),
            not_promoted: metrics.counters(
                "etcd_server_learner_promote_failures",
                "The total number of failed learner promotions (likely learner not ready) while this member is leader.",
                &["Reason"],
            ),
            last_leader: Mutex::new(None),
        }
    }

    fn show(&self, keyspace: &Keyspace, status: &StatusFacts) {
        let own = keyspace.config().member_id;
        self.has_leader.set(status.leader.is_some().into());
        self.is_leader.set((status.leader == Some(own)).into());
        self.is_learner.set(status.learner.into());
        self.committed.set(signed(status.committed_index));
        self.applied.set(signed(status.applied_index));
        let proposals = keyspace.proposal_counts();
        self.pending.set(proposals.pending());
        raise(&self.failed, proposals.failed());
        self.known_peers.reset();
        let facts = keyspace.raft_facts();
        for member in facts.voters.iter().chain(&facts.learners) {
            let pair = [own.to_string(), member.to_string()];
            self.known_peers.with_label_values(&[pair[0].as_str(), pair[1].as_str()]).set(1);
        }
        raise(&self.promoted, keyspace.promotions().done());
        for (reason, count) in keyspace.promotions().refused() {
            raise(&self.not_promoted.with_label_values(&[reason]), count);
        }
        let view = keyspace.leader_view();
        let now = view.leader().map(|leader| (leader, view.term));
        let mut last = self.last_leader.lock();
        if now.is_some() && *last != now {
            *last = now;
            self.leader_changes.inc();
        }
    }
}

impl StoreGauges {
    fn new(metrics: &Metrics) -> Self {
        let gauge = |name, help| metrics.gauge(name, help);
        StoreGauges {
            quota: gauge(
                "etcd_server_quota_backend_bytes",
                "Current backend storage quota size in bytes.",
            ),
            size: gauge(
                "etcd_mvcc_db_total_size_in_bytes",
                "Total size of the underlying database physically allocated in bytes.",
            ),
            size_in_use: gauge(
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Total size of the underlying database logically in use in bytes.",
            ),
            revision: gauge(
                "etcd_debugging_mvcc_current_revision",
                "The current revision of store.",
            ),
            compact_revision: gauge(
                "etcd_debugging_mvcc_compact_revision",
                "The revision of the last compaction in store.",
            ),
            keys: gauge("etcd_debugging_mvcc_keys_total", "Total number of keys."),
            auth_revision: gauge(
                "etcd_debugging_auth_revision",
                "The current revision of auth store.",
            ),
        }
    }

    fn show(&self, keyspace: &Keyspace, status: &StatusFacts) {
        self.quota.set(status.db_size_quota);
        self.size.set(signed(status.db_size));
        self.size_in_use.set(signed(status.db_size_in_use));
        self.revision.set(keyspace.revision());
        self.compact_revision.set(keyspace.compact_revision());
        self.keys.set(i64::try_from(keyspace.key_count()).unwrap_or(i64::MAX));
        self.auth_revision.set(signed(keyspace.auth_revision()));
    }
}

impl WatchGauges {
    fn new(metrics: &Metrics) -> Self {
        let gauge = |name, help| metrics.gauge(name, help);
        WatchGauges {
            streams: gauge(
                "etcd_debugging_mvcc_watch_stream_total",
                "Total number of watch streams.",
            ),
            watchers: gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers."),
            slow: gauge(
                "etcd_debugging_mvcc_slow_watcher_total",
                "Total number of unsynced slow watchers.",
            ),
            pending: gauge(
                "etcd_debugging_mvcc_pending_events_total",
                "Total number of pending events to be sent.",
            ),
            events: metrics.counter(
                "etcd_debugging_mvcc_events_total",
                "Total number of events sent by this member.",
            ),
        }
    }

    fn show(&self, keyspace: &Keyspace) {
        let counters = keyspace.watch_hub().counters();
        self.streams.set(counters.streams());
        self.watchers.set(counters.watchers());
        self.slow.set(counters.slow_watchers());
        self.pending.set(counters.pending_events());
        raise(&self.events, counters.events());
    }
}

impl LeaseCounts {
    fn new(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.counter(name, help);
        LeaseCounts {
            granted: counter(
                "etcd_debugging_lease_granted_total",
                "The total number of granted leases.",
            ),
            revoked: counter(
                "etcd_debugging_lease_revoked_total",
                "The total number of revoked leases.",
            ),
            renewed: counter(
                "etcd_debugging_lease_renewed_total",
                "The number of renewed leases seen by the leader.",
            ),
            expired: counter(
                "etcd_debugging_server_lease_expired_total",
                "The total number of expired leases.",
            ),
        }
    }

    fn show(&self, keyspace: &Keyspace) {
        let counters = keyspace.lease_counters();
        raise(&self.granted, counters.granted());
        raise(&self.revoked, counters.revoked());
        raise(&self.renewed, counters.renewed());
        raise(&self.expired, counters.expired());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_that_was_taken_back_stays_at_zero() {
        let metrics = Metrics::default();
        let gauges = AlarmGauges::new(&metrics);
        let alarm = |member_id, alarm| pb::AlarmMember { member_id, alarm };
        gauges.show(&[alarm(0xab, 1), alarm(0xab, 7)]);
        gauges.show(&[alarm(0xab, 1)]);
        let text = metrics.text();
        for line in [
            "etcd_debugging_server_alarms{alarm_type=\"NOSPACE\",server_id=\"ab\"} 1",
            "etcd_debugging_server_alarms{alarm_type=\"7\",server_id=\"ab\"} 0",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
