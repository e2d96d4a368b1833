//! One connection: frames go in order and are served in order, and answers come back in order.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use quorate::consensus::{PeerError, TransportError};
use quorate_core::api::pb::internal::{
    Blank, LogPayload, PeerAppended, PeerRequest, PeerResponse, log_payload, peer_appended,
    peer_request, peer_response,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::bug::Bug;
use super::fleet::Running;
use super::net::{APPEND, Fate, Key, Net, PROPOSE, READ_INDEX, Route, SILENCE, broken};

type Told = oneshot::Sender<Result<Bytes, TransportError>>;
type Served = JoinHandle<Result<Bytes, PeerError>>;

/// An exchange that waits for its answer; whoever comes first gives it.
#[derive(Clone)]
pub struct Pending(Arc<Mutex<Option<Told>>>);

impl Pending {
    pub fn new(tell: Told) -> Pending {
        Pending(Arc::new(Mutex::new(Some(tell))))
    }

    fn tell(&self, answer: Result<Bytes, TransportError>) {
        let waits = self.0.lock().expect("nobody panics while holding it").take();
        if let Some(tell) = waits {
            // Who asked may have given up.
            drop(tell.send(answer));
        }
    }

    fn is_open(&self) -> bool {
        self.0.lock().expect("nobody panics while holding it").is_some()
    }
}

struct Frame {
    bytes: Bytes,
    due: Instant,
    pending: Pending,
}

/// A frame that is being served.
struct Serving {
    served: Served,
    frame: Bytes,
    pending: Pending,
}

/// A connection from one life of a member to one life of another.
pub struct Connection {
    pub key: Key,
    to_life: u64,
    frames: mpsc::UnboundedSender<Frame>,
    under_way: Mutex<UnderWay>,
    /// Nothing of it counts any more for whoever asked.
    broken: AtomicBool,
    /// What is still under way is not delivered.
    lost: AtomicBool,
    /// What is still under way comes so many milliseconds late.
    late_ms: AtomicU64,
}

struct UnderWay {
    last_due: Instant,
    pending: Vec<Pending>,
}

impl Connection {
    /// To be called in the world's runtime.
    pub fn open(net: &Arc<Net>, key: Key, to_life: u64) -> Arc<Connection> {
        let (frames, arriving) = mpsc::unbounded_channel();
        let (serve, serving) = mpsc::unbounded_channel();
        let under_way = UnderWay { last_due: Instant::now(), pending: Vec::new() };
        let connection = Arc::new(Connection {
            key,
            to_life,
            frames,
            under_way: Mutex::new(under_way),
            broken: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            late_ms: AtomicU64::new(0),
        });
        tokio::spawn(carry(Arc::clone(net), Arc::clone(&connection), arriving, serve));
        tokio::spawn(answer(Arc::clone(net), Arc::clone(&connection), serving));
        connection
    }

    fn route(&self) -> Route {
        self.key.0
    }

    pub fn send(self: &Arc<Self>, net: &Arc<Net>, bytes: Bytes, pending: Pending) {
        let delay = net.delay(self.route());
        let due = {
            let mut under_way = self.under_way.lock().expect("nobody panics while holding it");
            under_way.last_due = under_way.last_due.max(Instant::now() + delay);
            if under_way.pending.len() > 256 {
                under_way.pending.retain(Pending::is_open);
            }
            under_way.pending.push(pending.clone());
            under_way.last_due
        };
        // The worker lives as long as the world's runtime.
        drop(self.frames.send(Frame { bytes, due, pending }));
    }

    /// Everything under way fails, and nothing more is taken.
    pub fn fail(self: &Arc<Self>, net: &Net, why: &str) {
        if self.broken.swap(true, Ordering::Relaxed) {
            return;
        }
        net.closed(self);
        let pending = {
            let mut under_way = self.under_way.lock().expect("nobody panics while holding it");
            std::mem::take(&mut under_way.pending)
        };
        for waiting in pending {
            waiting.tell(Err(broken(self.route().1, why)));
        }
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn lag(&self) -> Duration {
        Duration::from_millis(self.late_ms.load(Ordering::Relaxed))
    }
}

/// Carries frames to the other member, in order.
async fn carry(
    net: Arc<Net>,
    connection: Arc<Connection>,
    mut arriving: mpsc::UnboundedReceiver<Frame>,
    serve: mpsc::UnboundedSender<Serving>,
) {
    let route = connection.route();
    while let Some(frame) = arriving.recv().await {
        tokio::time::sleep_until(frame.due + connection.lag()).await;
        out_of_the_box(&net, &connection).await;
        if net.is_cut(route) && phantom(&net, &frame) {
            continue;
        }
        if !net.clear(route).await {
            connection.fail(&net, "silence");
            return;
        }
        if connection.lost.load(Ordering::Relaxed) {
            return;
        }
        let fate = match connection.is_broken() {
            true => Fate::Arrives,
            // Batches come twice more often where that is to be found.
            false if net.bug == Some(Bug::UncountedBatch) && net.lag(0..50).is_zero() => {
                Fate::Twice
            }
            false => net.fate(),
        };
        match fate {
            Fate::Lost => {
                if phantom(&net, &frame) {
                    continue;
                }
                connection.lost.store(true, Ordering::Relaxed);
                connection.fail(&net, "reset");
                return;
            }
            Fate::Late => {
                let late = net.lag(1..1500);
                connection.late_ms.store(late.as_millis() as u64, Ordering::Relaxed);
                connection.fail(&net, "reset");
                tokio::time::sleep(late).await;
            }
            Fate::Arrives | Fate::Twice | Fate::AnswerLost => {}
        }
        let Some(target) = target(&net, &connection).await else {
            connection.fail(&net, "reset");
            return;
        };
        deliver(&net, &connection, &target, frame, fate, &serve);
    }
}

/// What a member that stands still has written may be on its way, or lie in its own buffers until it goes on.
async fn out_of_the_box(net: &Arc<Net>, connection: &Arc<Connection>) {
    let (from, _) = connection.route();
    let mut changes = net.fleet.changes();
    let still = || net.fleet.member(from).is_some_and(|sender| sender.stands_still());
    if !still() || net.lag(0..2).is_zero() {
        return;
    }
    net.count("frame held back by a sender that stands still");
    loop {
        changes.mark_unchanged();
        if !still() || changes.changed().await.is_err() {
            return;
        }
    }
}

/// The life that this connection leads to; waits while it stands still.
async fn target(net: &Arc<Net>, connection: &Arc<Connection>) -> Option<Running> {
    let (_, to) = connection.route();
    let silent_at = Instant::now() + SILENCE;
    let mut changes = net.fleet.changes();
    loop {
        changes.mark_unchanged();
        match net.fleet.member(to) {
            Some(target) if target.life == connection.to_life && !target.stands_still() => {
                return Some(target);
            }
            // What comes waits in its socket.
            Some(target) if target.life == connection.to_life => {}
            Some(_) => return None,
            // Without power it says nothing, not even that it is gone.
            None if Instant::now() >= silent_at => return None,
            None => {}
        }
        let wait = match connection.is_broken() {
            true => Duration::from_secs(60),
            false => silent_at.saturating_duration_since(Instant::now()),
        };
        if tokio::time::timeout(wait, changes.changed()).await.is_err() {
            match connection.is_broken() {
                true => return None,
                false => connection.fail(net, "silence"),
            }
        }
    }
}

fn deliver(
    net: &Arc<Net>,
    connection: &Arc<Connection>,
    target: &Running,
    frame: Frame,
    fate: Fate,
    serve: &mpsc::UnboundedSender<Serving>,
) {
    let Frame { bytes, pending, due: _ } = frame;
    if !net.arrives(connection.route(), target, &bytes) {
        return connection.fail(net, "reset");
    }
    if fate == Fate::Twice {
        let (target, again, after) = (target.clone(), again(net, &bytes), net.lag(0..300));
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let keyspace = target.keyspace.clone();
            drop(target.spawn(async move { drop(keyspace.serve_peer(again).await) }));
        });
    }
    let (keyspace, asked) = (target.keyspace.clone(), bytes.clone());
    // On one thread tasks run first in the order they were spawned: frames of a lane are served in theirs.
    let served = target.spawn(async move { keyspace.serve_peer(asked).await });
    // The other worker ends with the world.
    drop(serve.send(Serving { served, frame: bytes, pending }));
    if fate == Fate::AnswerLost {
        connection.fail(net, "reset");
    }
}

/// Carries answers back, in order.
async fn answer(
    net: Arc<Net>,
    connection: Arc<Connection>,
    mut serving: mpsc::UnboundedReceiver<Serving>,
) {
    let (from, to) = connection.route();
    while let Some(Serving { mut served, frame, pending }) = serving.recv().await {
        let answer = loop {
            match tokio::time::timeout(SILENCE, &mut served).await {
                Ok(answer) => break answer,
                Err(_) if net.fleet.member(to).is_some_and(|member| member.stands_still()) => {
                    connection.fail(&net, "silence");
                }
                // It lives, and says so.
                Err(_) => {}
            }
        };
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                pending.tell(Err(broken(to, &error.to_string())));
                continue;
            }
            Err(_ended) => {
                // Its process ended. Without power nothing tells so before it is back.
                let mut changes = net.fleet.changes();
                let back = async {
                    while net.fleet.life(to).is_none() && changes.changed().await.is_ok() {}
                };
                drop(tokio::time::timeout(SILENCE, back).await);
                connection.fail(&net, "reset");
                return;
            }
        };
        net.answered((from, to), &frame, &answer);
        if connection.is_broken() {
            continue;
        }
        tokio::time::sleep(net.delay((to, from))).await;
        if !net.clear((to, from)).await {
            connection.fail(&net, "silence");
            continue;
        }
        let answer = match frame.first() {
            Some(&READ_INDEX) => net.stale_round((from, to), answer),
            _ => answer,
        };
        pending.tell(Ok(answer));
    }
}

/// With a bug put back in: an append that does not arrive is answered all the same.
fn phantom(net: &Net, frame: &Frame) -> bool {
    if net.bug != Some(Bug::PhantomAppend) || frame.bytes.first() != Some(&APPEND) {
        return false;
    }
    let outcome = Some(peer_appended::Outcome::Success(Blank {}));
    let answer = Some(peer_response::Answer::Append(PeerAppended { outcome }));
    frame.pending.tell(Ok(PeerResponse { answer }.encode_to_vec().into()));
    true
}

/// The frame that comes a second time; with a bug put back in, a batch that counts as a new one.
fn again(net: &Net, frame: &Bytes) -> Bytes {
    if net.bug != Some(Bug::UncountedBatch) || frame.first() != Some(&PROPOSE) {
        return frame.clone();
    }
    let renumbered = PeerRequest::decode(frame.clone()).ok().and_then(|request| {
        let Some(peer_request::Ask::Propose(payload)) = request.ask else { return None };
        let payload = LogPayload::decode(payload).ok()?;
        let Some(log_payload::Payload::Entry(mut entry)) = payload.payload else { return None };
        entry.incarnation ^= 1;
        let payload = LogPayload { payload: Some(log_payload::Payload::Entry(entry)) };
        let ask = Some(peer_request::Ask::Propose(payload.encode_to_vec().into()));
        Some(PeerRequest { ask }.encode_to_vec().into())
    });
    renumbered.unwrap_or_else(|| frame.clone())
}
