//! One member through several power cuts.
//!
//! A failure prints its seed; `SEED=<seed> cargo test --manifest-path tests/sim/Cargo.toml` replays it.

use quorate_sim::run::run;
use quorate_sim::seeds;

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in seeds(1..13).into_iter().take(3) {
        let (first, second) = (run(seed), run(seed));
        let diverges = first.trace.lines().zip(second.trace.lines()).find(|(a, b)| a != b);
        assert_eq!(diverges, None, "seed {seed}");
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
        assert!(first.trace.lines().count() > 200, "seed {seed} hardly did anything");
    }
}

#[test]
fn other_seeds_give_other_traces() {
    assert_ne!(run(1).trace, run(2).trace);
}

#[test]
fn nothing_acknowledged_is_lost_over_power_cuts() {
    let mut acknowledged = 0;
    let mut cuts = 0;
    for seed in seeds(1..13) {
        let outcome = std::panic::catch_unwind(|| run(seed))
            .unwrap_or_else(|_| panic!("seed {seed}: SEED={seed} replays it"));
        acknowledged += outcome.acknowledged;
        cuts += outcome.cuts;
    }
    println!("{acknowledged} acknowledged writes, {cuts} power cuts");
    assert!(cuts > 0, "no cut fell into a load");
}
