//! KAT: a cluster described by a file, `cluster.kat`, and the agents that watch over it.
//!
//! ```text
//!   cluster.kat ── read: every fault with its path ──> ClusterConfiguration ── shared ──> /kat/config/cluster_config
//!                                                                └── agent: observe, campaign, lead until lost
//!                                                                └── init: a node begins it, or goes on with it
//! ```
//!
//! What the file says beside ports, folders and times (its networks, its agent port) is kept and given back: nothing here
//! makes networks or starts agents' workloads.
//!
//! **Invariant:** nothing is made, bound or asked before the whole file has been found good.

mod agent;
mod begin;
mod config;
mod fields;
mod ledger;
mod read;

pub use self::agent::{Agent, Ended};
pub use self::begin::{InitFault, Initiated, Initiation};
pub use self::config::{Backup, ClusterConfiguration, SharedConfiguration};
pub use self::fields::Fault;
pub use self::ledger::Ledger;
pub use self::read::BadConfiguration;

/// The cluster's UUID, for ever the same.
pub const UID_KEY: &str = "/kat/config/cluster_uid";

/// The JSON of a [`SharedConfiguration`].
pub const CONFIG_KEY: &str = "/kat/config/cluster_config";

/// Agents campaign below this and their cluster's name. It is not reserved: they do so as clients.
pub const LEADER_PREFIX: &str = "/kat/leader/";
