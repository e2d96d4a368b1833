//! Three groups over journals on device doubles, in one process and on paused time: a member that is left behind a
//! purge is brought up by a whole state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;
use parking_lot::Mutex;
use quorate_core::api::ids::{GroupId, LogId, MemberId};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::double::{Sink, entry};
use super::network::{Answer, Ask};
use super::types::AppliedSink as _;
use super::{
    ChangeError, Consensus, Lane, MemberChange, ProposeError, PurgeLimits, Purpose, Served,
    Settings, SnapshotLimits, Timing, Transport, TransportError,
};
use crate::storage::device::double::DoubleDevice;
use crate::storage::journal::{Journal, JournalOptions, Runner};
use crate::support::spawn::Blocking;

const MEMBERS: [MemberId; 3] = [MemberId(1), MemberId(2), MemberId(3)];
const FOURTH: MemberId = MemberId(4);

/// Who is there, who is cut off, and how many frames on the snapshot lanes come through between two losses.
#[derive(Debug, Default)]
struct Net {
    members: Mutex<BTreeMap<MemberId, Consensus>>,
    cut: watch::Sender<BTreeSet<MemberId>>,
    lose_every: Mutex<Option<usize>>,
    shipped: Mutex<usize>,
}

#[derive(Clone, Debug)]
struct End(Arc<Net>);

impl Transport for End {
    fn exchange<'a>(
        &'a self,
        lane: &'a Lane,
        frame: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        Box::pin(async move {
            let (from, to) = (lane.from, lane.to);
            let mut cuts = self.0.cut.subscribe();
            let target = self.0.members.lock().get(&to).cloned();
            let is_cut = |cut: &BTreeSet<MemberId>| cut.contains(&from) || cut.contains(&to);
            let Some(target) = target.filter(|_| !is_cut(&cuts.borrow_and_update())) else {
                return Err(TransportError::Unreachable(to, "cut".to_owned()));
            };
            let broken = |why: &str| Err(TransportError::Broken(to, why.to_owned()));
            if lane.purpose == Purpose::Snapshot && self.0.loses_this() {
                return broken("lost");
            }
            tokio::select! {
                biased;
                served = target.serve_peer(frame) => match served {
                    Ok(Served::Answer(answer)) => Ok(answer),
                    Ok(Served::Keyspace(_)) => broken("nobody asks a keyspace here"),
                    Err(error) => broken(&error.to_string()),
                },
                _ = cuts.wait_for(is_cut) => broken("cut"),
            }
        })
    }
}

impl Net {
    fn loses_this(&self) -> bool {
        let mut shipped = self.shipped.lock();
        *shipped += 1;
        self.lose_every.lock().is_some_and(|every| shipped.is_multiple_of(every))
    }
}

struct Member {
    id: MemberId,
    journal: Journal,
    sink: Sink,
    consensus: Consensus,
}

struct Cluster {
    net: Arc<Net>,
    members: Vec<Member>,
}

fn settings(member: MemberId) -> Settings {
    Settings {
        group: GroupId(0),
        member,
        timing: Timing {
            heartbeat: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
        },
        purge: PurgeLimits {
            catch_up_requests: 20,
            answered_within: Duration::from_secs(5),
            ..PurgeLimits::default()
        },
        snapshots: SnapshotLimits { piece_bytes: 1000, ..SnapshotLimits::default() },
    }
}

async fn open(id: MemberId, net: &Arc<Net>) -> Member {
    let device = Arc::new(DoubleDevice::default());
    let options = JournalOptions { segment_bytes: 1 << 18, ..JournalOptions::default() };
    let journal = Journal::open(device, options, Runner::InPlace).unwrap();
    let log = journal.group(GroupId(0));
    let sink = Sink::new(Some(log.clone()));
    let consensus = Consensus::start(
        settings(id),
        log,
        Arc::new(sink.clone()),
        Arc::new(End(Arc::clone(net))),
        Arc::new(Blocking::in_place()),
    )
    .await
    .unwrap();
    net.members.lock().insert(id, consensus.clone());
    Member { id, journal, sink, consensus }
}

fn urls(id: MemberId) -> Vec<String> {
    vec![format!("http://m{}", id.0)]
}

impl Cluster {
    async fn start() -> Cluster {
        Cluster::of(&MEMBERS).await
    }

    async fn of(ids: &[MemberId]) -> Cluster {
        let net = Arc::new(Net::default());
        let mut members = Vec::new();
        for id in ids {
            members.push(open(*id, &net).await);
        }
        let all: Vec<_> = ids.iter().map(|id| (*id, urls(*id))).collect();
        for member in &members {
            member.consensus.initialize(&all).await.unwrap();
        }
        Cluster { net, members }
    }

    /// Starts a member that has been added.
    async fn join(&mut self, id: MemberId) {
        self.members.push(open(id, &self.net).await);
    }

    /// Has the leader change the membership that is applied there.
    async fn change(&self, change: &MemberChange) -> Result<(), ChangeError> {
        let leader = self.leader().await;
        let stored = leader.sink.applied().1.log_id.expect("there are members");
        let over = LogId::new(stored.term, stored.index);
        leader.consensus.change_members(over, change).await.map(drop)
    }

    async fn add(&self, id: MemberId) {
        let add = MemberChange::Add { id, peer_urls: urls(id), votes: true };
        self.change(&add).await.unwrap();
    }

    /// The voters that the leader knows.
    async fn voters(&self) -> Vec<MemberId> {
        self.leader().await.consensus.facts().voters
    }

    async fn eventually_voters(&self, expected: &[MemberId]) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.voters().await != expected {
            assert!(Instant::now() < deadline, "{:?}", self.voters().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn member(&self, id: MemberId) -> &Member {
        self.members.iter().find(|member| member.id == id).unwrap()
    }

    async fn leader(&self) -> &Member {
        let leads = |member: &&Member| {
            let cut = self.net.cut.borrow().contains(&member.id);
            !cut && member.consensus.leads()
        };
        eventually(|| self.members.iter().any(|member| leads(&member))).await;
        self.members.iter().find(leads).unwrap()
    }

    fn cut(&self, id: Option<MemberId>) {
        self.net.cut.send_replace(id.into_iter().collect());
    }

    /// Proposes these one after another, each until it is applied.
    async fn write(&self, seqs: std::ops::Range<u64>) {
        for seq in seqs {
            let deadline = Instant::now() + Duration::from_secs(120);
            loop {
                let leader = self.leader().await;
                let outcome = match leader.consensus.propose(entry(seq)).await {
                    Ok(ticket) => timeout_at(deadline, ticket).await.expect("in time"),
                    Err(error) => Err(error),
                };
                match outcome {
                    Ok(()) => break,
                    Err(ProposeError::NotLeader { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    async fn level(&self) {
        let same = || self.members.iter().all(|m| m.sink.seqs() == self.members[0].sink.seqs());
        eventually(same).await;
    }

    async fn stop(self) {
        for member in self.members {
            member.consensus.shutdown().await;
            drop(member.journal.close());
        }
    }

    /// Takes a member off the network for good.
    async fn lose(&mut self, id: MemberId) {
        let at = self.members.iter().position(|member| member.id == id).unwrap();
        let member = self.members.remove(at);
        self.net.members.lock().remove(&id);
        member.consensus.shutdown().await;
        drop(member.journal.close());
    }
}

impl Member {
    fn purged(&self) -> u64 {
        self.journal.group(GroupId(0)).state().purged.map_or(0, |at| at.index)
    }

    /// What raft believes to be gone.
    fn believed_purged(&self) -> u64 {
        let metrics = self.consensus.0.raft.metrics();
        metrics.borrow_watched().purged.map_or(0, |at| at.index)
    }
}

async fn eventually(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// It lay in a stream that was cut, and the leader has long gone on.
#[tokio::test(start_paused = true)]
async fn a_handover_that_comes_too_late_changes_nothing() {
    let cluster = Cluster::start().await;
    cluster.write(0..5).await;
    cluster.level().await;
    let leader = cluster.leader().await;
    let target = cluster.members.iter().find(|member| member.id != leader.id).unwrap();
    let vote = leader.consensus.0.raft.server_metrics().borrow_watched().vote;
    let last = leader.consensus.0.raft.data_metrics().borrow_watched().last_log;
    let request = TransferLeaderRequest::new(vote, target.id.0, last);
    let late = Ask::Handover { round: 1, request }.encode();
    let Ok(Served::Answer(answer)) = target.consensus.serve_peer(late).await else {
        panic!("it is answered");
    };
    assert!(matches!(Answer::decode(answer), Ok(Answer::Handover { taken: false })));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let now = leader.consensus.0.raft.server_metrics().borrow_watched().vote;
    assert_eq!(now, vote, "nobody has campaigned");
    let moved = leader.consensus.transfer_leader(target.id, Duration::from_secs(5)).await;
    assert_eq!(moved, Ok(()));
    cluster.stop().await;
}

/// Cuts a follower off, writes, makes bases, and waits for the purge that leaves it behind.
async fn leave_behind(cluster: &Cluster) -> MemberId {
    cluster.write(0..10).await;
    let leader = cluster.leader().await;
    let behind = MEMBERS.into_iter().find(|id| *id != leader.id).unwrap();
    cluster.cut(Some(behind));
    cluster.write(10..300).await;
    for member in cluster.members.iter().filter(|member| member.id != behind) {
        member.sink.make_base().await;
    }
    eventually(|| leader.purged() > 200).await;
    assert!(leader.purged() <= 300 && leader.believed_purged() == leader.purged());
    behind
}

#[tokio::test(start_paused = true)]
async fn a_member_left_behind_a_purge_comes_back_by_a_whole_state_while_writes_go_on() {
    let cluster = Cluster::start().await;
    let behind = leave_behind(&cluster).await;
    cluster.cut(None);
    cluster.write(300..400).await;
    cluster.level().await;
    let behind = cluster.member(behind);
    assert_eq!(behind.sink.installs(), 1);
    assert_eq!(behind.sink.seqs(), (0..400).collect::<Vec<_>>());
    assert!(behind.purged() > 0 && behind.believed_purged() == behind.purged());
    let leader = cluster.leader().await;
    assert_eq!(leader.consensus.snapshot_figures().successes(behind.id).0, 1);
    assert_eq!(behind.consensus.snapshot_figures().successes(leader.id).1, 1);
    // Its log goes on from there, and it can lead.
    leader.consensus.transfer_leader(behind.id, Duration::from_secs(20)).await.unwrap();
    cluster.write(400..420).await;
    cluster.level().await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_way_that_breaks_again_and_again_still_brings_a_member_up() {
    let cluster = Cluster::start().await;
    let behind = leave_behind(&cluster).await;
    *cluster.net.lose_every.lock() = Some(5);
    cluster.cut(None);
    // Newer bases come meanwhile; the transfer goes on with the one it began with.
    for round in 0..4 {
        cluster.write(300 + 10 * round..310 + 10 * round).await;
        cluster.leader().await.sink.make_base().await;
    }
    cluster.level().await;
    assert_eq!(cluster.member(behind).sink.installs(), 1);
    let leader = cluster.leader().await;
    assert!(leader.consensus.snapshot_figures().failures(behind).0 >= 3);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_takes_the_transfer_over() {
    let cluster = Cluster::start().await;
    let behind = leave_behind(&cluster).await;
    cluster.member(behind).sink.hold_prepare();
    cluster.cut(None);
    let leader = cluster.leader().await.id;
    let inflight = || *cluster.net.shipped.lock() > 20;
    eventually(inflight).await;
    cluster.cut(Some(leader));
    // It has a vote for the other, and its share of a quorum only once the state is in force.
    assert_ne!(cluster.leader().await.id, leader);
    cluster.member(behind).sink.let_prepare();
    cluster.write(300..320).await;
    cluster.cut(None);
    cluster.write(320..340).await;
    cluster.level().await;
    assert_eq!(cluster.member(behind).sink.seqs(), (0..340).collect::<Vec<_>>());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_log_is_kept_for_a_member_that_answers_and_lags_and_not_for_one_that_is_gone() {
    let cluster = Cluster::start().await;
    cluster.write(0..100).await;
    let leader = cluster.leader().await;
    let behind = MEMBERS.into_iter().find(|id| *id != leader.id).unwrap();
    cluster.cut(Some(behind));
    cluster.write(100..200).await;
    leader.sink.make_base().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(leader.purged() < 120, "it may be back: {}", leader.purged());
    cluster.cut(None);
    cluster.level().await;
    assert_eq!(cluster.member(behind).sink.installs(), 0, "the log was there");
    // Level, nothing holds the log but the stretch that is always kept.
    eventually(|| leader.purged() > 170).await;
    cluster.cut(Some(behind));
    cluster.write(200..300).await;
    leader.sink.make_base().await;
    eventually(|| leader.purged() > 270).await;
    cluster.cut(None);
    cluster.level().await;
    assert_eq!(cluster.member(behind).sink.installs(), 1);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn followers_let_their_log_go_too_and_know_it() {
    let cluster = Cluster::start().await;
    cluster.write(0..200).await;
    cluster.level().await;
    for member in &cluster.members {
        member.sink.make_base().await;
    }
    for member in &cluster.members {
        eventually(|| member.purged() > 150 && member.believed_purged() == member.purged()).await;
        assert!(member.purged() <= 185, "the last are kept for others: {}", member.purged());
    }
    cluster.stop().await;
}

#[path = "membership_test.rs"]
mod membership;
#[path = "silence_test.rs"]
mod silence;
