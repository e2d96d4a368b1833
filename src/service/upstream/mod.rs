//! The members of a cluster, as a client sees them: which there are, and calls to them, one after the other in turn.
//!
//! ```text
//!   call ── next endpoint that is connected ── gone: the next one
//!    │                                      └─ read, and refused as unavailable: the next one
//!    │                                      └─ all else: the client hears of it
//!    └── none is: wait for the dials that may succeed ── none may: rest, and again
//! ```
//!
//! Every call sees to it that those which are not connected are dialled, beside it.
//!
//! **Invariant:** what may have reached a member is sent again only if it is a read (etcd `client/v3/retry.go`).

#[cfg(test)]
#[path = "fake_test.rs"]
pub(super) mod fake;
mod link;
pub(super) mod paths;

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use parking_lot::{Mutex, RwLock};
use prost::Message;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, ConnectError, Extensions, Request, Status, Streaming, TimeoutExpired};
use tonic_prost::ProstCodec;
use tracing::instrument::WithSubscriber as _;

use self::link::{Link, Up};
use crate::service::patience::{patience, within};
use crate::service::raw::Raw;
use crate::service::status::{message_too_large, sending_too_large};
use crate::support::dial::{Dial, Speech};
use crate::support::tls::Connector;

/// So often members are tried for a call at most (etcd's `defaultUnaryMaxRetries`).
const TRIES_MAX: usize = 100;

/// The rest after every endpoint has been tried (etcd's `defaultBackoffWaitBetween`).
const REST: Duration = Duration::from_millis(25);

/// An endpoint that was not reached is not dialled for so long, if there are others.
const ASIDE: Duration = Duration::from_secs(1);

/// What one stream may have under way, and all of a connection: streams that nobody reads must not stop the others.
const STREAM_WINDOW: u32 = 1 << 18;
const CONNECTION_WINDOW: u32 = 1 << 26;

/// How the members are spoken to.
#[derive(Clone, Debug, Default)]
pub struct UpstreamSettings {
    /// TLS of endpoints without a scheme, and what is shown and trusted where there is one.
    pub tls: Option<Connector>,
    /// `--dial-keepalive-time`; `None` for no pings.
    pub ping_interval: Option<Duration>,
    /// `--dial-keepalive-timeout`.
    pub ping_timeout: Duration,
    /// `--permit-without-stream`.
    pub ping_idle: bool,
    /// `--max-send-bytes`; 0 for no limit.
    pub send_bytes_max: usize,
    /// `--max-recv-bytes`; 0 for no limit.
    pub receive_bytes_max: usize,
}

/// Whether a call may be sent again that may have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing.
    Freely,
    /// It must not happen twice.
    Never,
}

/// The members, as far as they are known. Cheap to clone.
#[derive(Clone)]
pub(super) struct Upstream(Arc<Inner>);

struct Inner {
    settings: UpstreamSettings,
    members: RwLock<Vec<Arc<Link>>>,
    turn: AtomicUsize,
    dials: Mutex<JoinSet<()>>,
    /// A dial has ended.
    changed: Arc<Notify>,
}

/// Where a call goes.
enum Pick {
    Up(Up),
    /// Nobody is connected, but somebody may soon be.
    Wait,
    /// Nobody was reached.
    Down(Status),
}

impl Upstream {
    /// Members at `endpoints`. Nothing is dialled before the first call.
    pub(super) fn new(
        settings: UpstreamSettings,
        endpoints: &[String],
    ) -> Result<Upstream, String> {
        let upstream = Upstream(Arc::new(Inner {
            settings,
            members: RwLock::default(),
            turn: AtomicUsize::new(0),
            dials: Mutex::default(),
            changed: Arc::default(),
        }));
        upstream.set(endpoints)?;
        Ok(upstream)
    }

    /// Asks these endpoints from now on; connections to those that stay are kept. Whether anything has changed.
    pub(super) fn set(&self, endpoints: &[String]) -> Result<bool, String> {
        let mut members = self.0.members.write();
        if members.iter().map(|member| &member.endpoint).eq(endpoints) {
            return Ok(false);
        }
        let known =
            |endpoint: &String| members.iter().find(|member| member.endpoint == *endpoint).cloned();
        let fresh = endpoints.iter().map(|endpoint| match known(endpoint) {
            Some(member) => Ok(member),
            None => self.member(endpoint),
        });
        *members = fresh.collect::<Result<_, String>>()?;
        Ok(true)
    }

    pub(super) fn endpoints(&self) -> Vec<String> {
        self.0.members.read().iter().map(|member| member.endpoint.clone()).collect()
    }

    /// How a member is reached for what it answers beside gRPC.
    pub(super) fn http(&self, endpoint: &str) -> Dial {
        Dial::to(endpoint, self.0.settings.tls.as_ref(), Speech::Http1)
    }

    fn member(&self, endpoint: &str) -> Result<Arc<Link>, String> {
        let settings = &self.0.settings;
        let dial = Dial::to(endpoint, settings.tls.as_ref(), Speech::Http2);
        let uri = dial.uri()?;
        // Of the scheme the dial has taken care; the channel only speaks of it.
        let plain = uri.to_string().replacen("https://", "http://", 1);
        let mut setup = Endpoint::from_shared(plain)
            .map_err(|why| format!("bad endpoint {endpoint}: {why}"))?
            .origin(uri)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        if let Some(interval) = settings.ping_interval {
            setup = setup
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(settings.ping_timeout)
                .keep_alive_while_idle(settings.ping_idle);
        }
        Ok(Link::new(endpoint, dial, setup, Arc::clone(&self.0.changed)))
    }

    /// The next one in turn of those that are connected. The others are dialled.
    fn pick(&self) -> Pick {
        let members = self.0.members.read();
        let up: Vec<&Arc<Link>> = members.iter().filter(|member| member.is_up()).collect();
        let rest = if up.is_empty() { REST } else { ASIDE };
        for member in members.iter() {
            if let Some(number) = member.begin(rest) {
                self.spawn(Arc::clone(member).run(number));
            }
        }
        let first = self.0.turn.fetch_add(1, Ordering::Relaxed);
        let mut in_turn = (0..up.len()).map(|i| up[(first + i) % up.len()]);
        if let Some(up) = in_turn.find_map(Link::up) {
            return Pick::Up(up);
        }
        if members.iter().any(|member| member.is_hopeful()) {
            return Pick::Wait;
        }
        Pick::Down(match members.iter().find_map(|member| member.failure()) {
            Some(why) => Status::from_error(Box::new(ConnectError(why.into()))),
            None if members.is_empty() => Status::unavailable("there is no address available"),
            None => Status::from_error(Box::new(ConnectError("transport is closing".into()))),
        })
    }

    fn spawn(&self, dial: impl Future<Output = ()> + Send + 'static) {
        let dials = &mut *self.0.dials.lock();
        while dials.try_join_next().is_some() {}
        dials.spawn(dial.with_current_subscriber());
    }

    /// A connection to the next member in turn, or to the first that there is one to.
    async fn reach(&self) -> Result<Up, Status> {
        loop {
            let changed = self.0.changed.notified();
            match self.pick() {
                Pick::Up(up) => return Ok(up),
                Pick::Down(status) => return Err(status),
                // Who refused before may do so no longer.
                Pick::Wait => drop(timeout(ASIDE, changed).await),
            }
        }
    }

    /// How many members there are, at least one.
    fn count(&self) -> usize {
        self.0.members.read().len().max(1)
    }

    /// One message there, one back.
    pub(super) async fn unary(
        &self,
        path: &PathAndQuery,
        metadata: &MetadataMap,
        message: Bytes,
        repeat: Repeat,
    ) -> Result<Bytes, Status> {
        self.check(message.len())?;
        within(patience(metadata), self.send(path, metadata, message, repeat)).await
    }

    async fn send(
        &self,
        path: &PathAndQuery,
        metadata: &MetadataMap,
        message: Bytes,
        repeat: Repeat,
    ) -> Result<Bytes, Status> {
        let mut tries = 0;
        loop {
            let (status, fault, tried) = match self.reach().await {
                Ok(member) => {
                    let request =
                        Request::from_parts(metadata.clone(), Extensions::new(), message.clone());
                    let asked = async {
                        let mut client = self.client(&member).await?;
                        client.unary(request, path.clone(), Raw).await
                    };
                    let status = match asked.await {
                        Ok(response) => return Ok(response.into_inner()),
                        Err(status) => status,
                    };
                    let fault = judge(&member, &status);
                    (status, fault, 1)
                }
                Err(status) => {
                    let fault = Fault::of(&status);
                    (status, fault, self.count())
                }
            };
            tries += tried;
            let again = match fault {
                Fault::Unsent => true,
                Fault::Broken => repeat == Repeat::Freely,
                Fault::Told => repeat == Repeat::Freely && status.code() == Code::Unavailable,
                Fault::Late => false,
            };
            if !again || tries >= TRIES_MAX {
                return Err(fault.in_words(status));
            }
            if tried == self.count() || tries % self.count() == 0 {
                tokio::time::sleep(REST).await;
            }
        }
    }

    /// One message there, many back, as they are.
    pub(super) async fn download(
        &self,
        path: &PathAndQuery,
        metadata: &MetadataMap,
        message: Bytes,
    ) -> Result<Streaming<Bytes>, Status> {
        self.check(message.len())?;
        let mut left = self.count();
        let opened = async {
            loop {
                let reached = self.reach().await;
                let member = reached.map_err(|status| Fault::of(&status).in_words(status))?;
                let request =
                    Request::from_parts(metadata.clone(), Extensions::new(), message.clone());
                let asked = async {
                    let mut client = self.client(&member).await?;
                    client.server_streaming(request, path.clone(), Raw).await
                };
                let status = match asked.await {
                    Ok(response) => return Ok(response.into_inner()),
                    Err(status) => status,
                };
                left -= 1;
                let fault = judge(&member, &status);
                if fault != Fault::Unsent || left == 0 {
                    return Err(fault.in_words(status));
                }
            }
        };
        within(patience(metadata), opened).await
    }

    /// Many messages both ways, with the next member in turn. Members may answer only once the first message has come.
    pub(super) async fn converse<Q, A>(
        &self,
        path: &'static str,
        metadata: MetadataMap,
        requests: mpsc::Receiver<Q>,
    ) -> Result<Streaming<A>, Broken>
    where
        Q: Message + Send + 'static,
        A: Message + Default + Send + 'static,
    {
        let member = self.reach().await.map_err(Broken::new)?;
        let requests = ReceiverStream::new(requests);
        let request = Request::from_parts(metadata, Extensions::new(), requests);
        let asked = async {
            let mut client = self.client(&member).await?;
            let codec = ProstCodec::default();
            client.streaming(request, PathAndQuery::from_static(path), codec).await
        };
        match asked.await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(Broken { fault: judge(&member, &status), status }),
        }
    }

    async fn client(&self, member: &Up) -> Result<Grpc<Channel>, Status> {
        let limit = match self.0.settings.receive_bytes_max {
            0 => usize::MAX,
            limit => limit,
        };
        let mut client = Grpc::new(member.channel.clone())
            .max_decoding_message_size(limit)
            .max_encoding_message_size(usize::MAX);
        client.ready().await.map_err(|why| Status::from_error(Box::new(why)))?;
        Ok(client)
    }

    fn check(&self, bytes: usize) -> Result<(), Status> {
        let limit = self.0.settings.send_bytes_max;
        if limit > 0 && bytes > limit { Err(sending_too_large(bytes, limit)) } else { Ok(()) }
    }
}

/// What became of a call; a connection that did not take it takes no other.
fn judge(member: &Up, status: &Status) -> Fault {
    let fault = Fault::of(status);
    if fault == Fault::Unsent {
        member.lose();
        let endpoint = member.endpoint();
        tracing::debug!(endpoint, error = status.message(), "a connection is gone");
    }
    fault
}

/// A conversation that was not to be, or has ended early.
pub(super) struct Broken {
    fault: Fault,
    status: Status,
}

impl Broken {
    pub(super) fn new(status: Status) -> Broken {
        Broken { fault: Fault::of(&status), status }
    }

    /// The member ended a conversation that was not over.
    pub(super) fn ended() -> Broken {
        Broken::new(Status::unavailable("the member ended the stream"))
    }

    /// Whether another member, or the same one later, may well go on with it.
    pub(super) fn may_go_on(&self) -> bool {
        match self.fault {
            Fault::Unsent | Fault::Broken => true,
            Fault::Late => false,
            Fault::Told => matches!(
                self.status.code(),
                Code::Unavailable
                    | Code::Internal
                    | Code::Cancelled
                    | Code::Unknown
                    | Code::Aborted
            ),
        }
    }

    /// Whether a member said that it knows no leader.
    pub(super) fn has_no_leader(&self) -> bool {
        self.fault == Fault::Told && self.status.message() == "etcdserver: no leader"
    }

    pub(super) fn into_status(self) -> Status {
        self.fault.in_words(self.status)
    }
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// There was no connection to send it on.
    Unsent,
    /// The connection broke: nobody knows.
    Broken,
    /// The client's time ran out.
    Late,
    /// A member answered.
    Told,
}

impl Fault {
    fn of(status: &Status) -> Fault {
        let mut source = status.source();
        if source.is_none() {
            return Fault::Told;
        }
        while let Some(error) = source {
            if error.is::<ConnectError>() {
                return Fault::Unsent;
            }
            if error.is::<TimeoutExpired>() {
                return Fault::Late;
            }
            source = error.source();
        }
        Fault::Broken
    }

    /// The status as grpc-go would put it.
    fn in_words(self, status: Status) -> Status {
        match self {
            Fault::Unsent => {
                let why = status.message();
                Status::unavailable(format!(
                    "connection error: desc = \"transport: Error while dialing: {why}\""
                ))
            }
            Fault::Broken => {
                Status::unavailable(format!("error reading from server: {}", status.message()))
            }
            Fault::Late => Status::deadline_exceeded("context deadline exceeded"),
            Fault::Told => oversized(&status).unwrap_or(status),
        }
    }
}

/// tonic's words for a message over the limit, put as grpc-go puts them.
fn oversized(status: &Status) -> Option<Status> {
    let told = status.message().strip_prefix("Error, decoded message length too large: found ")?;
    let (found, limit) = told.split_once(" bytes, the limit is: ")?;
    let limit = limit.strip_suffix(" bytes").unwrap_or(limit);
    Some(message_too_large(found.parse().ok()?, limit.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::fake::{Fake, Hole, mute};
    use super::paths::{PUT, RANGE};
    use super::*;

    /// Far more than anything here takes on a busy machine.
    const LONG: Duration = Duration::from_secs(60);

    fn upstream(endpoints: &[&str]) -> Upstream {
        let endpoints: Vec<String> = endpoints.iter().map(|&text| text.to_owned()).collect();
        Upstream::new(UpstreamSettings::default(), &endpoints).unwrap()
    }

    fn range() -> PathAndQuery {
        PathAndQuery::from_static(RANGE)
    }

    async fn ask(upstream: &Upstream, repeat: Repeat) -> Result<Bytes, Status> {
        upstream.unary(&range(), &MetadataMap::new(), Bytes::new(), repeat).await
    }

    #[tokio::test]
    async fn endpoints_take_turns_and_one_that_is_gone_is_left_out() {
        let answer = |_: &str| Ok(Bytes::new());
        let (a, b, c) =
            (Fake::start(answer).await, Fake::start(answer).await, Fake::start(answer).await);
        let upstream = upstream(&[&a.address, &b.address, &c.address]);
        let all_answer = async {
            let (mut asked, all) = ([0; 3], [&a, &b, &c]);
            while asked.contains(&0) {
                ask(&upstream, Repeat::Never).await.unwrap();
                for (count, fake) in asked.iter_mut().zip(all) {
                    *count += fake.asked().len();
                }
            }
        };
        timeout(LONG, all_answer).await.expect("all are connected in time");
        for _ in 0..6 {
            ask(&upstream, Repeat::Never).await.unwrap();
        }
        assert_eq!([&a, &b, &c].map(|fake| fake.asked().len()), [2, 2, 2]);
        drop(b);
        for _ in 0..20 {
            ask(&upstream, Repeat::Freely).await.unwrap();
        }
        assert_eq!(a.asked().len() + c.asked().len(), 20);
        let d = Fake::start(answer).await;
        assert!(upstream.set(std::slice::from_ref(&d.address)).unwrap());
        assert!(!upstream.set(std::slice::from_ref(&d.address)).unwrap());
        ask(&upstream, Repeat::Never).await.unwrap();
        assert_eq!((d.asked().len(), a.asked().len()), (1, 0));
    }

    /// Half of what a dial may take.
    const SOON: Duration = Duration::from_millis(2500);

    #[tokio::test]
    async fn members_that_answer_nobody_hold_no_call() {
        let (hole, (mute, _listener)) = (Hole::new(), mute());
        let live = Fake::start(|_| Ok(Bytes::new())).await;
        for silent in [&hole.address, &mute] {
            let upstream = upstream(&[silent, &live.address]);
            let calls = async {
                for _ in 0..30 {
                    ask(&upstream, Repeat::Never).await.unwrap();
                }
            };
            timeout(SOON, calls).await.expect("the other one answers at once");
            assert_eq!(live.asked().len(), 30);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_wait_for_one_dial_fail_together() {
        let hole = Hole::new();
        let upstream = upstream(&[&hole.address]);
        let begun = Instant::now();
        let calls = (0..20).map(|_| ask(&upstream, Repeat::Never));
        let answers = futures::future::join_all(calls).await;
        assert!(answers.iter().all(|told| told.as_ref().unwrap_err().code() == Code::Unavailable));
        // One dial, and the rests of a call that is sent again and again.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_clients_time_runs_while_a_member_is_dialled() {
        let hole = Hole::new();
        let upstream = upstream(&[&hole.address]);
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "200m".parse().unwrap());
        let begun = Instant::now();
        let asked = upstream.unary(&range(), &metadata, Bytes::new(), Repeat::Freely).await;
        assert_eq!(asked.unwrap_err().code(), Code::DeadlineExceeded);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_write_that_reached_nobody_is_told_so_in_grpc_gos_words() {
        // Bound, so that nobody else gets its port, and not listening.
        let refusing = tokio::net::TcpSocket::new_v4().unwrap();
        refusing.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = refusing.local_addr().unwrap().to_string();
        let upstream = upstream(&[&address]);
        let path = PathAndQuery::from_static(PUT);
        let asked = upstream.unary(&path, &MetadataMap::new(), Bytes::new(), Repeat::Never).await;
        let refused = asked.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        let want = format!(
            "connection error: desc = \"transport: Error while dialing: dial tcp {address}: connect: \
             connection refused\""
        );
        assert_eq!(refused.message(), want);
    }

    #[test]
    fn tonics_word_for_too_long_becomes_grpc_gos() {
        let told = Status::out_of_range(
            "Error, decoded message length too large: found 9 bytes, the limit is: 5 bytes",
        );
        let put = Fault::Told.in_words(told);
        assert_eq!(put.code(), Code::ResourceExhausted);
        assert_eq!(put.message(), "grpc: received message larger than max (9 vs. 5)");
    }
}
