//! Moving leadership: because somebody asks for it, or because this member stops.

use std::time::Duration;

use quorate_core::api::ids::MemberId;

use super::{Keyspace, KeyspaceError};
use crate::consensus::TransferError;

/// A member that stops tries for this long, or for an election timeout, to have another lead: that is what the others
/// would need to find out by themselves.
const LEAVE: Duration = Duration::from_millis(500);

impl Keyspace {
    /// MoveLeader: done when `target` leads. Writes are held back for less than an election timeout, whatever comes
    /// of it (etcd waits for as long as its client does: etcdserver/server.go, `MoveLeader`).
    pub async fn move_leader(&self, target: MemberId) -> Result<(), KeyspaceError> {
        self.require_admin().await?;
        let limit = self.0.config.request_timeout();
        match self.0.consensus.transfer_leader(target, limit).await {
            Ok(()) => {
                tracing::info!(%target, "leadership moved");
                Ok(())
            }
            Err(TransferError::NotLeader) => Err(KeyspaceError::NotLeader),
            Err(TransferError::BadTarget) => Err(KeyspaceError::BadLeaderTransferee),
            Err(TransferError::TimedOut | TransferError::Busy) => {
                Err(KeyspaceError::LeaderTransferTimeout)
            }
        }
    }

    /// Has another member lead, if this one does and is not alone: before [`Keyspace::shutdown`], while clients and
    /// members are still served. Gives up after half a second.
    pub async fn leave_leadership(&self) {
        let consensus = &self.0.consensus;
        if !consensus.leads() || consensus.facts().voters.len() < 2 {
            return;
        }
        let limit = LEAVE.min(self.0.config.election_timeout);
        match consensus.transfer_to_any(limit).await {
            Ok(target) => tracing::info!(%target, "leadership moved before stopping"),
            Err(error) => tracing::warn!(%error, "stopping while this member leads"),
        }
    }
}
