//! Every key with its revisions, in key order, and the newest values of live keys up to a byte budget.
//!
//! **Invariant:** which values are in memory changes no answer: what is cold is read through the view.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use crate::api::ids::Revision;
use crate::api::pb::mvccpb::KeyValue;

use super::key_index::{At, KeyIndex, Packed};
use super::span::Span;

/// What a hot value costs beside its bytes: the shared key-value, its counters, the allocator's rounding.
const HOT_OVERHEAD: usize = 176;
/// How many keys one write may look at to make room for its value.
const ROOM_VISITS: usize = 48;

/// The index.
pub(crate) struct Index {
    keys: BTreeMap<Box<[u8]>, KeyIndex>,
    /// Keys that are there now.
    alive: usize,
    budget_bytes: usize,
    hot_bytes: usize,
    /// Where the search for values to cool goes on: a hand going round in key order.
    hand: Box<[u8]>,
}

/// A live key as the index knows it.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) at: At,
    pub(crate) lease: i64,
    pub(crate) hot: Option<Arc<KeyValue>>,
}

impl Index {
    pub(crate) fn new(budget_bytes: usize) -> Index {
        Index { keys: BTreeMap::new(), alive: 0, budget_bytes, hot_bytes: 0, hand: Box::default() }
    }

    /// Keys known, dead ones that compaction has not dropped yet included.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Keys that are there now.
    pub(crate) fn alive(&self) -> usize {
        self.alive
    }

    /// Bytes of hot values, with their overhead.
    pub(crate) fn hot_bytes(&self) -> usize {
        self.hot_bytes
    }

    pub(crate) fn key(&self, key: &[u8]) -> Option<&KeyIndex> {
        self.keys.get(key)
    }

    /// The key as it is now.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<Live> {
        let index = self.keys.get(key)?;
        let at = index.get_newest()?;
        Some(Live { at, lease: index.lease(), hot: index.hot_at(at.revision).cloned() })
    }

    /// What the key was at main revision `at`.
    pub(crate) fn get(&self, key: &[u8], at: i64) -> Option<At> {
        self.keys.get(key)?.get(at)
    }

    /// Shows the keys of `span` from `from` on, in key order, until told to stop.
    pub(crate) fn visit<'a>(
        &'a self,
        span: &Span,
        from: Option<&[u8]>,
        mut shown: impl FnMut(&'a [u8], &'a KeyIndex) -> ControlFlow<()>,
    ) {
        if let Span::One(key) = span {
            if let Some((key, index)) = self.keys.get_key_value(key.as_ref()) {
                let _ = shown(key, index);
            }
            return;
        }
        let Some(bounds) = span.bounds(from) else {
            return;
        };
        for (key, index) in self.keys.range::<[u8], _>(bounds) {
            if shown(key, index).is_break() {
                return;
            }
        }
    }

    /// Records a put; `kv` becomes hot if the budget has room.
    pub(crate) fn put(&mut self, revision: Revision, kv: &Arc<KeyValue>) {
        let hot = self.admit(kv);
        let packed = Packed::new(revision, false);
        match self.keys.get_mut(kv.key.as_ref()) {
            Some(index) => {
                self.hot_bytes -= index.cool().map_or(0, |old| hot_cost(&old));
                self.alive += usize::from(!index.is_alive());
                index.push(packed, kv.lease, hot);
            }
            None => {
                self.alive += 1;
                let index = KeyIndex::new(packed, kv.create_revision, kv.version, kv.lease, hot);
                self.keys.insert(kv.key.as_ref().into(), index);
            }
        }
    }

    /// Records a delete of a live key.
    pub(crate) fn tombstone(&mut self, key: &[u8], revision: Revision) {
        let index = self.keys.get_mut(key).expect("only a live key is deleted");
        self.hot_bytes -= index.cool().map_or(0, |old| hot_cost(&old));
        index.push(Packed::new(revision, true), 0, None);
        self.alive -= 1;
    }

    /// Takes over `keys` in place of what is there: nothing.
    pub(crate) fn fill(&mut self, keys: BTreeMap<Box<[u8]>, KeyIndex>) {
        debug_assert!(self.keys.is_empty(), "only a new index is filled");
        self.alive = keys.values().filter(|index| index.is_alive()).count();
        self.keys = keys;
    }

    /// A share of `kv` to keep in memory, its cost booked, if the budget has room or room can be made.
    fn admit(&mut self, kv: &Arc<KeyValue>) -> Option<Arc<KeyValue>> {
        let cost = hot_cost(kv);
        if cost > self.budget_bytes {
            return None;
        }
        if self.hot_bytes + cost > self.budget_bytes {
            self.make_room(cost);
        }
        if self.hot_bytes + cost > self.budget_bytes {
            return None;
        }
        self.hot_bytes += cost;
        Some(Arc::clone(kv))
    }

    /// Keeps the value of `revision` in memory if that is the newest of its key, is not there yet and fits without
    /// making room.
    pub(crate) fn warm(&mut self, revision: Revision, kv: &Arc<KeyValue>) -> bool {
        let cost = hot_cost(kv);
        if self.hot_bytes + cost > self.budget_bytes {
            return false;
        }
        let Some(index) = self.keys.get_mut(kv.key.as_ref()) else {
            return false;
        };
        let warmed = index.warm(revision, kv);
        self.hot_bytes += if warmed { cost } else { 0 };
        warmed
    }

    /// Moves the hand on, cooling what it meets, until `cost` fits or it has looked at enough keys.
    fn make_room(&mut self, cost: usize) {
        let from = std::mem::take(&mut self.hand);
        let start: Bound<&[u8]> = Bound::Excluded(&from);
        let rest = self.keys.range_mut::<[u8], _>((start, Bound::Unbounded));
        for (visits, (key, index)) in rest.enumerate() {
            self.hot_bytes -= index.cool().map_or(0, |old| hot_cost(&old));
            if self.hot_bytes + cost <= self.budget_bytes || visits + 1 == ROOM_VISITS {
                self.hand = key.clone();
                return;
            }
        }
    }

    /// Compacts up to `max_keys` keys after `after`, adding what died to `dead`. The last key it looked at, or
    /// `None` when it reached the end.
    pub(crate) fn compact(
        &mut self,
        at: i64,
        after: Option<&[u8]>,
        max_keys: usize,
        dead: &mut Vec<Revision>,
    ) -> Option<Box<[u8]>> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut gone = Vec::new();
        let mut last = None;
        let rest = self.keys.range_mut::<[u8], _>((start, Bound::Unbounded));
        for (visits, (key, index)) in rest.enumerate() {
            if !index.compact(at, dead) {
                gone.push(key.clone());
            }
            if visits + 1 == max_keys {
                last = Some(key.clone());
                break;
            }
        }
        for key in gone {
            self.keys.remove(&key);
        }
        last
    }

    /// Every key, in key order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &KeyIndex)> {
        self.keys.iter().map(|(key, index)| (key.as_ref(), index))
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("keys", &self.keys.len())
            .field("alive", &self.alive)
            .field("hot_bytes", &self.hot_bytes)
            .finish_non_exhaustive()
    }
}

fn hot_cost(kv: &KeyValue) -> usize {
    HOT_OVERHEAD + kv.key.len() + kv.value.len()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn put(index: &mut Index, key: &str, main: i64, bytes: usize) {
        let kv = Arc::new(KeyValue {
            key: key.to_owned().into(),
            create_revision: main,
            mod_revision: main,
            version: 1,
            value: Bytes::from(vec![0; bytes]),
            lease: 0,
        });
        index.put(Revision::new(main, 0), &kv);
    }

    fn hot_keys(index: &Index) -> Vec<String> {
        let hot = index
            .iter()
            .filter(|(key, _)| index.newest(key).is_some_and(|live| live.hot.is_some()));
        hot.map(|(key, _)| key.escape_ascii().to_string()).collect()
    }

    #[test]
    fn values_leave_memory_in_key_order_going_round() {
        let mut index = Index::new(3 * (HOT_OVERHEAD + 11));
        for (main, key) in ["a", "b", "c"].into_iter().enumerate() {
            put(&mut index, key, main as i64 + 2, 10);
        }
        assert_eq!(hot_keys(&index), ["a", "b", "c"]);
        put(&mut index, "d", 5, 10);
        assert_eq!(hot_keys(&index), ["b", "c", "d"]);
        put(&mut index, "a", 6, 10);
        assert_eq!(hot_keys(&index), ["a", "c", "d"]);
        put(&mut index, "b", 7, 10);
        assert_eq!(hot_keys(&index), ["a", "b", "d"]);
        assert_eq!(index.hot_bytes(), 3 * (HOT_OVERHEAD + 11));
    }

    #[test]
    fn a_value_larger_than_the_budget_stays_cold_and_cools_nothing() {
        let mut index = Index::new(2 * (HOT_OVERHEAD + 11));
        put(&mut index, "a", 2, 10);
        put(&mut index, "b", 3, 10_000);
        assert_eq!(hot_keys(&index), ["a"]);
        index.tombstone(b"a", Revision::new(4, 0));
        assert_eq!(index.hot_bytes(), 0);
    }
}
