//! The HTTP side of a client port: health, version, metrics, facts for debugging; and of a peer port what is no stream.
//!
//! ```text
//!   request ── host allowed? (421) ── CORS headers ── OPTIONS? (200) ── path ──> answer
//! ```
//!
//! Paths, texts and headers are etcd's (`server/etcdserver/api/etcdhttp`, `server/embed/serve.go`).

mod access;
mod debug;
mod health;
mod members;
mod peer;
mod query;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use quorate_core::api::ids::ClusterId;
use quorate_core::api::pb::etcdserverpb as pb;

pub(crate) use self::access::Access;
pub(crate) use self::peer::HASH_PATH;
use super::metrics::ServerMetrics;
use super::version::{ETCD_VERSION, cluster_version};

/// What the answers are made of.
pub(crate) trait Probe: Send + Sync + 'static {
    /// Alarms that stand.
    fn alarms(&self) -> Vec<pb::AlarmMember>;
    /// Whether a leader is known.
    fn has_leader(&self) -> bool;
    /// Whether this member has no vote.
    fn is_learner(&self) -> bool;
    /// Reads one key, from here or by the cluster's consent; the error is what a client would be told.
    fn read(&self, serializable: bool) -> BoxFuture<'_, Result<(), String>>;
    /// Metrics in Prometheus's text format.
    fn metrics(&self) -> String;
    /// The cluster and its members, as applied here.
    fn members(&self) -> (ClusterId, Vec<pb::Member>);
    /// The hash at a revision, 0 for the newest; the error is in the words of etcd's store.
    fn hash_kv(&self, revision: i64) -> BoxFuture<'_, Result<pb::HashKvResponse, String>>;
    /// Facts for whoever debugs: name and JSON.
    fn vars(&self) -> Vec<(&'static str, serde_json::Value)>;
}

/// Everything that answers HTTP.
#[derive(Clone)]
pub(crate) struct Site {
    probe: Arc<dyn Probe>,
    metrics: Arc<ServerMetrics>,
    access: Arc<Access>,
    pprof: bool,
}

/// An answer whose body is at hand.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Which listener a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// A client URL: everything.
    Client,
    /// A metrics URL: metrics and health, unguarded.
    Metrics,
    /// A peer URL: the version and the members; streams are the host's.
    Peer,
}

impl Site {
    pub(crate) fn new(probe: Arc<dyn Probe>, metrics: Arc<ServerMetrics>, access: Access) -> Self {
        Site { probe, metrics, access: Arc::new(access), pprof: false }
    }

    /// The same, where `--enable-pprof` was given.
    pub(crate) fn asked_for_pprof(self, pprof: bool) -> Self {
        Site { pprof, ..self }
    }

    /// Answers one request.
    pub(crate) async fn answer<B>(&self, door: Door, request: Request<B>) -> Answer {
        let guarded = door == Door::Client;
        if guarded && let Some(refused) = self.access.refuse_host(&request) {
            return refused;
        }
        let origin = if guarded { self.access.allowed_origin(&request) } else { None };
        let mut answer = if guarded && request.method() == Method::OPTIONS {
            Response::new(Full::default())
        } else {
            self.route(door, &request).await
        };
        if let Some(origin) = origin {
            access::add_cors(answer.headers_mut(), origin);
        }
        answer
    }

    async fn route<B>(&self, door: Door, request: &Request<B>) -> Answer {
        let path = request.uri().path();
        match (door, path) {
            (Door::Client | Door::Peer, "/version") => get_only(request).unwrap_or_else(version),
            (Door::Peer, "/members") => {
                get_only(request).unwrap_or_else(|| members::list(&*self.probe))
            }
            (Door::Peer, "/downgrade/enabled") => match get_only(request) {
                Some(refused) => refused,
                None => peer::downgrade_enabled(&*self.probe).await,
            },
            (Door::Peer, _) => not_found(),
            (Door::Client, "/debug/vars") => {
                get_only(request).unwrap_or_else(|| debug::vars(&*self.probe))
            }
            (Door::Client, path) if self.pprof && path.starts_with("/debug/pprof") => {
                debug::no_pprof()
            }
            (_, "/metrics") => metrics_text(self.probe.metrics()),
            (_, "/health") => match get_only(request) {
                Some(refused) => {
                    tracing::warn!("status-code" = 405, "/health error");
                    refused
                }
                None => health::health(&*self.probe, &self.metrics, request.uri()).await,
            },
            (_, path) if path.starts_with("/livez") || path.starts_with("/readyz") => {
                self.check(path, request).await
            }
            (Door::Client, path) if path.starts_with("/v3/") || path.starts_with("/v3beta/") => {
                no_gateway()
            }
            _ => not_found(),
        }
    }

    async fn check<B>(&self, path: &str, request: &Request<B>) -> Answer {
        let Some(asked) = health::find(path) else { return not_found() };
        if let Some(refused) = get_only(request) {
            tracing::warn!(path, "status-code" = 405, "Health request error");
            return refused;
        }
        health::check(&*self.probe, &self.metrics, &asked, request.uri()).await
    }
}

/// Go's `http.Error`.
pub(super) fn error(status: StatusCode, text: String) -> Answer {
    let mut answer = plain(status, text + "\n");
    answer
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Text without further ado.
pub(super) fn plain(status: StatusCode, text: String) -> Answer {
    with_type(status, "text/plain; charset=utf-8", text)
}

fn with_type(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn not_found() -> Answer {
    error(StatusCode::NOT_FOUND, "404 page not found".to_owned())
}

fn get_only<B>(request: &Request<B>) -> Option<Answer> {
    if request.method() == Method::GET {
        return None;
    }
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed".to_owned());
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    Some(answer)
}

fn version() -> Answer {
    let cluster = cluster_version();
    let text = format!(
        "{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{cluster}\",\"storage\":\"{cluster}\"}}"
    );
    with_type(StatusCode::OK, "application/json", text)
}

fn metrics_text(text: String) -> Answer {
    const KIND: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
    with_type(StatusCode::OK, KIND, text)
}

/// The JSON gateway is not built yet, and says so in its own shape.
fn no_gateway() -> Answer {
    let text = "{\"code\":12,\"message\":\"the JSON gateway is not implemented\"}".to_owned();
    with_type(StatusCode::NOT_IMPLEMENTED, "application/json", text)
}

#[cfg(test)]
#[path = "http_test.rs"]
mod tests;
