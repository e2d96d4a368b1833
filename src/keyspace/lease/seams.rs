//! What the lessor needs from others: the replicated facts, and the leader's seat.

use bytes::Bytes;
use futures::future::BoxFuture;
use quorate_core::api::ids::{LeaseId, Term};
use quorate_core::api::pb::etcdserverpb::LeaseCheckpointRequest;
use quorate_core::api::pb::internal::LeaseExpiry;

/// One lease as the state machine knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseFact {
    /// Which.
    pub id: LeaseId,
    /// Its time to live in seconds, as granted.
    pub granted_ttl: i64,
    /// Seconds left when it was last checkpointed; 0 means full.
    pub remaining_ttl: i64,
}

/// The replicated leases, as applied so far. The keyspace implements it over its state machine.
///
/// The lessor calls it under its own lock; so whoever calls the lessor must not hold the state machine's.
pub trait LeaseFacts: Send + Sync + 'static {
    /// Every lease, in id order.
    fn leases(&self) -> Vec<LeaseFact>;

    /// The keys that hang on the lease, sorted.
    fn keys(&self, id: LeaseId) -> Vec<Bytes>;
}

/// This member does not lead the term, or cannot be sure that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this member does not lead the term")]
pub struct NotLeader;

/// A proposal was not applied, or nobody knows; it is made again later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proposal failed: {0}")]
pub struct ProposalFailed(pub String);

/// The leader's seat: is it still ours, and proposals made from it. Proposals are never forwarded to another member.
pub trait Leadership: Send + Sync + 'static {
    /// Asks a quorum whether we lead `term`, and waits until everything committed by then is applied here.
    fn confirm(&self, term: Term) -> BoxFuture<'static, Result<(), NotLeader>>;

    /// Proposes the end of leases; done when it was applied (whatever it found) or failed.
    fn propose_expiry(&self, expiry: LeaseExpiry)
    -> BoxFuture<'static, Result<(), ProposalFailed>>;

    /// Proposes remaining TTLs; done when applied or failed.
    fn propose_checkpoint(
        &self,
        checkpoint: LeaseCheckpointRequest,
    ) -> BoxFuture<'static, Result<(), ProposalFailed>>;
}
