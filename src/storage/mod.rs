//! Floor 2, keep: acknowledged bytes, and the state that is read.
//!
//! ```text
//!   consensus ──entries──▶ journal  ─── synced before any acknowledgement; the truth since the last base
//!   keyspace ──batches──▶ Store ──▶ tail ──upkeep──▶ engine (sled): history in blocks, records; read, never needed
//!                           │                  └───▶ base: the whole state at one log id, one immutable file
//!                           └──▶ StoreView: tail, then engine
//!   another member's base ──▶ Receiving ──▶ Prepared: the next generation, beside this one ──▶ Store
//! ```
//!
//! **Invariant:** truth = base + journal. The state store may be lost at any time, wholly or in part, and is believed
//! at a start only when its content sum, its place in the log and its generation agree (docs/DATA_FORMAT.md).
//! **Invariant:** storage knows nothing of keys' meaning, of leases or of watchers: it keeps batches.

pub mod base;
mod base_maker;
mod cache;
mod compaction;
mod defrag;
pub mod device;
pub mod directory;
pub mod engine;
mod engine_sled;
mod error;
mod figures;
mod folders;
mod forced;
mod format;
mod history;
pub mod identity;
mod incoming;
mod install;
pub mod journal;
mod key_space;
mod load;
mod lock;
mod mark;
mod open;
mod options;
mod renew;
mod retire;
mod shared;
mod size;
mod source;
mod store;
mod tail;
mod upkeep;
mod view;

pub use device::BACKGROUND_PACE;
pub use error::{DefragError, OpenError, StoreError};
pub use figures::StoreSeconds;
pub use format::ContentSum;
pub use incoming::{InstallError, Receiving};
pub use install::Prepared;
pub use open::{Opened, RebuildReport};
pub use options::{EngineKind, StoreFigures, StoreOptions, UpkeepRunner};
pub use source::{BaseLabel, BaseSource};
pub use store::Store;
pub use view::StoreView;

#[cfg(test)]
mod store_test;
