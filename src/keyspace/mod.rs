//! Floor 4, serve a keyspace.
