//! Whether what clients were told fits the store's own order, revision by revision.
//!
//! A server names the revision of every answer. Taken at its word, each answer must be what the history says of that
//! revision, and the order of revisions must be the order of time wherever two operations did not overlap: then the
//! order of revisions is a proof that all of it together is strictly serializable, over every key at once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::registers::{Held, Move, Moves, register_key};
use super::watchers::{Seen1, value_sum};

/// One answered operation that must not be stale.
#[derive(Debug, Clone)]
pub(crate) struct Timed {
    pub(crate) invoked: Duration,
    pub(crate) returned: Duration,
    pub(crate) revision: i64,
    pub(crate) wrote: bool,
    pub(crate) what: String,
}

/// What an operation was told must not be older than what any was told before it began.
pub(crate) fn goes_forward(operations: &[Timed], findings: &mut Vec<String>) {
    let mut by_return: Vec<&Timed> = operations.iter().collect();
    by_return.sort_by_key(|timed| timed.returned);
    let mut by_call: Vec<&Timed> = operations.iter().collect();
    by_call.sort_by_key(|timed| timed.invoked);
    let mut returned = by_return.into_iter().peekable();
    let mut newest: Option<&Timed> = None;
    for operation in by_call {
        while let Some(before) = returned.next_if(|before| before.returned < operation.invoked) {
            if newest.is_none_or(|newest| newest.revision < before.revision) {
                newest = Some(before);
            }
        }
        let Some(newest) = newest else { continue };
        let stale = operation.revision < newest.revision
            || operation.wrote && operation.revision == newest.revision;
        if stale {
            let (late, early) = (&operation.what, &newest.what);
            findings.push(format!("stale: {late}: {operation:?} began after {early}: {newest:?}"));
        }
    }
}

/// The past of every register.
pub(crate) struct Past(BTreeMap<String, Vec<(i64, Option<u64>)>>);

impl Past {
    pub(crate) fn of(history: &[Seen1]) -> Self {
        let mut past: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for event in history.iter().filter(|event| event.key.starts_with(b"reg/")) {
            let key = String::from_utf8_lossy(&event.key).into_owned();
            let value = (!event.deleted).then_some(event.value_sum);
            past.entry(key).or_default().push((event.revision, value));
        }
        Self(past)
    }

    /// The sum of the value after `revision`, and where it was written.
    fn at(&self, object: usize, cell: usize, revision: i64) -> Option<(i64, u64)> {
        let past = self.0.get(&register_key(object, cell))?;
        let written = past.partition_point(|(at, _)| *at <= revision);
        let (at, value) = past.get(written.checked_sub(1)?)?;
        Some((*at, (*value)?))
    }

    /// How often a value was written.
    fn times(&self, object: usize, cell: usize, value: u64) -> Vec<i64> {
        let sum = value_sum(value.to_string().as_bytes());
        let past = self.0.get(&register_key(object, cell)).map_or(&[][..], Vec::as_slice);
        past.iter().filter(|(_, at)| *at == Some(sum)).map(|(revision, _)| *revision).collect()
    }

    pub(crate) fn explains(&self, told: &Moves, findings: &mut Vec<String>) {
        findings.extend(told.faults.iter().cloned());
        for one in &told.moves {
            self.explains_found(one, findings);
            self.explains_written(one, findings);
        }
    }

    /// What a read found is what was there at its revision; what a write found, before its own.
    fn explains_found(&self, one: &Move, findings: &mut Vec<String>) {
        let Some(revision) = one.revision else { return };
        let looked_at = if one.step.wrote.is_empty() { revision } else { revision - 1 };
        for (cell, held) in &one.at {
            let past = self.at(one.object, *cell, looked_at);
            let told = |held: &Held| Some((held.mod_revision, held.value?));
            let same = match (past, told(held)) {
                (None, None) => true,
                (Some((at, sum)), Some((told_at, value))) => {
                    at == told_at && sum == value_sum(value.to_string().as_bytes())
                }
                (None, Some(_)) | (Some(_), None) => false,
            };
            if !same {
                findings.push(format!(
                    "register {} at {looked_at} is of {:?} in the history, {one:?} was told {held:?}",
                    register_key(one.object, *cell),
                    past.map(|(at, _)| at)
                ));
            }
        }
    }

    /// Acknowledged writes are where the answer said, others all at one place or nowhere.
    fn explains_written(&self, one: &Move, findings: &mut Vec<String>) {
        let wrote = &one.step.wrote;
        let places: Vec<_> =
            wrote.iter().map(|(cell, value)| self.times(one.object, *cell, *value)).collect();
        let once = places.iter().all(|places| places.len() == 1 && Some(places[0]) == one.revision);
        let open = one.step.returned.is_none();
        let together = places.iter().all(|of| of.len() <= 1 && *of == places[0]);
        let right = wrote.is_empty() || if open { together } else { once };
        if !right {
            findings.push(format!("{one:?} is in the history at {places:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::linear::Step;

    fn written(revision: i64, cell: usize, value: u64) -> Seen1 {
        Seen1 {
            revision,
            key: register_key(0, cell).into(),
            deleted: false,
            version: 1,
            value_sum: value_sum(value.to_string().as_bytes()),
        }
    }

    fn told(revision: Option<i64>, at: Vec<(usize, Held)>, wrote: Vec<(usize, u64)>) -> Move {
        let returned = revision.map(|_| Duration::from_secs(1));
        let step = Step { returned, wrote, ..Step::default() };
        Move { object: 0, step, revision, at, serializable: false }
    }

    fn findings(history: &[Seen1], one: Move) -> usize {
        let mut findings = Vec::new();
        let moves = Moves { moves: vec![one], ..Moves::default() };
        Past::of(history).explains(&moves, &mut findings);
        findings.len()
    }

    #[test]
    fn a_read_must_be_of_the_revision_it_names() {
        let history = [written(2, 0, 7), written(4, 0, 8)];
        let of = |value, mod_revision| vec![(0, Held { value: Some(value), mod_revision })];
        for (revision, at, expected) in [
            (2, of(7, 2), 0),
            (3, of(7, 2), 0),
            (4, of(7, 2), 1),
            (4, of(8, 4), 0),
            (3, of(8, 4), 1),
            (3, of(8, 2), 1),
            (1, vec![(0, Held::default())], 0),
            (2, vec![(0, Held::default())], 1),
        ] {
            let one = told(Some(revision), at, vec![]);
            assert_eq!(findings(&history, one.clone()), expected, "{one:?}");
        }
    }

    #[test]
    fn lost_doubled_and_torn_writes_are_found() {
        let history = [written(2, 0, 7), written(3, 0, 8), written(4, 0, 8), written(5, 1, 9)];
        for (revision, wrote, expected) in [
            (Some(2), vec![(0, 7)], 0),
            (Some(3), vec![(0, 7)], 1),
            (Some(6), vec![(0, 6)], 1),
            (None, vec![(0, 6)], 0),
            (None, vec![(0, 7)], 0),
            (None, vec![(0, 8)], 1),
            (None, vec![(0, 7), (1, 9)], 1),
            (None, vec![(0, 7), (1, 6)], 1),
        ] {
            let one = told(revision, vec![], wrote);
            assert_eq!(findings(&history, one.clone()), expected, "{one:?}");
        }
    }

    #[test]
    fn an_answer_older_than_what_was_known_is_found() {
        let timed = |invoked, returned, revision, wrote| Timed {
            invoked: Duration::from_millis(invoked),
            returned: Duration::from_millis(returned),
            revision,
            wrote,
            what: String::new(),
        };
        for (second, expected) in [
            (timed(20, 30, 4, true), 0),
            (timed(20, 30, 3, false), 0),
            (timed(20, 30, 3, true), 1),
            (timed(20, 30, 2, false), 1),
            (timed(5, 30, 2, true), 0),
        ] {
            let mut findings = Vec::new();
            goes_forward(&[timed(0, 10, 3, true), second.clone()], &mut findings);
            assert_eq!(findings.len(), expected, "{second:?}");
        }
    }
}
