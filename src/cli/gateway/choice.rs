//! Which endpoint a connection is carried to (RFC 2782's priorities and weights, as etcd's `tcpproxy` has them).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::srv::Record;
use crate::support::urls::join_host_port;

/// Beside endpoints with a weight, one without is taken once in so many times.
const RARELY: u32 = 100;

/// One endpoint.
pub(super) struct Remote {
    record: Record,
    aside: AtomicBool,
}

impl Remote {
    pub(super) fn address(&self) -> String {
        join_host_port(&self.record.target, self.record.port)
    }

    pub(super) fn is_active(&self) -> bool {
        !self.aside.load(Ordering::Relaxed)
    }

    pub(super) fn put_aside(&self) {
        self.aside.store(true, Ordering::Relaxed);
    }

    pub(super) fn take_back(&self) {
        self.aside.store(false, Ordering::Relaxed);
    }
}

/// All endpoints.
pub(super) struct Remotes {
    all: Vec<Remote>,
    turn: AtomicUsize,
}

impl Remotes {
    pub(super) fn new(records: Vec<Record>) -> Remotes {
        let remote = |record| Remote { record, aside: AtomicBool::new(false) };
        Remotes { all: records.into_iter().map(remote).collect(), turn: AtomicUsize::new(0) }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Remote> {
        self.all.iter()
    }

    /// Of those with the lowest priority number: by weight, or in turn where there are no weights.
    pub(super) fn pick(&self) -> Option<&Remote> {
        self.pick_by(|below| rand::random_range(0..below))
    }

    fn pick_by(&self, mut chance: impl FnMut(u32) -> u32) -> Option<&Remote> {
        let active = || self.all.iter().filter(|remote| remote.is_active());
        let best = active().map(|remote| remote.record.priority).min()?;
        let (weighted, light): (Vec<&Remote>, Vec<&Remote>) = active()
            .filter(|remote| remote.record.priority == best)
            .partition(|remote| remote.record.weight > 0);
        let next = |among: &[&'_ Remote]| self.turn.fetch_add(1, Ordering::Relaxed) % among.len();
        if weighted.is_empty() || (!light.is_empty() && chance(RARELY) == 1) {
            return light.get(next(&light)).copied();
        }
        let sum = weighted.iter().map(|remote| u32::from(remote.record.weight)).sum();
        let mut left = chance(sum);
        for &remote in &weighted {
            let weight = u32::from(remote.record.weight);
            if left < weight {
                return Some(remote);
            }
            left -= weight;
        }
        weighted.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remotes(records: &[(&str, u16, u16)]) -> Remotes {
        let record = |&(target, priority, weight): &(&str, u16, u16)| Record {
            target: target.to_owned(),
            port: 1,
            priority,
            weight,
        };
        Remotes::new(records.iter().map(record).collect())
    }

    fn picked(remotes: &Remotes, chances: &[u32]) -> Option<String> {
        let mut chances = chances.iter();
        let remote = remotes.pick_by(|_| *chances.next().expect("a chance was not foreseen"))?;
        Some(remote.record.target.clone())
    }

    #[test]
    fn equals_are_taken_in_turn() {
        let remotes = remotes(&[("a", 0, 0), ("b", 0, 0), ("c", 0, 0)]);
        let seen: Vec<_> = (0..4).map(|_| picked(&remotes, &[]).unwrap()).collect();
        assert_eq!(seen, ["a", "b", "c", "a"]);
    }

    #[test]
    fn a_lower_priority_goes_first_as_long_as_it_answers() {
        let remotes = remotes(&[("spare", 2, 0), ("first", 1, 0)]);
        assert_eq!(picked(&remotes, &[]).as_deref(), Some("first"));
        remotes.all[1].put_aside();
        assert_eq!(picked(&remotes, &[]).as_deref(), Some("spare"));
        remotes.all[0].put_aside();
        assert_eq!(picked(&remotes, &[]), None);
        remotes.all[1].take_back();
        assert_eq!(picked(&remotes, &[]).as_deref(), Some("first"));
    }

    #[test]
    fn weights_share_and_a_record_without_one_is_rare() {
        let remotes = remotes(&[("light", 0, 0), ("a", 0, 1), ("b", 0, 3)]);
        let seen: Vec<_> = (0..4).map(|at| picked(&remotes, &[0, at]).unwrap()).collect();
        assert_eq!(seen, ["a", "b", "b", "b"]);
        assert_eq!(picked(&remotes, &[1]).as_deref(), Some("light"));
    }
}
