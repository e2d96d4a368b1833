//! Floor 7, speak: gRPC and HTTP on client ports, in etcd's words.
//!
//! ```text
//!   listener ── serve: HTTP/2? ── yes: grpc ── kv, watch, lease, cluster, auth, recipes, .. ── credentials ──> gate
//!                    │              ^─── gateway: JSON ───┐
//!                    └ no:  http ── /v3/ ─────────────────┴── health, version, metrics ──────────────> keyspace
//! ```
//!
//! **Invariant:** a client's call goes to the handle that the gate gives for its credentials, never to the member's own.
//!
//! **Invariant:** a method checks, calls the keyspace, maps the error and fills the header; rules live below.
//! **Invariant:** wire codes and texts stand in `status` alone.

mod auth;
mod cluster;
mod credentials;
mod gateway;
mod grpc;
mod header;
mod health;
mod http;
mod kv;
pub mod leader_guard;
pub mod lease;
mod maintenance;
pub mod management;
mod member;
mod metrics;
mod patience;
pub mod pb;
pub mod proxy;
pub(crate) mod raw;
mod recipes;
pub mod remote;
pub mod serve;
mod status;
mod upstream;
pub mod version;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as signal;

use self::auth::Auth;
use self::cluster::Cluster;
use self::gateway::Gateway;
use self::grpc::counts::GrpcCounts;
use self::grpc::{Grpc, Services};
use self::health::Health;
use self::http::{Access, Site};
use self::kv::Kv;
use self::lease::LeaseService;
use self::maintenance::Maintenance;
use self::member::Member;
use self::metrics::ServerMetrics;
pub use self::metrics::{JournalFigures, WatchSendTimes};
use self::recipes::{ElectionService, LockService, Recipes};
use self::watch::WatchService;
use crate::host::JournalGauge;
use crate::host::peers::Peers;
use crate::keyspace::Keyspace;
use crate::keyspace::auth::Gate;

/// What the floor is told at the start.
#[derive(Clone, Debug, Default)]
pub struct ServiceSettings {
    /// `--max-request-bytes`.
    pub request_bytes_max: usize,
    /// `--election-timeout`.
    pub election_timeout: Duration,
    /// `--warning-unary-request-duration`.
    pub slow_request: Duration,
    /// `--metrics=extensive`.
    pub extensive_metrics: bool,
    /// The gate `StopGRPCServiceOnDefrag`.
    pub stop_on_defrag: bool,
    /// `--enable-pprof`.
    pub pprof: bool,
    /// `GODEBUG=http2debug=1`: header fields of HTTP/2 requests are written to stderr.
    pub http2_debug: bool,
    /// `--host-whitelist`.
    pub hosts: Vec<String>,
    /// `--cors`.
    pub origins: Vec<String>,
    /// `--enable-grpc-gateway`: how many of its calls run at once (`--max-concurrent-streams`); `None` for no gateway.
    pub gateway_calls_max: Option<u32>,
    /// Feature gates: name, stage, whether on.
    pub gates: BTreeMap<&'static str, (&'static str, bool)>,
}

/// Everything that answers for one keyspace.
#[derive(Clone)]
pub struct Desk {
    grpc: Grpc,
    site: Site,
    peers: Peers,
    http2_debug: bool,
}

impl Desk {
    /// Sets up the services of `keyspace`. gRPC health follows `serving`.
    pub fn new(
        keyspace: &Keyspace,
        peers: &Peers,
        settings: ServiceSettings,
        serving: signal::Receiver<bool>,
        journal: &JournalFigures,
        usage: JournalGauge,
    ) -> Desk {
        let id = keyspace.config().member_id;
        let metrics = ServerMetrics::new(id, &settings.gates, journal);
        peers.figures().register(metrics.registry());
        keyspace.snapshot_figures().register(metrics.registry());
        let metrics = Arc::new(metrics.with_storage(keyspace, usage));
        let counts = Arc::new(GrpcCounts::new(metrics.registry(), settings.extensive_metrics));
        let member = Arc::new(Member::new(keyspace.clone(), Arc::clone(&metrics)));
        let timeout = settings.election_timeout;
        let gate = Gate::new(keyspace.clone());
        let recipes = Recipes::new(gate.clone(), metrics.kv.clone());
        let defragmenting = signal::Sender::new(false);
        let services = Services {
            kv: Kv::new(gate.clone(), metrics.kv.clone()),
            watch: WatchService::new(
                keyspace.watch_hub().clone(),
                Arc::new(gate.clone()),
                Arc::clone(&member) as _,
                timeout,
            )
            .timed(metrics.watch_sends.clone()),
            lease: LeaseService::new(
                gate.clone(),
                Arc::clone(&member) as _,
                timeout,
                status::owned,
            ),
            cluster: Cluster::new(gate.clone()),
            maintenance: Maintenance::new(
                gate.clone(),
                settings.stop_on_defrag.then(|| defragmenting.clone()),
            ),
            auth: Auth::new(gate),
            health: Health::new(serving.clone(), defragmenting.subscribe()),
            lock: LockService::new(recipes.clone()),
            election: ElectionService::new(recipes),
        };
        let grpc = Grpc::new(
            keyspace.clone(),
            services,
            counts,
            settings.request_bytes_max,
            settings.slow_request,
            serving,
        );
        let access = Access::new(settings.hosts, settings.origins);
        let gateway = settings.gateway_calls_max.map(|calls| Gateway::new(grpc.clone(), calls));
        let site = Site::new(member, metrics, access)
            .with_gateway(gateway)
            .asked_for_pprof(settings.pprof);
        Desk { grpc, site, peers: peers.clone(), http2_debug: settings.http2_debug }
    }
}
