//! Servers and clusters over TLS in this process: real sockets, certificates made in the test.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::{TokioExecutor, TokioIo};
use quorate_core::api::pb::etcdserverpb as pb;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use super::Server;
use super::cluster_tests::{Cluster, eventually};
use crate::embed::Config;
use crate::service::pb::etcdserverpb::auth_client::AuthClient;
use crate::service::pb::etcdserverpb::kv_client::KvClient;
use crate::support::tls::testing::{Authority, Folder, wanted};
use crate::support::tls::{Connector, Protocol, Side, TlsSettings, tls_cause};
use crate::support::urls::parse_list;

/// Far more than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

async fn secure(connector: &Connector, address: &str) -> Result<Stream, String> {
    let stream = TcpStream::connect(address).await.map_err(|why| why.to_string())?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    connector.connect(host, stream).await.map_err(|why| why.to_string())
}

/// Dials for tonic.
#[derive(Clone)]
struct Dial(Connector);

impl tower_service::Service<Uri> for Dial {
    type Response = TokioIo<Stream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.0.clone();
        Box::pin(async move {
            let address = uri.authority().unwrap().as_str().to_owned();
            let stream = secure(&connector, &address).await.map_err(std::io::Error::other)?;
            Ok(TokioIo::new(stream))
        })
    }
}

async fn channel(connector: &Connector, address: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let connected = endpoint.connect_with_connector(Dial(connector.clone())).await;
    connected.map_err(|why| why.to_string())
}

async fn kv(connector: &Connector, address: &str) -> Result<KvClient<Channel>, String> {
    channel(connector, address).await.map(KvClient::new)
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() }
}

async fn http(stream: Stream, path: &str) -> String {
    ask(stream, &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await
}

async fn ask(mut stream: Stream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn http2_status(stream: Stream, path: &str) -> u16 {
    use hyper::client::conn::http2;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get(format!("https://a{path}"));
    let body = http_body_util::Empty::<bytes::Bytes>::new();
    let answer = sender.send_request(request.body(body).unwrap()).await.unwrap();
    connection.abort();
    answer.status().as_u16()
}

/// A server's settings, and what its clients are set up with.
struct Setup {
    dir: TempDir,
    authority: Authority,
    server_files: Folder,
    client_files: Folder,
    config: Config,
    client: TlsSettings,
}

fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("authority");
    let server_files = Folder::new(dir.path(), "server");
    let client_files = Folder::new(dir.path(), "client");
    let mut config = Config::default();
    config.member.data_dir = dir.path().join("data").to_str().unwrap().to_owned();
    config.member.listen_client = parse_list("https://127.0.0.1:0").unwrap();
    config.member.listen_peer = parse_list("http://127.0.0.1:0").unwrap();
    config.log.outputs = vec![dir.path().join("log").to_str().unwrap().to_owned()];
    config.security.client =
        server_files.settings(&authority.sign(&wanted("server")), &authority.pem);
    let client = client_files.settings(&authority.sign(&wanted("client")), &authority.pem);
    Setup { dir, authority, server_files, client_files, config, client }
}

impl Setup {
    fn connector(&self) -> Connector {
        Side::open(&self.client, Protocol::default(), None).unwrap().connector()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

async fn start(config: &Config) -> Server {
    let server = Server::spawn(config.clone().build().unwrap()).await.unwrap();
    tokio::time::timeout(LONG, server.ready()).await.expect("a lone member elects itself");
    server
}

#[tokio::test]
async fn one_secure_port_speaks_grpc_and_both_https() {
    let mut setup = setup();
    setup.config.member.host_whitelist = vec!["elsewhere".to_owned()];
    let server = start(&setup.config).await;
    let (connector, address) = (setup.connector(), server.client_addresses()[0].clone());
    let mut client = kv(&connector, &address).await.unwrap();
    client.put(put("a")).await.unwrap();
    // The host is not looked at: the certificate speaks for it.
    let answer = http(secure(&connector, &address).await.unwrap(), "/health").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"true\""), "{answer}");
    assert_eq!(http2_status(secure(&connector, &address).await.unwrap(), "/health").await, 200);
    assert_eq!(http2_status(secure(&connector, &address).await.unwrap(), "/x").await, 404);
    drop(client);
    server.stop().await.unwrap();
    assert!(setup.log().contains("serving client traffic securely"));
}

async fn post(stream: Stream, path: &str) -> String {
    ask(
        stream,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        ),
    )
    .await
}

/// The gateway passes no name on: who took itself for the user in its certificate would act as nobody.
#[tokio::test]
async fn who_is_named_by_a_certificate_is_refused_by_the_gateway_while_users_count() {
    let mut setup = setup();
    setup.config.security.client.client_cert_auth = true;
    setup.config.cluster.bcrypt_cost = 4;
    setup.client_files.show(&setup.authority.sign(&wanted("root")));
    let server = start(&setup.config).await;
    let (connector, address) = (setup.connector(), server.client_addresses()[0].clone());
    let path = "/v3/auth/status";
    let answer = post(secure(&connector, &address).await.unwrap(), path).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "users do not count yet: {answer}");
    enable_auth(channel(&connector, &address).await.unwrap()).await;
    for path in [path, "/v3beta/auth/status", "/v3/unknown", "/%76%33/kv/range"] {
        let answer = post(secure(&connector, &address).await.unwrap(), path).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
        let text = "CommonName of client sending a request against gateway will be ignored and not used as expected\n";
        assert!(answer.ends_with(text), "{path}: {answer}");
    }
    let answer = http(secure(&connector, &address).await.unwrap(), "/health").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "only the gateway refuses it: {answer}");
    // The name itself counts over gRPC, and a certificate without one may ask the gateway.
    kv(&connector, &address).await.unwrap().put(put("a")).await.unwrap();
    setup.client_files.show(&setup.authority.sign(&wanted("")));
    let answer = post(secure(&setup.connector(), &address).await.unwrap(), path).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"enabled\":true"), "{answer}");
    // It is somebody whom nobody knows, not nobody.
    let refused = kv(&setup.connector(), &address).await.unwrap().put(put("a")).await.unwrap_err();
    let told = (refused.code(), refused.message());
    assert_eq!(told, (tonic::Code::PermissionDenied, "etcdserver: permission denied"));
    server.stop().await.unwrap();
}

async fn enable_auth(channel: Channel) {
    let mut auth = AuthClient::new(channel);
    let user = pb::AuthUserAddRequest {
        name: "root".to_owned(),
        password: "p".to_owned(),
        ..Default::default()
    };
    auth.user_add(user).await.unwrap();
    let (user, role) = ("root".to_owned(), "root".to_owned());
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user, role }).await.unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
}

#[tokio::test]
async fn http_and_https_share_a_port_when_asked_to() {
    let mut setup = setup();
    let port = super::cluster_tests::free_ports(1)[0];
    let urls = format!("http://127.0.0.1:{port},https://127.0.0.1:{port}");
    setup.config.member.listen_client = parse_list(&urls).unwrap();
    let server = start(&setup.config).await;
    let address = &server.client_addresses()[0];
    assert_eq!(server.client_addresses().len(), 1);
    kv(&setup.connector(), address).await.unwrap().put(put("a")).await.unwrap();
    let mut plain = KvClient::connect(format!("http://{address}")).await.unwrap();
    assert_eq!(plain.put(put("a")).await.unwrap().into_inner().header.unwrap().revision, 3);
    drop(plain);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_refused_connection_is_one_line_in_the_log() {
    let setup = setup();
    let server = start(&setup.config).await;
    let address = server.client_addresses()[0].clone();
    let mut plain = TcpStream::connect(&address).await.unwrap();
    let from = plain.local_addr().unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    let _ = plain.read_to_end(&mut heard).await;
    assert!(heard.is_empty(), "nothing is said to who does not speak TLS, as with etcd");
    // And one whose certificate is of nobody's.
    let stranger = Authority::new("stranger");
    setup.client_files.show(&stranger.sign(&wanted("client")));
    if let Ok(mut stream) = secure(&setup.connector(), &address).await {
        // With TLS 1.3 the other side's verdict comes with the first read.
        let why = stream.read_to_end(&mut heard).await.unwrap_err();
        let why = tls_cause(&why).unwrap();
        assert_eq!(why, "remote error: tls: unknown certificate authority");
    }
    // A connection that says nothing and goes is no news.
    drop(TcpStream::connect(&address).await.unwrap());
    // A client may know its verdict before the server has told the log.
    let refused = || setup.log().matches("rejected connection on client endpoint").count();
    eventually(LONG, "two lines are told", async || (refused() >= 2).then_some(())).await;
    server.stop().await.unwrap();
    let log = setup.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .filter(|line| line.contains("rejected connection on client endpoint"))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let errors: Vec<&str> = lines.iter().map(|line| line["error"].as_str().unwrap()).collect();
    let unknown =
        "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert_eq!(errors, ["tls: first record does not look like a TLS handshake", unknown]);
    assert_eq!(lines[0]["remote-addr"], from.to_string());
    assert_eq!((&lines[0]["level"], &lines[0]["server-name"]), (&"warn".into(), &"".into()));
}

/// Clients that connect anew for every request, and one that stays; all stop at the first request that fails.
struct Load {
    done: Vec<Arc<AtomicUsize>>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Load {
    fn start(setup: &Setup, address: &str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut clients, mut counts) = (JoinSet::new(), Vec::new());
        for number in 0..4 {
            let done = Arc::new(AtomicUsize::new(0));
            counts.push(Arc::clone(&done));
            let (connector, address, stop) =
                (setup.connector(), address.to_owned(), Arc::clone(&stop));
            clients.spawn(async move {
                let mut staying = kv(&connector, &address).await.unwrap();
                while !stop.load(Relaxed) {
                    let mut client = match number {
                        0 => staying.clone(),
                        _ => kv(&connector, &address).await.unwrap(),
                    };
                    client.put(put("a")).await.unwrap();
                    done.fetch_add(1, Relaxed);
                }
                staying.put(put("a")).await.unwrap();
            });
        }
        Load { done: counts, stop, clients }
    }

    /// Waits until each client has begun, and ended, a request after now.
    async fn go_on(&self) {
        let counts = || self.done.iter().map(|count| count.load(Relaxed)).collect::<Vec<_>>();
        let before = counts();
        let gone_on = async {
            while counts().iter().zip(&before).any(|(now, before)| *now < before + 2) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, gone_on).await.expect("no request failed");
    }

    async fn end(mut self) {
        self.stop.store(true, Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("no request failed");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_authorities_rotate_under_load_without_a_failed_request() {
    let setup = setup();
    let server = start(&setup.config).await;
    let load = Load::start(&setup, &server.client_addresses()[0]);
    let both_sides = [(&setup.server_files, "server"), (&setup.client_files, "client")];
    let mut before = setup.authority.pem.clone();
    for round in 0..3 {
        let next = Authority::new(&format!("authority {round}"));
        let both = format!("{before}{}", next.pem);
        for (files, _) in both_sides {
            files.put("ca", &both);
        }
        load.go_on().await;
        for (files, name) in both_sides {
            files.show(&next.sign(&wanted(name)));
        }
        load.go_on().await;
        for (files, _) in both_sides {
            files.put("ca", &next.pem);
        }
        load.go_on().await;
        before = next.pem;
    }
    load.end().await;
    server.stop().await.unwrap();
    assert!(setup.log().contains("reloaded the trusted authorities"));
}

/// The cluster's peer URLs become secure ones.
fn over_tls(cluster: &mut Cluster) {
    for config in &mut cluster.configs {
        let secure = |text: &str| text.replace("http://", "https://");
        for urls in [&mut config.member.listen_peer, &mut config.member.advertise_peer] {
            *urls = parse_list(&secure(&urls[0].to_string())).unwrap();
        }
        config.cluster.initial_cluster = secure(&config.cluster.initial_cluster);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_speak_to_each_other_over_mutual_tls() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("authority");
    let mut cluster = Cluster::of(3);
    over_tls(&mut cluster);
    let mut folders = Vec::new();
    for (i, config) in cluster.configs.iter_mut().enumerate() {
        let folder = Folder::new(dir.path(), &format!("m{i}"));
        let mut settings = folder.settings(&authority.sign(&wanted("member")), &authority.pem);
        settings.client_cert_auth = true;
        settings.allowed_common_names = vec!["member".to_owned()];
        config.security.peer = settings;
        folders.push(folder);
    }
    cluster.start_all(&[0, 1, 2]).await;
    let first = cluster.leader(LONG).await;
    cluster.put(first, "a", "1").await;
    cluster.everywhere("a", "1").await;

    // Its name is wrong from now on: it is not heard any more, once its streams are made anew.
    cluster.stop(first).await;
    folders[first].show(&authority.sign(&wanted("stranger")));
    cluster.start(first).await;
    let others: Vec<usize> = (0..3).filter(|member| *member != first).collect();
    let second = cluster.leader_of(&others, LONG).await;
    cluster.put(second, "b", "2").await;
    assert_eq!(cluster.named_by(first), None);
    folders[first].show(&authority.sign(&wanted("member")));
    cluster.everywhere("b", "2").await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_with_certificates_of_their_own_making_replicate() {
    let mut cluster = Cluster::of(3);
    over_tls(&mut cluster);
    for config in &mut cluster.configs {
        config.security.peer_auto = true;
    }
    cluster.start_all(&[0, 1, 2]).await;
    let leader = cluster.leader(LONG).await;
    cluster.put(leader, "a", "1").await;
    cluster.everywhere("a", "1").await;
    for config in &cluster.configs {
        let folder = std::path::Path::new(&config.member.data_dir).join("fixtures/peer");
        assert!(folder.join("cert.pem").exists() && folder.join("key.pem").exists());
    }
    cluster.stop_all().await;
}
