//! A cache of decoded blocks for cold reads, bounded by bytes; the second chance is its only policy.
//!
//! **Invariant:** an entry is what the state store holds, or a shorter earlier form of the last block. Whoever
//! rewrites a block takes its entry out while no reader is between reading and inserting (see `Shared::layout`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use quorate_core::api::ids::Revision;

use super::history::Block;

#[derive(Debug)]
struct Entry {
    block: Arc<Block>,
    used: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct BlockCache {
    capacity: usize,
    weight: usize,
    blocks: BTreeMap<Revision, Entry>,
    /// First revisions, oldest first; one entry a block.
    order: VecDeque<Revision>,
}

impl BlockCache {
    pub(crate) fn new(capacity: usize) -> Self {
        BlockCache { capacity, weight: 0, blocks: BTreeMap::new(), order: VecDeque::new() }
    }

    /// The block that holds `revision`, with its place in it.
    pub(crate) fn find(&mut self, revision: Revision) -> Option<(Arc<Block>, usize)> {
        let (_, entry) = self.blocks.range_mut(..=revision).next_back()?;
        let position = entry.block.position(revision)?;
        entry.used = true;
        Some((Arc::clone(&entry.block), position))
    }

    pub(crate) fn insert(&mut self, block: Arc<Block>) {
        let (first, weight) = (block.first(), block.weight());
        if weight > self.capacity / 4 {
            return;
        }
        self.weight += weight;
        let entry = Entry { block, used: false };
        match self.blocks.insert(first, entry) {
            Some(old) => self.weight -= old.block.weight(),
            None => self.order.push_back(first),
        }
        while self.weight > self.capacity {
            self.evict();
        }
    }

    pub(crate) fn forget(&mut self, first: Revision) {
        if let Some(entry) = self.blocks.remove(&first) {
            self.weight -= entry.block.weight();
            self.order.retain(|kept| *kept != first);
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = BlockCache::new(self.capacity);
    }

    fn evict(&mut self) {
        let Some(first) = self.order.pop_front() else {
            return;
        };
        match self.blocks.get_mut(&first) {
            Some(entry) if entry.used => {
                entry.used = false;
                self.order.push_back(first);
            }
            Some(_) => {
                if let Some(entry) = self.blocks.remove(&first) {
                    self.weight -= entry.block.weight();
                }
            }
            None => {}
        }
    }
}
