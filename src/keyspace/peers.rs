//! What the other members ask of this one.

use bytes::Bytes;

use super::Keyspace;
use crate::consensus::PeerError;

impl Keyspace {
    /// Answers one frame of another member, which the transport has identified.
    pub async fn serve_peer(&self, frame: Bytes) -> Result<Bytes, PeerError> {
        self.0.consensus.serve_peer(frame).await
    }
}
