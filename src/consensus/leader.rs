//! Who leads, as far as this member may say so.
//!
//! openraft's `current_leader` is a stored vote: a survivor of a lost quorum would name a dead leader for ever. A
//! view is therefore *fresh* only while the leader's append was answered, or a quorum acknowledged this leader, within
//! the election timeout; whoever asks for a leader gets none from a view that is not.
//!
//! **Invariant:** a leader that went silent is not named for longer than one election timeout after it was last heard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::Instant as _;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use parking_lot::Mutex;
use quorate_core::api::ids::{MemberId, Term};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::silence::Silence;
use super::types::Proposal;
use super::{Raft, convert};

/// Who leads, and whether that may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderView {
    /// The leader of `term` as voted; believe it only while `fresh`.
    pub leader: Option<MemberId>,
    /// The term of the vote.
    pub term: Term,
    /// The leader was heard of within the election timeout.
    pub fresh: bool,
    /// When this member found this leader, or found it again after it had been silent for an election timeout.
    pub since: Option<Instant>,
}

impl LeaderView {
    /// The leader, if it may be believed.
    pub fn leader(&self) -> Option<MemberId> {
        self.leader.filter(|_| self.fresh)
    }
}

/// When an append of the present leader last reached this member.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    at: Mutex<Option<Instant>>,
    /// Nobody is named at present: the first append is news.
    awaited: AtomicBool,
    bell: Notify,
}

impl Heard {
    pub(crate) fn now(&self) {
        *self.at.lock() = Some(Instant::now());
        if self.awaited.swap(false, Ordering::Relaxed) {
            self.bell.notify_one();
        }
    }

    fn at(&self) -> Option<Instant> {
        *self.at.lock()
    }
}

/// When each member last answered this one, whatever it had been asked and however long ago.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    at: Mutex<BTreeMap<u64, Instant>>,
    awaited: AtomicBool,
    bell: Notify,
}

impl Answered {
    pub(crate) fn now(&self, member: MemberId) {
        self.at.lock().insert(member.0, Instant::now());
        if self.awaited.load(Ordering::Relaxed) {
            self.bell.notify_one();
        }
    }

    /// Enough members for a quorum with `own` are there now, in each of the configs in force.
    fn by_quorum(&self, own: u64, configs: &[BTreeSet<u64>], within: Duration) -> bool {
        let at = self.at.lock();
        let there = |id: &&u64| **id == own || at.get(*id).is_some_and(|at| at.elapsed() < within);
        let quorum =
            |voters: &BTreeSet<u64>| 2 * voters.iter().filter(there).count() > voters.len();
        !configs.is_empty() && configs.iter().all(quorum)
    }
}

/// Keeps `publish` true until raft stops, and returns why it did.
pub(crate) async fn watch_leader(
    member: MemberId,
    raft: &Raft,
    (heard, answered, silence): (&Heard, &Answered, &Silence),
    election_timeout: Duration,
    publish: &watch::Sender<LeaderView>,
) -> String {
    let mut server = raft.server_metrics();
    let mut data = raft.data_metrics();
    let mut asked = false;
    loop {
        // Before the look: what is heard after it rings.
        heard.awaited.store(true, Ordering::Relaxed);
        let (next, silent_at) = view(raft, heard, election_timeout, &publish.borrow());
        tell(member, &publish.borrow(), &next);
        if next.leader == Some(member) {
            silence.leads(next.term);
        }
        publish.send_if_modified(|now| {
            let changed = *now != next;
            *now = next;
            changed
        });
        let stale = silent_at.is_none();
        let doubts = stale && next.leader == Some(member);
        answered.awaited.store(doubts && !asked, Ordering::Relaxed);
        asked = doubts && (asked || ask_again(raft, answered, election_timeout).await);
        // A fresh view changes with the vote, or by going stale; a stale one also by whatever is heard.
        let look = silent_at.unwrap_or_else(|| Instant::now() + election_timeout);
        tokio::select! {
            changed = server.changed() => {
                if changed.is_err() {
                    break;
                }
            }
            _ = data.changed(), if stale => {}
            () = heard.bell.notified(), if stale => {}
            () = answered.bell.notified(), if doubts && !asked => {}
            () = tokio::time::sleep_until(look) => {}
        }
    }
    publish.send_modify(|view| view.fresh = false);
    match &raft.metrics().borrow_watched().running_state {
        Ok(()) => "raft ended".to_owned(),
        Err(fatal) => fatal.to_string(),
    }
}

/// A leader whose process stood still has lost its quorum by the clock, and raft then is silent for two election
/// timeouts so that others may campaign. But what it had not sent when it stopped reached them when it went on, and
/// holds their campaigns back as long. If a quorum is seen to be there, an entry of no effect finds out at once whether
/// it still follows. Whether it was asked: once, until leadership is sure again, so that a leader which hears nobody
/// holds nobody back.
async fn ask_again(raft: &Raft, answered: &Answered, election_timeout: Duration) -> bool {
    let (own, configs) = {
        let server = raft.server_metrics();
        let server = server.borrow_watched();
        (server.id, server.membership_config.membership().get_joint_config().clone())
    };
    if !answered.by_quorum(own, &configs, election_timeout / 4) {
        return false;
    }
    // Its fate is seen by what it is for.
    drop(raft.client_write_ff(Proposal(convert::blank()), None).await);
    true
}

/// Logs what changed, in the words of etcd's raft (raft.go and node.go of go.etcd.io/raft): who reads logs looks for them.
fn tell(member: MemberId, last: &LeaderView, next: &LeaderView) {
    let term = next.term;
    if next.leader == Some(member) && (last.leader, last.term) != (next.leader, term) {
        tracing::info!("{member} became leader at term {term}");
    }
    match (last.leader(), next.leader()) {
        (None, Some(leader)) => {
            tracing::info!("raft.node: {member} elected leader {leader} at term {term}");
        }
        (Some(lost), None) => {
            tracing::info!("raft.node: {member} lost leader {lost} at term {term}");
        }
        (Some(from), Some(to)) if from != to || last.term != term => {
            tracing::info!("raft.node: {member} changed leader from {from} to {to} at term {term}");
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
}

/// The view, and when it goes stale if nothing is heard until then.
fn view(
    raft: &Raft,
    heard: &Heard,
    limit: Duration,
    last: &LeaderView,
) -> (LeaderView, Option<Instant>) {
    let server = raft.server_metrics().borrow_watched().clone();
    let leader = server.current_leader.map(MemberId);
    let term = Term(server.vote.leader_id.term);
    let now = Instant::now();
    let heard_at = leader.and_then(|_| match server.state {
        ServerState::Leader => {
            let mut voters = server.membership_config.voter_ids();
            let alone = voters.next() == Some(server.id) && voters.next().is_none();
            if alone { Some(now) } else { acknowledged(raft) }
        }
        ServerState::Follower | ServerState::Learner => heard.at(),
        ServerState::Candidate | ServerState::Shutdown => None,
    });
    let silent_at = heard_at.map(|at| at + limit).filter(|at| *at > now);
    let fresh = silent_at.is_some();
    let same = last.leader == leader && last.term == term && (last.fresh || !fresh);
    let since = if same { last.since } else { None };
    let view = LeaderView { leader, term, fresh, since: since.or_else(|| leader.map(|_| now)) };
    (view, silent_at)
}

fn acknowledged(raft: &Raft) -> Option<Instant> {
    let data = raft.data_metrics();
    let data = data.borrow_watched();
    data.last_quorum_acked.as_ref().map(|at| Instant::now() - at.elapsed())
}
