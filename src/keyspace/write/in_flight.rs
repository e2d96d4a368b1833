//! Batches that were proposed and whose waiters are still owed an answer.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use quorate_core::api::refusal::{Corrupt, Refusal};
use quorate_core::api::reply::Reply;
use tokio::sync::watch;

use super::Waiter;
use crate::keyspace::error::{KeyspaceError, TimeoutKind};

/// Waiters by the sequence number of their batch. Bounded by the batches in flight.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    batches: Mutex<BTreeMap<u64, Vec<Waiter>>>,
    /// The highest sequence number of this process that was applied here.
    applied: watch::Sender<u64>,
}

impl InFlight {
    pub(crate) fn insert(&self, seq: u64, waiters: Vec<Waiter>) {
        self.batches.lock().insert(seq, waiters);
    }

    /// The highest sequence number applied here, and to be told of it. Lower ones have been applied or never will be.
    pub(crate) fn progress(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Nobody waits for batch `seq` any more.
    pub(super) fn is_given_up(&self, seq: u64) -> bool {
        let batches = self.batches.lock();
        batches.get(&seq).is_none_or(|waiters| waiters.iter().all(Waiter::is_closed))
    }

    /// Batch `seq` of this process was applied: answers its waiters, and those of earlier batches, which can no
    /// longer be (the state machine skips a sequence number that is not greater than the last).
    pub(crate) fn applied(&self, seq: u64, replies: Vec<Result<Reply, Refusal>>) {
        let (waiters, lost) = {
            let mut batches = self.batches.lock();
            let later = batches.split_off(&(seq + 1));
            let waiters = batches.remove(&seq);
            (waiters, std::mem::replace(&mut *batches, later))
        };
        self.applied.send_replace(seq);
        let lost_to = KeyspaceError::Timeout(TimeoutKind::LeaderFailure);
        answer_all(lost.into_values().flatten(), &lost_to);
        let Some(waiters) = waiters else {
            return;
        };
        if waiters.len() != replies.len() {
            let counts = format!("{} replies to {} requests", replies.len(), waiters.len());
            answer_all(waiters, &KeyspaceError::Corrupt(Corrupt::Invariant(counts)));
            return;
        }
        for (waiter, reply) in waiters.into_iter().zip(replies) {
            // Nobody is owed an answer any more when the receiver is gone.
            drop(waiter.send(reply.map_err(KeyspaceError::Refused)));
        }
    }

    /// An installed state holds all batches of this process up to `seq` that were ever applied: whether theirs was,
    /// and what it was answered with, the waiters will not hear.
    pub(crate) fn covered(&self, seq: u64) {
        let unknown = {
            let mut batches = self.batches.lock();
            let later = batches.split_off(&(seq + 1));
            std::mem::replace(&mut *batches, later)
        };
        self.applied.send_if_modified(|applied| {
            let more = *applied < seq;
            *applied = seq.max(*applied);
            more
        });
        let error = KeyspaceError::Timeout(TimeoutKind::LeaderFailure);
        answer_all(unknown.into_values().flatten(), &error);
    }

    /// Batch `seq` was lost.
    pub(super) fn fail(&self, seq: u64, error: &KeyspaceError) {
        let waiters = self.batches.lock().remove(&seq);
        answer_all(waiters.into_iter().flatten(), error);
    }

    /// All of them are lost.
    pub(super) fn fail_all(&self, error: &KeyspaceError) {
        let batches = std::mem::take(&mut *self.batches.lock());
        answer_all(batches.into_values().flatten(), error);
    }
}

fn answer_all(waiters: impl IntoIterator<Item = Waiter>, error: &KeyspaceError) {
    for waiter in waiters {
        drop(waiter.send(Err(error.clone())));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn waiting(in_flight: &InFlight, seq: u64) -> oneshot::Receiver<super::super::Outcome> {
        let (tell, told) = oneshot::channel();
        in_flight.insert(seq, vec![tell]);
        told
    }

    #[test]
    fn an_applied_batch_answers_those_below_it_as_lost() {
        let in_flight = InFlight::default();
        let mut told: Vec<_> = (1..=3).map(|seq| waiting(&in_flight, seq)).collect();

        in_flight.applied(2, vec![Ok(Reply::Done)]);

        let lost = KeyspaceError::Timeout(TimeoutKind::LeaderFailure);
        assert_eq!(told[0].try_recv().unwrap(), Err(lost));
        assert_eq!(told[1].try_recv().unwrap(), Ok(Reply::Done));
        assert!(told[2].try_recv().is_err(), "the third still waits");
    }

    #[test]
    fn replies_that_do_not_match_their_requests_are_never_handed_out() {
        let in_flight = InFlight::default();
        let mut told = waiting(&in_flight, 1);
        in_flight.applied(1, Vec::new());
        let outcome = told.try_recv().unwrap();
        assert!(matches!(outcome, Err(KeyspaceError::Corrupt(_))));
    }
}
