//! Frames between members: delayed, lost, doubled, cut off; in order within a lane, in any order between lanes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use prost::Message as _;
use quorate::consensus::{Lane, Purpose, Transport, TransportError};
use quorate::keyspace::Keyspace;
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::internal::{
    Blank, PeerAppended, PeerResponse, peer_appended, peer_response,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::life::Disks;

/// A connection on which nothing comes back is given up after this.
const SILENCE: Duration = Duration::from_secs(5);
/// First byte of an encoded `PeerRequest`: an append, or a vote that counts.
const APPEND: u8 = 0x0a;
const VOTE: u8 = 0x12;

/// A bug put back in, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A vote leaves before it is saved: a power cut right after it forgets it.
    ForgottenVote,
    /// Appends count as acknowledged that never arrived: commit without a quorum.
    PhantomAppend,
}

type Route = (u64, u64);
type Told = oneshot::Sender<Result<Bytes, TransportError>>;

/// Lying in wait for a vote: whoever grants the next one loses power, and whoever got it is cut off.
pub struct Ambushed {
    /// Who won the vote.
    pub candidate: u64,
    /// Who gave it.
    pub voter: u64,
    /// What the voter's disks hold.
    pub image: Disks,
    /// Its process, which nobody hears any more.
    pub keyspace: Keyspace,
}

/// The network all members share.
pub struct Net {
    state: Mutex<State>,
    bug: Option<Bug>,
}

struct State {
    rng: StdRng,
    running: BTreeMap<u64, Running>,
    /// The life of each member that was begun last and has not lost power.
    begun: BTreeMap<u64, u64>,
    cuts: BTreeSet<Route>,
    /// Lost, doubled and broken frames, in a thousand.
    lossy: u32,
    slow: BTreeSet<Route>,
    lanes: BTreeMap<(Route, Purpose, u64), LaneEnd>,
    coverage: BTreeMap<&'static str, u64>,
    ambush: Option<oneshot::Sender<Ambushed>>,
}

struct Running {
    life: u64,
    keyspace: Keyspace,
    disks: Disks,
    /// As the disks were before a vote that nothing durable followed.
    before_vote: Option<Disks>,
}

struct LaneEnd {
    frames: mpsc::UnboundedSender<Sent>,
    last_due: Instant,
}

struct Sent {
    frame: Bytes,
    due: Instant,
    tell: Told,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

/// What becomes of one frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    Twice,
    LostOnTheWay,
    AnswerLost,
}

impl Net {
    pub fn new(seed: u64, bug: Option<Bug>) -> Arc<Net> {
        Arc::new(Net {
            state: Mutex::new(State {
                rng: StdRng::seed_from_u64(seed),
                running: BTreeMap::new(),
                begun: BTreeMap::new(),
                cuts: BTreeSet::new(),
                lossy: 0,
                slow: BTreeSet::new(),
                lanes: BTreeMap::new(),
                coverage: BTreeMap::new(),
                ambush: None,
            }),
            bug,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    /// Counts a fault that took effect.
    pub fn count(&self, what: &'static str) {
        *self.state().coverage.entry(what).or_default() += 1;
    }

    /// How often each kind of fault took effect.
    pub fn coverage(&self) -> BTreeMap<&'static str, u64> {
        self.state().coverage.clone()
    }

    /// A life begins: from now on it may send.
    pub fn begin(&self, id: u64, life: u64) {
        self.state().begun.insert(id, life);
    }

    pub fn attach(&self, id: u64, life: u64, keyspace: Keyspace, disks: Disks) {
        let running = Running { life, keyspace, disks, before_vote: None };
        self.state().running.insert(id, running);
    }

    /// Takes a member off the network, with what its disks would show after a power cut.
    pub fn detach(&self, id: u64) -> Option<(Keyspace, Disks)> {
        let mut state = self.state();
        state.begun.remove(&id);
        let running = state.running.remove(&id)?;
        Some(self.image(running))
    }

    fn image(&self, running: Running) -> (Keyspace, Disks) {
        let forgets = self.bug == Some(Bug::ForgottenVote);
        let before = running.before_vote.filter(|_| forgets);
        (running.keyspace, before.unwrap_or(running.disks))
    }

    /// The member and its life, while it runs.
    pub fn member(&self, id: u64) -> Option<(u64, Keyspace)> {
        self.state().running.get(&id).map(|running| (running.life, running.keyspace.clone()))
    }

    /// The member still runs the same life.
    pub fn lives(&self, id: u64, life: u64) -> bool {
        self.state().running.get(&id).is_some_and(|running| running.life == life)
    }

    /// The disks of a member that runs.
    pub fn disks(&self, id: u64) -> Option<Disks> {
        self.state().running.get(&id).map(|running| running.disks.clone())
    }

    pub fn cut(&self, routes: impl IntoIterator<Item = Route>) {
        self.state().cuts.extend(routes);
    }

    pub fn lossy(&self, in_a_thousand: u32) {
        self.state().lossy = in_a_thousand;
    }

    pub fn slow(&self, routes: impl IntoIterator<Item = Route>) {
        self.state().slow.extend(routes);
    }

    /// Everything is as it should be; members that are down stay down.
    pub fn heal(&self) {
        let mut state = self.state();
        state.cuts.clear();
        state.slow.clear();
        state.lossy = 0;
        state.ambush = None;
    }

    /// Lies in wait for the next vote that is granted.
    pub fn ambush(&self) -> oneshot::Receiver<Ambushed> {
        let (tell, told) = oneshot::channel();
        self.state().ambush = Some(tell);
        told
    }

    fn is_cut(&self, route: Route) -> bool {
        self.state().cuts.contains(&route)
    }

    fn fate(&self) -> Fate {
        let mut state = self.state();
        let lossy = state.lossy;
        if lossy == 0 || state.rng.random_range(0..1000) >= lossy {
            return Fate::Arrives;
        }
        let (fate, word) = [
            (Fate::Twice, "frame doubled"),
            (Fate::LostOnTheWay, "frame lost"),
            (Fate::AnswerLost, "answer lost"),
        ][state.rng.random_range(0..3)];
        *state.coverage.entry(word).or_default() += 1;
        fate
    }

    fn delay(&self, route: Route) -> Duration {
        let mut state = self.state();
        let micros = match state.rng.random_range(0..100) {
            0 => state.rng.random_range(5_000..30_000),
            _ => state.rng.random_range(100..2_000),
        };
        let slow = if state.slow.contains(&route) { 50 } else { 1 };
        Duration::from_micros(micros * slow)
    }

    fn send(self: &Arc<Self>, key: (Route, Purpose, u64), frame: Bytes, tell: Told) {
        let delay = self.delay(key.0);
        let mut state = self.state();
        let lane = state.lanes.entry(key).or_insert_with(|| {
            let (frames, waiting) = mpsc::unbounded_channel();
            tokio::spawn(carry(Arc::clone(self), key.0, waiting));
            LaneEnd { frames, last_due: Instant::now() }
        });
        lane.last_due = lane.last_due.max(Instant::now() + delay);
        let sent = Sent { frame, due: lane.last_due, tell };
        // The worker lives as long as the runtime.
        drop(lane.frames.send(sent));
    }

    async fn deliver(self: Arc<Self>, route: Route, frame: Bytes, tell: Told) {
        let (from, to) = route;
        let kind = frame.first().copied();
        let fate = self.fate();
        let broken = || Err(TransportError::Broken(MemberId(to), "lost".to_owned()));
        if self.is_cut(route) || fate == Fate::LostOnTheWay {
            if self.bug == Some(Bug::PhantomAppend) && kind == Some(APPEND) {
                drop(tell.send(Ok(phantom())));
                return;
            }
            if self.is_cut(route) {
                tokio::time::sleep(SILENCE).await;
            }
            drop(tell.send(broken()));
            return;
        }
        let Some((life, target)) = self.about_to_serve(to, kind) else {
            let down = TransportError::Unreachable(MemberId(to), "down".to_owned());
            drop(tell.send(Err(down)));
            return;
        };
        if fate == Fate::Twice {
            let (target, frame) = (target.clone(), frame.clone());
            tokio::spawn(async move { drop(target.serve_peer(frame).await) });
        }
        let served = target.serve_peer(frame).await;
        if !self.lives(to, life) || fate == Fate::AnswerLost {
            drop(tell.send(broken()));
            return;
        }
        tokio::time::sleep(self.delay((to, from))).await;
        if self.is_cut((to, from)) {
            tokio::time::sleep(SILENCE).await;
            drop(tell.send(broken()));
            return;
        }
        let granted = kind == Some(VOTE) && served.as_ref().is_ok_and(|answer| is_grant(answer));
        let answer =
            served.map_err(|error| TransportError::Broken(MemberId(to), error.to_string()));
        drop(tell.send(answer));
        if granted {
            self.spring(from, to);
        }
    }

    /// Who serves a frame that arrives; notes what its disks hold before a vote.
    fn about_to_serve(&self, to: u64, kind: Option<u8>) -> Option<(u64, Keyspace)> {
        let mut state = self.state();
        let running = state.running.get_mut(&to)?;
        if self.bug == Some(Bug::ForgottenVote) {
            match kind {
                Some(VOTE) => running.before_vote = Some(running.disks.as_of_now()),
                // Whatever is written after a vote saves the vote too.
                Some(APPEND) => running.before_vote = None,
                _ => {}
            }
        }
        Some((running.life, running.keyspace.clone()))
    }

    fn spring(&self, candidate: u64, voter: u64) {
        let mut state = self.state();
        if !state.running.contains_key(&voter) {
            return;
        }
        let Some(ambush) = state.ambush.take() else {
            return;
        };
        let running = state.running.remove(&voter).expect("it was there");
        state.begun.remove(&voter);
        state.cuts.clear();
        for other in (1..=3).filter(|other| *other != candidate) {
            state.cuts.extend([(candidate, other), (other, candidate)]);
        }
        let (keyspace, image) = self.image(running);
        drop(ambush.send(Ambushed { candidate, voter, image, keyspace }));
    }
}

async fn carry(net: Arc<Net>, route: Route, mut frames: mpsc::UnboundedReceiver<Sent>) {
    while let Some(sent) = frames.recv().await {
        tokio::time::sleep_until(sent.due).await;
        // On one thread tasks run first in the order they were spawned: frames of a lane are served in theirs.
        tokio::spawn(Arc::clone(&net).deliver(route, sent.frame, sent.tell));
    }
}

fn is_grant(answer: &Bytes) -> bool {
    match PeerResponse::decode(answer.clone()) {
        Ok(PeerResponse { answer: Some(peer_response::Answer::Vote(voted)) }) => voted.granted,
        _ => false,
    }
}

fn phantom() -> Bytes {
    let outcome = Some(peer_appended::Outcome::Success(Blank {}));
    let answer = Some(peer_response::Answer::Append(PeerAppended { outcome }));
    PeerResponse { answer }.encode_to_vec().into()
}

/// One life's end of the network.
#[derive(Clone, Debug)]
pub struct End {
    pub net: Arc<Net>,
    pub id: u64,
    pub life: u64,
}

impl Transport for End {
    fn exchange<'a>(
        &'a self,
        lane: &'a Lane,
        frame: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        let (tell, told) = oneshot::channel();
        let to = lane.to;
        // A member whose power is gone sends nothing, although its tasks are still being wound up.
        if self.net.may_send(self.id, self.life) {
            let key = ((self.id, to.0), lane.purpose, self.life);
            self.net.send(key, frame, tell);
        }
        Box::pin(async move {
            told.await.unwrap_or_else(|_| {
                Err(TransportError::Unreachable(to, "this member is down".to_owned()))
            })
        })
    }
}

impl Net {
    /// The life was begun, and has not lost power since.
    fn may_send(&self, id: u64, life: u64) -> bool {
        self.state().begun.get(&id) == Some(&life)
    }
}
