//! Why the fleet refuses or fails. The HTTP status of each stands once, in `service/management/codes.rs`.

/// Why a call of [`Management`](super::management::Management) was not done. Texts are for people, and never hold a
/// secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// 503: this daemon is in no fleet yet.
    #[error("daemon not yet initialized")]
    NotInitialized,
    /// 503: this daemon is on its way out.
    #[error("daemon is shutting down")]
    ShuttingDown,
    /// 400: a second bootstrap.
    #[error("already bootstrapped")]
    AlreadyBootstrapped,
    /// 400: what was asked makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// 400: the config's field is for ever.
    #[error("prevented update of {0}: value cannot change")]
    Immutable(&'static str),
    /// 400: there is a node of that name or address.
    #[error("{0}")]
    NameTaken(String),
    /// 401: a header's token does not count.
    #[error("{0}")]
    Unauthorized(String),
    /// 403: whoever asks is not trusted with this.
    #[error("{0}")]
    Forbidden(String),
    /// 403: workers do not answer this.
    #[error("this action is not allowed on worker nodes")]
    OnWorker,
    /// 404: there is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// 409: something else came first.
    #[error("{0}")]
    Conflict(String),
    /// 409: one node joins at a time.
    #[error("another node is joining")]
    AnotherJoins,
    /// 500: the join did not come about; a bad token among other reasons, as in the origin.
    #[error("failed to join the cluster: {0}")]
    JoinFailed(String),
    /// 503: no quorum, no leader, not reached.
    #[error("{0}")]
    Unavailable(String),
    /// 503: not done in the time that was given; it may still come about.
    #[error("{0} did not finish in time")]
    TimedOut(&'static str),
    /// 520: the node that is named, or the one that answers, is not in the fleet.
    #[error("node {0:?} is not part of the cluster")]
    NodeNotInFleet(String),
    /// 521: the node is in a fleet already.
    #[error("node {0:?} is part of the cluster")]
    NodeInUse(String),
    /// 500: a fault of ours.
    #[error("{0}")]
    Internal(String),
}
