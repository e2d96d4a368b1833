//! What the clients were told, and what a restarted member must therefore hold.
//!
//! ```text
//!  put k ──▶ Asked ── answered ──▶ Held ── delete asked ──▶ Leaving ── answered ──▶ gone from the ledger
//!              └─ cut: either is right; the restart decides ┘   └─ cut: likewise ┘
//! ```
//!
//! Every key is written once, so its version is 1 and its value follows from its name. A key that the member holds
//! and the ledger does not is a ghost: deleted, never written, or decided to be absent by an earlier restart.
//!
//! **Invariant:** after [`Ledger::reconcile`] every record is `Held`: each restart settles what the cut left open.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::pb::mvccpb::KeyValue;

/// Seconds: no lease of these tests runs out.
pub(crate) const LEASE_TTL: i64 = 86_400;
/// How many findings of one kind and restart are spelled out.
const FINDINGS_MAX: usize = 8;
/// Hashes remembered at most, the newest.
const HASHES_MAX: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Asked,
    Held,
    Leaving,
}

#[derive(Debug, Clone)]
struct Record {
    standing: Standing,
    /// 0 until it is known.
    revision: i64,
    lease: i64,
    life: u32,
    /// The other key of the same transaction.
    pair: Option<Bytes>,
}

/// HashKV as it was answered for a revision that had been acknowledged before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HashMark {
    pub(crate) revision: i64,
    pub(crate) compact_revision: i64,
    pub(crate) hash: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    keys: BTreeMap<Bytes, Record>,
    leases: BTreeMap<i64, Standing>,
    /// The highest revision that an answer showed.
    pub(crate) revision: i64,
    /// The highest term that Status showed.
    pub(crate) term: u64,
    /// The highest applied index that Status showed after a linearizable read.
    pub(crate) applied_index: u64,
    /// The compaction that was answered last.
    pub(crate) compacted: i64,
    /// The compaction that was asked for last.
    pub(crate) compaction_asked: i64,
    /// Newest last.
    pub(crate) hashes: Vec<HashMark>,
    /// Writes answered so far, of every kind.
    pub(crate) acknowledged: u64,
}

// === impl Ledger: what clients do ===

impl Ledger {
    pub(crate) fn ask(&mut self, life: u32, keys: &[Bytes], lease: i64) {
        for (index, key) in keys.iter().enumerate() {
            let pair = keys.get(index ^ 1).cloned();
            let record = Record { standing: Standing::Asked, revision: 0, lease, life, pair };
            self.keys.insert(key.clone(), record);
        }
    }

    pub(crate) fn held(&mut self, keys: &[Bytes], revision: i64) {
        for key in keys {
            if let Some(record) = self.keys.get_mut(key) {
                record.standing = Standing::Held;
                record.revision = revision;
            }
        }
        self.answered(revision);
    }

    /// Some key of this life that is surely there, belongs to no lease and to no other client.
    pub(crate) fn pick(&self, prefix: &str, skip: usize) -> Option<Bytes> {
        let own = self.keys.range(Bytes::copy_from_slice(prefix.as_bytes())..);
        let mut own = own
            .take_while(|(key, _)| key.starts_with(prefix.as_bytes()))
            .filter(|(_, record)| record.standing == Standing::Held && record.lease == 0);
        own.nth(skip).map(|(key, _)| key.clone())
    }

    pub(crate) fn leaving(&mut self, key: &Bytes) {
        if let Some(record) = self.keys.get_mut(key) {
            record.standing = Standing::Leaving;
        }
    }

    pub(crate) fn gone(&mut self, key: &Bytes, revision: i64) {
        self.keys.remove(key);
        self.answered(revision);
    }

    /// Marks every key of a life and of those before it as leaving, and says how many there are.
    pub(crate) fn lives_leaving(&mut self, last: u32) -> i64 {
        let of_life = self.keys.values_mut().filter(|record| record.life <= last);
        let mut count = 0;
        for record in of_life.filter(|record| record.standing == Standing::Held) {
            record.standing = Standing::Leaving;
            count += 1;
        }
        count
    }

    pub(crate) fn lives_gone(&mut self, last: u32, revision: i64) {
        self.keys.retain(|_, record| record.life > last);
        self.answered(revision);
    }

    pub(crate) fn ask_lease(&mut self, id: i64) {
        self.leases.insert(id, Standing::Asked);
    }

    pub(crate) fn lease_held(&mut self, id: i64) {
        self.leases.insert(id, Standing::Held);
        self.acknowledged += 1;
    }

    /// A lease is asked to go, and its keys with it.
    pub(crate) fn lease_leaving(&mut self, id: i64) {
        self.leases.insert(id, Standing::Leaving);
        for record in self.keys.values_mut().filter(|record| record.lease == id) {
            record.standing = Standing::Leaving;
        }
    }

    pub(crate) fn lease_gone(&mut self, id: i64, revision: i64) {
        self.leases.remove(&id);
        self.keys.retain(|_, record| record.lease != id);
        self.answered(revision);
    }

    pub(crate) fn remember_hash(&mut self, mark: HashMark) {
        self.hashes.push(mark);
        if self.hashes.len() > HASHES_MAX {
            self.hashes.remove(0);
        }
    }

    fn answered(&mut self, revision: i64) {
        self.revision = self.revision.max(revision);
        self.acknowledged += 1;
    }

    /// Keys that are surely there.
    pub(crate) fn held_keys(&self) -> u64 {
        self.keys.values().filter(|record| record.standing == Standing::Held).count() as u64
    }
}

// === impl Ledger: what a restart shows ===

impl Ledger {
    /// Compares everything that the member holds with what it must; settles the open ones.
    pub(crate) fn reconcile(&mut self, found: &[KeyValue], leases: &[i64]) -> Vec<String> {
        let mut findings = Vec::new();
        let present: BTreeMap<&Bytes, &KeyValue> = found.iter().map(|kv| (&kv.key, kv)).collect();
        for kv in found {
            match self.keys.get(&kv.key) {
                None => findings.push(format!(
                    "{}: is there, but was deleted or never written (mod revision {})",
                    show(&kv.key),
                    kv.mod_revision
                )),
                Some(record) => findings.extend(compare(record, kv)),
            }
        }
        for (key, record) in &self.keys {
            let here = present.contains_key(key);
            if !here && record.standing == Standing::Held {
                let revision = record.revision;
                findings.push(format!("{}: lost, acknowledged at revision {revision}", show(key)));
            }
            let half = record.pair.as_ref().is_some_and(|pair| present.contains_key(pair) != here);
            if half && record.standing == Standing::Asked {
                findings.push(format!("{}: half of its transaction", show(key)));
            }
        }
        self.settle(&present);
        let mut findings = shorten(findings);
        findings.extend(shorten(self.reconcile_leases(leases)));
        findings
    }

    fn reconcile_leases(&mut self, leases: &[i64]) -> Vec<String> {
        let present: BTreeSet<i64> = leases.iter().copied().collect();
        let mut findings = Vec::new();
        for id in &present {
            if !self.leases.contains_key(id) {
                findings.push(format!("lease {id}: is there, but was revoked or never granted"));
            }
        }
        for (id, standing) in &self.leases {
            if *standing == Standing::Held && !present.contains(id) {
                findings.push(format!("lease {id}: lost"));
            }
        }
        self.leases.retain(|id, _| present.contains(id));
        self.leases.values_mut().for_each(|standing| *standing = Standing::Held);
        findings
    }

    fn settle(&mut self, present: &BTreeMap<&Bytes, &KeyValue>) {
        self.keys.retain(|key, record| match present.get(key) {
            Some(kv) => {
                record.standing = Standing::Held;
                record.revision = kv.mod_revision;
                record.pair = None;
                true
            }
            None => false,
        });
    }
}

fn compare(record: &Record, kv: &KeyValue) -> Vec<String> {
    let key = show(&kv.key);
    let mut findings = Vec::new();
    if kv.version != 1 || kv.create_revision != kv.mod_revision {
        findings.push(format!(
            "{key}: version {}, created at {}, modified at {}; it was written once",
            kv.version, kv.create_revision, kv.mod_revision
        ));
    }
    if record.revision != 0 && record.revision != kv.mod_revision {
        let told = record.revision;
        findings.push(format!("{key}: at revision {}, answered {told}", kv.mod_revision));
    }
    if kv.value != value_of(&kv.key) {
        findings.push(format!("{key}: another value ({} bytes)", kv.value.len()));
    }
    if kv.lease != record.lease {
        findings.push(format!("{key}: lease {}, put with {}", kv.lease, record.lease));
    }
    findings
}

fn show(key: &Bytes) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn shorten(mut findings: Vec<String>) -> Vec<String> {
    let more = findings.len().saturating_sub(FINDINGS_MAX);
    findings.truncate(FINDINGS_MAX);
    if more > 0 {
        findings.push(format!("and {more} more"));
    }
    findings
}

/// A key's value: bytes that do not compress, most often short, one in 64 some tens of KiB.
pub(crate) fn value_of(key: &[u8]) -> Bytes {
    let mut state = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let long = next() % 64 == 0;
    let words = if long { 2048 + next() % 4096 } else { 2 + next() % 64 };
    (0..words).flat_map(|_| next().to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Bytes {
        Bytes::copy_from_slice(name.as_bytes())
    }

    fn stored(name: &str, revision: i64) -> KeyValue {
        KeyValue {
            key: key(name),
            value: value_of(name.as_bytes()),
            version: 1,
            create_revision: revision,
            mod_revision: revision,
            lease: 0,
        }
    }

    fn acknowledged(names: &[&str], revision: i64) -> Ledger {
        let mut ledger = Ledger::default();
        let keys: Vec<Bytes> = names.iter().map(|name| key(name)).collect();
        ledger.ask(1, &keys, 0);
        ledger.held(&keys, revision);
        ledger
    }

    #[test]
    fn an_acknowledged_key_must_be_there_as_it_was_told() {
        assert!(acknowledged(&["a"], 5).reconcile(&[stored("a", 5)], &[]).is_empty());
        assert_eq!(acknowledged(&["a"], 5).reconcile(&[], &[]).len(), 1);
        assert_eq!(acknowledged(&["a"], 5).reconcile(&[stored("a", 6)], &[]).len(), 1);
        let twice = KeyValue { version: 2, ..stored("a", 5) };
        assert_eq!(acknowledged(&["a"], 5).reconcile(&[twice], &[]).len(), 1);
        let other = KeyValue { value: key("x"), ..stored("a", 5) };
        assert_eq!(acknowledged(&["a"], 5).reconcile(&[other], &[]).len(), 1);
    }

    #[test]
    fn an_unanswered_put_may_be_there_or_not_but_then_for_good() {
        let mut ledger = Ledger::default();
        ledger.ask(1, &[key("a")], 0);
        assert!(ledger.reconcile(&[], &[]).is_empty());
        assert_eq!(ledger.reconcile(&[stored("a", 5)], &[]).len(), 1, "a ghost");

        let mut ledger = Ledger::default();
        ledger.ask(1, &[key("a")], 0);
        assert!(ledger.reconcile(&[stored("a", 5)], &[]).is_empty());
        assert_eq!(ledger.reconcile(&[], &[]).len(), 1, "lost");
    }

    #[test]
    fn an_unanswered_transaction_is_whole_or_absent() {
        let mut ledger = Ledger::default();
        ledger.ask(1, &[key("a"), key("b")], 0);
        assert_eq!(ledger.reconcile(&[stored("a", 5)], &[]).len(), 2, "one line for each half");
    }

    #[test]
    fn a_deleted_key_stays_away() {
        let mut ledger = acknowledged(&["a"], 5);
        ledger.leaving(&key("a"));
        ledger.gone(&key("a"), 6);
        assert_eq!(ledger.reconcile(&[stored("a", 5)], &[]).len(), 1);
    }

    #[test]
    fn leases_are_held_and_revoked_ones_stay_away() {
        let mut ledger = Ledger::default();
        ledger.ask_lease(7);
        ledger.lease_held(7);
        assert_eq!(ledger.reconcile(&[], &[]).len(), 1);
        ledger.ask_lease(8);
        assert!(ledger.reconcile(&[], &[8]).is_empty());
        ledger.lease_leaving(8);
        ledger.lease_gone(8, 9);
        assert_eq!(ledger.reconcile(&[], &[8]).len(), 1);
    }
}
