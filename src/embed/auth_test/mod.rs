//! Users, roles and tokens over the wire: a whole server in this process, spoken to as a client does.

mod advisories;
mod every_method;
mod leases;
mod login;
mod management;
mod members;
mod raw;
mod watches;

use std::path::Path;
use std::time::Duration;

use quorate_core::api::pb::authpb::permission::Type;
use quorate_core::api::pb::authpb::{Permission, UserAddOptions};
use quorate_core::api::pb::etcdserverpb as pb;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::Server;
use crate::embed::Config;
use crate::service::pb::etcdserverpb::auth_client::AuthClient;
use crate::service::pb::etcdserverpb::kv_client::KvClient;
use crate::service::pb::etcdserverpb::lease_client::LeaseClient;
use crate::service::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::service::pb::etcdserverpb::watch_client::WatchClient;
use crate::support::urls::parse_list;

/// Far more than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// What a refusal comes to on the wire.
type Refused = (Code, String);

fn refused<T: std::fmt::Debug>(outcome: Result<Response<T>, Status>) -> Refused {
    let status = outcome.expect_err("it is refused");
    (status.code(), status.message().to_owned())
}

fn says(code: Code, text: &str) -> Refused {
    (code, format!("etcdserver: {text}"))
}

fn user_empty() -> Refused {
    says(Code::InvalidArgument, "user name is empty")
}

fn denied() -> Refused {
    says(Code::PermissionDenied, "permission denied")
}

fn invalid_token() -> Refused {
    says(Code::Unauthenticated, "invalid auth token")
}

fn old_revision() -> Refused {
    says(Code::InvalidArgument, "revision of auth store is old")
}

/// A message with a token; an empty one stands for none.
fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("token", token.parse().unwrap());
    }
    request
}

/// A server that hashes passwords in no time.
struct Rig {
    _dir: TempDir,
    server: Server,
    channel: Channel,
}

impl Rig {
    async fn start() -> Rig {
        Rig::start_with(|_, _| {}).await
    }

    async fn start_with(edit: impl FnOnce(&mut Config, &Path)) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.member.data_dir = dir.path().join("data").to_str().unwrap().to_owned();
        config.member.listen_client = parse_list("http://127.0.0.1:0").unwrap();
        config.member.listen_peer = parse_list("http://127.0.0.1:0").unwrap();
        config.log.outputs = vec!["/dev/null".to_owned()];
        config.cluster.bcrypt_cost = 4;
        edit(&mut config, dir.path());
        let server = Server::spawn(config.build().unwrap()).await.unwrap();
        tokio::time::timeout(LONG, server.ready()).await.expect("a lone member elects itself");
        let channel = connect(&server).await;
        Rig { _dir: dir, server, channel }
    }

    /// The same with auth on; the token of root.
    async fn guarded() -> (Rig, String) {
        let rig = Rig::start().await;
        let token = enable(&rig.channel).await;
        (rig, token)
    }

    async fn stop(self) {
        drop(self.channel);
        self.server.stop().await.unwrap();
    }

    fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel.clone())
    }

    async fn put(&self, token: &str, key: &str, value: &str) {
        self.kv().put(with(token, put(key, value))).await.unwrap();
    }
}

async fn connect(server: &Server) -> Channel {
    let url = format!("http://{}", server.client_addresses()[0]);
    Channel::from_shared(url).unwrap().connect().await.unwrap()
}

/// Makes root, turns auth on and logs root in.
async fn enable(channel: &Channel) -> String {
    let mut auth = AuthClient::new(channel.clone());
    auth.user_add(user_add("root", "secret")).await.unwrap();
    auth.user_grant_role(grant("root", "root")).await.unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    login(channel, "root", "secret").await.unwrap()
}

async fn login(channel: &Channel, name: &str, password: &str) -> Result<String, Status> {
    let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
    let answer = AuthClient::new(channel.clone()).authenticate(request).await?;
    Ok(answer.into_inner().token)
}

/// Makes a user with the password "secret" and a role of the same name that may do this; the user's token.
async fn add_user(channel: &Channel, root: &str, name: &str, may: &[(Type, &str, &str)]) -> String {
    let mut auth = AuthClient::new(channel.clone());
    auth.user_add(with(root, user_add(name, "secret"))).await.unwrap();
    auth.role_add(with(root, pb::AuthRoleAddRequest { name: name.into() })).await.unwrap();
    for (kind, key, end) in may {
        let request = permit(name, *kind, key, end);
        auth.role_grant_permission(with(root, request)).await.unwrap();
    }
    auth.user_grant_role(with(root, grant(name, name))).await.unwrap();
    login(channel, name, "secret").await.unwrap()
}

fn user_add(name: &str, password: &str) -> pb::AuthUserAddRequest {
    pb::AuthUserAddRequest { name: name.into(), password: password.into(), ..Default::default() }
}

fn without_password(name: &str) -> pb::AuthUserAddRequest {
    let options = Some(UserAddOptions { no_password: true });
    pb::AuthUserAddRequest { name: name.into(), options, ..Default::default() }
}

fn change_password(name: &str, password: &str) -> pb::AuthUserChangePasswordRequest {
    let (name, password) = (name.into(), password.into());
    pb::AuthUserChangePasswordRequest { name, password, ..Default::default() }
}

fn grant(user: &str, role: &str) -> pb::AuthUserGrantRoleRequest {
    pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() }
}

fn permit(role: &str, kind: Type, key: &str, end: &str) -> pb::AuthRoleGrantPermissionRequest {
    let perm = Permission {
        perm_type: kind.into(),
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
    };
    pb::AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm) }
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    pb::PutRequest { key, value, ..Default::default() }
}

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

fn range(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest { range_end: end.to_owned().into(), ..get(key) }
}
