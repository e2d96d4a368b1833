//! Writes: many requests, one log entry.
//!
//! ```text
//!   put  txn  lease_grant ...          one task                       the sink, after apply
//!     \   |   /                           |                                |
//!   Queue: encoded into the open   Proposer: waits for a leader,     InFlight: seq -> waiters
//!   batch, one waiter each ------> yields, takes a batch, stamps it       |
//!                                  (incarnation, seq, hour),              +--> each waiter its own reply
//!                                  proposes it, or forwards it
//!                                  to the leader
//! ```
//!
//! A request is answered by the member it came to, from that member's own apply, whoever leads.
//! A slow disk makes bigger batches: while `IN_FLIGHT_MAX` of them are under way, requests gather in the next.
//!
//! **Invariant:** a waiter is answered exactly once: by its reply, by why its batch was lost, or by the stop; its
//! own deadline runs beside all of these.
//! **Invariant:** a request whose waiter has given up before its batch was taken does not enter the log.

mod batch;
mod counts;
mod flight;
mod in_flight;
mod proposer;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use quorate_core::api::ids::{MemberId, Term};
use quorate_core::api::pb::internal::Command;
use quorate_core::api::reply::Reply;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use self::counts::ProposalCounts;
pub(crate) use self::in_flight::InFlight;
pub(crate) use self::proposer::{Proposer, Stamp};
pub(crate) use self::queue::Queue;
use self::queue::Submitted;
use super::error::{KeyspaceError, TimeoutKind};
use super::figures::KeyspaceFigures;
use crate::consensus::Consensus;

/// What a waiter hears.
pub(crate) type Outcome = Result<Reply, KeyspaceError>;
pub(crate) type Waiter = oneshot::Sender<Outcome>;

/// etcd adds a header with a request id to what it marshals: about this many bytes count towards
/// `--max-request-bytes` beside the request (etcdserver/v3_server.go).
const ENVELOPE_BYTES: usize = 14;

/// The largest `--max-request-bytes` that entries of at most `entry_bytes_max` can carry.
pub fn request_bytes_max(entry_bytes_max: usize) -> usize {
    entry_bytes_max.saturating_sub(batch::HEADROOM)
}

/// The way into the log for every kind of request.
pub(crate) struct Writer {
    pub(crate) queue: Arc<Queue>,
    pub(crate) consensus: Consensus,
    pub(crate) member: MemberId,
    pub(crate) request_bytes_max: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) election_timeout: Duration,
    pub(crate) counts: ProposalCounts,
    pub(crate) figures: Arc<KeyspaceFigures>,
}

impl Writer {
    /// Puts a request into the log and waits for its reply.
    pub(crate) async fn write(&self, command: Command) -> Outcome {
        if command.encoded_len() + ENVELOPE_BYTES > self.request_bytes_max {
            return Err(KeyspaceError::RequestTooLarge);
        }
        self.write_unbounded(&command).await
    }

    /// The same for requests of this member itself, which no size limit is meant for.
    pub(crate) async fn write_unbounded(&self, command: &Command) -> Outcome {
        self.submit(command, None).await
    }

    /// The same for what the leader of `term` decides: never forwarded, and refused once that term is over.
    pub(crate) async fn write_as_leader(&self, command: &Command, term: Term) -> Outcome {
        self.submit(command, Some(term)).await
    }

    async fn submit(&self, command: &Command, only_in: Option<Term>) -> Outcome {
        let began = Instant::now();
        let mut submitted = self.queue.submit(command, only_in)?;
        let _pending = self.counts.wait();
        let outcome = match tokio::time::timeout(self.request_timeout, &mut submitted.told).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_dropped)) => Err(KeyspaceError::Stopped),
            Err(_elapsed) => Err(self.timed_out(began, &submitted)),
        };
        if let Err(KeyspaceError::Timeout(_) | KeyspaceError::DeadlineExceeded) = &outcome {
            self.counts.fail();
        }
        self.figures.proposed(command.request.as_ref(), &outcome, began.elapsed());
        outcome
    }

    /// Which of etcd's texts an expired request gets (etcdserver/server.go, `parseProposeCtxErr`).
    fn timed_out(&self, began: Instant, submitted: &Submitted) -> KeyspaceError {
        let view = self.consensus.leader_view();
        if view.leader().is_none() && !self.queue.has_left(submitted.place) {
            return KeyspaceError::DeadlineExceeded;
        }
        let found = view.since.filter(|found| began < *found);
        KeyspaceError::Timeout(match found {
            Some(found) if began + 2 * self.election_timeout > found => TimeoutKind::LeaderFailure,
            // The leader was out of reach for longer than an election takes.
            Some(_) => TimeoutKind::ConnectionLost,
            None => TimeoutKind::Plain,
        })
    }
}
