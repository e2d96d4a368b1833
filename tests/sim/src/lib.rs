//! Whole members (floors 0 to 4) in one process, on a simulated disk, clock and chance.
//!
//! ```text
//!   seed --> run::run --> life 1: open, load from clients, the power goes at sync n
//!                         life 2: open what survived, check, load, ...
//!                    \--> Trace: every answer with its simulated time; same seed, same trace
//! ```
//!
//! Sources of chance that are closed: tokio's `select!` and scheduling (one thread, seeded), its clock (paused, steps
//! when all tasks wait), openraft's election timeouts (feature `simulation`), the journal's salts, the proposer's
//! incarnation, and the order of threads (the journal, the store and long work run in place).

pub mod cluster;
pub mod life;
pub mod load;
pub mod run;
pub mod trace;
