//! What a member that runs already tells of its cluster, before this one has joined it (etcd
//! `server/etcdserver/cluster_util.go`, `getClusterFromRemotePeers`).

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use quorate_core::api::ids::{ClusterId, MemberId};
use serde::Deserialize;

use super::dial::{self, Patience};
use crate::support::tls::Connector;

/// One member, as another one lists it on its peer port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RemoteMember {
    id: u64,
    /// Where members reach it.
    #[serde(default, rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// It has no vote.
    #[serde(default, rename = "isLearner")]
    pub is_learner: bool,
    /// Its name; empty until it has run for the first time.
    #[serde(default)]
    pub name: String,
    /// Where clients reach it; empty until it has run for the first time.
    #[serde(default, rename = "clientURLs")]
    pub client_urls: Vec<String>,
}

impl RemoteMember {
    /// Its id.
    pub fn id(&self) -> MemberId {
        MemberId(self.id)
    }
}

/// What one member lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCluster {
    /// The cluster's id.
    pub cluster: ClusterId,
    /// Its members; never empty.
    pub members: Vec<RemoteMember>,
    /// What they all understand; `None` if it is no cluster of ours.
    pub level: Option<u32>,
}

/// What one member says of versions, as etcd's members do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RemoteVersion {
    /// That of etcd whose behaviour it has.
    #[serde(rename = "etcdserver")]
    pub server: String,
    /// That of its cluster.
    #[serde(rename = "etcdcluster")]
    pub cluster: String,
}

/// Asks every URL at once for `/members` and returns what was answered within `limit`, in the order of arrival.
/// Where etcd takes the first answer of one URL after the other, all count here, and a dead one delays nobody.
pub async fn remote_clusters(
    urls: &[String],
    tls: &Connector,
    limit: Duration,
) -> Vec<RemoteCluster> {
    let patience = Patience { resolve: limit, connect: limit, answer: limit };
    let asked: FuturesUnordered<_> =
        urls.iter().map(|url| dial::get(url, tls, "/members", patience)).collect();
    let answers = asked.filter_map(|answer| async {
        let got = answer.ok()?;
        let members: Vec<RemoteMember> = serde_json::from_slice(&got.body).ok()?;
        let told = RemoteCluster { cluster: got.cluster?, members, level: got.level };
        (!told.members.is_empty()).then_some(told)
    });
    let deadline = tokio::time::sleep(limit);
    answers.take_until(deadline).collect().await
}

/// Asks every URL at once for `/version` and returns what was answered within `limit` (etcd `getVersion`).
pub async fn remote_versions(
    urls: &[String],
    tls: &Connector,
    limit: Duration,
) -> Vec<RemoteVersion> {
    let patience = Patience { resolve: limit, connect: limit, answer: limit };
    let asked: FuturesUnordered<_> =
        urls.iter().map(|url| dial::get(url, tls, "/version", patience)).collect();
    let answers =
        asked.filter_map(|answer| async { serde_json::from_slice(&answer.ok()?.body).ok() });
    answers.take_until(tokio::time::sleep(limit)).collect().await
}
