//! One key's revisions, as tight as they come.
//!
//! **Invariant:** revisions ascend; versions and create revisions are derived, never stored a revision.

use std::sync::Arc;

use crate::api::ids::Revision;
use crate::api::pb::mvccpb::KeyValue;

/// A revision in 12 bytes: 64 bits of main, 31 of sub, and whether it is a tombstone in the lowest bit, so that
/// packed revisions compare like the revisions they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Packed {
    main_high: u32,
    main_low: u32,
    sub_and_tombstone: u32,
}

impl Packed {
    /// Subs end here: far above the keys that memory could hold, and with them the changes of one transaction.
    pub(crate) const SUB_END: i64 = 1 << 31;

    /// Packs `revision`, whose main is not negative and whose sub is below [`Packed::SUB_END`].
    pub(crate) fn new(revision: Revision, tombstone: bool) -> Packed {
        debug_assert!(revision.main >= 0 && revision.sub >= 0 && revision.sub < Packed::SUB_END);
        let main = revision.main as u64;
        Packed {
            main_high: (main >> 32) as u32,
            main_low: main as u32,
            sub_and_tombstone: ((revision.sub as u32) << 1) | u32::from(tombstone),
        }
    }

    pub(crate) fn main(self) -> i64 {
        ((u64::from(self.main_high) << 32) | u64::from(self.main_low)) as i64
    }

    pub(crate) fn is_tombstone(self) -> bool {
        self.sub_and_tombstone & 1 == 1
    }

    pub(crate) fn revision(self) -> Revision {
        Revision::new(self.main(), i64::from(self.sub_and_tombstone >> 1))
    }
}

/// What a key was at some revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    /// Where its value was written.
    pub(crate) revision: Revision,
    /// The main revision that created this generation of it.
    pub(crate) create_revision: i64,
    /// Puts since then, from 1.
    pub(crate) version: i64,
}

/// All that the index knows of one key (after etcd `server/storage/mvcc/key_index.go`).
///
/// A **generation** is a life of the key, from the put that creates it to the tombstone that ends it. All
/// generations stand in one ascending chain; where a tombstone ends one, the next revision starts another.
///
/// ```text
///   put at 2, put at 3, delete at 5, put at 7:
///
///     chain      2      3      5t  |  7            first_created 2, first_version 1
///     version    1      2          |  1            counted from the generation's start
///     created    2      2          |  7
///
///   read at 1: absent   at 2: 2   at 4: 3   at 5 and 6: absent   at 7: 7
///
///   compact 4: 3 is the newest at 4 and alive, it stays; 2 is dead
///     chain      3      5t  |  7                   first_created 2, first_version 2
///   compact 5: the tombstone is exactly at 5, it stays (etcd since 3.5.16); 3 is dead
///     chain      5t  |  7
///   compact 6: the tombstone is older than 6 and dead
///     chain      7                                 first_created 7, first_version 1
///
///   had 7 never come, compact 6 would leave nothing, and the key would leave the index.
/// ```
pub(crate) struct KeyIndex {
    chain: Chain,
    /// The create revision of the generation that the first revision belongs to.
    first_created: i64,
    /// The version of the first revision within that generation.
    first_version: i64,
    /// The lease of the newest revision; 0 for none or when the key is dead.
    lease: i64,
    /// The newest key-value, while the budget keeps it in memory.
    hot: Option<Arc<KeyValue>>,
}

/// Most keys have one revision, and pay for one.
enum Chain {
    One(Packed),
    Many(Box<Many>),
}

struct Many {
    revisions: Vec<Packed>,
    /// The places of the tombstones, ascending, so that a generation is found without walking it.
    tombstones: Vec<u32>,
}

impl KeyIndex {
    /// A key whose first known revision is `first`, written as version `version` of a generation created at
    /// `created`. A tombstone may come first: what it ended has been compacted.
    pub(crate) fn new(
        first: Packed,
        created: i64,
        version: i64,
        lease: i64,
        hot: Option<Arc<KeyValue>>,
    ) -> KeyIndex {
        KeyIndex {
            chain: Chain::One(first),
            first_created: created,
            first_version: version,
            lease,
            hot,
        }
    }

    fn revisions(&self) -> &[Packed] {
        match &self.chain {
            Chain::One(one) => std::slice::from_ref(one),
            Chain::Many(many) => &many.revisions,
        }
    }

    /// The newest revision, tombstones included.
    pub(crate) fn newest(&self) -> Packed {
        match &self.chain {
            Chain::One(one) => *one,
            Chain::Many(many) => *many.revisions.last().expect("a chain is never empty"),
        }
    }

    /// The key is there now.
    pub(crate) fn is_alive(&self) -> bool {
        !self.newest().is_tombstone()
    }

    pub(crate) fn lease(&self) -> i64 {
        self.lease
    }

    /// The newest key-value if it is in memory and is the one at `revision`.
    pub(crate) fn hot_at(&self, revision: Revision) -> Option<&Arc<KeyValue>> {
        self.hot.as_ref().filter(|_| self.newest().revision() == revision)
    }

    /// Takes the value out of memory; says which it was.
    pub(crate) fn cool(&mut self) -> Option<Arc<KeyValue>> {
        self.hot.take()
    }

    /// Keeps `kv`, the value of `revision`, in memory if it is the newest and not there yet.
    pub(crate) fn warm(&mut self, revision: Revision, kv: &Arc<KeyValue>) -> bool {
        let newest = self.newest();
        if self.hot.is_some() || newest.is_tombstone() || newest.revision() != revision {
            return false;
        }
        self.hot = Some(Arc::clone(kv));
        true
    }

    /// Appends a revision, newer than all before it, and its value if that is to stay in memory.
    pub(crate) fn push(&mut self, packed: Packed, lease: i64, hot: Option<Arc<KeyValue>>) {
        debug_assert!(packed > self.newest(), "revisions only rise");
        self.lease = lease;
        self.hot = hot;
        match &mut self.chain {
            Chain::One(one) => {
                let tombstones = if one.is_tombstone() { vec![0] } else { Vec::new() };
                let mut many = Many { revisions: vec![*one], tombstones };
                many.push(packed);
                self.chain = Chain::Many(Box::new(many));
            }
            Chain::Many(many) => many.push(packed),
        }
    }

    /// What the key was at main revision `at`, or `None` if it was absent.
    pub(crate) fn get(&self, at: i64) -> Option<At> {
        let place = self.place_at(at)?;
        let packed = self.revisions()[place];
        (!packed.is_tombstone()).then(|| self.describe(place, packed))
    }

    /// What the key is now.
    pub(crate) fn get_newest(&self) -> Option<At> {
        let packed = self.newest();
        let place = self.revisions().len() - 1;
        (!packed.is_tombstone()).then(|| self.describe(place, packed))
    }

    /// The place of the newest revision at or below main revision `at`.
    fn place_at(&self, at: i64) -> Option<usize> {
        let revisions = self.revisions();
        if self.newest().main() <= at {
            return Some(revisions.len() - 1);
        }
        revisions.partition_point(|packed| packed.main() <= at).checked_sub(1)
    }

    fn describe(&self, place: usize, packed: Packed) -> At {
        let (create_revision, version) = match self.generation_start(place) {
            None => (self.first_created, self.first_version + place as i64),
            Some(start) => (self.revisions()[start].main(), (place - start) as i64 + 1),
        };
        At { revision: packed.revision(), create_revision, version }
    }

    /// Where the generation of the revision at `place` starts; `None` if it is the first known one.
    fn generation_start(&self, place: usize) -> Option<usize> {
        let Chain::Many(many) = &self.chain else {
            return None;
        };
        let before = many.tombstones.partition_point(|tombstone| (*tombstone as usize) < place);
        before.checked_sub(1).map(|last| many.tombstones[last] as usize + 1)
    }

    /// The revision at which the key lives at main revision `at`, if it does.
    pub(crate) fn alive_at(&self, at: i64) -> Option<Packed> {
        let packed = self.revisions()[self.place_at(at)?];
        (!packed.is_tombstone()).then_some(packed)
    }

    /// The newest revision at or below main revision `at` is a tombstone exactly there.
    pub(crate) fn has_tombstone_at(&self, at: i64) -> bool {
        self.place_at(at).is_some_and(|place| {
            let packed = self.revisions()[place];
            packed.is_tombstone() && packed.main() == at
        })
    }

    /// Drops what a compaction at `at` no longer needs, and adds it to `dead`, oldest first. `false`: nothing is
    /// left, the key leaves the index.
    pub(crate) fn compact(&mut self, at: i64, dead: &mut Vec<Revision>) -> bool {
        let Some(place) = self.place_at(at) else {
            return true;
        };
        let packed = self.revisions()[place];
        let gone = if packed.is_tombstone() && packed.main() < at { place + 1 } else { place };
        if gone == 0 {
            return true;
        }
        dead.extend(self.revisions()[..gone].iter().map(|dead| dead.revision()));
        if gone == self.revisions().len() {
            return false;
        }
        self.forget_before(gone);
        true
    }

    fn forget_before(&mut self, gone: usize) {
        let (created, version) = match self.generation_start(gone) {
            None => (self.first_created, self.first_version + gone as i64),
            Some(start) => (self.revisions()[start].main(), (gone - start) as i64 + 1),
        };
        self.first_created = created;
        self.first_version = version;
        let Chain::Many(many) = &mut self.chain else {
            unreachable!("a chain of one has nothing before its only revision");
        };
        if many.revisions.len() - gone == 1 {
            let last = *many.revisions.last().expect("a chain is never empty");
            self.chain = Chain::One(last);
            return;
        }
        many.revisions.drain(..gone);
        many.tombstones.retain(|place| *place as usize >= gone);
        for place in &mut many.tombstones {
            *place -= gone as u32;
        }
        if many.revisions.capacity() > 2 * many.revisions.len() {
            many.revisions.shrink_to_fit();
            many.tombstones.shrink_to_fit();
        }
    }
}

impl Many {
    fn push(&mut self, packed: Packed) {
        if packed.is_tombstone() {
            self.tombstones.push(self.revisions.len() as u32);
        }
        self.revisions.push(packed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_revisions_compare_as_revisions() {
        let ascending = [
            (Revision::new(0, 0), false),
            (Revision::new(1, 0), true),
            (Revision::new(1, 1), false),
            (Revision::new(1, 2), true),
            (Revision::new(1 << 32, 0), false),
            (Revision::new(1 << 32, (1 << 31) - 1), false),
            (Revision::new(i64::MAX, 0), false),
        ];
        let packed = ascending.map(|(revision, tombstone)| Packed::new(revision, tombstone));
        assert!(packed.is_sorted());
        for (packed, (revision, tombstone)) in packed.iter().zip(ascending) {
            assert_eq!((packed.revision(), packed.is_tombstone()), (revision, tombstone));
        }
    }

    /// A million keys are held in memory; what each costs is a promise.
    #[test]
    fn a_key_of_one_revision_takes_48_bytes() {
        assert_eq!(size_of::<Packed>(), 12);
        assert_eq!(size_of::<KeyIndex>(), 48);
    }
}
