//! `init`: a node begins the cluster that its `cluster.kat` describes, or goes on with the one that it has begun.
//!
//! ```text
//!   <dataDir>/cluster.kat.json ── another node, or another configuration? ── refused, and nothing is started
//!      └── none yet, or the same ── the node is started ── part of nothing: begun, all of it in one entry
//!                                                       └─ a member: uid and configuration compared, gone on with
//! ```
//!
//! **Invariant:** nothing is begun anew where something was begun: what was interrupted is finished, undone and said, or
//! refused.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::{ClusterConfiguration, SharedConfiguration};
use super::{CONFIG_KEY, UID_KEY};
use crate::fleet::api::bootstrap::BootstrapConfig;
use crate::fleet::api::cluster::BootstrapRequest;
use crate::fleet::api::stored::{ClusterConfig, Ports};
use crate::fleet::error::FleetError;
use crate::fleet::management::{Management as _, Phase};
use crate::fleet::node::{Node, NodeSettings};
use crate::fleet::store::{StateStore, Store, StoreError};
use crate::support::durable;

/// What the node remembers of its beginning.
const FILE: &str = "cluster.kat.json";

/// Of that file. Newer ones are refused.
const FORMAT: u32 = 1;

/// A node that is to begin a cluster, or has.
#[derive(Clone, Debug)]
pub struct Initiation {
    config: ClusterConfiguration,
    settings: NodeSettings,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Initiated {
    /// The cluster's UUID.
    pub uid: String,
    /// It was begun now, and not before.
    pub fresh: bool,
    /// The node's own store, for its agent.
    pub store: Store,
}

/// A node does not begin a cluster.
#[derive(Debug, thiserror::Error)]
pub enum InitFault {
    /// What is there already is something else.
    #[error("{place} holds another beginning: {}", .differences.join("; "))]
    Another {
        /// The data directory.
        place: String,
        /// What differs, each with both values.
        differences: Vec<String>,
    },
    /// The node is something that `init` does not go on with.
    #[error("{0}")]
    NotOurs(String),
    /// What the node remembers cannot be read or written.
    #[error("{path}: {why}")]
    Memory {
        /// Of the file.
        path: String,
        /// Its fault.
        why: String,
    },
    /// The node's own fault.
    #[error(transparent)]
    Node(#[from] FleetError),
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    format: u32,
    node: String,
    config: SharedConfiguration,
}

impl Initiation {
    /// For a node of this name that others reach at `host`, and that listens at `listen` (empty: at `host`).
    pub fn new(config: ClusterConfiguration, node: &str, host: &str, listen: &str) -> Initiation {
        let mut settings = NodeSettings {
            state_dir: config.data_dir.clone(),
            name: node.to_owned(),
            host: host.to_owned(),
            listen: listen.to_owned(),
            api_port: config.api_port,
            client_port: config.client_port,
            peer_port: config.peer_port,
            plain_client_port: config.plain_client_port,
            ..NodeSettings::default()
        };
        // There TLS alone is spoken: it is not only this machine's clients that come.
        if settings.listens_everywhere() && settings.plain_client_port == Some(settings.client_port)
        {
            settings.plain_client_port = None;
        }
        Initiation { config, settings }
    }

    /// What the node is started with.
    pub fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    /// What the cluster is to be.
    pub fn config(&self) -> &ClusterConfiguration {
        &self.config
    }

    /// Everything that can be known before anything is made or started.
    pub fn check(&self) -> Result<(), InitFault> {
        if let Some(fault) = self.settings.fault() {
            return Err(InitFault::NotOurs(fault));
        }
        let ports = Ports { client: self.config.client_port, peer: self.config.peer_port };
        ClusterConfig::from_bootstrap(&self.bootstrap(), ports)?;
        match self.recall()? {
            Some(memory) => self.compare(&memory),
            None => Ok(()),
        }
    }

    /// Begins the cluster with a node that has been started, or goes on with it. It serves when this returns.
    pub async fn take_up(&self, node: &Node, limit: Duration) -> Result<Initiated, InitFault> {
        let fresh = match node.phase() {
            Phase::Uninitialized => true,
            Phase::Removed => {
                self.refuse_if_removed(node).await?;
                true
            }
            Phase::ControlPlane => false,
            Phase::Worker => {
                return Err(InitFault::NotOurs("this node is a worker of a cluster".to_owned()));
            }
            Phase::Bootstrapping | Phase::Joining | Phase::Resetting | Phase::Stopping => {
                return Err(InitFault::NotOurs("this node is joining or leaving".to_owned()));
            }
        };
        if fresh {
            Box::pin(self.begin(node, limit)).await?;
        }
        let keyspace = node.member_keyspace(limit).await?;
        let store = Store::of_the_fleet(keyspace);
        let uid = self.verify(node, &store).await?;
        Ok(Initiated { uid, fresh, store })
    }

    /// A start that was undone may be made again; who was removed stays away until its directory is emptied.
    async fn refuse_if_removed(&self, node: &Node) -> Result<(), InitFault> {
        let reason = node.node_status().await?.phase.map(|phase| phase.reason).unwrap_or_default();
        if reason == "removed" {
            let place = self.settings.state_dir.display();
            let text =
                format!("this node was removed from its cluster: empty {place} to begin another");
            return Err(InitFault::NotOurs(text));
        }
        tracing::warn!(reason, "what was begun before was undone; beginning again");
        Ok(())
    }

    async fn begin(&self, node: &Node, limit: Duration) -> Result<(), InitFault> {
        let request = BootstrapRequest {
            name: self.settings.name.clone(),
            config: self.bootstrap(),
            ..BootstrapRequest::default()
        };
        let keys = vec![(CONFIG_KEY.to_owned(), self.config.shared().json())];
        let beginning = node.check_beginning(&request, keys)?;
        self.remember()?;
        match Box::pin(node.begin(beginning, limit)).await {
            Ok(_) => Ok(()),
            Err(why) => {
                // It was undone, so there is nothing to remember.
                durable::remove(&self.path()).map_err(|fault| self.fault(&fault.to_string()))?;
                Err(why.into())
            }
        }
    }

    /// The store's word: the uid is this node's, the configuration the file's. The uid.
    async fn verify(&self, node: &Node, store: &Store) -> Result<String, InitFault> {
        let known = node.identity();
        let foreign = || InitFault::NotOurs("this node's cluster was not begun by init".to_owned());
        let found = async |key: &str| match store.get(key.as_bytes()).await {
            Ok(kv) => Ok(kv.value),
            Err(StoreError::NotFound) => Err(foreign()),
            Err(why) => Err(why.into()),
        };
        let uid = String::from_utf8_lossy(&found(UID_KEY).await?).into_owned();
        let config = found(CONFIG_KEY).await?;
        let begun: SharedConfiguration = serde_json::from_slice(&config)
            .map_err(|why| InitFault::NotOurs(format!("{CONFIG_KEY} does not read: {why}")))?;
        let mut differences = begun.differences(&self.config.shared());
        for (what, was, is) in [
            ("the cluster's uid", &uid, &known.cluster_uid),
            ("the node's name", &known.name, &self.settings.name),
        ] {
            if was != is {
                differences.push(format!("{what} is {is}, and the cluster was begun with {was}"));
            }
        }
        self.refuse(differences)?;
        Ok(uid)
    }

    fn compare(&self, memory: &Memory) -> Result<(), InitFault> {
        let mut differences = memory.config.differences(&self.config.shared());
        if memory.node != self.settings.name {
            let (was, is) = (&memory.node, &self.settings.name);
            differences
                .push(format!("the node's name is {is}, and the cluster was begun with {was}"));
        }
        self.refuse(differences)
    }

    fn refuse(&self, differences: Vec<String>) -> Result<(), InitFault> {
        if differences.is_empty() {
            return Ok(());
        }
        Err(InitFault::Another {
            place: self.settings.state_dir.display().to_string(),
            differences,
        })
    }

    fn bootstrap(&self) -> BootstrapConfig {
        BootstrapConfig {
            pod_cidr: self.config.cluster_cidr.map(|network| network.to_string()),
            service_cidr: self.config.service_cidr.map(|network| network.to_string()),
            ..BootstrapConfig::default()
        }
    }

    fn path(&self) -> PathBuf {
        self.settings.state_dir.join(FILE)
    }

    fn fault(&self, why: &str) -> InitFault {
        InitFault::Memory { path: self.path().display().to_string(), why: why.to_owned() }
    }

    fn recall(&self) -> Result<Option<Memory>, InitFault> {
        let text = match std::fs::read_to_string(self.path()) {
            Ok(text) => text,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(self.fault(&why.to_string())),
        };
        let memory: Memory =
            serde_json::from_str(&text).map_err(|why| self.fault(&why.to_string()))?;
        if memory.format > FORMAT {
            let text = format!("format {}, this software knows {FORMAT}", memory.format);
            return Err(self.fault(&text));
        }
        Ok(Some(memory))
    }

    fn remember(&self) -> Result<(), InitFault> {
        let (node, config) = (self.settings.name.clone(), self.config.shared());
        let memory = Memory { format: FORMAT, node, config };
        let text = serde_json::to_vec_pretty(&memory).expect("names and numbers have a JSON form");
        durable::replace(&self.path(), durable::OPEN, &text)
            .map_err(|why| self.fault(&why.to_string()))
    }
}
