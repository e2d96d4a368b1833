//! When whoever led before can have promised anything last: what a new leader asks the other voters.
//!
//! ```text
//!   a term begins ── HeardBefore(term) ──> every other voter: silent for so long
//!     a quorum has told, with this member in it ── the latest of their moments ──> Lessor::last_heard
//! ```
//!
//! Whoever led before has asked a quorum before each promise, and one of that quorum is among those who are asked here.
//! A voter tells only once its vote is of this term: it has answered its last append of an earlier one.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use quorate_core::api::ids::{MemberId, Term};
use quorate_core::api::pb::internal::keyspace_request::Ask;
use quorate_core::api::pb::internal::keyspace_response::Answer;
use tokio::time::{Instant, sleep, timeout};

use crate::consensus::Consensus;
use crate::keyspace::peers::ask_member;

/// Between two tries to have a voter tell.
const RETRY: Duration = Duration::from_millis(100);

/// Who has not told by then is of an earlier version.
const ASKED_FOR: Duration = Duration::from_secs(30);

/// The moment after which no leader of an earlier term can have begun a promise; `None` if no quorum tells it.
pub(in crate::keyspace) async fn last_promise(
    consensus: &Consensus,
    own: MemberId,
    term: Term,
) -> Option<Instant> {
    let mut last = consensus.heard_before(term)?;
    let configs = consensus.voter_sets();
    let voters: BTreeSet<MemberId> = configs.iter().flatten().copied().collect();
    let others = voters.into_iter().filter(|id| *id != own);
    let mut told = BTreeSet::from([own]);
    let mut asked: FuturesUnordered<_> =
        others.map(|id| async move { (id, ask(consensus, id, term).await) }).collect();
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

async fn ask(consensus: &Consensus, id: MemberId, term: Term) -> Instant {
    loop {
        match ask_member(consensus, id, Ask::HeardBefore(term.0)).await {
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
    configs.iter().all(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_one_of_each_config_in_force() {
        let set = |ids: &[u64]| ids.iter().copied().map(MemberId).collect::<BTreeSet<_>>();
        assert!(is_quorum(&set(&[1]), &[set(&[1])]));
        assert!(!is_quorum(&set(&[1]), &[set(&[1, 2])]));
        assert!(is_quorum(&set(&[1, 3]), &[set(&[1, 2, 3])]));
        assert!(!is_quorum(&set(&[1, 2]), &[set(&[1, 2, 3]), set(&[1, 3, 4])]));
    }
}
