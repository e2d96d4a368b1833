//! The task that turns waiting requests into log entries.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::internal::Entry;

use super::{InFlight, Queue};
use crate::consensus::{Consensus, ProposeError};
use crate::keyspace::error::{KeyspaceError, TimeoutKind};
use crate::support::clock::Clock;

/// Batches proposed and not yet applied. Few make big batches: above 2 each only costs CPU.
const IN_FLIGHT_MAX: usize = 2;
/// Turns given to other tasks before a batch is taken, so that requests that are ready join it. Costs a lone
/// client nothing, and is cheaper than any timer.
const YIELDS: usize = 3;
/// The lowest cluster level that understands what this proposer writes.
const LEVEL: u32 = 1;

type Ticket = Pin<Box<dyn Future<Output = (u64, Result<(), ProposeError>)> + Send>>;

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

/// Takes batches while this member leads and the store keeps up.
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
        let ended = self.consensus.wait_ended();
        tokio::pin!(ended);
        let mut tickets: FuturesUnordered<Ticket> = FuturesUnordered::new();
        let mut seq = 0;
        loop {
            if self.queue.is_finished() && tickets.is_empty() {
                return;
            }
            let leads = leader.borrow_and_update().leader() == Some(self.stamp.member);
            let may_take = leads && tickets.len() < IN_FLIGHT_MAX && !self.queue.is_finished();
            tokio::select! {
                biased;
                Some((seq, outcome)) = tickets.next(), if !tickets.is_empty() => {
                    self.settle(seq, outcome);
                }
                _cause = &mut ended => return,
                _ = leader.changed() => {}
                () = self.next_batch(), if may_take => {
                    seq += 1;
                    tickets.extend(self.propose(seq).await);
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

    async fn propose(&self, seq: u64) -> Option<Ticket> {
        let batch = self.queue.take()?;
        let (payload, waiters) = batch.seal(&self.stamp.envelope(seq));
        // Before it is proposed: it may be applied before `propose` returns.
        self.in_flight.insert(seq, waiters);
        match self.consensus.propose(payload).await {
            Ok(ticket) => Some(Box::pin(async move { (seq, ticket.await) })),
            Err(error) => {
                self.settle(seq, Err(error));
                None
            }
        }
    }

    /// After an apply the sink has answered already, and nobody is left to hear this.
    fn settle(&self, seq: u64, outcome: Result<(), ProposeError>) {
        let error = match outcome {
            // Skipped as applied before; only a batch that was sent twice can be.
            Ok(()) => KeyspaceError::Timeout(TimeoutKind::Plain),
            Err(ProposeError::NotLeader { .. } | ProposeError::Discarded) => {
                KeyspaceError::Timeout(TimeoutKind::LeaderFailure)
            }
            Err(ProposeError::Stopped(_)) => KeyspaceError::Stopped,
        };
        self.in_flight.fail(seq, &error);
    }
}
