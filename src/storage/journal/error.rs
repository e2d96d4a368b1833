//! Why the journal says no.

use std::io;
use std::sync::Arc;

use quorate_core::api::ids::LogId;

/// An error of the journal. Cheap to clone: a failed write reaches every caller that waited for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// The device failed. When it happened in a live segment the journal is poisoned from here on.
    #[error("journal: {what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The device's own words.
        source: Arc<io::Error>,
    },
    /// An earlier failure; nothing is written until the journal is opened anew.
    #[error("journal stopped by an earlier failure: {cause}")]
    Poisoned {
        /// That failure.
        cause: String,
    },
    /// Bytes that were acknowledged are damaged. The member must not start, or must stop.
    #[error(
        "journal damaged: {file} at byte {offset}: {reason}; do not start this member with an emptied \
         directory under its old id: remove it and join under a new id, or restore a backup"
    )]
    Damaged {
        /// The file's name in the journal's folder.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The journal that this data directory belongs to is not there.
    #[error(
        "journal lost: the data directory belongs to journal {expected}, but its journal folder holds no segment; \
         remove this member and join under a new id, or restore a backup"
    )]
    Lost {
        /// The journal expected.
        expected: JournalId,
    },
    /// The folder holds the journal of another data directory.
    #[error(
        "journal {found} found where {expected} belongs: the journal folder is not this directory's"
    )]
    Foreign {
        /// The journal expected.
        expected: JournalId,
        /// The journal found.
        found: JournalId,
    },
    /// Written by a newer version.
    #[error("journal format {found} is newer than the {known} this version knows: upgrade")]
    Newer {
        /// The format found.
        found: u32,
        /// The newest one known.
        known: u32,
    },
    /// The call breaks a rule of the log; nothing was queued.
    #[error("journal refuses: {0}")]
    Refused(Violation),
    /// Entries that are gone from the log were asked for.
    #[error("log entries up to {purged} are purged, {asked} was asked for")]
    Purged {
        /// The last entry that is gone.
        purged: LogId,
        /// The first index asked for.
        asked: u64,
    },
    /// There is no room to prepare a segment.
    #[error("journal: no space left to prepare a segment")]
    NoSpace,
    /// The journal was closed.
    #[error("journal is closed")]
    Closed,
}

impl JournalError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> JournalError {
        let what = what.into();
        move |source| JournalError::Io { what, source: Arc::new(source) }
    }
}

/// A rule of the log that a call, or a record read back, breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum Violation {
    #[error("entry {found} does not follow {expected:?}")]
    NotContiguous { expected: Option<LogId>, found: LogId },
    #[error("vote of term {found} after one of term {held} that it does not supersede")]
    VoteLower { held: u64, found: u64 },
    #[error("truncation from {from} at or below the commit index {committed}")]
    TruncatesCommitted { from: u64, committed: u64 },
    #[error("truncation from {from}, which the log does not hold")]
    TruncatesAbsent { from: u64 },
    #[error("purge to {found} above the base {base:?}")]
    PurgeAboveBase { base: Option<LogId>, found: LogId },
    #[error("commit of {found} beyond or beside the log, which ends at {last:?}")]
    CommitAbsent { last: Option<LogId>, found: LogId },
    #[error("base at {found} after a base at {held:?}, in a log that ends at {last:?}")]
    BaseMisplaced { held: Option<LogId>, last: Option<LogId>, found: LogId },
    #[error("install of {found} beside entries committed up to {committed:?}")]
    InstallMisplaced { committed: Option<LogId>, found: LogId },
    #[error("a restated group state differs from the one held")]
    StateDiffers,
    #[error("an entry of {bytes} bytes, above the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
}

/// The journal's own id, drawn when it was created and kept in the directory's identity file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JournalId(pub [u8; 16]);

impl std::fmt::Display for JournalId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}
