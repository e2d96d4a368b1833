//! A body that nobody read, because the answer was clear before: the rest of it is taken and forgotten.
//!
//! ```text
//!   request ── refused by its path, method, trust, phase ── answer
//!      └── body, still on its way ── taken to its end, or to a bound ── forgotten
//! ```
//!
//! Over HTTP/2 a body that is let go of before its end resets the stream, right behind the answer. That is allowed, but
//! clients (curl 7.88 among them) then tell of a broken stream, and not of the answer. HTTP/1.1 has no streams to reset,
//! and may be waiting for our word before it sends anything.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::body::BODY_BYTES_MAX;

/// What comes later than this is not waited for.
const TAKEN_WITHIN: Duration = Duration::from_secs(5);

/// A request's body, which is taken to its end whoever drops it.
pub(super) struct Taken {
    body: Option<Incoming>,
}

impl Taken {
    pub(super) fn new(body: Incoming) -> Taken {
        Taken { body: Some(body) }
    }
}

impl Body for Taken {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
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
        // Without a runtime there is no connection any more.
        let Ok(runtime) = Handle::try_current() else { return };
        drop(runtime.spawn(timeout(TAKEN_WITHIN, take(body))));
    }
}

async fn take(mut body: Incoming) {
    let mut left = BODY_BYTES_MAX;
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
}
