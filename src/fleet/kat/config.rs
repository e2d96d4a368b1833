//! What `cluster.kat` says of a cluster, every default in its place.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::support::go::duration::GoDuration;

/// A checked document of kind `ClusterConfiguration`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfiguration {
    /// `metadata.name`: up to 63 of a to z, 0 to 9 and -.
    pub name: String,
    /// `clusterCIDR`: stored and given back, nothing more.
    pub cluster_cidr: Option<IpNet>,
    /// `serviceCIDR`: stored and given back; it does not overlap the other one.
    pub service_cidr: Option<IpNet>,
    /// `agentPort`: stored and given back.
    pub agent_port: u16,
    /// `apiPort`: of `/1.0/`.
    pub api_port: u16,
    /// `clientPort`: of etcd's clients.
    pub client_port: u16,
    /// `peerPort`: of members among themselves.
    pub peer_port: u16,
    /// `plainClientPort`: of etcd's clients of this machine, without TLS; the client port, which then speaks both, if it
    /// is absent, and none if it is 0, or if the client port is bound to every address.
    pub plain_client_port: Option<u16>,
    /// `dataDir`: where a node of this cluster keeps everything.
    pub data_dir: PathBuf,
    /// `leaseTTL`: how long the others wait for a leader that is not heard of.
    pub lease_ttl: Duration,
    /// Backups, if `backupPath` was given.
    pub backup: Option<Backup>,
}

/// Backups that whoever leads makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// `backupPath`: a folder of whoever leads.
    pub path: PathBuf,
    /// `backupInterval`.
    pub every: Duration,
    /// `backupsKept`: older ones go.
    pub kept: u32,
}

/// The JSON at [`super::CONFIG_KEY`]: what holds for the cluster as a whole, without paths of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedConfiguration {
    /// As in the file.
    pub name: String,
    /// As in the file.
    #[serde(rename = "clusterCIDR", skip_serializing_if = "Option::is_none", default)]
    pub cluster_cidr: Option<IpNet>,
    /// As in the file.
    #[serde(rename = "serviceCIDR", skip_serializing_if = "Option::is_none", default)]
    pub service_cidr: Option<IpNet>,
    /// As in the file.
    #[serde(rename = "agentPort")]
    pub agent_port: u16,
    /// As in the file.
    #[serde(rename = "apiPort")]
    pub api_port: u16,
    /// As in the file.
    #[serde(rename = "clientPort")]
    pub client_port: u16,
    /// As in the file.
    #[serde(rename = "peerPort")]
    pub peer_port: u16,
    /// As Go prints it: `15s`.
    #[serde(rename = "leaseTTL")]
    pub lease_ttl: String,
    /// As Go prints it; absent if there are no backups.
    #[serde(rename = "backupInterval", skip_serializing_if = "Option::is_none", default)]
    pub backup_interval: Option<String>,
    /// Absent if there are no backups.
    #[serde(rename = "backupsKept", skip_serializing_if = "Option::is_none", default)]
    pub backups_kept: Option<u32>,
}

impl ClusterConfiguration {
    /// What of it holds for the cluster as a whole.
    pub fn shared(&self) -> SharedConfiguration {
        let span = |span| GoDuration::from_std(span).to_string();
        SharedConfiguration {
            name: self.name.clone(),
            cluster_cidr: self.cluster_cidr,
            service_cidr: self.service_cidr,
            agent_port: self.agent_port,
            api_port: self.api_port,
            client_port: self.client_port,
            peer_port: self.peer_port,
            lease_ttl: span(self.lease_ttl),
            backup_interval: self.backup.as_ref().map(|backup| span(backup.every)),
            backups_kept: self.backup.as_ref().map(|backup| backup.kept),
        }
    }

    /// The name under which this cluster's agents campaign.
    pub fn election(&self) -> String {
        format!("{}{}", super::LEADER_PREFIX, self.name)
    }
}

impl SharedConfiguration {
    /// The JSON of it, as it is kept.
    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and numbers always have a JSON form")
    }

    /// What a cluster that was begun with `self` cannot be started with any more: the field, what it was, what it is.
    /// Empty for the same configuration.
    pub fn differences(&self, now: &SharedConfiguration) -> Vec<String> {
        let text = |network: &Option<IpNet>| network.map_or("absent".to_owned(), |n| n.to_string());
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "absent".to_owned());
        let count = |count: &Option<u32>| count.map_or("absent".to_owned(), |n| n.to_string());
        let rows = [
            ("metadata.name", self.name.clone(), now.name.clone()),
            ("spec.clusterCIDR", text(&self.cluster_cidr), text(&now.cluster_cidr)),
            ("spec.serviceCIDR", text(&self.service_cidr), text(&now.service_cidr)),
            ("spec.agentPort", self.agent_port.to_string(), now.agent_port.to_string()),
            ("spec.apiPort", self.api_port.to_string(), now.api_port.to_string()),
            ("spec.clientPort", self.client_port.to_string(), now.client_port.to_string()),
            ("spec.peerPort", self.peer_port.to_string(), now.peer_port.to_string()),
            ("spec.leaseTTL", self.lease_ttl.clone(), now.lease_ttl.clone()),
            ("spec.backupInterval", or_none(&self.backup_interval), or_none(&now.backup_interval)),
            ("spec.backupsKept", count(&self.backups_kept), count(&now.backups_kept)),
        ];
        let told = |(path, was, is): (&str, String, String)| {
            (was != is).then(|| format!("{path} is {is}, and the cluster was begun with {was}"))
        };
        rows.into_iter().filter_map(told).collect()
    }
}
