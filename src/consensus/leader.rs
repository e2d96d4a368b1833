//! Who leads, as far as this member may say so.
//!
//! openraft's `current_leader` is a stored vote: a survivor of a lost quorum would name a dead leader for ever. A
//! view is therefore *fresh* only while an append was accepted, or a quorum acknowledged this leader, within the
//! election timeout; whoever asks for a leader gets none from a view that is not.

use std::time::Duration;

use openraft::Instant as _;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use parking_lot::Mutex;
use quorate_core::api::ids::{MemberId, Term};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Raft;

/// Who leads, and whether that may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderView {
    /// The leader of `term` as voted; believe it only while `fresh`.
    pub leader: Option<MemberId>,
    /// The term of the vote.
    pub term: Term,
    /// The leader was heard of within the election timeout.
    pub fresh: bool,
    /// When this member first saw this leader in this term.
    pub since: Option<Instant>,
}

impl LeaderView {
    /// The leader, if it may be believed.
    pub fn leader(&self) -> Option<MemberId> {
        self.leader.filter(|_| self.fresh)
    }
}

/// When an append of the present leader was last accepted by this member.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<Option<Instant>>);

impl Heard {
    pub(crate) fn now(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    fn within(&self, limit: Duration) -> bool {
        self.0.lock().is_some_and(|at| at.elapsed() < limit)
    }
}

/// Keeps `publish` true until raft stops, and returns why it did.
pub(crate) async fn watch_leader(
    raft: &Raft,
    heard: &Heard,
    election_timeout: Duration,
    publish: &watch::Sender<LeaderView>,
) -> String {
    let mut server = raft.server_metrics();
    loop {
        let next = view(raft, heard, election_timeout, &publish.borrow());
        publish.send_if_modified(|now| {
            let changed = *now != next;
            *now = next;
            changed
        });
        match tokio::time::timeout(election_timeout / 4, server.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_closed)) => break,
        }
    }
    publish.send_modify(|view| view.fresh = false);
    match &raft.metrics().borrow_watched().running_state {
        Ok(()) => "raft ended".to_owned(),
        Err(fatal) => fatal.to_string(),
    }
}

fn view(raft: &Raft, heard: &Heard, limit: Duration, last: &LeaderView) -> LeaderView {
    let server = raft.server_metrics().borrow_watched().clone();
    let leader = server.current_leader.map(MemberId);
    let term = Term(server.vote.leader_id.term);
    let fresh = leader.is_some()
        && match server.state {
            ServerState::Leader => {
                let mut voters = server.membership_config.voter_ids();
                let alone = voters.next() == Some(server.id) && voters.next().is_none();
                alone || acknowledged(raft, limit)
            }
            ServerState::Follower | ServerState::Learner => heard.within(limit),
            ServerState::Candidate | ServerState::Shutdown => false,
        };
    let same = last.leader == leader && last.term == term;
    let since = if same { last.since } else { None };
    LeaderView { leader, term, fresh, since: since.or_else(|| leader.map(|_| Instant::now())) }
}

fn acknowledged(raft: &Raft, limit: Duration) -> bool {
    let data = raft.data_metrics();
    let data = data.borrow_watched();
    data.last_quorum_acked.as_ref().is_some_and(|at| at.elapsed() < limit)
}
