//! Floor 7, speak: gRPC and HTTP on client ports, in etcd's words.
//!
//! ```text
//!   listener ── serve: HTTP/2? ── yes: grpc ── kv, watch, lease, cluster, maintenance, health ──┐
//!                               └ no:  http ── health, version, metrics ────────────────────────┴─> keyspace
//! ```
//!
//! **Invariant:** a method checks, calls the keyspace, maps the error and fills the header; rules live below.
//! **Invariant:** wire codes and texts stand in `status` alone.

mod cluster;
mod grpc;
mod header;
mod health;
mod http;
mod kv;
pub mod leader_guard;
pub mod lease;
mod maintenance;
mod member;
mod metrics;
pub mod pb;
pub mod serve;
mod status;
pub mod version;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as signal;

use self::cluster::Cluster;
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
use self::watch::WatchService;
use crate::host::JournalGauge;
use crate::host::peers::Peers;
use crate::keyspace::Keyspace;

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
    /// `--host-whitelist`.
    pub hosts: Vec<String>,
    /// `--cors`.
    pub origins: Vec<String>,
    /// Feature gates: name, stage, whether on.
    pub gates: BTreeMap<&'static str, (&'static str, bool)>,
}

/// Everything that answers for one keyspace.
#[derive(Clone)]
pub struct Desk {
    grpc: Grpc,
    site: Site,
    peers: Peers,
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
        let defragmenting = signal::Sender::new(false);
        let services = Services {
            kv: Kv::new(keyspace.clone(), metrics.kv.clone()),
            watch: WatchService::new(
                keyspace.watch_hub().clone(),
                Arc::clone(&member) as _,
                timeout,
            )
            .timed(metrics.watch_sends.clone()),
            lease: LeaseService::new(
                keyspace.clone(),
                Arc::clone(&member) as _,
                timeout,
                status::owned,
            ),
            cluster: Cluster::new(keyspace.clone()),
            maintenance: Maintenance::new(
                keyspace.clone(),
                settings.stop_on_defrag.then(|| defragmenting.clone()),
            ),
            health: Health::new(serving.clone(), defragmenting.subscribe()),
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
        let site = Site::new(member, metrics, access).asked_for_pprof(settings.pprof);
        Desk { grpc, site, peers: peers.clone() }
    }
}
