//! Handing leadership to another member, without ever stopping writes for good.
//!
//! ```text
//!   reachable? close behind?      proposals go on
//!   pause                         proposals are refused; their proposers hold them and try again
//!     target has our last entry
//!     Handover ---> the target asks back: still wanted? --> it campaigns at once, with the leader's word that voters need not wait for its lease
//!     the target leads            or, at the latest after half an election timeout: as if nothing had been
//!   resume
//! ```
//!
//! openraft's own transfer marks the leader as leaving and cannot be taken back: were the target gone by then, this
//! member would refuse proposals, and keep the others from campaigning, for ever. So only the last step is
//! openraft's (`handle_transfer_leader` on the target), and raft here learns of it by the target's vote request.
//!
//! A handover may lie in a stream that is cut, and reach the target long after it was undone: a campaign then, with a
//! log that is behind, would depose a leader and win nothing. Hence the question back.
//!
//! **Invariant:** proposals are paused for at most half an election timeout at a time, and resumed whatever happens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;
use openraft::vote::RaftLeaderId as _;
use quorate_core::api::ids::{MemberId, Term};
use tokio::time::{Instant, timeout_at};

use super::network::{Answer, Ask, Purpose};
use super::types::RaftLogId;
use super::{Consensus, PeerError};

/// A target further behind than this is waited for while proposals go on.
pub(super) const CLOSE_ENTRIES: u64 = 64;
/// Between two looks at how far a target is.
const LOOK: Duration = Duration::from_millis(5);

/// Leadership was not handed over; writes go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This member does not lead.
    #[error("not the leader")]
    NotLeader,
    /// The target has no vote.
    #[error("the target is no voter")]
    BadTarget,
    /// Another transfer is under way.
    #[error("leadership is being handed over already")]
    Busy,
    /// The target did not take over in time.
    #[error("the target did not take over in time")]
    TimedOut,
}

/// The handover under way, if there is one.
#[derive(Debug, Default)]
pub(super) struct Handing {
    /// Its round; 0: none is.
    open: AtomicU64,
    /// Rounds that ever began.
    begun: AtomicU64,
}

impl Handing {
    /// Proposals are to wait.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire) != 0
    }

    /// The handover of `round` is still wanted.
    pub(super) fn stands(&self, round: u64) -> bool {
        round != 0 && self.open.load(Ordering::Acquire) == round
    }
}

/// Proposals stay paused while it lives.
struct Pause<'a> {
    handing: &'a Handing,
    round: u64,
}

impl<'a> Pause<'a> {
    fn begin(handing: &'a Handing) -> Result<Pause<'a>, TransferError> {
        let round = handing.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let taken = handing.open.compare_exchange(0, round, Ordering::AcqRel, Ordering::Acquire);
        taken.map(|_| Pause { handing, round }).map_err(|_other| TransferError::Busy)
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.handing.open.store(0, Ordering::Release);
    }
}

impl Consensus {
    /// Has `target` lead; tries until it does, for `limit` at most. Done when this member believes in it.
    pub async fn transfer_leader(
        &self,
        target: MemberId,
        limit: Duration,
    ) -> Result<(), TransferError> {
        if !self.leads() {
            return Err(TransferError::NotLeader);
        }
        if target == self.0.settings.member {
            return Ok(());
        }
        if !self.facts().voters.contains(&target) {
            return Err(TransferError::BadTarget);
        }
        let deadline = Instant::now() + limit;
        let term = self.leader_view().term;
        let mut asked = false;
        loop {
            let close = timeout_at(deadline, self.until_close(target)).await;
            close.map_err(|_elapsed| TransferError::TimedOut)?;
            match self.hand_over(target, deadline).await {
                Err(TransferError::TimedOut) if Instant::now() < deadline => asked = true,
                Err(TransferError::NotLeader) if asked => {}
                outcome => return outcome,
            }
            if !self.leads() {
                // The target campaigns, or has; a slow one takes its time.
                return self.until_led_by(target, term, deadline).await;
            }
            // Writes that were held go first.
            tokio::time::sleep(self.0.settings.timing.heartbeat).await;
        }
    }

    /// After leadership of `term` was handed over: waits until `target` is believed in, or another is.
    async fn until_led_by(
        &self,
        target: MemberId,
        term: Term,
        deadline: Instant,
    ) -> Result<(), TransferError> {
        let mut leader = self.leader_changes();
        let led = leader.wait_for(|view| view.term > term && view.leader().is_some());
        match timeout_at(deadline, led).await {
            Ok(Ok(view)) if view.leader() == Some(target) => Ok(()),
            Ok(Ok(_)) | Err(_) => Err(TransferError::TimedOut),
            Ok(Err(_ended)) => Err(TransferError::NotLeader),
        }
    }

    /// Has the voter lead that is closest behind and was heard of last, if there is one.
    pub async fn transfer_to_any(&self, limit: Duration) -> Result<MemberId, TransferError> {
        let target = self.successor().ok_or(TransferError::BadTarget)?;
        self.transfer_leader(target, limit).await.map(|()| target)
    }

    /// This member leads, and may be believed.
    pub fn leads(&self) -> bool {
        self.leader_view().leader() == Some(self.0.settings.member)
    }

    fn successor(&self) -> Option<MemberId> {
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters = metrics.membership_config.membership().voter_ids();
        let others = voters.filter(|id| *id != self.0.settings.member.0);
        let best = others.max_by_key(|id| {
            let silent = heard(&metrics.heartbeat, id);
            let answers = silent.is_some_and(|age| age < self.patience());
            (answers, matched(&metrics.replication, id), std::cmp::Reverse(silent))
        });
        best.map(MemberId)
    }

    /// For how long proposals may be paused, and a target be silent.
    pub(super) fn patience(&self) -> Duration {
        self.0.settings.timing.election_timeout / 2
    }

    async fn until_close(&self, target: MemberId) {
        loop {
            let close = {
                let metrics = self.0.raft.metrics();
                let metrics = metrics.borrow_watched();
                let answers = heard(&metrics.heartbeat, &target.0);
                let matched = matched(&metrics.replication, &target.0).unwrap_or(0);
                let behind = metrics.last_log_index.unwrap_or(0).saturating_sub(matched);
                answers.is_some_and(|age| age < self.patience()) && behind <= CLOSE_ENTRIES
            };
            if close || !self.leads() {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn hand_over(&self, target: MemberId, deadline: Instant) -> Result<(), TransferError> {
        let pause = Pause::begin(&self.0.handing_over)?;
        let until = deadline.min(Instant::now() + self.patience());
        let handed = async {
            self.until_level(target).await?;
            let ask = Ask::Handover { round: pause.round, request: self.request(target) };
            match self.0.peers.ask(target, Purpose::Forward, ask).await {
                Ok(Answer::Handover { taken: true }) => {}
                Ok(_) | Err(_) => return Err(TransferError::TimedOut),
            }
            let mut leader = self.leader_changes();
            let led = leader.wait_for(|view| view.leader() == Some(target)).await;
            led.map(drop).map_err(|_ended| TransferError::NotLeader)
        };
        timeout_at(until, handed).await.unwrap_or(Err(TransferError::TimedOut))
    }

    /// A leader hands over to this member: it campaigns, if that is still wanted.
    pub(super) async fn take_over(
        &self,
        round: u64,
        request: TransferLeaderRequest<super::types::TypeConfig>,
    ) -> Result<bool, PeerError> {
        let leader = MemberId(*request.from_leader().leader_id.node_id());
        let asked = self.0.peers.ask(leader, Purpose::Heartbeat, Ask::HandoverStands(round));
        let stands = tokio::time::timeout(self.patience(), asked).await;
        let Ok(Ok(Answer::Handover { taken: true })) = stands else {
            return Ok(false);
        };
        let taken = self.0.raft.handle_transfer_leader(request).await;
        taken.map(|taken| taken.is_ok()).map_err(|error| PeerError::Raft(error.to_string()))
    }

    /// Waits until the target holds the last entry of this member's log, to which none is added.
    async fn until_level(&self, target: MemberId) -> Result<(), TransferError> {
        // What was handed to raft before the pause is in the log once raft has answered this.
        let settled = self.0.raft.with_raft_state(|_| ()).await;
        settled.map_err(|_stopped| TransferError::NotLeader)?;
        let mut metrics = self.0.raft.metrics();
        loop {
            let level = {
                let metrics = metrics.borrow_and_update();
                if metrics.replication.is_none() {
                    return Err(TransferError::NotLeader);
                }
                matched(&metrics.replication, &target.0) >= metrics.last_log_index
            };
            if level {
                return Ok(());
            }
            metrics.changed().await.map_err(|_ended| TransferError::NotLeader)?;
        }
    }

    fn request(&self, target: MemberId) -> TransferLeaderRequest<super::types::TypeConfig> {
        let vote = self.0.raft.server_metrics().borrow_watched().vote;
        let last = self.0.raft.data_metrics().borrow_watched().last_log;
        TransferLeaderRequest::new(vote, target.0, last)
    }
}

type Heartbeats = std::collections::BTreeMap<
    u64,
    Option<
        openraft::metrics::SerdeInstant<
            openraft::type_config::alias::InstantOf<super::types::TypeConfig>,
        >,
    >,
>;

/// Up to where a member's log is known to be ours; `None` also where this member does not lead.
pub(super) fn matched(
    replication: &Option<std::collections::BTreeMap<u64, Option<RaftLogId>>>,
    id: &u64,
) -> Option<u64> {
    replication.as_ref()?.get(id)?.map(|at| at.index)
}

/// For how long a member has been silent.
pub(super) fn heard(heartbeats: &Option<Heartbeats>, id: &u64) -> Option<Duration> {
    let at = heartbeats.as_ref()?.get(id)?.as_ref()?;
    Some(at.elapsed())
}
