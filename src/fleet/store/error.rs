//! What a store answers instead of a result.

/// Why there is no result. Nobody has to read a text to tell one from another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such key.
    #[error("key not found")]
    NotFound,
    /// The lease does not exist, or has ended.
    #[error("lease not found")]
    LeaseGone,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A watch was to begin before the oldest revision that is kept.
    #[error("the revision has been compacted: the oldest that is kept is {oldest}")]
    Compacted {
        /// Where a watch may begin.
        oldest: i64,
    },
    /// Who asks may not do this, or has not shown who it is.
    #[error("permission denied: {0}")]
    Denied(String),
    /// It was understood and refused, and will be again.
    #[error("refused: {0}")]
    Refused(String),
    /// Nobody answered in time, or who did cannot serve now. A write may or may not have been done.
    #[error("not available: {0}")]
    Unavailable(String),
    /// The place in the line, or the lead, is lost.
    #[error("no place in the election any more: {0}")]
    Lost(#[from] Lost),
}

impl StoreError {
    /// Whether the same may well succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            StoreError::Unavailable(_) => true,
            StoreError::NotFound
            | StoreError::LeaseGone
            | StoreError::Closed
            | StoreError::Compacted { .. }
            | StoreError::Denied(_)
            | StoreError::Refused(_)
            | StoreError::Lost(_) => false,
        }
    }
}

/// Why a candidate is none any more, or a leader does not lead any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// No keep-alive was answered in time: the store may have given the lead to another one by now.
    #[error("no keep-alive was answered in time")]
    Expired,
    /// The store does not know the lease any more.
    #[error("the lease is gone")]
    LeaseGone,
    /// Somebody deleted the key.
    #[error("the key was deleted")]
    KeyGone,
    /// It was given up.
    #[error("it was given up")]
    Resigned,
    /// The store was closed.
    #[error("the store was closed")]
    Closed,
}
