//! One event, shared by all who get it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use quorate_core::api::batch::RevisionRecord;
use quorate_core::api::ids::Revision;
use quorate_core::api::pb::mvccpb::event::EventType;
use quorate_core::api::pb::mvccpb::{self, KeyValue};
use quorate_core::api::refusal::Corrupt;

use super::history::History;

/// A change of one key. The key-value is shared with the index and every watcher; the previous one is read at most
/// once, when the first watcher that asked for it is about to be answered.
#[derive(Debug)]
pub(super) struct Event {
    record: RevisionRecord,
    prev: Prev,
    prev_value: OnceLock<Option<Arc<KeyValue>>>,
}

/// Where the previous key-value is found.
#[derive(Clone, Copy, Debug)]
enum Prev {
    /// There was none.
    Absent,
    /// At this revision.
    At(Revision),
    /// Whatever the key had one main revision before.
    Before,
}

impl Event {
    /// An event as it is published: the record tells what came before it.
    pub(super) fn published(record: &RevisionRecord) -> Event {
        let prev = match record.prev {
            None => Prev::Absent,
            Some(at) if at.main < record.revision.main => Prev::At(at),
            Some(_) => Prev::Before,
        };
        Event::new(record.clone(), prev)
    }

    /// An event read back from history, which does not tell what came before it.
    pub(super) fn scanned(record: RevisionRecord) -> Event {
        let created = !record.tombstone && record.kv.create_revision == record.kv.mod_revision;
        let prev = if created { Prev::Absent } else { Prev::Before };
        Event::new(record, prev)
    }

    fn new(record: RevisionRecord, prev: Prev) -> Event {
        Event { record, prev, prev_value: OnceLock::new() }
    }

    /// The main revision.
    pub(super) fn revision(&self) -> i64 {
        self.record.revision.main
    }

    pub(super) fn key(&self) -> &Bytes {
        &self.record.kv.key
    }

    pub(super) fn is_delete(&self) -> bool {
        self.record.tombstone
    }

    /// Bytes of key and value.
    pub(super) fn size(&self) -> usize {
        self.record.kv.key.len() + self.record.kv.value.len()
    }

    /// The previous key-value has to be read before it can be told.
    pub(super) fn wants_prev(&self) -> bool {
        match self.prev {
            Prev::Absent => false,
            Prev::At(_) | Prev::Before => self.prev_value.get().is_none(),
        }
    }

    /// Reads the previous key-value. `compacted` tells the compact revision now: below it the past is silently
    /// absent, as in etcd, even when the compaction came while we read.
    pub(super) fn read_prev(
        &self,
        history: &dyn History,
        compacted: impl Fn() -> i64,
    ) -> Result<(), Corrupt> {
        if !self.wants_prev() {
            return Ok(());
        }
        let before = self.revision() - 1;
        let read = if before < compacted() {
            Ok(None)
        } else {
            match self.prev {
                Prev::Absent => Ok(None),
                Prev::At(at) => history.key_value(at).map(Some),
                Prev::Before => history.value_at(self.key(), before),
            }
        };
        let value = match read {
            _ if before < compacted() => None,
            Ok(value) => value,
            Err(corrupt) => return Err(corrupt),
        };
        // Another stream may have been first with the same answer.
        let _ = self.prev_value.set(value.map(Arc::new));
        Ok(())
    }

    /// The message, with the previous key-value if it is asked for, known and not `compacted` since it was read for
    /// another watcher. Keys and values are shared, not copied.
    pub(super) fn message(&self, with_prev: bool, compacted: i64) -> mvccpb::Event {
        let kind = if self.record.tombstone { EventType::Delete } else { EventType::Put };
        let kv = if self.record.tombstone {
            KeyValue {
                key: self.record.kv.key.clone(),
                mod_revision: self.record.revision.main,
                ..KeyValue::default()
            }
        } else {
            KeyValue::clone(&self.record.kv)
        };
        let there = with_prev && self.revision() > compacted;
        let prev = there.then(|| self.prev_value.get()).flatten();
        mvccpb::Event {
            r#type: kind.into(),
            kv: Some(kv),
            prev_kv: prev.and_then(Option::as_ref).map(|kv| KeyValue::clone(kv)),
        }
    }
}
