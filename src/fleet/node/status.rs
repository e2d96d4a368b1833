//! What the fleet looks like from here: the registry beside raft's membership, and where they differ.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::internal::{FleetNode, FleetRole};
use tokio::time::timeout;

use super::config;
use super::launcher::MemberState;
use super::life::Node;
use super::refusals::{NO_QUORUM, of_keyspace};
use super::stage::{Seat, Stage};
use crate::fleet::api::cluster::{
    ClusterRole, ClusterStatus, Datastore, DatastoreRole, FeatureStatus, MembershipNode,
    MembershipStatus, NodeStatus, NodeStatusAnswer, PhaseAnswer,
};
use crate::fleet::error::FleetError;
use crate::fleet::management::{Condition, Identity};
use crate::keyspace::Keyspace;

/// From so many voters on the loss of one is survived.
const HIGHLY_AVAILABLE: usize = 3;

/// How long the read of a probe may take: probes themselves wait three seconds.
const PROBED_WITHIN: Duration = Duration::from_secs(2);

/// How long whoever wants to see the fleet waits for a quorum: longer than an election.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

impl Node {
    pub(super) fn tell_identity(&self) -> Identity {
        match self.stage() {
            Stage::Member(seat) => Identity {
                name: seat.name.clone(),
                address: seat.address.clone(),
                cluster_uid: seat.uid.clone(),
            },
            Stage::Worker(gate) => Identity {
                name: gate.name.clone(),
                address: gate.address.clone(),
                cluster_uid: gate.uid.clone(),
            },
            Stage::Bootstrapping { name, address } | Stage::Joining { name, address } => {
                Identity { name, address, cluster_uid: String::new() }
            }
            // What it would be called.
            Stage::Uninitialised { .. } | Stage::Resetting { .. } | Stage::Stopping => {
                Identity { name: self.0.settings.name.clone(), ..Identity::default() }
            }
        }
    }

    pub(super) fn tell_not_alive(&self) -> Option<String> {
        let Stage::Member(seat) = self.stage() else { return None };
        match seat.member.state() {
            MemberState::Failed(why) => Some(why),
            MemberState::Starting
            | MemberState::Ready
            | MemberState::Removed
            | MemberState::Ended(_) => None,
        }
    }

    pub(super) async fn tell_condition(&self) -> Condition {
        match self.stage() {
            Stage::Member(seat) => condition(&seat).await,
            Stage::Stopping => Condition {
                not_ready: Some("the daemon is stopping".to_owned()),
                ..Condition::default()
            },
            Stage::Bootstrapping { .. } | Stage::Joining { .. } | Stage::Resetting { .. } => {
                Condition {
                    not_ready: Some("the node is being changed".to_owned()),
                    ..Condition::default()
                }
            }
            Stage::Worker(_) | Stage::Uninitialised { .. } => Condition::default(),
        }
    }

    pub(super) async fn tell_node(&self) -> Result<NodeStatusAnswer, FleetError> {
        let stage = self.stage();
        let Identity { name, address, .. } = self.tell_identity();
        let phase = |reason: &str| PhaseAnswer { name: stage.phase(), reason: reason.to_owned() };
        Ok(match &stage {
            Stage::Member(seat) => {
                let keyspace = seat.keyspace();
                let role = role(keyspace, seat.id, &keyspace.members());
                let status = NodeStatus {
                    name,
                    address,
                    cluster_role: Some(ClusterRole::ControlPlane),
                    datastore_role: role.or(Some(DatastoreRole::Unknown)),
                };
                let config = config::read_here(keyspace).await?;
                let taints = config.kubelet.control_plane_taints.unwrap_or_default();
                NodeStatusAnswer { status, taints, phase: Some(phase("")) }
            }
            Stage::Worker(_) => {
                let cluster_role = Some(ClusterRole::Worker);
                let status = NodeStatus { name, address, cluster_role, datastore_role: None };
                NodeStatusAnswer { status, taints: Vec::new(), phase: Some(phase("")) }
            }
            Stage::Uninitialised { since } => NodeStatusAnswer {
                status: unknown(name, address),
                phase: Some(phase(since.as_deref().unwrap_or_default())),
                ..NodeStatusAnswer::default()
            },
            Stage::Resetting { reason } => NodeStatusAnswer {
                status: unknown(name, address),
                phase: Some(phase(reason)),
                ..NodeStatusAnswer::default()
            },
            Stage::Bootstrapping { .. } | Stage::Joining { .. } | Stage::Stopping => {
                NodeStatusAnswer {
                    status: unknown(name, address),
                    phase: Some(phase("")),
                    ..NodeStatusAnswer::default()
                }
            }
        })
    }

    /// As of now, if there is a quorum; else as this node knows it, and not ready.
    pub(super) async fn tell_cluster(&self) -> Result<ClusterStatus, FleetError> {
        let seat = self.stage().seat()?;
        let keyspace = seat.keyspace();
        let ready = seat.is_ready() && reads(keyspace, SEEN_WITHIN).await.is_ok();
        let nodes: Vec<FleetNode> = match ready {
            true => {
                let read = keyspace.fleet(|fleet| fleet.nodes().cloned().collect());
                read.await.map_err(of_keyspace)?
            }
            false => keyspace.fleet_now(|fleet| fleet.nodes().cloned().collect()),
        };
        let members = keyspace.members();
        let mut status = ClusterStatus {
            ready,
            members: node_statuses(keyspace, &nodes, &members),
            datastore: Datastore { kind: "etcd".to_owned(), servers: client_urls(&members) },
            membership: Some(membership(&seat, &nodes, &members)),
            ..no_features()
        };
        status.added_features.insert("tls".to_owned(), of_our_own("certificates of the cluster"));
        if ready {
            status.config = config::read(keyspace).await?.0.user_facing();
            for (name, feature) in config::features(keyspace).await? {
                tell_feature(&mut status, &name, feature);
            }
        }
        Ok(status)
    }
}

async fn condition(seat: &Seat) -> Condition {
    let unread = match seat.member.state() {
        MemberState::Ready => reads(seat.keyspace(), PROBED_WITHIN).await.err(),
        MemberState::Starting => Some("the member has no leader yet".to_owned()),
        MemberState::Removed => Some("the member was removed".to_owned()),
        MemberState::Failed(why) => Some(why),
        MemberState::Ended(_) => Some("the member has ended".to_owned()),
    };
    Condition { not_ready: unread.clone(), not_healthy: unread }
}

/// Whether a linearizable read passes in time; if none does, why.
async fn reads(keyspace: &Keyspace, limit: Duration) -> Result<(), String> {
    match timeout(limit, keyspace.ready()).await {
        Ok(read) => read.map_err(|why| why.to_string()),
        Err(_elapsed) => Err(NO_QUORUM.to_owned()),
    }
}

fn unknown(name: String, address: String) -> NodeStatus {
    NodeStatus { name, address, cluster_role: Some(ClusterRole::Unknown), datastore_role: None }
}

/// What a member is in raft; `None`: it is none.
fn role(keyspace: &Keyspace, id: MemberId, members: &[pb::Member]) -> Option<DatastoreRole> {
    let member = members.iter().find(|member| member.id == id.0)?;
    Some(match (keyspace.voters().contains(&id), member.is_learner) {
        (true, _) => DatastoreRole::Voter,
        _ if member.name.is_empty() => DatastoreRole::Pending,
        (false, false) => DatastoreRole::StandBy,
        (false, true) => DatastoreRole::Spare,
    })
}

fn node_statuses(
    keyspace: &Keyspace,
    nodes: &[FleetNode],
    members: &[pb::Member],
) -> Vec<NodeStatus> {
    let mut statuses: Vec<NodeStatus> = nodes
        .iter()
        .map(|node| {
            let is_worker = node.role == FleetRole::Worker as i32;
            let in_raft = role(keyspace, MemberId(node.id), members);
            NodeStatus {
                name: node.name.clone(),
                address: node.address.clone(),
                cluster_role: Some(match is_worker {
                    true => ClusterRole::Worker,
                    false => ClusterRole::ControlPlane,
                }),
                datastore_role: match is_worker {
                    true => None,
                    false => in_raft.or(Some(DatastoreRole::Unknown)),
                },
            }
        })
        .collect();
    statuses.sort_by(|one, other| one.name.cmp(&other.name));
    statuses
}

fn client_urls(members: &[pb::Member]) -> Vec<String> {
    members.iter().flat_map(|member| member.client_ur_ls.iter().cloned()).collect()
}

fn membership(seat: &Seat, nodes: &[FleetNode], members: &[pb::Member]) -> MembershipStatus {
    let keyspace = seat.keyspace();
    let registry: BTreeMap<u64, &FleetNode> = nodes.iter().map(|node| (node.id, node)).collect();
    let raft: BTreeSet<u64> = members.iter().map(|member| member.id).collect();
    let ids: BTreeSet<u64> = registry.keys().copied().chain(raft.iter().copied()).collect();
    let compared: Vec<MembershipNode> = ids
        .into_iter()
        .map(|id| {
            let node = registry.get(&id);
            let in_raft = role(keyspace, MemberId(id), members);
            let worker = node.is_some_and(|node| node.role == FleetRole::Worker as i32);
            let difference = match (node, in_raft) {
                (None, _) => "a member of raft that the registry does not list",
                (Some(_), None) if !worker => "in the registry, and no member of raft",
                (Some(_), Some(_)) if worker => "a worker by the registry, and a member of raft",
                (Some(_), _) => "",
            };
            MembershipNode {
                id: MemberId(id).to_string(),
                name: node.map(|node| node.name.clone()).unwrap_or_default(),
                registry: node.map(|_| match worker {
                    true => ClusterRole::Worker,
                    false => ClusterRole::ControlPlane,
                }),
                raft: in_raft,
                reachable: in_raft.map(|_| keyspace.reaches(MemberId(id))),
                difference: difference.to_owned(),
            }
        })
        .collect();
    let voters =
        members.iter().filter(|member| keyspace.voters().contains(&MemberId(member.id))).count();
    let leader = keyspace.status().leader;
    MembershipStatus {
        cluster_uid: seat.uid.clone(),
        high_availability: voters >= HIGHLY_AVAILABLE,
        leader: leader.map(|id| id.to_string()).unwrap_or_default(),
        consistent: compared.iter().all(|node| node.difference.is_empty()),
        nodes: compared,
    }
}

/// Every feature of the origin without a controller: we never claim what we do not run.
fn no_features() -> ClusterStatus {
    let none = FeatureStatus::without_controller;
    ClusterStatus {
        dns: none(),
        network: none(),
        load_balancer: none(),
        ingress: none(),
        gateway: none(),
        metrics_server: none(),
        local_storage: none(),
        ..ClusterStatus::default()
    }
}

fn of_our_own(message: &str) -> FeatureStatus {
    FeatureStatus {
        enabled: true,
        message: message.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        updated_at: FeatureStatus::NEVER.to_owned(),
    }
}

fn tell_feature(status: &mut ClusterStatus, name: &str, feature: FeatureStatus) {
    match name {
        "dns" => status.dns = feature,
        "network" => status.network = feature,
        "load-balancer" => status.load_balancer = feature,
        "ingress" => status.ingress = feature,
        "gateway" => status.gateway = feature,
        "metrics-server" => status.metrics_server = feature,
        "local-storage" => status.local_storage = feature,
        other => drop(status.added_features.insert(other.to_owned(), feature)),
    }
}
