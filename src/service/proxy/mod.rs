//! A proxy between clients and the members of a cluster: fewer watches, cached reads, keys below a prefix (etcd
//! `server/proxy/grpcproxy`, `server/etcdmain/grpc_proxy.go`).
//!
//! ```text
//!   client ── serve ── gRPC? ── yes: grpc ── kv: cache ──────────────┐
//!                       │                ├── watch: shared feeds ────┤
//!                       │                ├── lease, cluster ─────────┼── upstream ──> members, in turn
//!                       │                └── all else: as it is ─────┘
//!                       └ no: site ── health, metrics
//! ```
//!
//! It holds no data: what it knows it may forget at any time.
//!
//! **Invariant:** it knows members by the wire alone, and nothing of a keyspace.

mod cache;
mod caller;
mod cluster;
mod figures;
mod grpc;
mod kv;
mod lease;
mod namespace;
mod site;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::body::Body;
use tracing::instrument::WithSubscriber as _;

use self::cluster::Cluster;
pub use self::cluster::Resolver;
use self::figures::Figures;
use self::grpc::Door;
use self::kv::Kv;
use self::namespace::Namespace;
use self::site::Site;
use self::watch::Hub;
use super::gateway::Afterwards;
use super::grpc::counts::GrpcCounts;
use super::serve::{Counter, Traffic, is_grpc};
use super::upstream::Upstream;
pub use super::upstream::UpstreamSettings;
use crate::support::metrics::{Metrics, ProcessFigures};
use crate::support::tls::Connector;

/// How long the members may take to say who they are.
const SYNC_MAX: Duration = Duration::from_secs(5);

/// What a proxy is told at the start.
#[derive(Clone, Debug, Default)]
pub struct ProxySettings {
    /// Where the members are.
    pub endpoints: Vec<String>,
    /// How they are spoken to.
    pub upstream: UpstreamSettings,
    /// `--endpoints-auto-sync-interval`; `None` for never.
    pub sync_interval: Option<Duration>,
    /// `--namespace`.
    pub namespace: String,
    /// `--advertise-client-url`.
    pub advertised: String,
    /// How the proxy reaches itself, if over TLS.
    pub own_tls: Option<Connector>,
    /// `--resolver-prefix`, `--resolver-ttl`.
    pub resolver: Option<Resolver>,
    /// `--experimental-serializable-ordering`.
    pub ordered: bool,
    /// `--experimental-enable-grpc-logging`.
    pub logs_calls: bool,
    /// `--enable-pprof`.
    pub pprof: bool,
}

/// A proxy that answers. Cheap to clone.
#[derive(Clone)]
pub struct Proxy {
    door: Door,
    site: Site,
    parts: Arc<Parts>,
}

/// What the calls share.
struct Parts {
    upstream: Upstream,
    names: Namespace,
    kv: Arc<Kv>,
    hub: Hub,
    cluster: Cluster,
}

/// What a proxy does beside answering. It ends when this is dropped or stopped.
#[derive(Debug)]
pub struct Chores(JoinSet<()>);

impl Proxy {
    /// Sets up a proxy; no member is dialled yet. An endpoint that can be none is refused.
    pub fn new(settings: ProxySettings) -> Result<(Proxy, Chores), String> {
        let metrics = Metrics::default();
        metrics.add(ProcessFigures::default());
        let figures = Figures::new(&metrics);
        let counts = GrpcCounts::new(&metrics, false);
        let upstream = Upstream::new(settings.upstream, &settings.endpoints)?;
        let own = own_upstream(&settings.advertised, settings.own_tls);
        let names = Namespace::new(&settings.namespace);
        let kv = Kv::new(upstream.clone(), names.clone(), figures.clone(), settings.ordered);
        let kv = Arc::new(kv);
        let parts = Arc::new(Parts {
            hub: Hub::new(upstream.clone(), names.clone(), figures),
            cluster: Cluster::new(
                upstream.clone(),
                Arc::clone(&kv),
                names.clone(),
                settings.advertised,
                settings.resolver,
            ),
            upstream: upstream.clone(),
            names,
            kv,
        });
        let mut chores = JoinSet::new();
        if let Some(interval) = settings.sync_interval {
            chores.spawn(sync(upstream.clone(), interval).with_current_subscriber());
        }
        let registering = Arc::clone(&parts);
        let register = async move { registering.cluster.register().await };
        chores.spawn(register.with_current_subscriber());
        let following = Arc::clone(&parts);
        let follow = async move { following.cluster.follow().await };
        chores.spawn(follow.with_current_subscriber());
        let proxy = Proxy {
            door: Door::new(Arc::clone(&parts), counts, settings.logs_calls),
            site: Site::new(upstream, own, metrics, settings.pprof),
            parts,
        };
        Ok((proxy, Chores(chores)))
    }

    /// Where the members are, as far as is known now.
    pub fn endpoints(&self) -> Vec<String> {
        self.parts.upstream.endpoints()
    }

    /// Ends what is done beside answering, and every watch at the members.
    pub async fn stop(&self, chores: Chores) {
        let Chores(mut chores) = chores;
        chores.shutdown().await;
        self.parts.hub.close().await;
    }
}

/// How the proxy calls itself, for its own health.
fn own_upstream(advertised: &str, tls: Option<Connector>) -> Option<Upstream> {
    if advertised.is_empty() {
        return None;
    }
    let settings = UpstreamSettings { tls, ..UpstreamSettings::default() };
    let own = Upstream::new(settings, &[advertised.to_owned()]);
    own.inspect_err(|why| tracing::warn!(error = why, "the proxy cannot call itself")).ok()
}

/// Keeps the endpoints up to date with the members. Does not return.
async fn sync(upstream: Upstream, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let asked = timeout(SYNC_MAX, cluster::endpoints(&upstream)).await;
        let endpoints = match asked {
            Ok(Ok(endpoints)) if endpoints.is_empty() => continue,
            Ok(Ok(endpoints)) => endpoints,
            Ok(Err(status)) => {
                tracing::info!(error = status.message(), "Auto sync endpoints failed.");
                continue;
            }
            Err(_elapsed) => {
                let error = "context deadline exceeded";
                tracing::info!(error, "Auto sync endpoints failed.");
                continue;
            }
        };
        match upstream.set(&endpoints) {
            Ok(false) => {}
            Ok(true) => tracing::info!(?endpoints, "set etcd endpoints by autoSync"),
            Err(error) => tracing::info!(error, "Auto sync endpoints failed."),
        }
    }
}

impl Counter for Proxy {
    async fn answer(
        &self,
        traffic: Traffic,
        request: Request<Incoming>,
        _: &Afterwards,
    ) -> hyper::Response<Body> {
        if is_grpc(traffic, &request) {
            self.door.call(request).await
        } else {
            self.site.answer(&request).await.map(Body::new)
        }
    }
}
