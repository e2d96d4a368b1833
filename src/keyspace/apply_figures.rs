//! How long requests take to apply, as etcd tells it (`server/etcdserver/txn/metrics.go`).

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntGauge};
use quorate_core::api::batch::RevisionRecord;
use quorate_core::api::pb::internal::auth_request::Ask;
use quorate_core::api::pb::internal::command::Request;
use quorate_core::api::pb::internal::log_payload::Payload;
use quorate_core::api::pb::internal::{Command, Entry, LogPayload};
use quorate_core::api::refusal::Refusal;
use quorate_core::api::reply::Reply;

use crate::support::metrics::{Metrics, histograms};

/// What etcd calls each kind of request here.
pub(crate) const OPS: [&str; 24] = [
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseExpiry",
    "LeaseCheckpoint",
    "Alarm",
    "ClusterMemberAttrSet",
    "ClusterVersionSet",
    "AuthEnable",
    "AuthDisable",
    "AuthUserAdd",
    "AuthUserDelete",
    "AuthUserChangePassword",
    "AuthUserGrantRole",
    "AuthUserRevokeRole",
    "AuthRoleAdd",
    "AuthRoleDelete",
    "AuthRoleGrantPermission",
    "AuthRoleRevokePermission",
    "Authenticate",
    "Fleet",
];

pub(crate) fn op_of(request: &Request) -> usize {
    match request {
        Request::Put(_) => 0,
        Request::DeleteRange(_) => 1,
        Request::Txn(_) => 2,
        Request::Compaction(_) => 3,
        Request::LeaseGrant(_) => 4,
        Request::LeaseRevoke(_) => 5,
        Request::LeaseExpiry(_) => 6,
        Request::LeaseCheckpoint(_) => 7,
        Request::Alarm(_) => 8,
        Request::MemberAttributes(_) => 9,
        Request::ClusterLevel(_) => 10,
        Request::Auth(auth) => match &auth.ask {
            Some(Ask::Enable(_)) => 11,
            Some(Ask::Disable(_)) => 12,
            Some(Ask::UserAdd(_)) => 13,
            Some(Ask::UserDelete(_)) => 14,
            Some(Ask::UserChangePassword(_)) => 15,
            Some(Ask::UserGrantRole(_)) => 16,
            Some(Ask::UserRevokeRole(_)) => 17,
            Some(Ask::RoleAdd(_)) => 18,
            Some(Ask::RoleDelete(_)) => 19,
            Some(Ask::RoleGrantPermission(_)) => 20,
            Some(Ask::RoleRevokePermission(_)) => 21,
            // A request of no known kind stops the member before it gets here.
            Some(Ask::Login(_)) | None => 22,
        },
        Request::Fleet(_) => 23,
    }
}

/// `etcd_server_apply_duration_seconds`. Requests packed in one entry are applied together: each counts with its
/// share of the entry's time.
#[derive(Debug)]
pub struct ApplyFigures {
    seconds: HistogramVec,
    /// By kind of request, refused and applied; those that never came have none, as with etcd.
    known: [[OnceLock<Histogram>; 2]; OPS.len()],
    /// An entry that takes longer is slow.
    slow_after: Duration,
    slow: IntCounter,
    put_bytes: IntGauge,
}

impl ApplyFigures {
    /// Entries that take longer than `slow_after` are logged and counted (`--warning-apply-duration`).
    pub fn new(slow_after: Duration) -> Self {
        ApplyFigures {
            seconds: histograms(
                "etcd_server_apply_duration_seconds",
                "The latency distributions of v2 apply called by backend.",
                &["version", "op", "success"],
                (0.0001, 2.0, 20),
            ),
            known: Default::default(),
            slow_after,
            slow: IntCounter::new(
                "etcd_server_slow_apply_total",
                "The total number of slow apply requests (likely overloaded from slow disk).",
            )
            .expect("the name is valid"),
            put_bytes: IntGauge::new(
                "etcd_debugging_mvcc_total_put_size_in_bytes",
                "The total size of put kv pairs seen by this member.",
            )
            .expect("the name is valid"),
        }
    }

    /// Hands all of them to a server's registry.
    pub fn register(&self, metrics: &Metrics) {
        metrics.add(self.seconds.clone());
        metrics.add(self.slow.clone());
        metrics.add(self.put_bytes.clone());
    }

    /// These revisions were applied.
    pub(crate) fn put(&self, revisions: &[RevisionRecord]) {
        let put = revisions.iter().filter(|record| !record.tombstone);
        let bytes: usize = put.map(|record| record.kv.key.len() + record.kv.value.len()).sum();
        self.put_bytes.add(bytes as i64);
    }

    /// An entry took `time` and was answered with `replies`, one a request.
    pub(crate) fn applied(
        &self,
        payload: &LogPayload,
        replies: &[Result<Reply, Refusal>],
        time: Duration,
    ) {
        let Some(Payload::Entry(Entry { commands, .. })) = &payload.payload else {
            return;
        };
        let Ok(count) = u32::try_from(replies.len().max(1)) else {
            return;
        };
        if time > self.slow_after {
            self.tell_slow(commands, time);
        }
        let share = (time / count).as_secs_f64();
        for (command, reply) in commands.iter().zip(replies) {
            if let Some(request) = &command.request {
                self.histogram(op_of(request), reply.is_ok()).observe(share);
            }
        }
    }

    /// Requests that are packed in one entry were all as slow as it; what they were is told by their kinds.
    fn tell_slow(&self, commands: &[Command], time: Duration) {
        let mut kinds: Vec<&str> =
            commands.iter().flat_map(|command| &command.request).map(|r| OPS[op_of(r)]).collect();
        kinds.sort_unstable();
        kinds.dedup();
        tracing::warn!(
            took = ?time,
            "expected-duration" = ?self.slow_after,
            prefix = "",
            request = kinds.join(","),
            requests = commands.len(),
            "apply request took too long"
        );
        self.slow.inc_by(commands.len() as u64);
    }

    fn histogram(&self, op: usize, success: bool) -> &Histogram {
        self.known[op][usize::from(success)].get_or_init(|| {
            let word = if success { "true" } else { "false" };
            self.seconds.with_label_values(&["v3", OPS[op], word])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::api::pb::etcdserverpb as pb;

    #[test]
    fn each_request_of_an_entry_counts_with_its_share() {
        let put = Request::Put(pb::PutRequest::default());
        let grant = Request::LeaseGrant(pb::LeaseGrantRequest::default());
        let commands = [put.clone(), put, grant]
            .map(|request| Command { request: Some(request), ..Command::default() });
        let entry = Entry { commands: commands.into(), ..Entry::default() };
        let payload = LogPayload { payload: Some(Payload::Entry(entry)) };
        let replies = [Ok(Reply::Done), Ok(Reply::Done), Err(Refusal::NoSpace)];
        let figures = ApplyFigures::new(Duration::from_millis(30));
        figures.applied(&payload, &replies, Duration::from_millis(30));
        assert_eq!(figures.slow.get(), 0);
        let of = |op, success| {
            let found = figures.seconds.with_label_values(&["v3", op, success]);
            (found.get_sample_count(), found.get_sample_sum())
        };
        assert_eq!(of("Put", "true"), (2, 0.02));
        assert_eq!(of("LeaseGrant", "false"), (1, 0.01));
        assert_eq!(of("LeaseGrant", "true").0, 0);
        figures.applied(&payload, &replies, Duration::from_millis(31));
        assert_eq!(figures.slow.get(), 3, "each of them was held up");
    }
}
