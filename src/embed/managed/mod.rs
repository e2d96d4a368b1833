//! What a managed node runs, started and stopped for it: its member, its worker's proxy, its API.
//!
//! ```text
//!   fleet::node ── plan ──> launcher ─┬─> member: Config ── Server ── a task that owns it and tells how it does
//!                                     └─> worker: Proxy in front of the members, TLS both ways
//! ```
//!
//! **Invariant:** a member of a fleet speaks TLS with other members always, and with clients beyond this machine.

mod member;
mod worker;

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::fleet::node::{
    LaunchError, Launcher, MemberPlan, NodeSettings, RunningMember, RunningWorker, WorkerPlan,
};
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
