//! Ids and positions, each a type of its own so that one is never passed for another.

use std::fmt;

macro_rules! number_type {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

/// One member of the fleet: etcd's member id (etcd `api/membership/member.go`). Never reused.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

/// One keyspace's cluster id, told in every response header.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

/// A lease. etcd accepts negative ids; 0 is "no lease".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

number_type! {
    /// One raft group, that is one keyspace, of a member. Group 0 is the default keyspace.
    GroupId(u64)
}
number_type! {
    /// A raft term.
    Term(u64)
}
number_type! {
    /// A watcher within one watch stream. -1 is used in answers that belong to no watcher.
    WatchId(i64)
}

impl LeaseId {
    /// "No lease", as etcd writes it.
    pub const NONE: LeaseId = LeaseId(0);
}

// Ids are printed as etcd prints them: in hex, without leading zeros.
macro_rules! hex_type {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:x})", stringify!($name), self.0)
            }
        }
    )*};
}
hex_type!(MemberId, ClusterId, LeaseId);

/// A point in a keyspace's history: `main` rises by one with each write transaction, `sub` orders the changes
/// within one. The empty store stands at main 1 (etcd `server/storage/mvcc/revision.go`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The revision that clients see.
    pub main: i64,
    /// The order within the transaction, from 0.
    pub sub: i64,
}

impl Revision {
    /// The revision `main.sub`.
    pub const fn new(main: i64, sub: i64) -> Self {
        Revision { main, sub }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}

/// A position in one group's raft log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The term of the leader that wrote the entry.
    pub term: Term,
    /// Its index, from 0 as openraft counts.
    pub index: u64,
}

impl LogId {
    /// The position `index` written in `term`.
    pub const fn new(term: u64, index: u64) -> Self {
        LogId { term: Term(term), index }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.term, self.index)
    }
}
