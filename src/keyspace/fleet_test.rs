//! The fleet's records as the floor above and clients meet them, in a keyspace of one voter.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::api::ids::LeaseId;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::request_op::Request as Op;
use quorate_core::api::pb::internal::fleet_request::Ask;
use quorate_core::api::pb::internal::{
    FleetAuthority, FleetBootstrap, FleetFence, FleetKey, FleetNode, FleetRequest, FleetRole,
};
use quorate_core::api::refusal::{AuthRefusal, FleetRefusal, Refusal, ReservedPrefix};
use quorate_core::api::reply::FleetReply;

use super::auth::{Credentials, Gate};
use super::keyspace_test::{Disk, Member, bytes, config, key_of, op, put, start, start_with};
use super::{Keyspace, KeyspaceError};

const SOON: Duration = Duration::from_secs(1);

pub(crate) fn bootstrap(id: u64) -> FleetRequest {
    let node = FleetNode {
        id,
        name: "n1".to_owned(),
        address: "127.0.0.1:6400".to_owned(),
        role: FleetRole::ControlPlane as i32,
        record: bytes("{}"),
        ..FleetNode::default()
    };
    let certificates = vec![bytes("certificate")];
    let ask = Ask::Bootstrap(FleetBootstrap {
        uid: "0a6b".to_owned(),
        schema_version: 1,
        node: Some(node),
        authority: Some(FleetAuthority { generation: 1, certificates, sealed_key: Bytes::new() }),
        keys: vec![FleetKey { key: bytes("/k8sd/config/v1alpha2"), value: bytes("{}") }],
    });
    FleetRequest { fence: None, ask: Some(ask) }
}

pub(crate) fn txn(fence: Option<FleetFence>, request: pb::PutRequest) -> FleetRequest {
    let success = vec![op(Op::RequestPut(request))];
    let txn = pb::TxnRequest { success, ..pb::TxnRequest::default() };
    FleetRequest { fence, ask: Some(Ask::Txn(txn)) }
}

fn client(member: &Member) -> Keyspace {
    let gate = Gate::new(member.keyspace.clone());
    gate.admit(&Credentials::default()).expect("a gate admits whoever comes")
}

fn reserved<T>() -> Result<T, KeyspaceError> {
    Err(Refusal::ReservedPrefix(ReservedPrefix::K8sd).into())
}

/// Whoever sets up a fleet waits for this, with a person before the screen.
#[tokio::test]
async fn a_member_that_just_started_alone_begins_a_fleet_at_once_and_keeps_it() {
    let disk = Disk::default();
    let member = start(&disk).await;
    let begun = tokio::time::timeout(SOON, member.fleet_change(bootstrap(1))).await;
    assert_eq!(begun.expect("within a second"), Ok(FleetReply::Done));
    assert_eq!(member.revision(), 2, "all of it in one revision");
    let again = member.fleet_change(bootstrap(1)).await;
    assert_eq!(again, Err(Refusal::Fleet(FleetRefusal::AlreadyBootstrapped).into()));
    let uid = |fleet: &quorate_core::state_machine::fleet::FleetState| {
        fleet.record().map(|record| record.uid.clone())
    };
    assert_eq!(member.fleet(uid).await, Ok(Some("0a6b".to_owned())));
    member.stop().await;

    let member = start_with(&disk, config(), 2).await;
    assert_eq!(member.fleet_now(uid), Some("0a6b".to_owned()));
    assert_eq!(member.value("/kat/config/cluster_uid").await, Some(bytes("0a6b")));
    assert_eq!(client(&member).put(put("/k8sd/x", "1")).await, reserved());
    member.stop().await;
}

/// S0.14, S0.20: what is private to the fleet is not asked by a client, and what is shown is not written by one.
#[tokio::test]
async fn s0_20_a_clients_handle_neither_changes_nor_reads_the_fleets_records() {
    let member = start(&Disk::default()).await;
    let client = client(&member);
    let denied = || KeyspaceError::from(Refusal::Auth(AuthRefusal::PermissionDenied));
    assert_eq!(client.fleet_change(bootstrap(1)).await, Err(denied()));
    assert_eq!(client.fleet(|fleet| fleet.nodes().count()).await, Err(denied()));

    client.put(put("/k8sd/mine", "1")).await.expect("without a fleet nothing is reserved");
    let in_use = member.fleet_change(bootstrap(1)).await;
    assert_eq!(in_use, Err(Refusal::Fleet(FleetRefusal::PrefixInUse).into()));
    let mine = pb::DeleteRangeRequest { key: bytes("/k8sd/mine"), ..Default::default() };
    client.delete_range(mine).await.unwrap();
    member.fleet_change(bootstrap(1)).await.unwrap();

    assert_eq!(client.put(put("/k8sd/mine", "1")).await, reserved());
    // The member's own handle is refused alike: what may be written there is asked as a change of the fleet's.
    assert_eq!(member.put(put("/k8sd/mine", "1")).await, reserved());
    let all = pb::DeleteRangeRequest {
        key: bytes("\0"),
        range_end: bytes("\0"),
        ..pb::DeleteRangeRequest::default()
    };
    assert_eq!(client.delete_range(all).await, reserved());
    let read = client.range(key_of("/k8sd/nodes/1")).await.unwrap();
    assert_eq!(read.kvs[0].value, "{}");
    member.stop().await;
}

#[tokio::test]
async fn a_lease_that_holds_keys_of_the_fleets_is_renewed_by_the_member_alone() {
    let member = start(&Disk::default()).await;
    member.fleet_change(bootstrap(1)).await.unwrap();
    let client = client(&member);
    let grant = pb::LeaseGrantRequest { id: 7, ttl: 60 };
    member.lease_grant(grant).await.unwrap();
    assert_eq!(client.lease_keep_alive(LeaseId(7)).await, Ok(60), "it holds nothing yet");
    let campaign = pb::PutRequest { lease: 7, ..put("/k8sd/leader/7", "me") };
    member.fleet_change(txn(None, campaign)).await.unwrap();

    assert_eq!(client.lease_keep_alive(LeaseId(7)).await, reserved());
    assert_eq!(member.lease_keep_alive(LeaseId(7)).await, Ok(60));
    let revoke = pb::LeaseRevokeRequest { id: 7 };
    assert_eq!(client.lease_revoke(revoke).await.map(drop), reserved());
    member.stop().await;
}

#[tokio::test]
async fn a_fenced_change_is_made_while_its_key_is_there_and_never_after() {
    let member = start(&Disk::default()).await;
    member.fleet_change(bootstrap(1)).await.unwrap();
    member.fleet_change(txn(None, put("/k8sd/leader/7", "me"))).await.unwrap();
    let fence = FleetFence { key: bytes("/k8sd/leader/7"), create_revision: member.revision() };
    let write = |value: &str| txn(Some(fence.clone()), put("/k8sd/features/dns", value));
    assert!(matches!(member.fleet_change(write("on")).await, Ok(FleetReply::Txn(_))));
    let delete = Op::RequestDeleteRange(pb::DeleteRangeRequest {
        key: fence.key.clone(),
        ..pb::DeleteRangeRequest::default()
    });
    let resign = pb::TxnRequest { success: vec![op(delete)], ..pb::TxnRequest::default() };
    let resign = FleetRequest { fence: None, ask: Some(Ask::Txn(resign)) };
    member.fleet_change(resign).await.unwrap();
    let late = member.fleet_change(write("off")).await;
    assert_eq!(late, Err(Refusal::Fleet(FleetRefusal::FenceLost).into()));
    assert_eq!(member.value("/k8sd/features/dns").await, Some(bytes("on")));
    member.stop().await;
}

/// A txn of the fleet's is looked at like any other before it reaches the log.
#[tokio::test]
async fn a_txn_of_the_fleets_that_is_malformed_never_reaches_the_log() {
    let member = start(&Disk::default()).await;
    member.fleet_change(bootstrap(1)).await.unwrap();
    let bad = member.fleet_change(txn(None, put("", "1"))).await;
    assert_eq!(bad, Err(Refusal::EmptyKey.into()));
    let twice = ["1", "2"].map(|value| op(Op::RequestPut(put("/k8sd/x", value))));
    let twice = pb::TxnRequest { success: twice.into(), ..pb::TxnRequest::default() };
    let twice = FleetRequest { fence: None, ask: Some(Ask::Txn(twice)) };
    assert_eq!(member.fleet_change(twice).await, Err(Refusal::DuplicateKey.into()));
    assert_eq!(member.revision(), 2);
    member.stop().await;
}

#[tokio::test]
async fn watchers_see_a_fleet_begin_in_one_revision() {
    let member = start(&Disk::default()).await;
    let mut watch = client(&member).watch();
    let create = pb::WatchCreateRequest {
        key: bytes("/k"),
        range_end: bytes("/l"),
        ..pb::WatchCreateRequest::default()
    };
    watch.create(&create);
    member.fleet_change(bootstrap(0x1f)).await.unwrap();
    let mut keys = Vec::new();
    while keys.len() < 4 {
        let response = tokio::time::timeout(SOON, watch.next()).await.unwrap().unwrap();
        for event in response.events {
            let kv = event.kv.unwrap();
            assert_eq!(kv.mod_revision, 2);
            keys.push(String::from_utf8(kv.key.to_vec()).unwrap());
        }
    }
    let order = [
        "/k8sd/schema_version",
        "/k8sd/nodes/1f",
        "/kat/config/cluster_uid",
        "/k8sd/config/v1alpha2",
    ];
    assert_eq!(keys, order);
    drop(watch);
    member.stop().await;
}

/// Management must work when there is no space left: it is how the cause is removed.
#[tokio::test]
async fn the_fleet_is_steered_while_the_alarm_for_space_stands() {
    let member = start(&Disk::default()).await;
    member.fleet_change(bootstrap(1)).await.unwrap();
    let raise = pb::AlarmRequest { action: 1, member_id: 0, alarm: 1 };
    member.alarm(raise).await.unwrap();
    assert_eq!(member.put(put("a", "1")).await, Err(Refusal::NoSpace.into()));
    let steered = member.fleet_change(txn(None, put("/k8sd/x", "1"))).await;
    assert!(matches!(steered, Ok(FleetReply::Txn(_))), "{steered:?}");
    member.stop().await;
}
