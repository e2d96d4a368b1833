//! Pins: revisions that a reader still needs, so that compaction keeps what a compaction at them would keep.
//!
//! A pin is taken through a shared reference and released by dropping it, from any thread, so that a reader
//! neither waits for apply nor holds it up.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

/// Slots a leaf of the board has; another leaf grows behind a full one.
const SLOTS: usize = 128;
/// Marks a free slot.
const FREE: i64 = i64::MAX;

/// All pins of one state machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct PinBoard(Arc<Leaf>);

/// A pinned revision; dropping it releases it.
#[derive(Debug)]
pub struct Pin {
    leaf: Arc<Leaf>,
    slot: usize,
    revision: i64,
}

#[derive(Debug)]
struct Leaf {
    slots: [AtomicI64; SLOTS],
    more: OnceLock<Arc<Leaf>>,
}

impl Default for Leaf {
    fn default() -> Self {
        Leaf { slots: std::array::from_fn(|_| AtomicI64::new(FREE)), more: OnceLock::new() }
    }
}

impl PinBoard {
    /// Pins `revision`. The caller holds the machine at least shared, so no sweep begins meanwhile.
    pub(crate) fn pin(&self, revision: i64) -> Pin {
        let mut leaf = &self.0;
        loop {
            for (slot, held) in leaf.slots.iter().enumerate() {
                let free = held.load(Ordering::Relaxed) == FREE;
                if free
                    && held
                        .compare_exchange(FREE, revision, Ordering::AcqRel, Ordering::Relaxed)
                        .is_ok()
                {
                    return Pin { leaf: Arc::clone(leaf), slot, revision };
                }
            }
            leaf = leaf.more.get_or_init(Arc::default);
        }
    }

    /// The pin is one of this board's, not of a machine that has been replaced.
    pub(crate) fn owns(&self, pin: &Pin) -> bool {
        let mut leaf = Some(&self.0);
        while let Some(some) = leaf {
            if Arc::ptr_eq(some, &pin.leaf) {
                return true;
            }
            leaf = some.more.get();
        }
        false
    }

    /// The lowest pinned revision.
    pub(crate) fn lowest(&self) -> Option<i64> {
        let mut lowest = FREE;
        let mut leaf = Some(&self.0);
        while let Some(some) = leaf {
            for slot in &some.slots {
                lowest = lowest.min(slot.load(Ordering::Acquire));
            }
            leaf = some.more.get();
        }
        (lowest != FREE).then_some(lowest)
    }
}

impl Pin {
    /// What it holds.
    pub fn revision(&self) -> i64 {
        self.revision
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.leaf.slots[self.slot].store(FREE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_pin_counts_until_it_is_dropped() {
        let board = PinBoard::default();
        assert_eq!(board.lowest(), None);
        let seven = board.pin(7);
        let three = board.pin(3);
        let three_again = board.pin(3);
        assert_eq!(board.lowest(), Some(3));
        drop(three);
        assert_eq!(board.lowest(), Some(3));
        drop(three_again);
        assert_eq!(board.lowest(), Some(7));
        drop(seven);
        assert_eq!(board.lowest(), None);
    }

    #[test]
    fn there_is_always_room_for_another_pin() {
        let board = PinBoard::default();
        let mut pins: Vec<Pin> =
            (0..3 * SLOTS as i64).map(|revision| board.pin(revision)).collect();
        assert!(pins.iter().all(|pin| board.owns(pin)));
        assert!(!PinBoard::default().owns(&pins[0]));
        pins.drain(..2 * SLOTS + 5);
        assert_eq!(board.lowest(), Some(2 * SLOTS as i64 + 5));
    }
}
