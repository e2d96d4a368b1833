//! The seam to other members: it carries frames and knows nothing of what is in them.

use bytes::Bytes;
use futures::future::BoxFuture;
use quorate_core::api::ids::{GroupId, MemberId};
use tokio::time::Instant;

/// Why traffic is kept apart: a heartbeat must not wait behind a mebibyte of entries, nor either behind a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Entries and votes.
    Log,
    /// Liveness and read index.
    Heartbeat,
    /// What a member passes on to the leader's log: proposals.
    Forward,
    /// What it asks of the leader's memory: lease calls, which must not wait until a proposal is applied.
    Keyspace,
    /// Whole states.
    Snapshot,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Purpose; 5] =
        [Purpose::Log, Purpose::Heartbeat, Purpose::Forward, Purpose::Keyspace, Purpose::Snapshot];

    /// Its word between members and in log lines.
    pub fn word(self) -> &'static str {
        match self {
            Purpose::Log => "log",
            Purpose::Heartbeat => "heartbeat",
            Purpose::Forward => "forward",
            Purpose::Keyspace => "keyspace",
            Purpose::Snapshot => "snapshot",
        }
    }

    /// The purpose of that word.
    pub fn parse(word: &str) -> Option<Purpose> {
        Purpose::ALL.into_iter().find(|purpose| purpose.word() == word)
    }
}

/// One direction between two members of a group. A transport keeps a connection for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Which raft group.
    pub group: GroupId,
    /// Who sends.
    pub from: MemberId,
    /// To whom.
    pub to: MemberId,
    /// What for.
    pub purpose: Purpose,
}

/// Why a frame was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The member cannot be reached and has not seen the frame; trying again at once is useless.
    #[error("member {0} is unreachable: {1}")]
    Unreachable(MemberId, String),
    /// The connection broke under the exchange; the frame may have arrived.
    #[error("the exchange with member {0} broke: {1}")]
    Broken(MemberId, String),
}

/// Frames between members.
///
/// Several exchanges of a lane may be under way. Frames are delivered in the order in which `exchange` was called
/// (called, not polled), and answers come back in that order. A dropped exchange may still be delivered; its answer
/// is thrown away. A lane that breaks fails all that is under way, and later frames go by a new connection: what
/// was called after a failed exchange may be delivered although that one was not.
pub trait Transport: Send + Sync + std::fmt::Debug + 'static {
    /// Queues one frame, at the call; the future waits for its answer. It has no deadline of its own beyond that of
    /// a silent connection.
    fn exchange<'a>(
        &'a self,
        lane: &'a Lane,
        frame: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, TransportError>>;

    /// Since when this member has been able to hear `member` without a break; `None` while it is not, or where that
    /// is not known.
    fn connected_since(&self, member: MemberId) -> Option<Instant> {
        let _unknown = member;
        None
    }
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
