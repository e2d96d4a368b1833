//! One call of a method, in-process: frames of gRPC go in, frames come out, as over a connection.

use std::pin::Pin;

use bytes::{Buf as _, Bytes, BytesMut};
use futures::Stream;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};

use super::schema::Route;

/// Compression flag and length.
const PREFIX_BYTES: usize = 5;

/// Messages on their way to a method.
pub(super) type Messages = Pin<Box<dyn Stream<Item = Vec<u8>> + Send>>;

fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("bodies are bounded far below 4 GiB");
    let mut framed = Vec::with_capacity(PREFIX_BYTES + message.len());
    framed.push(0);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    framed.into()
}

/// The request of a call with one message.
pub(super) fn with_one(route: &Route, heads: HeaderMap, message: &[u8]) -> Request<Body> {
    request(route, heads, Body::new(Full::new(frame(message))))
}

/// The request of a call with as many messages as come.
pub(super) fn with_many(route: &Route, heads: HeaderMap, messages: Messages) -> Request<Body> {
    use futures::StreamExt as _;
    let frames = messages.map(|message| Ok::<_, Status>(Frame::data(frame(&message))));
    request(route, heads, Body::new(StreamBody::new(frames)))
}

fn request(route: &Route, heads: HeaderMap, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(route.method);
    *request.headers_mut() = heads;
    let kind = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    request
}

/// The messages that a method answers with.
pub(super) struct Replies {
    body: Body,
    /// How a call that answered with its end alone ended.
    ended: Option<Result<(), Status>>,
    buffer: BytesMut,
    deadline: Option<Instant>,
    /// A call counts against the limit until its last message.
    _permit: OwnedSemaphorePermit,
}

fn end(heads: &HeaderMap) -> Option<Result<(), Status>> {
    let status = Status::from_header_map(heads)?;
    Some(if status.code() == Code::Ok { Ok(()) } else { Err(status) })
}

/// What a caller is told whose time is over.
pub(super) fn out_of_time() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

impl Replies {
    pub(super) fn new(
        response: http::Response<Body>,
        deadline: Option<Instant>,
        permit: OwnedSemaphorePermit,
    ) -> Replies {
        let ended = end(response.headers());
        let body = response.into_body();
        Replies { body, ended, buffer: BytesMut::new(), deadline, _permit: permit }
    }

    /// The next message; `None` after the last one.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        let Some(deadline) = self.deadline else { return self.message().await };
        let next = tokio::time::timeout_at(deadline, self.message()).await;
        next.unwrap_or_else(|_elapsed| {
            self.ended = Some(Ok(()));
            self.body = Body::empty();
            Some(Err(out_of_time()))
        })
    }

    /// The one message of a unary call, read to its end: a call that is left before that counts as cancelled.
    pub(super) async fn only(mut self) -> Result<Bytes, Status> {
        let message = self.next().await;
        match self.next().await {
            Some(Err(refused)) => Err(refused),
            Some(Ok(_)) | None => message.unwrap_or_else(|| Err(Status::internal("no answer"))),
        }
    }

    async fn message(&mut self) -> Option<Result<Bytes, Status>> {
        loop {
            if let Some(message) = self.take() {
                return Some(Ok(message));
            }
            if let Some(ended) = &mut self.ended {
                let told = std::mem::replace(ended, Ok(()));
                return told.err().map(Err);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => self.ended = frame.trailers_ref().and_then(end),
                },
                Some(Err(why)) => self.ended = Some(Err(why)),
                None => self.ended = Some(Ok(())),
            }
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        let prefix = self.buffer.first_chunk::<PREFIX_BYTES>()?;
        let [_, a, b, c, d] = *prefix;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if self.buffer.len() - PREFIX_BYTES < length {
            return None;
        }
        self.buffer.advance(PREFIX_BYTES);
        Some(self.buffer.split_to(length).freeze())
    }
}
