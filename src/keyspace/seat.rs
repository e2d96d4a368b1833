//! What the watch hub and the lessor see of the keyspace: history, lease facts, and the leader's seat.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::future::BoxFuture;
use quorate_core::api::batch::RevisionRecord;
use quorate_core::api::ids::{LeaseId, MemberId, Revision, Term};
use quorate_core::api::pb::etcdserverpb::{LeaseCheckpointRequest, RangeRequest};
use quorate_core::api::pb::internal::command::Request;
use quorate_core::api::pb::internal::{Command, LeaseExpiry};
use quorate_core::api::pb::mvccpb::KeyValue;
use quorate_core::api::refusal::Corrupt;
use quorate_core::api::view::View as _;

use super::lease::{Leadership, LeaseFact, LeaseFacts, NotLeader, ProposalFailed};
use super::read::Reader;
use super::state::State;
use super::watch::History;
use super::write::Writer;

/// The past, for watchers that catch up.
pub(crate) struct Past(pub(crate) Arc<State>);

impl History for Past {
    fn scan(&self, from: Revision, max_bytes: usize) -> Result<Vec<RevisionRecord>, Corrupt> {
        let view = self.0.machine.read().view();
        view.scan(from, max_bytes)
    }

    fn key_value(&self, revision: Revision) -> Result<KeyValue, Corrupt> {
        let view = self.0.machine.read().view();
        view.key_value(revision)
    }

    fn value_at(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, Corrupt> {
        let request =
            RangeRequest { key: Bytes::copy_from_slice(key), revision, ..RangeRequest::default() };
        // Compacted in between, or before the first revision: there is nothing to show.
        let (selected, view) = {
            let now = self.0.machine.read();
            (now.select(&request, None, 1), now.view())
        };
        let Ok(slice) = selected else {
            return Ok(None);
        };
        match slice.rows.first() {
            None => Ok(None),
            Some(row) => match &row.hot {
                Some(kv) => Ok(Some(KeyValue::clone(kv))),
                None => view.key_value(row.revision).map(Some),
            },
        }
    }
}

/// The replicated leases, for the lessor.
pub(crate) struct Leases(pub(crate) Arc<State>);

impl LeaseFacts for Leases {
    fn leases(&self) -> Vec<LeaseFact> {
        let machine = self.0.machine.read();
        let ids: Vec<LeaseId> = machine.leases().collect();
        let facts = ids.into_iter().filter_map(|id| {
            let view = machine.lease(id)?;
            Some(LeaseFact { id, granted_ttl: view.granted_ttl, remaining_ttl: view.remaining_ttl })
        });
        facts.collect()
    }

    fn keys(&self, id: LeaseId) -> Vec<Bytes> {
        self.0.machine.read().lease_keys(id)
    }
}

/// The leader's seat. Empty until the group runs: the lessor exists before it, because the sink feeds it.
#[derive(Clone, Default)]
pub(crate) struct Seat(Arc<OnceLock<Taken>>);

#[derive(Clone)]
struct Taken {
    member: MemberId,
    writer: Arc<Writer>,
    reader: Arc<Reader>,
}

impl Seat {
    pub(crate) fn take(&self, member: MemberId, writer: Arc<Writer>, reader: Arc<Reader>) {
        let taken = Taken { member, writer, reader };
        let first = self.0.set(taken).is_ok();
        debug_assert!(first, "a keyspace takes its seat once");
    }

    /// Proposes as the leader of `term`, or of the present term; not at all when this member does not lead it.
    async fn propose(self, request: Request, term: Option<Term>) -> Result<(), ProposalFailed> {
        let Some(taken) = self.0.get() else {
            return Err(ProposalFailed("the group is not running yet".to_owned()));
        };
        let term = term.unwrap_or_else(|| taken.writer.consensus.leader_view().term);
        let command = Command { request: Some(request), ..Command::default() };
        match taken.writer.write_as_leader(&command, term).await {
            Ok(_) | Err(super::KeyspaceError::Refused(_)) => Ok(()),
            Err(error) => Err(ProposalFailed(error.to_string())),
        }
    }
}

impl Taken {
    fn leads(&self, term: Term) -> bool {
        let view = self.writer.consensus.leader_view();
        view.leader() == Some(self.member) && view.term == term
    }
}

impl Leadership for Seat {
    fn confirm(&self, term: Term) -> BoxFuture<'static, Result<(), NotLeader>> {
        let seat = self.clone();
        Box::pin(async move {
            let taken = seat.0.get().ok_or(NotLeader)?;
            taken.reader.linearize().await.map_err(|_| NotLeader)?;
            // The round was answered by the leader of that moment: by this member only if its term stands.
            if taken.leads(term) { Ok(()) } else { Err(NotLeader) }
        })
    }

    fn propose_expiry(
        &self,
        expiry: LeaseExpiry,
    ) -> BoxFuture<'static, Result<(), ProposalFailed>> {
        let term = Term(expiry.term);
        Box::pin(self.clone().propose(Request::LeaseExpiry(expiry), Some(term)))
    }

    fn propose_checkpoint(
        &self,
        checkpoint: LeaseCheckpointRequest,
    ) -> BoxFuture<'static, Result<(), ProposalFailed>> {
        Box::pin(self.clone().propose(Request::LeaseCheckpoint(checkpoint), None))
    }
}
