//! Rows `k8sd/cluster…` and `k8sd/node`: forming a fleet, and what it looks like.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::bootstrap::BootstrapConfig;
use super::config::UserFacingClusterConfig;
use super::{Nanos, Sensitive, is_false};

/// `POST k8sd/cluster`: form a fleet of this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BootstrapRequest {
    /// The node's name; empty: the host's.
    #[serde(default)]
    pub name: String,
    /// `host` or `host:port` under which other nodes reach this node's API; empty: as the daemon was told.
    #[serde(default)]
    pub address: String,
    /// What the fleet begins with.
    #[serde(default)]
    pub config: BootstrapConfig,
    /// How long it may take; 0: as long as the daemon thinks right.
    #[serde(default)]
    pub timeout: Nanos,
}

/// What a node is in the fleet.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterRole {
    /// Holds a replica.
    ControlPlane,
    /// Passes on what clients ask.
    Worker,
    /// Not in a fleet, coming or going.
    #[default]
    Unknown,
}

/// What a node is in raft.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
pub enum DatastoreRole {
    /// Has a vote.
    #[serde(rename = "voter")]
    Voter,
    /// Learns, and gets its vote when it is level.
    #[serde(rename = "stand-by")]
    StandBy,
    /// Learns, and nothing more.
    #[serde(rename = "spare")]
    Spare,
    /// Listed, and never seen yet.
    #[serde(rename = "PENDING")]
    Pending,
    /// Not known here.
    #[default]
    #[serde(rename = "unknown")]
    Unknown,
}

/// One node, as others see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct NodeStatus {
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `host:port` of its API.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Its role in the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_role: Option<ClusterRole>,
    /// Its role in raft; left out for workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore_role: Option<DatastoreRole>,
}

/// `GET k8sd/node`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatusAnswer {
    /// The node that answers.
    pub status: NodeStatus,
    /// Kept for the origin's clients; what bootstrap gave as control-plane taints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
    /// Ours: what the daemon is at, with a reason where there is one ("removed").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<PhaseAnswer>,
}

/// What a daemon is at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PhaseAnswer {
    /// Its phase.
    pub name: super::super::management::Phase,
    /// Why, in words, where there is something to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// `GET k8sd/cluster`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterStatusAnswer {
    /// The fleet.
    pub status: ClusterStatus,
}

/// The fleet, as the node that answers knows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ClusterStatus {
    /// Whether writes go through. Left out when they do not.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ready: bool,
    /// Every node, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<NodeStatus>,
    /// The config that clients may see.
    pub config: UserFacingClusterConfig,
    /// What keeps the data: ourselves.
    pub datastore: Datastore,
    /// DNS.
    pub dns: FeatureStatus,
    /// Network.
    pub network: FeatureStatus,
    /// Load balancer.
    pub load_balancer: FeatureStatus,
    /// Ingress.
    pub ingress: FeatureStatus,
    /// Gateway.
    pub gateway: FeatureStatus,
    /// Metrics server.
    pub metrics_server: FeatureStatus,
    /// Local storage.
    pub local_storage: FeatureStatus,
    /// Ours: features of this daemon itself, by name (`auto-compaction`, `tls`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub added_features: BTreeMap<String, FeatureStatus>,
    /// Ours: what the registry and raft's membership say of each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub membership: Option<MembershipStatus>,
}

/// The registry beside raft's membership: one line for each node that either of them knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct MembershipStatus {
    /// The fleet's UUID.
    pub cluster_uid: String,
    /// More than two voters.
    pub high_availability: bool,
    /// Member id of raft's leader in hexadecimal; empty: none is known.
    pub leader: String,
    /// Every node that the registry or raft lists, by id.
    pub nodes: Vec<MembershipNode>,
    /// Whether both say the same.
    pub consistent: bool,
}

/// One node in the registry and in raft.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct MembershipNode {
    /// Member id in hexadecimal, as etcdctl prints it.
    pub id: String,
    /// Its name; empty if the registry does not have it.
    pub name: String,
    /// Role by the registry; left out if it is not listed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<ClusterRole>,
    /// Role in raft; left out if it is not listed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raft: Option<DatastoreRole>,
    /// Whether the node that answers is connected to it, or is it; left out if it is not listed in raft.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
    /// The difference in words; left out if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub difference: String,
}

/// What keeps the data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Datastore {
    /// `etcd`.
    #[serde(rename = "type", default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Client URLs of its members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
}

/// How a feature is doing, by whoever controls it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FeatureStatus {
    /// Whether it is there.
    pub enabled: bool,
    /// For people.
    pub message: String,
    /// Of the feature.
    pub version: String,
    /// RFC 3339; `0001-01-01T00:00:00Z` if it never was reported.
    #[schema(format = "date-time")]
    pub updated_at: String,
}

impl FeatureStatus {
    /// Go's zero time: never.
    pub const NEVER: &'static str = "0001-01-01T00:00:00Z";

    /// A feature that nobody has reported on: we never claim what we do not run.
    pub fn without_controller() -> Self {
        FeatureStatus {
            enabled: false,
            message: "no controller registered".to_owned(),
            version: String::new(),
            updated_at: Self::NEVER.to_owned(),
        }
    }
}

/// `POST k8sd/cluster/tokens` and `x/capi/generate-join-token`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// The node that may join by it; empty: any, for workers only.
    #[serde(default)]
    pub name: String,
    /// For a worker, not for the control plane.
    #[serde(default)]
    pub worker: bool,
    /// How long it counts; 0: 24 h.
    #[serde(default, skip_serializing_if = "Nanos::is_zero")]
    pub ttl: Nanos,
}

/// `GET /1.0/tokens`: a join token that counts. What it is drawn from and what it shows stay where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct IssuedToken {
    /// The node that may join by it; empty: any.
    pub name: String,
    /// What it joins as.
    pub role: ClusterRole,
    /// RFC 3339.
    #[schema(format = "date-time")]
    pub expires_at: String,
}

/// A token that was made or found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenAnswer {
    /// The token.
    pub token: Sensitive,
}

/// `POST k8sd/cluster/join`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The node's name; empty: the host's.
    #[serde(default)]
    pub name: String,
    /// As in [`BootstrapRequest::address`].
    #[serde(default)]
    pub address: String,
    /// The join token.
    #[serde(default)]
    pub token: Sensitive,
    /// YAML or JSON of a `ControlPlaneJoinConfig` or, with a worker's token, a `WorkerJoinConfig`.
    #[serde(default)]
    pub config: Sensitive,
    /// How long it may take; 0: as long as the daemon thinks right.
    #[serde(default)]
    pub timeout: Nanos,
}

/// `POST k8sd/cluster/remove` and `x/capi/remove-node`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// The node that is to go.
    #[serde(default)]
    pub name: String,
    /// Also if it does not answer.
    #[serde(default)]
    pub force: bool,
    /// How long it may take; 0: as long as the daemon thinks right.
    #[serde(default)]
    pub timeout: Nanos,
}

/// `{}`: done, and nothing to tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NothingToTell {}
