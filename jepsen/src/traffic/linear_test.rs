use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn write(from: u64, to: Option<u64>, cell: usize, value: u64) -> Step {
    Step { invoked: at(from), returned: to.map(at), found: vec![], wrote: vec![(cell, value)] }
}

fn read(from: u64, to: u64, cell: usize, value: Option<u64>) -> Step {
    Step { invoked: at(from), returned: Some(at(to)), found: vec![(cell, value)], wrote: vec![] }
}

fn swap(from: u64, to: Option<u64>, cell: usize, found: Option<u64>, value: u64) -> Step {
    Step { found: vec![(cell, found)], ..write(from, to, cell, value) }
}

fn is_linearizable(steps: &[Step]) -> bool {
    check(steps) == Outcome::Linearizable
}

#[test]
fn a_read_beside_a_write_may_find_either_value() {
    for found in [None, Some(1)] {
        assert!(is_linearizable(&[write(0, Some(10), 0, 1), read(5, 15, 0, found)]));
    }
}

#[test]
fn a_stale_read_is_found() {
    let steps = [write(0, Some(10), 0, 1), write(20, Some(30), 0, 2), read(40, 50, 0, Some(1))];
    assert!(!is_linearizable(&steps));
}

#[test]
fn reads_that_go_back_in_time_are_found() {
    let write = write(0, Some(100), 0, 1);
    let forth = [write.clone(), read(10, 20, 0, None), read(30, 40, 0, Some(1))];
    let back = [write, read(10, 20, 0, Some(1)), read(30, 40, 0, None)];
    assert!(is_linearizable(&forth));
    assert!(!is_linearizable(&back));
}

#[test]
fn a_lost_write_is_found() {
    assert!(!is_linearizable(&[write(0, Some(10), 0, 1), read(20, 30, 0, None)]));
}

#[test]
fn two_swaps_from_the_same_value_are_found() {
    let steps =
        [write(0, Some(1), 0, 1), swap(2, Some(9), 0, Some(1), 2), swap(2, Some(9), 0, Some(1), 3)];
    assert!(!is_linearizable(&steps));
    assert!(is_linearizable(&steps[..2]));
}

#[test]
fn a_write_applied_twice_is_found() {
    let steps = [
        write(0, None, 0, 1),
        read(10, 20, 0, Some(1)),
        write(30, Some(40), 0, 2),
        read(50, 60, 0, Some(2)),
        read(70, 80, 0, Some(1)),
    ];
    assert!(!is_linearizable(&steps));
    assert!(is_linearizable(&steps[..4]));
}

#[test]
fn a_write_in_doubt_may_happen_late_or_never() {
    let open = write(0, None, 0, 1);
    let late = [open.clone(), read(10, 20, 0, None), read(1000, 1010, 0, Some(1))];
    assert!(is_linearizable(&late));
    assert!(is_linearizable(&[open, read(10, 20, 0, None), read(1000, 1010, 0, None)]));
}

#[test]
fn two_cells_are_read_at_one_moment() {
    let both =
        Step { wrote: vec![(0, 1), (1, 2)], invoked: at(0), returned: Some(at(9)), found: vec![] };
    let torn = Step {
        found: vec![(0, Some(1)), (1, None)],
        invoked: at(1),
        returned: Some(at(8)),
        wrote: vec![],
    };
    assert!(!is_linearizable(&[both, torn]));
}

/// Every order, with each step in doubt anywhere after its call or nowhere.
fn by_force(steps: &[Step]) -> bool {
    fn explained(steps: &[Step], left: u32, cells: Cells) -> bool {
        let rest = || (0..steps.len()).filter(move |nth| left & (1 << nth) != 0);
        if rest().all(|nth| steps[nth].returned.is_none()) {
            return true;
        }
        let first_return = rest().filter_map(|nth| steps[nth].returned).min();
        rest().any(|nth| {
            let step = &steps[nth];
            if first_return.is_some_and(|first| step.invoked > first)
                || step.found.iter().any(|(cell, value)| cells[*cell] != *value)
            {
                return false;
            }
            let mut after = cells;
            for (cell, value) in &step.wrote {
                after[*cell] = Some(*value);
            }
            explained(steps, left & !(1 << nth), after)
        })
    }
    explained(steps, (1 << steps.len()) - 1, Cells::default())
}

/// A few steps over two cells; values are mostly those that were written.
fn random_steps(rng: &mut SmallRng) -> Vec<Step> {
    let count = rng.random_range(2..8);
    let value =
        |rng: &mut SmallRng| rng.random_bool(0.8).then(|| rng.random_range(0..count as u64));
    (0..count)
        .map(|nth| {
            let invoked = rng.random_range(0..20);
            let returned = invoked + rng.random_range(1..12);
            let open = rng.random_bool(0.3);
            let cell = rng.random_range(0..2);
            let mut step = match rng.random_range(0..3) {
                0 => write(invoked, Some(returned), cell, nth as u64),
                1 => read(invoked, returned, cell, value(rng)),
                _ => swap(invoked, Some(returned), cell, value(rng), nth as u64),
            };
            if rng.random_bool(0.2) {
                step.found.push((1 - cell, value(rng)));
            }
            if open {
                step.returned = None;
            }
            step
        })
        .collect()
}

#[test]
fn the_search_agrees_with_trying_every_order() {
    let (mut linearizable, runs) = (0, 20_000);
    for seed in 0..runs {
        let steps = random_steps(&mut SmallRng::seed_from_u64(seed));
        let expected = by_force(&steps);
        linearizable += u64::from(expected);
        assert_eq!(is_linearizable(&steps), expected, "seed {seed}: {steps:#?}");
    }
    assert!((runs / 10..runs * 9 / 10).contains(&linearizable), "{linearizable} of {runs}");
}
