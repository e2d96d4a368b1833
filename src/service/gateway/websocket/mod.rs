//! The gateway over a WebSocket, for browsers: each message of the caller is the next piece of the request's body, each
//! line of the answer is a message (etcd's `tmc/grpc-websocket-proxy`).
//!
//! ```text
//!   GET /v3/watch, Upgrade: websocket ── 101 ── the connection's task goes on here
//!      caller ── text ──> body of POST /v3/watch        lines of its answer ── text ──> caller
//! ```
//!
//! A browser cannot set heads: a token comes as `Sec-WebSocket-Protocol: Bearer, <token>` or in the cookie `token`.

mod handshake;
mod socket;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;

pub(crate) use self::handshake::is_upgrade;
use self::socket::{Event, Gone, Socket};
use super::{Ending, Gateway};
use crate::support::shutdown::Draining;

/// Once the server stops, streams have so long to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What is left of a connection after its handshake. Whoever serves the connection runs it.
pub(crate) struct Conversation(Pin<Box<dyn Future<Output = ()> + Send>>);

/// Where a connection finds the conversation that follows its last answer.
#[derive(Clone, Default)]
pub struct Afterwards(Arc<Mutex<Option<Conversation>>>);

impl Afterwards {
    fn set(&self, conversation: Conversation) {
        *self.0.lock() = Some(conversation);
    }

    pub(crate) fn take(&self) -> Option<Conversation> {
        self.0.lock().take()
    }
}

impl Conversation {
    /// Talks until either side ends it, or the server stops.
    pub(crate) async fn run(self, mut draining: Draining) {
        let stopped = async {
            draining.started().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = self.0 => {}
            () = stopped => {}
        }
    }
}

impl Gateway {
    /// Answers a handshake; the conversation begins once the answer has been sent.
    pub(crate) fn upgrade<B>(
        &self,
        request: &mut Request<B>,
        afterwards: &Afterwards,
    ) -> Response<Body> {
        let accepted = match handshake::accept(request.method(), request.headers()) {
            Ok(accepted) => accepted,
            Err(status) => return handshake::refuse(status),
        };
        let inner = handshake::inner_request(request.uri(), request.headers());
        let upgrade = hyper::upgrade::on(request);
        let talk = talk(self.clone(), upgrade, inner).boxed();
        afterwards.set(Conversation(talk));
        accepted
    }
}

async fn talk(gateway: Gateway, upgrade: OnUpgrade, inner: Request<()>) {
    match upgrade.await {
        Ok(upgraded) => {
            let limit = gateway.0.value_bytes_max;
            let mut socket = Socket::new(TokioIo::new(upgraded), limit);
            if let Err(why) = converse(&gateway, &mut socket, inner).await {
                tracing::debug!(error = %why, "a WebSocket ended early");
            }
        }
        Err(why) => tracing::debug!(error = %why, "a WebSocket was not opened"),
    }
}

/// Carries messages both ways until the answer is complete or the caller leaves.
async fn converse<IO>(
    gateway: &Gateway,
    socket: &mut Socket<IO>,
    inner: Request<()>,
) -> Result<(), Gone>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (pieces, body) = mpsc::channel::<Bytes>(1);
    let mut pieces = Some(pieces);
    let body = ReceiverStream::new(body).map(|piece| Ok::<_, Status>(Frame::data(piece)));
    let request = inner.map(|()| Body::new(StreamBody::new(body)));
    let answer = async { lines(gateway.serve(request, Ending::Open).await) };
    let mut answer = pin!(answer.flatten_stream());
    let mut waiting: Option<Bytes> = None;
    loop {
        let room = async {
            match (&pieces, &waiting) {
                (Some(pieces), Some(_)) => drop(pieces.reserve().await),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            line = answer.next() => match line {
                Some(line) => socket.send(&line).await?,
                None => return socket.close(socket::NORMAL).await,
            },
            () = room => {
                let sent = pieces.as_ref().zip(waiting.take());
                if sent.is_none_or(|(pieces, piece)| pieces.try_send(piece).is_err()) {
                    // The method reads no more; what else comes is dropped.
                    pieces = None;
                }
            }
            event = socket.read(), if waiting.is_none() => match event? {
                Event::Message(message) if pieces.is_some() => {
                    waiting = Some([&message[..], b"\n"].concat().into());
                }
                Event::Message(_) => {}
                Event::Ping(payload) => socket.pong(&payload).await?,
                Event::Close(code) => return socket.close(code).await,
            },
        }
    }
}

/// The lines of an answer, whatever its status.
fn lines(answer: Response<Body>) -> impl Stream<Item = Bytes> {
    let frames = answer.into_body().into_data_stream();
    frames.filter_map(|data| std::future::ready(data.ok())).flat_map(|data| {
        let lines: Vec<Bytes> = data
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| data.slice_ref(line))
            .collect();
        futures::stream::iter(lines)
    })
}
