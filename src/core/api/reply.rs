//! What applying an entry answers.

use super::batch::{LeaseChange, WriteBatch};
use super::pb::etcdserverpb as pb;
use super::refusal::Refusal;

/// The answer to one command. Headers carry only `revision`; the service adds who and when.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the response message of the same name")]
pub enum Reply {
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compaction(pb::CompactionResponse),
    LeaseGrant(pb::LeaseGrantResponse),
    LeaseRevoke(pb::LeaseRevokeResponse),
    LeaseCheckpoint(pb::LeaseCheckpointResponse),
    Alarm(pb::AlarmResponse),
    /// The command has no answer of its own.
    Done,
}

/// What one committed log entry came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// One answer a command, in their order; empty for entries without commands. A refusal is replicated too:
    /// every member refuses alike.
    pub replies: Vec<Result<Reply, Refusal>>,
    /// The entry was skipped: its (incarnation, seq) had been applied before.
    pub duplicate: bool,
    /// To be kept atomically; its `revisions` are what watchers see.
    pub batch: WriteBatch,
    /// For the lessor.
    pub leases: Vec<LeaseChange>,
}
