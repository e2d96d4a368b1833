//! The store as a double: a map.

use std::collections::BTreeMap;

use crate::api::batch::{RevisionRecord, WriteBatch};
use crate::api::ids::Revision;
use crate::api::pb::mvccpb::KeyValue;
use crate::api::refusal::Corrupt;
use crate::api::view::View;

/// A store in memory: every revision of the batches it was given.
#[derive(Clone, Debug, Default)]
pub struct MemoryView {
    revisions: BTreeMap<Revision, RevisionRecord>,
}

impl MemoryView {
    /// Takes what a batch added to history.
    pub fn commit(&mut self, batch: &WriteBatch) {
        for record in &batch.revisions {
            let stored = RevisionRecord { prev: None, ..record.clone() };
            self.revisions.insert(record.revision, stored);
        }
    }

    /// Drops what a compaction step named.
    pub fn drop_revisions(&mut self, dead: &[Revision]) {
        for revision in dead {
            self.revisions.remove(revision);
        }
    }

    /// Every revision stored, ascending.
    pub fn records(&self) -> impl Iterator<Item = &RevisionRecord> {
        self.revisions.values()
    }
}

impl View for MemoryView {
    fn key_value(&self, revision: Revision) -> Result<KeyValue, Corrupt> {
        let record = self.revisions.get(&revision);
        let record = record.ok_or_else(|| Corrupt::BadRevision {
            revision: revision.to_string(),
            reason: "absent".to_owned(),
        })?;
        Ok(record.kv.as_ref().clone())
    }

    fn scan(&self, from: Revision, max_bytes: usize) -> Result<Vec<RevisionRecord>, Corrupt> {
        let mut found: Vec<RevisionRecord> = Vec::new();
        let mut bytes = 0;
        for (revision, record) in self.revisions.range(from..) {
            let other_main = found.last().is_some_and(|last| last.revision.main != revision.main);
            if other_main && bytes >= max_bytes {
                break;
            }
            bytes += record.kv.key.len() + record.kv.value.len();
            found.push(record.clone());
        }
        Ok(found)
    }
}
