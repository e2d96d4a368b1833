//! Connections: accepted, told apart by their first bytes, served, and ended in order.
//!
//! ```text
//!   accept ──> connection task ── TLS? ── preface "PRI * HTTP/2.0"? ── yes: gRPC      no: HTTP/1.1
//!      │            └── draining: GOAWAY, open calls may end ── past the deadline: cut
//!      └── draining: stop accepting, join the tasks
//! ```
//!
//! As in etcd, an HTTP/2 preface in cleartext always means gRPC, and `Upgrade: h2c` is answered as HTTP/1.1; over TLS an
//! HTTP/2 request is gRPC if its content type says so, and everything else is HTTP.
//!
//! **Invariant:** a connection's fault ends that connection and nothing else.

mod fields;
mod patience;
mod wire;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::task::JoinSet;
use tonic::body::Body;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber as _;

use self::patience::{Answers, Patient};
pub use self::wire::Security;
use self::wire::{Open, open};
use super::Desk;
use super::gateway::Afterwards;
use super::http::{Door, HASH_PATH};
use crate::support::authority::Mended;
use crate::support::listen::{Connection, Listener};
use crate::support::shutdown::Draining;
use crate::support::tls::{Encrypted, PeerIdentity};

/// A slow client may take this long to send the head of a request (etcd's `ReadHeaderTimeout`).
const HEAD_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Members are quicker, or not welcome.
const PEER_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections on a peer port that have not become streams, or on the management API's. There are few members and
/// administrators; more are closed at once.
const FEW_CONNECTIONS_MAX: usize = 1024;

/// After a failed accept (no descriptors left, usually) the listener rests this long.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Clients that open and abort many streams at once are not punished below this many.
const PENDING_RESETS_MAX: usize = 1024;

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// gRPC and HTTP/1.1 on one port.
    Both,
    /// gRPC alone.
    GrpcOnly,
    /// HTTP/1.1 alone.
    HttpOnly,
    /// Metrics and health alone.
    MetricsOnly,
    /// What other members may ask: streams, the members, our version.
    PeersOnly,
    /// The management API of a node.
    Management,
}

impl Traffic {
    /// etcd's word in the log.
    pub fn word(self) -> &'static str {
        match self {
            Traffic::Both => "grpc+http",
            Traffic::GrpcOnly => "grpc",
            Traffic::HttpOnly => "http",
            Traffic::MetricsOnly => "metrics",
            Traffic::PeersOnly => "peer",
            Traffic::Management => "management",
        }
    }

    fn head_timeout(self) -> Duration {
        match self {
            Traffic::PeersOnly => PEER_HEAD_TIMEOUT,
            Traffic::Both
            | Traffic::GrpcOnly
            | Traffic::HttpOnly
            | Traffic::MetricsOnly
            | Traffic::Management => HEAD_TIMEOUT,
        }
    }

    fn door(self) -> Door {
        match self {
            Traffic::Both | Traffic::GrpcOnly | Traffic::HttpOnly => Door::Client,
            // Management has a counter of its own; here it would get no more than probes do.
            Traffic::MetricsOnly | Traffic::Management => Door::Metrics,
            Traffic::PeersOnly => Door::Peer,
        }
    }
}

/// A listener and what comes in by it.
#[derive(Debug)]
pub struct Entrance {
    /// Where.
    pub listener: Listener,
    /// What.
    pub traffic: Traffic,
    /// Over what.
    pub security: Security,
}

/// Who answers what comes in by an entrance.
pub trait Counter: Clone + Send + Sync + 'static {
    /// Answers one request. What the connection does after an upgrade is left in `afterwards`.
    fn answer(
        &self,
        traffic: Traffic,
        request: Request<Incoming>,
        afterwards: &Afterwards,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// `--max-concurrent-streams`.
    pub streams_max: u32,
    /// `--grpc-keepalive-interval`; `None` for no pings.
    pub ping_interval: Option<Duration>,
    /// `--grpc-keepalive-timeout`.
    pub ping_timeout: Duration,
    /// How long open calls may go on once the server drains.
    pub drain: Duration,
}

/// Runs tasks with the log of the server they belong to; without one, with whatever log is the process's.
#[derive(Clone, Debug)]
pub struct Tasks {
    log: Option<Dispatch>,
}

impl Tasks {
    /// Tasks that log to `log`.
    pub fn new(log: Option<Dispatch>) -> Self {
        Tasks { log }
    }
}

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        match &self.log {
            Some(log) => drop(tokio::spawn(future.with_subscriber(log.clone()))),
            None => drop(tokio::spawn(future)),
        }
    }
}

/// Accepts until draining begins, then waits for the connections, and cuts those that take too long.
pub async fn serve<C: Counter>(
    entrance: Entrance,
    desk: C,
    limits: ConnectionLimits,
    tasks: Tasks,
    mut draining: Draining,
) {
    let Entrance { listener, traffic, security } = entrance;
    let builder = builder(traffic, security.is_secure(), limits, tasks.clone());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = draining.started() => break,
            accepted = listener.accept() => match accepted {
                Ok(connection) => {
                    let few = matches!(traffic, Traffic::PeersOnly | Traffic::Management);
                    if few && connections.len() >= FEW_CONNECTIONS_MAX {
                        continue;
                    }
                    let served = receive(
                        connection,
                        security.clone(),
                        Reception { traffic, desk: desk.clone(), builder: builder.clone() },
                        draining.clone(),
                    );
                    match &tasks.log {
                        Some(log) => connections.spawn(served.with_subscriber(log.clone())),
                        None => connections.spawn(served),
                    };
                }
                Err(why) => {
                    tracing::warn!(error = %why, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            },
            Some(_ended) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, all_ended).await.is_err() {
        connections.shutdown().await;
    }
}

fn builder(
    traffic: Traffic,
    secure: bool,
    limits: ConnectionLimits,
    tasks: Tasks,
) -> Builder<Tasks> {
    let mut builder = Builder::new(tasks);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(traffic.head_timeout())
        .title_case_headers(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .keep_alive_interval(limits.ping_interval)
        .keep_alive_timeout(limits.ping_timeout)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX);
    match traffic {
        Traffic::Both => builder,
        Traffic::GrpcOnly => builder.http2_only(),
        // HTTP/2 is spoken where it was agreed on, which takes TLS.
        Traffic::HttpOnly | Traffic::MetricsOnly | Traffic::Management if secure => builder,
        Traffic::HttpOnly | Traffic::MetricsOnly | Traffic::PeersOnly | Traffic::Management => {
            builder.http1_only()
        }
    }
}

/// What every connection of a listener shares.
struct Reception<C> {
    traffic: Traffic,
    desk: C,
    builder: Builder<Tasks>,
}

/// Serves one connection, from its handshake to its end.
async fn receive<C: Counter>(
    connection: Connection,
    security: Security,
    reception: Reception<C>,
    mut draining: Draining,
) {
    let opened = tokio::select! {
        opened = open(connection, &security, reception.traffic.head_timeout()) => opened,
        () = draining.started() => None,
    };
    if let Some(opened) = opened {
        converse(opened, reception, draining).await;
    }
}

async fn converse<C: Counter>(opened: Open, reception: Reception<C>, mut draining: Draining) {
    let Open { wire, encrypted, identity } = opened;
    let Reception { traffic, desk, builder } = reception;
    // Each request clones what it needs: here one count, not one for each part of it.
    let desk = Arc::new(desk);
    let afterwards = Afterwards::default();
    let left = afterwards.clone();
    let answers = Answers::default();
    let owing = answers.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (desk, identity, left) = (desk.clone(), identity.clone(), left.clone());
        // What management changes goes on without its client; a client that leaves is noticed at once.
        let answering = if traffic == Traffic::Management { None } else { owing.begin(&request) };
        async move {
            introduce(&mut request, encrypted, identity);
            let answer = desk.answer(traffic, request, &left).await;
            Ok::<_, Infallible>(match answering {
                Some(answering) => answering.with(answer),
                None => answer,
            })
        }
    });
    let ended = if traffic == Traffic::PeersOnly {
        let wire = TokioIo::new(wire);
        let mut connection = pin!(builder.serve_connection_with_upgrades(wire, service));
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = draining.started() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    } else if traffic == Traffic::GrpcOnly {
        // Connections that upgrade are not held to one version of HTTP.
        let wire = TokioIo::new(Mended::new(wire));
        let mut connection = pin!(builder.serve_connection(wire, service));
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = draining.started() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    } else {
        let wire = TokioIo::new(Patient::new(Mended::new(wire), answers));
        let mut connection = pin!(builder.serve_connection_with_upgrades(wire, service));
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = draining.started() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(why) = ended {
        // A client that went away, or spoke something else: its own business.
        tracing::debug!(error = %why, "a connection ended early");
    } else if let Some(conversation) = afterwards.take() {
        conversation.run(draining).await;
    }
}

/// Notes on a request how it came, and from whom.
fn introduce<B>(request: &mut Request<B>, encrypted: bool, identity: Option<PeerIdentity>) {
    if encrypted {
        request.extensions_mut().insert(Encrypted);
    }
    if let Some(identity) = identity {
        request.extensions_mut().insert(identity);
    }
}

/// Whether a request is gRPC. In cleartext every HTTP/2 request is; over TLS the content type decides.
pub(super) fn is_grpc<B>(traffic: Traffic, request: &Request<B>) -> bool {
    match traffic {
        Traffic::GrpcOnly => true,
        Traffic::HttpOnly | Traffic::MetricsOnly | Traffic::PeersOnly | Traffic::Management => {
            false
        }
        Traffic::Both if request.version() != Version::HTTP_2 => false,
        Traffic::Both if request.extensions().get::<Encrypted>().is_none() => true,
        Traffic::Both => {
            let kind = request.headers().get(header::CONTENT_TYPE);
            kind.and_then(|kind| kind.to_str().ok()).is_some_and(|k| k.contains("application/grpc"))
        }
    }
}

impl Counter for Desk {
    async fn answer(
        &self,
        traffic: Traffic,
        mut request: Request<Incoming>,
        afterwards: &Afterwards,
    ) -> Response<Body> {
        if self.http2_debug {
            fields::print(&request);
        }
        // Connections that upgrade are not held to one version of HTTP.
        let spoken = request.version() == Version::HTTP_2;
        let agreed = request.extensions().get::<Encrypted>().is_some();
        let both = matches!(traffic, Traffic::Both | Traffic::GrpcOnly);
        if spoken && !both && (traffic == Traffic::PeersOnly || !agreed) {
            let mut refused = Response::new(Body::empty());
            *refused.status_mut() = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
            return refused;
        }
        if traffic == Traffic::PeersOnly && request.uri().path().starts_with("/raft/") {
            return self.peers.accept(&mut request).map(Body::new);
        }
        if traffic == Traffic::PeersOnly && request.uri().path() == HASH_PATH {
            return Box::pin(self.site.peer_hash(request)).await.map(Body::new);
        }
        if is_grpc(traffic, &request) {
            self.grpc.call(request).await
        } else {
            // In a box: a future of the size of any answer would be moved about with each gRPC call.
            Box::pin(self.site.answer(traffic.door(), request, afterwards)).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_tells_how_it_came_and_from_whom() {
        let mut request = Request::new(());
        introduce(&mut request, false, None);
        assert!(request.extensions().is_empty());
        let identity =
            PeerIdentity { common_name: Some("root".to_owned()), ..PeerIdentity::default() };
        introduce(&mut request, true, Some(identity.clone()));
        assert_eq!(request.extensions().get(), Some(&Encrypted));
        assert_eq!(request.extensions().get(), Some(&identity));
    }

    #[test]
    fn http_2_is_grpc_in_cleartext_and_by_its_content_type_over_tls() {
        let request = |version, encrypted, kind: &'static str| {
            let request = Request::builder().version(version).header(header::CONTENT_TYPE, kind);
            let mut request = request.body(()).unwrap();
            introduce(&mut request, encrypted, None);
            is_grpc(Traffic::Both, &request)
        };
        assert!(request(Version::HTTP_2, false, "text/plain"));
        assert!(request(Version::HTTP_2, true, "application/grpc+proto"));
        assert!(!request(Version::HTTP_2, true, "application/json"));
        assert!(!request(Version::HTTP_11, true, "application/grpc"));
    }
}
