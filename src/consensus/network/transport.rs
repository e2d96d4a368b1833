//! The seam to other members: it carries frames and knows nothing of what is in them.

use bytes::Bytes;
use futures::future::BoxFuture;
use quorate_core::api::ids::{GroupId, MemberId};

/// Why traffic is kept apart: a heartbeat must not wait behind a mebibyte of entries, nor either behind a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Entries and votes.
    Log,
    /// Liveness and read index.
    Heartbeat,
    /// Whole states.
    Snapshot,
}

/// One direction between two members of a group. A transport keeps a connection for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Which raft group.
    pub group: GroupId,
    /// Who sends.
    pub from: MemberId,
    /// To whom.
    pub to: MemberId,
    /// Where the receiver is reached.
    pub peer_urls: Vec<String>,
    /// What for.
    pub purpose: Purpose,
}

/// Why a frame was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The member cannot be reached; trying again at once is useless.
    #[error("member {0} is unreachable: {1}")]
    Unreachable(MemberId, String),
    /// The connection broke under the exchange; the frame may have arrived.
    #[error("the exchange with member {0} broke: {1}")]
    Broken(MemberId, String),
}

/// Frames between members. One exchange a lane at a time; a dropped exchange closes the lane's connection, or
/// frames and answers would go out of step.
pub trait Transport: Send + Sync + std::fmt::Debug + 'static {
    /// Sends one frame and waits for its answer.
    fn exchange<'a>(
        &'a self,
        lane: &'a Lane,
        frame: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>>;
}

/// The transport of a group that has no other member: it reaches nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

impl Transport for NoPeers {
    fn exchange<'a>(
        &'a self,
        lane: &'a Lane,
        _frame: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>> {
        let to = lane.to;
        Box::pin(async move {
            Err(TransportError::Unreachable(
                to,
                "this member has no transport to others".to_owned(),
            ))
        })
    }
}
