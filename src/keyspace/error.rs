//! What a keyspace answers instead of a reply. The wire code and text of each stand in `service/status.rs`.

use quorate_core::api::refusal::{Corrupt, Refusal};

/// Why a request has no reply. One enum for every call, matched without a catch-all where it meets the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyspaceError {
    /// The request was understood and refused; replicated requests are refused alike by every member.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// This member knows no leader (`etcdserver: no leader`).
    #[error("no leader")]
    NoLeader,
    /// Leadership moved while the request was under way; a read may be retried (`etcdserver: leader changed`).
    #[error("leader changed")]
    LeaderChanged,
    /// The request ran longer than 5 s + 2 x election timeout. A write may or may not have taken effect.
    #[error("timed out: {0:?}")]
    Timeout(TimeoutKind),
    /// The write never left this member, because it knew no leader for the whole request timeout: etcd's bare
    /// `context deadline exceeded` (etcdserver/v3_server.go, `processInternalRaftRequestOnce`).
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    /// Too much is waiting (`etcdserver: too many requests`).
    #[error("too many requests")]
    TooManyRequests,
    /// The marshalled request is longer than `--max-request-bytes` (`etcdserver: request is too large`).
    #[error("request is too large")]
    RequestTooLarge,
    /// The server is stopping (`etcdserver: server stopped`). A write may or may not have taken effect.
    #[error("server stopped")]
    Stopped,
    /// No member has that id (`etcdserver: member not found`).
    #[error("member not found")]
    MemberNotFound,
    /// The members were not changed.
    #[error("the members were not changed: {0:?}")]
    Members(MemberRefusal),
    /// This member is a learner, which serves little (`etcdserver: rpc not supported for learner`).
    #[error("rpc not supported for learner")]
    NotForLearners,
    /// This member does not lead, and the request can only be answered by the leader (`etcdserver: not leader`).
    #[error("not leader")]
    NotLeader,
    /// Leadership was to go to a member that is unknown or has no vote (`etcdserver: bad leader transferee`).
    #[error("bad leader transferee")]
    BadLeaderTransferee,
    /// The member that leadership was to go to did not take over (`etcdserver: request timed out, leader transfer took
    /// too long`). Writes go on.
    #[error("leader transfer took too long")]
    LeaderTransferTimeout,
    /// A version that is to be downgraded to does not read (`etcdserver: wrong downgrade target version format`).
    #[error("wrong downgrade target version format")]
    WrongDowngradeVersionFormat,
    /// The cluster cannot be downgraded to that version (`etcdserver: invalid downgrade target version`).
    #[error("invalid downgrade target version")]
    InvalidDowngradeTarget,
    /// An action that the method does not know (`etcdserver: unknown method`).
    #[error("unknown method")]
    UnknownMethod,
    /// The defragmentation was not done; its own words. Everything is as before.
    #[error("{0}")]
    DefragmentFailed(String),
    /// Not built yet: the service answers UNIMPLEMENTED, never a made-up result.
    #[error("not implemented: {0}")]
    Unimplemented(&'static str),
    /// Memory, disk or code is broken; the member is stopping.
    #[error("corrupt: {0}")]
    Corrupt(#[from] Corrupt),
}

/// Why the members were not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberRefusal {
    /// `given member URLs are invalid`
    BadUrls,
    /// `member ID already exist`
    IdExists,
    /// `Peer URLs already exists`
    PeerUrlExists,
    /// `member not found`: nobody has that id, or who had it was removed.
    NotFound,
    /// `can only promote a learner member`
    NotLearner,
    /// `can only promote a learner member which is in sync with leader`
    LearnerNotReady,
    /// `too many learner members in cluster`
    TooManyLearners,
    /// `re-configuration failed due to not enough started members`
    NotEnoughStarted,
    /// `unhealthy cluster`
    Unhealthy,
}

/// Which of etcd's four timeout texts fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutKind {
    /// `request timed out`
    Plain,
    /// `request timed out, possibly due to previous leader failure`: it began in the two election timeouts before
    /// the present leader was elected.
    LeaderFailure,
    /// `request timed out, possibly due to connection lost`: no quorum, or no leader, was heard since it began.
    ConnectionLost,
    /// `request timed out, waiting for the applied index took too long`
    AppliedIndex,
}
