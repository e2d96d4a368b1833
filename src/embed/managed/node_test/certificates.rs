//! Who may speak to whom, by what its certificate says it is: a worker is a client like others, and no user.

use quorate_core::api::pb::etcdserverpb as pb;
use tonic::transport::Channel;

use super::*;
use crate::fleet::pki::{CertificateName, Folder};
use crate::service::pb::etcdserverpb::auth_client::AuthClient;
use crate::service::pb::etcdserverpb::kv_client::KvClient;
use crate::support::http_client::{HttpClient, HttpError, Target};
use crate::support::tls::{Protocol, Side};

impl Rig {
    /// What the peer port of `other` answers to this node's certificate of that name.
    async fn speaks_as_a_peer(&self, other: &Rig, name: CertificateName) -> Result<(), HttpError> {
        let pki = Folder::open(&self.dir.path().join("pki")).unwrap();
        let side = Side::open(&pki.tls(name, name), Protocol::default(), None).unwrap();
        let address = format!("127.0.0.1:{}", other.settings.peer_port);
        let client = HttpClient::new(Target::Tls { address, connector: side.connector() });
        client.get("/version").send(LONG).await.map(drop)
    }

    fn plain(&self) -> String {
        format!("http://127.0.0.1:{}", self.settings.plain_client_port.unwrap())
    }

    /// One that also lets clients of this machine in, who show nothing.
    async fn start_open(name: &str) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let plain_client_port = Some(free_ports(1)[0]);
        let settings = NodeSettings { plain_client_port, ..settings(dir.path(), name) };
        let managed = Managed::start(settings.clone()).await.unwrap();
        Rig { dir, settings, managed }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_22_only_who_holds_a_replica_speaks_as_a_peer() {
    let first = Rig::first().await;
    let (second, worker) = (Rig::start("n2").await, Rig::start("w1").await);
    second.join(&first.token("n2").await).await.unwrap();
    worker.join(&first.worker_token("w1").await).await.unwrap();
    second.speaks_as_a_peer(&first, CertificateName::Peer).await.unwrap();
    let why = worker.speaks_as_a_peer(&first, CertificateName::Client).await;
    let why = why.expect_err("a worker speaks as a peer");
    assert!(matches!(why, HttpError::Tls { .. }), "{why:?}");
    for rig in [worker, second, first] {
        rig.managed.stop().await.unwrap();
    }
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() }
}

/// Users `root` and `w1`, both of whom may do everything; then users are asked for.
async fn ask_for_users(auth: &mut AuthClient<Channel>) {
    let role = pb::AuthRoleAddRequest { name: "root".to_owned() };
    auth.role_add(role).await.unwrap();
    for name in ["root", "w1"] {
        let (name, password) = (name.to_owned(), "pw".to_owned());
        let user = pb::AuthUserAddRequest { name: name.clone(), password, ..Default::default() };
        auth.user_add(user).await.unwrap();
        let grant = pb::AuthUserGrantRoleRequest { user: name, role: "root".to_owned() };
        auth.user_grant_role(grant).await.unwrap();
    }
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_26_who_comes_through_a_worker_without_a_token_is_not_the_user_of_its_name() {
    let first = Rig::start_open("n1").await;
    first.node().bootstrap(BootstrapRequest::default()).await.unwrap();
    let worker = Rig::start_open("w1").await;
    worker.join(&first.worker_token("w1").await).await.unwrap();
    let mut kv = KvClient::connect(worker.plain()).await.unwrap();
    kv.put(put("before")).await.unwrap();
    ask_for_users(&mut AuthClient::connect(first.plain()).await.unwrap()).await;

    let why = kv.put(put("nobody")).await.expect_err("it is taken for the user w1");
    // As with a proxy whose certificate has no common name.
    assert_eq!(why.message(), "etcdserver: permission denied");
    // With a token it is whoever has logged in.
    let mut auth = AuthClient::connect(worker.plain()).await.unwrap();
    let login = pb::AuthenticateRequest { name: "root".to_owned(), password: "pw".to_owned() };
    let token = auth.authenticate(login).await.unwrap().into_inner().token;
    let mut asked = tonic::Request::new(put("root"));
    asked.metadata_mut().insert("token", token.parse().unwrap());
    kv.put(asked).await.unwrap();
    for rig in [worker, first] {
        rig.managed.stop().await.unwrap();
    }
}
