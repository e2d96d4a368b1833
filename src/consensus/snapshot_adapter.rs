//! openraft's snapshots as handles: nothing is copied or written when one is asked for.
//!
//! The base files are made by storage on its own schedule (`SnapshotPolicy::Never` keeps openraft from asking for
//! them); what openraft holds is a label that says at which log position the present state stands. Carrying the
//! content to another member belongs to the group's network, which refuses until it can.

use std::io;
use std::sync::Arc;

use openraft::storage::RaftSnapshotBuilder;
use openraft::{Snapshot, SnapshotMeta};
use quorate_core::api::ids::LogId;
use quorate_core::api::pb::internal::StoredMembership;

use super::convert;
use super::types::{AppliedSink, CommittedLeader, PeerNode, TypeConfig};

/// Names a state: that of the log position `at` (`None`: the empty one), under the membership in force there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Handle {
    pub(crate) at: Option<LogId>,
    pub(crate) membership: StoredMembership,
}

type HandleSnapshot = Snapshot<CommittedLeader, u64, PeerNode, Handle>;

/// Makes handles on what has been applied.
pub(crate) struct SnapshotBuilder {
    sink: Arc<dyn AppliedSink>,
}

impl SnapshotBuilder {
    pub(crate) fn new(sink: Arc<dyn AppliedSink>) -> Self {
        SnapshotBuilder { sink }
    }

    /// A handle on the state as applied now; `None` only when nothing was. O(1).
    pub(crate) fn current(&self) -> Result<Option<HandleSnapshot>, io::Error> {
        let snapshot = self.handle()?;
        Ok(snapshot.snapshot.at.is_some().then_some(snapshot))
    }

    fn handle(&self) -> Result<HandleSnapshot, io::Error> {
        let (at, membership) = self.sink.applied();
        let meta = SnapshotMeta {
            last_log_id: at.map(convert::raft_log_id),
            last_membership: convert::raft_stored_membership(&membership)?,
        };
        Ok(Snapshot { meta, snapshot: Handle { at, membership } })
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Handle;

    async fn build_snapshot(&mut self) -> Result<HandleSnapshot, io::Error> {
        self.handle()
    }
}
