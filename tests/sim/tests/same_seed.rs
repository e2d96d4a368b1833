//! Two runs of one seed; `SEED=<seed> cargo test --test same_seed` in tests/sim compares those of another. Alone in its
//! process: tokio numbers tasks over all threads (`life::number_tasks_anew`).

use quorate_sim::cluster::run::run;
use quorate_sim::seeds;

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in seeds(1..5) {
        let (first, second) = (run(seed, None, true), run(seed, None, true));
        let diverges = first.trace.lines().zip(second.trace.lines()).find(|(a, b)| a != b);
        assert_eq!(diverges, None, "seed {seed}");
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
        let told = first.trace.lines().count() > 300 && first.operations >= 500;
        assert!(told, "seed {seed} hardly did anything");
    }
}
