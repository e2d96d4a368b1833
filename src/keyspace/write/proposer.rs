//! The task that turns waiting requests into log entries, here or at the leader.
//!
//! ```text
//!   queue --take--> seal (incarnation, seq) --> Flight: what is sent and not yet known to be in the state
//!                                                 |
//!              this member leads: consensus.propose         another leads: consensus.forward (one lane, in order)
//!                                                 |
//!      applied here, or given up by all who waited: forgotten        refused, lost, other leader: all again, in order
//! ```
//!
//! **Invariant:** batches are sent in the order of their sequence numbers, and sent again only from the lowest one
//! that is not known to be applied; the state machine skips what it has applied before. So nothing is applied twice,
//! and a batch whose successor was applied never can be any more ([`InFlight::applied`] answers its waiters).
//! **Invariant:** what only the leader may decide (the end of leases) is never sent to another member, nor in
//! another term than it was decided in.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use quorate_core::api::ids::{MemberId, Term};
use quorate_core::api::pb::internal::Entry;
use tokio::time::Instant;

use super::batch::Batch;
use super::flight::{Course, Flight, Sent, Stage};
use super::{InFlight, Queue};
use crate::consensus::{Consensus, LeaderView, ProposeError};
use crate::keyspace::error::{KeyspaceError, TimeoutKind};
use crate::support::clock::Clock;

/// Batches sent and not yet applied. Few make big batches: above 2 each only costs CPU.
const IN_FLIGHT_MAX: usize = 2;
/// Turns given to other tasks before a batch is taken, so that requests that are ready join it. Costs a lone
/// client nothing, and is cheaper than any timer.
const YIELDS: usize = 3;
/// Before batches that the leader did not take are sent to it again.
const RETRY: Duration = Duration::from_millis(20);
/// How often batches under way are asked whether anybody still waits for them.
const LOOK: Duration = Duration::from_millis(500);
/// The lowest cluster level that understands what this proposer writes around requests; theirs may be higher.
const LEVEL: u32 = 1;

/// What every batch of this process is stamped with.
#[derive(Debug)]
pub(crate) struct Stamp {
    pub(crate) member: MemberId,
    pub(crate) incarnation: u64,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Stamp {
    fn envelope(&self, seq: u64) -> Entry {
        Entry {
            level: LEVEL,
            member_id: self.member.0,
            incarnation: self.incarnation,
            seq,
            time_ms: self.clock.unix_ms(),
            commands: Vec::new(),
        }
    }
}

/// Takes batches while there is a leader and the store keeps up.
pub(crate) struct Proposer<R> {
    pub(crate) queue: Arc<Queue>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) consensus: Consensus,
    pub(crate) stamp: Stamp,
    /// Resolves when the store can take more; at once, as a rule.
    pub(crate) room: R,
}

impl<R, F> Proposer<R>
where
    R: Fn() -> F,
    F: Future<Output = ()>,
{
    /// Runs until the queue is closed and empty, or raft has ended; then nobody is left waiting.
    pub(crate) async fn run(self) {
        self.propose_batches().await;
        let stopped = KeyspaceError::Stopped;
        self.queue.fail(&stopped);
        self.in_flight.fail_all(&stopped);
    }

    async fn propose_batches(&self) {
        let mut leader = self.consensus.leader_changes();
        let mut applied = self.in_flight.progress();
        let ended = self.consensus.wait_ended();
        tokio::pin!(ended);
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut flight = Flight::default();
        loop {
            flight.forget_applied(*applied.borrow_and_update());
            if self.queue.is_finished() && flight.is_empty() {
                return;
            }
            let course = course(&leader.borrow_and_update());
            if course.is_some() && course != flight.course {
                flight.course = course;
                self.start_over(&mut flight);
            }
            if let Some(course) = course
                && flight.retry_at.is_none()
            {
                self.send_due(&mut flight, course).await;
            }
            let may_take = course.is_some()
                && flight.retry_at.is_none()
                && flight.len() < IN_FLIGHT_MAX
                && !self.queue.is_finished();
            let retry_at = flight.retry_at;
            tokio::select! {
                biased;
                Some((run, seq, outcome)) = flight.tickets.next(), if !flight.tickets.is_empty() => {
                    self.settle(&mut flight, run, seq, outcome);
                }
                _cause = &mut ended => return,
                _ = leader.changed() => {}
                _ = applied.changed(), if flight.awaits_apply() => {}
                () = until(retry_at), if retry_at.is_some() => flight.retry_at = None,
                _ = look.tick(), if !flight.is_empty() => {
                    flight.forget(|sent| self.in_flight.is_given_up(sent.seq));
                }
                () = self.next_batch(), if may_take => {
                    let course = course.expect("batches are taken on a course");
                    self.take(&mut flight, course);
                }
            }
        }
    }

    async fn next_batch(&self) {
        self.queue.ready().await;
        (self.room)().await;
        for _ in 0..YIELDS {
            tokio::task::yield_now().await;
        }
    }

    /// Seals the oldest batch; it is due to be sent.
    fn take(&self, flight: &mut Flight, course: Course) {
        let Some(batch) = self.queue.take() else {
            return;
        };
        let only_in = batch.only_in();
        if only_in.is_some_and(|term| !self.leads(course, term)) {
            return refuse(batch, &KeyspaceError::NotLeader);
        }
        flight.last_seq += 1;
        let seq = flight.last_seq;
        let (payload, waiters) = batch.seal(self.stamp.envelope(seq));
        // Before it is sent: it may be applied before `propose` returns.
        self.in_flight.insert(seq, waiters);
        flight.push(Sent { seq, payload, only_in, stage: Stage::Due });
    }

    /// Sends what is due, in order, until one is refused.
    async fn send_due(&self, flight: &mut Flight, course: Course) {
        while let Some((seq, payload)) = flight.next_due() {
            let run = flight.run;
            if course.leader == self.stamp.member {
                match self.consensus.propose(payload).await {
                    Ok(ticket) => {
                        flight.tickets.push(Box::pin(async move { (run, seq, ticket.await) }));
                    }
                    Err(error) => return self.settle(flight, run, seq, Err(error)),
                }
            } else {
                let ticket = self.consensus.forward(course.leader, payload);
                flight.tickets.push(Box::pin(async move { (run, seq, ticket.await) }));
            }
        }
    }

    /// Everything that is not known to be applied has to be sent again. What only this member's term may decide is
    /// given up instead.
    fn start_over(&self, flight: &mut Flight) {
        for sent in flight.start_over() {
            self.in_flight.fail(sent.seq, &KeyspaceError::Timeout(TimeoutKind::LeaderFailure));
        }
    }

    fn settle(&self, flight: &mut Flight, run: u64, seq: u64, outcome: Result<(), ProposeError>) {
        match outcome {
            // The sink answers the waiters when it is applied here, which may be sooner or later than at the leader.
            Ok(()) => flight.applied_by_the_leader(seq),
            Err(_) if run != flight.run => {}
            Err(ProposeError::TooLarge) => {
                self.give_up(flight, seq, &KeyspaceError::RequestTooLarge)
            }
            Err(ProposeError::Stopped(_)) => self.give_up(flight, seq, &KeyspaceError::Stopped),
            Err(
                ProposeError::NotLeader { .. } | ProposeError::Discarded | ProposeError::Lost(_),
            ) => {
                self.start_over(flight);
                flight.retry_at = Some(Instant::now() + RETRY);
            }
        }
    }

    fn give_up(&self, flight: &mut Flight, seq: u64, error: &KeyspaceError) {
        flight.forget(|sent| sent.seq == seq);
        self.in_flight.fail(seq, error);
    }

    fn leads(&self, course: Course, term: Term) -> bool {
        course == Course { leader: self.stamp.member, term }
    }
}

/// Where batches go: to a leader that may be believed.
fn course(view: &LeaderView) -> Option<Course> {
    view.leader().map(|leader| Course { leader, term: view.term })
}

fn refuse(batch: Batch, error: &KeyspaceError) {
    for waiter in batch.into_waiters() {
        drop(waiter.send(Err(error.clone())));
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
