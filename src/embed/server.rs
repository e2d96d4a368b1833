//! A running server: opened, bound, served, and stopped in order.
//!
//! ```text
//!   spawn   bind ports ── claim directory ── who am I ── open ── (leader elected) ── accept
//!   stop    not serving ── leadership goes ── drain clients ── keyspace ── journal ── lock ── peers' listeners
//! ```
//!
//! Connections that come before there is a leader wait in the listeners' backlog, as with etcd.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber as _;

use super::bootstrap::Who;
use super::config::{Config, MemberSettings};
use super::discovery::DiscoveryError;
use super::gates::{GATES, is_on};
use super::secure::{Secured, secure};
use super::{Built, bootstrap, validate};
use crate::consensus::SnapshotLimits;
use crate::host::{Directory, DirectoryError, DiskSizes, Host, HostError, claim};
use crate::keyspace::auth::{AuthSettings, TokenKind};
use crate::keyspace::{InitialMember, KeyspaceConfig, SweepPace};
use crate::service::serve::{ConnectionLimits, Entrance, Security, Tasks, Traffic, serve};
use crate::service::{Desk, JournalFigures, ServiceSettings};
use crate::storage::journal::{FrameFigures, JournalObserver};
use crate::support::go::duration::GoDuration;
use crate::support::listen::{ListenError, SocketOptions, bind};
use crate::support::shutdown::Drain;
use crate::support::spawn::cores;
use crate::support::tls::{Connector, Endpoint};
use crate::support::urls::{Url, texts};

/// Bytes of log a second that a member which was away takes in, for each core: what it missed is applied and stored by
/// the same cores that serve, in this and maybe in other members.
const LOG_PACE_PER_CORE: u64 = 6 << 20;

/// How often a start looks whether the data directory has become free.
const HOLDER_LOOK: Duration = Duration::from_millis(100);

/// A server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The settings do not fit a first start; etcd's words.
    #[error("{0}")]
    Bootstrap(String),
    /// The discovery service did not let this member in.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The data could not be opened.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// A running server.
pub struct Server {
    host: Host,
    log: Option<Dispatch>,
    config: Config,
    addresses: Vec<String>,
    ready: watch::Receiver<bool>,
    serving: watch::Sender<bool>,
    drain: Drain,
    front: JoinHandle<()>,
    /// Members are served until raft has ended.
    peer_drain: Drain,
    peer_loops: JoinSet<()>,
}

struct Bound {
    peers: Vec<Entrance>,
    clients: Vec<Entrance>,
    metrics: Vec<Entrance>,
}

impl Server {
    /// Starts a server on the runtime that calls. Returns once it is open; [`Server::ready`] tells when it serves.
    pub async fn spawn(built: Built) -> Result<Server, StartError> {
        let Built { config, log } = built;
        let log = (!config.log.inherit).then_some(log);
        match log.clone() {
            Some(dispatch) => Box::pin(start(config, log)).with_subscriber(dispatch).await,
            None => Box::pin(start(config, None)).await,
        }
    }

    /// Resolves once there is a leader and clients are served.
    pub async fn ready(&self) {
        let mut ready = self.ready.clone();
        if ready.wait_for(|ready| *ready).await.is_err() {
            std::future::pending().await
        }
    }

    /// Resolves when the server has failed, with the cause: it must be stopped. Never, while all is well.
    pub async fn failed(&self) -> String {
        self.host.keyspace().failed().await
    }

    /// Resolves when this member was removed from its cluster: the server must be stopped, and its data directory is of
    /// no use any more. Never, while it is a member.
    pub async fn removed(&self) {
        self.host.removed().await
    }

    /// The member's own handle of its keyspace: no client's rights are looked at.
    pub(crate) fn keyspace(&self) -> &crate::keyspace::Keyspace {
        self.host.keyspace()
    }

    /// Where clients are served, as `host:port` or the path of a socket; with the real port where 0 was asked for.
    pub fn client_addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Stops in order. Watches and keep-alives end at once with the reason; other open calls may go on for one
    /// request timeout, then they are cut.
    pub async fn stop(self) -> Result<(), StartError> {
        self.end(false).await
    }

    /// Stops a member that was removed: open calls are answered at once, for it will never know more.
    pub async fn leave(self) -> Result<(), StartError> {
        self.end(true).await
    }

    async fn end(self, removed: bool) -> Result<(), StartError> {
        match self.log.clone() {
            Some(log) => self.end_here(removed).with_subscriber(log).await,
            None => self.end_here(removed).await,
        }
    }

    async fn end_here(mut self, removed: bool) -> Result<(), StartError> {
        let member = self.config.member.clone();
        let tell = |what: &'static str| {
            tracing::info!(
                name = member.name,
                "data-dir" = member.data_dir,
                "advertise-peer-urls" = ?texts(&member.advertise_peer),
                "advertise-client-urls" = ?texts(member.advertise_client.as_deref().unwrap_or_default()),
                "{what}"
            );
        };
        tell("closing etcd server");
        self.serving.send_replace(false);
        self.host.keyspace().leave_leadership().await;
        // Watches would go on for ever: they get what is queued for them, and the reason.
        self.host.keyspace().watch_hub().close();
        self.drain.start();
        if removed {
            self.host.keyspace().shutdown().await;
        }
        if let Err(why) = self.front.await {
            tracing::error!(error = %why, "a listener's task failed");
        }
        let closed = self.host.shutdown().await;
        self.peer_drain.start();
        join_all(&mut self.peer_loops).await;
        closed?;
        tell("closed etcd server");
        Ok(())
    }
}

async fn start(mut config: Config, log: Option<Dispatch>) -> Result<Server, StartError> {
    if config.member.data_dir.is_empty() {
        config.member.data_dir = format!("{}.etcd", config.member.name);
    }
    if let Some(fault) = validate::listener_faults(&config).into_iter().next() {
        return Err(StartError::Bootstrap(fault));
    }
    let secured = secure(&config).map_err(StartError::Bootstrap)?;
    let bound = bind_all(&config, &secured)?;
    let connector = bootstrap::connector(&config, secured.connector);
    let directory = claim_in_time(&config.member).await?;
    let known = directory.identity();
    let who = match known {
        Some(known) => bootstrap::known(&config, known.cluster, known.member),
        None => begin(&config, &connector).await?,
    };
    let keyspace = keyspace_config(&config, &who)?;
    super::banner::starting(&config, known.is_some(), &who.first);
    let journal = JournalFigures::default();
    let limits = limits(&config, &keyspace);
    let sizes = DiskSizes {
        segment_bytes: config.member.journal_segment_bytes,
        base_after_bytes: config.member.base_after_bytes,
    };
    let observer = Arc::new(Syncs(journal.clone()));
    let host = Host::open(directory, keyspace, sizes, observer, connector).await?;
    let (serving, served) = watch::channel(false);
    let gauge = host.journal_gauge();
    let settings = service_settings(&config);
    let desk = Desk::new(host.keyspace(), host.peers(), settings, served, &journal, gauge);
    let addresses = bound.clients.iter().map(|entrance| entrance.listener.to_string()).collect();
    let (drain, peer_drain) = (Drain::default(), Drain::default());
    let (now_ready, ready) = watch::channel(false);
    let tasks = Tasks::new(log.clone());
    let peer_loops = serve_peers(bound.peers, &desk, limits, &tasks, &peer_drain);
    let front = Front {
        clients: bound.clients,
        metrics: bound.metrics,
        desk,
        limits,
        tasks,
        keyspace: host.keyspace().clone(),
        serving: serving.clone(),
        ready: now_ready,
        first: First {
            compare: known.is_some() && is_on(&config.cluster.feature_gates, "InitialCorruptCheck"),
            defrag_bytes: config.member.bootstrap_defrag_megabytes << 20,
        },
    };
    super::banner::serving(&config, who.member);
    let draining = drain.join().expect("the drain has just been made");
    let run = front.run(draining);
    let front = match log.clone() {
        Some(log) => tokio::spawn(run.with_subscriber(log)),
        None => tokio::spawn(run),
    };
    Ok(Server {
        host,
        log,
        config,
        addresses,
        ready,
        serving,
        drain,
        front,
        peer_drain,
        peer_loops,
    })
}

async fn begin(config: &Config, tls: &Connector) -> Result<Who, StartError> {
    let cluster = bootstrap::initial_cluster(config).await.map_err(StartError::Bootstrap)?;
    let who = bootstrap::first_start(config, &cluster, tls).await;
    who.inspect_err(|why| tracing::error!(error = %why, "bootstrap failed"))
}

/// Members are served from the start: without them there is no leader.
fn serve_peers(
    entrances: Vec<Entrance>,
    desk: &Desk,
    limits: ConnectionLimits,
    tasks: &Tasks,
    drain: &Drain,
) -> JoinSet<()> {
    let mut loops = JoinSet::new();
    for entrance in entrances {
        tracing::info!(address = %entrance.listener, "serving peer traffic");
        let draining = drain.join().expect("the drain has just been made");
        let (desk, tasks) = (desk.clone(), tasks.clone());
        let run = serve(entrance, desk, limits, tasks, draining);
        loops.spawn(run.with_current_subscriber());
    }
    loops
}

/// Carries the journal's figures to the metrics.
#[derive(Debug)]
struct Syncs(JournalFigures);

impl JournalObserver for Syncs {
    fn frame_synced(&self, figures: FrameFigures) {
        self.0.frame(figures.bytes, figures.write, figures.sync);
    }

    fn poisoned(&self, cause: &str) {
        tracing::error!(error = cause, "the journal failed: this member stops");
    }
}

fn keyspace_config(config: &Config, who: &Who) -> Result<KeyspaceConfig, StartError> {
    let member = InitialMember { id: who.member, peer_urls: texts(&config.member.advertise_peer) };
    let initial_members = who.members.clone();
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let defaults = KeyspaceConfig::single(who.cluster, member);
    Ok(KeyspaceConfig {
        name: config.member.name.clone(),
        initial_members,
        introducers: who.introducers.clone(),
        force_new_cluster: config.member.force_new_cluster,
        strict_reconfig_check: config.cluster.strict_reconfig_check,
        learners_max: config.cluster.learners_max,
        client_urls: texts(config.member.advertise_client.as_deref().unwrap_or_default()),
        heartbeat: Duration::from_millis(config.cluster.heartbeat_ms),
        election_timeout: Duration::from_millis(config.cluster.election_ms),
        request_bytes_max: count(config.cluster.request_bytes_max),
        txn_ops_max: count(config.cluster.txn_ops_max),
        quota_bytes: config.cluster.quota_bytes,
        auto_compaction: validate::auto_compaction(config).map_err(StartError::Bootstrap)?,
        sweep_pace: sweep_pace(config),
        watch_progress_interval: config.member.watch_progress_interval.to_std(),
        catch_up_requests: config.cluster.snapshot_catchup_entries,
        corrupt_check: some(config.member.corrupt_check),
        compact_hash_check: is_on(&config.cluster.feature_gates, "CompactHashCheck")
            .then(|| config.cluster.compact_hash_check.to_std()),
        slow_apply: config.member.warn_apply.to_std(),
        base_after_requests: match config.cluster.snapshot_count {
            0 => defaults.base_after_requests,
            count => count,
        },
        snapshots: SnapshotLimits {
            log_bytes_per_second: LOG_PACE_PER_CORE * cores() as u64,
            ..defaults.snapshots
        },
        auth: auth_settings(config)?,
        ..defaults
    })
}

/// Claims the data directory; one that a process is about to leave is waited for, as etcd waits (bbolt's `Open`), but
/// not for ever: whoever holds it on is named.
async fn claim_in_time(member: &MemberSettings) -> Result<Directory, HostError> {
    let data_dir = PathBuf::from(&member.data_dir);
    let until = Instant::now() + member.holder_wait;
    let mut told = false;
    loop {
        match claim(&data_dir) {
            Err(HostError::Directory(DirectoryError::InUse { holder, .. }))
                if Instant::now() < until =>
            {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(
                        "data-dir" = member.data_dir,
                        holder,
                        wait = ?member.holder_wait,
                        "the data directory is in use by another process; waiting for it to leave"
                    );
                }
                tokio::time::sleep(HOLDER_LOOK).await;
            }
            claimed => return claimed,
        }
    }
}

fn auth_settings(config: &Config) -> Result<AuthSettings, StartError> {
    let cluster = &config.cluster;
    let tokens = TokenKind::parse(&cluster.auth_token, |path| std::fs::read(path));
    let tokens = tokens.map_err(|why| {
        tracing::warn!(error = %why, "failed to create token provider");
        StartError::Bootstrap(why.to_string())
    })?;
    Ok(AuthSettings {
        tokens,
        token_ttl: Duration::from_secs(cluster.auth_token_ttl_s),
        bcrypt_cost: u32::try_from(cluster.bcrypt_cost).unwrap_or(u32::MAX),
        // Half of the cores hash; the others serve.
        passwords_at_once: (cores() / 2).max(1),
        common_names: config.security.client.client_cert_auth,
    })
}

fn sweep_pace(config: &Config) -> SweepPace {
    let default = SweepPace::default();
    SweepPace {
        keys_max: match usize::try_from(config.member.compaction_batch_limit) {
            Ok(0) => default.keys_max,
            Ok(limit) => limit,
            Err(_) => usize::MAX,
        },
        rest: config.member.compaction_rest.and_then(some),
    }
}

/// A duration that is not zero.
fn some(duration: GoDuration) -> Option<Duration> {
    (duration.0 > 0).then(|| duration.to_std())
}

fn limits(config: &Config, keyspace: &KeyspaceConfig) -> ConnectionLimits {
    let (interval, timeout) = (config.member.keepalive_interval, config.member.keepalive_timeout);
    ConnectionLimits {
        streams_max: config.member.concurrent_streams_max,
        ping_interval: (interval.0 > 0 && timeout.0 > 0).then(|| interval.to_std()),
        ping_timeout: timeout.to_std(),
        drain: keyspace.request_timeout(),
    }
}

fn service_settings(config: &Config) -> ServiceSettings {
    let gates = &config.cluster.feature_gates;
    let slow = match config.member.warn_unary.to_std() {
        Duration::ZERO => Duration::from_millis(300),
        set => set,
    };
    ServiceSettings {
        request_bytes_max: usize::try_from(config.cluster.request_bytes_max).unwrap_or(usize::MAX),
        election_timeout: Duration::from_millis(config.cluster.election_ms),
        slow_request: slow,
        extensive_metrics: config.member.extensive_metrics,
        stop_on_defrag: is_on(gates, "StopGRPCServiceOnDefrag"),
        pprof: config.member.enable_pprof || config.log.level == "debug",
        http2_debug: config.member.http2_debug,
        hosts: config.member.host_whitelist.clone(),
        origins: config.member.cors.clone(),
        gateway_calls_max: config
            .member
            .grpc_gateway
            .then_some(config.member.concurrent_streams_max),
        gates: GATES
            .iter()
            .map(|(name, stage, _)| (*name, (stage.word(), is_on(gates, name))))
            .collect(),
    }
}

fn bind_all(config: &Config, secured: &Secured) -> Result<Bound, ListenError> {
    let member = &config.member;
    let options = SocketOptions { reuse_port: member.reuse_port };
    let all = |urls: &[Url], endpoint: Endpoint, traffic: Traffic| {
        let mut places: Vec<(String, Vec<&Url>)> = Vec::new();
        for url in urls {
            let place = url.socket_path();
            match places.iter_mut().find(|(known, _)| *known == place) {
                Some((_, same)) => same.push(url),
                None => places.push((place, vec![url])),
            }
        }
        let entrance = |(_, same): (String, Vec<&Url>)| {
            let listener = bind(same[0], options)?;
            Ok(Entrance { listener, traffic, security: secured.security(endpoint, &same) })
        };
        places.into_iter().map(entrance).collect::<Result<Vec<_>, ListenError>>()
    };
    tracing::info!("listen-peer-urls" = ?texts(&member.listen_peer), "configuring peer listeners");
    let peers = all(&member.listen_peer, Endpoint::Peer, Traffic::PeersOnly)?;
    tracing::info!(
        "listen-client-urls" = ?texts(&member.listen_client),
        "configuring client listeners"
    );
    let traffic =
        if member.listen_client_http.is_empty() { Traffic::Both } else { Traffic::GrpcOnly };
    let mut clients = all(&member.listen_client, Endpoint::Client, traffic)?;
    clients.extend(all(&member.listen_client_http, Endpoint::Client, Traffic::HttpOnly)?);
    let metrics = all(&member.listen_metrics, Endpoint::Metrics, Traffic::MetricsOnly)?;
    Ok(Bound { peers, clients, metrics })
}

/// Everything that speaks to clients.
struct Front {
    clients: Vec<Entrance>,
    metrics: Vec<Entrance>,
    desk: Desk,
    limits: ConnectionLimits,
    tasks: Tasks,
    keyspace: crate::keyspace::Keyspace,
    serving: watch::Sender<bool>,
    ready: watch::Sender<bool>,
    first: First,
}

/// What is done before clients are served.
struct First {
    /// Compare the data with the other members'.
    compare: bool,
    /// Defragment if so many bytes would be won (`--bootstrap-defrag-threshold-megabytes`); 0: never.
    defrag_bytes: u64,
}

impl Front {
    async fn run(self, mut draining: crate::support::shutdown::Draining) {
        let mut loops = JoinSet::new();
        let listen = |loops: &mut JoinSet<()>, entrance, draining| {
            let (desk, tasks) = (self.desk.clone(), self.tasks.clone());
            let run = serve(entrance, desk, self.limits, tasks, draining);
            loops.spawn(run.with_current_subscriber());
        };
        for entrance in self.metrics {
            tracing::info!(address = %entrance.listener, "serving metrics");
            listen(&mut loops, entrance, draining.clone());
        }
        let elected = tokio::select! {
            () = elected(&self.keyspace, &self.first) => true,
            () = draining.started() => false,
        };
        if elected {
            tracing::info!("ready to serve client requests");
            self.serving.send_replace(true);
            // First, so that no client is answered by a server that is not ready.
            self.ready.send_replace(true);
            for entrance in self.clients {
                tell_serving(&entrance);
                listen(&mut loops, entrance, draining.clone());
            }
        }
        join_all(&mut loops).await;
    }
}

/// A place that speaks both is told twice, as with etcd.
fn tell_serving(entrance: &Entrance) {
    let insecurely = "serving client traffic insecurely; this is strongly discouraged!";
    let lines: &[&str] = match &entrance.security {
        Security::Plain => &[insecurely],
        Security::Tls(_) => &["serving client traffic securely"],
        Security::Both(_) => &[insecurely, "serving client traffic securely"],
    };
    for line in lines {
        let (traffic, address) = (entrance.traffic.word(), &entrance.listener);
        tracing::info!(traffic, %address, "{line}");
    }
}

async fn join_all(loops: &mut JoinSet<()>) {
    while let Some(ended) = loops.join_next().await {
        if let Err(why) = ended {
            tracing::error!(error = %why, "a listener's task failed");
        }
    }
}

/// Returns once there is a leader, however long that takes, and what comes first has been done. Never, if the data are
/// not to be served.
async fn elected(keyspace: &crate::keyspace::Keyspace, first: &First) {
    while let Err(why) = keyspace.ready().await {
        tracing::debug!(error = %why, "no leader yet");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if first.compare
        && let Err(why) = keyspace.check_before_serving().await
    {
        tracing::error!(error = %why, "the data were not compared");
        std::future::pending::<()>().await;
    }
    if first.defrag_bytes > 0 {
        defragment_first(keyspace, first.defrag_bytes).await;
    }
}

/// etcd's bootstrap defragmentation (`server/etcdserver/bootstrap.go`, `maybeDefragBackend`).
async fn defragment_first(keyspace: &crate::keyspace::Keyspace, threshold: u64) {
    let status = keyspace.status();
    let free = status.db_size.saturating_sub(status.db_size_in_use);
    if free < threshold {
        tracing::info!(
            "current-db-size-bytes" = status.db_size,
            "current-db-size-in-use-bytes" = status.db_size_in_use,
            "bootstrap-defrag-threshold-bytes" = threshold,
            "Skipping defragmentation"
        );
        return;
    }
    if let Err(why) = keyspace.defragment().await {
        tracing::warn!(error = %why, "failed to defragment");
    }
}

#[cfg(test)]
#[path = "server_test.rs"]
mod tests;

#[cfg(test)]
#[path = "auth_test/mod.rs"]
mod auth_tests;

#[cfg(test)]
#[path = "cluster_test.rs"]
mod cluster_tests;

#[cfg(test)]
pub(super) use cluster_tests::free_ports;

#[cfg(test)]
#[path = "discovery_test.rs"]
mod discovery_tests;

#[cfg(test)]
#[path = "gateway_test.rs"]
mod gateway_tests;

#[cfg(test)]
#[path = "proxy_test.rs"]
mod proxy_tests;

#[cfg(test)]
#[path = "recipes_test.rs"]
mod recipes_tests;

#[cfg(test)]
#[path = "tls_test.rs"]
mod tls_tests;
