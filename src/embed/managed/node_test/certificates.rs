//! Who may speak to whom, by what its certificate says it is: a worker is a client like others, and no user.

use quorate_core::api::pb::etcdserverpb as pb;
use tonic::transport::Channel;

use super::*;
use crate::fleet::api::certificates::{RefreshPlanRequest, RefreshRunRequest};
use crate::fleet::pki::{CertificateName, Folder};
use crate::service::pb::etcdserverpb::auth_client::AuthClient;
use crate::service::pb::etcdserverpb::cluster_client::ClusterClient;
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

    async fn announces_an_authority(&self) {
        let certificates = vec!["ca".to_owned()];
        let ask = RefreshPlanRequest { certificates: certificates.clone() };
        let seed = self.node().plan_certificates(ask).await.unwrap().seed;
        let run = RefreshRunRequest { certificates, seed, ..Default::default() };
        self.node().run_certificates(run).await.unwrap();
    }

    async fn has_changed_its_authority(&self) {
        eventually("the change of the authority is over", async || {
            let told = self.node().certificates_status().await;
            // It follows what is over within a second.
            let pki = Folder::open(&self.dir.path().join("pki")).unwrap();
            let trusts = pki.read().unwrap().authorities.matches("BEGIN").count();
            told.is_ok_and(|told| told.rotation.is_none()) && trusts == 1
        })
        .await;
    }

    pub(super) fn plain(&self) -> String {
        format!("http://127.0.0.1:{}", self.settings.plain_client_port.unwrap())
    }

    /// One that also lets clients of this machine in, who show nothing.
    pub(super) async fn start_open(name: &str) -> Rig {
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

/// No change of the authority waits for a node that is not entered yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_24_what_was_signed_before_the_authority_changed_is_signed_anew_for_who_comes_in() {
    let first = Rig::first().await;
    let (second, worker) = (Rig::start("n2").await, Rig::start("w1").await);
    for joiner in [&worker, &second] {
        let token = match joiner.settings.name.as_str() {
            "w1" => first.worker_token("w1").await,
            name => first.token(name).await,
        };
        let changes = async {
            first.announces_an_authority().await;
            first.has_changed_its_authority().await;
        };
        let held = async {
            first.node().hold_at("signed", changes).await;
            Ok(())
        };
        tokio::try_join!(joiner.join(&token), held).unwrap();
        let trusted =
            |rig: &Rig| Folder::open(&rig.dir.path().join("pki")).unwrap().read().unwrap();
        let (own, fleets) = (trusted(joiner), trusted(&first).authorities);
        assert_eq!(own.authorities, fleets);
        for (name, pair) in &own.pairs {
            pair.check(*name, &fleets, chrono::Utc::now().timestamp()).unwrap();
        }
    }
    for rig in [second, worker, first] {
        rig.managed.stop().await.unwrap();
    }
}

/// One that came by etcd's own call, and that nobody has started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_24_whom_a_change_of_the_authority_waits_for_is_told_whoever_it_is() {
    let first = Rig::start_open("n1").await;
    first.node().bootstrap(BootstrapRequest::default()).await.unwrap();
    let mut cluster = ClusterClient::connect(first.plain()).await.unwrap();
    let peer_ur_ls = vec!["https://127.0.0.1:1".to_owned()];
    let add = pb::MemberAddRequest { peer_ur_ls, is_learner: true };
    let added = cluster.member_add(add).await.unwrap().into_inner().member.unwrap().id;
    first.announces_an_authority().await;
    let told = first.node().certificates_status().await.unwrap();
    let rotation = told.rotation.expect("it waits for the new member");
    assert!(rotation.waits_for.contains(&format!("{added:x}")), "{rotation:?}");

    let remove = pb::MemberRemoveRequest { id: added };
    cluster.member_remove(remove).await.unwrap();
    first.has_changed_its_authority().await;
    first.managed.stop().await.unwrap();
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
