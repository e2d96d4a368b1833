//! What can go wrong in agreeing.

use quorate_core::api::ids::MemberId;

/// A group could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The timings do not fit each other.
    #[error("raft settings: {0}")]
    Settings(String),
    /// The log, the state, or the first membership was refused by raft.
    #[error("raft did not start: {0}")]
    Raft(String),
}

/// A proposal was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Rejected before it entered any log: this member does not lead. Nothing will come of it.
    #[error("not the leader")]
    NotLeader {
        /// Who does, if known.
        leader: Option<MemberId>,
    },
    /// It entered this member's log and was replaced by another leader's: whether it commits is unknown.
    #[error("the log entry was discarded on a change of leader")]
    Discarded,
    /// Longer than the leader's log takes; nothing will come of it.
    #[error("the entry is longer than the leader's log takes")]
    TooLarge,
    /// It was sent to the leader, and no answer came back. Whether it commits is unknown.
    #[error("the way to the leader broke: {0}")]
    Lost(String),
    /// The group stopped. Whether it commits is unknown.
    #[error("the group stopped: {0}")]
    Stopped(String),
}

/// A read index could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadIndexError {
    /// This member does not lead.
    #[error("not the leader")]
    NotLeader {
        /// Who does, if known.
        leader: Option<MemberId>,
    },
    /// No quorum confirmed the leadership in time.
    #[error("no quorum confirmed the leader")]
    NoQuorum,
    /// Too many reads wait for a round.
    #[error("too many reads wait")]
    TooMany,
    /// The group stopped.
    #[error("the group stopped")]
    Stopped,
}
