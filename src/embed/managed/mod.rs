//! What a managed node runs, started and stopped for it: its member, its worker's proxy, its API.
//!
//! ```text
//!   Managed ── API (socket, TLS port) ── fleet::node ── plan ──> launcher ─┬─> member: Config ── Server ── a task that owns it and tells how it does
//!                                     └─> worker: Proxy in front of the members, TLS both ways
//! ```
//!
//! **Invariant:** a member of a fleet speaks TLS with other members always, and with clients beyond this machine.
//! **Invariant:** only the control plane speaks as a peer, on both ends; a worker is no user of etcd's.

mod api;
mod member;
mod worker;

#[cfg(test)]
mod node_test;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tracing::Dispatch;

use self::api::Doors;
use super::{Config, LogSettings};
use crate::fleet::error::FleetError;
use crate::fleet::node::{
    LaunchError, Launcher, MemberPlan, Node, NodeSettings, OpenFault, RunningMember, RunningWorker,
    WorkerPlan,
};
use crate::support::telemetry;
use crate::support::tls::TlsSettings;
use crate::support::urls::{Url, parse_list};

/// Starts members and proxies in this process, with the log that is in force where it is asked.
#[derive(Clone, Debug)]
pub struct EmbedLauncher {
    settings: NodeSettings,
}

impl EmbedLauncher {
    /// Starts what the node with these settings runs.
    pub fn new(settings: NodeSettings) -> Self {
        EmbedLauncher { settings }
    }

    fn pki(&self) -> PathBuf {
        self.settings.state_dir.join("pki")
    }
}

#[async_trait]
impl Launcher for EmbedLauncher {
    async fn member(&self, plan: MemberPlan) -> Result<RunningMember, LaunchError> {
        Box::pin(member::start(&self.settings, &self.pki(), plan)).await
    }

    async fn worker(&self, plan: WorkerPlan) -> Result<RunningWorker, LaunchError> {
        worker::start(&self.settings, &self.pki(), plan).await
    }
}

/// The pair `name` of the node's certificates, trusting the fleet's authorities alone.
fn pair(pki: &Path, name: &str) -> TlsSettings {
    let path = |file: String| pki.join(file).display().to_string();
    TlsSettings {
        cert_file: path(format!("{name}.crt")),
        key_file: path(format!("{name}.key")),
        trusted_ca_file: path("ca.crt".to_owned()),
        client_cert_auth: true,
        ..TlsSettings::default()
    }
}

fn url(text: &str) -> Result<Url, LaunchError> {
    let mut urls = parse_list(text).map_err(|why| LaunchError(format!("{text}: {why}")))?;
    urls.pop().ok_or_else(|| LaunchError(format!("{text} is no URL")))
}

/// Where the port is listened on, over TLS.
fn listen_url(settings: &NodeSettings, port: u16) -> Result<Url, LaunchError> {
    let host = settings.listen_host();
    match host.contains(':') {
        true => url(&format!("https://[{host}]:{port}")),
        false => url(&format!("https://{host}:{port}")),
    }
}

/// Clients of this machine alone, without TLS.
fn plain_url(port: u16) -> Result<Url, LaunchError> {
    url(&format!("http://127.0.0.1:{port}"))
}

/// A managed node that runs: its API is served, and whatever it is part of.
pub struct Managed {
    node: Node,
    doors: Doors,
}

/// A managed node did not start.
#[derive(Debug, thiserror::Error)]
pub enum ManagedError {
    /// The settings.
    #[error("{0}")]
    Settings(String),
    /// The state directory.
    #[error(transparent)]
    Open(#[from] OpenFault),
    /// The API.
    #[error("{0}")]
    Listen(String),
    /// What the node was part of cannot be gone on with.
    #[error(transparent)]
    Resume(#[from] FleetError),
}

impl Managed {
    /// Opens the state directory, serves the API, and goes on from where the node stood.
    pub async fn start(settings: NodeSettings) -> Result<Managed, ManagedError> {
        if let Some(fault) = settings.fault() {
            return Err(ManagedError::Settings(fault));
        }
        let launcher = Arc::new(EmbedLauncher::new(settings.clone()));
        let node = Node::open(settings, launcher)?;
        let doors = Doors::open(&node).map_err(ManagedError::Listen)?;
        match node.resume().await {
            Ok(()) => Ok(Managed { node, doors }),
            Err(why) => {
                if let Err(why) = node.shut_down().await {
                    tracing::warn!(error = why, "stopping failed");
                }
                doors.close().await;
                Err(why.into())
            }
        }
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Resolves once the process cannot go on, with the cause. Never, while all is well.
    pub async fn failed(&self) -> String {
        self.node.failed().await
    }

    /// Stops in order: not ready any more, what runs, the API.
    pub async fn stop(self) -> Result<(), String> {
        let stopped = self.node.shut_down().await;
        self.doors.close().await;
        stopped
    }
}

/// The log that these settings ask for.
pub fn open_log(log: LogSettings) -> Result<Dispatch, String> {
    let config = Config { log, ..Config::default() };
    let plan = super::validate::log_plan(&config)?;
    telemetry::dispatch(plan.level, plan.format, &plan.outputs)
        .map_err(|why| format!("open sink: {why}"))
}
