//! Three members through faults of network, power and clocks.
//!
//! A failure prints its seed; `SEED=<seed> cargo test --test three_members` in tests/sim replays it, and
//! `SEEDS=<from>..<to>` runs that many.

use std::collections::BTreeMap;
use std::ops::Range;

use quorate_sim::cluster::net::Bug;
use quorate_sim::cluster::run::{Outcome, run};

fn seeds(unless_told: Range<u64>) -> Vec<u64> {
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

fn outcome(seed: u64, bug: Option<Bug>) -> Outcome {
    let outcome = run(seed, bug);
    if std::env::var("TRACE").is_ok() {
        println!("{}", outcome.trace);
    }
    outcome
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_unexpected_is_seen() {
    let mut coverage = BTreeMap::new();
    let (mut operations, mut faults, mut acknowledged, mut in_doubt) = (0, 0, 0, 0);
    let seeds = seeds(1..9);
    for seed in &seeds {
        let outcome = outcome(*seed, None);
        let none: [String; 0] = [];
        assert_eq!(outcome.violations, none, "SEED={seed} replays it");
        if seeds.len() > 50 && seed % 50 == 0 {
            println!("seed {seed}: {} calls, {} faults", outcome.operations, outcome.faults);
        }
        assert!(outcome.faults >= 10 && outcome.operations >= 500, "seed {seed}: {outcome:?}");
        for (kind, times) in outcome.coverage {
            *coverage.entry(kind).or_insert(0) += times;
        }
        operations += outcome.operations;
        faults += outcome.faults;
        acknowledged += outcome.unique.0;
        in_doubt += outcome.unique.1;
    }
    println!("{} seeds, {operations} calls, {faults} faults", seeds.len());
    println!("{acknowledged} unique keys acknowledged, {in_doubt} in doubt");
    for (kind, times) in &coverage {
        println!("{times:>7}  {kind}");
    }
    if seeds.len() >= 8 {
        assert!(coverage.len() >= 12, "a kind of fault never took effect: {coverage:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in seeds(1..9).into_iter().take(2) {
        let (first, second) = (run(seed, None), run(seed, None));
        let diverges = first.trace.lines().zip(second.trace.lines()).find(|(a, b)| a != b);
        assert_eq!(diverges, None, "seed {seed}");
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
    }
}

/// The first of the seeds whose run shows the bug.
fn found(bug: Bug) -> Option<(u64, String)> {
    seeds(1..40).into_iter().find_map(|seed| {
        outcome(seed, Some(bug)).violations.into_iter().next().map(|first| (seed, first))
    })
}

#[test]
fn a_vote_that_is_sent_before_it_is_saved_is_found() {
    let found = found(Bug::ForgottenVote);
    println!("{found:?}");
    assert!(found.is_some());
}

#[test]
fn commit_without_a_quorum_is_found() {
    let found = found(Bug::PhantomAppend);
    println!("{found:?}");
    assert!(found.is_some());
}
