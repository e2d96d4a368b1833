//! Floor 6, steer: the nodes of a fleet, and what they agree on beside the keys.
//!
//! ```text
//!   /1.0/ API ── Management ── node      lifecycle of this node: bootstrap, join, remove, reset
//!                               ├─ tokens, seal, pki     who may come in, and what with
//!                               ├─ store                 StateStore: the library, campaign and guard
//!                               └─ controllers ── plan   what is to be done, by whoever was elected
//!        everything that is kept goes through the keyspace, as typed commands of its log
//! ```
//!
//! **Invariant:** no secret is kept in the clear in the replicated state: hashes are, and what is sealed by the fleet's
//! key, which never is in there.

pub mod api;

pub mod audit;

pub mod controllers;

pub mod error;

pub mod events;

pub mod kat;

pub mod management;

pub mod node;

pub mod pki;

pub mod plan;

pub mod seal;

pub mod secret;

pub mod store;

pub mod tokens;
