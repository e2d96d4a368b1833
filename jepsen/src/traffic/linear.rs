//! Whether a history of registers is linearizable: the search of Wing and Gong with Lowe's memory of what was tried.
//!
//! ```text
//!   steps ── those in doubt: seen by nobody, left out; seen, they end with who saw them first
//!         ── calls and returns by time ── try the calls before the first return, one after the other, and come back
//! ```
//!
//! A step says what it found in the cells, all at once, and what it then wrote. No two steps write the same value, so
//! whoever finds a value tells who wrote it, and a comparison of revisions is one of values.
//!
//! **Why leaving out is right.** A write that nobody found may have happened or not. If there is an order with it,
//! nobody looked at its cells between it and the next write to them, so the order without it is one, too. A write that
//! was found happened before its finder returned, and that is all the time is good for.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Registers that are looked at and written together.
pub(crate) const CELLS: usize = 3;

/// What each cell holds; `None`: the key is not there.
type Cells = [Option<u64>; CELLS];

/// Tries before the search is given up.
const TRIES_MAX: u64 = 30_000_000;

/// One operation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Step {
    pub(crate) invoked: Duration,
    /// `None`: nobody knows whether it happened.
    pub(crate) returned: Option<Duration>,
    /// What the cells must hold for it to go as it went.
    pub(crate) found: Vec<(usize, Option<u64>)>,
    pub(crate) wrote: Vec<(usize, u64)>,
}

/// What the search came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Linearizable,
    /// With the place where the longest order ends.
    Not(String),
    GaveUp,
}

/// Searches an order that explains all `steps`; the cells are empty at first.
pub(crate) fn check(steps: &[Step]) -> Outcome {
    Search::new(settled(steps)).run()
}

/// Every step with an end: those in doubt that someone saw end then, those nobody saw are left out.
fn settled(steps: &[Step]) -> Vec<(Step, Duration)> {
    let mut writers = HashMap::new();
    for (nth, step) in steps.iter().enumerate() {
        writers.extend(step.wrote.iter().map(|written| (*written, nth)));
    }
    let mut ends: Vec<Option<Duration>> = steps.iter().map(|step| step.returned).collect();
    let mut fresh: Vec<usize> = (0..steps.len()).filter(|nth| ends[*nth].is_some()).collect();
    while let Some(seer) = fresh.pop() {
        for (cell, value) in &steps[seer].found {
            let seen = value.and_then(|value| writers.get(&(*cell, value)));
            let Some(&seen) = seen else { continue };
            let sooner = ends[seen].is_none_or(|end| ends[seer].is_some_and(|seer| seer < end));
            if steps[seen].returned.is_none() && seen != seer && sooner {
                ends[seen] = ends[seer];
                fresh.push(seen);
            }
        }
    }
    steps.iter().zip(ends).filter_map(|(step, end)| Some((step.clone(), end?))).collect()
}

/// A place in the list of calls and returns.
type Place = usize;

struct Search {
    steps: Vec<(Step, Duration)>,
    /// Of step n, the call is `2 n` and the return `2 n + 1`; the last two are the ends of the list.
    next: Vec<Place>,
    previous: Vec<Place>,
    cells: Cells,
    /// A random word for each step that is in the order.
    chosen: u128,
    tried: HashSet<(u128, Cells)>,
    order: Vec<(usize, Cells)>,
    longest: (usize, String),
}

// === impl Search ===

impl Search {
    fn new(steps: Vec<(Step, Duration)>) -> Self {
        let (head, tail) = (2 * steps.len(), 2 * steps.len() + 1);
        let mut places: Vec<Place> = (0..head).collect();
        // A call at the moment of another's return is beside it.
        places.sort_by_key(|place| {
            let (step, end) = &steps[place / 2];
            if place.is_multiple_of(2) { (step.invoked, 0) } else { (*end, 1) }
        });
        let mut search = Self {
            steps,
            next: vec![tail; tail + 1],
            previous: vec![head; tail + 1],
            cells: Cells::default(),
            chosen: 0,
            tried: HashSet::new(),
            order: Vec::new(),
            longest: (0, String::new()),
        };
        let mut last = head;
        for place in places.into_iter().chain([tail]) {
            search.next[last] = place;
            search.previous[place] = last;
            last = place;
        }
        search
    }

    fn run(mut self) -> Outcome {
        let (head, tail) = (2 * self.steps.len(), 2 * self.steps.len() + 1);
        let mut place = self.next[head];
        for _ in 0..TRIES_MAX {
            if self.next[head] == tail {
                return Outcome::Linearizable;
            }
            let nth = place / 2;
            let is_call = place.is_multiple_of(2);
            if is_call {
                place = if self.choose(nth) { self.next[head] } else { self.next[place] };
                continue;
            }
            self.remember_stuck(nth);
            let Some((last, cells)) = self.order.pop() else {
                return Outcome::Not(self.longest.1);
            };
            self.cells = cells;
            self.chosen ^= word(last);
            self.put_back(2 * last + 1);
            self.put_back(2 * last);
            place = self.next[2 * last];
        }
        Outcome::GaveUp
    }

    /// Puts a step at the end of the order, if it goes there and that was not tried before.
    fn choose(&mut self, nth: usize) -> bool {
        let step = &self.steps[nth].0;
        if step.found.iter().any(|(cell, value)| self.cells[*cell] != *value) {
            return false;
        }
        let mut after = self.cells;
        for (cell, value) in &step.wrote {
            after[*cell] = Some(*value);
        }
        if !self.tried.insert((self.chosen ^ word(nth), after)) {
            return false;
        }
        self.order.push((nth, self.cells));
        self.cells = after;
        self.chosen ^= word(nth);
        self.take_out(2 * nth);
        self.take_out(2 * nth + 1);
        true
    }

    fn take_out(&mut self, place: Place) {
        let (previous, next) = (self.previous[place], self.next[place]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn put_back(&mut self, place: Place) {
        let (previous, next) = (self.previous[place], self.next[place]);
        self.next[previous] = place;
        self.previous[next] = place;
    }

    fn remember_stuck(&mut self, nth: usize) {
        if self.order.len() >= self.longest.0 {
            let told = format!(
                "after {} of {} steps the cells hold {:?}, and {:?} does not go there",
                self.order.len(),
                self.steps.len(),
                self.cells,
                self.steps[nth].0
            );
            self.longest = (self.order.len(), told);
        }
    }
}

/// splitmix64, twice.
fn word(nth: usize) -> u128 {
    let half = |seed: u64| {
        let mut word = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        u128::from(word ^ (word >> 31))
    };
    half(2 * nth as u64 + 1) << 64 | half(2 * nth as u64 + 2)
}

#[cfg(test)]
#[path = "linear_test.rs"]
mod tests;
