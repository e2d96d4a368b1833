//! JSON over HTTP below `/v3/`: etcd's gateway (grpc-gateway v2, set up in etcd's `server/embed/serve.go`).
//!
//! ```text
//!   POST /v3/kv/put {..} ── path: method and messages (generated tables) ── heads: metadata
//!     ── values: cut from the body ── read: JSON to protobuf ── call: gRPC frames, in-process ──> the same services,
//!        limits and metrics as over a connection ── answers, write: protobuf to JSON ──> {..}, or lines {"result":..}
//! ```
//!
//! A WebSocket on the same paths carries the values of a request stream as messages, and the lines back.
//!
//! **Invariant:** no message is known by name here: a new method in `proto/` with a path has its gateway.
//! **Invariant:** the gateway never speaks to the keyspace, and passes no caller's certificate on.

mod answers;
mod base64;
mod call;
mod metadata;
mod number;
mod read;
pub(crate) mod schema;
mod values;
mod websocket;
mod wire;
mod write;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::header::HeaderMap;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};

use self::call::{Messages, Replies};
use self::metadata::Annotations;
use self::schema::{Message, Route};
use self::values::{Cut, Fault, Values};
pub(crate) use self::websocket::{Afterwards, is_upgrade};
use super::grpc::Grpc;

/// JSON may be longer than the message it spells by base64, names and space; beyond this it is refused unread.
const SPELLING_FACTOR: usize = 4;

/// Keepers of the gateway's calls: tokio counts no further.
const CALLS_MAX: usize = Semaphore::MAX_PERMITS;

/// The gateway of one keyspace.
#[derive(Clone)]
pub(crate) struct Gateway(Arc<Inner>);

struct Inner {
    grpc: Grpc,
    /// etcd's gateway has one connection to its own server, so `--max-concurrent-streams` bounds all its calls.
    calls: Arc<Semaphore>,
    value_bytes_max: usize,
}

/// How a request's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// By itself: one message is taken, the rest is read and dropped before the call.
    Whole,
    /// With the conversation: a message is enough.
    Open,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Gateway {
    /// Speaks to `grpc`, with at most `calls_max` calls at once.
    pub(crate) fn new(grpc: Grpc, calls_max: u32) -> Gateway {
        let calls = usize::try_from(calls_max).unwrap_or(CALLS_MAX).min(CALLS_MAX);
        let value_bytes_max = grpc.receive_bytes_max().saturating_mul(SPELLING_FACTOR);
        Gateway(Arc::new(Inner { grpc, calls: Arc::new(Semaphore::new(calls)), value_bytes_max }))
    }

    /// Answers one request below `/v3/`.
    pub(crate) async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Failure>,
    {
        self.serve(request, Ending::Whole).await
    }

    async fn serve<B>(&self, request: Request<B>, ending: Ending) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Failure>,
    {
        let Some(route) = Route::find(request.uri().path()) else {
            return answers::refusal(&Status::not_found("Not Found"));
        };
        if request.method() != Method::POST || overridden(request.headers()) {
            let text = "Method Not Allowed";
            return answers::refusal(&Status::unimplemented(text));
        }
        let (parts, body) = request.into_parts();
        let Annotations { heads, patience } = match metadata::annotate(&parts.headers) {
            Ok(annotations) => annotations,
            Err(refused) => return answers::refusal(&refused),
        };
        let limit = self.0.value_bytes_max;
        let call = if route.streams_in {
            call::with_many(route, heads, messages(route.input, limit, body))
        } else {
            match one_message(route.input, limit, body, ending).await {
                Ok(message) => call::with_one(route, heads, &message),
                Err(refused) => return answers::refusal(&refused),
            }
        };
        match self.call(call, patience).await {
            Ok(replies) if route.streams_out => lines(route.output, replies).await,
            Ok(replies) => match replies.only().await {
                Ok(bytes) => answers::message(route.output, &bytes),
                Err(refused) => answers::refusal(&refused),
            },
            Err(refused) => answers::refusal(&refused),
        }
    }

    /// Makes a call, in its turn.
    async fn call(
        &self,
        request: Request<Body>,
        patience: Option<Duration>,
    ) -> Result<Replies, Status> {
        let deadline = patience.and_then(|patience| Instant::now().checked_add(patience));
        let begun = async {
            let permit = Arc::clone(&self.0.calls).acquire_owned().await;
            let permit = permit.expect("nobody closes it");
            (self.0.grpc.call(request).await, permit)
        };
        let (response, permit) = match deadline {
            None => begun.await,
            Some(deadline) => {
                let begun = tokio::time::timeout_at(deadline, begun).await;
                begun.map_err(|_elapsed| call::out_of_time())?
            }
        };
        Ok(Replies::new(response, deadline, permit))
    }
}

/// grpc-gateway lets the senders of forms name another method; no path has one.
fn overridden(heads: &HeaderMap) -> bool {
    let form =
        heads.get("content-type").is_some_and(|kind| kind == "application/x-www-form-urlencoded");
    let other = heads.get("x-http-method-override");
    form && other
        .is_some_and(|name| !name.is_empty() && !name.as_bytes().eq_ignore_ascii_case(b"POST"))
}

fn refused_value(fault: &Fault) -> Status {
    let code = match fault {
        Fault::Syntax(_) => Code::InvalidArgument,
        Fault::TooLong(_) => Code::ResourceExhausted,
    };
    Status::new(code, fault.to_string())
}

/// Reads the first value of a body; an empty body is an empty message.
async fn one_message<B>(
    shape: &Message,
    limit: usize,
    body: B,
    ending: Ending,
) -> Result<Vec<u8>, Status>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Failure>,
{
    let mut body = pin!(body);
    let mut values = Values::new(limit);
    let mut ended = false;
    let value = loop {
        match values.next(ended).map_err(|fault| refused_value(&fault))? {
            Cut::Value(value) => break value,
            Cut::End => return Ok(Vec::new()),
            Cut::More => {}
        }
        match piece(body.as_mut()).await? {
            Some(piece) => values.feed(&piece),
            None => ended = true,
        }
    };
    let message = read::read(shape, &value).map_err(Status::invalid_argument)?;
    if ending == Ending::Whole && !ended {
        while piece(body.as_mut()).await?.is_some() {}
    }
    Ok(message)
}

/// The next bytes of a body.
async fn piece<B>(mut body: std::pin::Pin<&mut B>) -> Result<Option<Bytes>, Status>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Failure>,
{
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|why| Status::invalid_argument(why.into().to_string()))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// The values of a body, one after another. What is no message ends them without a word, as in etcd.
fn messages<B>(shape: &'static Message, limit: usize, body: B) -> Messages
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Failure>,
{
    let state = (Box::pin(body), Values::new(limit), false);
    Box::pin(stream::unfold(state, move |(mut body, mut values, mut ended)| async move {
        loop {
            match values.next(ended) {
                Ok(Cut::Value(value)) => {
                    let message = read::read(shape, &value).inspect_err(|why| dropped(why)).ok()?;
                    return Some((message, (body, values, ended)));
                }
                Ok(Cut::More) => {}
                Ok(Cut::End) => return None,
                Err(fault) => {
                    dropped(&fault.to_string());
                    return None;
                }
            }
            match piece(body.as_mut()).await {
                Ok(Some(piece)) => values.feed(&piece),
                Ok(None) => ended = true,
                Err(_broken) => return None,
            }
        }
    }))
}

fn dropped(why: &str) {
    tracing::debug!(error = why, "a stream of requests is no JSON from here on");
}

/// The lines of a stream. Nothing is answered before the first: it may be the end, with a status of its own.
async fn lines(shape: &'static Message, mut replies: Replies) -> Response<Body> {
    let Some(first) = replies.next().await else {
        return Response::new(Body::empty());
    };
    let first = answers::line(shape, first);
    let status = first.status;
    let state = (Some(first), Some(replies));
    let frames = stream::unfold(state, move |(first, replies)| async move {
        let mut replies = replies?;
        let line = match first {
            Some(first) => first,
            None => answers::line(shape, replies.next().await?),
        };
        let rest = (!line.last).then_some(replies);
        Some((Ok::<_, Status>(Frame::data(line.text)), (None, rest)))
    });
    answers::stream(status, Body::new(StreamBody::new(Box::pin(frames))))
}

#[cfg(test)]
#[path = "gateway_test.rs"]
mod tests;
