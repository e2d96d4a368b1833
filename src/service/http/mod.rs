//! The HTTP side of a client port: health, version, metrics, facts for debugging, and the JSON gateway below `/v3/`; and
//! of a peer port what is no stream.
//!
//! ```text
//!   request ── host allowed? (421) ── named by a certificate, at the gateway, while users count? (400)
//!           ── CORS headers ── OPTIONS? (200) ── clean path? (307) ──> answer, or the gateway's
//! ```
//!
//! Paths, texts and headers are etcd's (`server/etcdserver/api/etcdhttp`, `server/embed/serve.go`).

mod access;
mod debug;
mod health;
mod members;
mod path;
mod peer;
mod query;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use quorate_core::api::ids::{ClusterId, MemberId};
use quorate_core::api::pb::etcdserverpb as pb;
use tonic::body::Body;

pub(crate) use self::access::Access;
pub(super) use self::debug::no_pprof;
pub(super) use self::health::told;
pub(crate) use self::peer::HASH_PATH;
use super::gateway::{Afterwards, Gateway, is_upgrade};
use super::metrics::ServerMetrics;
use super::version::{ETCD_VERSION, cluster_version};
use crate::keyspace::KeyspaceError;
use crate::support::tls::PeerIdentity;

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
    /// What every member understands, as applied here.
    fn cluster_level(&self) -> u32;
    /// The cluster and its members, as applied here.
    fn members(&self) -> (ClusterId, Vec<pb::Member>);
    /// Gives a learner a vote: the members then.
    fn promote(&self, id: MemberId) -> BoxFuture<'_, Result<Vec<pb::Member>, KeyspaceError>>;
    /// The hash at a revision, 0 for the newest; the error is in the words of etcd's store.
    fn hash_kv(&self, revision: i64) -> BoxFuture<'_, Result<pb::HashKvResponse, String>>;
    /// Whether users count: auth is on, as applied here.
    fn auth_is_on(&self) -> bool;
    /// Facts for whoever debugs: name and JSON.
    fn vars(&self) -> Vec<(&'static str, serde_json::Value)>;
}

/// Everything that answers HTTP.
#[derive(Clone)]
pub(crate) struct Site {
    probe: Arc<dyn Probe>,
    metrics: Arc<ServerMetrics>,
    access: Arc<Access>,
    gateway: Option<Gateway>,
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
    /// A peer URL: the version, the members, and promotions; streams are the host's.
    Peer,
}

impl Site {
    pub(crate) fn new(probe: Arc<dyn Probe>, metrics: Arc<ServerMetrics>, access: Access) -> Self {
        Site { probe, metrics, access: Arc::new(access), gateway: None, pprof: false }
    }

    /// The same, where `--enable-pprof` was given.
    pub(crate) fn asked_for_pprof(self, pprof: bool) -> Self {
        Site { pprof, ..self }
    }

    /// The same with a JSON gateway on client ports.
    pub(crate) fn with_gateway(self, gateway: Option<Gateway>) -> Self {
        Site { gateway, ..self }
    }

    /// Answers one request. What the connection does after an upgrade is left in `afterwards`.
    pub(crate) async fn answer<B>(
        &self,
        door: Door,
        mut request: Request<B>,
        afterwards: &Afterwards,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let guarded = door == Door::Client;
        if guarded && let Some(refused) = self.access.refuse_host(&request) {
            return refused.map(Body::new);
        }
        if guarded && let Some(refused) = self.refuse_named(&request) {
            return refused.map(Body::new);
        }
        let origin = if guarded { self.access.allowed_origin(&request) } else { None };
        let mut answer = if guarded && request.method() == Method::OPTIONS {
            Response::new(Body::empty())
        } else if let Some(elsewhere) = self.redirect(door, &request) {
            elsewhere.map(Body::new)
        } else if let Some(gateway) = self.gateway_for(door, &mut request) {
            if is_upgrade(request.headers()) {
                gateway.upgrade(&mut request, afterwards)
            } else {
                gateway.answer(request).await
            }
        } else {
            self.route(door, &request).await.map(Body::new)
        };
        let switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        if let Some(origin) = origin.filter(|_| !switched) {
            access::add_cors(answer.headers_mut(), origin);
        }
        answer
    }

    /// The refusal of a gateway call by who has a name in its certificate, while users count: it would take itself for
    /// that user, and the gateway passes no name on.
    fn refuse_named<B>(&self, request: &Request<B>) -> Option<Answer> {
        let identity = request.extensions().get::<PeerIdentity>()?;
        let named = identity.common_name.as_ref().is_some_and(|name| !name.is_empty());
        let at_gateway = self.gateway.is_some() && is_for_gateway(request.uri().path());
        let refused = named && at_gateway && self.probe.auth_is_on();
        refused.then(access::refused_name)
    }

    /// Where a client is sent whose path is not clean.
    fn redirect<B>(&self, door: Door, request: &Request<B>) -> Option<Answer> {
        let client = door == Door::Client;
        client.then(|| path::redirect(request, self.gateway.is_some())).flatten()
    }

    /// The gateway, if the request is for it. Paths of an older gateway are the same paths.
    fn gateway_for<B>(&self, door: Door, request: &mut Request<B>) -> Option<&Gateway> {
        let gateway = self.gateway.as_ref().filter(|_| door == Door::Client)?;
        let path = path::unescape(request.uri().path())?;
        let old = path.strip_prefix("/v3beta/").map(|rest| format!("/v3/{rest}"));
        let plain = old.or_else(|| matches!(path, Cow::Owned(_)).then(|| path.to_string()));
        if let Some(plain) = plain {
            *request.uri_mut() = plain.parse().ok()?;
        }
        request.uri().path().starts_with("/v3/").then_some(gateway)
    }

    async fn route<B>(&self, door: Door, request: &Request<B>) -> Answer {
        let path = request.uri().path();
        match (door, path) {
            (Door::Client | Door::Peer, "/version") => get_only(request).unwrap_or_else(version),
            (Door::Peer, "/members") => {
                get_only(request).unwrap_or_else(|| members::list(&*self.probe))
            }
            (Door::Peer, path) if path.starts_with(members::PROMOTE) => {
                members::promote(&*self.probe, request).await
            }
            (Door::Peer, "/downgrade/enabled") => match get_only(request) {
                Some(refused) => refused,
                None => peer::downgrade_enabled(&*self.probe).await,
            },
            (Door::Peer, _) => not_found(),
            (Door::Client, "/debug/vars") => {
                get_only(request).unwrap_or_else(|| debug::vars(&*self.probe))
            }
            (Door::Client, path) if self.pprof && path.starts_with("/debug/pprof") => no_pprof(),
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

/// Whether a path is one of the JSON gateway's, if there is one.
pub(super) fn is_for_gateway(path: &str) -> bool {
    let path = path::unescape(path);
    path.is_some_and(|path| ["/v3/", "/v3beta/"].iter().any(|below| path.starts_with(below)))
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

pub(super) fn with_type(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

pub(super) fn not_found() -> Answer {
    error(StatusCode::NOT_FOUND, "404 page not found".to_owned())
}

pub(super) fn get_only<B>(request: &Request<B>) -> Option<Answer> {
    (request.method() != Method::GET).then(|| not_allowed("GET"))
}

fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed".to_owned());
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    answer
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

#[cfg(test)]
#[path = "http_test.rs"]
mod tests;
