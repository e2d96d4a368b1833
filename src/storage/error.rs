//! What the store answers instead of doing it.

use quorate_core::api::ids::{LogId, MemberId};
use quorate_core::api::refusal::Corrupt;

use super::base::BaseError;
use super::engine::EngineError;
use super::format::Malformed;
use super::journal::JournalError;

/// A store that works no more. The member stops with this as its last words.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An earlier failure; nothing is taken until the store is opened anew.
    #[error("store stopped: {0}")]
    Stopped(String),
    /// The state store failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The state store holds something that was not written to it; the next start rebuilds it.
    #[error("state store damaged: {0}")]
    Damaged(String),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A base could not be made.
    #[error("base: {0}")]
    Base(#[from] BaseError),
}

/// A defragmentation that was asked for has not been done; the store goes on as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DefragError(pub String);

impl From<Malformed> for StoreError {
    fn from(malformed: Malformed) -> Self {
        StoreError::Damaged(malformed.to_string())
    }
}

/// Why a store was not opened; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The base that the journal names is missing or damaged.
    #[error(
        "base {file} of group {group}: {source}; the truth is damaged: remove this member and let it join under a \
         new id, or restore a backup"
    )]
    Base {
        /// Its file name.
        file: String,
        /// Whose.
        group: u64,
        /// What is wrong.
        source: BaseError,
    },
    /// A base was written by a newer program.
    #[error("base {file} has format {found}: start the newer program again")]
    NewerBase {
        /// Its file name.
        file: String,
        /// Its format.
        found: u32,
    },
    /// The journal's own account of the group does not add up.
    #[error(
        "group {group}: {broken}; the journal is damaged: remove this member and let it join under a new id, or restore a backup"
    )]
    Invariant {
        /// Whose.
        group: u64,
        /// Which invariant.
        broken: String,
    },
    /// This member is to go on alone, and is none any more.
    #[error(
        "member {member} was removed from its cluster: no cluster can be made from its data; take a member that is in it"
    )]
    NotAMember {
        /// This member.
        member: MemberId,
    },
    /// A log entry could not be applied.
    #[error("log entry {at}: {source}")]
    Entry {
        /// Which.
        at: LogId,
        /// Why.
        source: Corrupt,
    },
    /// The operating system refused.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// Its answer.
        source: std::io::Error,
    },
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The freshly made store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
