//! How promotions of learners went while this member led, for metrics (etcd `server/etcdserver/metrics.go`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::keyspace::error::MemberRefusal;

/// Counts of promotions that were asked for.
#[derive(Debug, Default)]
pub struct Promotions {
    done: AtomicU64,
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

impl Promotions {
    /// Learners that got a vote.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Refusals, by etcd's word for the reason.
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        self.refused.lock().iter().map(|(reason, count)| (*reason, *count)).collect()
    }

    pub(super) fn count(&self, outcome: Result<(), MemberRefusal>) {
        match outcome {
            Ok(()) => drop(self.done.fetch_add(1, Ordering::Relaxed)),
            Err(refusal) => *self.refused.lock().entry(reason(refusal)).or_default() += 1,
        }
    }
}

/// etcd's own text inside the server, which is not always that on the wire.
fn reason(refusal: MemberRefusal) -> &'static str {
    match refusal {
        MemberRefusal::BadUrls => "etcdserver: given member URLs are invalid",
        MemberRefusal::IdExists => "membership: ID exists",
        MemberRefusal::PeerUrlExists => "membership: peerURL exists",
        MemberRefusal::NotFound => "membership: ID not found",
        MemberRefusal::NotLearner => "membership: can only promote a learner member",
        MemberRefusal::LearnerNotReady => {
            "etcdserver: can only promote a learner member which is in sync with leader"
        }
        MemberRefusal::TooManyLearners => "membership: too many learner members in cluster",
        MemberRefusal::NotEnoughStarted => {
            "etcdserver: re-configuration failed due to not enough started members"
        }
        MemberRefusal::Unhealthy => "etcdserver: unhealthy cluster",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_their_reason() {
        let promotions = Promotions::default();
        promotions.count(Ok(()));
        promotions.count(Err(MemberRefusal::LearnerNotReady));
        promotions.count(Err(MemberRefusal::LearnerNotReady));
        promotions.count(Err(MemberRefusal::NotFound));
        assert_eq!(promotions.done(), 1);
        let mut refused: Vec<u64> =
            promotions.refused().into_iter().map(|(_, count)| count).collect();
        refused.sort_unstable();
        assert_eq!(refused, [1, 2]);
    }
}
