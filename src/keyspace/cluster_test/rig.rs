//! Three whole members in this process: journals on device doubles, state in memory, frames handed over directly,
//! and tokio's paused clock, so that election timeouts cost nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prost::Message as _;
use quorate_core::api::ids::{ClusterId, GroupId, MemberId};
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::internal::keyspace_response::Answer;
use quorate_core::api::pb::internal::{Blank, KeyspaceResponse};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::consensus::{Lane, Purpose, Transport, TransportError, keyspace_answer};
use crate::keyspace::{InitialMember, Keyspace, KeyspaceConfig, Seams};
use crate::storage::device::double::DoubleDevice;
use crate::storage::journal::{Journal, JournalOptions, Runner};
use crate::storage::{EngineKind, StoreOptions, UpkeepRunner};
use crate::support::clock::SystemClock;
use crate::support::spawn::Blocking;

/// Ways that carry nothing: from, to.
type Cuts = BTreeSet<(MemberId, MemberId)>;

/// The network: who is there, what is cut, and what is done to answers.
#[derive(Debug)]
pub(crate) struct Net {
    members: Mutex<BTreeMap<MemberId, Keyspace>>,
    cuts: watch::Sender<Cuts>,
    /// Of the answers on the forward and keyspace lanes, every so many is lost on its way back.
    lose_every: Mutex<Option<usize>>,
    /// What goes to or from this member takes so long.
    slow: Mutex<Option<(MemberId, Duration)>>,
    forwarded: Mutex<usize>,
    /// Members of an older version: they know none of the newer questions of keyspaces.
    old: Mutex<BTreeSet<MemberId>>,
    began: Instant,
}

/// One member's end of it.
#[derive(Clone, Debug)]
struct End {
    own: MemberId,
    net: Arc<Net>,
}

impl Transport for End {
    fn exchange<'a>(
        &'a self,
        lane: &'a Lane,
        frame: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        Box::pin(async move {
            let (from, to) = (lane.from, lane.to);
            let broken = || TransportError::Broken(to, "cut".to_owned());
            let target = self.net.members.lock().get(&to).cloned();
            let Some(target) = target.filter(|_| !self.net.is_cut(from, to)) else {
                return Err(TransportError::Unreachable(to, "cut".to_owned()));
            };
            if lane.purpose == Purpose::Keyspace && self.net.old.lock().contains(&to) {
                let answer = Some(Answer::Failed(Blank {}));
                let response = KeyspaceResponse { answer }.encode_to_vec();
                return Ok(keyspace_answer(Bytes::from(response)));
            }
            let mut cuts = self.net.cuts.subscribe();
            let cut =
                cuts.wait_for(|cuts| cuts.contains(&(from, to)) || cuts.contains(&(to, from)));
            let delay = self.net.delay(from, to);
            let served = async {
                tokio::time::sleep(delay).await;
                let answer = target.serve_peer(frame).await;
                tokio::time::sleep(delay).await;
                answer
            };
            let answer = tokio::select! {
                biased;
                answer = served => answer,
                _ = cut => return Err(broken()),
            };
            let may_lose = matches!(lane.purpose, Purpose::Forward | Purpose::Keyspace);
            if may_lose && self.net.loses_this() {
                return Err(broken());
            }
            answer.map_err(|error| TransportError::Broken(to, error.to_string()))
        })
    }

    /// Since the beginning, while the way is open.
    fn connected_since(&self, member: MemberId) -> Option<Instant> {
        let there = self.net.members.lock().contains_key(&member);
        (there && !self.net.is_cut(member, self.own)).then_some(self.net.began)
    }
}

impl Net {
    fn is_cut(&self, from: MemberId, to: MemberId) -> bool {
        self.cuts.borrow().contains(&(from, to))
    }

    fn delay(&self, from: MemberId, to: MemberId) -> Duration {
        let slow = self.slow.lock().filter(|(id, _)| *id == from || *id == to);
        slow.map_or(Duration::ZERO, |(_, delay)| delay)
    }

    fn loses_this(&self) -> bool {
        let mut forwarded = self.forwarded.lock();
        *forwarded += 1;
        self.lose_every.lock().is_some_and(|every| forwarded.is_multiple_of(every))
    }
}

/// A running member.
pub(crate) struct Member {
    pub(crate) id: MemberId,
    pub(crate) keyspace: Keyspace,
    pub(crate) journal: Journal,
}

impl std::ops::Deref for Member {
    type Target = Keyspace;

    fn deref(&self) -> &Keyspace {
        &self.keyspace
    }
}

/// Three members and their network.
pub(crate) struct Cluster {
    pub(crate) net: Arc<Net>,
    pub(crate) members: Vec<Member>,
}

pub(crate) const ELECTION: Duration = Duration::from_secs(1);

impl Cluster {
    /// Starts all, and waits until each may serve clients.
    pub(crate) async fn start() -> Cluster {
        Cluster::start_with(|_| {}).await
    }

    /// The same with each member's settings as `adjust` leaves them.
    pub(crate) async fn start_with(adjust: impl Fn(&mut KeyspaceConfig)) -> Cluster {
        Cluster::start_beside(BTreeSet::new(), adjust).await
    }

    /// The same where some are of an older version to the others.
    pub(crate) async fn start_beside(
        old: BTreeSet<MemberId>,
        adjust: impl Fn(&mut KeyspaceConfig),
    ) -> Cluster {
        let net = Arc::new(Net {
            members: Mutex::default(),
            cuts: watch::Sender::default(),
            lose_every: Mutex::default(),
            slow: Mutex::default(),
            forwarded: Mutex::default(),
            old: Mutex::new(old),
            began: Instant::now(),
        });
        let mut members = Vec::new();
        for id in 1..=3 {
            let first = (1..=3).map(|id| initial(MemberId(id))).collect();
            let member = open(MemberId(id), &net, first, &adjust).await;
            net.members.lock().insert(member.id, member.keyspace.clone());
            members.push(member);
        }
        for member in &members {
            within(Duration::from_secs(30), member.ready()).await.unwrap();
        }
        Cluster { net, members }
    }

    /// Starts a member that has been added.
    pub(crate) async fn join(&mut self, id: MemberId) {
        let member = open(id, &self.net, Vec::new(), |_| {}).await;
        self.net.members.lock().insert(id, member.keyspace.clone());
        self.members.push(member);
    }

    pub(crate) fn member(&self, id: MemberId) -> &Member {
        self.members.iter().find(|member| member.id == id).unwrap()
    }

    /// The leader that a majority believes in.
    pub(crate) async fn leader(&self) -> MemberId {
        let agreed = || {
            self.members.iter().find_map(|member| {
                let mut believe = self.members.iter().map(|other| other.leader_view().leader());
                let count = believe.by_ref().filter(|leader| *leader == Some(member.id)).count();
                (count >= 2 && member.leader_view().leader() == Some(member.id))
                    .then_some(member.id)
            })
        };
        eventually(Duration::from_secs(30), || agreed().is_some()).await;
        agreed().unwrap()
    }

    /// The members that do not lead.
    pub(crate) async fn followers(&self) -> Vec<MemberId> {
        let leader = self.leader().await;
        self.members.iter().map(|member| member.id).filter(|id| *id != leader).collect()
    }

    /// Nothing goes to or from `id` any more.
    pub(crate) fn isolate(&self, id: MemberId) {
        self.net.cuts.send_modify(|cuts| {
            for other in self.members.iter().map(|member| member.id).filter(|other| *other != id) {
                cuts.extend([(id, other), (other, id)]);
            }
        });
    }

    pub(crate) fn heal(&self) {
        self.net.cuts.send_replace(Cuts::new());
    }

    /// Every so many answers to forwarded calls is lost.
    pub(crate) fn lose_answers(&self, every: Option<usize>) {
        *self.net.lose_every.lock() = every;
    }

    /// All are of this version now.
    pub(crate) fn upgrade_all(&self) {
        self.net.old.lock().clear();
    }

    /// What goes to or from `id` takes `delay` each way.
    pub(crate) fn slow(&self, id: MemberId, delay: Duration) {
        *self.net.slow.lock() = Some((id, delay));
    }

    /// All members have applied the same, and what they have become is the same.
    pub(crate) async fn settle(&self) {
        let level = || {
            let mut at = self.members.iter().map(|member| member.status().applied_index);
            let first = at.next().unwrap();
            at.all(|index| index == first)
        };
        eventually(Duration::from_secs(30), level).await;
        let mut hashes = Vec::new();
        for member in &self.members {
            hashes.push((member.hash().await.unwrap().hash, member.revision()));
        }
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    }

    /// Stops one member in order and takes it off the network.
    pub(crate) async fn stop(&mut self, id: MemberId) {
        let at = self.members.iter().position(|member| member.id == id).unwrap();
        let member = self.members.remove(at);
        member.keyspace.leave_leadership().await;
        member.keyspace.shutdown().await;
        self.net.members.lock().remove(&id);
        member.journal.close().unwrap();
    }

    pub(crate) async fn stop_all(mut self) {
        while let Some(member) = self.members.first() {
            let id = member.id;
            self.stop(id).await;
        }
    }
}

async fn open(
    id: MemberId,
    net: &Arc<Net>,
    first: Vec<InitialMember>,
    adjust: impl Fn(&mut KeyspaceConfig),
) -> Member {
    let device = Arc::new(DoubleDevice::default());
    let options = JournalOptions { segment_bytes: 1 << 20, ..JournalOptions::default() };
    let journal = Journal::open(device, options, Runner::InPlace).unwrap();
    let mut config = KeyspaceConfig::single(ClusterId(7), initial(id));
    config.initial_members = first;
    config.name = format!("m{}", id.0);
    config.election_timeout = ELECTION;
    config.catch_up_requests = 50;
    adjust(&mut config);
    let bases = Arc::new(DoubleDevice::default());
    let mut store = StoreOptions::new(GroupId(0), "/unused".into(), bases);
    store.engine = EngineKind::Memory;
    store.base_after_bytes = 64 << 10;
    store.flush_bytes = 16 << 10;
    store.runner = UpkeepRunner::InPlace;
    let seams = Seams {
        clock: Arc::new(SystemClock::default()),
        blocking: Arc::new(Blocking::in_place()),
        transport: Arc::new(End { own: id, net: Arc::clone(net) }),
        incarnation: 100 + id.0,
    };
    let keyspace = Keyspace::open(config, store, journal.group(GroupId(0)), seams).await.unwrap();
    Member { id, keyspace, journal }
}

fn initial(id: MemberId) -> InitialMember {
    InitialMember { id, peer_urls: vec![format!("http://m{}:2380", id.0)] }
}

pub(crate) fn put(key: &str, value: &str) -> pb::PutRequest {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    pb::PutRequest { key: bytes(key), value: bytes(value), ..pb::PutRequest::default() }
}

pub(crate) fn key_of(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..pb::RangeRequest::default() }
}

pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, work).await.expect("in time")
}

/// Waits, in simulated time, until `holds`.
pub(crate) async fn eventually(limit: Duration, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
