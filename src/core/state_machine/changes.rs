//! What an entry has changed so far, and the rolling hash that runs along with every change.
//!
//! **Invariant:** the hash rolls once for each change, in order, and sees no log position: however commands are
//! packed into entries, it comes out the same after each of them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::api::batch::{LeaseChange, RecordChange, RevisionRecord, Space};
use crate::api::reply::TokenChange;

/// The changes of one entry while it is being applied.
pub(crate) struct Changes {
    pub(crate) revisions: Vec<RevisionRecord>,
    records: BTreeMap<(Space, Bytes), Option<Bytes>>,
    pub(crate) leases: Vec<LeaseChange>,
    pub(crate) tokens: Vec<TokenChange>,
    pub(crate) compacted_to: Option<i64>,
    hash: u64,
}

impl Changes {
    /// No changes yet; the hash goes on from `hash`.
    pub(crate) fn new(hash: u64) -> Changes {
        Changes {
            revisions: Vec::new(),
            records: BTreeMap::new(),
            leases: Vec::new(),
            tokens: Vec::new(),
            compacted_to: None,
            hash,
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Adds a revision to history.
    pub(crate) fn revision(&mut self, record: RevisionRecord) {
        let kv = &record.kv;
        self.roll(record.revision.main as u64);
        self.roll((record.revision.sub as u64) << 1 | u64::from(record.tombstone));
        self.roll_bytes(&kv.key);
        self.roll_bytes(&kv.value);
        self.roll(kv.create_revision as u64);
        self.roll(kv.version as u64);
        self.roll(kv.lease as u64);
        self.revisions.push(record);
    }

    /// Writes (`Some`) or removes (`None`) a record that is part of the replicated state.
    pub(crate) fn record(&mut self, space: Space, key: Bytes, value: Option<Bytes>) {
        self.roll(space as u64);
        self.roll_bytes(&key);
        match &value {
            Some(value) => self.roll_bytes(value),
            None => self.roll(u64::MAX),
        }
        self.record_unhashed(space, key, value);
    }

    /// Writes a record that depends on how commands were packed: counters and log positions.
    pub(crate) fn record_unhashed(&mut self, space: Space, key: Bytes, value: Option<Bytes>) {
        self.records.insert((space, key), value);
    }

    /// Moves the compact revision.
    pub(crate) fn compacted(&mut self, to: i64) {
        self.roll(COMPACTED);
        self.roll(to as u64);
        self.compacted_to = Some(to);
    }

    /// Lets a fact without a record of its own into the hash.
    pub(crate) fn roll_fact(&mut self, kind: u64, fact: u64) {
        self.roll(kind);
        self.roll(fact);
    }

    fn roll_bytes(&mut self, bytes: &[u8]) {
        self.roll((bytes.len() as u64) << 32 ^ u64::from(crc32c::crc32c(bytes)));
    }

    /// splitmix64's finalizer over the hash and the next word.
    fn roll(&mut self, word: u64) {
        let mut mixed = self.hash.rotate_left(5) ^ word;
        mixed = mixed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.hash = mixed ^ (mixed >> 31);
    }

    /// The records, one change a key, in order.
    pub(crate) fn take_records(&mut self) -> Vec<RecordChange> {
        std::mem::take(&mut self.records)
            .into_iter()
            .map(|((space, key), value)| RecordChange { space, key, value })
            .collect()
    }
}

/// Marks a compaction in the hash; no space has this number.
const COMPACTED: u64 = 0x100;
/// Marks a new cluster level in the hash.
pub(crate) const LEVEL: u64 = 0x101;
