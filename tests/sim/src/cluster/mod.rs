//! Three whole members, or as many as come and go, on a simulated network, disks, clocks and chance.
//!
//! ```text
//!   engine: drives one runtime for the world and one for each member's process, a millisecond at a time
//!
//!   world:  run ── clients (registers, unique keys, leases, compactions), watchers ──▶ World: what they were told
//!             │                                                                           │
//!             ├── Changes: members come and go, in runs that ask for it
//!             ├── Nemesis: cuts, power, kills, SIGSTOP, disks, clocks, transfers          ▼
//!             └── Watchman: what must hold at every moment                             checkers
//!   Fleet:  who runs, stands still or is down        Net: connections between them
//! ```
//!
//! What holds whatever happens: the table in `watchman.rs`; no acknowledged write lost, none applied twice; registers
//! linearizable, and no read older than what any client knew; no lease ended early, and none kept for ever; watchers
//! given everything, in order, once; every call answered in its time; no member fails but by its disk; and once all
//! is healed, everybody serves who is a member, and nobody else runs.

pub mod bug;
pub mod changes;
pub mod checker;
pub mod clients;
pub mod engine;
pub mod fleet;
pub mod lane;
pub mod leases;
pub mod machine;
pub mod member;
pub mod nemesis;
pub mod net;
pub mod run;
pub mod watchers;
pub mod watchman;
pub mod world;
