//! Whole servers in this process, spoken to over real sockets.

use std::io::Read as _;
use std::time::Duration;

use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::health::HealthCheckRequest;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tonic::Code;
use tonic::transport::Channel;

use super::Server;
use crate::embed::Config;
use crate::service::pb::etcdserverpb::cluster_client::ClusterClient;
use crate::service::pb::etcdserverpb::kv_client::KvClient;
use crate::service::pb::etcdserverpb::lease_client::LeaseClient;
use crate::service::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::service::pb::etcdserverpb::watch_client::WatchClient;
use crate::service::pb::health::health_client::HealthClient;
use crate::support::urls::parse_list;

/// Far more than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);

pub(super) fn config(dir: &TempDir) -> Config {
    let mut config = Config::default();
    config.member.data_dir = dir.path().join("data").to_str().unwrap().to_owned();
    config.member.listen_client = parse_list("http://127.0.0.1:0").unwrap();
    config.member.listen_peer = parse_list("http://127.0.0.1:0").unwrap();
    config.log.outputs = vec!["/dev/null".to_owned()];
    config
}

pub(super) async fn start(config: Config) -> Server {
    let server = Server::spawn(config.build().unwrap()).await.unwrap();
    tokio::time::timeout(LONG, server.ready()).await.expect("a lone member elects itself");
    server
}

async fn kv(server: &Server) -> KvClient<Channel> {
    let url = format!("http://{}", server.client_addresses()[0]);
    KvClient::connect(url).await.unwrap()
}

pub(super) fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

pub(super) fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

/// Sends `bytes` and ends its half, then reads until the other side has nothing more to say.
async fn send(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    rest_of(stream).await
}

async fn rest_of(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(LONG, read).await.expect("the connection ends");
    answer
}

/// Asks with its half left open, and reads to the end of the connection.
pub(super) async fn http(address: &str, head: &str) -> String {
    let request = format!("{head}\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    String::from_utf8_lossy(&rest_of(stream).await).into_owned()
}

#[tokio::test]
async fn two_servers_in_one_process_know_nothing_of_each_other() {
    let (one_dir, two_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (start(config(&one_dir)).await, start(config(&two_dir)).await);
    let (mut first, mut second) = (kv(&one).await, kv(&two).await);
    let answer = first.put(put("a", "1")).await.unwrap().into_inner();
    let header = answer.header.unwrap();
    assert_eq!(header.revision, 2);
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term > 0);
    let found = second.range(get("a")).await.unwrap().into_inner();
    assert_eq!((found.count, found.header.unwrap().revision), (0, 1));
    let metrics = http(&one.client_addresses()[0], "GET /metrics HTTP/1.1").await;
    assert!(metrics.contains("etcd_mvcc_put_total 1"), "{metrics}");
    let metrics = http(&two.client_addresses()[0], "GET /metrics HTTP/1.1").await;
    assert!(metrics.contains("etcd_mvcc_put_total 0"), "{metrics}");
    drop((first, second));
    one.stop().await.unwrap();
    two.stop().await.unwrap();
}

#[tokio::test]
async fn what_was_put_is_there_after_a_stop_and_the_directory_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(config(&dir)).await;
    let mut client = kv(&server).await;
    client.put(put("a", "1")).await.unwrap();
    let mut hasty = config(&dir);
    hasty.member.holder_wait = Duration::ZERO;
    let other = Server::spawn(hasty.build().unwrap()).await.err().unwrap();
    assert!(other.to_string().contains("is in use by process"), "{other}");
    drop(client);
    let patient = tokio::spawn(Server::spawn(config(&dir).build().unwrap()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!patient.is_finished(), "it waits for the directory");
    server.stop().await.unwrap();
    patient.await.unwrap().unwrap().stop().await.unwrap();
    // What the first start was told of the cluster is not asked for again.
    let mut again = config(&dir);
    again.cluster.initial_cluster = "x=http://localhost:1".to_owned();
    let server = start(again).await;
    let found = kv(&server).await.range(get("a")).await.unwrap().into_inner();
    assert_eq!(&found.kvs[0].value[..], b"1");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn one_port_speaks_grpc_and_http_and_survives_garbage() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(config(&dir)).await;
    let address = server.client_addresses()[0].clone();
    let mut noise = vec![0_u8; 4096];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let cases: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"\0".to_vec(),
        b"PRI * HT".to_vec(),
        [&preface[..], b"garbage garbage garbage"].concat(),
        [&preface[..], &noise[..]].concat(),
        b"GET".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        [b"GET /", &[b'a'; 200_000][..]].concat(),
        noise,
    ];
    for case in cases {
        send(&address, &case).await;
    }
    let answer = http(&address, "GET /version HTTP/1.1\r\nUpgrade: h2c").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\"etcdserver\":\"3.7.1\""), "{answer}");
    assert!(http(&address, "GET /health HTTP/1.1").await.contains("{\"health\":\"true\""));
    assert!(http(&address, "GET /readyz?verbose HTTP/1.1").await.contains("[+]non_learner ok"));
    kv(&server).await.put(put("a", "1")).await.unwrap();
    server.stop().await.unwrap();
}

/// As Go's server does (net/http `server.go`, `connReader`); the page is longer than a socket takes at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_ends_its_half_hears_its_answer_whole() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(config(&dir)).await;
    let address = &server.client_addresses()[0];
    for turn in 0..300 {
        let closing = ["", "Connection: close\r\n"][turn % 2];
        let request = format!("GET /metrics HTTP/1.1\r\nHost: a\r\n{closing}\r\n");
        let answer = String::from_utf8(send(address, request.as_bytes()).await).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("turn {turn}"));
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        assert_eq!(body.len(), length.parse::<usize>().unwrap(), "turn {turn}");
    }
    // A call of the gateway ends with its client.
    let watch = r#"{"create_request":{"key":"YQ=="}}"#;
    let head = format!("POST /v3/watch HTTP/1.1\r\nHost: a\r\nContent-Length: {}", watch.len());
    send(address, format!("{head}\r\n\r\n{watch}").as_bytes()).await;
    server.stop().await.unwrap();
}

/// etcdctl 3.4 calls the members that `--cluster` finds by their URLs.
#[tokio::test]
async fn an_authority_that_is_a_url_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(config(&dir)).await;
    // POST http /grpc.health.v1.Health/Check, application/grpc, and an empty message.
    let mut block = vec![0x83, 0x86];
    for (name, value) in [
        (&[0x04][..], &b"/grpc.health.v1.Health/Check"[..]),
        (&[0x01], b"http://127.0.0.1:2379"),
        (&[0x0f, 0x10], b"application/grpc"),
    ] {
        block.extend_from_slice(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value);
    }
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    sent.extend_from_slice(&[0, 0, block.len() as u8, 1, 4, 0, 0, 0, 1]);
    sent.extend_from_slice(&block);
    sent.extend_from_slice(&[0, 0, 5, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    let mut stream = TcpStream::connect(&server.client_addresses()[0]).await.unwrap();
    stream.write_all(&sent).await.unwrap();
    let mut frame = [0; 9];
    loop {
        stream.read_exact(&mut frame).await.unwrap();
        let (kind, stream_id) = (frame[3], frame[8]);
        let mut body = vec![0; usize::from(u16::from_be_bytes([frame[1], frame[2]]))];
        stream.read_exact(&mut body).await.unwrap();
        if stream_id == 1 {
            // HEADERS, not RST_STREAM.
            assert_eq!(kind, 1, "{body:?}");
            break;
        }
    }
    drop(stream);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn requests_are_refused_with_etcds_codes_and_texts() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(config(&dir)).await;
    let mut client = kv(&server).await;
    let refused = client.put(put("", "1")).await.unwrap_err();
    let want = (Code::InvalidArgument, "etcdserver: key is not provided");
    assert_eq!((refused.code(), refused.message()), want);
    let refused = client.put(put("a", &"v".repeat(1_600_000))).await.unwrap_err();
    let want = (Code::InvalidArgument, "etcdserver: request is too large");
    assert_eq!((refused.code(), refused.message()), want);
    let refused = client.put(put("a", &"v".repeat(3_000_000))).await.unwrap_err();
    let text = "grpc: received message larger than max (3000008 vs. 2097152)";
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, text));
    let future = pb::RangeRequest { revision: 99, ..get("a") };
    assert_eq!(client.range(future).await.unwrap_err().code(), Code::OutOfRange);
    let mut wants_leader = tonic::Request::new(get("a"));
    wants_leader.metadata_mut().insert("hasleader", "true".parse().unwrap());
    client.range(wants_leader).await.unwrap();
    let mut odd = tonic::Request::new(get("a"));
    let version = tonic::metadata::MetadataValue::try_from(&b"\xff\xfe"[..]).unwrap();
    odd.metadata_mut().insert("client-api-version", version);
    let refused = client.range(odd).await.unwrap_err();
    let want = (Code::InvalidArgument, "etcdserver: invalid client api version");
    assert_eq!((refused.code(), refused.message()), want);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn other_services_answer_or_say_that_they_are_not_built() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(config(&dir)).await;
    let url = format!("http://{}", server.client_addresses()[0]);
    let mut maintenance = MaintenanceClient::connect(url.clone()).await.unwrap();
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.leader, status.header.unwrap().member_id);
    assert_eq!((status.db_size_quota, status.errors.len()), (2 << 30, 0));
    let alarms = maintenance.alarm(pb::AlarmRequest::default()).await.unwrap().into_inner();
    assert!(alarms.alarms.is_empty());
    let done = maintenance.defragment(pb::DefragmentRequest {}).await.unwrap().into_inner();
    assert_eq!(done.header, None);
    let downgrade =
        |action, version: &str| pb::DowngradeRequest { action, version: version.into() };
    let refused = maintenance.downgrade(downgrade(1, "3.6")).await.unwrap_err();
    let text = "etcdserver: invalid downgrade target version";
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, text));
    let cancelled = maintenance.downgrade(downgrade(2, "")).await.unwrap().into_inner();
    assert_eq!(cancelled.version, "3.7");
    assert_ne!(cancelled.header.unwrap().member_id, 0);
    let refused = maintenance.snapshot(pb::SnapshotRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let mut cluster = ClusterClient::connect(url.clone()).await.unwrap();
    let list = cluster.member_list(pb::MemberListRequest { linearizable: true }).await.unwrap();
    let list = list.into_inner();
    assert_eq!((list.members.len(), list.header.unwrap().revision), (1, 0));
    let mut health = HealthClient::connect(url).await.unwrap();
    let told = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(told.status, 1);
    drop((maintenance, cluster, health));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn http_can_have_listeners_of_its_own_and_sockets_can_be_files() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("etcd.sock");
    let mut config = config(&dir);
    config.member.listen_client_http = parse_list("http://127.0.0.1:0").unwrap();
    // Two listeners on port 0 of one address are two ports.
    config.member.listen_client =
        parse_list(&format!("http://localhost:0,unix://{}", socket.display())).unwrap();
    let server = start(config).await;
    let [grpc, file, only_http] = server.client_addresses() else { panic!("three listeners") };
    assert_eq!(file.as_str(), socket.to_str().unwrap());
    assert!(http(only_http, "GET /version HTTP/1.1").await.contains("3.7.1"));
    assert!(!http(grpc, "GET /version HTTP/1.1").await.contains("200 OK"));
    KvClient::connect(format!("http://{grpc}")).await.unwrap().put(put("a", "1")).await.unwrap();
    let mut refused = KvClient::connect(format!("http://{only_http}")).await.unwrap();
    assert!(refused.put(put("a", "1")).await.is_err());
    UnixStream::connect(&socket).await.unwrap();
    drop(refused);
    server.stop().await.unwrap();
    assert!(!socket.exists());
}

/// hyper holds connections that may upgrade to no version of HTTP: gRPC was answered on peer ports.
#[tokio::test]
async fn clients_are_not_served_on_a_peer_port() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let peers = format!("http://{free}");
    config.member.listen_peer = parse_list(&peers).unwrap();
    let server = start(config).await;
    let mut refused = KvClient::connect(peers).await.unwrap();
    assert!(refused.put(put("a", "1")).await.is_err());
    drop(refused);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn an_address_in_use_stops_the_start_in_gos_words() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut config = config(&dir);
    config.member.listen_client = parse_list(&format!("http://{address}")).unwrap();
    let refused = Server::spawn(config.build().unwrap()).await.err().unwrap();
    let want = format!("listen tcp {address}: bind: address already in use");
    assert_eq!(refused.to_string(), want);
    assert!(!dir.path().join("data").exists(), "nothing was made before the ports were ours");
}

#[tokio::test]
async fn requests_that_the_journal_could_not_carry_are_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.member.journal_segment_bytes = 64 << 10;
    let refused = config.clone().build().err().unwrap().to_string();
    let want = "--max-request-bytes 1572864 is more than journal segments of 65536 bytes can take: at most 15296; \
                lower it, or raise --journal-segment-bytes";
    assert_eq!(refused, want);
    config.cluster.request_bytes_max = 15_296;
    let server = start(config).await;
    let mut client = kv(&server).await;
    client.put(put("a", &"v".repeat(15_270))).await.unwrap();
    let refused = client.put(put("a", &"v".repeat(15_300))).await.unwrap_err();
    let want = (Code::InvalidArgument, "etcdserver: request is too large");
    assert_eq!((refused.code(), refused.message()), want);
    drop(client);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_streams_that_never_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(config(&dir)).await;
    let url = format!("http://{}", server.client_addresses()[0]);
    let mut leases = LeaseClient::connect(url.clone()).await.unwrap();
    let (_ask, asks) = tokio::sync::mpsc::channel(1);
    let asks = tokio_stream::wrappers::ReceiverStream::new(asks);
    let mut alive = leases.lease_keep_alive(asks).await.unwrap().into_inner();
    let mut watches = WatchClient::connect(url).await.unwrap();
    let create = pb::WatchCreateRequest { key: "a".into(), ..Default::default() };
    let create = pb::watch_request::RequestUnion::CreateRequest(create);
    let request = pb::WatchRequest { request_union: Some(create) };
    let requests =
        tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
    let mut watched = watches.watch(requests).await.unwrap().into_inner();
    assert!(watched.message().await.unwrap().unwrap().created);
    let began = tokio::time::Instant::now();
    let ends = async {
        let (alive, watched) = (alive.message().await, watched.message().await);
        for status in [alive.unwrap_err(), watched.unwrap_err()] {
            let want = (Code::Unavailable, "etcdserver: server stopped");
            assert_eq!((status.code(), status.message()), want);
        }
    };
    let (stopped, ()) = tokio::join!(server.stop(), ends);
    stopped.unwrap();
    // A cut would have come after the request timeout of 7 s.
    assert!(began.elapsed() < Duration::from_secs(6));
}

#[tokio::test]
async fn each_server_has_a_log_of_its_own() {
    let (one_dir, two_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = |dir: &TempDir| dir.path().join("log").to_str().unwrap().to_owned();
    let mut one = config(&one_dir);
    one.member.name = "one".to_owned();
    one.cluster.initial_cluster = "one=http://localhost:2380".to_owned();
    one.log.outputs = vec![log(&one_dir)];
    let mut two = config(&two_dir);
    two.log.outputs = vec![log(&two_dir)];
    let (one, two) = (start(one).await, start(two).await);
    one.stop().await.unwrap();
    two.stop().await.unwrap();
    let read = |dir: &TempDir| std::fs::read_to_string(log(dir)).unwrap();
    let (first, second) = (read(&one_dir), read(&two_dir));
    for text in [&first, &second] {
        for line in text.lines() {
            let fields: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
            assert_ne!(fields["level"], "error", "{line}");
        }
        for want in
            ["ready to serve client requests", "serving client traffic", "closed etcd server"]
        {
            assert!(text.contains(want), "{want} is missing in {text}");
        }
    }
    assert!(first.contains("\"name\":\"one\"") && !second.contains("\"name\":\"one\""));
}

/// Names and kinds that `/metrics` shows, in name order.
fn metric_names(text: &str) -> Vec<String> {
    let mut names: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(str::to_owned).collect();
    names.sort();
    names
}

fn metric(text: &str, name: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// `names.txt` lists etcd's metrics and ours: `both`, `etcd` (absent here, docs/COMPATIBILITY.md says so) or `ours`.
#[tokio::test]
async fn metrics_are_those_of_the_list() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(config(&dir)).await;
    kv(&server).await.put(put("a", "1")).await.unwrap();
    let text = http(&server.client_addresses()[0], "GET /metrics HTTP/1.1").await;
    let list = include_str!("../../tests/testdata/metrics/names.txt");
    let listed = list.lines().filter(|line| !line.starts_with(['#', 'e']));
    let mut listed: Vec<_> =
        listed.filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect();
    listed.sort();
    assert_eq!(metric_names(&text), listed);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_written_shows_part_by_part() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.member.journal_segment_bytes = 64 << 10;
    config.cluster.request_bytes_max = 10_000;
    config.member.base_after_bytes = 100 << 10;
    let server = start(config).await;
    let mut client = kv(&server).await;
    let address = server.client_addresses()[0].clone();
    let mut puts = 0;
    let text = loop {
        for _ in 0..20 {
            client.put(put(&format!("key-{puts}"), &"v".repeat(1000))).await.unwrap();
            puts += 1;
        }
        let text = http(&address, "GET /metrics HTTP/1.1").await;
        if metric(&text, "quorate_bases_total{group=\"0\"}") > 0.0 {
            break text;
        }
        assert!(puts < 20_000, "no base after {puts} puts");
    };
    let payload = f64::from(puts) * 1000.0;
    let journal = metric(&text, "quorate_journal_written_bytes_total");
    assert!(journal > payload && journal < 2.0 * payload, "{journal} bytes for {payload}");
    assert!(metric(&text, "quorate_store_committed_bytes_total{group=\"0\"}") > payload);
    assert!(metric(&text, "quorate_state_store_written_bytes_total{group=\"0\"}") > 100e3);
    assert!(metric(&text, "quorate_state_store_size_bytes{group=\"0\"}") > 100e3);
    // Due by what was written, of which each entry's own records are a part; the base has the last of them alone.
    assert!(metric(&text, "quorate_base_written_bytes_total{group=\"0\"}") > 50e3);
    assert!(metric(&text, "quorate_base_size_bytes{group=\"0\"}") > 50e3);
    assert!(metric(&text, "quorate_journal_syncs_total") >= f64::from(puts));
    assert!(metric(&text, "quorate_journal_zeroed_bytes_total") >= f64::from(64 << 10));
    assert_eq!(metric(&text, "etcd_server_proposals_pending"), 0.0);
    assert_eq!(metric(&text, "etcd_server_proposals_failed_total"), 0.0);
    let applied =
        r#"etcd_server_apply_duration_seconds_count{op="Put",success="true",version="v3"}"#;
    assert_eq!(metric(&text, applied), f64::from(puts));
    server.stop().await.unwrap();
}
