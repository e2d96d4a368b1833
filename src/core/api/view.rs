//! How the core reads what memory does not hold: by this small trait. Writes leave as data ([`super::batch`]).

use super::batch::RevisionRecord;
use super::ids::Revision;
use super::pb::mvccpb::KeyValue;
use super::refusal::Corrupt;

/// Committed history, by revision. Immutable below the newest revision, so any number of readers may hold one.
pub trait View {
    /// The key-value written at `revision`. Only asked for revisions that the index lists: one that is absent
    /// or damaged is [`Corrupt::BadRevision`], never a silent gap.
    fn key_value(&self, revision: Revision) -> Result<KeyValue, Corrupt>;

    /// Stored revisions from `from` on in revision order, tombstones included, until about `max_bytes` of content
    /// (at least one whole main revision, never a part of one). Empty only when nothing is stored at or above
    /// `from`. Revisions that a compaction has dropped are absent; some of those it will drop may be present.
    fn scan(&self, from: Revision, max_bytes: usize) -> Result<Vec<RevisionRecord>, Corrupt>;
}
