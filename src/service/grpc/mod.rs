//! gRPC: one call from its HTTP/2 request to its response.
//!
//! ```text
//!   request ── path known? POST and application/grpc? ── metadata (api version, hasleader)
//!           ── body watched ──> the service of that name ──> body watched ── response
//! ```
//!
//! Services are found by a match on the path, not by a router: a call costs microseconds. What etcd has and we
//! have not built answers UNIMPLEMENTED here.

pub(crate) mod counts;
pub(super) mod frames;
pub(crate) mod methods;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::HeaderName;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use tokio::sync::watch as signal;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower_service::Service as _;

use self::counts::{GrpcCounts, MethodCounts};
use self::frames::{Ending, Incoming, Outgoing, code_of};
use super::auth::Auth;
use super::cluster::Cluster;
use super::health::Health;
use super::kv::Kv;
use super::lease::LeaseService;
use super::maintenance::Maintenance;
use super::pb::etcdserverpb::auth_server::AuthServer;
use super::pb::etcdserverpb::cluster_server::ClusterServer;
use super::pb::etcdserverpb::kv_server::KvServer;
use super::pb::etcdserverpb::lease_server::LeaseServer;
use super::pb::etcdserverpb::maintenance_server::MaintenanceServer;
use super::pb::etcdserverpb::watch_server::WatchServer;
use super::pb::health::health_server::HealthServer;
use super::pb::v3electionpb::election_server::ElectionServer;
use super::pb::v3lockpb::lock_server::LockServer;
use super::recipes::{ElectionService, LockService};
use super::status::{invalid_client_version, no_leader, status, stopped, unreadable};
use super::watch::WatchService;
use crate::keyspace::{Keyspace, KeyspaceError};
use crate::support::go::quote::quote;

/// What etcd's transport allows beside the request itself.
const OVERHEAD_BYTES: usize = 512 * 1024;

/// Answers are never refused for their size: etcd's send limit, 2 GiB.
const SEND_BYTES_MAX: usize = i32::MAX as usize;

/// Names of metadata that need not be read again with each call.
static API_VERSION: HeaderName = HeaderName::from_static("client-api-version");
static HAS_LEADER: HeaderName = HeaderName::from_static("hasleader");

/// A client may name any API version: only so many characters of it become a label.
const VERSION_LABEL_MAX: usize = 32;

/// Streams that would keep a stopping server waiting; those of watches are ended by their hub, after their events.
const ENDLESS: [&str; 2] = ["/etcdserverpb.Lease/LeaseKeepAlive", "/grpc.health.v1.Health/Watch"];

/// What a learner answers; of ranges, the serializable ones (etcd `v3rpc/interceptor.go`, `isRPCSupportedForLearner`).
const LEARNERS: [&str; 3] = [
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Snapshot",
];

/// Every gRPC service of one keyspace.
#[derive(Clone)]
pub(crate) struct Grpc(Arc<Inner>);

struct Inner {
    keyspace: Keyspace,
    counts: Arc<GrpcCounts>,
    receive_bytes_max: usize,
    slow: Duration,
    serving: signal::Receiver<bool>,
    kv: KvServer<Kv>,
    watch: WatchServer<WatchService>,
    lease: LeaseServer<LeaseService>,
    cluster: ClusterServer<Cluster>,
    maintenance: MaintenanceServer<Maintenance>,
    auth: AuthServer<Auth>,
    health: HealthServer<Health>,
    lock: LockServer<LockService>,
    election: ElectionServer<ElectionService>,
}

/// The services behind the paths.
pub(crate) struct Services {
    pub(crate) kv: Kv,
    pub(crate) watch: WatchService,
    pub(crate) lease: LeaseService,
    pub(crate) cluster: Cluster,
    pub(crate) maintenance: Maintenance,
    pub(crate) auth: Auth,
    pub(crate) health: Health,
    pub(crate) lock: LockService,
    pub(crate) election: ElectionService,
}

/// Sets the limits that tonic has of its own out of the way: [`Incoming`] keeps etcd's.
macro_rules! unlimited {
    ($server:expr) => {
        $server.max_decoding_message_size(usize::MAX).max_encoding_message_size(SEND_BYTES_MAX)
    };
}

impl Grpc {
    pub(crate) fn new(
        keyspace: Keyspace,
        services: Services,
        counts: Arc<GrpcCounts>,
        request_bytes_max: usize,
        slow: Duration,
        serving: signal::Receiver<bool>,
    ) -> Grpc {
        Grpc(Arc::new(Inner {
            keyspace,
            counts,
            receive_bytes_max: request_bytes_max.saturating_add(OVERHEAD_BYTES),
            slow,
            serving,
            kv: unlimited!(KvServer::new(services.kv)),
            watch: unlimited!(WatchServer::new(services.watch)),
            lease: unlimited!(LeaseServer::new(services.lease)),
            cluster: unlimited!(ClusterServer::new(services.cluster)),
            maintenance: unlimited!(MaintenanceServer::new(services.maintenance)),
            auth: unlimited!(AuthServer::new(services.auth)),
            health: unlimited!(HealthServer::new(services.health)),
            lock: unlimited!(LockServer::new(services.lock)),
            election: unlimited!(ElectionServer::new(services.election)),
        }))
    }

    /// The longest message that is taken.
    pub(crate) fn receive_bytes_max(&self) -> usize {
        self.0.receive_bytes_max
    }

    /// Answers one request, as HTTP/2 brings it.
    pub(crate) async fn call<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        if let Some(refused) = not_grpc(&request) {
            return refused;
        }
        let this = &self.0;
        let Some(method) = this.counts.method(request.uri().path()) else {
            return unknown(request.uri().path()).into_http();
        };
        let mut ending = this.begin(method.clone());
        if let Err(refused) = this.admit(request.headers(), method) {
            ending.end(refused.code());
            return refused.into_http();
        }
        let (limit, counts, method) =
            (this.receive_bytes_max, Arc::clone(&this.counts), method.clone());
        let request = request.map(|body| Incoming::new(body, limit, counts, method));
        let response = this.dispatch(request).await;
        if let Some(code) = code_of(response.headers()) {
            ending.end(code);
            let told = Status::from_header_map(response.headers());
            let unreadable = told.as_ref().and_then(unreadable);
            return unreadable.map_or(response, Status::into_http);
        }
        let endless = ENDLESS.contains(&ending.method.path.as_str());
        response.map(|body| {
            let body = Outgoing::new(body, ending);
            Body::new(if endless { body.until(this.stopping()) } else { body })
        })
    }
}

impl Inner {
    /// Resolves when the server stops.
    fn stopping(&self) -> BoxFuture<'static, Status> {
        let mut serving = self.serving.clone();
        Box::pin(async move {
            // An error means that nobody is left to serve, which is stopping as well.
            let _ = serving.wait_for(|serving| !*serving).await;
            stopped()
        })
    }

    fn begin(&self, method: MethodCounts) -> Ending {
        method.start();
        Ending {
            counts: Arc::clone(&self.counts),
            method,
            begun: Instant::now(),
            slow: self.slow,
            done: false,
        }
    }

    /// What metadata asks for before the call (etcd `v3rpc/interceptor.go`).
    fn admit(&self, headers: &HeaderMap, method: &MethodCounts) -> Result<(), Status> {
        if self.keyspace.is_learner() && !LEARNERS.contains(&method.path.as_str()) {
            return Err(status(&KeyspaceError::NotForLearners));
        }
        let version = match headers.get(&API_VERSION) {
            None => "unknown",
            Some(value) => {
                std::str::from_utf8(value.as_bytes()).map_err(|_| invalid_client_version())?
            }
        };
        let known = version.len() <= VERSION_LABEL_MAX;
        self.counts.request(method.flow, if known { version } else { "unknown" });
        let needs_leader = headers.get(&HAS_LEADER).is_some_and(|value| value == "true");
        if needs_leader && self.keyspace.leader_view().leader().is_none() {
            return Err(no_leader());
        }
        Ok(())
    }

    async fn dispatch<B>(&self, request: Request<Incoming<B>>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let path = request.uri().path();
        let service = path.get(1..).and_then(|p| p.split('/').next()).unwrap_or_default();
        let answered = match service {
            "etcdserverpb.KV" => self.kv.clone().call(request).await,
            "etcdserverpb.Watch" => self.watch.clone().call(request).await,
            "etcdserverpb.Lease" => self.lease.clone().call(request).await,
            "etcdserverpb.Cluster" => self.cluster.clone().call(request).await,
            "etcdserverpb.Maintenance" => self.maintenance.clone().call(request).await,
            "etcdserverpb.Auth" => self.auth.clone().call(request).await,
            "grpc.health.v1.Health" => self.health.clone().call(request).await,
            "v3lockpb.Lock" => self.lock.clone().call(request).await,
            "v3electionpb.Election" => self.election.clone().call(request).await,
            _ => Ok(not_built(path).into_http()),
        };
        match answered {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// A service that etcd has and we have not built yet.
fn not_built(path: &str) -> Status {
    Status::unimplemented(format!("{} is not implemented", path.trim_start_matches('/')))
}

/// grpc-go's words for a path it has nothing for.
pub(super) fn unknown(path: &str) -> Status {
    let Some((service, method)) = path.strip_prefix('/').and_then(|p| p.rsplit_once('/')) else {
        return Status::unimplemented(format!("malformed method name: {}", quote(path)));
    };
    let known = methods::counted().chain(methods::uncounted()).any(|m| m.service == service);
    if known {
        Status::unimplemented(format!("unknown method {method} for service {service}"))
    } else {
        Status::unimplemented(format!("unknown service {service}"))
    }
}

/// What grpc-go answers to HTTP/2 requests that are no gRPC.
pub(super) fn not_grpc<B>(request: &Request<B>) -> Option<Response<Body>> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.map_or("", |kind| kind.to_str().unwrap_or(""));
    let is_grpc = kind == "application/grpc"
        || kind.starts_with("application/grpc+")
        || kind.starts_with("application/grpc;");
    let (status, text) = if request.method() != Method::POST {
        let method = quote(request.method().as_str());
        let text = format!("Received a HEADERS frame with :method {method} which should be POST");
        (StatusCode::METHOD_NOT_ALLOWED, text)
    } else if !is_grpc {
        let text = format!("invalid gRPC request content-type {}", quote(kind));
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, text)
    } else {
        return None;
    };
    let mut response: Response<Body> = Status::new(Code::Internal, text).into_http();
    *response.status_mut() = status;
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_paths_are_refused_in_grpc_gos_words() {
        for (path, want) in [
            ("/etcdserverpb.KV/Nope", "unknown method Nope for service etcdserverpb.KV"),
            ("/foo.Bar/Baz", "unknown service foo.Bar"),
            ("/", "malformed method name: \"/\""),
            ("nope", "malformed method name: \"nope\""),
        ] {
            let status = unknown(path);
            assert_eq!((status.code(), status.message()), (Code::Unimplemented, want));
        }
    }

    #[test]
    fn http2_requests_that_are_no_grpc_are_refused() {
        let get = Request::get("/health").body(()).unwrap();
        assert_eq!(not_grpc(&get).unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
        let json = Request::post("/x").header("content-type", "application/json").body(()).unwrap();
        assert_eq!(not_grpc(&json).unwrap().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let good =
            Request::post("/x").header("content-type", "application/grpc+proto").body(()).unwrap();
        assert!(not_grpc(&good).is_none());
    }
}
