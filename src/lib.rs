//! Quorate: a replicated key-value store that speaks etcd.
//!
//! ```text
//!   8 start    embed, cli, bin      flags and config in, a running server out
//!   7 speak    service              gRPC and HTTP, etcd's texts
//!   6 steer    fleet                nodes of a fleet: bootstrap, join, tokens, certificates, controllers
//!   5 host     host                 opens, shuts and routes keyspaces
//!   4 serve    keyspace             write, read, watch, lease of one keyspace
//!   3 agree    consensus            openraft, and only here
//!   2 keep     storage              journal, base, sled, and only here
//!   1 decide   quorate_core::state_machine
//!   0 words    quorate_core::api
//!     beside   support              mechanisms: config loader, telemetry, clock, spawn, shutdown
//! ```
//!
//! A module may name only lower floors; `tests/tidy.rs` fails on an upward import.

pub mod support;

pub mod storage;

pub mod consensus;

pub mod keyspace;

pub mod host;

pub mod fleet;

pub mod service;

pub mod embed;

pub mod cli;
