//! Is a history of one register linearizable? Wing and Gong's search with Lowe's memory of what was tried
//! ("Testing for linearizability", 2017), over operations whose written values are all different.

use std::collections::HashSet;

/// What a client asked of a register. 0 is the value of a key that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Write(u64),
    /// What was read.
    Read(u64),
    /// Expected, new, and whether it took place.
    Swap(u64, u64, bool),
}

/// One call: when it began and when its answer was known, in the order of events. One without an answer may take
/// effect at any time after it began, or never.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub client: u64,
    pub call: Call,
    pub invoked: u64,
    pub completed: Option<u64>,
}

impl Operation {
    fn ends(&self) -> u64 {
        self.completed.unwrap_or(u64::MAX)
    }
}

fn after(call: Call, value: u64) -> Option<u64> {
    match call {
        Call::Write(new) => Some(new),
        Call::Read(seen) => (seen == value).then_some(value),
        Call::Swap(expected, new, true) => (expected == value).then_some(new),
        Call::Swap(expected, _, false) => (expected != value).then_some(value),
    }
}

/// A state of the search: what has taken effect, and the value then.
type Tried = HashSet<(Vec<u64>, u64)>;

/// Whether some order of the operations explains all answers.
pub fn is_linearizable(operations: &[Operation]) -> bool {
    let operations = observed(operations);
    let mut tried = Tried::new();
    let mut done = vec![0u64; operations.len().div_ceil(64)];
    // An explicit stack: value before, next candidate to try, the operation that led here.
    let mut stack = vec![(0u64, 0usize, None::<usize>)];
    while let Some((value, from, led)) = stack.pop() {
        if operations.iter().enumerate().all(|(n, op)| op.completed.is_none() || has(&done, n)) {
            return true;
        }
        let open = |n: &usize| !has(&done, *n);
        let horizon = (0..operations.len())
            .filter(open)
            .map(|n| operations[n].ends())
            .min()
            .unwrap_or(u64::MAX);
        let next = (from..operations.len())
            .filter(open)
            .take_while(|n| operations[*n].invoked < horizon)
            .find_map(|n| {
                let new = after(operations[n].call, value)?;
                let mut with = done.clone();
                set(&mut with, n);
                tried.insert((with, new)).then_some((n, new))
            });
        match next {
            Some((n, new)) => {
                stack.push((value, n + 1, led));
                set(&mut done, n);
                stack.push((new, 0, Some(n)));
            }
            None => {
                if let Some(n) = led {
                    done[n / 64] &= !(1 << (n % 64));
                }
            }
        }
    }
    false
}

/// In order of their beginning, without those that have no answer and whose value nobody saw: they explain nothing.
/// A swap without an answer that is kept has seen the value it expected.
fn observed(operations: &[Operation]) -> Vec<Operation> {
    // That it was not the expected value may be owed to any write: keep what could have hidden it.
    let failed =
        |op: &Operation| op.completed.is_some() && matches!(op.call, Call::Swap(_, _, false));
    let hides = operations.iter().any(failed);
    let mut seen = HashSet::new();
    let mut kept: Vec<Operation> = Vec::new();
    loop {
        let keeps = |op: &&Operation| {
            op.completed.is_some()
                || match op.call {
                    Call::Write(new) | Call::Swap(_, new, _) => hides || seen.contains(&new),
                    Call::Read(_) => false,
                }
        };
        let before = kept.len();
        kept = operations.iter().filter(keeps).copied().collect();
        if kept.len() == before {
            break;
        }
        for op in &kept {
            match op.call {
                Call::Read(value) | Call::Swap(value, _, true) => {
                    seen.insert(value);
                }
                Call::Write(_) | Call::Swap(_, _, false) => {}
            }
        }
    }
    kept.sort_by_key(|op| op.invoked);
    kept
}

fn has(done: &[u64], n: usize) -> bool {
    done[n / 64] & (1 << (n % 64)) != 0
}

fn set(done: &mut [u64], n: usize) {
    done[n / 64] |= 1 << (n % 64);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(calls: &[(Call, u64, Option<u64>)]) -> Vec<Operation> {
        calls
            .iter()
            .map(|(call, invoked, completed)| Operation {
                client: 0,
                call: *call,
                invoked: *invoked,
                completed: *completed,
            })
            .collect()
    }

    #[test]
    fn a_stale_read_is_found() {
        let fresh = [
            (Call::Write(1), 0, Some(1)),
            (Call::Write(2), 2, Some(5)),
            (Call::Read(1), 3, Some(4)),
            (Call::Read(2), 6, Some(7)),
        ];
        assert!(is_linearizable(&history(&fresh)));
        let mut stale = fresh;
        stale[3].0 = Call::Read(1);
        assert!(!is_linearizable(&history(&stale)));
    }

    #[test]
    fn a_lost_write_is_found_and_one_in_doubt_may_come_late() {
        let lost = [(Call::Write(1), 0, Some(1)), (Call::Read(0), 2, Some(3))];
        assert!(!is_linearizable(&history(&lost)));
        let late =
            [(Call::Write(1), 0, None), (Call::Read(0), 2, Some(3)), (Call::Read(1), 4, Some(5))];
        assert!(is_linearizable(&history(&late)));
        let undone =
            [(Call::Write(1), 0, None), (Call::Read(1), 2, Some(3)), (Call::Read(0), 4, Some(5))];
        assert!(!is_linearizable(&history(&undone)));
    }

    /// Found by a run of members that stand still: the write was seen by a swap whose answer was lost, too.
    #[test]
    fn a_write_in_doubt_may_be_seen_by_a_swap_in_doubt() {
        let chain = [
            (Call::Write(1), 0, None),
            (Call::Write(2), 1, Some(2)),
            (Call::Swap(1, 3, true), 3, None),
            (Call::Swap(3, 4, true), 4, Some(5)),
        ];
        assert!(is_linearizable(&history(&chain)));
        let mut broken = chain;
        broken[0].0 = Call::Write(7);
        assert!(!is_linearizable(&history(&broken)));
    }

    #[test]
    fn two_swaps_from_one_value_cannot_both_take_place() {
        let both = [
            (Call::Write(1), 0, Some(1)),
            (Call::Swap(1, 2, true), 2, Some(5)),
            (Call::Swap(1, 3, true), 3, Some(6)),
        ];
        assert!(!is_linearizable(&history(&both)));
        let one = [
            (Call::Write(1), 0, Some(1)),
            (Call::Swap(1, 2, true), 2, Some(5)),
            (Call::Swap(1, 3, false), 3, Some(6)),
        ];
        assert!(is_linearizable(&history(&one)));
    }
}
