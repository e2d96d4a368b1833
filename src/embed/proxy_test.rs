//! A proxy in front of a whole server, over real sockets.

use std::time::Duration;

use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::Server;
use super::tests::{config, get, http, put, start};
use crate::embed::Config;
use crate::service::pb::etcdserverpb::cluster_client::ClusterClient;
use crate::service::pb::etcdserverpb::kv_client::KvClient;
use crate::service::pb::etcdserverpb::lease_client::LeaseClient;
use crate::service::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::service::pb::etcdserverpb::watch_client::WatchClient;
use crate::service::proxy::{Chores, Proxy, ProxySettings, Resolver};
use crate::service::serve::{ConnectionLimits, Entrance, Security, Tasks, Traffic, serve};
use crate::support::listen::{SocketOptions, bind};
use crate::support::shutdown::Drain;
use crate::support::urls::parse_list;

/// Far more than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

struct Rig {
    dir: TempDir,
    server: Server,
    front: Front,
}

/// A proxy and who speaks through it.
struct Front {
    proxy: Proxy,
    chores: Chores,
    drain: Drain,
    serving: JoinHandle<()>,
    address: String,
    channel: Channel,
}

impl Front {
    async fn start(settings: ProxySettings) -> Front {
        let listener =
            bind(&parse_list("http://127.0.0.1:0").unwrap()[0], SocketOptions::default());
        let listener = listener.unwrap();
        let address = listener.to_string();
        let (proxy, chores) = Proxy::new(settings).unwrap();
        let entrance = Entrance { listener, traffic: Traffic::Both, security: Security::Plain };
        let limits = ConnectionLimits {
            streams_max: 1000,
            ping_interval: None,
            ping_timeout: LONG,
            drain: Duration::from_millis(50),
        };
        let drain = Drain::default();
        let draining = drain.join().unwrap();
        let serving = serve(entrance, proxy.clone(), limits, Tasks::new(None), draining);
        let serving = tokio::spawn(serving);
        let url = format!("http://{address}");
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        Front { proxy, chores, drain, serving, address, channel }
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    async fn put(&self, key: &str, value: &str) -> i64 {
        let put = self.kv().put(put(key, value)).await.unwrap().into_inner();
        put.header.unwrap().revision
    }

    async fn get(&self, key: &str, serializable: bool) -> Option<String> {
        let range = pb::RangeRequest { serializable, ..get(key) };
        let found = self.kv().range(range).await.unwrap().into_inner();
        found.kvs.first().map(|pair| String::from_utf8(pair.value.to_vec()).unwrap())
    }

    async fn figure(&self, name: &str) -> String {
        let metrics = http(&self.address, "GET /proxy/metrics HTTP/1.1").await;
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("{name} in {metrics}")).to_owned()
    }

    async fn stop(self) {
        let Front { proxy, chores, mut drain, serving, channel, .. } = self;
        drop(channel);
        drain.start();
        serving.await.unwrap();
        proxy.stop(chores).await;
    }
}

impl Rig {
    async fn start(change: impl FnOnce(&mut ProxySettings)) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let server = start(config(&dir)).await;
        let mut settings = ProxySettings {
            endpoints: vec![server.client_addresses()[0].clone()],
            ..ProxySettings::default()
        };
        change(&mut settings);
        let front = Front::start(settings).await;
        Rig { dir, server, front }
    }

    fn direct(&self) -> KvClient<Channel> {
        let url = format!("http://{}", self.server.client_addresses()[0]);
        KvClient::new(Channel::from_shared(url).unwrap().connect_lazy())
    }

    async fn stop(self) {
        self.front.stop().await;
        self.server.stop().await.unwrap();
    }
}

/// One client's stream of watches.
struct Watches {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

fn create(key: &str, start_revision: i64) -> RequestUnion {
    RequestUnion::CreateRequest(pb::WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: "\0".into(),
        start_revision,
        ..Default::default()
    })
}

impl Watches {
    async fn open(channel: &Channel, first: RequestUnion) -> Watches {
        let (requests, sent) = mpsc::channel(64);
        requests.try_send(pb::WatchRequest { request_union: Some(first) }).unwrap();
        Watches::send(channel, tonic::Request::new(ReceiverStream::new(sent)), requests).await
    }

    async fn of(channel: &Channel, token: &str, first: RequestUnion) -> Watches {
        let (requests, sent) = mpsc::channel(64);
        requests.try_send(pb::WatchRequest { request_union: Some(first) }).unwrap();
        let mut request = tonic::Request::new(ReceiverStream::new(sent));
        request.metadata_mut().insert("token", token.parse().unwrap());
        Watches::send(channel, request, requests).await
    }

    async fn send(
        channel: &Channel,
        request: tonic::Request<ReceiverStream<pb::WatchRequest>>,
        requests: mpsc::Sender<pb::WatchRequest>,
    ) -> Watches {
        let opened = WatchClient::new(channel.clone()).watch(request).await;
        Watches { requests, responses: opened.unwrap().into_inner() }
    }

    async fn say(&self, request: RequestUnion) {
        self.requests.send(pb::WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let told = tokio::time::timeout(LONG, self.responses.message()).await;
        told.expect("a response in time").unwrap().expect("the stream goes on")
    }

    /// The revisions of the next events, as many as that.
    async fn revisions(&mut self, many: usize) -> Vec<i64> {
        let mut seen = Vec::new();
        while seen.len() < many {
            let response = self.next().await;
            assert!(!response.canceled, "{response:?}");
            seen.extend(response.events.iter().map(|e| e.kv.as_ref().unwrap().mod_revision));
        }
        seen
    }
}

#[tokio::test]
async fn reads_and_writes_go_through_and_only_serializable_reads_are_remembered() {
    let rig = Rig::start(|_| {}).await;
    let front = &rig.front;
    assert_eq!(front.put("a", "1").await, 2);
    assert_eq!(front.get("a", false).await.as_deref(), Some("1"));
    let remembered = async {
        let name = "etcd_grpc_proxy_cache_hits_total";
        while front.figure(name).await == format!("{name} 0") {
            // On a busy machine, what was read may be too old by the time it is asked for again.
            assert_eq!(front.get("a", false).await.as_deref(), Some("1"));
            assert_eq!(front.get("a", true).await.as_deref(), Some("1"));
        }
    };
    tokio::time::timeout(LONG, remembered).await.expect("an answer is given again in time");
    // Written behind the proxy's back: a linearizable read sees it at once.
    rig.direct().put(put("a", "2")).await.unwrap();
    assert_eq!(front.get("a", false).await.as_deref(), Some("2"));
    front.put("a", "3").await;
    assert_eq!(front.get("a", true).await.as_deref(), Some("3"));
    let write =
        |key| pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put(key, "4"))) };
    let txn = pb::TxnRequest { success: vec![write("a"), write("b")], ..Default::default() };
    assert!(front.kv().txn(txn).await.unwrap().into_inner().succeeded);
    assert_eq!(front.get("a", true).await.as_deref(), Some("4"));
    let delete =
        pb::DeleteRangeRequest { key: "a".into(), range_end: "\0".into(), ..Default::default() };
    assert_eq!(front.kv().delete_range(delete).await.unwrap().into_inner().deleted, 2);
    assert_eq!(front.get("a", true).await, None);
    let refused = front.kv().put(put("", "x")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "etcdserver: key is not provided");
    let refused = front.kv().range_stream(get("a")).await.unwrap_err();
    assert_eq!(refused.message(), "RangeStream is not supported by the gRPC proxy");
    let status = MaintenanceClient::new(front.channel.clone()).status(pb::StatusRequest {}).await;
    assert!(status.unwrap().into_inner().header.unwrap().revision > 5);
    rig.stop().await;
}

#[tokio::test]
async fn watches_of_one_range_share_one_and_each_hears_everything_once() {
    let rig = Rig::start(|_| {}).await;
    let front = &rig.front;
    for value in ["1", "2", "3"] {
        front.put("k", value).await;
    }
    let mut old = Watches::open(&front.channel, create("k", 2)).await;
    assert!(old.next().await.created);
    assert_eq!(old.revisions(3).await, [2, 3, 4]);
    let mut new = Watches::open(&front.channel, create("k", 0)).await;
    let made = new.next().await;
    assert!(made.created && made.header.unwrap().revision >= 4);
    new.say(create("k", 3)).await;
    let made = new.next().await;
    assert_eq!((made.created, made.watch_id), (true, 1));
    assert_eq!(new.revisions(2).await, [3, 4]);
    let shared = async {
        while front.figure(SHARED).await != format!("{SHARED} 2") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, shared).await.expect("three watches come to one in time");
    front.put("k", "4").await;
    assert_eq!(old.revisions(1).await, [5]);
    assert_eq!(new.revisions(2).await, [5, 5]);
    new.say(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let progress = new.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, 5));
    new.say(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 1 })).await;
    let cancelled = new.next().await;
    assert_eq!((cancelled.canceled, cancelled.watch_id), (true, 1));
    front.put("k", "5").await;
    assert_eq!((old.revisions(1).await, new.revisions(1).await), (vec![6], vec![6]));
    new.say(create("k", -1)).await;
    let refused = new.next().await;
    assert_eq!(refused.cancel_reason, "etcdserver: mvcc: required revision has been compacted");
    drop((old, new));
    rig.stop().await;
}

const SHARED: &str = "etcd_grpc_proxy_watchers_coalescing_total";

#[tokio::test]
async fn watches_with_other_tokens_do_not_share() {
    let rig = Rig::start(|_| {}).await;
    let front = &rig.front;
    let mut watches = Vec::new();
    for token in ["a", "b", "a"] {
        let mut opened = Watches::of(&front.channel, token, create("k", 0)).await;
        assert!(opened.next().await.created);
        watches.push(opened);
    }
    let shared = async {
        while front.figure(SHARED).await != format!("{SHARED} 1") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, shared).await.expect("two share one in time");
    for value in ["1", "2"] {
        let revision = front.put("k", value).await;
        for opened in &mut watches {
            assert_eq!(opened.revisions(1).await, [revision]);
        }
        assert_eq!(front.figure(SHARED).await, format!("{SHARED} 1"));
    }
    drop(watches);
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_watch_holds_no_other() {
    let rig = Rig::start(|_| {}).await;
    let front = &rig.front;
    let url = format!("http://{}", front.address);
    let narrow = Channel::from_shared(url).unwrap().initial_stream_window_size(1 << 16);
    let narrow = narrow.connect().await.unwrap();
    let mut stuck = Watches::open(&narrow, create("k", 0)).await;
    assert!(stuck.next().await.created);
    let mut reading = Watches::open(&front.channel, create("k", 0)).await;
    assert!(reading.next().await.created);
    // More than the queue of a stream holds, and what is on its way.
    let value = "v".repeat(32 << 10);
    let mut written = Vec::new();
    for _ in 0..150 {
        written.push(front.put("k", &value).await);
        assert_eq!(reading.revisions(1).await, written[written.len() - 1..]);
    }
    let mut late = Watches::open(&front.channel, create("k", 0)).await;
    assert!(late.next().await.created);
    written.push(front.put("k", &value).await);
    assert_eq!(late.revisions(1).await, written[150..]);
    assert_eq!(reading.revisions(1).await, written[150..]);
    assert_eq!(stuck.revisions(151).await, written);
    drop((stuck, reading, late));
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_half_closes_keeps_its_watch() {
    let rig = Rig::start(|_| {}).await;
    let front = &rig.front;
    let only = pb::WatchRequest { request_union: Some(create("k", 0)) };
    let opened = WatchClient::new(front.channel.clone()).watch(futures::stream::iter([only])).await;
    let (requests, _) = mpsc::channel(1);
    let mut watches = Watches { requests, responses: opened.unwrap().into_inner() };
    assert!(watches.next().await.created);
    let revision = front.put("k", "1").await;
    assert_eq!(watches.revisions(1).await, [revision]);
    drop(watches);
    rig.stop().await;
}

#[tokio::test]
async fn a_watch_and_a_lease_outlive_the_member_that_served_them() {
    let rig = Rig::start(|_| {}).await;
    let Rig { dir, server, front } = rig;
    let mut watches = Watches::open(&front.channel, create("k", 0)).await;
    assert!(watches.next().await.created);
    let mut leases = LeaseClient::new(front.channel.clone());
    leases.lease_grant(pb::LeaseGrantRequest { id: 7, ttl: 600 }).await.unwrap();
    let (renew, renewals) = mpsc::channel(4);
    renew.send(pb::LeaseKeepAliveRequest { id: 7 }).await.unwrap();
    let renewed = leases.lease_keep_alive(ReceiverStream::new(renewals)).await.unwrap();
    let mut renewed = renewed.into_inner();
    assert_eq!(renewed.message().await.unwrap().unwrap().ttl, 600);
    let first = front.put("k", "1").await;
    let address = server.client_addresses()[0].clone();
    server.stop().await.unwrap();
    let mut again: Config = config(&dir);
    again.member.listen_client = parse_list(&format!("http://{address}")).unwrap();
    let server = start(again).await;
    // Written before the proxy has made the watch again, for all anybody knows.
    let url = format!("http://{address}");
    let mut direct = KvClient::connect(url).await.unwrap();
    let second = direct.put(put("k", "2")).await.unwrap().into_inner().header.unwrap().revision;
    assert_eq!(watches.revisions(2).await, [first, second]);
    renew.send(pb::LeaseKeepAliveRequest { id: 7 }).await.unwrap();
    let told = tokio::time::timeout(LONG, renewed.message()).await.expect("an answer in time");
    assert_eq!(told.unwrap().unwrap().ttl, 600);
    drop((watches, renewed, renew));
    Rig { dir, server, front }.stop().await;
}

#[tokio::test]
async fn below_a_namespace_keys_are_prefixed_on_the_way_in_and_bare_on_the_way_back() {
    let rig = Rig::start(|settings| settings.namespace = "n/".to_owned()).await;
    let front = &rig.front;
    let mut watches = Watches::open(&front.channel, create("", 0)).await;
    assert!(watches.next().await.created);
    front.put("a", "1").await;
    rig.direct().put(put("a", "outside")).await.unwrap();
    front.put("b", "2").await;
    let mut keys = Vec::new();
    while keys.len() < 2 {
        let events = watches.next().await.events;
        keys.extend(events.into_iter().map(|event| event.kv.unwrap().key));
    }
    assert_eq!(keys, ["a", "b"]);
    assert_eq!(front.get("a", false).await.as_deref(), Some("1"));
    let inside = rig.direct().range(get("n/a")).await.unwrap().into_inner();
    assert_eq!(inside.kvs[0].value, "1");
    drop(watches);
    rig.stop().await;
}

#[tokio::test]
async fn proxies_under_one_prefix_are_the_members_that_clients_see() {
    let rig = Rig::start(|settings| {
        settings.advertised = "127.0.0.1:9".to_owned();
        settings.resolver = Some(Resolver { prefix: "p".to_owned(), ttl_s: 60 });
    })
    .await;
    let mut cluster = ClusterClient::new(rig.front.channel.clone());
    let request = pb::MemberListRequest::default();
    let alone = cluster.member_list(request).await.unwrap().into_inner();
    assert_eq!(alone.members[0].client_ur_ls, ["127.0.0.1:9"]);
    let other = r#"{"Op":0,"Addr":"127.0.0.1:10","Metadata":"{\"name\":\"other\"}"}"#;
    rig.direct().put(put("p/127.0.0.1:10", other)).await.unwrap();
    let both = async {
        loop {
            let listed = cluster.member_list(request).await.unwrap().into_inner();
            let urls: Vec<_> =
                listed.members.iter().flat_map(|member| member.client_ur_ls.clone()).collect();
            if urls == ["127.0.0.1:10", "127.0.0.1:9"] {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, both).await.expect("both are registered in time");
    let written = rig.direct().range(get("p/127.0.0.1:9")).await.unwrap().into_inner();
    let value = String::from_utf8(written.kvs[0].value.to_vec()).unwrap();
    assert!(value.starts_with(r#"{"Op":0,"Addr":"127.0.0.1:9","Metadata":"{\"name\":"#), "{value}");
    assert!(written.kvs[0].lease != 0);
    rig.stop().await;
}

#[tokio::test]
async fn a_proxy_says_how_its_members_and_itself_are() {
    let rig = Rig::start(|_| {}).await;
    let address = rig.front.address.clone();
    let answer = http(&address, "GET /health HTTP/1.1").await;
    assert!(answer.contains(r#"{"health":"true","reason":""}"#), "{answer}");
    let answer = http(&address, "GET /metrics HTTP/1.1").await;
    assert!(answer.contains("etcd_mvcc_put_total"), "{answer}");
    let answer = http(&address, "GET /proxy/health HTTP/1.1").await;
    assert!(answer.contains(r#""reason":"no connection to proxy""#), "{answer}");
    assert!(http(&address, "GET /nope HTTP/1.1").await.starts_with("HTTP/1.1 404"));
    rig.stop().await;
}
