//! Clients that say no more: where they end their half of a connection, an answer under way is still written whole.
//!
//! ```text
//!   request ── owed ──> answer written and flushed ── no longer owed
//!                 the end of what the client sends is withheld from hyper until then
//! ```
//!
//! hyper takes such an end for the client's leaving and drops the answer; told to allow it (`half_close`), it would not
//! notice a client that left a long call. Go's server writes its answer, and tells a handler by its context that the
//! client is gone (net/http `server.go`, `connReader`): its pages do not ask, while etcd's JSON gateway ends the call.
//! So only what is not for the gateway is owed, and for half a minute at most: a page that hangs is not waited for by a
//! client that may have left.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::task::AtomicWaker;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{Request, Response, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use tonic::body::Body;

use crate::service::http::is_for_gateway;

/// No page takes so long that is well.
const WITHHELD_MAX: Duration = Duration::from_secs(30);

/// The answers of one connection that its client waits for.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers(Arc<State>);

#[derive(Debug, Default)]
struct State {
    under_way: AtomicUsize,
    /// From a request until its whole answer is flushed.
    owed: AtomicBool,
    reader: AtomicWaker,
}

impl Answers {
    /// One more answer is owed, if the request is one that is answered whoever listens.
    pub(super) fn begin<B>(&self, request: &Request<B>) -> Option<Answering> {
        let owed = request.version() != Version::HTTP_2 && !is_for_gateway(request.uri().path());
        owed.then(|| {
            self.0.under_way.fetch_add(1, Ordering::AcqRel);
            self.0.owed.store(true, Ordering::Release);
            Answering(self.0.clone())
        })
    }

    fn flushed(&self) {
        if self.0.under_way.load(Ordering::Acquire) == 0
            && self.0.owed.swap(false, Ordering::AcqRel)
        {
            self.0.reader.wake();
        }
    }
}

/// An answer under way, until its body is dropped.
#[derive(Debug)]
pub(super) struct Answering(Arc<State>);

impl Answering {
    /// The answer, which ends when its body does.
    pub(super) fn with(self, answer: Response<Body>) -> Response<Body> {
        answer.map(|body| Body::new(Answered { body, _under_way: self }))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Answered {
    body: Body,
    _under_way: Answering,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection whose reader learns of its end when nothing is owed.
#[derive(Debug)]
pub(super) struct Patient<S> {
    inner: S,
    answers: Answers,
    ended: bool,
    /// Begun when the end is first withheld.
    limit: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(inner: S, answers: Answers) -> Patient<S> {
        Patient { inner, answers, ended: false, limit: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ended {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
            this.ended = buffer.filled().len() == before && buffer.remaining() > 0;
        }
        let State { owed, reader, .. } = &*this.answers.0;
        if !this.ended || !owed.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        reader.register(context.waker());
        let limit = this.limit.get_or_insert_with(|| Box::pin(sleep(WITHHELD_MAX)));
        if owed.load(Ordering::Acquire) {
            limit.as_mut().poll(context).map(Ok)
        } else {
            Poll::Ready(Ok(()))
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.inner).poll_flush(context))?;
        this.answers.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn to(path: &str, version: Version) -> Request<()> {
        Request::builder().uri(path).version(version).body(()).unwrap()
    }

    #[test]
    fn pages_are_owed_and_calls_are_not() {
        let answers = Answers::default();
        assert!(answers.begin(&to("/metrics", Version::HTTP_11)).is_some());
        assert!(answers.begin(&to("/metrics", Version::HTTP_2)).is_none());
        assert!(answers.begin(&to("/v3/watch", Version::HTTP_11)).is_none());
        assert!(answers.begin(&to("/v3beta/kv/range", Version::HTTP_11)).is_none());
        assert!(answers.begin(&to("/%763/watch", Version::HTTP_11)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_withheld_until_the_answer_is_flushed() {
        let (mut client, server) = tokio::io::duplex(64);
        let answers = Answers::default();
        let (mut read, mut write) = tokio::io::split(Patient::new(server, answers.clone()));
        client.write_all(b"GET").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = [0; 3];
        read.read_exact(&mut got).await.unwrap();
        let answering = answers.begin(&to("/health", Version::HTTP_11)).unwrap();
        let mut end = tokio::spawn(async move { read.read(&mut [0; 8]).await.unwrap() });
        let soon = Duration::from_secs(1);
        assert!(tokio::time::timeout(soon, &mut end).await.is_err(), "an answer is under way");
        write.flush().await.unwrap();
        assert!(tokio::time::timeout(soon, &mut end).await.is_err(), "not all of it was flushed");
        drop(answering.with(Response::new(Body::empty())));
        write.write_all(b"ok").await.unwrap();
        assert!(tokio::time::timeout(soon, &mut end).await.is_err(), "the rest is not flushed");
        write.flush().await.unwrap();
        assert_eq!(tokio::time::timeout(soon, end).await.unwrap().unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_never_comes_is_not_waited_for() {
        let (client, server) = tokio::io::duplex(64);
        let answers = Answers::default();
        let _never = answers.begin(&to("/health", Version::HTTP_11)).unwrap();
        drop(client);
        let mut read = Patient::new(server, answers);
        let end = tokio::time::timeout(WITHHELD_MAX * 2, read.read(&mut [0; 8])).await;
        assert_eq!(end.unwrap().unwrap(), 0);
    }
}
