//! Whole states on their way between members.
//!
//! ```text
//!   leader: openraft --full_snapshot--> Outgoing::send                    Incoming: the follower's one task
//!             offer {vote, label}  ------------------------------------>  checks the vote; goes on where it stopped
//!             pieces, a few under way, paced  ------------------------->  written one by one at their very offset
//!             finish, asked until it is done  ------------------------->  checked and built, beside the present state
//!                                                                            └─> raft's install: a record and a swap
//! ```
//!
//! **Invariant:** nothing is installed but what was checked whole against its label, and raft decides by the vote.
//! **Invariant:** memory is bounded on both sides by the pieces under way, whatever the state's size.

mod figures;
mod pace;
mod receive;
mod send;
#[cfg(test)]
mod snapshots_test;

use std::time::Duration;

pub use self::figures::SnapshotFigures;
pub(crate) use self::receive::{Incoming, Receiving};
pub(crate) use self::send::{Broke, Outgoing};

/// How a member that is behind is brought up: by whole states, and by the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotLimits {
    /// Bytes of a piece.
    pub piece_bytes: usize,
    /// Pieces under way to one member.
    pub pieces: usize,
    /// Bytes a second, to all members together.
    pub bytes_per_second: u64,
    /// Bytes of log a second that this member takes in of what was committed without it; more if the log grows faster.
    pub log_bytes_per_second: u64,
    /// Members sent to at once; others wait.
    pub at_once: usize,
    /// One piece or question without an answer for this long breaks the transfer off.
    pub answer: Duration,
    /// For so long after it broke off a transfer may go on where it stopped, on either side.
    pub resume_within: Duration,
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        SnapshotLimits {
            piece_bytes: 256 << 10,
            pieces: 4,
            bytes_per_second: 64 << 20,
            log_bytes_per_second: 12 << 20,
            at_once: 2,
            answer: Duration::from_secs(10),
            resume_within: Duration::from_secs(60),
        }
    }
}
