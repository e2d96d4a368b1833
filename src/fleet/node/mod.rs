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
//! **Invariant:** what a step needs in order to be finished or undone is in `node.json` before the step begins.
//! **Invariant:** nothing here opens a port or starts a member: the [`Launcher`] does.

mod directory;
mod launcher;
mod record;
mod settings;

pub use self::directory::{DirectoryFault, StateDirectory};
pub use self::launcher::{
    Ending, InitialNode, LaunchError, Launcher, MemberPlan, MemberState, RunningMember,
    RunningWorker, WorkerPlan,
};
pub use self::record::{Joining, LocalRecord, Phase, RecordFault};
pub use self::settings::{ADDRESS_DEFAULT, NodeSettings, Timers};
