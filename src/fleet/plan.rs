//! What is to be done about the fleet: from what is seen, and since when, to steps with their reasons.
//!
//! ```text
//!   registry  nodes that were let in          in neither ...
//!   raft      members, and who was removed    │
//!             │                               v
//!             └─ seen by one who was elected ──> Planner::plan(seen, now) ──> [step and why]
//!                                                   └─ since when something has been odd: it may be about to be right
//!   authorities  the next step, by what every node reports ──────> [step and why]
//!   certificate  from, until ──> renewal(.., now) ──> keep, or renew and why
//! ```
//!
//! Nothing here acts or asks. Each look starts from what is seen then, so a step that was lost is planned again, and one
//! that was done is not.
//!
//! **Invariant:** unknown is not absent: nobody is given up because whoever looks cannot know how it does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use quorate_core::api::ids::MemberId;

use super::pki::Turn;

/// A node that was let in, whose member was never added, is given up after this: whoever let it in has given up before.
pub const ADDED_WITHIN: Duration = Duration::from_secs(90);

/// A node that was let in and has never answered is given up after this.
pub const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// A member that came another way is entered under its id if it has told no name by then.
pub const NAMED_WITHIN: Duration = Duration::from_secs(10);

/// What is seen of the fleet at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The registry.
    pub nodes: Vec<Listed>,
    /// Raft's membership.
    pub members: Vec<Replica>,
    /// Who was a member once and is none any more.
    pub removed: BTreeSet<MemberId>,
    /// The next step of the fleet's authorities, if it is known; [`Turn::Wait`] is due to be looked at again soon.
    pub authority: Option<Turn>,
}

/// A node of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// `host:port` of its API; empty for a member that came another way than by a token.
    pub address: String,
    /// It passes on what clients ask, and holds nothing.
    pub is_worker: bool,
    /// What its key says it is in raft; `None`: nothing, or nothing that reads.
    pub shown: Option<Standing>,
}

/// A member of raft's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its id.
    pub id: MemberId,
    /// As it told it; empty: it has never run so far as to tell.
    pub name: String,
    /// Its vote.
    pub vote: Vote,
    /// How it does; `None`: whoever looks cannot know.
    pub followed: Option<Following>,
}

/// Whether a member votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    /// It does.
    Held,
    /// It will, as soon as it has caught up: raft's own leader sees to that.
    Promised,
    /// It does not.
    None,
}

/// How a member does, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// It is there, or was since this leader leads.
    pub has_answered: bool,
    /// It may get a vote.
    pub is_in_sync: bool,
}

/// What a node is in raft, as its key says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It votes.
    Voter,
    /// It learns, and will vote.
    StandBy,
    /// It learns, and nothing more.
    Spare,
    /// It was never seen yet.
    Pending,
}

impl Standing {
    /// The word in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Voter => "voter",
            Standing::StandBy => "stand-by",
            Standing::Spare => "spare",
            Standing::Pending => "PENDING",
        }
    }

    /// The standing of a word.
    pub fn of_word(word: &str) -> Option<Standing> {
        let all = [Standing::Voter, Standing::StandBy, Standing::Spare, Standing::Pending];
        all.into_iter().find(|standing| standing.as_str() == word)
    }

    fn of(member: &Replica) -> Standing {
        match (member.vote, member.name.is_empty()) {
            (Vote::Held, _) => Standing::Voter,
            (Vote::Promised | Vote::None, true) => Standing::Pending,
            (Vote::Promised, false) => Standing::StandBy,
            (Vote::None, false) => Standing::Spare,
        }
    }
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Take a node out of the registry.
    Forget(MemberId),
    /// Enter a member into the registry.
    Adopt {
        /// Which.
        id: MemberId,
        /// Under which name.
        name: String,
        /// What it is in raft.
        standing: Standing,
    },
    /// Say in a node's key what it is in raft.
    Show(MemberId, Standing),
    /// Give a member its vote.
    Promote(MemberId),
    /// Take a member out of raft; its node is forgotten after that.
    Expel(MemberId),
    /// Let the authority that was announced sign.
    Succeed,
    /// Let the authority before it go.
    Retire,
}

impl Step {
    /// Whom it is about; `None`: all.
    pub fn id(&self) -> Option<MemberId> {
        match self {
            Step::Forget(id)
            | Step::Adopt { id, .. }
            | Step::Show(id, _)
            | Step::Promote(id)
            | Step::Expel(id) => Some(*id),
            Step::Succeed | Step::Retire => None,
        }
    }
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is no member any more.
    WasRemoved,
    /// It was let in, and its member was never added.
    NeverAdded,
    /// It was let in and added, and has never answered.
    NeverAnswered,
    /// It is a member and not in the registry.
    NotListed,
    /// Its key says something else.
    Differs,
    /// It is in sync.
    InSync,
    /// Every node has reported that it trusts the new authority.
    AllTrust,
    /// Every node has reported that all it shows leads to the new authority.
    AllFollow,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::WasRemoved => "it is no member any more",
            Reason::NeverAdded => "it was let in and never added as a member",
            Reason::NeverAnswered => "it was let in and has never answered",
            Reason::NotListed => "it is a member and not in the registry",
            Reason::Differs => "its record says something else",
            Reason::InSync => "it is in sync",
            Reason::AllTrust => "every node trusts the new authority",
            Reason::AllFollow => "every certificate leads to the new authority",
        })
    }
}

/// A step and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is to be done.
    pub step: Step,
    /// Why.
    pub reason: Reason,
}

/// What may be odd for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Odd {
    Unadded,
    Nameless,
    Silent,
}

/// Plans from one look to the next. It keeps nothing but since when something has been odd without a break; one that is
/// made anew, by the next who is elected, begins to wait anew.
#[derive(Debug, Default)]
pub struct Planner {
    since: BTreeMap<(MemberId, Odd), Duration>,
    /// Nodes are waited for that have not followed the authorities yet.
    is_rotating: bool,
}

impl Planner {
    /// What is to be done; `now` is any clock that only goes forward. What can undo nothing comes first.
    pub fn plan(&mut self, seen: &Seen, now: Duration) -> Vec<Decision> {
        let mut odd = BTreeMap::new();
        let mut steps = Vec::new();
        for node in seen.nodes.iter().filter(|node| !node.is_worker) {
            let member = seen.members.iter().find(|member| member.id == node.id);
            match member {
                None => steps.extend(self.without_member(seen, node, now, &mut odd)),
                Some(member) => self.with_member(node, member, now, &mut odd, &mut steps),
            }
        }
        let listed = |member: &&Replica| seen.nodes.iter().any(|node| node.id == member.id);
        for member in seen.members.iter().filter(|member| !listed(member)) {
            steps.extend(self.unlisted(seen, member, now, &mut odd));
        }
        self.since = odd;
        self.is_rotating = matches!(seen.authority, Some(Turn::Wait(_)));
        steps.extend(seen.authority.as_ref().and_then(of_authority));
        steps.sort_by(|one, other| one.step.cmp(&other.step));
        steps
    }

    /// Something is odd and may become right by itself: another look is due soon.
    pub fn is_waiting(&self) -> bool {
        !self.since.is_empty() || self.is_rotating
    }

    /// Since when it has been odd without a break.
    fn odd_for(
        &self,
        id: MemberId,
        what: Odd,
        now: Duration,
        odd: &mut BTreeMap<(MemberId, Odd), Duration>,
    ) -> Duration {
        let since = self.since.get(&(id, what)).copied().unwrap_or(now);
        odd.insert((id, what), since);
        now.saturating_sub(since)
    }

    fn without_member(
        &self,
        seen: &Seen,
        node: &Listed,
        now: Duration,
        odd: &mut BTreeMap<(MemberId, Odd), Duration>,
    ) -> Option<Decision> {
        let forget = |reason| Some(Decision { step: Step::Forget(node.id), reason });
        if seen.removed.contains(&node.id) {
            return forget(Reason::WasRemoved);
        }
        // It is entered before it is added.
        let waited = self.odd_for(node.id, Odd::Unadded, now, odd);
        if waited < ADDED_WITHIN { None } else { forget(Reason::NeverAdded) }
    }

    fn with_member(
        &self,
        node: &Listed,
        member: &Replica,
        now: Duration,
        odd: &mut BTreeMap<(MemberId, Odd), Duration>,
        steps: &mut Vec<Decision>,
    ) {
        let standing = Standing::of(member);
        if node.shown != Some(standing) {
            let step = Step::Show(node.id, standing);
            steps.push(Decision { step, reason: Reason::Differs });
        }
        let Some(following) = member.followed else {
            return;
        };
        if member.vote == Vote::None && following.is_in_sync && !member.name.is_empty() {
            steps.push(Decision { step: Step::Promote(node.id), reason: Reason::InSync });
        }
        // Who came another way than by a token was asked for by somebody who may start it tomorrow.
        let was_let_in = !node.address.is_empty();
        let is_silent = member.name.is_empty() && !following.has_answered;
        if was_let_in && is_silent && member.vote != Vote::Held {
            let waited = self.odd_for(node.id, Odd::Silent, now, odd);
            if waited >= ANSWERS_WITHIN {
                let step = Step::Expel(node.id);
                steps.push(Decision { step, reason: Reason::NeverAnswered });
            }
        }
    }

    fn unlisted(
        &self,
        seen: &Seen,
        member: &Replica,
        now: Duration,
        odd: &mut BTreeMap<(MemberId, Odd), Duration>,
    ) -> Option<Decision> {
        let is_taken = |name: &str| seen.nodes.iter().any(|node| node.name == name);
        let name = if member.name.is_empty() {
            let waited = self.odd_for(member.id, Odd::Nameless, now, odd);
            if waited < NAMED_WITHIN {
                return None;
            }
            member.id.to_string()
        } else if is_taken(&member.name) {
            member.id.to_string()
        } else {
            member.name.clone()
        };
        let (id, standing) = (member.id, Standing::of(member));
        Some(Decision { step: Step::Adopt { id, name, standing }, reason: Reason::NotListed })
    }
}

fn of_authority(turn: &Turn) -> Option<Decision> {
    match turn {
        Turn::Rest | Turn::Wait(_) => None,
        Turn::Promote => Some(Decision { step: Step::Succeed, reason: Reason::AllTrust }),
        Turn::Retire => Some(Decision { step: Step::Retire, reason: Reason::AllFollow }),
    }
}

/// What is to be done about a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It is good until it is to be looked at again, in seconds since 1970.
    Keep {
        /// When a third of its time will be left.
        until: i64,
    },
    /// Less than a third of its time is left, or none.
    Renew,
}

/// Whether a certificate that is good from `not_before` until `not_after` is to be made anew `now`; all in seconds since
/// 1970. One that is not good yet is kept: clocks differ.
pub fn renewal(not_before: i64, not_after: i64, now: i64) -> Renewal {
    let third = not_after.saturating_sub(not_before).max(0) / 3;
    let until = not_after.saturating_sub(third);
    if now < until { Renewal::Keep { until } } else { Renewal::Renew }
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod tests;
