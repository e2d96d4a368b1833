//! `/members` on a peer port: members that start ask it who is there already; and `/members/promote/`, which etcd's
//! members ask their leader (etcd `server/etcdserver/api/etcdhttp/peer.go`).

use http::header::HeaderValue;
use http::{Method, Request, StatusCode};
use quorate_core::api::ids::{ClusterId, MemberId};
use quorate_core::api::pb::etcdserverpb as pb;
use serde::Serialize;

use super::{Answer, Probe, error, not_allowed, with_type};
use crate::host::peers::{CLUSTER, CLUSTER_LEVEL};
use crate::keyspace::{KeyspaceError, MemberRefusal};

/// Before the id of a learner that is to get a vote.
pub(super) const PROMOTE: &str = "/members/promote/";

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
    let mut answer = of_cluster(cluster, listed(&members));
    answer.headers_mut().insert(CLUSTER_LEVEL, HeaderValue::from(probe.cluster_level()));
    answer
}

fn listed(members: &[pb::Member]) -> Answer {
    let listed: Vec<Listed<'_>> = members.iter().map(Listed::new).collect();
    let text = serde_json::to_string(&listed).expect("numbers and texts are JSON");
    with_type(StatusCode::OK, "application/json", text + "\n")
}

fn of_cluster(cluster: ClusterId, mut answer: Answer) -> Answer {
    let cluster = HeaderValue::try_from(cluster.to_string());
    answer.headers_mut().insert(CLUSTER, cluster.expect("hex digits make a head"));
    answer
}

/// Gives the learner a vote whose decimal id follows [`PROMOTE`].
pub(super) async fn promote<B>(probe: &dyn Probe, request: &Request<B>) -> Answer {
    if request.method() != Method::POST {
        return not_allowed("POST");
    }
    let id = request.uri().path().strip_prefix(PROMOTE).unwrap_or_default();
    let answer = match id.parse() {
        Ok(id) => match probe.promote(MemberId(id)).await {
            Ok(members) => listed(&members),
            Err(why) => {
                tracing::warn!("member-id" = %MemberId(id), error = %why, "failed to promote a member");
                refused(&why)
            }
        },
        Err(_) => error(StatusCode::NOT_FOUND, format!("member {id} not found in cluster")),
    };
    of_cluster(probe.members().0, answer)
}

fn refused(why: &KeyspaceError) -> Answer {
    let failed = || {
        let text = "{\"message\":\"Internal Server Error\"}".to_owned();
        with_type(StatusCode::INTERNAL_SERVER_ERROR, "application/json", text)
    };
    let KeyspaceError::Members(refusal) = why else {
        return failed();
    };
    let (status, text) = match refusal {
        MemberRefusal::NotFound => (StatusCode::NOT_FOUND, "membership: ID not found"),
        MemberRefusal::NotLearner => {
            (StatusCode::PRECONDITION_FAILED, "membership: can only promote a learner member")
        }
        MemberRefusal::LearnerNotReady => (
            StatusCode::PRECONDITION_FAILED,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        MemberRefusal::BadUrls
        | MemberRefusal::IdExists
        | MemberRefusal::PeerUrlExists
        | MemberRefusal::TooManyLearners
        | MemberRefusal::NotEnoughStarted
        | MemberRefusal::Unhealthy => return failed(),
    };
    error(status, text.to_owned())
}
