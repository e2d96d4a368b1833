//! What the other members ask of this one, and who they are.

use bytes::Bytes;

use quorate_core::api::pb::etcdserverpb as pb;

use super::{Keyspace, members};
use crate::consensus::{Members, PeerError};

impl Keyspace {
    /// Answers one frame of another member, which the transport has identified.
    pub async fn serve_peer(&self, frame: Bytes) -> Result<Bytes, PeerError> {
        self.0.consensus.serve_peer(frame).await
    }

    /// Every member as applied here, by id.
    pub fn members(&self) -> Vec<pb::Member> {
        members::list(&self.0.state.machine.read())
    }

    /// The members in this member's log and where they are reached, once they are other than `known`.
    pub async fn members_other_than(&self, known: &Members) -> Members {
        self.0.consensus.members_other_than(known).await
    }
}
