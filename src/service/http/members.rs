//! `/members` on a peer port: members that start ask it who is there already (etcd
//! `server/etcdserver/api/etcdhttp/peer.go`).

use http::StatusCode;
use http::header::HeaderValue;
use quorate_core::api::pb::etcdserverpb as pb;
use serde::Serialize;

use super::{Answer, Probe, with_type};
use crate::host::peers::CLUSTER;

/// A member in Go's JSON: what is empty is left out.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    client_urls: &'a [String],
}

impl<'a> Listed<'a> {
    fn new(member: &'a pb::Member) -> Self {
        Listed {
            id: member.id,
            peer_urls: &member.peer_ur_ls,
            is_learner: member.is_learner,
            name: &member.name,
            client_urls: &member.client_ur_ls,
        }
    }
}

pub(super) fn list(probe: &dyn Probe) -> Answer {
    let (cluster, members) = probe.members();
    let listed: Vec<Listed<'_>> = members.iter().map(Listed::new).collect();
    let text = serde_json::to_string(&listed).expect("numbers and texts are JSON");
    let mut answer = with_type(StatusCode::OK, "application/json", text + "\n");
    let cluster = HeaderValue::try_from(cluster.to_string());
    answer.headers_mut().insert(CLUSTER, cluster.expect("hex digits make a head"));
    answer
}
