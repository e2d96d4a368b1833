//! The types openraft is run with, and the sink that committed entries go to.
//!
//! **Invariant:** an openraft type never leaves this floor, upward, to disk or to the wire: `convert.rs` stands at
//! each of these edges.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::OptionalSend;
use openraft::impls::{BoxedErrorSource, InlineBatch, OneshotResponder};
use quorate_core::api::ids::LogId;
use quorate_core::api::pb::internal::{LogPayload, StoredMembership};
use tokio::sync::watch;

pub use crate::storage::BaseLabel as SnapshotLabel;

/// Binds openraft's type parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

// By hand: `declare_raft_types!` cannot override the generic `Responder` and `Batch`.
impl openraft::RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = ();
    type NodeId = u64;
    type Node = PeerNode;
    type Term = u64;
    // One leader a term, as etcd's raft_term wants; openraft's default allows several.
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Proposal, u64, PeerNode>;
    type Entry = openraft::Entry<CommittedLeader, Self::Payload>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

#[cfg(not(feature = "simulation"))]
type Runtime = openraft_rt_tokio::TokioRuntime;
#[cfg(feature = "simulation")]
pub(crate) type Runtime =
    openraft_rt::deterministic_rng::DeterministicRng<openraft_rt_tokio::TokioRuntime>;

pub(crate) type CommittedLeader = openraft::vote::leader_id_std::CommittedLeaderId<u64>;
pub(crate) type RaftLogId = openraft::LogId<CommittedLeader>;
pub(crate) type RaftVote = openraft::Vote<openraft::impls::leader_id_std::LeaderId<u64, u64>>;
pub(crate) type RaftEntry = openraft::Entry<CommittedLeader, RaftPayload>;
pub(crate) type RaftPayload = openraft::EntryPayload<Proposal, u64, PeerNode>;
pub(crate) type RaftMembership = openraft::Membership<u64, PeerNode>;
pub(crate) type RaftStoredMembership = openraft::StoredMembership<CommittedLeader, u64, PeerNode>;

/// An encoded `internal.LogPayload` whose arm is `entry`: the bytes that the proposer packed, unchanged until apply.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proposal(pub(crate) Bytes);

// Never the content: it holds users' values.
impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({} bytes)", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What the membership says of one member beside its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerNode {
    pub(crate) peer_urls: Vec<String>,
    pub(crate) voter_when_caught_up: bool,
}

/// The sink failed: the member must stop. The text is the cause, for its last log line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub String);

/// A whole state that is sent. It can be read as long as this lives, whatever newer one is made meanwhile.
pub trait SnapshotSource: Send + Sync + fmt::Debug + 'static {
    /// What it is.
    fn label(&self) -> &SnapshotLabel;

    /// Up to `bytes_max` bytes from `offset` on; fewer only at its end. The error is a disk's.
    fn read(&self, offset: u64, bytes_max: usize) -> BoxFuture<'_, Result<Bytes, String>>;
}

/// A whole state that arrives. Dropped, its file is kept for a while: the same label goes on where it stopped.
pub trait SnapshotReceiver: Send + fmt::Debug + 'static {
    /// Bytes that are here: the offset of the next piece.
    fn received(&self) -> u64;

    /// Takes the next piece. The error is a disk's, or too many bytes.
    fn write(&mut self, piece: Bytes) -> BoxFuture<'_, Result<(), String>>;

    /// Once all is here: checks it against its label, syncs it, and builds beside the present state what it holds.
    /// Takes long; nothing of it is in force, and what was received is gone if it fails.
    fn prepare(self: Box<Self>) -> BoxFuture<'static, Result<Box<dyn PreparedSnapshot>, String>>;
}

/// A received state, built and waiting. Dropped, it is deleted.
pub trait PreparedSnapshot: Send + Sync + fmt::Debug + 'static {
    /// What it is.
    fn label(&self) -> &SnapshotLabel;

    /// Makes it the group's state: one synced journal record, then one swap. Milliseconds, because heartbeats wait.
    fn install(self: Box<Self>) -> BoxFuture<'static, Result<(), Fatal>>;
}

/// Where committed entries go. Implemented by the keyspace.
///
/// Called by one task, in log order, never twice for an entry, and never again after a [`Fatal`]. `apply` may
/// await (cold reads run off the runtime's thread), but no lock is held by the caller meanwhile.
pub trait AppliedSink: Send + Sync + 'static {
    /// Applies committed entries, all of them or none that follow the failed one.
    fn apply(&self, entries: Vec<(LogId, LogPayload)>) -> BoxFuture<'_, Result<(), Fatal>>;

    /// The last applied entry and the membership in force there.
    fn applied(&self) -> (Option<LogId>, StoredMembership);

    /// The newest state that can be sent as a whole; `None` before there is one. O(1).
    fn snapshot(&self) -> Option<Arc<dyn SnapshotSource>> {
        None
    }

    /// Tells the log position of [`AppliedSink::snapshot`] whenever it is another.
    fn snapshots(&self) -> watch::Receiver<Option<LogId>> {
        watch::channel(None).1
    }

    /// The disk is nearly full: what is kept for others' sake must go.
    fn lacks_room(&self) -> bool {
        false
    }

    /// Begins to take a whole state of another member, or goes on with one of the same label. One at a time: what an
    /// older call returned is dropped before.
    fn receive(
        &self,
        label: SnapshotLabel,
    ) -> BoxFuture<'_, Result<Box<dyn SnapshotReceiver>, String>> {
        let at = label.at;
        Box::pin(async move { Err(format!("the state at {at} is not taken here")) })
    }
}
