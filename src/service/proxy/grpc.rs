//! gRPC through the proxy: which calls are looked into, and which are carried as they are.
//!
//! | call | what is done with it |
//! |---|---|
//! | KV | cached, and put below the namespace (`kv`) |
//! | Watch | shared (`watch`) |
//! | LeaseKeepAlive, LeaseTimeToLive | carried on past a broken connection; keys of the namespace (`lease`) |
//! | MemberList | answered for the cluster (`cluster`) |
//! | RangeStream | refused, as by etcd's proxy |
//! | all else | its bytes go to a member, and the answer's come back |

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt as _};
use http::uri::PathAndQuery;
use http::{Request, Response};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::server::{Grpc, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Status, Streaming};
use tower_service::Service as _;

use super::Parts;
use super::caller::{Caller, carried};
use super::lease::{keep_alive, time_to_live};
use super::watch::Hub;
use crate::service::grpc::counts::{GrpcCounts, MethodCounts};
use crate::service::grpc::frames::{Ending, Incoming, Outgoing, code_of};
use crate::service::grpc::methods::Flow;
use crate::service::grpc::{not_grpc, unknown};
use crate::service::pb::etcdserverpb::watch_server::WatchServer;
use crate::service::raw::Raw;
use crate::service::status::{no_range_stream, unreadable};
use crate::service::upstream::paths::{MEMBER_LIST, RANGE_STREAM, TIME_TO_LIVE, WATCH};
use crate::service::upstream::{Broken, Repeat};

/// The longest message a client may send: grpc-go's own limit, which etcd's proxy leaves as it is.
const RECEIVE_BYTES_MAX: usize = 4 << 20;

/// Calls that change nothing, so that another member may be asked when one is not available.
const READS: [&str; 9] = [
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Hash",
    "/etcdserverpb.Maintenance/HashKV",
    "/etcdserverpb.Auth/AuthStatus",
    "/etcdserverpb.Auth/UserGet",
    "/etcdserverpb.Auth/UserList",
    "/etcdserverpb.Auth/RoleGet",
    "/etcdserverpb.Auth/RoleList",
];

/// Every service of the proxy. Cheap to clone.
#[derive(Clone)]
pub(super) struct Door {
    parts: Arc<Parts>,
    watch: WatchServer<Hub>,
    counts: Arc<GrpcCounts>,
    /// `--experimental-enable-grpc-logging`.
    logs: bool,
}

impl Door {
    pub(super) fn new(parts: Arc<Parts>, counts: GrpcCounts, logs: bool) -> Door {
        let watch = WatchServer::new(parts.hub.clone())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        Door { parts, watch, counts: Arc::new(counts), logs }
    }

    /// Answers one request, as HTTP/2 brings it.
    pub(super) async fn call<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        if let Some(refused) = not_grpc(&request) {
            return refused;
        }
        let Some(method) = self.counts.method(request.uri().path()).cloned() else {
            return unknown(request.uri().path()).into_http();
        };
        method.start();
        let mut ending = Ending {
            counts: Arc::clone(&self.counts),
            method: method.clone(),
            begun: Instant::now(),
            // A proxy waits for members: they say what takes them long.
            slow: Duration::MAX,
            done: false,
        };
        let path = method.path.clone();
        let counts = Arc::clone(&self.counts);
        let body = |body| Incoming::new(body, RECEIVE_BYTES_MAX, counts, method.clone());
        let response = self.dispatch(&method, request.map(body)).await;
        let code = code_of(response.headers());
        if self.logs {
            let took = ending.begun.elapsed();
            tracing::info!(method = path, code = ?code.unwrap_or(tonic::Code::Ok), ?took, "grpc call");
        }
        if let Some(code) = code {
            ending.end(code);
            let told = Status::from_header_map(response.headers());
            let unreadable = told.as_ref().and_then(unreadable);
            return unreadable.map_or(response, Status::into_http);
        }
        response.map(|body| Body::new(Outgoing::new(body, ending)))
    }

    async fn dispatch<B>(
        &self,
        method: &MethodCounts,
        request: Request<Incoming<B>>,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        if method.path == WATCH {
            return match self.watch.clone().call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
        }
        if method.path == RANGE_STREAM {
            return no_range_stream().into_http();
        }
        let Ok(path) = method.path.parse::<PathAndQuery>() else {
            return unknown(&method.path).into_http();
        };
        let carrier = Carrier { parts: Arc::clone(&self.parts), path };
        let mut server = Grpc::new(Raw)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        match method.flow {
            Flow::Unary => server.unary(carrier, request).await,
            Flow::ServerStream => server.server_streaming(carrier, request).await,
            Flow::BidiStream => server.streaming(carrier, request).await,
        }
    }
}

/// Carries one call to the members.
struct Carrier {
    parts: Arc<Parts>,
    path: PathAndQuery,
}

/// Many answers, as bytes.
type Answers = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

type Answered<T> = BoxFuture<'static, Result<tonic::Response<T>, Status>>;

fn boxed<T>(work: impl Future<Output = Result<T, Status>> + Send + 'static) -> Answered<T> {
    Box::pin(async move { work.await.map(tonic::Response::new) })
}

impl UnaryService<Bytes> for Carrier {
    type Response = Bytes;
    type Future = Answered<Bytes>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let (parts, path) = (Arc::clone(&self.parts), self.path.clone());
        let metadata = carried(request.metadata());
        let message = request.into_inner();
        boxed(async move { parts.unary(&path, &metadata, message).await })
    }
}

impl ServerStreamingService<Bytes> for Carrier {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = Answered<Answers>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let (parts, path) = (Arc::clone(&self.parts), self.path.clone());
        let metadata = carried(request.metadata());
        let message = request.into_inner();
        boxed(async move {
            let answers = parts.upstream.download(&path, &metadata, message).await?;
            let in_words = |told: Result<Bytes, Status>| {
                told.map_err(|status| Broken::new(status).into_status())
            };
            Ok(Box::pin(answers.map(in_words)) as Answers)
        })
    }
}

/// The only such call that is carried is LeaseKeepAlive.
impl StreamingService<Bytes> for Carrier {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = Answered<Answers>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let upstream = self.parts.upstream.clone();
        let caller = Caller::of(request.metadata());
        let requests = request.into_inner();
        boxed(async move { Ok(keep_alive(upstream, caller, requests)) })
    }
}

impl Parts {
    async fn unary(
        &self,
        path: &PathAndQuery,
        metadata: &tonic::metadata::MetadataMap,
        message: Bytes,
    ) -> Result<Bytes, Status> {
        match path.as_str() {
            MEMBER_LIST => self.cluster.members(metadata, message).await,
            TIME_TO_LIVE => time_to_live(&self.upstream, &self.names, metadata, message).await,
            kv if kv.starts_with("/etcdserverpb.KV/") => {
                self.kv.call(path, metadata, message).await
            }
            other => {
                let repeat = if READS.contains(&other) { Repeat::Freely } else { Repeat::Never };
                self.upstream.unary(path, metadata, message, repeat).await
            }
        }
    }
}
