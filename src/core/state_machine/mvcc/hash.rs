//! HashKV, bit for bit as etcd computes it (`server/storage/mvcc/hash.go`).
//!
//! ```text
//!   hash_begin(R) ─> HashScope ── hash_step (bounded, shared lock) ─> until done
//!                        └─> into_hash() ─> HashKv ── feed(record) in revision order ─> finish()
//! ```
//!
//! The hash at revision R with compact revision C is the CRC-32C over `key`, then over revision bytes and
//! marshalled key-value of each stored revision at or below R, where
//!
//! - one at or below C counts only if a compaction at R would keep it: the newest of its key, and no tombstone.
//!   If such a compaction would keep nothing at all, what a compaction at C has kept counts;
//! - a tombstone exactly at C never counts, because older etcds drop it.
//!
//! So the hash at R is the same before and after a compaction at R. One exception is etcd's own: the compaction
//! itself counts a tombstone exactly at R as kept, so its hash and the one asked for before differ when such
//! tombstones are all that a compaction at R keeps.

use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message;

use crate::api::batch::RevisionRecord;
use crate::api::ids::Revision;
use crate::api::pb::mvccpb::KeyValue;
use crate::api::refusal::Refusal;

use super::super::StateMachine;
use super::key_index::{KeyIndex, Packed};
use super::pins::Pin;
use super::span::Span;

/// How many finished compactions keep their hash (etcd `hashStorageMaxSize`).
const CACHED_MAX: usize = 10;

/// A hash and what it is the hash of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    /// CRC-32C.
    pub hash: u32,
    /// The compact revision it was computed with; -1 for none.
    pub compact_revision: i64,
    /// The revision up to which it counts.
    pub revision: i64,
}

/// Finds out which revisions at or below the compact revision count.
#[derive(Debug)]
pub struct HashScope {
    revision: i64,
    compact_revision: i64,
    next_key: Option<Bytes>,
    /// A tombstone exactly at `revision` counts as kept.
    keeps_tombstones: bool,
    /// Kept by a compaction at `revision`, of those at or below the compact revision.
    kept: Vec<Packed>,
    /// A compaction at `revision` keeps something, at whatever revision.
    keeps_any: bool,
    /// Kept by a compaction at the compact revision; wanted only while nothing else is kept.
    kept_before: Vec<Packed>,
    pin: Pin,
}

/// The hash under way.
#[derive(Debug)]
pub struct HashKv {
    revision: i64,
    compact_revision: i64,
    /// Revisions at or below the compact revision that count, ascending.
    counted: Vec<Packed>,
    place: usize,
    hash: u32,
    buffer: Vec<u8>,
    /// Holds compaction off what is still to be fed.
    _pin: Pin,
}

impl StateMachine {
    /// Starts a hash at `revision`, 0 for the newest, with the compact revision of now. A negative revision is the
    /// hash of nothing, in etcd too.
    pub fn hash_begin(&self, revision: i64) -> Result<HashScope, Refusal> {
        if revision > 0 && revision < self.mvcc.compact_revision {
            return Err(Refusal::Compacted);
        }
        if revision > self.mvcc.revision {
            return Err(Refusal::FutureRevision);
        }
        let revision = if revision == 0 { self.mvcc.revision } else { revision };
        Ok(self.hash_scope(self.mvcc.compact_revision, revision, false))
    }

    /// Starts the hash of a compaction from `previous` to `revision`, which members compare afterwards: with the
    /// compact revision before it. The caller pinned `previous` before it could be swept.
    pub fn hash_begin_compaction(&self, previous: i64, revision: i64) -> HashScope {
        self.hash_scope(previous, revision, true)
    }

    fn hash_scope(
        &self,
        compact_revision: i64,
        revision: i64,
        keeps_tombstones: bool,
    ) -> HashScope {
        HashScope {
            revision,
            compact_revision,
            next_key: Some(Bytes::new()),
            keeps_tombstones,
            kept: Vec::new(),
            keeps_any: false,
            kept_before: Vec::new(),
            pin: self.pin(compact_revision),
        }
    }

    /// Looks at up to `max_keys` more keys. `true` when it has seen them all.
    pub fn hash_step(&self, scope: &mut HashScope, max_keys: usize) -> bool {
        let Some(from) = scope.next_key.take() else {
            return true;
        };
        let mut left = max_keys.max(1);
        self.mvcc.index.visit(&Span::From(from, None), None, |key, index| {
            if left == 0 {
                scope.next_key = Some(Bytes::copy_from_slice(key));
                return ControlFlow::Break(());
            }
            left -= 1;
            scope.look_at(index);
            ControlFlow::Continue(())
        });
        scope.next_key.is_none()
    }
}

impl HashScope {
    fn look_at(&mut self, index: &KeyIndex) {
        let kept = index.alive_at(self.revision);
        if let Some(packed) = kept
            && packed.main() <= self.compact_revision
        {
            self.kept.push(packed);
        }
        self.keeps_any |=
            kept.is_some() || (self.keeps_tombstones && index.has_tombstone_at(self.revision));
        if self.keeps_any {
            self.kept_before = Vec::new();
        } else {
            let kept_before = index.alive_at(self.compact_revision);
            self.kept_before.extend(kept_before);
        }
    }

    /// The accumulator, once every key was seen.
    pub fn into_hash(self) -> HashKv {
        let mut counted = if self.keeps_any { self.kept } else { self.kept_before };
        counted.sort_unstable();
        HashKv {
            revision: self.revision,
            compact_revision: self.compact_revision,
            counted,
            place: 0,
            hash: crc32c::crc32c(b"key"),
            buffer: Vec::new(),
            _pin: self.pin,
        }
    }
}

impl HashKv {
    /// Takes the next stored revision; they come in ascending order. `false`: it lies beyond the hash's revision,
    /// and so does all that would follow.
    pub fn feed(&mut self, record: &RevisionRecord) -> bool {
        if record.revision.main > self.revision {
            return false;
        }
        if record.revision.main <= self.compact_revision && !self.counts(record) {
            return true;
        }
        self.buffer.clear();
        encode(record, &mut self.buffer);
        self.hash = crc32c::crc32c_append(self.hash, &self.buffer);
        true
    }

    fn counts(&mut self, record: &RevisionRecord) -> bool {
        let packed = Packed::new(record.revision, record.tombstone);
        while self.counted.get(self.place).is_some_and(|kept| *kept < packed) {
            self.place += 1;
        }
        self.counted.get(self.place) == Some(&packed)
    }

    /// The hash of all that was fed.
    pub fn finish(self) -> KvHash {
        KvHash { hash: self.hash, compact_revision: self.compact_revision, revision: self.revision }
    }
}

/// A revision as etcd stores it: the key of its row in the bucket `key`, then the marshalled key-value. A tombstone's
/// key-value has only the key.
fn encode(record: &RevisionRecord, buffer: &mut Vec<u8>) {
    encode_revision(record.revision, record.tombstone, buffer);
    let encoded = if record.tombstone {
        let bare = KeyValue { key: record.kv.key.clone(), ..KeyValue::default() };
        bare.encode(buffer)
    } else {
        record.kv.encode(buffer)
    };
    encoded.expect("a vector grows as needed");
}

/// etcd's revision bytes: main and sub big-endian around `_`, a tombstone marked by `t`.
pub fn encode_revision(revision: Revision, tombstone: bool, buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(&revision.main.to_be_bytes());
    buffer.push(b'_');
    buffer.extend_from_slice(&revision.sub.to_be_bytes());
    if tombstone {
        buffer.push(b't');
    }
}

/// The hashes of the newest finished compactions, which HashKV answers from first: members that have compacted
/// further can still compare (etcd `hashStorage`). In memory only.
#[derive(Clone, Debug, Default)]
pub struct HashCache {
    hashes: Vec<KvHash>,
}

impl HashCache {
    /// Keeps the hash of a finished compaction. Not for one that follows an interrupted one: its hash does not
    /// cover every revision since the last that finished.
    pub fn store(&mut self, hash: KvHash) {
        let place = self.hashes.partition_point(|cached| cached.revision <= hash.revision);
        self.hashes.insert(place, hash);
        if self.hashes.len() > CACHED_MAX {
            self.hashes.remove(0);
        }
    }

    /// The hash of a compaction at exactly `revision`.
    pub fn get(&self, revision: i64) -> Option<KvHash> {
        self.hashes.iter().find(|cached| cached.revision == revision).copied()
    }

    /// All of them, by revision.
    pub fn all(&self) -> &[KvHash] {
        &self.hashes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(revision: i64, hash: u32) -> KvHash {
        KvHash { hash, compact_revision: -1, revision }
    }

    #[test]
    fn the_ten_newest_compactions_keep_their_hash() {
        let mut cache = HashCache::default();
        for revision in 1..=12 {
            cache.store(hash(revision, revision as u32));
        }
        assert_eq!(cache.get(2), None);
        assert_eq!(cache.get(3), Some(hash(3, 3)));
        assert_eq!(cache.get(12), Some(hash(12, 12)));
        assert_eq!(cache.all().len(), 10);
        assert_eq!(cache.all()[0], hash(3, 3));
    }

    #[test]
    fn a_tombstone_is_marked_in_its_revision_bytes() {
        let mut bytes = Vec::new();
        encode_revision(Revision::new(258, 3), true, &mut bytes);
        assert_eq!(bytes, b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x03t");
    }
}
