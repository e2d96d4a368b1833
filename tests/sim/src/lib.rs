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
//! incarnation, the order of threads (the journal, the store and long work run in place), and the numbers of tasks
//! (`life::number_tasks_anew`).

pub mod cluster;
pub mod life;
pub mod load;
pub mod run;
pub mod trace;

/// The seeds to run: what `SEED=<seed>` or `SEEDS=<from>..<to>` in the environment say, or `unless_told`.
pub fn seeds(unless_told: std::ops::Range<u64>) -> Vec<u64> {
    if let Ok(seed) = std::env::var("SEED") {
        return vec![seed.parse().expect("SEED is a number")];
    }
    let Ok(range) = std::env::var("SEEDS") else {
        return unless_told.collect();
    };
    let (from, to) = range.split_once("..").expect("SEEDS is a range");
    let number = |text: &str| text.parse::<u64>().expect("SEEDS is a range of numbers");
    (number(from)..number(to)).collect()
}
