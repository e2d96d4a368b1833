//! Letting the log behind a base go, as far as nobody needs it.
//!
//! ```text
//!   AppliedSink::snapshots ──a new base──> raft: trigger snapshot      (O(1): it learns the label)
//!                                          raft: trigger purge, up to
//!      base − catch-up stretch,  a live follower's matched index,  a state in flight     ... within a budget
//! ```
//!
//! openraft does the purge, so that it knows what is gone and brings a member that needs it up by a whole state; it
//! holds back while appends from below are under way. Where the budget is used up, those are broken off ([`Floor`]).
//!
//! **Invariant:** nothing above the base goes; what the journal's own cap or a short disk asks for goes whoever needs
//! it; and a member alone keeps nothing for others.

mod sizes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;

pub(crate) use self::sizes::Sizes;
use super::Raft;
use super::snapshots::Outgoing;
use super::transfer::{heard, matched};
use super::types::AppliedSink;
use crate::storage::journal::GroupLog;

/// Between two looks while something holds the log back.
const LOOK: Duration = Duration::from_secs(1);

/// How much log is kept behind a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurgeLimits {
    /// Requests, for members that are a little behind (etcd: `--snapshot-catchup-entries`) ...
    pub catch_up_requests: u64,
    /// ... of no more bytes than this.
    pub catch_up_bytes: u64,
    /// Bytes that are kept for members which answer, and while a whole state is on its way to one.
    pub held_bytes: u64,
    /// A member that was not heard of for so long is not waited for.
    pub answered_within: Duration,
    /// Nor is a whole state that has been on its way for longer.
    pub sent_within: Duration,
}

impl Default for PurgeLimits {
    fn default() -> Self {
        PurgeLimits {
            catch_up_requests: 5000,
            catch_up_bytes: 64 << 20,
            held_bytes: 512 << 20,
            answered_within: Duration::from_secs(10),
            sent_within: Duration::from_secs(600),
        }
    }
}

/// The first index after which the log can still be sent, as the senders of appends see it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Floor(Arc<AtomicU64>);

impl Floor {
    fn raise(&self, index: u64) {
        self.0.fetch_max(index, Ordering::AcqRel);
    }

    /// Whether what follows entry `prev` is gone or about to go.
    pub(crate) fn is_above(&self, prev: Option<u64>) -> bool {
        let floor = self.0.load(Ordering::Acquire);
        floor > 0 && prev.is_none_or(|prev| prev < floor)
    }
}

/// A member that may need the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Follower {
    matched: Option<u64>,
    /// `None`: it never answered this leader.
    silent: Option<Duration>,
}

/// What is decided by.
#[derive(Clone, Debug, Default)]
struct Situation {
    base: u64,
    purged: u64,
    /// The journal is above its cap and this group is in its way, or the disk is short.
    pressed: bool,
    /// There is no other member.
    alone: bool,
    followers: Vec<Follower>,
    /// States on their way: log index, and since when.
    sent: Vec<(u64, Duration)>,
}

/// Up to where the log may go now.
fn decide(situation: &Situation, sizes: &Sizes, limits: &PurgeLimits) -> u64 {
    let Situation { base, purged, .. } = *situation;
    if situation.pressed || situation.alone {
        return base;
    }
    let behind = sizes.back_from(base, limits.catch_up_requests, limits.catch_up_bytes);
    let wanted = behind.max(purged);
    let answers = situation
        .followers
        .iter()
        .filter(|follower| follower.silent.is_some_and(|silent| silent < limits.answered_within));
    let needed = answers.map(|follower| follower.matched.unwrap_or(0));
    let sent = situation.sent.iter().filter(|(_, age)| *age < limits.sent_within);
    let held = needed.chain(sent.map(|(index, _)| *index));
    let held = held.filter(|index| sizes.bytes_after(*index) <= limits.held_bytes).min();
    held.map_or(wanted, |held| wanted.min(held.max(purged)))
}

/// The task that follows the bases.
pub(crate) struct Purger {
    pub(crate) raft: Raft,
    pub(crate) log: GroupLog,
    pub(crate) sink: Arc<dyn AppliedSink>,
    pub(crate) outgoing: Arc<Outgoing>,
    pub(crate) sizes: Arc<Sizes>,
    pub(crate) floor: Floor,
    pub(crate) limits: PurgeLimits,
}

impl Purger {
    /// Until raft ends.
    pub(crate) async fn run(self) {
        let mut bases = self.sink.snapshots();
        // A sink without bases tells of none, and has dropped the other end.
        let mut more = true;
        loop {
            let base = *bases.borrow_and_update();
            let open = match base {
                Some(base) => match self.look(base.index).await {
                    Some(open) => open,
                    None => return,
                },
                None => false,
            };
            if !open && !more {
                return;
            }
            tokio::select! {
                changed = bases.changed(), if more => more = changed.is_ok(),
                () = tokio::time::sleep(LOOK), if open => {}
            }
        }
    }

    /// One look; tells whether something is left to be let go. `None` once raft has ended.
    async fn look(&self, base: u64) -> Option<bool> {
        let known = self.raft.metrics().borrow_watched().snapshot.map_or(0, |at| at.index);
        if known < base {
            self.raft.trigger().snapshot().await.ok()?;
        }
        let situation = self.situation(base);
        // What raft does not know to be in a base yet, it would not let go: the next look.
        let now = decide(&situation, &self.sizes, &self.limits).min(known);
        if now > situation.purged {
            tracing::debug!(upto = now, base, purged = situation.purged, "letting the log go");
            self.floor.raise(now);
            self.outgoing.let_go(now);
            self.raft.trigger().purge_log(now).await.ok()?;
            self.sizes.purged(now);
        }
        // What is kept now may have to go all the same, once the disk is short.
        Some(base > situation.purged || known < base)
    }

    fn situation(&self, base: u64) -> Situation {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let others = metrics.replication.iter().flatten().map(|(id, _)| *id);
        let others = others.filter(|id| *id != metrics.id);
        let follower = |id| Follower {
            matched: matched(&metrics.replication, &id),
            silent: heard(&metrics.heartbeat, &id),
        };
        let sent = self.outgoing.held();
        Situation {
            base,
            purged: self.log.state().purged.map_or(0, |purged| purged.index),
            pressed: self.log.pins_oldest() || self.sink.lacks_room(),
            alone: metrics.membership_config.membership().nodes().count() < 2,
            followers: others.map(follower).collect(),
            sent: sent.iter().map(|held| (held.index, held.since.elapsed())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A thousand entries of ten requests and ten kilobytes each.
    fn sizes() -> Sizes {
        let sizes = Sizes::default();
        for index in 1..=1000 {
            sizes.applied(index, 10_000, 10);
        }
        sizes
    }

    fn limits() -> PurgeLimits {
        PurgeLimits {
            catch_up_requests: 1000,
            catch_up_bytes: 100_000_000,
            held_bytes: 5_000_000,
            ..PurgeLimits::default()
        }
    }

    fn lives(matched: u64) -> Follower {
        Follower { matched: Some(matched), silent: Some(SECOND / 10) }
    }

    #[test]
    fn how_far_the_log_may_go() {
        let situation = Situation { base: 800, purged: 100, ..Situation::default() };
        let silent = |matched| Follower { silent: Some(60 * SECOND), ..lives(matched) };
        let never = Follower { matched: None, silent: None };
        let table = [
            ("nobody else", situation.clone(), 700),
            (
                "all level",
                Situation { followers: vec![lives(990), lives(1000)], ..situation.clone() },
                700,
            ),
            (
                "one a little behind",
                Situation { followers: vec![lives(650), lives(1000)], ..situation.clone() },
                650,
            ),
            (
                "one over the budget",
                Situation { followers: vec![lives(300), lives(1000)], ..situation.clone() },
                700,
            ),
            (
                "over the budget, and another within",
                Situation { followers: vec![lives(300), lives(600)], ..situation.clone() },
                600,
            ),
            (
                "one is silent",
                Situation { followers: vec![silent(650), lives(1000)], ..situation.clone() },
                700,
            ),
            (
                "one never answered",
                Situation { followers: vec![never, lives(1000)], ..situation.clone() },
                700,
            ),
            (
                "a state is on its way",
                Situation {
                    sent: vec![(640, SECOND)],
                    followers: vec![silent(50)],
                    ..situation.clone()
                },
                640,
            ),
            (
                "it takes too long",
                Situation { sent: vec![(640, 601 * SECOND)], ..situation.clone() },
                700,
            ),
            (
                "it is over the budget",
                Situation { sent: vec![(400, SECOND)], ..situation.clone() },
                700,
            ),
            (
                "the journal is over its cap",
                Situation { pressed: true, followers: vec![lives(650)], ..situation.clone() },
                800,
            ),
            ("alone", Situation { alone: true, ..situation.clone() }, 800),
            (
                "more is gone already",
                Situation { purged: 750, followers: vec![lives(650)], ..situation.clone() },
                750,
            ),
        ];
        for (name, situation, upto) in table {
            let now = decide(&situation, &sizes(), &limits());
            assert!(now.abs_diff(upto) <= 1, "{name}: {now} instead of {upto}");
            assert!(now <= situation.base, "{name}: past the base");
        }
    }

    #[test]
    fn bytes_bound_the_catch_up_stretch_too() {
        let situation = Situation { base: 800, purged: 100, ..Situation::default() };
        let few = PurgeLimits { catch_up_bytes: 200_000, ..limits() };
        let now = decide(&situation, &sizes(), &few);
        assert!((780..=800).contains(&now), "{now}");
    }

    #[test]
    fn appends_from_below_the_floor_are_told_from_those_above() {
        let floor = Floor::default();
        assert!(!floor.is_above(None));
        floor.raise(10);
        floor.raise(5);
        assert!(floor.is_above(None) && floor.is_above(Some(9)));
        assert!(!floor.is_above(Some(10)) && !floor.is_above(Some(11)));
    }
}
