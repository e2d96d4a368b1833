//! This member as streams, probes and metrics see it.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use quorate_core::api::ids::{ClusterId, MemberId};
use quorate_core::api::pb::etcdserverpb as pb;

use super::http::Probe;
use super::leader_guard::Seat;
use super::metrics::ServerMetrics;
use super::status::status;
use crate::keyspace::{Keyspace, KeyspaceError};
use crate::support::metrics::file_limit;

/// A keyspace's member, with its metrics.
pub(crate) struct Member {
    keyspace: Keyspace,
    metrics: Arc<ServerMetrics>,
}

impl Member {
    pub(crate) fn new(keyspace: Keyspace, metrics: Arc<ServerMetrics>) -> Self {
        Member { keyspace, metrics }
    }
}

impl Seat for Member {
    fn header(&self) -> pb::ResponseHeader {
        self.keyspace.header()
    }

    fn has_leader(&self) -> bool {
        self.keyspace.leader_view().leader().is_some()
    }
}

impl Probe for Member {
    fn alarms(&self) -> Vec<pb::AlarmMember> {
        self.keyspace.alarms()
    }

    fn has_leader(&self) -> bool {
        Seat::has_leader(self)
    }

    fn is_learner(&self) -> bool {
        self.keyspace.status().learner
    }

    fn read(&self, serializable: bool) -> BoxFuture<'_, Result<(), String>> {
        let request = pb::RangeRequest {
            key: Bytes::from_static(b"\0"),
            keys_only: true,
            limit: 1,
            serializable,
            ..Default::default()
        };
        async move {
            let read = self.keyspace.range(request).await;
            read.map(|_| ()).map_err(|why| status(&why).message().to_owned())
        }
        .boxed()
    }

    fn metrics(&self) -> String {
        self.metrics.text(&self.keyspace)
    }

    fn promote(&self, id: MemberId) -> BoxFuture<'_, Result<Vec<pb::Member>, KeyspaceError>> {
        self.keyspace.member_promote(id).boxed()
    }

    fn cluster_level(&self) -> u32 {
        self.keyspace.cluster_level()
    }

    fn members(&self) -> (ClusterId, Vec<pb::Member>) {
        (self.keyspace.config().cluster_id, self.keyspace.members())
    }

    fn hash_kv(&self, revision: i64) -> BoxFuture<'_, Result<pb::HashKvResponse, String>> {
        async move {
            let hash = self.keyspace.hash_kv(revision).await;
            hash.map_err(|why| {
                let told = status(&why);
                let text = told.message();
                text.strip_prefix("etcdserver: ").unwrap_or(text).to_owned()
            })
        }
        .boxed()
    }

    fn auth_is_on(&self) -> bool {
        self.keyspace.auth_is_on()
    }

    fn vars(&self) -> Vec<(&'static str, serde_json::Value)> {
        let status = self.keyspace.status();
        let config = self.keyspace.config();
        let leads = status.leader == Some(config.member_id);
        let raft = serde_json::json!({
            "id": config.member_id.to_string(),
            "term": self.keyspace.leader_view().term.0,
            "commit": status.committed_index,
            "applied": status.applied_index,
            "lead": status.leader.map_or("0".to_owned(), |leader| leader.to_string()),
            "raftState": if leads { "StateLeader" } else { "StateFollower" },
        });
        vec![("raft.status", raft), ("file_descriptor_limit", file_limit().into())]
    }
}
