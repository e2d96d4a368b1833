//! What members, and people who look after them, may ask on a peer port beside `/members`
//! (etcd `server/etcdserver/corrupt.go`, `server_access_control.go`).

use bytes::Bytes;
use http::header::HeaderValue;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use quorate_core::api::pb::etcdserverpb as pb;
use serde::Serialize;

use super::{Answer, Probe, Site, error, get_only, with_type};
use crate::host::peers::CLUSTER;

/// Where a member's hash is asked for.
pub(crate) const HASH_PATH: &str = "/members/hashkv";

/// No question is longer.
const QUESTION_BYTES_MAX: usize = 4096;

/// A hash in Go's JSON: what is zero is left out.
#[derive(Debug, Serialize)]
struct Hash {
    header: Header,
    #[serde(skip_serializing_if = "is_zero")]
    hash: i64,
    #[serde(skip_serializing_if = "is_zero")]
    compact_revision: i64,
    #[serde(skip_serializing_if = "is_zero")]
    hash_revision: i64,
}

#[derive(Debug, Serialize)]
struct Header {
    #[serde(skip_serializing_if = "is_zero")]
    revision: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Site {
    /// Answers `/members/hashkv`: the question is the body.
    pub(crate) async fn peer_hash<B>(&self, request: Request<B>) -> Answer
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Some(refused) = get_only(&request) {
            return refused;
        }
        let (cluster, _) = self.probe.members();
        let cluster = cluster.to_string();
        let other =
            request.headers().get(CLUSTER).filter(|named| named.as_bytes() != cluster.as_bytes());
        if other.is_some_and(|named| !named.is_empty()) {
            return error(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch".to_owned());
        }
        let body = Limited::new(request.into_body(), QUESTION_BYTES_MAX).collect().await;
        let Ok(body) = body else {
            return error(StatusCode::BAD_REQUEST, "error reading body".to_owned());
        };
        let Some(revision) = asked(&body.to_bytes()) else {
            return error(StatusCode::BAD_REQUEST, "error unmarshalling request".to_owned());
        };
        match self.probe.hash_kv(revision).await {
            Ok(hash) => {
                let text = serde_json::to_string(&json(&hash)).expect("numbers are JSON");
                named(with_type(StatusCode::OK, "application/json", text), &cluster)
            }
            Err(why) => {
                tracing::warn!(
                    "requested-revision" = revision,
                    error = why,
                    "failed to get hashKV"
                );
                error(StatusCode::BAD_REQUEST, why)
            }
        }
    }
}

fn json(hash: &pb::HashKvResponse) -> Hash {
    Hash {
        header: Header { revision: hash.header.map_or(0, |header| header.revision) },
        hash: hash.hash.into(),
        compact_revision: hash.compact_revision,
        hash_revision: hash.hash_revision,
    }
}

/// The revision that `{"revision":7}` asks for; without one the newest.
fn asked(body: &[u8]) -> Option<i64> {
    let question: serde_json::Value = serde_json::from_slice(body).ok()?;
    match question.as_object()?.get("revision") {
        None | Some(serde_json::Value::Null) => Some(0),
        Some(revision) => revision.as_i64(),
    }
}

/// `/downgrade/enabled`: never, see docs/COMPATIBILITY.md.
pub(super) async fn downgrade_enabled(probe: &dyn Probe) -> Answer {
    let (cluster, _) = probe.members();
    let answer = match probe.read(false).await {
        Ok(()) => with_type(StatusCode::OK, "text/plain", "false".to_owned()),
        Err(why) => {
            error(StatusCode::INTERNAL_SERVER_ERROR, format!("failed linearized read: {why}"))
        }
    };
    named(answer, &cluster.to_string())
}

fn named(mut answer: Answer, cluster: &str) -> Answer {
    let cluster = HeaderValue::try_from(cluster).expect("hex digits make a head");
    answer.headers_mut().insert(CLUSTER, cluster);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_gos_json() {
        assert_eq!(asked(b"{\"revision\":7}"), Some(7));
        assert_eq!(asked(b"{}"), Some(0));
        assert_eq!(asked(b"{\"revision\":\"7\"}"), None);
        assert_eq!(asked(b""), None);
        assert_eq!(asked(b"[]"), None);
    }
}
