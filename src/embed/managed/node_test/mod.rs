//! Nodes in one process: real members, real certificates, the API over TLS between them.

mod again;
mod certificates;
mod defects;
mod joins;
mod renewals;
mod starts;
mod workers;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::{EmbedLauncher, Managed};
use crate::embed::free_ports;
use crate::fleet::api::cluster::{
    BootstrapRequest, ClusterStatus, JoinRequest, JoinTokenRequest, RemoveRequest,
};
use crate::fleet::api::{Nanos, Sensitive};
use crate::fleet::error::FleetError;
use crate::fleet::management::{Management as _, Phase};
use crate::fleet::node::{Node, NodeSettings, Timers};

/// Long enough on a machine that has much to do.
const LONG: Duration = Duration::from_secs(60);

/// Settings of a node in `dir`, with ports of its own.
fn settings(dir: &Path, name: &str) -> NodeSettings {
    let ports = free_ports(3);
    NodeSettings {
        state_dir: dir.to_owned(),
        name: name.to_owned(),
        api_port: ports[0],
        client_port: ports[1],
        peer_port: ports[2],
        timers: Timers { call: LONG, ..Timers::default() },
        ..NodeSettings::default()
    }
}

/// A node without an API.
fn bare(settings: &NodeSettings) -> Node {
    Node::open(settings.clone(), Arc::new(EmbedLauncher::new(settings.clone()))).unwrap()
}

/// A node with its API, in a directory of its own.
struct Rig {
    dir: TempDir,
    settings: NodeSettings,
    managed: Managed,
}

impl Rig {
    async fn start(name: &str) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path(), name);
        let managed = Managed::start(settings.clone()).await.unwrap();
        Rig { dir, settings, managed }
    }

    /// The first node of a fleet.
    async fn first() -> Rig {
        let rig = Rig::start("n1").await;
        rig.node().bootstrap(BootstrapRequest::default()).await.unwrap();
        rig
    }

    fn node(&self) -> &Node {
        self.managed.node()
    }

    async fn token(&self, name: &str) -> Sensitive {
        let request = JoinTokenRequest { name: name.to_owned(), ..Default::default() };
        self.node().join_token(request).await.unwrap()
    }

    async fn worker_token(&self, name: &str) -> Sensitive {
        let request =
            JoinTokenRequest { name: name.to_owned(), worker: true, ..Default::default() };
        self.node().join_token(request).await.unwrap()
    }

    async fn join(&self, token: &Sensitive) -> Result<(), FleetError> {
        self.node().join(JoinRequest { token: token.clone(), ..Default::default() }).await
    }

    async fn status(&self) -> ClusterStatus {
        self.node().cluster_status().await.unwrap()
    }

    fn is_reset(&self) -> bool {
        is_uninitialised(self.node()) && self.is_clean()
    }

    /// Everything of a fleet is gone from its directory.
    fn is_clean(&self) -> bool {
        let gone = |name: &str| !self.dir.path().join(name).exists();
        ["member", "pki", "fleet.key", "node-token"].into_iter().all(gone)
    }
}

/// Waits until `holds`.
async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn removal(name: &str, force: bool) -> RemoveRequest {
    RemoveRequest { name: name.to_owned(), force, timeout: seconds(60) }
}

fn seconds(n: u64) -> Nanos {
    Nanos::from_secs(n)
}

fn is_uninitialised(node: &Node) -> bool {
    matches!(node.phase(), Phase::Uninitialized | Phase::Removed)
}
