//! Each method of the API, called by nobody, by a user who may read and write "a", and by root.

use prost::Message;
use quorate_core::api::pb::authpb::permission::Type;
use quorate_core::api::pb::etcdserverpb::alarm_request::AlarmAction;
use quorate_core::api::pb::etcdserverpb::request_op::Request as Op;
use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use quorate_core::api::pb::{v3electionpb, v3lockpb};

use super::raw::call;
use super::*;

/// What a call without the right to it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It is answered, or refused for another reason than who asks.
    Served,
    UserEmpty,
    Denied,
}

use Told::{Denied, Served, UserEmpty};

impl Told {
    fn of(outcome: Result<Option<bytes::Bytes>, Status>) -> Told {
        match outcome {
            Err(status) if status.message() == user_empty().1 => UserEmpty,
            Err(status) if status.message() == denied().1 => Denied,
            Ok(_) | Err(_) => Served,
        }
    }
}

fn bytes_of(message: impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

fn txn(op: Op) -> Vec<u8> {
    let op = pb::RequestOp { request: Some(op) };
    bytes_of(pb::TxnRequest { success: vec![op], ..Default::default() })
}

fn delete(key: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() }
}

const HELD: i64 = 7;
const FREE: i64 = 8;

fn lease_lives(id: i64, keys: bool) -> Vec<u8> {
    bytes_of(pb::LeaseTimeToLiveRequest { id, keys })
}

/// Path, message, what nobody is told, and what the user is told.
fn data_rows() -> Vec<(&'static str, Vec<u8>, Told, Told)> {
    let compare = pb::Compare { key: "z".into(), ..Default::default() };
    let compares = pb::TxnRequest { compare: vec![compare], ..Default::default() };
    let watch = pb::WatchCreateRequest { key: "z".into(), ..Default::default() };
    let watch = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(watch)) };
    vec![
        ("/etcdserverpb.KV/Range", bytes_of(get("z")), UserEmpty, Denied),
        ("/etcdserverpb.KV/Range", bytes_of(get("a")), UserEmpty, Served),
        ("/etcdserverpb.KV/Range", bytes_of(range("a", "b")), UserEmpty, Denied),
        (
            "/etcdserverpb.KV/Range",
            bytes_of(pb::RangeRequest { serializable: true, ..get("z") }),
            UserEmpty,
            Denied,
        ),
        (
            "/etcdserverpb.KV/Range",
            bytes_of(pb::RangeRequest { count_only: true, ..get("z") }),
            UserEmpty,
            Denied,
        ),
        ("/etcdserverpb.KV/RangeStream", bytes_of(get("z")), UserEmpty, Denied),
        ("/etcdserverpb.KV/RangeStream", bytes_of(get("a")), UserEmpty, Served),
        ("/etcdserverpb.KV/Put", bytes_of(put("z", "")), UserEmpty, Denied),
        ("/etcdserverpb.KV/Put", bytes_of(put("a", "")), UserEmpty, Served),
        ("/etcdserverpb.KV/DeleteRange", bytes_of(delete("z")), UserEmpty, Denied),
        ("/etcdserverpb.KV/Txn", txn(Op::RequestPut(put("z", ""))), UserEmpty, Denied),
        ("/etcdserverpb.KV/Txn", txn(Op::RequestRange(get("z"))), UserEmpty, Denied),
        ("/etcdserverpb.KV/Txn", txn(Op::RequestRange(get("a"))), UserEmpty, Served),
        ("/etcdserverpb.KV/Txn", txn(Op::RequestDeleteRange(delete("z"))), UserEmpty, Denied),
        ("/etcdserverpb.KV/Txn", bytes_of(compares), UserEmpty, Denied),
        ("/etcdserverpb.KV/Compact", bytes_of(pb::CompactionRequest::default()), UserEmpty, Denied),
        // A watch is refused within its stream.
        ("/etcdserverpb.Watch/Watch", bytes_of(watch), Served, Served),
        (
            "/etcdserverpb.Lease/LeaseGrant",
            bytes_of(pb::LeaseGrantRequest { ttl: 60, id: FREE }),
            UserEmpty,
            Served,
        ),
        (
            "/etcdserverpb.Lease/LeaseRevoke",
            bytes_of(pb::LeaseRevokeRequest { id: HELD }),
            UserEmpty,
            Denied,
        ),
        (
            "/etcdserverpb.Lease/LeaseKeepAlive",
            bytes_of(pb::LeaseKeepAliveRequest { id: HELD }),
            UserEmpty,
            Denied,
        ),
        ("/etcdserverpb.Lease/LeaseTimeToLive", lease_lives(HELD, true), UserEmpty, Denied),
        ("/etcdserverpb.Lease/LeaseTimeToLive", lease_lives(HELD, false), UserEmpty, Served),
        ("/etcdserverpb.Lease/LeaseTimeToLive", lease_lives(FREE, true), UserEmpty, Served),
        ("/etcdserverpb.Lease/LeaseLeases", Vec::new(), UserEmpty, Denied),
    ]
}

fn alarm(action: AlarmAction) -> Vec<u8> {
    bytes_of(pb::AlarmRequest { action: action.into(), ..Default::default() })
}

fn operator_rows() -> Vec<(&'static str, Vec<u8>, Told, Told)> {
    let linearizable = bytes_of(pb::MemberListRequest { linearizable: true });
    let mut rows = vec![
        ("/etcdserverpb.Cluster/MemberList", linearizable, UserEmpty, Served),
        ("/etcdserverpb.Cluster/MemberList", Vec::new(), UserEmpty, Served),
        ("/etcdserverpb.Maintenance/Alarm", alarm(AlarmAction::Get), UserEmpty, Served),
        ("/etcdserverpb.Maintenance/Alarm", alarm(AlarmAction::Activate), UserEmpty, Denied),
        ("/etcdserverpb.Maintenance/Alarm", alarm(AlarmAction::Deactivate), UserEmpty, Denied),
        ("/etcdserverpb.Maintenance/Status", Vec::new(), UserEmpty, Served),
        ("/etcdserverpb.Auth/AuthStatus", Vec::new(), Served, Served),
        ("/etcdserverpb.Auth/Authenticate", Vec::new(), Served, Served),
        (
            "/etcdserverpb.Auth/UserGet",
            bytes_of(pb::AuthUserGetRequest { name: "ann".into() }),
            UserEmpty,
            Served,
        ),
        (
            "/etcdserverpb.Auth/RoleGet",
            bytes_of(pb::AuthRoleGetRequest { role: "ann".into() }),
            UserEmpty,
            Served,
        ),
        ("/grpc.health.v1.Health/Check", Vec::new(), Served, Served),
        ("/grpc.health.v1.Health/Watch", Vec::new(), Served, Served),
        ("/grpc.health.v1.Health/List", Vec::new(), Served, Served),
    ];
    // What is wrong with the URLs is told first, to whomever.
    let learner =
        pb::MemberAddRequest { peer_ur_ls: vec!["http://127.0.0.1:1".into()], is_learner: true };
    rows.push(("/etcdserverpb.Cluster/MemberAdd", bytes_of(learner), UserEmpty, Denied));
    let root_get = bytes_of(pb::AuthUserGetRequest { name: "root".into() });
    rows.push(("/etcdserverpb.Auth/UserGet", root_get, UserEmpty, Denied));
    let root_get = bytes_of(pb::AuthRoleGetRequest { role: "root".into() });
    rows.push(("/etcdserverpb.Auth/RoleGet", root_get, UserEmpty, Denied));
    rows.extend(ADMIN.map(|path| (path, Vec::new(), UserEmpty, Denied)));
    rows
}

/// Locks and elections ask the keyspace in their caller's name, and hand its refusals on.
fn recipe_rows() -> Vec<(&'static str, Vec<u8>, Told, Told)> {
    let name = || bytes::Bytes::from_static(b"z");
    let lock = bytes_of(v3lockpb::LockRequest { name: name(), lease: HELD });
    let campaign = v3electionpb::CampaignRequest { name: name(), lease: HELD, value: name() };
    let leader =
        || Some(v3electionpb::LeaderKey { name: name(), key: name(), rev: 1, lease: HELD });
    let proclaim = v3electionpb::ProclaimRequest { leader: leader(), value: name() };
    let resign = v3electionpb::ResignRequest { leader: leader() };
    let asked = v3electionpb::LeaderRequest { name: name() };
    vec![
        ("/v3lockpb.Lock/Lock", lock, UserEmpty, Denied),
        (
            "/v3lockpb.Lock/Unlock",
            bytes_of(v3lockpb::UnlockRequest { key: name() }),
            UserEmpty,
            Denied,
        ),
        ("/v3electionpb.Election/Campaign", bytes_of(campaign), UserEmpty, Denied),
        ("/v3electionpb.Election/Proclaim", bytes_of(proclaim), UserEmpty, Denied),
        ("/v3electionpb.Election/Leader", bytes_of(asked), UserEmpty, Denied),
        ("/v3electionpb.Election/Resign", bytes_of(resign), UserEmpty, Denied),
    ]
}

/// What takes the role root.
const ADMIN: [&str; 22] = [
    "/etcdserverpb.Cluster/MemberRemove",
    "/etcdserverpb.Cluster/MemberUpdate",
    "/etcdserverpb.Cluster/MemberPromote",
    "/etcdserverpb.Maintenance/Defragment",
    "/etcdserverpb.Maintenance/Hash",
    "/etcdserverpb.Maintenance/HashKV",
    "/etcdserverpb.Maintenance/Snapshot",
    "/etcdserverpb.Maintenance/MoveLeader",
    "/etcdserverpb.Maintenance/Downgrade",
    "/etcdserverpb.Auth/AuthEnable",
    "/etcdserverpb.Auth/AuthDisable",
    "/etcdserverpb.Auth/UserAdd",
    "/etcdserverpb.Auth/UserList",
    "/etcdserverpb.Auth/UserDelete",
    "/etcdserverpb.Auth/UserChangePassword",
    "/etcdserverpb.Auth/UserGrantRole",
    "/etcdserverpb.Auth/UserRevokeRole",
    "/etcdserverpb.Auth/RoleAdd",
    "/etcdserverpb.Auth/RoleList",
    "/etcdserverpb.Auth/RoleDelete",
    "/etcdserverpb.Auth/RoleGrantPermission",
    "/etcdserverpb.Auth/RoleRevokePermission",
];

/// A lease that holds "z", and tokens: of root, and of ann who may read and write "a".
async fn people() -> (Rig, String, String) {
    let rig = Rig::start().await;
    let lease = pb::LeaseGrantRequest { ttl: 3600, id: HELD };
    rig.lease().lease_grant(lease).await.unwrap();
    rig.kv().put(pb::PutRequest { lease: HELD, ..put("z", "") }).await.unwrap();
    let root = enable(&rig.channel).await;
    let ann = add_user(&rig.channel, &root, "ann", &[(Type::Readwrite, "a", "")]).await;
    (rig, root, ann)
}

#[tokio::test]
async fn every_method_asks_who_calls() {
    let (rig, _root, ann) = people().await;
    let mut wrong = Vec::new();
    let rows = data_rows().into_iter().chain(operator_rows()).chain(recipe_rows());
    for (path, message, nobody, user) in rows {
        let first = Told::of(call(&rig.channel, path, message.clone(), "").await);
        let second = Told::of(call(&rig.channel, path, message, &ann).await);
        if (first, second) != (nobody, user) {
            wrong.push(format!("{path}: {first:?}, {second:?}; not {nobody:?}, {user:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    rig.stop().await;
}

#[tokio::test]
async fn a_bad_token_opens_nothing() {
    let (rig, _root, _ann) = people().await;
    let open = ["/etcdserverpb.Auth/Authenticate", "/etcdserverpb.Watch/Watch"];
    for (path, message, ..) in data_rows().into_iter().chain(operator_rows()) {
        if open.contains(&path) || path.starts_with("/grpc.health") {
            continue;
        }
        let status = call(&rig.channel, path, message, "abcdefghijklmnop.5").await.unwrap_err();
        assert_eq!((status.code(), status.message().to_owned()), invalid_token(), "{path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn root_is_refused_nothing_for_who_it_is() {
    let (rig, root, _ann) = people().await;
    let changing = ["/etcdserverpb.Auth/AuthDisable"];
    for (path, message, ..) in data_rows().into_iter().chain(operator_rows()) {
        if changing.contains(&path) {
            continue;
        }
        let told = Told::of(call(&rig.channel, path, message, &root).await);
        // A user or role without a name is refused in the words for a caller without one.
        let nameless = ["/etcdserverpb.Auth/UserAdd"].contains(&path);
        assert!(told == Served || nameless && told == UserEmpty, "{path}: {told:?}");
    }
    rig.stop().await;
}

#[test]
fn the_rows_name_every_method_but_those_of_locks_and_elections() {
    let listed = include_str!("../../../tests/testdata/http/grpc-methods.txt");
    let rows: Vec<_> = data_rows().into_iter().chain(operator_rows()).map(|row| row.0).collect();
    for line in listed.lines() {
        let mut words = line.split(' ').skip(1);
        let path = format!("/{}/{}", words.next().unwrap(), words.next().unwrap());
        assert!(rows.contains(&path.as_str()), "{path}");
    }
}
