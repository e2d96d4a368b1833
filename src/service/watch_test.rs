//! Watches over a real connection.

use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use quorate_core::api::pb::etcdserverpb::{
    ResponseHeader, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
    WatchResponse,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Server};
use tonic::{Code, Extensions, Request, Status, Streaming};

use super::{Admission, WatchService, Watching};
use crate::keyspace::KeyspaceError;
use crate::keyspace::watch::tests::double::{Double, line, on};
use crate::service::leader_guard::Seat;
use crate::service::pb::etcdserverpb::watch_client::WatchClient;
use crate::service::pb::etcdserverpb::watch_server::WatchServer;

const ELECTION: Duration = Duration::from_millis(30);

struct Member {
    has_leader: AtomicBool,
}

impl Seat for Member {
    fn header(&self) -> ResponseHeader {
        ResponseHeader { cluster_id: 7, member_id: 8, revision: 9999, raft_term: 3 }
    }

    fn has_leader(&self) -> bool {
        self.has_leader.load(Ordering::Relaxed)
    }
}

/// Lets everybody watch everything.
struct Anybody;

impl Admission for Anybody {
    fn admit(
        &self,
        _metadata: &MetadataMap,
        _extensions: &Extensions,
    ) -> Result<Box<dyn Watching>, Status> {
        Ok(Box::new(Anybody))
    }
}

impl Watching for Anybody {
    fn may_watch<'a>(
        &'a self,
        _key: &'a [u8],
        _range_end: &'a [u8],
    ) -> BoxFuture<'a, Result<(), KeyspaceError>> {
        ready(Ok(())).boxed()
    }
}

/// A store with its Watch service on a port of its own.
struct Served {
    store: Double,
    member: Arc<Member>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl Served {
    async fn start() -> Served {
        let store = Double::new();
        let member = Arc::new(Member { has_leader: AtomicBool::new(true) });
        let seat = Arc::clone(&member) as Arc<dyn Seat>;
        let service = WatchService::new(store.hub.clone(), Arc::new(Anybody), seat, ELECTION);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            Server::builder()
                .add_service(WatchServer::new(service))
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped)
                .await
                .unwrap();
        });
        Served { store, member, address, stop: Some(stop), running }
    }

    async fn connect(&self) -> WatchClient<Channel> {
        WatchClient::connect(format!("http://{}", self.address)).await.unwrap()
    }

    /// A stream, with `hasleader` if `wants_leader`.
    async fn watch(&self, wants_leader: bool) -> Result<Client, Status> {
        let (requests, outbound) = mpsc::channel(100);
        let mut request = Request::new(ReceiverStream::new(outbound));
        if wants_leader {
            request.metadata_mut().insert("hasleader", "true".parse().unwrap());
        }
        let responses = self.connect().await.watch(request).await?.into_inner();
        Ok(Client { requests, responses })
    }

    async fn stop(mut self) {
        self.store.hub.close();
        let _ = self.stop.take().unwrap().send(());
        tokio::time::timeout(Duration::from_secs(5), self.running).await.unwrap().unwrap();
    }
}

struct Client {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Client {
    async fn send(&self, request: RequestUnion) {
        let request = WatchRequest { request_union: Some(request) };
        self.requests.send(request).await.unwrap();
    }

    async fn create(&self, request: WatchCreateRequest) {
        self.send(RequestUnion::CreateRequest(request)).await;
    }

    async fn message(&mut self) -> Result<Option<WatchResponse>, Status> {
        let soon = Duration::from_secs(5);
        tokio::time::timeout(soon, self.responses.message()).await.expect("soon")
    }

    async fn line(&mut self) -> String {
        line(&self.message().await.unwrap().unwrap())
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn responses_say_who_and_when_but_keep_their_own_revision() {
    let mut served = Served::start().await;
    served.store.put("a", "1");
    served.store.put("a", "2");
    served.store.compact(3);
    let mut client = served.watch(false).await.unwrap();

    client.create(on("a")).await;
    let created = client.message().await.unwrap().unwrap();
    let header = ResponseHeader { cluster_id: 7, member_id: 8, revision: 3, raft_term: 3 };
    assert_eq!((created.created, created.header), (true, Some(header)));

    served.store.put("a", "3");
    assert_eq!(client.line().await, "#0 a=3/4 @4");
    client.send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    assert_eq!(client.line().await, "#-1 @4");

    client.create(WatchCreateRequest { start_revision: 1, ..on("a") }).await;
    assert_eq!(client.line().await, "#1 created @4");
    let compacted = client.message().await.unwrap().unwrap();
    assert_eq!(line(&compacted), "#1 canceled compacted=3 @0");
    assert_eq!(compacted.header.unwrap().raft_term, 3);

    client.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 })).await;
    assert_eq!(client.line().await, "#0 canceled @4");
    drop(client);
    served.stop().await;
}

#[tokio::test]
async fn a_client_that_half_closes_keeps_its_watchers() {
    let mut served = Served::start().await;
    let Client { requests, mut responses } = {
        let client = served.watch(false).await.unwrap();
        client.create(on("a")).await;
        client
    };
    drop(requests);
    assert_eq!(line(&responses.message().await.unwrap().unwrap()), "#0 created @1");
    tokio::time::sleep(Duration::from_millis(20)).await;
    served.store.put("a", "1");
    assert_eq!(line(&responses.message().await.unwrap().unwrap()), "#0 a=1/2 @2");
    served.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_takes_its_watchers_along() {
    let served = Served::start().await;
    let mut client = served.watch(false).await.unwrap();
    client.create(on("a")).await;
    client.line().await;
    let counters = served.store.hub.counters();
    assert_eq!((counters.streams(), counters.watchers()), (1, 1));
    drop(client);
    eventually("no stream is left", || counters.streams() == 0 && counters.watchers() == 0).await;
    served.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_and_misses_nothing() {
    let mut served = Served::start().await;
    let mut idle = served.watch(false).await.unwrap();
    idle.create(on("a")).await;
    assert_eq!(idle.line().await, "#0 created @1");
    let mut brisk = served.watch(false).await.unwrap();
    brisk.create(on("a")).await;
    assert_eq!(brisk.line().await, "#0 created @1");

    let large = "x".repeat(10_000);
    let last = 1000;
    for revision in 2..=last {
        served.store.put("a", &large);
        let response = brisk.message().await.unwrap().unwrap();
        assert_eq!(response.events[0].kv.as_ref().unwrap().mod_revision, revision);
    }
    let counters = served.store.hub.counters();
    assert_eq!(counters.slow_watchers(), 1);
    assert!(counters.pending_events() <= 128);

    let mut next = 2;
    while next <= last {
        for event in idle.message().await.unwrap().unwrap().events {
            assert_eq!(event.kv.unwrap().mod_revision, next);
            next += 1;
        }
    }
    eventually("it is synced again", || counters.slow_watchers() == 0).await;
    served.stop().await;
}

#[tokio::test]
async fn a_stream_that_wants_a_leader_ends_without_one() {
    let served = Served::start().await;
    let mut wants = served.watch(true).await.unwrap();
    let mut does_not = served.watch(false).await.unwrap();
    wants.create(on("a")).await;
    does_not.create(on("a")).await;
    assert_eq!(wants.line().await, "#0 created @1");
    assert_eq!(does_not.line().await, "#0 created @1");

    served.member.has_leader.store(false, Ordering::Relaxed);
    let lost = tokio::time::Instant::now();
    let status = wants.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
    assert!(lost.elapsed() >= 2 * ELECTION, "{:?}", lost.elapsed());

    let Err(status) = served.watch(true).await else { panic!("there is no leader") };
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
    does_not.create(on("b")).await;
    assert_eq!(does_not.line().await, "#1 created @1");
    served.stop().await;
}

#[tokio::test]
async fn a_closing_member_ends_its_streams_with_a_reason() {
    let served = Served::start().await;
    let mut client = served.watch(false).await.unwrap();
    client.create(on("a")).await;
    assert_eq!(client.line().await, "#0 created @1");
    served.store.hub.close();
    let status = client.message().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "etcdserver: server stopped")
    );
    served.stop().await;
}

#[tokio::test]
async fn many_requests_at_once_are_answered_in_order() {
    let served = Served::start().await;
    let mut client = served.watch(false).await.unwrap();
    for number in 0..2000 {
        let key = if number % 2 == 0 { "a" } else { "b" };
        client.create(on(key)).await;
        if number >= 1000 {
            assert_eq!(client.line().await, format!("#{} created @1", number - 1000));
        }
    }
    for number in 1000..2000 {
        assert_eq!(client.line().await, format!("#{number} created @1"));
    }
    drop(client);
    served.stop().await;
}
