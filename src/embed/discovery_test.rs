//! First members that find each other: real servers in this process, and one more of ours as the discovery service.

use futures::future::join_all;
use quorate_core::api::pb::etcdserverpb as pb;
use tempfile::TempDir;
use tonic::transport::Channel;

use super::cluster_tests::{Cluster, LONG, eventually};
use super::tests::{config, start};
use super::{Server, StartError};
use crate::embed::Config;
use crate::keyspace::members::{cluster_id, member_id};
use crate::service::pb::etcdserverpb::auth_client::AuthClient;
use crate::service::pb::etcdserverpb::kv_client::KvClient;
use crate::support::tls::testing::{Authority, Folder, wanted};
use crate::support::urls::{parse_list, texts};

const TOKEN: &str = "8A591FAB";

/// A discovery service.
struct Service {
    dir: TempDir,
    server: Server,
}

impl Service {
    async fn new(change: impl FnOnce(&TempDir, &mut Config)) -> Service {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir);
        change(&dir, &mut config);
        Service { server: start(config).await, dir }
    }

    /// One that waits for so many members.
    async fn of(size: usize) -> Service {
        let service = Service::new(|_, _| ()).await;
        service.want(size).await;
        service
    }

    /// The same, for who logs in as `root` with the password `hunter2`.
    async fn with_users(size: usize) -> Service {
        let service = Service::of(size).await;
        let mut auth = AuthClient::connect(service.plain()).await.unwrap();
        let root = || "root".to_owned();
        let user = pb::AuthUserAddRequest {
            name: root(),
            password: "hunter2".to_owned(),
            ..Default::default()
        };
        auth.user_add(user).await.unwrap();
        auth.role_add(pb::AuthRoleAddRequest { name: root() }).await.unwrap();
        let grant = pb::AuthUserGrantRoleRequest { user: root(), role: root() };
        auth.user_grant_role(grant).await.unwrap();
        auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
        service
    }

    fn plain(&self) -> String {
        format!("http://{}", self.server.client_addresses()[0])
    }

    async fn kv(&self) -> KvClient<Channel> {
        KvClient::connect(self.plain()).await.unwrap()
    }

    async fn want(&self, size: usize) {
        let put = pb::PutRequest {
            key: format!("/_etcd/registry/{TOKEN}/_config/size").into(),
            value: size.to_string().into(),
            ..Default::default()
        };
        self.kv().await.put(put).await.unwrap();
    }

    /// How many members have registered.
    async fn registered(&self) -> usize {
        let members = pb::RangeRequest {
            key: format!("/_etcd/registry/{TOKEN}/members/").into(),
            range_end: format!("/_etcd/registry/{TOKEN}/members0").into(),
            ..Default::default()
        };
        self.kv().await.range(members).await.unwrap().into_inner().kvs.len()
    }
}

/// Members that look for each other there.
fn members(count: usize, endpoint: &str) -> Cluster {
    let mut cluster = Cluster::of(count);
    for config in &mut cluster.configs {
        config.cluster.initial_cluster = String::new();
        config.discovery.token = TOKEN.to_owned();
        config.discovery.endpoints = vec![endpoint.to_owned()];
    }
    cluster
}

async fn spawn(config: &Config) -> Result<Server, StartError> {
    Server::spawn(config.clone().build().unwrap()).await
}

async fn ready(server: &Server) {
    tokio::time::timeout(LONG, server.ready()).await.expect("there is a leader");
}

async fn refused(config: &Config) -> String {
    let spawned = tokio::time::timeout(LONG, spawn(config)).await.expect("the service answers");
    spawned.err().expect("it is refused").to_string()
}

#[tokio::test]
async fn members_find_each_other_and_need_the_service_no_more() {
    let service = Service::of(3).await;
    // The first endpoint is nobody's.
    let endpoints = format!("http://127.0.0.1:1,{}", service.plain());
    let mut cluster = members(4, "");
    for config in &mut cluster.configs {
        config.discovery.endpoints = endpoints.split(',').map(str::to_owned).collect();
    }
    let last = cluster.configs.pop().unwrap();
    let spawned = join_all(cluster.configs.iter().map(spawn)).await;
    let mut servers: Vec<Server> = spawned.into_iter().map(Result::unwrap).collect();
    let mut ids = Vec::new();
    for (server, config) in servers.iter().zip(&cluster.configs) {
        ready(server).await;
        let id = member_id(&texts(&config.member.advertise_peer), TOKEN);
        assert_eq!(server.host.keyspace().config().member_id, id);
        ids.push(id);
    }
    for server in &servers {
        assert_eq!(server.host.keyspace().config().cluster_id, cluster_id(&ids));
    }
    assert_eq!(
        refused(&last).await,
        "failed to join discovery cluster (discovery: cluster is full)"
    );
    service.server.stop().await.unwrap();
    servers.remove(0).stop().await.unwrap();
    servers.insert(0, spawn(&cluster.configs[0]).await.unwrap());
    ready(&servers[0]).await;
    for server in servers {
        server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_token_that_was_not_prepared_refuses_the_start_in_etcds_words() {
    let service = Service::new(|_, _| ()).await;
    let mut cluster = members(2, &service.plain());
    assert_eq!(
        refused(&cluster.configs[0]).await,
        "failed to join discovery cluster (discovery: size key not found)"
    );
    cluster.configs[0].cluster.initial_state = "existing".to_owned();
    assert_eq!(
        refused(&cluster.configs[0]).await,
        "discovery URL should not be set when joining existing initial cluster"
    );
    service.server.stop().await.unwrap();
}

#[tokio::test]
async fn two_members_of_one_name_are_refused_as_is_everybody_who_finds_them() {
    let service = Service::of(3).await;
    let mut cluster = members(3, &service.plain());
    cluster.configs[1].member.name = "m0".to_owned();
    let whys = join_all(cluster.configs.iter().map(refused)).await;
    for (why, want) in whys.iter().zip([
        "does not list this member: its name \"m0\" must be its alone",
        "does not list this member: its name \"m0\" must be its alone",
        "has 2 members instead of 3: two have registered under one name",
    ]) {
        assert!(why.contains(want), "{why}");
    }
    // A name of its own is all that was missing.
    cluster.configs[1].member.name = "m1".to_owned();
    let renamed = spawn(&cluster.configs[1]).await.unwrap();
    let others = join_all([0, 2].map(|member| spawn(&cluster.configs[member]))).await;
    let others: Vec<Server> = others.into_iter().map(Result::unwrap).collect();
    for server in others.iter().chain([&renamed]) {
        ready(server).await;
    }
    for server in others.into_iter().chain([renamed]) {
        server.stop().await.unwrap();
    }
    service.server.stop().await.unwrap();
}

#[tokio::test]
async fn a_service_is_spoken_with_over_tls() {
    let authority = Authority::new("authority");
    let service = Service::new(|dir, config| {
        let files = Folder::new(dir.path(), "server");
        config.member.listen_client = parse_list("http://127.0.0.1:0,https://127.0.0.1:0").unwrap();
        config.security.client =
            files.settings(&authority.sign(&wanted("service")), &authority.pem);
    })
    .await;
    service.want(1).await;
    // One place speaks both.
    let secure = service.plain().replace("http:", "https:");
    let files = Folder::new(service.dir.path(), "client");
    let client = files.settings(&authority.sign(&wanted("member")), &authority.pem);
    let mut cluster = members(1, &secure);
    let config = &mut cluster.configs[0];
    config.discovery.cert_file = client.cert_file;
    config.discovery.key_file = client.key_file;
    // Whom the system's authorities do not vouch for is told nothing: that is tried again for ever.
    let log = service.dir.path().join("log");
    let mut trusting_nobody = config.clone();
    trusting_nobody.log.inherit = false;
    trusting_nobody.log.outputs = vec![log.to_str().unwrap().to_owned()];
    let refused = eventually(LONG, "the log names the fault", async || {
        let log = std::fs::read_to_string(&log).ok()?;
        log.contains("x509: certificate signed by unknown authority").then_some(())
    });
    let began = tokio::select! {
        _ = spawn(&trusting_nobody) => true,
        () = refused => false,
    };
    assert!(!began);
    assert_eq!(service.registered().await, 0);
    config.discovery.insecure_skip_tls_verify = true;
    let member = tokio::time::timeout(LONG, spawn(config)).await.unwrap().unwrap();
    assert_eq!(service.registered().await, 1);
    member.stop().await.unwrap();
    std::fs::remove_dir_all(&config.member.data_dir).unwrap();
    config.discovery.insecure_skip_tls_verify = false;
    config.discovery.trusted_ca_file = client.trusted_ca_file;
    let member = tokio::time::timeout(LONG, spawn(config)).await.unwrap().unwrap();
    ready(&member).await;
    member.stop().await.unwrap();
    service.server.stop().await.unwrap();
}

#[tokio::test]
async fn a_member_logs_in_where_the_service_has_users() {
    let service = Service::with_users(1).await;
    let mut cluster = members(1, &service.plain());
    let config = &mut cluster.configs[0];
    config.discovery.user = "root".to_owned();
    config.discovery.password = "hunter3".to_owned();
    assert_eq!(
        refused(config).await,
        "failed to join discovery cluster (etcdserver: authentication failed, invalid user ID or password)"
    );
    config.discovery.password = "hunter2".to_owned();
    let member = tokio::time::timeout(LONG, spawn(config)).await.unwrap().unwrap();
    ready(&member).await;
    member.stop().await.unwrap();
    service.server.stop().await.unwrap();
}

#[tokio::test]
async fn a_member_logs_in_at_the_second_endpoint_where_the_first_is_silent() {
    let service = Service::with_users(1).await;
    // The kernel takes connections there, and nobody reads what they say.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut cluster = members(1, &format!("http://{}", silent.local_addr().unwrap()));
    let config = &mut cluster.configs[0];
    config.discovery.endpoints.push(service.plain());
    config.discovery.user = "root:hunter2".to_owned();
    let member = tokio::time::timeout(LONG, spawn(config)).await.unwrap().unwrap();
    ready(&member).await;
    member.stop().await.unwrap();
    service.server.stop().await.unwrap();
}
