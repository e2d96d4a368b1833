//! Transports over real sockets, two to a test; between them a proxy that can be cut, shut, or made a black hole.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::service::service_fn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::dial::DialError;
use super::frame::{Frame, HEADER, Kind, Outbox};
use super::*;

const CLUSTER_ID: ClusterId = ClusterId(0xc1);
const FRAME_MAX: usize = 1 << 20;
const GROUP: GroupId = GroupId(0);
const A: MemberId = MemberId(0xa);
const B: MemberId = MemberId(0xb);

/// Far more than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// Streams that no busy machine takes for silent.
fn timing() -> PeerTiming {
    PeerTiming {
        rest_least: Duration::from_millis(20),
        rest_most: Duration::from_millis(100),
        replace_after: LONG,
        dead_after: LONG,
        ..PeerTiming::default()
    }
}

/// Streams that are given up soon.
fn brisk() -> PeerTiming {
    PeerTiming {
        alive_every: Duration::from_millis(50),
        replace_after: Duration::from_secs(1),
        dead_after: Duration::from_secs(2),
        ..timing()
    }
}

/// A member: its streams and its port.
struct Node {
    peers: Peers,
    address: SocketAddr,
    port: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.port.abort();
    }
}

impl Node {
    async fn new(member: MemberId) -> Node {
        Node::with(member, timing()).await
    }

    async fn with(member: MemberId, timing: PeerTiming) -> Node {
        let config = PeersConfig {
            cluster: CLUSTER_ID,
            member,
            frame_bytes_max: FRAME_MAX,
            timing,
            tls: Connector::default(),
        };
        let peers = Peers::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let port = tokio::spawn(serve_port(listener, peers.clone()));
        Node { peers, address, port }
    }

    fn knows(&self, others: &[(MemberId, SocketAddr)]) {
        let url = |address: &SocketAddr| vec![format!("http://{address}")];
        let members = others.iter().map(|(id, address)| (*id, url(address))).collect();
        self.peers.set_members(GROUP, members);
    }

    async fn ask(
        &self,
        to: MemberId,
        purpose: Purpose,
        frame: &[u8],
    ) -> Result<Bytes, TransportError> {
        let lane = lane(to, purpose);
        self.peers.exchange(&lane, Bytes::copy_from_slice(frame)).await
    }

    /// Asks until it is answered.
    async fn ask_until(&self, to: MemberId, purpose: Purpose) {
        let deadline = Instant::now() + LONG;
        while let Err(why) = self.ask(to, purpose, b"are you there").await {
            assert!(Instant::now() < deadline, "{why}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn lane(to: MemberId, purpose: Purpose) -> Lane {
    Lane { group: GROUP, from: A, to, purpose }
}

async fn serve_port(listener: TcpListener, peers: Peers) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let peers = peers.clone();
        let service = service_fn(move |mut request| {
            let answer = peers.accept(&mut request);
            async move { Ok::<_, Infallible>(answer) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::spawn(served);
    }
}

/// Answers an ask with itself.
#[derive(Debug)]
struct Echo;

impl Service for Echo {
    fn serve(&self, ask: Bytes) -> BoxFuture<'static, Served> {
        async { Served::Answer(ask) }.boxed()
    }
}

/// Answers nothing before `wanted` asks are there, and notes the order in which they came.
#[derive(Debug)]
struct Together {
    wanted: usize,
    seen: Arc<Mutex<Vec<Bytes>>>,
    full: Arc<watch::Sender<bool>>,
}

impl Service for Together {
    fn serve(&self, ask: Bytes) -> BoxFuture<'static, Served> {
        let count = {
            let mut seen = self.seen.lock();
            seen.push(ask.clone());
            seen.len()
        };
        if count >= self.wanted {
            self.full.send_replace(true);
        }
        let mut full = self.full.subscribe();
        async move {
            full.wait_for(|full| *full).await.unwrap();
            Served::Answer(ask)
        }
        .boxed()
    }
}

/// Between a member that dials and one that is dialled.
struct Proxy {
    address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    /// New connections and old ones end.
    Shut,
    /// Connections of now swallow every byte; new ones pass.
    SwallowOld,
    /// Every connection, old and new, swallows every byte.
    Swallow,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    async fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, accepted) = (Arc::new(watch::Sender::new(Mode::Pass)), Arc::default());
        let task =
            tokio::spawn(Proxy::run(listener, target, Arc::clone(&mode), Arc::clone(&accepted)));
        Proxy { address, mode, accepted, task }
    }

    async fn run(
        listener: TcpListener,
        target: SocketAddr,
        mode: Arc<watch::Sender<Mode>>,
        accepted: Arc<AtomicUsize>,
    ) {
        let mut connections = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            accepted.fetch_add(1, Ordering::SeqCst);
            let mode = mode.subscribe();
            connections.spawn(Proxy::carry(client, target, mode));
        }
    }

    async fn carry(mut client: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>) {
        let now = *mode.borrow_and_update();
        match now {
            Mode::Pass | Mode::SwallowOld => {}
            Mode::Shut => return,
            Mode::Swallow => {
                mode.wait_for(|mode| *mode != Mode::Swallow).await.unwrap();
                return;
            }
        }
        let Ok(mut server) = TcpStream::connect(target).await else { return };
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
            changed = mode.changed() => changed.unwrap(),
        }
        let now = *mode.borrow();
        match now {
            Mode::Pass | Mode::Shut => {}
            // Held open, and nothing carried any more.
            Mode::SwallowOld | Mode::Swallow => std::future::pending().await,
        }
    }
}

/// A and B, who know each other; A is dialled by B through the proxy.
async fn pair_with_proxy() -> (Node, Node, Proxy) {
    pair_with(timing()).await
}

async fn pair_with(timing: PeerTiming) -> (Node, Node, Proxy) {
    let (a, b) = (Node::with(A, timing).await, Node::with(B, timing).await);
    a.peers.serve(GROUP, Arc::new(Echo));
    b.peers.serve(GROUP, Arc::new(Echo));
    let proxy = Proxy::to(a.address).await;
    a.knows(&[(A, a.address), (B, b.address)]);
    b.knows(&[(A, proxy.address), (B, b.address)]);
    (a, b, proxy)
}

#[tokio::test]
async fn frames_keep_their_order_while_many_are_under_way() {
    let (a, b, _proxy) = pair_with_proxy().await;
    let (seen, wanted) = (Arc::default(), 50);
    let full = Arc::new(watch::Sender::new(false));
    a.ask_until(B, Purpose::Log).await;
    b.peers.serve(GROUP, Arc::new(Together { wanted, seen: Arc::clone(&seen), full }));
    let lane = lane(B, Purpose::Log);
    // Sizes from nothing to long; the order is that of the calls, whatever is polled first.
    let frame = |i: usize| Bytes::from(vec![u8::try_from(i).unwrap(); (i % 7) * 4_000 + 1]);
    let mut asked: Vec<_> = (0..wanted).map(|i| a.peers.exchange(&lane, frame(i))).collect();
    asked.reverse();
    let answers = tokio::time::timeout(LONG, futures::future::try_join_all(asked));
    let mut answers = answers.await.expect("none waits for another's answer").unwrap();
    answers.reverse();
    let want: Vec<Bytes> = (0..wanted).map(frame).collect();
    assert!(answers == want, "each answer goes to who asked");
    assert!(*seen.lock() == want, "in the order of the calls");
}

#[tokio::test]
async fn no_purpose_waits_behind_another() {
    let (a, b, _proxy) = pair_with_proxy().await;
    for purpose in Purpose::ALL {
        a.ask_until(B, purpose).await;
    }
    let never = Together { wanted: usize::MAX, seen: Arc::default(), full: Arc::default() };
    b.peers.serve(GROUP, Arc::new(never));
    let lane = lane(B, Purpose::Log);
    let stuck: Vec<_> =
        (0..20).map(|_| a.peers.exchange(&lane, Bytes::from(vec![0; 100_000]))).collect();
    // They are taken by the service above before it is replaced.
    tokio::time::sleep(Duration::from_millis(50)).await;
    b.peers.serve(GROUP, Arc::new(Echo));
    for purpose in [Purpose::Heartbeat, Purpose::Forward, Purpose::Snapshot] {
        let answered = tokio::time::timeout(LONG, a.ask(B, purpose, b"x")).await;
        assert_eq!(answered.expect("it does not wait").unwrap(), "x");
    }
    drop(stuck);
}

#[tokio::test]
async fn a_lane_that_is_full_refuses_at_once() {
    let (a, b, _proxy) = pair_with_proxy().await;
    a.ask_until(B, Purpose::Heartbeat).await;
    let never = Together { wanted: usize::MAX, seen: Arc::default(), full: Arc::default() };
    b.peers.serve(GROUP, Arc::new(never));
    let lane = lane(B, Purpose::Heartbeat);
    let stuck: Vec<_> = (0..frames_max(Purpose::Heartbeat))
        .map(|_| a.peers.exchange(&lane, Bytes::new()))
        .collect();
    let refused = a.ask(B, Purpose::Heartbeat, b"x").await.unwrap_err();
    assert!(matches!(refused, TransportError::Unreachable(B, _)), "{refused}");
    let long = a.ask(B, Purpose::Log, &vec![0; FRAME_MAX + 1]).await.unwrap_err();
    assert!(matches!(long, TransportError::Broken(B, _)), "{long}");
    drop(stuck);
}

#[tokio::test]
async fn a_cut_stream_fails_what_is_under_way_and_comes_back() {
    let (a, b, proxy) = pair_with_proxy().await;
    a.ask_until(B, Purpose::Log).await;
    let never = Together { wanted: usize::MAX, seen: Arc::default(), full: Arc::default() };
    let seen = Arc::clone(&never.seen);
    b.peers.serve(GROUP, Arc::new(never));
    let stuck = lane(B, Purpose::Log);
    let stuck = a.peers.exchange(&stuck, Bytes::from_static(b"x"));
    while seen.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.mode.send_replace(Mode::Shut);
    let failed = tokio::time::timeout(LONG, stuck).await.unwrap().unwrap_err();
    assert!(matches!(failed, TransportError::Broken(B, _)), "it may have arrived: {failed}");
    let refused = a.ask(B, Purpose::Log, b"x").await.unwrap_err();
    assert!(matches!(refused, TransportError::Unreachable(B, _)), "it cannot have: {refused}");
    b.peers.serve(GROUP, Arc::new(Echo));
    proxy.mode.send_replace(Mode::Pass);
    a.ask_until(B, Purpose::Log).await;
}

/// etcd's peer proxy in front of a leader's port: what the leader sends goes over streams that others dial through it.
#[tokio::test]
async fn who_cannot_be_reached_reaches_nobody_but_still_hears() {
    let (a, b, proxy) = pair_with(brisk()).await;
    proxy.mode.send_replace(Mode::Swallow);
    b.ask_until(A, Purpose::Log).await;
    tokio::time::sleep(brisk().dead_after).await;
    for purpose in Purpose::ALL {
        let refused = a.ask(B, purpose, b"x").await.unwrap_err();
        assert!(matches!(refused, TransportError::Unreachable(B, _)), "{purpose:?}: {refused}");
    }
    b.ask(A, Purpose::Log, b"x").await.unwrap();
    assert!(a.peers.connected().is_empty() && b.peers.connected().contains(&A));
    proxy.mode.send_replace(Mode::Pass);
    a.ask_until(B, Purpose::Heartbeat).await;
}

#[tokio::test]
async fn a_stream_that_fell_silent_is_dead_after_a_while() {
    let (a, b, proxy) = pair_with(brisk()).await;
    a.ask_until(B, Purpose::Log).await;
    proxy.mode.send_replace(Mode::Swallow);
    let began = Instant::now();
    let failed = tokio::time::timeout(LONG, a.ask(B, Purpose::Log, b"x")).await.unwrap();
    assert!(matches!(failed.unwrap_err(), TransportError::Broken(B, _)));
    assert!(began.elapsed() + brisk().alive_every >= brisk().dead_after);
    drop(b);
}

#[tokio::test]
async fn a_silent_stream_is_replaced_before_it_is_given_up() {
    let slow = PeerTiming { dead_after: LONG * 10, ..brisk() };
    let (a, b) = (Node::with(A, slow).await, Node::with(B, slow).await);
    b.peers.serve(GROUP, Arc::new(Echo));
    let proxy = Proxy::to(a.address).await;
    a.knows(&[(B, b.address)]);
    b.knows(&[(A, proxy.address)]);
    a.ask_until(B, Purpose::Log).await;
    proxy.mode.send_replace(Mode::SwallowOld);
    let failed = tokio::time::timeout(LONG, a.ask(B, Purpose::Log, b"x")).await.unwrap();
    assert!(matches!(failed.unwrap_err(), TransportError::Broken(B, _)));
    a.ask_until(B, Purpose::Log).await;
}

#[tokio::test]
async fn idle_streams_stay() {
    let (a, _b, proxy) = pair_with(brisk()).await;
    for purpose in Purpose::ALL {
        a.ask_until(B, purpose).await;
    }
    let before = proxy.accepted.load(Ordering::SeqCst);
    tokio::time::sleep(brisk().dead_after + brisk().replace_after).await;
    assert_eq!(proxy.accepted.load(Ordering::SeqCst), before);
    a.ask(B, Purpose::Log, b"x").await.unwrap();
}

async fn refusal(to: &Node, hello: Hello) -> Refusal {
    let url = format!("http://{}", to.address);
    let plain = Connector::default();
    let opened = dial::open_stream(&url, &plain, hello, &[], timing().patience());
    match opened.await.err() {
        Some(DialError::Refused { refusal, .. }) => refusal,
        other => panic!("{hello:?} was not refused: {other:?}"),
    }
}

#[tokio::test]
async fn strangers_are_refused() {
    let a = Node::new(A).await;
    a.knows(&[(A, a.address), (B, a.address)]);
    a.peers.set_removed(BTreeSet::from([MemberId(0xdead)]));
    let hello = Hello { cluster: CLUSTER_ID, from: B, to: A, purpose: Purpose::Log };
    let cases = [
        (Hello { cluster: ClusterId(1), ..hello }, Refusal::Cluster),
        (Hello { from: MemberId(7), ..hello }, Refusal::Unknown),
        (Hello { from: MemberId(0xdead), ..hello }, Refusal::Removed),
        // A member that dials itself is no peer of its own.
        (Hello { from: A, ..hello }, Refusal::Unknown),
        (Hello { to: MemberId(9), ..hello }, Refusal::To),
    ];
    for (hello, want) in cases {
        assert_eq!(refusal(&a, hello).await, want);
    }
    a.peers.shutdown().await;
    assert_eq!(refusal(&a, hello).await, Refusal::Unknown);
}

#[tokio::test]
async fn who_answers_in_anothers_name_is_not_believed() {
    let b = Node::new(B).await;
    // It claims to be whomever it is asked for, in another cluster.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let liar = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                          Upgrade: quorate-peer/1\r\nX-Server-From: a\r\nX-Etcd-Cluster-ID: 1\r\n\r\n";
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let hello = Hello { cluster: CLUSTER_ID, from: B, to: A, purpose: Purpose::Log };
    let url = format!("http://{address}");
    let refused = dial::open_stream(&url, &Connector::default(), hello, &[], timing().patience())
        .await
        .err()
        .unwrap();
    assert!(matches!(refused, DialError::Imposter), "{refused}");
    liar.abort();
    drop(b);
}

/// Opens a stream to `to` as B, by hand.
async fn raw(to: &Node) -> Box<dyn Wire> {
    let hello = Hello { cluster: CLUSTER_ID, from: B, to: A, purpose: Purpose::Log };
    let url = format!("http://{}", to.address);
    dial::open_stream(&url, &Connector::default(), hello, &[], timing().patience()).await.unwrap()
}

async fn bytes_of(frame: Frame) -> Vec<u8> {
    let (mut outbox, mut wire) = (Outbox::default(), Vec::new());
    outbox.put(frame);
    while !outbox.is_empty() {
        outbox.write(&mut wire).await.unwrap();
    }
    wire
}

#[tokio::test]
async fn garbage_ends_its_stream_and_nothing_else() {
    let a = Node::with(A, brisk()).await;
    a.knows(&[(B, "127.0.0.1:1".parse().unwrap())]);
    let mut long = bytes_of(Frame::alive()).await;
    long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let answer = Frame { kind: Kind::Answer, number: 77, ..Frame::alive() };
    let ask = Frame { kind: Kind::Ask, number: 1, ..Frame::alive() };
    let cases = [
        vec![0xff; 64],
        vec![0; HEADER],
        long,
        bytes_of(answer).await,
        bytes_of(ask).await,
        b"GET /version HTTP/1.1\r\n\r\n".to_vec(),
    ];
    for case in cases {
        let mut wire = raw(&a).await;
        wire.write_all(&case).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(LONG, wire.read_to_end(&mut rest)).await;
        let _ = ended.unwrap_or_else(|_| panic!("{case:?} did not end the stream"));
    }
    // A stream on which nothing comes is not taken for B's, and goes after a while.
    let mut mute = raw(&a).await;
    assert!(matches!(a.ask(B, Purpose::Log, b"x").await, Err(TransportError::Unreachable(..))));
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(LONG, mute.read_to_end(&mut rest)).await;
    ended.expect("the port gives a mute connection up").unwrap();
}

#[tokio::test]
async fn a_member_that_leaves_is_hung_up_on() {
    let (a, b, _proxy) = pair_with_proxy().await;
    a.ask_until(B, Purpose::Log).await;
    let stuck = lane(B, Purpose::Log);
    let never = Together { wanted: usize::MAX, seen: Arc::default(), full: Arc::default() };
    b.peers.serve(GROUP, Arc::new(never));
    let stuck = a.peers.exchange(&stuck, Bytes::from_static(b"x"));
    a.peers.set_removed(BTreeSet::from([B]));
    a.knows(&[(A, a.address)]);
    let failed = tokio::time::timeout(LONG, stuck).await.unwrap();
    assert!(failed.is_err());
    let refused = a.ask(B, Purpose::Log, b"x").await.unwrap_err();
    assert!(matches!(refused, TransportError::Unreachable(B, _)), "{refused}");
    let hello = Hello { cluster: CLUSTER_ID, from: B, to: A, purpose: Purpose::Log };
    assert_eq!(refusal(&a, hello).await, Refusal::Removed);
    // B hears it where it dials.
    tokio::time::timeout(LONG, b.peers.removed()).await.unwrap();
}

/// B was away while all whom it knew left. A is new to it, and leads.
#[tokio::test]
async fn a_member_dials_back_who_dials_it() {
    let (a, b) = (Node::new(A).await, Node::new(B).await);
    b.peers.serve(GROUP, Arc::new(Echo));
    b.knows(&[(B, b.address)]);
    a.knows(&[(A, a.address), (B, b.address)]);
    a.ask_until(B, Purpose::Log).await;
    assert!(
        b.peers.connected_since(A).is_some(),
        "what A sends comes by a stream that B has opened"
    );
    // Gone for good, it is forgotten.
    b.peers.set_removed(BTreeSet::from([A]));
    let hello = Hello { cluster: CLUSTER_ID, from: A, to: B, purpose: Purpose::Log };
    assert_eq!(refusal(&b, hello).await, Refusal::Removed);
    let deadline = Instant::now() + LONG;
    while b.peers.connected_since(A).is_some() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
