//! Floor 3, agree: one raft group, from a proposal to the applied entry.
//!
//! ```text
//!   propose(bytes) ----> openraft core ----> log_adapter ----> journal
//!   read_index() --> rounds --^   |                               |
//!                                 +--- committed entries <--------+ synced here and on a quorum
//!                                 v
//!                        machine_adapter: decode, gather ----> AppliedSink (the keyspace)
//!
//!   network: frames over a Transport, to and from the same three on the other members
//! ```
//!
//! openraft is named only on this floor, and etcd's meaning of things is unknown here: a proposal is bytes.
//!
//! **Invariant:** every proposal's ticket resolves: applied, rejected, in doubt, or stopped.

mod catch_up;
#[cfg(test)]
mod cluster_test;
#[cfg(test)]
mod consensus_test;
mod convert;
#[cfg(test)]
mod double;
mod error;
mod leader;
mod log_adapter;
mod machine_adapter;
mod membership;
mod network;
mod peers;
mod purge;
mod read_index;
mod runtime;
mod silence;
mod snapshot_adapter;
mod snapshots;
#[cfg(test)]
mod suite_test;
mod transfer;
mod types;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{
    ClientWriteError, Fatal as RaftFatal, InitializeError, LinearizableReadError, RaftError,
};
use openraft::impls::OneshotResponder;
use parking_lot::Mutex;
use quorate_core::api::ids::{GroupId, LogId, MemberId};
use quorate_core::api::pb::internal::StoredMembership;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::instrument::WithSubscriber as _;

use self::leader::{Answered, Heard};
use self::log_adapter::LogAdapter;
use self::machine_adapter::MachineAdapter;
use self::network::Network;
use self::peers::Peers;
use self::purge::{Floor, Purger, Sizes};
use self::read_index::ReadRounds;
use self::snapshots::{Incoming, Outgoing, Receiving};
use self::types::{PeerNode, Proposal, TypeConfig};
use crate::storage::journal::GroupLog;
use crate::support::spawn::Blocking;

pub use self::convert::ENTRY_TAG;
pub use self::error::{ProposeError, ReadIndexError, StartError};
pub use self::leader::LeaderView;
pub use self::membership::{ChangeError, MemberChange, Progress};
pub use self::network::{
    BadFrame, Lane, NoPeers, Purpose, Transport, TransportError, WINDOW_BYTES,
};
pub use self::peers::{AskError, PeerError, Served, keyspace_answer};
pub use self::purge::PurgeLimits;
pub use self::runtime::Timing;
#[cfg(feature = "simulation")]
pub use self::runtime::seeded;
pub(crate) use self::silence::Silence;
pub use self::snapshots::{SnapshotFigures, SnapshotLimits};
pub use self::transfer::TransferError;
pub use self::types::{
    AppliedSink, Fatal, PreparedSnapshot, SnapshotLabel, SnapshotReceiver, SnapshotSource,
};

/// Members and where they are reached.
pub type Members = BTreeMap<MemberId, Vec<String>>;

type Raft = openraft::Raft<TypeConfig, MachineAdapter>;

/// Which member of which group this is, and how it keeps time.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The raft group.
    pub group: GroupId,
    /// This member.
    pub member: MemberId,
    /// Its timing.
    pub timing: Timing,
    /// How much log it keeps behind a base.
    pub purge: PurgeLimits,
    /// How it sends whole states.
    pub snapshots: SnapshotLimits,
}

/// What raft knows of itself, for status and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftFacts {
    /// The present vote's term.
    pub term: u64,
    /// Index of the last entry in this member's log.
    pub last_index: Option<u64>,
    /// The last committed entry this member knows of.
    pub committed: Option<LogId>,
    /// The last applied entry.
    pub applied: Option<LogId>,
    /// The last entry that this member's log has let go.
    pub purged: Option<LogId>,
    /// Members with a vote.
    pub voters: Vec<MemberId>,
    /// Members without.
    pub learners: Vec<MemberId>,
}

/// One running raft group of this member. Cheap to clone; [`Consensus::shutdown`] ends it for all.
#[derive(Clone)]
pub struct Consensus(Arc<Inner>);

struct Inner {
    settings: Settings,
    raft: Raft,
    peers: Peers,
    /// The longest entry that this member's log takes, in bytes.
    entry_bytes_max: usize,
    rounds: Arc<ReadRounds>,
    heard: Arc<Heard>,
    silence: Arc<Silence>,
    leader: watch::Receiver<LeaderView>,
    failed: watch::Receiver<Option<String>>,
    /// Leadership is being handed over: nothing is proposed meanwhile.
    handing_over: transfer::Handing,
    catch_up: catch_up::CatchUp,
    /// Where whole states of other members are taken.
    incoming: Incoming,
    snapshot_figures: SnapshotFigures,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Consensus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Consensus({:?})", self.0.settings)
    }
}

impl Consensus {
    /// Starts a group over a log and a sink that already stand at the commit index. A group of this member alone
    /// elects it at once. What of the log is not in memory is read by `blocking`.
    pub async fn start(
        settings: Settings,
        log: GroupLog,
        sink: Arc<dyn AppliedSink>,
        transport: Arc<dyn Transport>,
        blocking: Arc<Blocking>,
    ) -> Result<Consensus, StartError> {
        let Settings { group, member, timing, .. } = settings;
        let config = runtime::config(format!("group {group}"), timing)?;
        let entry_bytes_max = log.entry_bytes_max();
        let alone = is_alone(member, &sink.applied().1);
        let figures = SnapshotFigures::default();
        let outgoing = Arc::new(Outgoing::new(settings.snapshots, figures.clone()));
        let (floor, sizes) = (Floor::default(), Arc::new(sizes(&log)));
        let answered = Arc::new(Answered::default());
        let raft = Raft::new(
            member.0,
            config,
            Network::new(
                group,
                member,
                Arc::clone(&transport),
                Arc::clone(&outgoing),
                floor.clone(),
                Arc::clone(&answered),
            ),
            LogAdapter::new(log.clone(), blocking),
            MachineAdapter::new(Arc::clone(&sink), Arc::clone(&outgoing), Arc::clone(&sizes)),
        )
        .await
        .map_err(|error| StartError::Raft(error.to_string()))?;
        let peers = Peers { group, member, transport, raft: raft.clone() };
        let (incoming, receiving) =
            Receiving::new(raft.clone(), Arc::clone(&sink), settings.snapshots, figures.clone());
        let limits = settings.purge;
        let purger = Purger { raft: raft.clone(), log, sink, outgoing, sizes, floor, limits };
        let consensus =
            Consensus::attend(settings, peers, entry_bytes_max, answered, (incoming, figures));
        consensus.0.tasks.lock().extend([
            tokio::spawn(receiving.run().with_current_subscriber()),
            tokio::spawn(purger.run().with_current_subscriber()),
            tokio::spawn(membership::usher(Arc::downgrade(&consensus.0)).with_current_subscriber()),
        ]);
        if alone {
            // Nobody else could be leading: waiting for an election timeout would only delay the start.
            let elected = consensus.0.raft.trigger().elect(false).await;
            elected.map_err(|error| StartError::Raft(error.to_string()))?;
        }
        Ok(consensus)
    }

    /// Starts the two tasks that tell of raft: read rounds and the leader view.
    fn attend(
        settings: Settings,
        peers: Peers,
        entry_bytes_max: usize,
        answered: Arc<Answered>,
        (incoming, snapshot_figures): (Incoming, SnapshotFigures),
    ) -> Consensus {
        let raft = peers.raft.clone();
        let rounds = Arc::new(ReadRounds::default());
        let heard = Arc::new(Heard::default());
        let silence = Arc::new(Silence::new());
        let (publish, leader) = watch::channel(LeaderView {
            leader: None,
            term: quorate_core::api::ids::Term(0),
            fresh: false,
            since: None,
        });
        let (fail, failed) = watch::channel(None);

        let run_rounds = tokio::spawn({
            let (peers, rounds, leader) = (peers.clone(), Arc::clone(&rounds), leader.clone());
            let limit = settings.timing.election_timeout;
            async move { rounds.run(|| read_round(&peers, &leader, limit)).await }
        });
        let watch_leader = tokio::spawn({
            let (raft, heard, silence) = (raft.clone(), Arc::clone(&heard), Arc::clone(&silence));
            async move {
                let limit = settings.timing.election_timeout;
                let member = settings.member;
                let signs = (&*heard, &*answered, &*silence);
                let cause = leader::watch_leader(member, &raft, signs, limit, &publish).await;
                fail.send_replace(Some(cause));
            }
        });
        Consensus(Arc::new(Inner {
            settings,
            raft,
            peers,
            entry_bytes_max,
            rounds,
            heard,
            silence,
            leader,
            failed,
            handing_over: transfer::Handing::default(),
            catch_up: catch_up::CatchUp::new(settings.snapshots.log_bytes_per_second),
            incoming,
            snapshot_figures,
            tasks: Mutex::new(vec![run_rounds, watch_leader]),
        }))
    }

    /// Gives a group that has no log yet its first members. Every one of them is called with the same.
    pub async fn initialize(&self, members: &[(MemberId, Vec<String>)]) -> Result<(), StartError> {
        let nodes: BTreeMap<u64, PeerNode> = members
            .iter()
            .map(|(id, peer_urls)| {
                let node = PeerNode { peer_urls: peer_urls.clone(), voter_when_caught_up: false };
                (id.0, node)
            })
            .collect();
        match self.0.raft.initialize(nodes).await {
            Ok(()) => Ok(()),
            // A log or a vote exists: another start came before this one, and its members stand.
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(StartError::Raft(error.to_string())),
        }
    }

    /// Hands an encoded `internal.LogPayload` (arm `entry`) to raft, in order with other calls of one task.
    ///
    /// The ticket resolves when the entry has been applied on this member, or with why it was not.
    pub async fn propose(
        &self,
        payload: Bytes,
    ) -> Result<impl Future<Output = Result<(), ProposeError>> + Send + use<>, ProposeError> {
        debug_assert!(payload.first() == Some(&ENTRY_TAG), "a proposal is a packed entry");
        if payload.len() > self.0.entry_bytes_max {
            return Err(ProposeError::TooLarge);
        }
        if self.0.handing_over.is_open() {
            return Err(ProposeError::NotLeader { leader: None });
        }
        // With a responder, because without one openraft drops a rejected proposal without a word.
        let (responder, told) = OneshotResponder::new_pair();
        let raft = &self.0.raft;
        raft.client_write_ff(Proposal(payload), Some(responder)).await.map_err(stopped)?;
        Ok(async move {
            match told.await {
                Ok(Ok(_applied)) => Ok(()),
                Ok(Err(ClientWriteError::ForwardToLeader(to))) => {
                    Err(ProposeError::NotLeader { leader: to.leader_id.map(MemberId) })
                }
                Ok(Err(ClientWriteError::LogEntryDiscarded(_))) => Err(ProposeError::Discarded),
                // Neither can come of a plain write.
                Ok(Err(
                    error @ (ClientWriteError::ChangeMembershipError(_)
                    | ClientWriteError::PreconditionFailed(_)),
                )) => Err(ProposeError::Stopped(error.to_string())),
                Err(_dropped) => Err(ProposeError::Stopped("raft ended".to_owned())),
            }
        })
    }

    /// The log index that a linearizable read has to wait for, from a round that began after this call.
    pub async fn read_index(&self) -> Result<u64, ReadIndexError> {
        self.0.rounds.read_index().await
    }

    /// Who leads now.
    pub fn leader_view(&self) -> LeaderView {
        *self.0.leader.borrow()
    }

    /// The same, to be told of changes.
    pub fn leader_changes(&self) -> watch::Receiver<LeaderView> {
        self.0.leader.clone()
    }

    /// Resolves with the cause when raft has ended, by a failure or by [`Consensus::shutdown`].
    pub fn wait_ended(&self) -> impl Future<Output = String> + Send + use<> {
        let mut failed = self.0.failed.clone();
        async move {
            let cause = failed.wait_for(Option::is_some).await;
            match cause.map(|cause| cause.clone()) {
                Ok(Some(cause)) => cause,
                Ok(None) | Err(_) => "raft ended".to_owned(),
            }
        }
    }

    /// The members in this member's log and where they are reached, once they are other than `known`. Never, after
    /// raft has ended.
    pub async fn members_other_than(&self, known: &Members) -> Members {
        let mut server = self.0.raft.server_metrics();
        loop {
            let now: Members = {
                let server = server.borrow_watched();
                let nodes = server.membership_config.membership().nodes();
                nodes.map(|(id, node)| (MemberId(*id), node.peer_urls.clone())).collect()
            };
            if now != *known {
                return now;
            }
            if server.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// What raft knows of itself.
    pub fn facts(&self) -> RaftFacts {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        RaftFacts {
            term: metrics.current_term,
            last_index: metrics.last_log_index,
            committed: metrics.local_committed.as_ref().map(convert::log_id),
            applied: metrics.last_applied.as_ref().map(convert::log_id),
            purged: metrics.purged.as_ref().map(convert::log_id),
            voters: membership.voter_ids().map(MemberId).collect(),
            learners: membership.learner_ids().map(MemberId).collect(),
        }
    }

    /// Counts of whole states sent and taken.
    pub fn snapshot_figures(&self) -> &SnapshotFigures {
        &self.0.snapshot_figures
    }

    /// Stops raft and joins its tasks. Tickets that are open resolve as stopped, waiting reads too.
    pub async fn shutdown(&self) {
        // The error is a panic of raft's task, which the view of its end has told already.
        drop(self.0.raft.shutdown().await);
        let tasks = std::mem::take(&mut *self.0.tasks.lock());
        for task in tasks {
            task.abort();
            drop(task.await);
        }
        self.0.rounds.close();
    }
}

/// What the log holds at the start, all of which is applied.
fn sizes(log: &GroupLog) -> Sizes {
    let state = log.state();
    let index = |at: Option<LogId>| at.map_or(0, |at| at.index);
    Sizes::of_log(index(state.purged), index(state.committed), log.retained_bytes())
}

/// `member` is the only voter. Asked of the applied state: raft's own metrics are empty until its task first runs.
fn is_alone(member: MemberId, membership: &StoredMembership) -> bool {
    let configs = membership.membership.iter().flat_map(|membership| &membership.configs);
    let mut configs = configs.map(|voters| voters.member_ids.as_slice());
    configs.next() == Some(&[member.0]) && configs.next().is_none()
}

fn stopped(fatal: RaftFatal<TypeConfig>) -> ProposeError {
    ProposeError::Stopped(fatal.to_string())
}

/// One round: this member's own while it leads, the leader's while there is one; in `limit`, or the reads that wait
/// for the next round would wait with it.
async fn read_round(
    peers: &Peers,
    leader: &watch::Receiver<LeaderView>,
    limit: Duration,
) -> Result<u64, ReadIndexError> {
    let leader = leader.borrow().leader();
    let round = async {
        match leader {
            Some(other) if other != peers.member => peers.read_index(other).await,
            Some(_) | None => own_round(&peers.raft).await,
        }
    };
    tokio::time::timeout(limit, round).await.unwrap_or(Err(ReadIndexError::NoQuorum))
}

async fn own_round(raft: &Raft) -> Result<u64, ReadIndexError> {
    match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
        Ok(linearizer) => Ok(linearizer.read_log_id().index()),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
            Err(ReadIndexError::NotLeader { leader: to.leader_id.map(MemberId) })
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
            Err(ReadIndexError::NoQuorum)
        }
        Err(RaftError::Fatal(_)) => Err(ReadIndexError::Stopped),
    }
}
