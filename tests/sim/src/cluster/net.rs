//! The network between members: who reaches whom, how fast, and what of it breaks.
//!
//! ```text
//!   exchange ──▶ a connection a lane (lane.rs): frames in order, answers in order
//!                  cut:       both wait; given up when nothing came for SILENCE, and nobody can be reached until healed
//!                  reset:     all that is under way fails; the frames are lost, or come late and are served beside
//!                             those of the next connection
//!                  a machine without power falls silent; a killed process resets
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use prost::Message as _;
use quorate::consensus::{Lane, Purpose, Transport, TransportError};
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::internal::{PeerRequest, PeerResponse, peer_request, peer_response};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::bug::Bug;
use super::fleet::{End, Fleet, Running};
use super::lane::{Connection, Pending};
use crate::life::Disks;

/// A connection on which nothing comes back is given up after this.
pub const SILENCE: Duration = Duration::from_secs(5);
/// First byte of an encoded `PeerRequest`.
pub const APPEND: u8 = 0x0a;
pub const VOTE: u8 = 0x12;
pub const PROPOSE: u8 = 0x22;
pub const READ_INDEX: u8 = 0x2a;
const SNAPSHOT: u8 = 0x42;

/// From one member to another.
pub type Route = (u64, u64);
/// One direction between two members for one purpose, of one life of the sender.
pub type Key = (Route, Purpose, u64);

/// Lying in wait for a vote: whoever grants the next one loses power, and whoever got it is cut off.
#[derive(Clone, Copy, Debug)]
pub struct Ambushed {
    /// Who won the vote.
    pub candidate: u64,
    /// Who gave it.
    pub voter: u64,
}

/// The network all members share.
pub struct Net {
    pub bug: Option<Bug>,
    pub fleet: Arc<Fleet>,
    /// The world's runtime: what is under way is carried there.
    pub world: Handle,
    state: Mutex<State>,
    /// Told whenever a way is cut or healed.
    ways: watch::Sender<u64>,
}

struct State {
    rng: StdRng,
    cuts: BTreeSet<Route>,
    /// Frames at which something breaks, in a thousand.
    lossy: u32,
    /// Frames of whole states at which somebody dies, in a thousand.
    sabotage: u32,
    slow: BTreeSet<Route>,
    connections: BTreeMap<Key, Arc<Connection>>,
    /// A lane that broke is not opened again before.
    redial: BTreeMap<Key, Instant>,
    coverage: BTreeMap<&'static str, u64>,
    ambush: Option<oneshot::Sender<Ambushed>>,
    /// Whom each member gave its vote, by term.
    votes: BTreeMap<(u64, u64), u64>,
    violations: Vec<String>,
    /// With a bug put back in: the disks as they were before a vote that nothing durable followed.
    before_vote: BTreeMap<(u64, u64), Disks>,
    /// With a bug put back in: the last answer to a read index by asker and asked.
    rounds: BTreeMap<Route, Bytes>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

/// What becomes of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Arrives,
    /// It arrives, and once more later.
    Twice,
    /// The connection breaks; what is under way is lost.
    Lost,
    /// The connection breaks; what is under way is served late.
    Late,
    /// It arrives, and the connection breaks before its answer.
    AnswerLost,
}

impl Net {
    pub fn new(seed: u64, bug: Option<Bug>, fleet: &Arc<Fleet>, world: &Handle) -> Arc<Net> {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            cuts: BTreeSet::new(),
            lossy: 0,
            sabotage: 0,
            slow: BTreeSet::new(),
            connections: BTreeMap::new(),
            redial: BTreeMap::new(),
            coverage: BTreeMap::new(),
            ambush: None,
            votes: BTreeMap::new(),
            violations: Vec::new(),
            before_vote: BTreeMap::new(),
            rounds: BTreeMap::new(),
        };
        Arc::new(Net {
            bug,
            fleet: Arc::clone(fleet),
            world: world.clone(),
            state: Mutex::new(state),
            ways: watch::Sender::new(0),
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

    /// What the wire itself has shown that must not be.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.state().violations)
    }

    fn tell_ways(&self) {
        self.ways.send_modify(|count| *count += 1);
    }

    pub fn cut(&self, routes: impl IntoIterator<Item = Route>) {
        self.state().cuts.extend(routes);
        self.tell_ways();
    }

    pub fn lossy(&self, in_a_thousand: u32) {
        self.state().lossy = in_a_thousand;
    }

    /// Frames of whole states at which somebody dies, in a thousand. Outlasts healing.
    pub fn sabotage(&self, in_a_thousand: u32) {
        self.state().sabotage = in_a_thousand;
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
        drop(state);
        self.tell_ways();
    }

    /// Lies in wait for the next vote that is granted.
    pub fn ambush(&self) -> oneshot::Receiver<Ambushed> {
        let (tell, told) = oneshot::channel();
        self.state().ambush = Some(tell);
        told
    }

    pub fn is_cut(&self, route: Route) -> bool {
        self.state().cuts.contains(&route)
    }

    /// Waits until nothing is cut from here to there; `false` after SILENCE.
    pub async fn clear(&self, route: Route) -> bool {
        let mut ways = self.ways.subscribe();
        let clear = async {
            while self.is_cut(route) {
                if ways.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(SILENCE, clear).await.is_ok()
    }

    pub fn fate(&self) -> Fate {
        let mut state = self.state();
        let lossy = state.lossy;
        if lossy == 0 || state.rng.random_range(0..1000) >= lossy {
            return Fate::Arrives;
        }
        let (fate, word) = [
            (Fate::Twice, "frame doubled"),
            (Fate::Lost, "connection reset, frames lost"),
            (Fate::Late, "connection reset, frames served late"),
            (Fate::AnswerLost, "connection reset before an answer"),
        ][state.rng.random_range(0..4)];
        *state.coverage.entry(word).or_default() += 1;
        fate
    }

    pub fn delay(&self, route: Route) -> Duration {
        let mut state = self.state();
        let micros = match state.rng.random_range(0..100) {
            0 => state.rng.random_range(5_000..30_000),
            _ => state.rng.random_range(100..2_000),
        };
        let slow = if state.slow.contains(&route) { 50 } else { 1 };
        Duration::from_micros(micros * slow)
    }

    pub fn lag(&self, millis: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.state().rng.random_range(millis))
    }

    /// The lane's connection, a new one if need be and possible.
    fn connection(self: &Arc<Self>, key: Key) -> Result<Arc<Connection>, &'static str> {
        let ((from, to), ..) = key;
        let mut state = self.state();
        if let Some(connection) = state.connections.get(&key) {
            return Ok(Arc::clone(connection));
        }
        let now = Instant::now();
        if state.redial.get(&key).is_some_and(|not_before| now < *not_before) {
            return Err("not dialled again yet");
        }
        if state.cuts.contains(&(from, to)) || state.cuts.contains(&(to, from)) {
            return Err("no way");
        }
        let Some(target) = self.fleet.member(to).filter(|target| !target.stands_still()) else {
            return Err("nobody answers");
        };
        if target.has_removed(from)
            || self.fleet.member(from).is_some_and(|own| own.has_removed(to))
        {
            return Err("removed");
        }
        state.redial.remove(&key);
        let connection = Connection::open(self, key, target.life);
        state.connections.insert(key, Arc::clone(&connection));
        Ok(connection)
    }

    /// The connection is gone: the next frame needs a new one.
    pub fn closed(&self, connection: &Arc<Connection>) {
        // By the world's time, also where the engine ends a process: outside of all runtimes it is the real one, and a
        // run that is slower than that would wait for it.
        let _world = self.world.enter();
        let mut state = self.state();
        let key = connection.key;
        if state.connections.get(&key).is_some_and(|now| Arc::ptr_eq(now, connection)) {
            state.connections.remove(&key);
            let rest = Duration::from_millis(state.rng.random_range(5..400));
            state.redial.insert(key, Instant::now() + rest);
        }
    }

    /// A life ended. A killed process's connections are reset at once; those of a machine without power fall silent
    /// until it is back.
    pub fn ended(&self, id: u64, life: u64, end: End) {
        let mut state = self.state();
        state.redial.retain(|((from, _), _, of), _| (*from, *of) != (id, life));
        let gone: Vec<_> = state
            .connections
            .values()
            .filter(|connection| {
                let ((from, to), _, of) = connection.key;
                (from, of) == (id, life) || (to == id && end == End::Kill)
            })
            .cloned()
            .collect();
        drop(state);
        for connection in gone {
            connection.fail(self, "reset");
        }
    }

    /// Member `id` speaks with `other` no more: it was removed.
    pub fn hang_up(&self, id: u64, other: u64) {
        let ways = [(id, other), (other, id)];
        let gone: Vec<_> = {
            let state = self.state();
            let connections = state.connections.values();
            connections.filter(|connection| ways.contains(&connection.key.0)).cloned().collect()
        };
        for connection in gone {
            connection.fail(self, "hung up");
        }
    }

    /// Another member that this one can reach has removed it, and says so when it is dialled.
    pub fn is_told_of_its_removal(&self, own: &Running, id: u64) -> bool {
        let facts = own.keyspace.raft_facts();
        let mut known: Vec<u64> =
            facts.voters.iter().chain(&facts.learners).map(|other| other.0).collect();
        if known.is_empty() {
            // It has no log yet, and asks whoever introduces it.
            known = self.fleet.cast();
        }
        known.into_iter().any(|other| {
            let ways = [(id, other), (other, id)];
            let other = self.fleet.member(other).filter(|other| !other.stands_still());
            !ways.iter().any(|way| self.is_cut(*way))
                && other.is_some_and(|other| other.has_removed(id))
        })
    }

    /// With a bug put back in: what the voter's disks would have forgotten.
    pub fn before_vote(&self, id: u64, life: u64) -> Option<Disks> {
        self.state().before_vote.remove(&(id, life))
    }

    /// A frame is about to be served by `target`. Tells whether both ends are still there.
    pub fn arrives(&self, route: Route, target: &Running, frame: &Bytes) -> bool {
        let to = route.1;
        if frame.first() == Some(&SNAPSHOT) && self.sabotages(route) {
            return false;
        }
        self.keep_before_vote(to, target, frame);
        true
    }

    fn sabotages(&self, (from, to): Route) -> bool {
        let mut state = self.state();
        *state.coverage.entry("frames of whole states").or_default() += 1;
        let sabotage = state.sabotage;
        if state.rng.random_range(0..1000) >= sabotage {
            return false;
        }
        let end = if state.rng.random_bool(0.5) { End::Power } else { End::Kill };
        let (who, word) = match state.rng.random_bool(0.5) {
            true => (from, "sender of a state ended"),
            false => (to, "receiver of a state ended"),
        };
        *state.coverage.entry(word).or_default() += 1;
        drop(state);
        self.fleet.end(who, end)
    }

    fn keep_before_vote(&self, to: u64, target: &Running, frame: &Bytes) {
        if self.bug != Some(Bug::ForgottenVote) {
            return;
        }
        let of = (to, target.life);
        match frame.first().copied() {
            Some(VOTE) => drop(self.state().before_vote.insert(of, target.disks.as_of_now())),
            // Whatever is written after a vote saves the vote too.
            Some(APPEND) => drop(self.state().before_vote.remove(&of)),
            _ => {}
        }
    }

    /// A frame was served by `voter`: notes votes, and springs the ambush.
    pub fn answered(&self, (candidate, voter): Route, frame: &Bytes, answer: &Bytes) {
        if frame.first() != Some(&VOTE) {
            return;
        }
        let Some(term) = granted_term(frame, answer) else { return };
        let mut state = self.state();
        for (who, whom) in [(candidate, candidate), (voter, candidate)] {
            let before = *state.votes.entry((who, term)).or_insert(whom);
            if before != whom {
                let words =
                    format!("member {who} voted in term {term} for {before} and for {whom}");
                state.violations.push(words);
            }
        }
        if self.fleet.life(voter).is_none() {
            return;
        }
        let Some(ambush) = state.ambush.take() else { return };
        state.cuts.clear();
        for other in self.fleet.cast().into_iter().filter(|other| *other != candidate) {
            state.cuts.extend([(candidate, other), (other, candidate)]);
        }
        drop(state);
        self.tell_ways();
        self.fleet.end(voter, End::Power);
        let _given_up = ambush.send(Ambushed { candidate, voter });
    }

    /// With a bug put back in: the index of the round before.
    pub fn stale_round(&self, route: Route, answer: Bytes) -> Bytes {
        if self.bug != Some(Bug::StaleRound) {
            return answer;
        }
        self.state().rounds.insert(route, answer.clone()).unwrap_or(answer)
    }
}

/// The term in which a vote was granted.
fn granted_term(frame: &Bytes, answer: &Bytes) -> Option<u64> {
    let granted = match PeerResponse::decode(answer.clone()) {
        Ok(PeerResponse { answer: Some(peer_response::Answer::Vote(voted)) }) => voted.granted,
        _ => false,
    };
    match PeerRequest::decode(frame.clone()) {
        Ok(PeerRequest { ask: Some(peer_request::Ask::Vote(vote)) }) if granted => {
            vote.vote.map(|ballot| ballot.term)
        }
        _ => None,
    }
}

/// One life's end of the network.
#[derive(Clone, Debug)]
pub struct Port {
    pub net: Arc<Net>,
    pub id: u64,
    pub life: u64,
}

impl Transport for Port {
    fn exchange<'a>(
        &'a self,
        lane: &'a Lane,
        frame: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        let (tell, told) = oneshot::channel();
        let to = lane.to;
        let key = ((self.id, to.0), lane.purpose, self.life);
        // Connections keep the world's time.
        let _world = self.net.world.enter();
        match self.net.connection(key) {
            Ok(connection) => connection.send(&self.net, frame, Pending::new(tell)),
            Err(why) => drop(tell.send(Err(TransportError::Unreachable(to, why.to_owned())))),
        }
        Box::pin(async move {
            told.await.unwrap_or_else(|_| Err(TransportError::Broken(to, "it went".to_owned())))
        })
    }
}

/// The error of an exchange that broke.
pub fn broken(to: u64, why: &str) -> TransportError {
    TransportError::Broken(MemberId(to), why.to_owned())
}
