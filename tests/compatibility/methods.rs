//! Every gRPC method, called with a request that etcd answers, or refuses for a reason that both must name.

use std::collections::BTreeSet;

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use prost::Message;
use protox::prost_reflect::{DynamicMessage, MethodDescriptor};
use quorate_core::api::pb::authpb::Permission;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::request_op::Request as Op;
use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use quorate_core::api::pb::health::HealthCheckRequest;
use quorate_core::api::pb::v3electionpb as election;
use quorate_core::api::pb::v3lockpb as lock;
use tokio::time::timeout;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::cluster::{LONG, Member};
use crate::seen::{Kind, Seen};
use crate::shape;

/// Everything that etcd serves and counts, as its metrics name it.
const COUNTED: &str = include_str!("../testdata/http/grpc-methods.txt");

const LEASE: i64 = 7;
const PASSWORD: &str = "secret";

/// Messages as their bytes: both directions.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A client that notes what it is answered.
struct Caller<'a> {
    channel: Channel,
    methods: Vec<(String, MethodDescriptor)>,
    token: String,
    seen: &'a mut Seen,
}

impl Caller<'_> {
    /// One message to a method; the first of its answer.
    async fn send(&self, name: &str, message: impl Message) -> Result<Option<Bytes>, Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client.ready().await.map_err(|why| Status::unavailable(why.to_string()))?;
        let mut request = Request::new(Bytes::from(message.encode_to_vec()));
        if !self.token.is_empty() {
            let token = self.token.parse().expect("a token is ASCII");
            request.metadata_mut().insert("token", token);
        }
        let path: PathAndQuery = format!("/{name}").parse().expect("a method makes a path");
        let answer = client.server_streaming(request, path, Raw).await?;
        answer.into_inner().message().await
    }

    /// Calls, and notes the answer as that of the method.
    async fn call(&mut self, name: &str, message: impl Message) -> Bytes {
        let answer = timeout(LONG, self.send(name, message)).await;
        let (shown, bytes) = match answer {
            Err(_) => ("no answer".to_owned(), Bytes::new()),
            Ok(Err(status)) => (format!("{:?}: {}", status.code(), status.message()), Bytes::new()),
            Ok(Ok(None)) => ("OK, no message".to_owned(), Bytes::new()),
            Ok(Ok(Some(bytes))) => (format!("OK {}", self.shape(name, bytes.clone())), bytes),
        };
        self.seen.add(Kind::Method, name, shown);
        bytes
    }

    /// Calls for what comes of it alone.
    async fn prepare(&self, name: &str, message: impl Message) {
        let answer = timeout(LONG, self.send(name, message)).await;
        answer.expect("an answer in time").expect("it is taken");
    }

    fn shape(&self, name: &str, bytes: Bytes) -> String {
        let Some((_, method)) = self.methods.iter().find(|(known, _)| known == name) else {
            return String::new();
        };
        match DynamicMessage::decode(method.output(), bytes) {
            Ok(message) => shape::of_message(&message),
            Err(why) => format!("which is no {}: {why}", method.output().name()),
        }
    }
}

/// Asks every method of a lone member.
pub(crate) async fn walk(member: &Member, seen: &mut Seen) {
    let url = format!("http://{}", member.client);
    let endpoint = Channel::from_shared(url).expect("a URL");
    let channel = endpoint.connect().await.expect("the member listens");
    let methods = shape::methods(&shape::api());
    let mut caller = Caller { channel, methods, token: String::new(), seen };
    keys(&mut caller).await;
    leases(&mut caller).await;
    recipes(&mut caller).await;
    let lease = pb::LeaseRevokeRequest { id: LEASE };
    caller.call("etcdserverpb.Lease/LeaseRevoke", lease).await;
    users(&mut caller).await;
    roles(&mut caller).await;
    logins(&mut caller).await;
    health(&mut caller).await;
    maintenance(&mut caller).await;
    members(&mut caller).await;
    let described = caller.methods.iter().map(|(name, _)| name.clone());
    let counted = COUNTED.lines().filter_map(|line| line.split_once(' '));
    let all: BTreeSet<String> =
        counted.map(|(_, method)| method.replace(' ', "/")).chain(described).collect();
    let called: BTreeSet<String> = caller.seen.names(Kind::Method).map(str::to_owned).collect();
    assert_eq!(called, all, "every method is called");
}

fn put(key: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: "1".into(), prev_kv: true, ..Default::default() }
}

fn get(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..Default::default() }
}

async fn keys(caller: &mut Caller<'_>) {
    caller.prepare("etcdserverpb.KV/Put", put("a")).await;
    caller.prepare("etcdserverpb.KV/Put", put("b")).await;
    caller.call("etcdserverpb.KV/Put", put("a")).await;
    caller.call("etcdserverpb.KV/Range", get("a")).await;
    caller.call("etcdserverpb.KV/RangeStream", get("a")).await;
    let delete = pb::DeleteRangeRequest { key: "b".into(), prev_kv: true, ..Default::default() };
    caller.call("etcdserverpb.KV/DeleteRange", delete).await;
    let op = |op| pb::RequestOp { request: Some(op) };
    let compare = pb::Compare { key: "a".into(), ..Default::default() };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Op::RequestPut(put("c")))],
        failure: vec![op(Op::RequestRange(get("a")))],
    };
    caller.call("etcdserverpb.KV/Txn", txn).await;
    let create = pb::WatchCreateRequest { key: "a".into(), ..Default::default() };
    let watch = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    caller.call("etcdserverpb.Watch/Watch", watch).await;
    let compact = pb::CompactionRequest { revision: 2, physical: true };
    caller.call("etcdserverpb.KV/Compact", compact).await;
}

async fn leases(caller: &mut Caller<'_>) {
    let grant = pb::LeaseGrantRequest { id: LEASE, ttl: 600 };
    caller.call("etcdserverpb.Lease/LeaseGrant", grant).await;
    caller.prepare("etcdserverpb.KV/Put", pb::PutRequest { lease: LEASE, ..put("leased") }).await;
    let alive = pb::LeaseKeepAliveRequest { id: LEASE };
    caller.call("etcdserverpb.Lease/LeaseKeepAlive", alive).await;
    let lives = pb::LeaseTimeToLiveRequest { id: LEASE, keys: true };
    caller.call("etcdserverpb.Lease/LeaseTimeToLive", lives).await;
    caller.call("etcdserverpb.Lease/LeaseLeases", pb::LeaseLeasesRequest {}).await;
}

async fn recipes(caller: &mut Caller<'_>) {
    let locked = lock::LockRequest { name: "lock-2".into(), lease: LEASE };
    let bytes = caller.call("v3lockpb.Lock/Lock", locked).await;
    let key = lock::LockResponse::decode(bytes).expect("a key").key;
    caller.call("v3lockpb.Lock/Unlock", lock::UnlockRequest { key }).await;
    let campaign =
        election::CampaignRequest { name: "vote".into(), lease: LEASE, value: "1".into() };
    let bytes = caller.call("v3electionpb.Election/Campaign", campaign).await;
    let leader = election::CampaignResponse::decode(bytes).expect("a leader").leader;
    let proclaim = election::ProclaimRequest { leader: leader.clone(), value: "2".into() };
    caller.call("v3electionpb.Election/Proclaim", proclaim).await;
    let who = || election::LeaderRequest { name: "vote".into() };
    caller.call("v3electionpb.Election/Leader", who()).await;
    caller.call("v3electionpb.Election/Observe", who()).await;
    let resign = election::ResignRequest { leader };
    caller.call("v3electionpb.Election/Resign", resign).await;
}

fn user(name: &str) -> pb::AuthUserAddRequest {
    let (name, password) = (name.to_owned(), PASSWORD.to_owned());
    pb::AuthUserAddRequest { name, password, ..Default::default() }
}

fn granted(user: &str, role: &str) -> pb::AuthUserGrantRoleRequest {
    pb::AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() }
}

async fn users(caller: &mut Caller<'_>) {
    caller.call("etcdserverpb.Auth/UserAdd", user("ann")).await;
    let role = pb::AuthRoleAddRequest { name: "reader".to_owned() };
    caller.call("etcdserverpb.Auth/RoleAdd", role).await;
    caller.call("etcdserverpb.Auth/UserGrantRole", granted("ann", "reader")).await;
    let asked = pb::AuthUserGetRequest { name: "ann".to_owned() };
    caller.call("etcdserverpb.Auth/UserGet", asked).await;
    caller.call("etcdserverpb.Auth/UserList", pb::AuthUserListRequest {}).await;
    let change = pb::AuthUserChangePasswordRequest {
        name: "ann".to_owned(),
        password: "other".to_owned(),
        ..Default::default()
    };
    caller.call("etcdserverpb.Auth/UserChangePassword", change).await;
    let revoke =
        pb::AuthUserRevokeRoleRequest { name: "ann".to_owned(), role: "reader".to_owned() };
    caller.call("etcdserverpb.Auth/UserRevokeRole", revoke).await;
    let delete = pb::AuthUserDeleteRequest { name: "ann".to_owned() };
    caller.call("etcdserverpb.Auth/UserDelete", delete).await;
}

async fn roles(caller: &mut Caller<'_>) {
    let perm = Permission { key: "a".into(), range_end: "c".into(), ..Default::default() };
    let grant = pb::AuthRoleGrantPermissionRequest { name: "reader".to_owned(), perm: Some(perm) };
    caller.call("etcdserverpb.Auth/RoleGrantPermission", grant).await;
    let asked = pb::AuthRoleGetRequest { role: "reader".to_owned() };
    caller.call("etcdserverpb.Auth/RoleGet", asked).await;
    caller.call("etcdserverpb.Auth/RoleList", pb::AuthRoleListRequest {}).await;
    let revoke = pb::AuthRoleRevokePermissionRequest {
        role: "reader".to_owned(),
        key: "a".into(),
        range_end: "c".into(),
    };
    caller.call("etcdserverpb.Auth/RoleRevokePermission", revoke).await;
    let delete = pb::AuthRoleDeleteRequest { role: "reader".to_owned() };
    caller.call("etcdserverpb.Auth/RoleDelete", delete).await;
}

async fn logins(caller: &mut Caller<'_>) {
    caller.call("etcdserverpb.Auth/AuthStatus", pb::AuthStatusRequest {}).await;
    caller.prepare("etcdserverpb.Auth/UserAdd", user("root")).await;
    let role = pb::AuthRoleAddRequest { name: "root".to_owned() };
    caller.prepare("etcdserverpb.Auth/RoleAdd", role).await;
    caller.prepare("etcdserverpb.Auth/UserGrantRole", granted("root", "root")).await;
    caller.call("etcdserverpb.Auth/AuthEnable", pb::AuthEnableRequest {}).await;
    let login = pb::AuthenticateRequest { name: "root".to_owned(), password: PASSWORD.to_owned() };
    let bytes = caller.call("etcdserverpb.Auth/Authenticate", login).await;
    caller.token = pb::AuthenticateResponse::decode(bytes).expect("a token").token;
    caller.call("etcdserverpb.Auth/AuthDisable", pb::AuthDisableRequest {}).await;
    caller.token.clear();
}

async fn health(caller: &mut Caller<'_>) {
    for method in ["Check", "Watch", "List"] {
        let name = format!("grpc.health.v1.Health/{method}");
        caller.call(&name, HealthCheckRequest::default()).await;
    }
}

async fn maintenance(caller: &mut Caller<'_>) {
    let alarm = pb::AlarmRequest::default();
    caller.call("etcdserverpb.Maintenance/Alarm", alarm).await;
    caller.call("etcdserverpb.Maintenance/Status", pb::StatusRequest {}).await;
    caller.call("etcdserverpb.Maintenance/Defragment", pb::DefragmentRequest {}).await;
    caller.call("etcdserverpb.Maintenance/Hash", pb::HashRequest {}).await;
    caller.call("etcdserverpb.Maintenance/HashKV", pb::HashKvRequest { revision: 0 }).await;
    let downgrade = pb::DowngradeRequest { action: 0, version: "3.6".to_owned() };
    caller.call("etcdserverpb.Maintenance/Downgrade", downgrade).await;
    caller.call("etcdserverpb.Maintenance/Snapshot", pb::SnapshotRequest {}).await;
}

/// A learner that never starts comes and goes; nobody is there who could lead instead.
async fn members(caller: &mut Caller<'_>) {
    let list = pb::MemberListRequest { linearizable: true };
    caller.call("etcdserverpb.Cluster/MemberList", list).await;
    let urls = |port: u16| vec![format!("http://127.0.0.1:{port}")];
    let add = pb::MemberAddRequest { peer_ur_ls: urls(1), is_learner: true };
    let bytes = caller.call("etcdserverpb.Cluster/MemberAdd", add).await;
    let id = pb::MemberAddResponse::decode(bytes).expect("a member").member.map_or(0, |m| m.id);
    let update = pb::MemberUpdateRequest { id, peer_ur_ls: urls(2) };
    caller.call("etcdserverpb.Cluster/MemberUpdate", update).await;
    let promote = pb::MemberPromoteRequest { id };
    caller.call("etcdserverpb.Cluster/MemberPromote", promote).await;
    let transfer = pb::MoveLeaderRequest { target_id: id };
    caller.call("etcdserverpb.Maintenance/MoveLeader", transfer).await;
    let remove = pb::MemberRemoveRequest { id };
    caller.call("etcdserverpb.Cluster/MemberRemove", remove).await;
}
