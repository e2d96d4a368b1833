//! The members behind the proxy: which there are, and calls to them, one after the other in turn.
//!
//! ```text
//!   call ── next endpoint that is not aside ── not reached: aside for a second, the next one
//!                                           └─ read, and refused as unavailable: the next one
//!                                           └─ all else: the client hears of it
//! ```
//!
//! **Invariant:** what may have reached a member is sent again only if it is a read (etcd `client/v3/retry.go`).

mod caller;
mod dial;
mod raw;

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use parking_lot::{Mutex, RwLock};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Extensions, Request, Status, Streaming, TimeoutExpired};
use tonic_prost::ProstCodec;

pub(super) use self::caller::{Caller, carried};
pub(super) use self::dial::{Dial, Speech};
pub(super) use self::raw::Raw;
use crate::service::status::{message_too_large, sending_too_large};
use crate::support::tls::Connector;

/// So often a call is sent at most (etcd's `defaultUnaryMaxRetries`).
const TRIES_MAX: usize = 100;

/// The rest after every endpoint has been tried (etcd's `defaultBackoffWaitBetween`).
const REST: Duration = Duration::from_millis(25);

/// An endpoint that was not reached is not asked for so long, if there are others.
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
    members: RwLock<Vec<Member>>,
    turn: AtomicUsize,
}

#[derive(Clone)]
struct Member {
    endpoint: String,
    channel: Channel,
    aside: Arc<Mutex<Option<Instant>>>,
}

impl Upstream {
    /// Members at `endpoints`. Nothing is dialled before the first call.
    pub(super) fn new(
        settings: UpstreamSettings,
        endpoints: &[String],
    ) -> Result<Upstream, String> {
        let members = RwLock::default();
        let upstream = Upstream(Arc::new(Inner { settings, members, turn: AtomicUsize::new(0) }));
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
        Dial::new(endpoint, self.0.settings.tls.as_ref(), Speech::Http1)
    }

    fn member(&self, endpoint: &str) -> Result<Member, String> {
        let settings = &self.0.settings;
        let dial = Dial::new(endpoint, settings.tls.as_ref(), Speech::Http2);
        let uri = dial.uri()?;
        // Of the scheme the dial has taken care; the channel only speaks of it.
        let plain = uri.to_string().replacen("https://", "http://", 1);
        let mut channel = Channel::from_shared(plain)
            .map_err(|why| format!("bad endpoint {endpoint}: {why}"))?
            .origin(uri)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        if let Some(interval) = settings.ping_interval {
            channel = channel
                .http2_keep_alive_interval(interval)
                .keep_alive_timeout(settings.ping_timeout)
                .keep_alive_while_idle(settings.ping_idle);
        }
        Ok(Member {
            endpoint: endpoint.to_owned(),
            channel: channel.connect_with_connector_lazy(dial),
            aside: Arc::default(),
        })
    }

    /// The next one in turn, of those that are not aside if there are any.
    fn pick(&self) -> Result<Member, Status> {
        let members = self.0.members.read();
        let first = self.0.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || (0..members.len()).map(|i| &members[(first + i) % members.len()]);
        let picked = in_turn().find(|member| !member.is_aside()).or_else(|| in_turn().next());
        picked.cloned().ok_or_else(|| Status::unavailable("there is no address available"))
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
        let mut tries = 0;
        loop {
            let member = self.pick()?;
            let request = Request::from_parts(metadata.clone(), Extensions::new(), message.clone());
            let asked = async {
                let mut client = self.client(&member).await?;
                client.unary(request, path.clone(), Raw).await
            };
            let status = match asked.await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            tries += 1;
            let fault = member.judge(&status);
            let again = match fault {
                Fault::Unsent => true,
                Fault::Broken => repeat == Repeat::Freely,
                Fault::Told => repeat == Repeat::Freely && status.code() == Code::Unavailable,
                Fault::Late => false,
            };
            if !again || tries == TRIES_MAX {
                return Err(fault.in_words(status));
            }
            if tries % self.0.members.read().len().max(1) == 0 {
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
        let mut left = self.0.members.read().len().max(1);
        loop {
            let member = self.pick()?;
            let request = Request::from_parts(metadata.clone(), Extensions::new(), message.clone());
            let asked = async {
                let mut client = self.client(&member).await?;
                client.server_streaming(request, path.clone(), Raw).await
            };
            let status = match asked.await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            left -= 1;
            let fault = member.judge(&status);
            if fault != Fault::Unsent || left == 0 {
                return Err(fault.in_words(status));
            }
        }
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
        let member = self.pick().map_err(|status| Broken { fault: Fault::Unsent, status })?;
        let requests = ReceiverStream::new(requests);
        let request = Request::from_parts(metadata, Extensions::new(), requests);
        let asked = async {
            let mut client = self.client(&member).await?;
            let codec = ProstCodec::default();
            client.streaming(request, PathAndQuery::from_static(path), codec).await
        };
        match asked.await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(Broken { fault: member.judge(&status), status }),
        }
    }

    async fn client(&self, member: &Member) -> Result<Grpc<Channel>, Status> {
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

impl Member {
    fn is_aside(&self) -> bool {
        self.aside.lock().is_some_and(|since| since.elapsed() < ASIDE)
    }

    fn judge(&self, status: &Status) -> Fault {
        let fault = Fault::of(status);
        if fault == Fault::Unsent {
            *self.aside.lock() = Some(Instant::now());
            tracing::debug!(
                endpoint = self.endpoint,
                error = status.message(),
                "an endpoint was not reached"
            );
        }
        fault
    }
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
    use super::*;

    fn upstream(endpoints: &[&str]) -> Upstream {
        let endpoints: Vec<String> = endpoints.iter().map(|&text| text.to_owned()).collect();
        Upstream::new(UpstreamSettings::default(), &endpoints).unwrap()
    }

    #[tokio::test]
    async fn endpoints_take_turns_and_one_that_was_not_reached_stands_aside() {
        let upstream = upstream(&["a:1", "b:1", "c:1"]);
        let picked = |n: usize| -> Vec<String> {
            (0..n).map(|_| upstream.pick().unwrap().endpoint).collect()
        };
        assert_eq!(picked(4), ["a:1", "b:1", "c:1", "a:1"]);
        let unsent = Status::from_error(Box::new(ConnectError("refused".into())));
        assert_eq!(upstream.pick().unwrap().judge(&unsent), Fault::Unsent);
        assert!(!picked(6).contains(&"b:1".to_owned()));
        assert!(upstream.set(&["d:1".to_owned()]).unwrap());
        assert!(!upstream.set(&["d:1".to_owned()]).unwrap());
        assert_eq!(picked(1), ["d:1"]);
    }

    #[tokio::test]
    async fn a_write_that_reached_nobody_is_told_so_in_grpc_gos_words() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = gone.local_addr().unwrap().to_string();
        drop(gone);
        let upstream = upstream(&[&address]);
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
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
