//! Floor 4, serve a keyspace.

pub mod lease;
pub mod watch;
