//! The daemon: one server from start to signal.
//!
//! ```text
//!   data directory ── spawn ── ready ── READY=1 ── signal ── stop ── exit 0
//!                        └── fails: fatal line, exit 1     └── the server fails: fatal line, exit 1
//!                                                          └── the member was removed: stop ── exit 0
//! ```
//!
//! A signal before the server is ready ends the process at once, as with etcd.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::data_dir::{DirectoryKind, identify};
use super::{EXIT_FAILED, EXIT_USAGE, environment::Environment};
use crate::embed::{
    Built, Config, DEFAULT_INITIAL_CLUSTER, DEFAULT_NAME, DiscoverySettings, Server, StartError,
};
use crate::support::listen::words;
use crate::support::urls::Url;

/// Exit code of a process that a signal ended before it was ready, as shells show it.
const EXIT_SIGNAL: u8 = 128;

/// A server that has failed gets this long to answer who waits; then the process ends without it.
const STOP_AFTER_FAILURE: Duration = Duration::from_secs(15);

/// Runs a server until it is told to stop; the exit code.
pub async fn run(mut built: Built, environment: &Environment) -> u8 {
    #[cfg(feature = "failpoints")]
    if let Err(why) = crate::support::failpoints::arm(|name| {
        let found = environment.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    }) {
        return fatal("failed to arm failpoints", &why);
    }
    derive_defaults(built.config_mut());
    if let Err(code) = look_at_directory(built.config()) {
        return code;
    }
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(why) => return fatal("cannot listen for signals", &words(&why)),
    };
    let discovery = built.config().discovery.clone();
    let started = tokio::select! {
        started = Server::spawn(built) => started,
        (_, number) = signals.next() => return EXIT_SIGNAL + number,
    };
    let server = match started {
        Ok(server) => server,
        Err(StartError::Discovery(why)) => return used_token(&discovery, &why.to_string()),
        Err(why) => return fatal("discovery failed", &why.to_string()),
    };
    tokio::select! {
        // A signal that comes once clients are served finds a server that is ready, and ends it in order.
        biased;
        () = server.ready() => {}
        why = server.failed() => return fatal("server failed", &why),
        () = server.removed() => return leave(server).await,
        (name, number) = signals.next() => {
            tracing::info!(signal = name, "received signal before the server was ready");
            return EXIT_SIGNAL + number;
        }
    }
    notify(environment);
    let failed = tokio::select! {
        why = server.failed() => Some(why),
        () = server.removed() => return leave(server).await,
        (name, _) = signals.next() => {
            tracing::info!(signal = name, "received signal; shutting down");
            None
        }
    };
    if let Some(why) = failed {
        // Before the stop, which may wait for what has failed.
        let code = fatal("server failed", &why);
        match tokio::time::timeout(STOP_AFTER_FAILURE, server.stop()).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::warn!(error = %why, "stopping after the failure failed, too"),
            Err(_elapsed) => tracing::warn!("stopping after the failure takes too long"),
        }
        return code;
    }
    match server.stop().await {
        Err(why) => fatal("stopping failed", &why.to_string()),
        Ok(()) => 0,
    }
}

/// The cluster goes on without this member (etcd `server/etcdserver/server.go`, `run`).
async fn leave(server: Server) -> u8 {
    let why = "the member has been permanently removed from the cluster";
    tracing::warn!(error = why, "server error");
    tracing::warn!("data-dir used by this member must be removed");
    match tokio::time::timeout(STOP_AFTER_FAILURE, server.leave()).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::warn!(error = %why, "stopping after the removal failed"),
        Err(_elapsed) => tracing::warn!("stopping after the removal takes too long"),
    }
    0
}

/// The discovery service did not let this member in, whatever the reason was (etcd `server/etcdmain/etcd.go`).
fn used_token(discovery: &DiscoverySettings, why: &str) -> u8 {
    tracing::warn!(
        "discovery-token" = discovery.token,
        "discovery-endpoints" = ?discovery.endpoints,
        error = why,
        "failed to bootstrap; discovery token was already used"
    );
    tracing::warn!("do not reuse discovery token; generate a new one to bootstrap a cluster");
    EXIT_FAILED
}

fn fatal(what: &'static str, why: &str) -> u8 {
    tracing::error!(severity = "fatal", error = why, "{what}");
    EXIT_FAILED
}

/// Settings that follow from others (etcd `server/embed/config.go`, `UpdateDefaultClusterFromName`).
pub(super) fn derive_defaults(config: &mut Config) {
    if let Some(host) = advertise_host(config) {
        tracing::info!(%host, "detected default host for advertise");
    }
    let named = config.member.name != DEFAULT_NAME;
    if named && config.cluster.initial_cluster == DEFAULT_INITIAL_CLUSTER {
        config.cluster.initial_cluster = config.initial_cluster_from_name();
    }
    if config.member.data_dir.is_empty() {
        config.member.data_dir = format!("{}.etcd", config.member.name);
        let directory = &config.member.data_dir;
        tracing::warn!("data-dir" = directory, "'data-dir' was empty; using default");
    }
}

/// A default advertise URL beside a listener on every address takes the machine's own.
fn advertise_host(config: &mut Config) -> Option<IpAddr> {
    let defaults = Config::default().member;
    let member = &mut config.member;
    let everywhere = |urls: &[Url]| {
        let first = urls.first()?;
        (first.hostname() == "0.0.0.0").then(|| first.host_port().map(|(_, port)| port).ok())?
    };
    let peer = everywhere(&member.listen_peer)
        .filter(|_| member.advertise_peer == defaults.advertise_peer);
    let client = everywhere(&member.listen_client)
        .filter(|_| member.advertise_client == defaults.advertise_client);
    if peer.is_none() && client.is_none() {
        return None;
    }
    let host = default_address()?;
    if let Some(port) = peer {
        member.advertise_peer[0].host = format!("{host}:{port}");
    }
    if let (Some(port), Some(urls)) = (client, member.advertise_client.as_mut()) {
        urls[0].host = format!("{host}:{port}");
    }
    Some(host)
}

/// The address from which the default route would be taken. Connecting a datagram socket sends nothing.
fn default_address() -> Option<IpAddr> {
    const ANYWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ANYWHERE).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

fn look_at_directory(config: &Config) -> Result<(), u8> {
    let directory = config.member.data_dir.as_str();
    let kind = identify(directory).map_err(|why| {
        tracing::error!(
            severity = "fatal",
            dir = directory,
            error = %words(&why),
            "failed to list data directory"
        );
        EXIT_FAILED
    })?;
    match kind {
        DirectoryKind::Empty => tracing::info!(
            "data-dir" = directory,
            "dir-type" = kind.word(),
            "Initialize and start etcd server"
        ),
        DirectoryKind::Member => tracing::info!(
            "data-dir" = directory,
            "dir-type" = kind.word(),
            "server has already been initialized"
        ),
        DirectoryKind::Proxy => {
            tracing::error!(
                severity = "panic",
                "dir-type" = kind.word(),
                "v2 http proxy has already been deprecated in 3.6"
            );
            return Err(EXIT_USAGE);
        }
    }
    Ok(())
}

/// Tells systemd, if it started us (`Type=notify`).
pub(super) fn notify(environment: &Environment) {
    let Some((_, socket)) = environment.iter().find(|(key, _)| key == "NOTIFY_SOCKET") else {
        return;
    };
    tracing::info!("notifying init daemon");
    match send_ready(socket) {
        Ok(()) => tracing::info!("successfully notified init daemon"),
        Err(why) => {
            tracing::error!(error = %words(&why), "failed to notify systemd for readiness");
        }
    }
}

/// A leading `@` names a socket of the abstract namespace (sd_notify(3)).
fn send_ready(socket: &str) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    let address = match socket.strip_prefix('@') {
        Some(name) => std::os::unix::net::SocketAddr::from_abstract_name(name)?,
        None => std::os::unix::net::SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).map(drop)
}

/// What ends a process in order.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Its name in Go's words, and its number.
    pub(super) async fn next(&mut self) -> (&'static str, u8) {
        tokio::select! {
            _ = self.terminate.recv() => ("terminated", 15),
            _ = self.interrupt.recv() => ("interrupt", 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::urls::parse_list;

    #[test]
    fn systemd_is_told_by_path_or_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        send_ready(path.to_str().unwrap()).unwrap();
        let mut buffer = [0; 16];
        let length = systemd.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
        assert!(send_ready("/nonexistent/notify").is_err());
    }

    #[test]
    fn a_name_alone_names_the_initial_cluster_and_the_directory() {
        let mut config = Config::default();
        config.member.name = "abc".to_owned();
        derive_defaults(&mut config);
        assert_eq!(config.cluster.initial_cluster, "abc=http://localhost:2380");
        assert_eq!(config.member.data_dir, "abc.etcd");
    }

    #[test]
    fn an_advertised_url_that_was_set_is_left_alone() {
        let mut config = Config::default();
        config.member.listen_peer = parse_list("http://0.0.0.0:2380").unwrap();
        config.member.advertise_peer = parse_list("http://10.0.0.1:2380").unwrap();
        assert_eq!(advertise_host(&mut config), None);
        assert_eq!(config.member.advertise_peer[0].host, "10.0.0.1:2380");
    }
}
