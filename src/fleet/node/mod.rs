//! One node of a fleet: what it is, what it is about to become, and how it gets there.
//!
//! ```text
//!                    bootstrap                              removed, or an undone start
//!   uninitialised ──> bootstrapping ──> member ──┐
//!        ^       └──> joining ────────> member ──┼──> resetting ── directories are emptied ──┐
//!        │       └──> joining ────────> worker ──┘                                           │
//!        └───────────────────────────────────────────────────────────────────────────────────┘
//!   node.json says where it stands, before each step; a start goes on from there
//! ```
//!
//! One change of the node's life is under way at a time, in a task of its own: who asked for it may go away.
//!
//! **Invariant:** what a step needs in order to be finished or undone is in `node.json` before the step begins.
//! **Invariant:** nothing here opens a port or starts a member: the [`Launcher`] does.

mod admit;
mod authority;
mod bootstrap;
mod certificates;
mod config;
mod directory;
mod files;
mod handle;
mod join;
mod launcher;
mod leave;
mod life;
mod management;
mod record;
mod refusals;
mod registry;
mod remove;
mod renew;
mod renewing;
mod resume;
mod settings;
mod settle;
mod stage;
mod status;
mod steps;
mod tokens;
mod waiting;
mod wire;
mod worker;

pub use self::bootstrap::Beginning;
pub use self::directory::{DirectoryFault, StateDirectory};
pub use self::launcher::{
    Ending, InitialNode, LaunchError, Launcher, MemberPlan, MemberState, RunningMember,
    RunningWorker, WorkerPlan,
};
pub use self::life::{Node, OpenFault};
pub use self::record::{Joining, LocalRecord, Phase, RecordFault};
pub use self::registry::{
    CONFIG_KEY, FEATURES_PREFIX, NODES_PREFIX, NodeRecord, SCHEMA_VERSION, node_key,
};
pub use self::settings::{ADDRESS_DEFAULT, NodeSettings, Timers};
