//! What the proposer has sent and does not yet know to be in the state.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use quorate_core::api::ids::{MemberId, Term};
use tokio::time::Instant;

use crate::consensus::ProposeError;

/// Run, sequence number, and what became of it.
pub(super) type Ticket = Pin<Box<dyn Future<Output = (u64, u64, Result<(), ProposeError>)> + Send>>;

/// To whom batches are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) leader: MemberId,
    pub(super) term: Term,
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// To be sent, or sent again.
    Due,
    /// Sent in this run; its ticket is open.
    Sent,
    /// The leader has applied it; this member will.
    Applied,
}

/// A sealed batch.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) seq: u64,
    pub(super) payload: Bytes,
    /// It may enter the log by this member, as the leader of this term, and not otherwise.
    pub(super) only_in: Option<Term>,
    pub(super) stage: Stage,
}

/// The batches under way, lowest sequence number first. The proposer bounds them.
#[derive(Default)]
pub(super) struct Flight {
    pub(super) last_seq: u64,
    /// Rises whenever sending starts over: tickets of earlier runs say nothing of this one.
    pub(super) run: u64,
    pub(super) course: Option<Course>,
    /// Nothing is sent before.
    pub(super) retry_at: Option<Instant>,
    pub(super) tickets: FuturesUnordered<Ticket>,
    sent: VecDeque<Sent>,
}

impl Flight {
    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    pub(super) fn push(&mut self, sent: Sent) {
        self.sent.push_back(sent);
    }

    /// The lowest batch that is due; it counts as sent from now on.
    pub(super) fn next_due(&mut self) -> Option<(u64, Bytes)> {
        let due = self.sent.iter_mut().find(|sent| sent.stage == Stage::Due)?;
        due.stage = Stage::Sent;
        Some((due.seq, due.payload.clone()))
    }

    pub(super) fn forget(&mut self, which: impl Fn(&Sent) -> bool) {
        self.sent.retain(|sent| !which(sent));
    }

    /// Batches up to `seq` have been applied here, or never will be.
    pub(super) fn forget_applied(&mut self, seq: u64) {
        while self.sent.front().is_some_and(|sent| sent.seq <= seq) {
            self.sent.pop_front();
        }
    }

    /// The leader has applied it, and with it whatever came before.
    pub(super) fn applied_by_the_leader(&mut self, seq: u64) {
        for sent in self.sent.iter_mut().take_while(|sent| sent.seq <= seq) {
            sent.stage = Stage::Applied;
        }
    }

    /// Whether only this member's own apply is waited for.
    pub(super) fn awaits_apply(&self) -> bool {
        self.sent.iter().any(|sent| sent.stage == Stage::Applied)
    }

    /// Opens another run: what is not known to be applied is due again. Takes out what may not be sent again.
    pub(super) fn start_over(&mut self) -> Vec<Sent> {
        self.run += 1;
        self.retry_at = None;
        // Answers to what was sent before are worth nothing now: all of it is sent again or known to be applied.
        self.tickets = FuturesUnordered::new();
        let course = self.course;
        let (kept, lost) = std::mem::take(&mut self.sent).into_iter().partition(|sent| {
            sent.stage == Stage::Applied
                || sent.only_in.is_none_or(|term| {
                    // Never sent yet, and its term still stands.
                    sent.stage == Stage::Due && course.is_some_and(|course| course.term == term)
                })
        });
        self.sent = kept;
        for sent in &mut self.sent {
            if sent.stage == Stage::Sent {
                sent.stage = Stage::Due;
            }
        }
        Vec::from(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(batches: &[(u64, Option<u64>)]) -> Flight {
        let mut flight = Flight { course: Some(course(2)), ..Flight::default() };
        for (seq, only_in) in batches {
            let only_in = only_in.map(Term);
            flight.push(Sent { seq: *seq, payload: Bytes::new(), only_in, stage: Stage::Due });
        }
        flight
    }

    fn course(term: u64) -> Course {
        Course { leader: MemberId(1), term: Term(term) }
    }

    fn due(flight: &mut Flight) -> Vec<u64> {
        std::iter::from_fn(|| flight.next_due()).map(|(seq, _)| seq).collect()
    }

    #[test]
    fn starting_over_sends_from_the_lowest_that_is_not_applied() {
        let mut flight = flight(&[(1, None), (2, None), (3, None)]);
        assert_eq!(due(&mut flight), [1, 2, 3]);
        flight.applied_by_the_leader(1);
        assert!(flight.start_over().is_empty());
        assert_eq!(due(&mut flight), [2, 3]);
        assert!(flight.awaits_apply(), "the first is applied by the leader, not here");
        flight.forget_applied(2);
        assert_eq!((flight.len(), flight.awaits_apply()), (1, false));
    }

    #[test]
    fn what_only_one_term_may_decide_is_not_sent_in_another() {
        let mut flight = flight(&[(1, None), (2, Some(2))]);
        assert_eq!(due(&mut flight), [1, 2]);
        flight.course = Some(course(3));
        let lost: Vec<_> = flight.start_over().into_iter().map(|sent| sent.seq).collect();
        assert_eq!(lost, [2]);
        assert_eq!(due(&mut flight), [1]);
    }
}
