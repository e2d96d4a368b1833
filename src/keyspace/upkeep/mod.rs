//! What a keyspace does beside its requests: sweeping after compactions, hashes, compacting by itself.
//!
//! ```text
//!   sink --- a compaction was applied ---> Sweeper: hash it, sweep the index, have the store drop the dead
//!   HashKV -> hashes: the sweeper's cache, else index in slices, then history off the runtime's thread
//!   AutoCompactor: samples the revision; on the leader, proposes compactions
//! ```

mod auto;
mod hash;
mod sweep;

pub(crate) use auto::{Compactable, compact_by_itself};
#[cfg(test)]
pub(crate) use hash::hash;
pub(crate) use hash::hash_kv;
pub(crate) use sweep::Sweeper;
