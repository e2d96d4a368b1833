//! What the hub reads of the past, by a small trait: the keyspace implements it over its store and its index.

use quorate_core::api::batch::RevisionRecord;
use quorate_core::api::ids::Revision;
use quorate_core::api::pb::mvccpb::KeyValue;
use quorate_core::api::refusal::Corrupt;

/// Committed history. Called from blocking threads, outside every lock of the hub; may read a disk.
///
/// It shows every revision that has been published, and may show later ones. [`super::WatchHub::compacted`] is called
/// before a revision that the compaction drops disappears from here.
pub trait History: Send + Sync + 'static {
    /// As `quorate_core::api::view::View::scan`.
    fn scan(&self, from: Revision, max_bytes: usize) -> Result<Vec<RevisionRecord>, Corrupt>;

    /// As `quorate_core::api::view::View::key_value`.
    fn key_value(&self, revision: Revision) -> Result<KeyValue, Corrupt>;

    /// The key-value that `key` had at the main revision `revision`; `None` when it had none. Asked for revisions at
    /// or above the compact revision; one that was compacted in between may answer anything.
    fn value_at(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, Corrupt>;
}
