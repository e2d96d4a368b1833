//! Changing the members, one at a time and each by one entry.
//!
//! ```text
//!   change_members(over, change) --> the membership of entry `over` with one member added, removed, given a vote or
//!                                    moved --> one entry --> committed and applied
//!   usher, while this member leads:  a voter-to-be answers and is level --> it gets its vote
//!                                    two configs are in force           --> the last of them alone
//! ```
//!
//! Voters change by one, so that every quorum of the old ones meets every quorum of the new ones, and no joint config is
//! needed (Ongaro, "Consensus: Bridging Theory and Practice", 4.1; etcd does the same). openraft proposes such an entry
//! only after one of this leader's own term is committed, without which two leaders could each commit one.
//!
//! A new voter begins as a learner with a mark and gets its vote when it has caught up: with a quorum that waits for a
//! member which nobody has started yet, nothing could be written.
//!
//! **Invariant:** a change is made to the very membership that it was checked against: in between, raft refuses it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Weak;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, EntryPayload, Precondition, ServerState};
use quorate_core::api::ids::{LogId, MemberId, Term};
use tokio::time::Instant;

use super::transfer::{CLOSE_ENTRIES, heard, matched};
use super::types::{PeerNode, RaftMembership, RaftStoredMembership, TypeConfig};
use super::{Consensus, Inner, convert};

/// Between two looks at members that wait for their vote.
const LOOK: Duration = Duration::from_millis(50);

/// What is to become of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// It joins.
    Add {
        /// Its id, never used before.
        id: MemberId,
        /// Where it is reached.
        peer_urls: Vec<String>,
        /// It is to have a vote, as soon as it has caught up.
        votes: bool,
    },
    /// A learner gets a vote now.
    Promote(MemberId),
    /// It leaves.
    Remove(MemberId),
    /// It is reached elsewhere from now on.
    Move {
        /// Which.
        id: MemberId,
        /// Where it is reached.
        peer_urls: Vec<String>,
    },
}

/// The members were not changed, or nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This member does not lead, or is about to lead no more. Nothing will come of it.
    #[error("not the leader")]
    NotLeader,
    /// Another change is under way or came first. Nothing will come of this one.
    #[error("the membership is another by now: {0}")]
    Moved(String),
    /// It entered the log of a leader that was replaced: it may have been made.
    #[error("the leader was replaced")]
    Discarded,
    /// The group stopped: it may have been made.
    #[error("the group stopped: {0}")]
    Stopped(String),
}

/// How far a member's log is, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Entries that it is known to have.
    pub entries: u64,
    /// Entries that the leader has.
    pub of: u64,
}

/// The membership with that change; `None` where it is not one of a single voter.
fn changed(from: &RaftMembership, change: &MemberChange) -> Option<RaftMembership> {
    let [voters] = from.get_joint_config().as_slice() else {
        return None;
    };
    let mut voters: BTreeSet<u64> = voters.clone();
    let mut nodes: BTreeMap<u64, PeerNode> =
        from.nodes().map(|(id, node)| (*id, node.clone())).collect();
    match change {
        MemberChange::Add { id, peer_urls, votes } => {
            let node = PeerNode { peer_urls: peer_urls.clone(), voter_when_caught_up: *votes };
            if nodes.insert(id.0, node).is_some() {
                return None;
            }
        }
        MemberChange::Promote(id) => {
            if !nodes.contains_key(&id.0) || !voters.insert(id.0) {
                return None;
            }
        }
        MemberChange::Remove(id) => {
            voters.remove(&id.0);
            nodes.remove(&id.0)?;
        }
        MemberChange::Move { id, peer_urls } => {
            nodes.get_mut(&id.0)?.peer_urls.clone_from(peer_urls);
        }
    }
    RaftMembership::new(vec![voters], nodes).ok()
}

/// Members that are to have a vote and have none yet.
fn voters_to_be(membership: &RaftMembership) -> Vec<u64> {
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let waits = |(id, node): (&u64, &PeerNode)| {
        (node.voter_when_caught_up && !voters.contains(id)).then_some(*id)
    };
    membership.nodes().filter_map(waits).collect()
}

impl Consensus {
    /// Changes the membership that entry `over` put in force, if it still is. Done when it was applied here; the
    /// position of the entry that made it. Only the leader can.
    pub async fn change_members(
        &self,
        over: LogId,
        change: &MemberChange,
    ) -> Result<LogId, ChangeError> {
        if !self.leads() || self.0.handing_over.is_open() {
            return Err(ChangeError::NotLeader);
        }
        let moved = |why: &str| Err(ChangeError::Moved(why.to_owned()));
        let now = self.effective();
        if now.log_id().as_ref().map(convert::log_id) != Some(over) {
            return moved("another entry is in force");
        }
        let Some(next) = changed(now.membership(), change) else {
            return moved("it does not fit");
        };
        let guard = [Precondition::LastMembershipLogId { last_membership_log_id: *now.log_id() }];
        let raft = &self.0.raft;
        let written = match change {
            MemberChange::Move { id, .. } => {
                let node = next.get_node(&id.0).cloned().unwrap_or_default();
                let nodes = ChangeMembers::SetNodes(BTreeMap::from([(id.0, node)]));
                raft.change_membership_if(nodes, true, guard).await
            }
            MemberChange::Add { .. } | MemberChange::Promote(_) | MemberChange::Remove(_) => {
                raft.append_membership(next, EntryPayload::Blank, guard).await
            }
        };
        written.map(|written| convert::log_id(&written.log_id)).map_err(change_error)
    }

    /// How far a member's log is; `None` where this member does not lead, or knows no such member.
    pub fn progress(&self, id: MemberId) -> Option<Progress> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let of = metrics.last_log_index.map_or(0, |last| last + 1);
        if id.0 == metrics.id {
            return Some(Progress { entries: of, of });
        }
        let matched = replication.get(&id.0)?;
        Some(Progress { entries: matched.as_ref().map_or(0, |at| at.index + 1), of })
    }

    /// The voters of each config that was in force when `term` began; `None` once its leader has made another. Whoever
    /// led before need not have asked anybody of that one.
    pub fn voters_before(&self, term: Term) -> Option<Vec<BTreeSet<MemberId>>> {
        let now = self.effective();
        let made_in = now.log_id().as_ref().map(convert::log_id)?.term;
        if made_in >= term {
            return None;
        }
        let configs = now.membership().get_joint_config().iter();
        Some(configs.map(|voters| voters.iter().copied().map(MemberId).collect()).collect())
    }

    /// For how long this member has been connected to another without a break; `None` while it is not.
    pub fn connected_for(&self, id: MemberId) -> Option<Duration> {
        self.0.peers.transport.connected_since(id).map(|since| since.elapsed())
    }

    fn effective(&self) -> RaftStoredMembership {
        let server = self.0.raft.server_metrics();
        let server = server.borrow_watched();
        RaftStoredMembership::clone(&server.membership_config)
    }

    /// One look; whether another is due before anything changes.
    async fn usher(&self) -> bool {
        let leads = {
            let server = self.0.raft.server_metrics();
            let server = server.borrow_watched();
            server.state == ServerState::Leader
        };
        let now = self.effective();
        let (waiting, joint) =
            (voters_to_be(now.membership()), now.membership().get_joint_config().len() > 1);
        if !leads || (waiting.is_empty() && !joint) {
            return false;
        }
        let Some(over) = now.log_id().as_ref().map(convert::log_id).filter(|_| self.leads()) else {
            return true;
        };
        if joint {
            self.finish_joint(over, &now).await;
        } else if let Some(id) = waiting.into_iter().map(MemberId).find(|id| self.is_level(*id)) {
            match self.change_members(over, &MemberChange::Promote(id)).await {
                Ok(at) => tracing::info!(member = %id, %at, "a new voter has caught up and votes"),
                Err(error) => tracing::debug!(member = %id, %error, "a new voter has no vote yet"),
            }
        }
        true
    }

    /// Two configs are in force since a leader went away between two entries: the later one is what was wanted.
    async fn finish_joint(&self, over: LogId, now: &RaftStoredMembership) {
        let guard = [Precondition::LastMembershipLogId { last_membership_log_id: *now.log_id() }];
        let nobody = ChangeMembers::AddVoterIds(BTreeSet::new());
        match self.0.raft.change_membership_if(nobody, false, guard).await {
            Ok(_) => tracing::info!(%over, "a membership change that was interrupted is finished"),
            Err(error) => tracing::debug!(%error, "a membership change is not finished yet"),
        }
    }

    /// It answers, and lacks no more than what is on its way.
    fn is_level(&self, id: MemberId) -> bool {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let answers =
            heard(&metrics.heartbeat, &id.0).is_some_and(|silent| silent < self.patience());
        let last = metrics.last_log_index.unwrap_or(0);
        let close = |matched: u64| last.saturating_sub(matched) <= CLOSE_ENTRIES;
        answers && matched(&metrics.replication, &id.0).is_some_and(close)
    }
}

fn change_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ChangeError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => ChangeError::NotLeader,
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => ChangeError::Discarded,
        RaftError::APIError(
            error @ (ClientWriteError::ChangeMembershipError(_)
            | ClientWriteError::PreconditionFailed(_)),
        ) => ChangeError::Moved(error.to_string()),
        RaftError::Fatal(fatal) => ChangeError::Stopped(fatal.to_string()),
    }
}

/// Gives voters-to-be their votes while this member leads, and finishes what an earlier leader began. Until raft ends.
pub(super) async fn usher(of: Weak<Inner>) {
    let Some(mut server) = of.upgrade().map(|inner| inner.raft.server_metrics()) else {
        return;
    };
    loop {
        drop(server.borrow_and_update());
        let more = match of.upgrade() {
            Some(inner) => Consensus(inner).usher().await,
            None => return,
        };
        let next = Instant::now() + LOOK;
        tokio::select! {
            changed = server.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(next), if more => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(votes: bool) -> PeerNode {
        PeerNode { peer_urls: vec!["http://a".to_owned()], voter_when_caught_up: votes }
    }

    fn membership(voters: &[&[u64]], nodes: &[(u64, bool)]) -> RaftMembership {
        let nodes: BTreeMap<u64, PeerNode> =
            nodes.iter().map(|(id, votes)| (*id, node(*votes))).collect();
        let voters = voters.iter().map(|set| set.iter().copied().collect()).collect();
        RaftMembership::new(voters, nodes).unwrap()
    }

    #[test]
    fn each_change_moves_one_member() {
        let from = membership(&[&[1, 2]], &[(1, false), (2, false), (3, true)]);
        let urls = || vec!["http://a".to_owned()];
        let id = MemberId;
        let table = [
            (
                MemberChange::Add { id: id(4), peer_urls: urls(), votes: true },
                membership(&[&[1, 2]], &[(1, false), (2, false), (3, true), (4, true)]),
            ),
            (
                MemberChange::Promote(id(3)),
                membership(&[&[1, 2, 3]], &[(1, false), (2, false), (3, true)]),
            ),
            (MemberChange::Remove(id(2)), membership(&[&[1]], &[(1, false), (3, true)])),
            (MemberChange::Remove(id(3)), membership(&[&[1, 2]], &[(1, false), (2, false)])),
        ];
        for (change, next) in table {
            assert_eq!(changed(&from, &change), Some(next), "{change:?}");
        }
        let moved = MemberChange::Move { id: id(2), peer_urls: vec!["http://b".to_owned()] };
        let moved = changed(&from, &moved).unwrap();
        assert_eq!(moved.get_node(&2).unwrap().peer_urls, ["http://b"]);
        for misfit in [
            MemberChange::Add { id: id(1), peer_urls: urls(), votes: false },
            MemberChange::Promote(id(1)),
            MemberChange::Promote(id(9)),
            MemberChange::Remove(id(9)),
            MemberChange::Move { id: id(9), peer_urls: urls() },
        ] {
            assert_eq!(changed(&from, &misfit), None, "{misfit:?}");
        }
        let last = membership(&[&[1]], &[(1, false)]);
        assert_eq!(changed(&last, &MemberChange::Remove(id(1))), None, "nobody would be left");
        let joint = membership(&[&[1], &[1, 2]], &[(1, false), (2, false)]);
        assert_eq!(changed(&joint, &MemberChange::Remove(id(2))), None, "it is finished first");
    }

    #[test]
    fn voters_to_be_wait_until_they_have_their_vote() {
        let from = membership(&[&[1, 2]], &[(1, false), (2, true), (3, true), (4, false)]);
        assert_eq!(voters_to_be(&from), [3]);
    }
}
