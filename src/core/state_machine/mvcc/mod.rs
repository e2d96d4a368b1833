//! Keys, revisions and values: etcd's multi-version store, decided in memory.
//!
//! ```text
//!   put, delete ──> write.rs ──> Index (every key, every revision not compacted)
//!                       └──────> Changes.revisions (what storage keeps and watchers see)
//!   range ───────> Index picks rows ──> hot value, or this entry's changes, or the View
//!   compaction ──> compact revision at once; the index is swept key by key, later
//! ```
//!
//! **Invariant:** a revision that the index lists at or above the compact revision can be read: it is hot, among
//! the changes of the entry being applied, or in the view.

pub mod compaction;
pub mod hash;
pub(crate) mod index;
pub(crate) mod key_index;
pub mod pins;
pub mod range;
pub(crate) mod rebuild;
pub(crate) mod span;
pub(crate) mod values;
pub(crate) mod write;

use self::index::Index;
use self::pins::PinBoard;

/// The store's decisions: the index and two revisions.
#[derive(Debug)]
pub(crate) struct Mvcc {
    pub(crate) index: Index,
    /// Of the last change; 1 when there was none.
    pub(crate) revision: i64,
    /// Below it nothing may be read; -1 before the first compaction.
    pub(crate) compact_revision: i64,
    /// The whole index has been swept up to here.
    pub(crate) swept_revision: i64,
    pub(crate) pins: PinBoard,
}

impl Mvcc {
    pub(crate) fn new(value_budget_bytes: usize) -> Mvcc {
        Mvcc {
            index: Index::new(value_budget_bytes),
            revision: 1,
            compact_revision: -1,
            swept_revision: -1,
            pins: PinBoard::default(),
        }
    }
}
