//! Who watches a key: watchers of one key in a map, watchers of a span in an interval tree. An event looks at those
//! that match it and no others.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::interval::IntervalTree;
use super::range::KeyRange;

/// Watchers by what they watch; each has a number, unique in the index, and those of one range are met in its order.
#[derive(Debug)]
pub(super) struct WatcherIndex<W> {
    keys: HashMap<Bytes, BTreeMap<u64, W>>,
    spans: IntervalTree<BTreeMap<u64, W>>,
}

impl<W> Default for WatcherIndex<W> {
    fn default() -> Self {
        WatcherIndex { keys: HashMap::new(), spans: IntervalTree::default() }
    }
}

impl<W> WatcherIndex<W> {
    /// Adds a watcher.
    pub(super) fn insert(&mut self, range: &KeyRange, number: u64, watcher: W) {
        let set = match range {
            KeyRange::One(key) => self.keys.entry(key.clone()).or_default(),
            KeyRange::Span { start, end } => self.spans.entry(start, end, BTreeMap::new),
        };
        let before = set.insert(number, watcher);
        debug_assert!(before.is_none(), "watcher numbers are unique");
    }

    /// Takes a watcher out.
    pub(super) fn remove(&mut self, range: &KeyRange, number: u64) -> Option<W> {
        match range {
            KeyRange::One(key) => {
                let set = self.keys.get_mut(key)?;
                let watcher = set.remove(&number);
                if set.is_empty() {
                    self.keys.remove(key);
                }
                watcher
            }
            KeyRange::Span { start, end } => {
                let set = self.spans.get_mut(start, end)?;
                let watcher = set.remove(&number);
                if set.is_empty() {
                    self.spans.remove(start, end);
                }
                watcher
            }
        }
    }

    /// Calls `found` with every watcher of `key`.
    pub(super) fn matching(&self, key: &[u8], mut found: impl FnMut(&W)) {
        if let Some(set) = self.keys.get(key) {
            set.values().for_each(&mut found);
        }
        self.spans.stab(key, &mut |set| set.values().for_each(&mut found));
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn key(random: &mut StdRng) -> Bytes {
        let length = random.random_range(0..3);
        (0..length).map(|_| random.random_range(b'a'..=b'e')).collect::<Vec<u8>>().into()
    }

    /// Random inserts and removals; after each, a search answers what looking at every watcher answers.
    #[test]
    fn a_search_finds_what_a_look_at_every_watcher_finds() {
        for seed in 0..20 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut index = WatcherIndex::default();
            let mut all: BTreeMap<u64, KeyRange> = BTreeMap::new();
            for number in 0..400 {
                if random.random_bool(0.35) && !all.is_empty() {
                    let at = random.random_range(0..all.len());
                    let gone = *all.keys().nth(at).unwrap();
                    let range = all.remove(&gone).unwrap();
                    assert_eq!(index.remove(&range, gone), Some(gone), "seed {seed}");
                    assert_eq!(index.remove(&range, gone), None, "seed {seed}");
                } else {
                    let end = match random.random_range(0..4) {
                        0 => Bytes::new(),
                        1 => Bytes::from_static(b"\0"),
                        _ => key(&mut random),
                    };
                    if let Some(range) = KeyRange::of(&key(&mut random), &end) {
                        index.insert(&range, number, number);
                        all.insert(number, range);
                    }
                }
                let sought = key(&mut random);
                let mut found = Vec::new();
                index.matching(&sought, |number| found.push(*number));
                found.sort_unstable();
                let expected: Vec<u64> = all
                    .iter()
                    .filter(|(_, range)| range.contains(&sought))
                    .map(|(number, _)| *number)
                    .collect();
                assert_eq!(found, expected, "seed {seed}, key {sought:?}");
            }
        }
    }
}
