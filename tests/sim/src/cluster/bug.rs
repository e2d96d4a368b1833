//! Bugs put back in, to see that they are found. Each lives in a seam of the harness: disk or network.

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A vote leaves before it is saved: a power cut right after it forgets it.
    ForgottenVote,
    /// Appends count as acknowledged that never arrived: commit without a quorum.
    PhantomAppend,
    /// The journal acknowledges a frame before it is synced.
    EarlyAck,
    /// A forwarded batch that is sent again after a broken stream is taken for a new one: its sequence number does
    /// not count.
    UncountedBatch,
    /// A follower's read takes the index of a round that was over before it began.
    StaleRound,
}
