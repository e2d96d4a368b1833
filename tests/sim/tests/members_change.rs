//! Members that come and go through faults of network, power, disks, processes and clocks.
//!
//! A failure prints its seed; `SEED=<seed> cargo test --test members_change` in tests/sim replays it (`TRACE=1` prints
//! what happened), and `SEEDS=<from>..<to>` runs that many.

use std::collections::BTreeMap;
use std::time::Instant;

use quorate_sim::cluster::run::run_with_changes;
use quorate_sim::seeds;

/// What every soak has to see.
const SEEN: [&str; 9] = [
    "learner added",
    "voter added",
    "learner promoted",
    "member removed",
    "leader removed",
    "member moved",
    "change refused",
    "new member started",
    "removed member started again",
];

#[test]
fn members_come_and_go_and_nothing_acknowledged_is_lost() {
    let traced = std::env::var("TRACE").is_ok();
    let (began, seeds) = (Instant::now(), seeds(1..9));
    let mut coverage = BTreeMap::new();
    let (mut violated, mut acknowledged, mut ended) = (Vec::new(), 0, 0);
    for seed in &seeds {
        let outcome = run_with_changes(*seed, traced);
        if traced {
            println!("{}", outcome.trace);
        }
        for (kind, times) in outcome.coverage {
            *coverage.entry(kind).or_insert(0) += times;
        }
        acknowledged += outcome.unique.0;
        ended += outcome.looks.get("removed members that ended by themselves").unwrap_or(&0);
        if !outcome.violations.is_empty() {
            println!("SEED={seed} replays {:?}", outcome.violations);
            violated.push(*seed);
        }
    }
    println!("{} seeds in {:.0?}, {acknowledged} unique keys", seeds.len(), began.elapsed());
    println!("{ended} removed members ended by themselves; {coverage:?}");
    assert_eq!(violated, [0; 0], "seeds that show what must not be");
    if seeds.len() >= 8 {
        let missing: Vec<_> = SEEN.iter().filter(|kind| !coverage.contains_key(**kind)).collect();
        assert!(missing.is_empty(), "never took effect: {missing:?} of {coverage:?}");
        assert!(ended > 0, "no removed member ended by itself");
    }
}
