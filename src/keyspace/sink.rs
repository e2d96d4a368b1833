//! Committed entries become state, then answers.
//!
//! ```text
//!   consensus --> apply: prefetch cold values       (off the runtime's thread, no lock)
//!                   |    decide + Store::commit     (machine's write lock; O(batch), memory only)
//!                   |    advance the applied index  (linearizable reads go on)
//!                   |    watchers, lessor, sweeper  (in log order)
//!                   v    answer the waiters         (only of this process's own batches)
//! ```
//!
//! **Invariant:** the index never names a revision that the store's view cannot read: commit happens before the
//! write lock is given back.

use std::sync::Arc;

use futures::future::BoxFuture;
use quorate_core::api::ids::{LogId, MemberId};
use quorate_core::api::pb::internal::log_payload::Payload;
use quorate_core::api::pb::internal::{LogPayload, StoredMembership};
use quorate_core::api::reply::Applied;
use quorate_core::api::view::View;

use super::lease::Lessor;
use super::state::State;
use super::upkeep::Sweeper;
use super::watch::WatchHub;
use super::write::InFlight;
use crate::consensus::{AppliedSink, Fatal};

/// The keyspace's end of the log.
pub(crate) struct Sink {
    pub(crate) state: Arc<State>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) hub: WatchHub,
    pub(crate) lessor: Lessor,
    pub(crate) sweeper: Arc<Sweeper>,
    pub(crate) member: MemberId,
    pub(crate) incarnation: u64,
}

impl Sink {
    async fn apply_one(&self, at: LogId, payload: LogPayload) -> Result<(), Fatal> {
        let view = self.state.store.view();
        let cold = self.state.machine.read().cold_reads(&payload);
        let mut applied = if cold.is_empty() {
            self.decide(&view, at, &payload)?
        } else {
            let warm = self.state.prefetch(view, cold).await.map_err(fatal)?;
            self.decide(&warm, at, &payload)?
        };
        self.state.advance(at);
        let seq = self.own_seq(&payload).filter(|_| !applied.duplicate);
        let replies = std::mem::take(&mut applied.replies);
        self.publish(at, &applied);
        if let Some(seq) = seq {
            self.in_flight.applied(seq, replies);
        }
        Ok(())
    }

    fn decide(&self, view: &impl View, at: LogId, payload: &LogPayload) -> Result<Applied, Fatal> {
        let mut machine = self.state.machine.write();
        let previous = machine.compact_revision();
        let applied = machine.apply(view, at, payload).map_err(fatal)?;
        // The clone shares every key and value.
        self.state.store.commit(applied.batch.clone()).map_err(fatal)?;
        if let Some(to) = applied.batch.compacted_to {
            self.sweeper.compacted(previous, to);
        }
        Ok(applied)
    }

    fn publish(&self, at: LogId, applied: &Applied) {
        if let Some(to) = applied.batch.compacted_to {
            self.hub.compacted(to);
            self.sweeper.wake();
        }
        if !applied.batch.revisions.is_empty() {
            self.hub.publish(&applied.batch.revisions, applied.batch.revision);
        }
        self.lessor.applied(at, &applied.leases);
    }

    /// The sequence number of a batch that this process proposed.
    fn own_seq(&self, payload: &LogPayload) -> Option<u64> {
        match &payload.payload {
            Some(Payload::Entry(entry))
                if entry.incarnation == self.incarnation && entry.member_id == self.member.0 =>
            {
                Some(entry.seq)
            }
            Some(Payload::Entry(_) | Payload::Blank(_) | Payload::Membership(_)) | None => None,
        }
    }
}

impl AppliedSink for Sink {
    fn apply(&self, entries: Vec<(LogId, LogPayload)>) -> BoxFuture<'_, Result<(), Fatal>> {
        Box::pin(async move {
            for (at, payload) in entries {
                self.apply_one(at, payload).await?;
            }
            Ok(())
        })
    }

    fn applied(&self) -> (Option<LogId>, StoredMembership) {
        let machine = self.state.machine.read();
        (machine.applied(), machine.membership().clone())
    }
}

fn fatal(error: impl std::fmt::Display) -> Fatal {
    Fatal(error.to_string())
}
