//! Three members through faults of network, power, disks, processes and clocks.
//!
//! A failure prints its seed; `SEED=<seed> cargo test --test three_members` in tests/sim replays it (`TRACE=1` prints
//! what happened), and `SEEDS=<from>..<to>` runs that many.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quorate_sim::cluster::bug::Bug;
use quorate_sim::cluster::run::{Outcome, run};
use quorate_sim::seeds;

fn outcome(seed: u64, bug: Option<Bug>) -> Outcome {
    let traced = std::env::var("TRACE").is_ok();
    let outcome = run(seed, bug, traced);
    if traced {
        println!("{}", outcome.trace);
    }
    outcome
}

/// Kinds of faults and of looks that every soak has to see.
const KINDS: usize = 26;

#[derive(Default)]
struct Sums {
    seeds: usize,
    coverage: BTreeMap<&'static str, u64>,
    looks: BTreeMap<&'static str, u64>,
    operations: usize,
    faults: usize,
    acknowledged: usize,
    in_doubt: usize,
    length: Duration,
    recovery: Duration,
}

impl Sums {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        for (kind, times) in outcome.coverage {
            *self.coverage.entry(kind).or_insert(0) += times;
        }
        for (kind, times) in outcome.looks {
            *self.looks.entry(kind).or_insert(0) += times;
        }
        self.operations += outcome.operations;
        self.faults += outcome.faults;
        self.acknowledged += outcome.unique.0;
        self.in_doubt += outcome.unique.1;
        self.length += outcome.length;
        self.recovery = self.recovery.max(outcome.recovery);
    }

    fn print(&self, took: Duration) {
        let Sums { seeds, operations, faults, acknowledged, in_doubt, .. } = self;
        println!("{seeds} seeds, {operations} calls, {faults} faults, {:?} simulated", self.length);
        println!("{:.2} seeds a second", *seeds as f64 / took.as_secs_f64());
        println!("{acknowledged} unique keys acknowledged, {in_doubt} in doubt");
        println!("served again at the latest {:?} after the harm", self.recovery);
        for (kind, times) in self.coverage.iter().chain(&self.looks) {
            println!("{times:>9}  {kind}");
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_unexpected_is_seen() {
    let mut sums = Sums::default();
    let mut violated = Vec::new();
    let seeds = seeds(1..9);
    let began = Instant::now();
    for seed in &seeds {
        let outcome = outcome(*seed, None);
        if !outcome.violations.is_empty() {
            println!("SEED={seed} replays {:?}", outcome.violations);
            violated.push(*seed);
            continue;
        }
        if seeds.len() > 50 && seed % 50 == 0 {
            let rate =
                f64::from(u32::try_from(sums.seeds).unwrap_or(0)) / began.elapsed().as_secs_f64();
            println!("seed {seed}: {} faults until now, {rate:.2} seeds a second", sums.faults);
        }
        assert!(
            outcome.faults >= 10
                && outcome.operations >= 500
                && outcome.length >= Duration::from_secs(60),
            "seed {seed} did too little: {outcome:?}"
        );
        sums.add(outcome);
    }
    sums.print(began.elapsed());
    assert_eq!(violated, [0; 0], "seeds that show what must not be");
    if seeds.len() >= 8 {
        let coverage = &sums.coverage;
        assert!(coverage.len() >= KINDS, "a kind of fault never took effect: {coverage:?}");
    }
}

/// The first of the seeds whose run shows the bug.
fn found(bug: Bug) {
    let found = seeds(1..40).into_iter().find_map(|seed| {
        outcome(seed, Some(bug)).violations.into_iter().next().map(|first| (seed, first))
    });
    println!("{bug:?}: {found:?}");
    assert!(found.is_some());
}

#[test]
fn a_vote_that_is_sent_before_it_is_saved_is_found() {
    found(Bug::ForgottenVote);
}

#[test]
fn commit_without_a_quorum_is_found() {
    found(Bug::PhantomAppend);
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    found(Bug::EarlyAck);
}

#[test]
fn a_batch_that_is_applied_twice_is_found() {
    found(Bug::UncountedBatch);
}

#[test]
fn a_read_by_a_round_that_was_over_is_found() {
    found(Bug::StaleRound);
}
