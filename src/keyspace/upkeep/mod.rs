//! What a keyspace does beside its requests: sweeping after compactions, hashes and their comparison, compacting by
//! itself.
//!
//! ```text
//!   sink --- a compaction was applied ---> Sweeper: hash it, sweep the index, have the store drop the dead
//!   HashKV -> Hashes: the sweeper's cache, else index in slices, then history off the runtime's thread
//!   QuotaWatch: told by the sink of every entry; raises the NOSPACE alarm
//!   Checker: on the leader, compares the members' hashes; whoever differs gets the CORRUPT alarm
//!   AutoCompactor: samples the revision; on the leader, proposes compactions
//! ```

mod auto;
mod compare;
mod corrupt;
mod hash;
mod over_quota;
mod sweep;
mod version;

pub(crate) use auto::{Compactable, compact_by_itself};
pub(crate) use compare::{Comparer, HashDesk};
pub(crate) use corrupt::{Checker, check_compactions, check_periodically};
pub(crate) use hash::Hashes;
#[cfg(test)]
pub(crate) use hash::{hash, hash_kv};
pub(crate) use over_quota::{QuotaWatch, raise_nospace};
pub(crate) use sweep::Sweeper;
pub(crate) use version::downgrade;
