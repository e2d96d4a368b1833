//! openraft's state machine: decodes committed entries and hands them to the [`AppliedSink`] in bounded batches.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, SnapshotMeta};
use quorate_core::api::ids::LogId;
use quorate_core::api::pb::internal::LogPayload;

use super::convert;
use super::snapshot_adapter::{Handle, SnapshotBuilder};
use super::types::{
    AppliedSink, CommittedLeader, Fatal, PeerNode, RaftLogId, RaftStoredMembership, TypeConfig,
};

type Meta = SnapshotMeta<CommittedLeader, u64, PeerNode>;
type Snapshot = openraft::Snapshot<CommittedLeader, u64, PeerNode, Handle>;

/// Entries handed to the sink at once. Each may itself pack about a mebibyte of requests, so this bounds how long
/// the first waits for the last to be decoded.
const BATCH_ENTRIES: usize = 16;

/// The applied side of one group.
pub(crate) struct MachineAdapter {
    sink: Arc<dyn AppliedSink>,
}

impl MachineAdapter {
    pub(crate) fn new(sink: Arc<dyn AppliedSink>) -> Self {
        MachineAdapter { sink }
    }

    fn builder(&self) -> SnapshotBuilder {
        SnapshotBuilder::new(Arc::clone(&self.sink))
    }

    async fn flush(&self, gathered: &mut Gathered) -> Result<(), io::Error> {
        if gathered.entries.is_empty() {
            return Ok(());
        }
        let entries = std::mem::take(&mut gathered.entries);
        self.sink.apply(entries).await.map_err(io_error)?;
        for responder in gathered.responders.drain(..) {
            responder.send(());
        }
        Ok(())
    }
}

/// Entries on their way to the sink, and who wants to hear that they arrived.
#[derive(Default)]
struct Gathered {
    entries: Vec<(LogId, LogPayload)>,
    responders: Vec<ApplyResponder<TypeConfig>>,
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
            gathered.entries.push(convert::log_payload(entry)?);
            gathered.responders.extend(responder);
            if gathered.entries.len() >= BATCH_ENTRIES {
                self.flush(&mut gathered).await?;
            }
        }
        self.flush(&mut gathered).await
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<SnapshotBuilder> {
        Some(self.builder())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.builder()
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: Handle) -> Result<(), io::Error> {
        let labelled = meta.last_log_id.map(|id| convert::log_id(&id));
        let (Some(at), true) = (snapshot.at, labelled == snapshot.at) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a snapshot of nothing, or of another log position than its label says",
            ));
        };
        self.sink.install(at, snapshot.membership).await.map_err(io_error)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.builder().current()
    }
}
