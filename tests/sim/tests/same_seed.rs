//! Two runs of one seed. Alone in its process: tokio numbers tasks over all threads (`life::number_tasks_anew`).

use quorate_sim::cluster::run::run;
use quorate_sim::seeds;

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in seeds(1..5) {
        let (first, second) = (run(seed, None, true), run(seed, None, true));
        let diverges = first.trace.lines().zip(second.trace.lines()).find(|(a, b)| a != b);
        assert_eq!(diverges, None, "seed {seed}");
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
        assert!(first.trace.lines().count() > 300, "seed {seed} hardly did anything");
    }
}
