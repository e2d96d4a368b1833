//! The connection to one endpoint: dialled once for all who wait for it, and known to be gone as soon as it is.
//!
//! ```text
//!   idle ── dial, TLS, and the member speaks ──> up ── closed ──> idle
//!             └── refused, or nothing in five seconds ──> idle, and known to be down until a dial succeeds
//! ```
//!
//! **Invariant:** a call goes out only on a connection on which the member has spoken (as with grpc-go, whose subchannels
//! are ready once the server's settings have come); none waits behind another one's dial.

use std::future::Ready;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use crate::support::dial::{CONNECT_MAX, Dial, Wire, late};

/// An endpoint, and the connection to it if there is one.
pub(super) struct Link {
    pub(super) endpoint: String,
    dial: Dial,
    setup: Endpoint,
    state: Mutex<State>,
    /// A dial has ended, this way or the other.
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// Of the dial that is under way, or has led to the connection: what is told of an older one is no news.
    number: u64,
    /// When and why the last dial failed, until one succeeds.
    failed: Option<(Instant, String)>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Idle,
    Dialling,
    Up(Channel),
}

/// A connection to send a call on.
#[derive(Clone)]
pub(super) struct Up {
    pub(super) channel: Channel,
    link: Arc<Link>,
    number: u64,
}

impl Up {
    /// It is good for no more calls.
    pub(super) fn lose(&self) {
        self.link.lose(self.number);
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.link.endpoint
    }
}

impl Link {
    pub(super) fn new(
        endpoint: &str,
        dial: Dial,
        setup: Endpoint,
        changed: Arc<Notify>,
    ) -> Arc<Link> {
        let (endpoint, state) = (endpoint.to_owned(), Mutex::default());
        Arc::new(Link { endpoint, dial, setup, state, changed })
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Up(_))
    }

    pub(super) fn up(self: &Arc<Self>) -> Option<Up> {
        let state = self.state.lock();
        match &state.phase {
            Phase::Up(channel) => {
                let (channel, link) = (channel.clone(), Arc::clone(self));
                Some(Up { channel, link, number: state.number })
            }
            Phase::Idle | Phase::Dialling => None,
        }
    }

    /// Whether a dial is under way that may well succeed, the last one not having failed, or has just succeeded: it may
    /// do so between two looks of the same caller.
    pub(super) fn is_hopeful(&self) -> bool {
        let state = self.state.lock();
        match state.phase {
            Phase::Up(_) => true,
            Phase::Dialling => state.failed.is_none(),
            Phase::Idle => false,
        }
    }

    /// Why the last dial failed.
    pub(super) fn failure(&self) -> Option<String> {
        self.state.lock().failed.as_ref().map(|(_, why)| why.clone())
    }

    /// The number of a dial that the caller must run; `None` if there is nothing to do, or the last one has failed less
    /// than `rest` ago.
    pub(super) fn begin(&self, rest: Duration) -> Option<u64> {
        let state = &mut *self.state.lock();
        let rests = state.failed.as_ref().is_some_and(|(at, _)| at.elapsed() < rest);
        if rests || !matches!(state.phase, Phase::Idle) {
            return None;
        }
        state.phase = Phase::Dialling;
        state.number += 1;
        Some(state.number)
    }

    /// Runs a dial.
    pub(super) async fn run(self: Arc<Self>, number: u64) {
        let dialled = timeout(CONNECT_MAX, self.connect(number)).await;
        let dialled = dialled.unwrap_or_else(|_elapsed| Err(late()));
        let mut state = self.state.lock();
        let is_this = state.number == number && matches!(state.phase, Phase::Dialling);
        let failed = match dialled {
            Ok(channel) if is_this => {
                state.phase = Phase::Up(channel);
                None
            }
            Ok(_) => Some("the connection was closed".to_owned()),
            Err(why) => {
                if is_this {
                    state.phase = Phase::Idle;
                }
                Some(why.to_string())
            }
        };
        if let Some(error) = &failed {
            tracing::debug!(endpoint = self.endpoint, error, "an endpoint was not reached");
        }
        state.failed = failed.map(|why| (Instant::now(), why));
        drop(state);
        self.changed.notify_waiters();
    }

    async fn connect(self: &Arc<Self>, number: u64) -> io::Result<Channel> {
        let (spoke, heard) = oneshot::channel();
        let wire = Overheard {
            wire: self.dial.connect().await?,
            spoke: Some(spoke),
            link: Arc::downgrade(self),
            number,
        };
        let once = Once(Some(TokioIo::new(wire)));
        let channel = self.setup.connect_with_connector(once).await.map_err(io::Error::other)?;
        heard.await.map_err(|_| io::Error::other("error reading server preface: EOF"))?;
        Ok(channel)
    }

    /// The connection of that number is gone, or good for no more calls.
    fn lose(&self, number: u64) {
        let mut state = self.state.lock();
        if state.number == number {
            let before = std::mem::take(&mut state.phase);
            drop(state);
            drop(before);
        }
    }
}

/// Gives tonic the wire that there is. When that is gone it is the link that dials.
struct Once(Option<TokioIo<Overheard>>);

impl Service<Uri> for Once {
    type Response = TokioIo<Overheard>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "transport is closing");
        std::future::ready(self.0.take().ok_or_else(gone))
    }
}

/// A wire that tells when the other side has spoken, and when it is closed.
struct Overheard {
    wire: Box<dyn Wire>,
    spoke: Option<oneshot::Sender<()>>,
    link: Weak<Link>,
    number: u64,
}

impl Drop for Overheard {
    fn drop(&mut self) {
        if let Some(link) = self.link.upgrade() {
            link.lose(self.number);
        }
    }
}

impl AsyncRead for Overheard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.wire).poll_read(cx, buffer);
        if buffer.filled().len() > before
            && let Some(spoke) = self.spoke.take()
        {
            // Whoever has waited too long is gone.
            let _ = spoke.send(());
        }
        polled
    }
}

impl AsyncWrite for Overheard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }
}
