//! A body that nobody read, because the answer was clear before: the rest of it is taken and forgotten.
//!
//! ```text
//!   request ── refused by its path, method, trust, phase ── answer
//!      └── body, still on its way ── taken to its end, or to a bound ── forgotten
//! ```
//!
//! A body that is let go of before its end resets the stream over HTTP/2, and the connection over HTTP/1.1, right behind
//! the answer. Clients that are still sending then tell of what broke, and not of the answer: curl 7.88 does.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// What comes later than this is not waited for.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

/// Nor what is longer than this.
const TAKEN_BYTES_MAX: usize = 16 << 20;

/// A request's body, which is taken to its end whoever drops it.
pub(super) struct Taken {
    body: Option<Incoming>,
    /// Whoever sends it waits until somebody wants it.
    unasked: bool,
}

impl Taken {
    pub(super) fn of(request: Request<Incoming>) -> Request<Taken> {
        let unasked = request.headers().contains_key(header::EXPECT);
        request.map(|body| Taken { body: Some(body), unasked })
    }
}

impl Body for Taken {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.unasked = false;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        if self.unasked {
            return;
        }
        // Without a runtime there is no connection any more.
        let Ok(runtime) = Handle::try_current() else { return };
        drop(runtime.spawn(timeout(TAKEN_WITHIN, take(body))));
    }
}

async fn take(mut body: Incoming) {
    let mut left = TAKEN_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let taken = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(taken) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc;
    use futures::{SinkExt as _, StreamExt as _};
    use http::Request;
    use http_body_util::StreamBody;
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::body::BODY_BYTES_MAX;
    use super::super::wire_test::Served;
    use super::*;

    type Piece = Result<Frame<Bytes>, std::io::Error>;

    /// What curl needs for telling a refusal: the stream is not reset while the body is on its way.
    #[tokio::test]
    async fn a_refusal_over_http_2_leaves_the_rest_of_the_body_its_time() {
        let served = Served::start().await;
        let stream = served.connect().await;
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        for (path, refused) in [
            ("/1.0/k8sd/cluster/tokens", 403),
            ("/1.0/x/capi/generate-join-token", 401),
            ("/1.0/nowhere", 404),
        ] {
            let (mut pieces, body) = mpsc::channel::<Piece>(0);
            // Hyper gives up a body whose stream was reset.
            let (end, gone) = tokio::sync::oneshot::channel::<()>();
            let body = body.inspect(move |_| assert!(!end.is_closed()));
            let request = Request::post(format!("https://a{path}"));
            let request = request.body(StreamBody::new(Box::pin(body))).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status(), refused, "{path}");
            answer.into_body().collect().await.unwrap();
            let reset = timeout(Duration::from_millis(300), gone).await;
            assert!(reset.is_err(), "{path}: the stream was reset");
            pieces.send(Ok(Frame::data(Bytes::from_static(b"{}")))).await.unwrap();
        }
        connection.abort();
    }

    /// Nor is the connection closed.
    #[tokio::test]
    async fn a_long_body_that_is_refused_over_http_1_may_be_sent_to_its_end() {
        let served = Served::start().await;
        for turn in 0..10 {
            let mut stream = served.connect().await;
            let long = vec![b' '; 5 * BODY_BYTES_MAX];
            let head = format!(
                "POST /1.0/k8sd/cluster/tokens HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
                long.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let sent = stream.write_all(&long).await;
            assert!(sent.is_ok(), "{turn}: {sent:?}");
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 403", "{turn}");
        }
    }
}
