//! openraft's state machine: decodes committed entries and hands them to the [`AppliedSink`] in bounded batches.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use openraft::OptionalSend;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use quorate_core::api::ids::LogId;
use quorate_core::api::pb::internal::LogPayload;
use quorate_core::api::pb::internal::log_payload::Payload;

use super::convert;
use super::purge::Sizes;
use super::snapshot_adapter::{Handle, HandleSnapshot, Meta, SnapshotBuilder};
use super::snapshots::Outgoing;
use super::types::{AppliedSink, Fatal, RaftLogId, RaftStoredMembership, TypeConfig};

/// Entries handed to the sink at once. Each may itself pack about a mebibyte of requests, so this bounds how long
/// the first waits for the last to be decoded.
const BATCH_ENTRIES: usize = 16;

/// The applied side of one group.
pub(crate) struct MachineAdapter {
    sink: Arc<dyn AppliedSink>,
    outgoing: Arc<Outgoing>,
    sizes: Arc<Sizes>,
}

impl MachineAdapter {
    pub(crate) fn new(
        sink: Arc<dyn AppliedSink>,
        outgoing: Arc<Outgoing>,
        sizes: Arc<Sizes>,
    ) -> Self {
        MachineAdapter { sink, outgoing, sizes }
    }

    fn builder(&self) -> SnapshotBuilder {
        SnapshotBuilder::new(Arc::clone(&self.sink), Arc::clone(&self.outgoing))
    }

    async fn flush(&self, gathered: &mut Gathered) -> Result<(), io::Error> {
        if gathered.entries.is_empty() {
            return Ok(());
        }
        let entries = std::mem::take(&mut gathered.entries);
        #[cfg(feature = "failpoints")]
        before_apply(&entries).await;
        self.sink.apply(entries).await.map_err(io_error)?;
        for responder in gathered.responders.drain(..) {
            responder.send(());
        }
        Ok(())
    }
}

/// A test may hold up what is about to be applied.
#[cfg(feature = "failpoints")]
async fn before_apply(entries: &[(LogId, LogPayload)]) {
    use crate::support::failpoints::failpoint;

    for (_, payload) in entries {
        match &payload.payload {
            Some(Payload::Entry(_)) => failpoint!(wait beforeApplyOneEntryNormal),
            Some(Payload::Membership(_)) => failpoint!(wait beforeApplyOneConfChange),
            Some(Payload::Blank(_)) | None => {}
        }
    }
}

/// Entries on their way to the sink, and who wants to hear that they arrived.
#[derive(Default)]
struct Gathered {
    entries: Vec<(LogId, LogPayload)>,
    responders: Vec<ApplyResponder<TypeConfig>>,
}

fn requests(payload: &LogPayload) -> u64 {
    match &payload.payload {
        Some(Payload::Entry(entry)) => (entry.commands.len() as u64).max(1),
        Some(Payload::Blank(_) | Payload::Membership(_)) | None => 1,
    }
}

fn io_error(error: Fatal) -> io::Error {
    io::Error::other(error)
}

impl RaftStateMachine<TypeConfig> for MachineAdapter {
    type SnapshotData = Handle;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<RaftLogId>, RaftStoredMembership), io::Error> {
        let (applied, membership) = self.sink.applied();
        Ok((applied.map(convert::raft_log_id), convert::raft_stored_membership(&membership)?))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut gathered = Gathered::default();
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let bytes = convert::payload_bytes(&entry);
            let (at, payload) = convert::log_payload(entry)?;
            self.sizes.applied(at.index, bytes, requests(&payload));
            gathered.entries.push((at, payload));
            gathered.responders.extend(responder);
            if gathered.entries.len() >= BATCH_ENTRIES {
                self.flush(&mut gathered).await?;
            }
        }
        self.flush(&mut gathered).await
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<SnapshotBuilder> {
        Some(self.builder()).filter(|builder| force || builder.is_able())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.builder()
    }

    /// Heartbeats and votes wait meanwhile: everything slow was done when it was prepared.
    async fn install_snapshot(&mut self, meta: &Meta, snapshot: Handle) -> Result<(), io::Error> {
        let Handle::Prepared(prepared) = snapshot else {
            return Err(io::Error::other("a state to be sent is not one to be installed"));
        };
        let labelled = meta.last_log_id.map(|id| convert::log_id(&id));
        if labelled != Some(prepared.label().at) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a snapshot of another log position than its label says",
            ));
        }
        prepared.install().await.map_err(io_error)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<HandleSnapshot>, io::Error> {
        self.builder().current()
    }
}
