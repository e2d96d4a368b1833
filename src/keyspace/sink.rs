//! Committed entries become state, then answers.
//!
//! ```text
//!   consensus --> apply: prefetch cold values       (off the runtime's thread, no lock)
//!                   |    decide + Store::commit     (machine's write lock; O(batch), memory only)
//!                   |    watchers, lessor, sweeper, authority    (in log order)
//!                   |    advance the applied index  (linearizable reads go on)
//!                   v    answer the waiters         (only of this process's own batches)
//! ```
//!
//! **Invariant:** the index never names a revision that the store's view cannot read: commit happens before the
//! write lock is given back.
//! **Invariant:** the hub, the lessor and the authority know an entry before a linearizable read may rely on it: a
//! watch that is created after the read starts after it, a lease that was granted is found, and a token that was taken
//! away is void.

use std::sync::Arc;

use futures::future::BoxFuture;
use quorate_core::api::batch::{LeaseChange, RevisionRecord};
use quorate_core::api::ids::{LogId, MemberId};
use quorate_core::api::pb::internal::log_payload::Payload;
use quorate_core::api::pb::internal::{LogPayload, StoredMembership};
use quorate_core::api::refusal::Refusal;
use quorate_core::api::reply::{Reply, TokenChange};
use quorate_core::api::view::View;
use tokio::sync::watch;
use tokio::time::Instant;

use super::apply_figures::ApplyFigures;
use super::auth::Authority;
use super::install::{Builder, Receiver, Source};
use super::lease::Lessor;
use super::members::Roll;
use super::state::State;
use super::upkeep::{QuotaWatch, Sweeper};
use super::watch::WatchHub;
use super::write::InFlight;
use crate::consensus::{AppliedSink, Fatal, SnapshotLabel, SnapshotReceiver, SnapshotSource};

/// The keyspace's end of the log.
#[derive(Clone)]
pub(crate) struct Sink {
    pub(crate) state: Arc<State>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) hub: WatchHub,
    pub(crate) lessor: Lessor,
    pub(crate) authority: Arc<Authority>,
    pub(crate) sweeper: Arc<Sweeper>,
    pub(crate) figures: Arc<ApplyFigures>,
    pub(crate) quota: Arc<QuotaWatch>,
    pub(crate) builder: Arc<Builder>,
    pub(crate) roll: Arc<Roll>,
    pub(crate) member: MemberId,
    pub(crate) incarnation: u64,
}

/// What an applied entry leaves to tell, once its batch has gone to the store.
struct Decided {
    replies: Vec<Result<Reply, Refusal>>,
    duplicate: bool,
    revisions: Vec<RevisionRecord>,
    revision: i64,
    compacted_to: Option<i64>,
    leases: Vec<LeaseChange>,
    tokens: Vec<TokenChange>,
    /// It may have come out who has left.
    raises_level: bool,
}

impl Sink {
    async fn apply_one(&self, at: LogId, payload: LogPayload) -> Result<(), Fatal> {
        let began = Instant::now();
        let size = self.state.store().db_size();
        // Entries and installs come one after the other: the view stays the present generation's.
        let (view, cold) = {
            let now = self.state.machine.read();
            (now.view(), now.cold_reads(&payload))
        };
        let mut decided = if cold.is_empty() {
            self.decide(&view, at, &payload)?
        } else {
            let fetched = self.state.prefetch(view.clone(), cold).await.map_err(fatal)?;
            self.decide(&fetched.over(view), at, &payload)?
        };
        let mut replies = std::mem::take(&mut decided.replies);
        let tokens = std::mem::take(&mut decided.tokens);
        self.quota.applied(size, &payload, &mut replies);
        self.figures.applied(&payload, &replies, began.elapsed());
        self.figures.put(&decided.revisions);
        self.publish(at, &decided);
        if !tokens.is_empty() {
            self.authority.changed(at, tokens);
        }
        if matches!(payload.payload, Some(Payload::Membership(_))) || decided.raises_level {
            self.roll.changed(&self.state.machine.read());
        }
        self.state.advance(at);
        if let Some(seq) = self.own_seq(&payload)
            && !decided.duplicate
        {
            self.in_flight.applied(seq, replies);
        }
        Ok(())
    }

    fn decide(&self, view: &impl View, at: LogId, payload: &LogPayload) -> Result<Decided, Fatal> {
        let mut machine = self.state.machine.write();
        let previous = machine.compact_revision();
        let level = machine.cluster_level();
        let applied = machine.apply(view, at, payload).map_err(fatal)?;
        let decided = Decided {
            replies: applied.replies,
            duplicate: applied.duplicate,
            // Keys and values are shared, not copied.
            revisions: applied.batch.revisions.clone(),
            revision: applied.batch.revision,
            compacted_to: applied.batch.compacted_to,
            leases: applied.leases,
            tokens: applied.tokens,
            raises_level: machine.cluster_level() > level,
        };
        self.authority.follow(&machine);
        #[cfg(feature = "failpoints")]
        if !decided.revisions.is_empty() {
            // As in etcd: not where nothing was written, as by a login.
            crate::support::failpoints::failpoint!(beforeWritebackBuf);
        }
        machine.store().commit(applied.batch).map_err(fatal)?;
        if let Some(to) = decided.compacted_to {
            // Watchers below it are cancelled before a sweep can drop what they would read.
            self.hub.compacted(to);
            self.sweeper.compacted(previous, to);
        }
        Ok(decided)
    }

    fn publish(&self, at: LogId, decided: &Decided) {
        if decided.compacted_to.is_some() {
            self.sweeper.wake();
        }
        if !decided.revisions.is_empty() {
            self.hub.publish(&decided.revisions, decided.revision);
        }
        self.lessor.applied(at, &decided.leases);
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

    /// The log is purged behind a base only: whoever needs more than the log has finds one.
    fn snapshot(&self) -> Option<Arc<dyn SnapshotSource>> {
        let base = self.state.store().newest_base()?;
        Some(Arc::new(Source::new(base, Arc::clone(&self.state.blocking))))
    }

    fn snapshots(&self) -> watch::Receiver<Option<LogId>> {
        self.state.store().bases()
    }

    fn lacks_room(&self) -> bool {
        self.state.store().growth_refused().is_some()
    }

    fn receive(
        &self,
        label: SnapshotLabel,
    ) -> BoxFuture<'_, Result<Box<dyn SnapshotReceiver>, String>> {
        Box::pin(async move {
            let receiver: Box<dyn SnapshotReceiver> =
                Box::new(Receiver::begin(self.clone(), label).await?);
            Ok(receiver)
        })
    }
}

pub(crate) fn fatal(error: impl std::fmt::Display) -> Fatal {
    Fatal(error.to_string())
}
