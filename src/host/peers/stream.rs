//! One connection between two members, from its upgrade to its end: reads, writes, signs of life, silence.
//!
//! ```text
//!          ┌─ Asking (the member that was dialled): Pipe ──> asks ──> .. answers ──> Pipe
//!   converse
//!          └─ Answering (the member that dialled): asks ──> Service, several at once ──> answers in order
//! ```
//!
//! **Invariant:** neither side waits for the other to read before it reads itself.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt as _};
use parking_lot::Mutex;
use quorate_core::api::ids::GroupId;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, MissedTickBehavior};

use super::figures::Traffic;
use super::frame::{BadFrame, Frame, Inbox, Kind, Outbox};
use super::pipe::{Failed, OutOfStep, Pipe};

/// A connection, of whatever it is made.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Beyond this, nothing more is taken up for writing until some has gone.
const OUT_BYTES: usize = 256 << 10;

/// Asks that are served at once on one connection; what is more stays in the socket.
const SERVED_AT_ONCE: usize = 256;

/// How a connection is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeping {
    pub(super) frame_bytes_max: usize,
    /// A sign of life goes out when nothing else has for this long.
    pub(super) alive_every: Duration,
    /// A connection on which nothing came for this long is dead.
    pub(super) dead_after: Duration,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the other side closed it")]
    Closed,
    #[error("nothing was heard for too long")]
    Silent,
    #[error("{0}")]
    Replaced(String),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    BadFrame(#[from] BadFrame),
    #[error(transparent)]
    OutOfStep(#[from] OutOfStep),
    #[error("a frame that does not belong here")]
    Unexpected,
}

/// When something was last heard on a connection.
#[derive(Debug)]
pub(super) struct Heard(Mutex<Instant>);

impl Default for Heard {
    fn default() -> Self {
        Heard(Mutex::new(Instant::now()))
    }
}

impl Heard {
    fn now(&self) {
        *self.0.lock() = Instant::now();
    }

    fn at(&self) -> Instant {
        *self.0.lock()
    }

    /// Resolves when nothing was heard for `limit`.
    pub(super) async fn silent_for(&self, limit: Duration) {
        loop {
            let until = self.at() + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// What a connection is for, on one of its ends.
pub(super) trait Side: Send {
    type Out: Send;
    /// Whether another frame is wanted now.
    fn is_hungry(&self) -> bool;
    fn take(&mut self, frame: Frame) -> Result<(), Ended>;
    /// Resolves when there is something to send; dropped without loss.
    fn ready(&mut self) -> impl Future<Output = Self::Out> + Send;
    fn give(&mut self, ready: Self::Out, out: &mut Outbox) -> Result<(), Ended>;
}

/// Runs one end of a connection until it ends.
pub(super) async fn converse<S: Side>(
    wire: Box<dyn Wire>,
    mut side: S,
    keeping: Keeping,
    heard: &Heard,
    traffic: &Traffic,
) -> Ended {
    match try_converse(wire, &mut side, keeping, heard, traffic).await {
        Ok(ended) | Err(ended) => ended,
    }
}

async fn try_converse<S: Side>(
    wire: Box<dyn Wire>,
    side: &mut S,
    keeping: Keeping,
    heard: &Heard,
    traffic: &Traffic,
) -> Result<Ended, Ended> {
    let (mut reader, mut writer) = tokio::io::split(wire);
    let (mut inbox, mut outbox) = (Inbox::new(keeping.frame_bytes_max), Outbox::default());
    let mut tick = tokio::time::interval(keeping.alive_every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut written, mut unflushed) = (false, false);
    heard.now();
    loop {
        while side.is_hungry() {
            match inbox.take()? {
                Some(frame) => side.take(frame)?,
                None => break,
            }
        }
        tokio::select! {
            read = inbox.fill(&mut reader), if side.is_hungry() => {
                heard.now();
                match read? {
                    0 => return Ok(Ended::Closed),
                    bytes => traffic.received.inc_by(bytes as u64),
                }
            }
            ready = side.ready(), if outbox.len() < OUT_BYTES => side.give(ready, &mut outbox)?,
            wrote = step(&mut outbox, &mut writer), if unflushed || !outbox.is_empty() => {
                let bytes = wrote?;
                traffic.sent.inc_by(bytes as u64);
                unflushed = bytes > 0;
                written |= unflushed;
            }
            _ = tick.tick() => {
                if !side.is_hungry() {
                    // Whatever came waits in the socket.
                    heard.now();
                }
                if heard.at().elapsed() > keeping.dead_after {
                    return Ok(Ended::Silent);
                }
                if !written && outbox.is_empty() {
                    outbox.put(Frame::alive());
                }
                written = false;
            }
        }
    }
}

/// Writes once, or flushes if there is nothing to write; tells how much was written.
async fn step(outbox: &mut Outbox, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<usize> {
    if outbox.is_empty() {
        writer.flush().await?;
        return Ok(0);
    }
    outbox.write(writer).await
}

/// The end that asks. The pipe is closed when it is dropped.
pub(super) struct Asking<F: FnOnce() + Send> {
    pipe: Arc<Pipe>,
    /// Called at the first frame: only then is the other side known to be there.
    on_first: Option<F>,
}

impl<F: FnOnce() + Send> Asking<F> {
    pub(super) fn new(pipe: Arc<Pipe>, on_first: F) -> Self {
        Asking { pipe, on_first: Some(on_first) }
    }
}

impl<F: FnOnce() + Send> Drop for Asking<F> {
    fn drop(&mut self) {
        self.pipe.close("the connection ended");
    }
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

impl<F: FnOnce() + Send> Side for Asking<F> {
    type Out = ();

    fn is_hungry(&self) -> bool {
        true
    }

    fn take(&mut self, frame: Frame) -> Result<(), Ended> {
        if let Some(on_first) = self.on_first.take() {
            on_first();
        }
        let outcome = match frame.kind {
            Kind::Answer => Ok(frame.payload),
            Kind::Failed => Err(Failed::Perhaps(text(&frame.payload))),
            Kind::NotServed => Err(Failed::Unseen(text(&frame.payload))),
            Kind::Alive => return Ok(()),
            Kind::Ask => return Err(Ended::Unexpected),
        };
        Ok(self.pipe.settle(frame.number, outcome)?)
    }

    async fn ready(&mut self) {
        self.pipe.stirred().await;
    }

    fn give(&mut self, (): (), out: &mut Outbox) -> Result<(), Ended> {
        match self.pipe.drain(out, OUT_BYTES) {
            true => Ok(()),
            false => Err(Ended::Replaced("a newer connection took its place".to_owned())),
        }
    }
}

/// What came of an ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// The answer.
    Answer(Bytes),
    /// It failed, and may have had an effect.
    Failed(String),
    /// Nobody looked at it.
    NotServed(String),
}

/// Answers the asks of one group. Called in the order in which the asks were sent; each future is polled once
/// before the next call, and several are under way at once.
pub trait Service: Send + Sync + fmt::Debug + 'static {
    /// Answers one.
    fn serve(&self, ask: Bytes) -> BoxFuture<'static, Served>;
}

/// Hands an ask to the service of its group.
pub(super) type Serve = Box<dyn FnMut(GroupId, Bytes) -> BoxFuture<'static, Served> + Send>;

/// The end that answers.
pub(super) struct Answering {
    serve: Serve,
    under_way: FuturesOrdered<BoxFuture<'static, (Frame, usize)>>,
    bytes: usize,
    bytes_max: usize,
}

impl Answering {
    pub(super) fn new(bytes_max: usize, serve: Serve) -> Self {
        Answering { serve, under_way: FuturesOrdered::new(), bytes: 0, bytes_max }
    }
}

impl Side for Answering {
    type Out = (Frame, usize);

    fn is_hungry(&self) -> bool {
        self.under_way.len() < SERVED_AT_ONCE && self.bytes < self.bytes_max
    }

    fn take(&mut self, frame: Frame) -> Result<(), Ended> {
        match frame.kind {
            Kind::Ask => {}
            Kind::Alive => return Ok(()),
            Kind::Answer | Kind::Failed | Kind::NotServed => return Err(Ended::Unexpected),
        }
        let (group, number, bytes) = (frame.group, frame.number, frame.payload.len());
        let served = (self.serve)(group, frame.payload);
        self.bytes += bytes;
        self.under_way.push_back(Box::pin(async move {
            let (kind, payload) = match served.await {
                Served::Answer(answer) => (Kind::Answer, answer),
                Served::Failed(why) => (Kind::Failed, why.into()),
                Served::NotServed(why) => (Kind::NotServed, why.into()),
            };
            (Frame { kind, group, number, payload }, bytes)
        }));
        Ok(())
    }

    async fn ready(&mut self) -> (Frame, usize) {
        match self.under_way.next().await {
            Some(answered) => answered,
            None => std::future::pending().await,
        }
    }

    fn give(&mut self, (frame, bytes): (Frame, usize), out: &mut Outbox) -> Result<(), Ended> {
        self.bytes -= bytes;
        out.put(frame);
        Ok(())
    }
}
