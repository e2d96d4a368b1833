//! openraft's snapshots as handles: nothing is copied or written when one is asked for.
//!
//! The base files are made by storage on its own schedule (`SnapshotPolicy::Never` keeps openraft from asking for
//! them); what openraft holds is a handle on the newest, labelled with that file's own log position and membership,
//! or, on its way in, a received state that is built and waits.

use std::io;
use std::sync::Arc;

use openraft::storage::RaftSnapshotBuilder;
use openraft::{Snapshot, SnapshotMeta};

use super::convert;
use super::snapshots::Outgoing;
use super::types::{
    AppliedSink, CommittedLeader, PeerNode, PreparedSnapshot, SnapshotLabel, SnapshotSource,
    TypeConfig,
};

/// A whole state, in one of its two lives.
#[derive(Debug)]
pub(crate) enum Handle {
    /// It can be sent.
    Source(Arc<dyn SnapshotSource>),
    /// It was received, and can be installed.
    Prepared(Box<dyn PreparedSnapshot>),
}

pub(crate) type Meta = SnapshotMeta<CommittedLeader, u64, PeerNode>;
pub(crate) type HandleSnapshot = Snapshot<CommittedLeader, u64, PeerNode, Handle>;

/// What openraft is told of a state: a function of its label alone.
pub(crate) fn meta(label: &SnapshotLabel) -> Result<Meta, io::Error> {
    Ok(SnapshotMeta {
        last_log_id: Some(convert::raft_log_id(label.at)),
        last_membership: convert::raft_stored_membership(&label.membership)?,
    })
}

/// Makes handles on the states that can be sent.
pub(crate) struct SnapshotBuilder {
    sink: Arc<dyn AppliedSink>,
    outgoing: Arc<Outgoing>,
}

impl SnapshotBuilder {
    pub(crate) fn new(sink: Arc<dyn AppliedSink>, outgoing: Arc<Outgoing>) -> Self {
        SnapshotBuilder { sink, outgoing }
    }

    /// Whether there is a state to make a handle on.
    pub(crate) fn is_able(&self) -> bool {
        self.sink.snapshots().borrow().is_some()
    }

    /// What is to be sent now: the state of a transfer that broke off, so that it goes on where it stopped, else the
    /// newest. `None` before there is one, which is also before anything is purged. O(1).
    pub(crate) fn current(&self) -> Result<Option<HandleSnapshot>, io::Error> {
        let source = self.outgoing.broken_off().or_else(|| self.sink.snapshot());
        source.map(handle).transpose()
    }
}

fn handle(source: Arc<dyn SnapshotSource>) -> Result<HandleSnapshot, io::Error> {
    Ok(Snapshot { meta: meta(source.label())?, snapshot: Handle::Source(source) })
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Handle;

    async fn build_snapshot(&mut self) -> Result<HandleSnapshot, io::Error> {
        let newest = self.sink.snapshot();
        handle(newest.ok_or_else(|| io::Error::other("there is no base to be sent"))?)
    }
}
