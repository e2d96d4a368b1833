//! Bodies of gRPC calls, watched as they pass: messages are counted by their five-byte prefixes, one over the
//! limit is refused before it is read, and the trailers tell how the call ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::counts::{GrpcCounts, MethodCounts};
use crate::service::status::message_too_large;

/// Finds message boundaries in a run of chunks: compression flag (1 byte), length (4 bytes), message.
#[derive(Debug, Default)]
struct Prefixes {
    prefix: [u8; 5],
    have: usize,
    rest: usize,
}

impl Prefixes {
    /// Walks a chunk and calls `seen` with the length of each message that begins.
    fn walk<E>(
        &mut self,
        mut chunk: &[u8],
        mut seen: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        while !chunk.is_empty() {
            if self.rest > 0 {
                let skip = self.rest.min(chunk.len());
                self.rest -= skip;
                chunk = &chunk[skip..];
                continue;
            }
            let take = (self.prefix.len() - self.have).min(chunk.len());
            self.prefix[self.have..self.have + take].copy_from_slice(&chunk[..take]);
            self.have += take;
            chunk = &chunk[take..];
            if self.have == self.prefix.len() {
                let [_, a, b, c, d] = self.prefix;
                self.rest = u32::from_be_bytes([a, b, c, d]) as usize;
                self.have = 0;
                seen(self.rest)?;
            }
        }
        Ok(())
    }
}

/// A request's body.
pub(crate) struct Incoming<B> {
    inner: B,
    prefixes: Prefixes,
    limit: usize,
    counts: Arc<GrpcCounts>,
    method: MethodCounts,
}

impl<B> Incoming<B> {
    pub(crate) fn new(
        inner: B,
        limit: usize,
        counts: Arc<GrpcCounts>,
        method: MethodCounts,
    ) -> Self {
        Incoming { inner, prefixes: Prefixes::default(), limit, counts, method }
    }
}

impl<B> Body for Incoming<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let frame = match std::task::ready!(Pin::new(&mut this.inner).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            Some(Err(why)) => return Poll::Ready(Some(Err(why.into()))),
            None => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref() {
            let (limit, method, counts) = (this.limit, &this.method, &this.counts);
            let walked: Result<(), Status> = this.prefixes.walk(data, |length| {
                if length > limit {
                    return Err(message_too_large(length, limit));
                }
                method.received.inc();
                counts.received_bytes.inc_by(length as u64);
                Ok(())
            });
            if let Err(refused) = walked {
                return Poll::Ready(Some(Err(Box::new(refused))));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response is handed to the connection in pieces of so many bytes. h2 gives a connection's window to its streams in
/// turn, to each as much as it has been handed: a small answer or event would wait for whole ranges of others.
const PIECE_BYTES: usize = 64 * 1024;

/// A response's body. Dropped before its trailers, the call was cancelled.
pub(crate) struct Outgoing {
    inner: tonic::body::Body,
    /// What is left of a long frame.
    rest: Bytes,
    prefixes: Prefixes,
    ending: Ending,
    /// Resolves with the reason why a stream that would never end by itself is ended.
    cut: Option<BoxFuture<'static, Status>>,
}

/// Counts the end of a call, once.
pub(crate) struct Ending {
    pub(crate) counts: Arc<GrpcCounts>,
    pub(crate) method: MethodCounts,
    pub(crate) begun: Instant,
    /// A unary call that takes longer is logged.
    pub(crate) slow: Duration,
    pub(crate) done: bool,
}

impl Ending {
    pub(crate) fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let spent = self.begun.elapsed();
        self.method.end(code, spent.as_secs_f64());
        if self.method.flow == super::methods::Flow::Unary && spent > self.slow {
            tracing::warn!(
                "time spent" = ?spent,
                "response type" = self.method.path,
                code = ?code,
                "request stats"
            );
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

impl Outgoing {
    pub(crate) fn new(inner: tonic::body::Body, ending: Ending) -> Self {
        let prefixes = Prefixes::default();
        Outgoing { inner, rest: Bytes::new(), prefixes, ending, cut: None }
    }

    /// Ends the stream with the status that `cut` resolves to.
    pub(crate) fn until(self, cut: BoxFuture<'static, Status>) -> Self {
        Outgoing { cut: Some(cut), ..self }
    }

    /// Keeps what is over the size of a piece.
    fn first_piece(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        frame.map_data(|mut data| {
            self.rest = data.split_off(data.len().min(PIECE_BYTES));
            data
        })
    }

    /// The trailers of a stream that is cut now, once.
    fn poll_cut(&mut self, context: &mut Context<'_>) -> Option<Frame<Bytes>> {
        let Poll::Ready(status) = self.cut.as_mut()?.as_mut().poll(context) else { return None };
        self.cut = None;
        self.inner = tonic::body::Body::empty();
        self.ending.end(status.code());
        let mut trailers = http::HeaderMap::new();
        status.add_header(&mut trailers).ok()?;
        Some(Frame::trailers(trailers))
    }
}

/// How headers or trailers say that a call ended, if they do.
pub(crate) fn code_of(headers: &http::HeaderMap) -> Option<Code> {
    let code = headers.get("grpc-status")?;
    Some(Code::from_bytes(code.as_bytes()))
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if !this.rest.is_empty() {
            let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(trailers) = this.poll_cut(context) {
            return Poll::Ready(Some(Ok(trailers)));
        }
        let polled = std::task::ready!(Pin::new(&mut this.inner).poll_frame(context));
        match &polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let ending = &this.ending;
                    let _: Result<(), ()> = this.prefixes.walk(data, |length| {
                        ending.method.sent.inc();
                        ending.counts.sent_bytes.inc_by(length as u64);
                        Ok(())
                    });
                } else if let Some(code) = frame.trailers_ref().and_then(code_of) {
                    this.ending.end(code);
                }
            }
            Some(Err(status)) => this.ending.end(status.code()),
            None => this.ending.end(Code::Ok),
        }
        Poll::Ready(polled.map(|frame| frame.map(|frame| this.first_piece(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_empty() { self.inner.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_the_chunks_are_cut() {
        let mut bytes = Vec::new();
        for length in [0_u32, 3, 70_000] {
            bytes.push(0);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.resize(bytes.len() + length as usize, 7);
        }
        for cut in [1, 2, 4, 5, 6, 1000, usize::MAX] {
            let (mut prefixes, mut seen) = (Prefixes::default(), Vec::new());
            for chunk in bytes.chunks(cut.min(bytes.len())) {
                let walked: Result<(), ()> = prefixes.walk(chunk, |length| {
                    seen.push(length);
                    Ok(())
                });
                assert!(walked.is_ok());
            }
            assert_eq!(seen, [0, 3, 70_000], "cut {cut}");
        }
    }

    #[tokio::test]
    async fn a_long_answer_is_handed_over_in_pieces() {
        let counts = Arc::new(GrpcCounts::new(&crate::support::metrics::Metrics::default(), false));
        let method = counts.method("/etcdserverpb.KV/Range").unwrap().clone();
        let (begun, slow) = (Instant::now(), Duration::from_secs(60));
        let ending = Ending { counts: Arc::clone(&counts), method, begun, slow, done: false };
        let mut message = vec![0_u8; 5 + 200_000];
        message[1..5].copy_from_slice(&200_000_u32.to_be_bytes());
        let whole = http_body_util::Full::new(Bytes::from(message.clone()));
        let mut body = Outgoing::new(tonic::body::Body::new(whole), ending);
        let (mut seen, mut pieces) = (Vec::new(), 0);
        while let Some(frame) = http_body_util::BodyExt::frame(&mut body).await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE_BYTES);
            seen.extend_from_slice(&piece);
            pieces += 1;
            assert!(!body.is_end_stream() || seen.len() == message.len());
        }
        assert_eq!(pieces, 4);
        assert_eq!(seen, message);
        assert_eq!(counts.sent_bytes.get(), 200_000);
    }
}
