//! Streams of frames between the members of a cluster, shared by all keyspaces of the process.
//!
//! ```text
//!   member A                                                member B
//!   exchange(to B, log) ─> Pipe ─ Asking ══ connection ══ Answering ─> Service of the frame's group
//!                                              ▲
//!                    B dials A's peer port ────┘  (Keeper: one per member and purpose)
//! ```
//!
//! Streams are dialled by who receives, as in etcd (`server/etcdserver/api/rafthttp`): a member that nobody can reach
//! has no streams to send by, so it cannot stay leader, and where it can reach the others it still hears who is.
//!
//! Who is dialled by a member of its cluster that it does not know dials back: it may have been away while that one
//! joined. Who was removed is told so, and ends.
//!
//! **Invariant:** frames are opaque here; who speaks to whom is checked once, when a stream opens, and the group
//! stands in every frame.
//! **Invariant:** traffic of one purpose never waits behind another's: each has a connection of its own.

mod dial;
mod figures;
mod frame;
mod hello;
mod keeper;
mod pipe;
mod quiet;
mod remote;
mod stream;

#[cfg(test)]
mod peers_test;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use quorate_core::api::ids::{ClusterId, GroupId, MemberId};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::instrument::WithSubscriber as _;

use self::dial::Patience;
use self::hello::Hello;
use self::keeper::Keeper;
use self::pipe::{Failed, Pipe, Room};
use self::quiet::Quiet;
use self::stream::{Asking, Ended, Heard, Keeping, converse};
use crate::consensus::{Lane, Members, Purpose, Transport, TransportError, WINDOW_BYTES};
use crate::support::tls::Connector;

pub use self::figures::PeerFigures;
pub use self::hello::{CLUSTER, CLUSTER_LEVEL, Refusal};
pub use self::remote::{
    RemoteCluster, RemoteMember, RemoteVersion, remote_clusters, remote_versions,
};
pub use self::stream::{Served, Service, Wire};

/// Streams that others have opened to this member and that still run.
const STREAMS_MAX: usize = 512;

/// Members that are known by hearsay alone.
const HEARSAY_MAX: usize = 64;

/// Frames under way to one member for one purpose. A heartbeat that would wait behind eight others is stale.
fn frames_max(purpose: Purpose) -> usize {
    match purpose {
        Purpose::Heartbeat => 8,
        Purpose::Log | Purpose::Snapshot => 64,
        Purpose::Forward | Purpose::Keyspace => 1024,
    }
}

/// How long things take. Tests shorten it.
#[derive(Clone, Copy, Debug)]
pub struct PeerTiming {
    /// The first rest after a failed dial; it doubles ...
    pub rest_least: Duration,
    /// ... up to this.
    pub rest_most: Duration,
    /// Finding the address of a name.
    pub resolve: Duration,
    /// Connecting to one address.
    pub connect: Duration,
    /// From the request for a stream to its answer.
    pub answer: Duration,
    /// A sign of life goes out when nothing else has for this long.
    pub alive_every: Duration,
    /// A stream on which nothing came for this long is dialled anew, beside it.
    pub replace_after: Duration,
    /// A stream on which nothing came for this long is dead (etcd's `ConnReadTimeout`).
    pub dead_after: Duration,
}

impl Default for PeerTiming {
    fn default() -> Self {
        PeerTiming {
            rest_least: Duration::from_millis(100),
            rest_most: Duration::from_millis(500),
            resolve: Duration::from_secs(5),
            connect: Duration::from_secs(1),
            answer: Duration::from_secs(2),
            alive_every: Duration::from_millis(500),
            replace_after: Duration::from_millis(1500),
            dead_after: Duration::from_secs(5),
        }
    }
}

impl PeerTiming {
    /// What suits an election timeout. A connection that is being made while the way is cut is given up after half
    /// of it: the kernel would try again only after a second, then two, then four, and a way that is open again must
    /// carry writes within two election timeouts.
    pub fn for_election_timeout(election_timeout: Duration) -> Self {
        PeerTiming { connect: election_timeout / 2, ..PeerTiming::default() }
    }

    fn patience(&self) -> Patience {
        Patience { resolve: self.resolve, connect: self.connect, answer: self.answer }
    }
}

/// Who this member is, and what it takes.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// The cluster; streams of another one are refused.
    pub cluster: ClusterId,
    /// This member.
    pub member: MemberId,
    /// The longest frame, in bytes.
    pub frame_bytes_max: usize,
    /// How long things take.
    pub timing: PeerTiming,
    /// How members with `https` URLs are dialled.
    pub tls: Connector,
}

/// The members, and the streams to and from them. Cheap to clone; [`Peers::shutdown`] ends it for all.
#[derive(Clone)]
pub struct Peers(Arc<Shared>);

struct Shared {
    cluster: ClusterId,
    member: MemberId,
    frame_bytes_max: usize,
    timing: PeerTiming,
    tls: Connector,
    services: Mutex<BTreeMap<GroupId, Arc<dyn Service>>>,
    known: Mutex<Known>,
    pipes: Mutex<BTreeMap<(MemberId, Purpose), Arc<Pipe>>>,
    quiet: Quiet,
    figures: PeerFigures,
    /// Streams from each member that run, and since when there is at least one.
    live: Mutex<BTreeMap<MemberId, (usize, Instant)>>,
    /// Another member has refused this one as removed.
    removed: watch::Sender<bool>,
    /// A member was heard of: who rests between two tries may try now.
    news: Notify,
    /// Of streams that were accepted, and of keepers. `None` once stopping.
    tasks: Mutex<Option<JoinSet<()>>>,
}

#[derive(Default)]
struct Known {
    groups: BTreeMap<GroupId, Members>,
    /// Members by hearsay: this member's log does not know them yet, or not any more.
    hearsay: Members,
    removed: BTreeSet<MemberId>,
    kept: BTreeMap<MemberId, Kept>,
    /// Where this member is reached.
    own_urls: Vec<String>,
}

struct Kept {
    urls: watch::Sender<Vec<String>>,
    keepers: Vec<AbortHandle>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        for keeper in &self.keepers {
            keeper.abort();
        }
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peers({} of {})", self.0.member, self.0.cluster)
    }
}

/// An answer to a request on a peer port.
pub type Answer = Response<Full<Bytes>>;

impl Peers {
    /// Nobody is known yet, and nothing dialled.
    pub fn new(config: PeersConfig) -> Peers {
        Peers(Arc::new(Shared {
            cluster: config.cluster,
            member: config.member,
            frame_bytes_max: config.frame_bytes_max,
            timing: config.timing,
            tls: config.tls,
            services: Mutex::default(),
            known: Mutex::default(),
            pipes: Mutex::default(),
            quiet: Quiet::default(),
            figures: PeerFigures::default(),
            live: Mutex::default(),
            removed: watch::Sender::new(false),
            news: Notify::new(),
            tasks: Mutex::new(Some(JoinSet::new())),
        }))
    }

    /// Answers asks of `group` from now on.
    pub fn serve(&self, group: GroupId, service: Arc<dyn Service>) {
        self.0.services.lock().insert(group, service);
    }

    /// Who the members of `group` are now. Streams are kept with the members of all groups.
    pub fn set_members(&self, group: GroupId, members: Members) {
        let mut known = self.0.known.lock();
        known.groups.insert(group, members);
        self.keep_all(&mut known);
    }

    /// How the other members are dialled.
    pub(crate) fn tls(&self) -> &Connector {
        &self.0.tls
    }

    /// Members by hearsay: streams are kept with them beside those of the groups, until they are known to be removed.
    pub fn introduce(&self, members: Members) {
        let mut known = self.0.known.lock();
        for (id, urls) in members {
            let fits = known.hearsay.len() < HEARSAY_MAX || known.hearsay.contains_key(&id);
            if fits && !known.removed.contains(&id) {
                known.hearsay.insert(id, urls);
            }
        }
        self.keep_all(&mut known);
    }

    fn keep_all(&self, known: &mut Known) {
        let mut all = Members::new();
        for (id, urls) in known.groups.values().flatten().chain(&known.hearsay) {
            all.entry(*id).or_insert_with(|| urls.clone());
        }
        if let Some(own_urls) = all.remove(&self.0.member) {
            known.own_urls = own_urls;
        }
        let gone: Vec<MemberId> =
            known.kept.keys().filter(|id| !all.contains_key(id)).copied().collect();
        for id in gone {
            known.kept.remove(&id);
            self.0.close_pipes(id);
        }
        for (id, urls) in all {
            match known.kept.get(&id) {
                Some(kept) => drop(kept.urls.send_if_modified(|now| {
                    let changed = *now != urls;
                    *now = urls;
                    changed
                })),
                None => drop(known.kept.insert(id, self.keep(id, urls))),
            }
        }
    }

    /// Members that were removed for good: streams that they ask for are refused from now on, and those that run go
    /// with their membership.
    pub fn set_removed(&self, removed: BTreeSet<MemberId>) {
        let mut known = self.0.known.lock();
        known.hearsay.retain(|id, _| !removed.contains(id));
        known.removed = removed;
        self.keep_all(&mut known);
    }

    /// Resolves once another member has refused this one because it was removed.
    pub async fn removed(&self) {
        let mut removed = self.0.removed.subscribe();
        if removed.wait_for(|removed| *removed).await.is_err() {
            std::future::pending().await
        }
    }

    fn keep(&self, peer: MemberId, urls: Vec<String>) -> Kept {
        let (urls, told) = watch::channel(urls);
        let mut keepers = Vec::new();
        if let Some(tasks) = &mut *self.0.tasks.lock() {
            for purpose in Purpose::ALL {
                let (shared, urls) = (Arc::clone(&self.0), told.clone());
                let keeper = Keeper { shared, peer, purpose, urls };
                keepers.push(tasks.spawn(keeper.run().with_current_subscriber()));
            }
        }
        Kept { urls, keepers }
    }

    /// Answers a request for a stream below `/raft`. Once the answer is out, the connection is ours.
    pub fn accept<B>(&self, request: &mut Request<B>) -> Answer {
        match self.admit(request) {
            Ok(hello) => {
                let answer = hello.accept(Full::default());
                answer.expect("every head is made of letters and digits")
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Answer {
        let mut answer = Response::new(Full::from(format!("{refusal}\n")));
        *answer.status_mut() = refusal.status();
        let cluster = self.0.cluster.to_string().try_into();
        answer.headers_mut().insert(CLUSTER, cluster.expect("hex digits make a head"));
        answer
    }

    fn admit<B>(&self, request: &mut Request<B>) -> Result<Hello, Refusal> {
        let shared = &self.0;
        let hello = match Hello::read(request, shared.cluster) {
            Ok(hello) => match self.check(hello) {
                Err(Refusal::Unknown) => self.meet(hello, hello::peer_urls(request.headers())),
                checked => checked,
            },
            Err(refusal) => Err(refusal),
        };
        let hello = hello.inspect_err(|refusal| self.tell_refused(*refusal, request))?;
        let upgrade = hyper::upgrade::on(request);
        let mut tasks = shared.tasks.lock();
        let tasks = tasks.as_mut().ok_or(Refusal::Stopping)?;
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= STREAMS_MAX {
            return Err(Refusal::TooMany);
        }
        let shared = Arc::clone(shared);
        let stream = async move {
            let limit = shared.timing.dead_after;
            match tokio::time::timeout(limit, upgrade).await {
                Ok(Ok(upgraded)) => {
                    let wire = Box::new(TokioIo::new(upgraded));
                    let ended = shared.ask_by(hello, wire).await;
                    let (purpose, peer) = (hello.purpose.word(), hello.from);
                    tracing::debug!(purpose, %peer, error = %ended, "a stream ended");
                }
                Ok(Err(error)) => tracing::debug!(%error, "a stream was not opened"),
                Err(_elapsed) => tracing::debug!("a stream was not opened in time"),
            }
        };
        tasks.spawn(stream.with_current_subscriber());
        Ok(hello)
    }

    /// etcd's order: removed, not found, meant for another.
    fn check(&self, hello: Hello) -> Result<Hello, Refusal> {
        let known = self.0.known.lock();
        if known.removed.contains(&hello.from) {
            Err(Refusal::Removed)
        } else if !known.kept.contains_key(&hello.from) {
            Err(Refusal::Unknown)
        } else if hello.to != self.0.member {
            Err(Refusal::To)
        } else {
            Ok(hello)
        }
    }

    /// A member of this cluster that this one's log does not know, or not yet: if it says where it is reached, streams
    /// are kept with it (etcd's `addRemoteFromRequest`, `server/etcdserver/api/rafthttp/http.go`).
    fn meet(&self, hello: Hello, peer_urls: Vec<String>) -> Result<Hello, Refusal> {
        let own = self.0.member;
        if peer_urls.is_empty() || hello.to != own || hello.from == own {
            return Err(Refusal::Unknown);
        }
        self.introduce(Members::from([(hello.from, peer_urls)]));
        self.check(hello)
    }

    fn tell_refused<B>(&self, refusal: Refusal, request: &Request<B>) {
        let headers = request.headers();
        let from = hello::sender(headers).unwrap_or_default();
        if !self.0.quiet.allows(from, &refusal.to_string()) {
            return;
        }
        let (local, own) = (self.0.member, self.0.cluster);
        let cluster = hello::cluster(headers).map(|id| id.to_string()).unwrap_or_default();
        match refusal {
            Refusal::Cluster => tracing::warn!(
                "local-member-id" = %local,
                "local-member-cluster-id" = %own,
                "remote-peer-server-name" = %from,
                "remote-peer-cluster-id" = cluster,
                "request cluster ID mismatch"
            ),
            Refusal::Removed => tracing::warn!(
                "local-member-id" = %local,
                "remote-peer-id-from" = %from,
                "rejected stream from remote peer because it was removed"
            ),
            Refusal::Unknown => tracing::warn!(
                "local-member-id" = %local,
                "remote-peer-id-from" = %from,
                "cluster-id" = %own,
                "failed to find remote peer in cluster"
            ),
            Refusal::To => tracing::warn!(
                "local-member-id" = %local,
                "remote-peer-id-from" = %from,
                "cluster-id" = %own,
                "ignored streaming request; ID mismatch"
            ),
            Refusal::Version => tracing::warn!(
                "local-member-id" = %local,
                "remote-peer-server-name" = %from,
                "failed version compatibility check"
            ),
            Refusal::NoSuchPath
            | Refusal::Method
            | Refusal::BadFrom
            | Refusal::TooMany
            | Refusal::Stopping => tracing::warn!(
                "local-member-id" = %local,
                "remote-peer-id-from" = %from,
                path = request.uri().path(),
                error = %refusal,
                "rejected stream from remote peer"
            ),
        }
    }

    /// Counts of what goes to and comes from each member.
    pub fn figures(&self) -> &PeerFigures {
        &self.0.figures
    }

    /// Members that have opened every stream to this one.
    pub fn connected(&self) -> BTreeSet<MemberId> {
        let pipes = self.0.pipes.lock();
        let all = |id: &MemberId| Purpose::ALL.iter().all(|p| pipes.contains_key(&(*id, *p)));
        pipes.keys().map(|(id, _)| *id).filter(all).collect()
    }

    /// Ends every stream and joins their tasks.
    pub async fn shutdown(&self) {
        let tasks = self.0.tasks.lock().take();
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
        self.0.known.lock().kept.clear();
        self.0.services.lock().clear();
    }
}

impl Shared {
    fn keeping(&self) -> Keeping {
        Keeping {
            frame_bytes_max: self.frame_bytes_max,
            alive_every: self.timing.alive_every,
            dead_after: self.timing.dead_after,
        }
    }

    /// Runs a stream that another member has opened, until it ends.
    async fn ask_by(&self, hello: Hello, wire: Box<dyn Wire>) -> Ended {
        let (peer, purpose) = (hello.from, hello.purpose);
        // A stream of appends that keeps its window always fits.
        let bytes = 2 * WINDOW_BYTES + self.frame_bytes_max;
        let room = Room { frames: frames_max(purpose), bytes };
        let pipe = Arc::new(Pipe::new(room));
        let attach = || {
            let before = self.pipes.lock().insert((peer, purpose), Arc::clone(&pipe));
            self.figures.connected(self.member, peer, true);
            if let Some(before) = before {
                before.close("a newer connection took its place");
            }
            self.quiet.forget(peer);
            self.news.notify_waiters();
        };
        let side = Asking::new(Arc::clone(&pipe), attach);
        let heard = Heard::default();
        let ended = converse(wire, side, self.keeping(), &heard, &self.figures.traffic(peer)).await;
        let mut pipes = self.pipes.lock();
        if pipes.get(&(peer, purpose)).is_some_and(|now| Arc::ptr_eq(now, &pipe)) {
            pipes.remove(&(peer, purpose));
            self.tell_connected(&pipes, peer);
        }
        ended
    }

    fn tell_connected(&self, pipes: &BTreeMap<(MemberId, Purpose), Arc<Pipe>>, peer: MemberId) {
        let connected = pipes.keys().any(|(id, _)| *id == peer);
        self.figures.connected(self.member, peer, connected);
    }

    fn close_pipes(&self, peer: MemberId) {
        let gone: Vec<Arc<Pipe>> = {
            let mut pipes = self.pipes.lock();
            let mut take = |purpose: &Purpose| pipes.remove(&(peer, *purpose));
            let gone = Purpose::ALL.iter().filter_map(&mut take).collect();
            self.tell_connected(&pipes, peer);
            gone
        };
        for pipe in gone {
            pipe.close("it is no member any more");
        }
    }

    /// Hands an ask to its group.
    fn serve(&self, group: GroupId, ask: Bytes) -> BoxFuture<'static, Served> {
        let service = self.services.lock().get(&group).cloned();
        match service {
            Some(service) => service.serve(ask),
            None => {
                let why = format!("group {group} is not served there");
                async { Served::NotServed(why) }.boxed()
            }
        }
    }

    fn push(
        &self,
        lane: &Lane,
        frame: Bytes,
    ) -> Result<tokio::sync::oneshot::Receiver<pipe::Outcome>, Failed> {
        if frame.len() > self.frame_bytes_max {
            let (length, max) = (frame.len(), self.frame_bytes_max);
            return Err(Failed::Perhaps(format!("a frame of {length} bytes is over {max}")));
        }
        let pipe = self.pipes.lock().get(&(lane.to, lane.purpose)).cloned();
        match pipe {
            Some(pipe) => pipe.push(lane.group, frame),
            None => Err(Failed::Unseen("it has no stream open to this member".to_owned())),
        }
    }
}

fn broken(to: MemberId, failed: Failed) -> TransportError {
    match failed {
        Failed::Unseen(why) => TransportError::Unreachable(to, why),
        Failed::Perhaps(why) => TransportError::Broken(to, why),
    }
}

impl Transport for Peers {
    fn connected_since(&self, member: MemberId) -> Option<Instant> {
        self.0.live.lock().get(&member).map(|(_, since)| *since)
    }

    fn exchange<'a>(
        &'a self,
        lane: &'a Lane,
        frame: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        let pushed = self.0.push(lane, frame);
        let Lane { to, purpose, .. } = *lane;
        let began = Instant::now();
        async move {
            let outcome = match pushed {
                Ok(told) => told
                    .await
                    .unwrap_or_else(|_dropped| Err(Failed::Perhaps("the stream ended".to_owned()))),
                Err(failed) => Err(failed),
            };
            match &outcome {
                Ok(_) if purpose == Purpose::Heartbeat => {
                    self.0.figures.round_trip(to, began.elapsed());
                }
                Ok(_) => {}
                Err(_) => self.0.figures.failed(to),
            }
            outcome.map_err(|failed| broken(to, failed))
        }
        .boxed()
    }
}
