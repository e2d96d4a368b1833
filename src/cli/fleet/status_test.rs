//! The origin's own three samples of `k8s status` (k8s-snap, `k8s_status_format_test.go`), and what is ours beside them.

use super::*;
use crate::fleet::api::cluster::{Datastore, MembershipNode, MembershipStatus};

fn member(address: &str, role: DatastoreRole) -> NodeStatus {
    NodeStatus {
        name: address.replace('.', "-"),
        address: address.to_owned(),
        cluster_role: Some(ClusterRole::ControlPlane),
        datastore_role: Some(role),
    }
}

fn feature(message: &str) -> FeatureStatus {
    FeatureStatus { message: message.to_owned(), ..FeatureStatus::default() }
}

fn datastore(kind: &str) -> Datastore {
    Datastore { kind: kind.to_owned(), servers: Vec::new() }
}

#[test]
fn two_voters_and_a_stand_by_are_ready_and_not_highly_available() {
    let status = ClusterStatus {
        ready: true,
        members: vec![
            member("192.168.0.1", DatastoreRole::Voter),
            member("192.168.0.2", DatastoreRole::Voter),
            member("192.168.0.3", DatastoreRole::StandBy),
        ],
        datastore: datastore("etcd"),
        network: feature("enabled"),
        dns: feature("enabled at 192.168.0.10"),
        ..ClusterStatus::default()
    };
    let want = "\
cluster status:           ready
control plane nodes:      192.168.0.1 (voter), 192.168.0.2 (voter), 192.168.0.3 (stand-by)
high availability:        no
datastore:                etcd
network:                  enabled
dns:                      enabled at 192.168.0.10
ingress:                  disabled
load-balancer:            disabled
local-storage:            disabled
gateway:                  disabled
metrics-server:           disabled
";
    assert_eq!(plain_status(&status), want);
}

#[test]
fn three_voters_are_highly_available_and_workers_do_not_count() {
    let worker = NodeStatus {
        name: "w1".to_owned(),
        address: "10.0.0.9:6400".to_owned(),
        cluster_role: Some(ClusterRole::Worker),
        datastore_role: None,
    };
    let voters = ["a", "b", "c"].map(|address| member(address, DatastoreRole::Voter));
    let mut status = ClusterStatus {
        ready: true,
        members: voters.into_iter().chain([worker]).collect(),
        ..ClusterStatus::default()
    };
    let text = plain_status(&status);
    assert!(text.contains("high availability:        yes\n"), "{text}");
    assert!(text.contains("worker nodes:             10.0.0.9:6400 (w1)\n"), "{text}");
    status.members.remove(0);
    assert!(plain_status(&status).contains("high availability:        no\n"));
}

#[test]
fn a_fleet_of_nobody_is_not_ready() {
    let text = plain_status(&ClusterStatus::default());
    let want = "\
cluster status:           not ready
control plane nodes:      none
high availability:        no
datastore:                disabled
";
    assert!(text.starts_with(want), "{text}");
}

#[test]
fn what_registry_and_raft_do_not_agree_on_and_who_is_away_is_shown() {
    let node = |id: &str, name: &str, difference: &str| MembershipNode {
        id: id.to_owned(),
        name: name.to_owned(),
        registry: (!name.is_empty()).then_some(ClusterRole::ControlPlane),
        raft: Some(DatastoreRole::Voter),
        reachable: Some(!name.is_empty()),
        difference: difference.to_owned(),
    };
    let status = ClusterStatus {
        members: vec![member("a", DatastoreRole::Voter)],
        membership: Some(MembershipStatus {
            leader: "1f".to_owned(),
            nodes: vec![node("1f", "a", ""), node("2e", "", "not in the registry")],
            ..MembershipStatus::default()
        }),
        ..ClusterStatus::default()
    };
    let text = plain_status(&status);
    let told = "\
not reachable:            2e
difference:               2e: not in the registry
";
    assert!(text.ends_with(told), "{text}");
    let want = "\
NAME  ADDRESS  ROLE           DATASTORE      REACHABLE  ID  DIFFERENCE
a     a        control-plane  voter, leader  yes        1f
none           none           voter          no         2e  not in the registry
";
    assert_eq!(plain_nodes(&status), want);
}

#[test]
fn a_config_that_only_a_newer_daemon_knows_does_not_hide_the_status() {
    let mut metadata = json!({"status": ClusterStatus { ready: true, ..ClusterStatus::default() }});
    metadata["status"]["config"]["new-section"] = json!({"x": 1});
    assert!(told(&metadata).unwrap().ready);
}
