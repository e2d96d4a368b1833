//! When whoever led before can have promised anything last: what a new leader asks the other voters.
//!
//! ```text
//!   a term begins ── HeardBefore(term) ──> every other voter: silent for so long
//!     a quorum has told, with this member in it ── the latest of their moments ──> Lessor::last_heard
//! ```
//!
//! Whoever led before has asked a quorum before each promise, and one of that quorum is among those who are asked here,
//! or has heard a leader in between. A voter tells only once its vote is of this term: it has answered its last append
//! of an earlier one.
//!
//! **Invariant:** those are asked who had a vote when the term began; if the term's leader has changed who has one
//! before it asked, it asks nobody.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use quorate_core::api::ids::{MemberId, Term};
use quorate_core::api::pb::internal::Blank;
use quorate_core::api::pb::internal::keyspace_request::Ask;
use quorate_core::api::pb::internal::keyspace_response::Answer;
use tokio::time::{Instant, sleep, timeout};

use crate::consensus::Consensus;
use crate::keyspace::peers::ask_member;

/// Between two tries to have a voter tell.
const RETRY: Duration = Duration::from_millis(100);

/// Who has not told by then is of an earlier version.
const ASKED_FOR: Duration = Duration::from_secs(30);

/// The group, as far as its members tell of leaders before.
pub(in crate::keyspace) trait Witnesses: Sync {
    /// When this member last heard a leader of a term before `term`, if its vote is of that.
    fn heard_before(&self, term: Term) -> Option<Instant>;

    /// The voters of each config that was in force when `term` began, while no other is.
    fn voters_before(&self, term: Term) -> Option<Vec<BTreeSet<MemberId>>>;

    /// Asks another member once.
    fn ask(&self, id: MemberId, ask: Ask) -> impl Future<Output = Answer> + Send;
}

impl Witnesses for Consensus {
    fn heard_before(&self, term: Term) -> Option<Instant> {
        Consensus::heard_before(self, term)
    }

    fn voters_before(&self, term: Term) -> Option<Vec<BTreeSet<MemberId>>> {
        Consensus::voters_before(self, term)
    }

    fn ask(&self, id: MemberId, ask: Ask) -> impl Future<Output = Answer> + Send {
        ask_member(self, id, ask)
    }
}

/// What a member answers that heard an earlier leader `at`.
pub(in crate::keyspace) fn tell(at: Option<Instant>) -> Answer {
    let silent = |at: Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(0);
    at.map_or(Answer::Failed(Blank {}), |at| Answer::SilentForMs(silent(at)))
}

/// The moment after which no leader of an earlier term can have begun a promise; `None` if no quorum tells it.
pub(in crate::keyspace) async fn last_promise(
    group: &impl Witnesses,
    own: MemberId,
    term: Term,
) -> Option<Instant> {
    let mut last = group.heard_before(term)?;
    let configs = group.voters_before(term)?;
    let voters: BTreeSet<MemberId> = configs.iter().flatten().copied().collect();
    let others = voters.into_iter().filter(|id| *id != own);
    let mut told = BTreeSet::from([own]);
    let mut asked: FuturesUnordered<_> =
        others.map(|id| async move { (id, ask(group, id, term).await) }).collect();
    let gathered = async {
        while !is_quorum(&told, &configs) {
            let (id, at) = asked.next().await?;
            told.insert(id);
            last = last.max(at);
        }
        Some(last)
    };
    timeout(ASKED_FOR, gathered).await.ok().flatten()
}

async fn ask(group: &impl Witnesses, id: MemberId, term: Term) -> Instant {
    loop {
        match group.ask(id, Ask::HeardBefore(term.0)).await {
            // It was told before now.
            Answer::SilentForMs(silent) => {
                let now = Instant::now();
                return now.checked_sub(Duration::from_millis(silent)).unwrap_or(now);
            }
            // It does not know of the term yet, or it is of an earlier version.
            Answer::Failed(_)
            | Answer::NotLeader(_)
            | Answer::LeaseRenewed(_)
            | Answer::LeaseTimeToLive(_)
            | Answer::MemberChanged(_)
            | Answer::HashKv(_)
            | Answer::Compacted(_)
            | Answer::FutureRevision(_)
            | Answer::Pending(_)
            | Answer::KnownLevel(_) => sleep(RETRY).await,
        }
    }
}

fn is_quorum(told: &BTreeSet<MemberId>, configs: &[BTreeSet<MemberId>]) -> bool {
    let has = |voters: &BTreeSet<MemberId>| 2 * voters.intersection(told).count() > voters.len();
    !configs.is_empty() && configs.iter().all(has)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// Members that answer after so long what they knew when they were asked; `None`: of an earlier version.
    struct Group {
        own: Option<Instant>,
        configs: Option<Vec<BTreeSet<MemberId>>>,
        others: Vec<(u64, Option<Instant>, Duration)>,
    }

    impl Witnesses for Group {
        fn heard_before(&self, _term: Term) -> Option<Instant> {
            self.own
        }

        fn voters_before(&self, _term: Term) -> Option<Vec<BTreeSet<MemberId>>> {
            self.configs.clone()
        }

        async fn ask(&self, id: MemberId, ask: Ask) -> Answer {
            assert_eq!(ask, Ask::HeardBefore(7));
            let (_, at, takes) =
                *self.others.iter().find(|(other, ..)| *other == id.0).expect("it is asked once");
            let answer = tell(at);
            sleep(takes).await;
            answer
        }
    }

    fn set(ids: &[u64]) -> BTreeSet<MemberId> {
        ids.iter().copied().map(MemberId).collect()
    }

    async fn last(group: &Group) -> Option<Instant> {
        last_promise(group, MemberId(1), Term(7)).await
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_quorum_is_one_of_each_config_in_force() {
        assert!(is_quorum(&set(&[1]), &[set(&[1])]));
        assert!(!is_quorum(&set(&[1]), &[set(&[1, 2])]));
        assert!(is_quorum(&set(&[1, 3]), &[set(&[1, 2, 3])]));
        assert!(!is_quorum(&set(&[1, 2]), &[set(&[1, 2, 3]), set(&[1, 3, 4])]));
        assert!(!is_quorum(&set(&[1]), &[]), "nobody is no quorum");
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_moment_of_a_quorum_counts_and_never_one_before_it() {
        let began = Instant::now();
        advance(9 * SECOND).await;
        let heard = Instant::now();
        advance(3 * SECOND).await;
        let mut group = Group {
            own: Some(began),
            configs: Some(vec![set(&[1, 2, 3])]),
            others: vec![(2, Some(heard), 2 * SECOND), (3, None, SECOND)],
        };
        // The answer was two seconds on its way: so much later, and not earlier.
        assert_eq!(last(&group).await, Some(heard + 2 * SECOND));
        group.own = Some(heard + 5 * SECOND);
        assert_eq!(last(&group).await, Some(heard + 5 * SECOND), "its own is among them");
        group.configs = Some(vec![set(&[1, 2, 3]), set(&[1, 3])]);
        assert_eq!(last(&group).await, None, "of the other config only this member tells");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_told_by_too_few_nor_once_the_voters_are_others() {
        let own = Some(Instant::now());
        let others = vec![(2, None, SECOND), (3, None, SECOND)];
        let mut group = Group { own, configs: Some(vec![set(&[1, 2, 3])]), others };
        assert_eq!(last(&group).await, None, "the others are of an earlier version");
        group.others = vec![(2, own, SECOND), (3, own, SECOND)];
        assert!(last(&group).await.is_some());
        group.configs = None;
        assert_eq!(last(&group).await, None, "the leader has made another config");
        group.configs = Some(vec![set(&[1, 2, 3])]);
        group.own = None;
        assert_eq!(last(&group).await, None, "another leads by now");
    }
}
