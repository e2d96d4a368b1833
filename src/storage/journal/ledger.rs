//! What the records of one group add up to. Three of these exist: the front one that callers see, the writer's one
//! that follows the frames, and the one that replay builds. All three move by [`Ledger::check`] and [`Ledger::apply`].
//!
//! **Invariant:** purged ≤ base ≤ committed ≤ last (by index), and every entry in (purged, last] exists.

use std::collections::VecDeque;

use quorate_core::api::ids::LogId;

use super::error::Violation;
use super::record::{GroupState, InstallMark, Record, Vote};

/// One group's state and the terms of its entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) state: GroupState,
    /// (first index, term) of each stretch of equal terms, ascending. A term is `None` during a replay whose first
    /// segments are freed: a later record purges or restates those entries.
    terms: VecDeque<(u64, Option<u64>)>,
}

impl Ledger {
    /// The term of the entry at `index`, if it is known.
    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if let Some(purged) = self.state.purged.filter(|purged| purged.index == index) {
            return Some(purged.term.0);
        }
        if self.state.last.is_none_or(|last| index > last.index) {
            return None;
        }
        let after = self.terms.partition_point(|(first, _)| *first <= index);
        let (_, term) = self.terms.get(after.checked_sub(1)?)?;
        *term
    }

    /// The first index that the log holds, or would hold.
    pub(crate) fn first_index(&self) -> u64 {
        let after_purged = self.state.purged.map(|purged| purged.index + 1);
        let first = self.terms.front().map(|(first, _)| *first);
        first.or(after_purged).unwrap_or(0)
    }

    /// The log holds `id` for certain.
    pub(crate) fn holds(&self, id: LogId) -> bool {
        self.term_at(id.index) == Some(id.term.0)
    }

    /// `id` may be in the log: it is, or its place is known to exist and its term is not.
    fn may_hold(&self, id: LogId) -> bool {
        let within = self.state.last.is_some_and(|last| id.index <= last.index);
        within && self.term_at(id.index).is_none_or(|term| term == id.term.0)
    }

    /// What the log ends with once it is cut from `from` on; `None` inside: it is then empty.
    pub(crate) fn last_before(&self, from: u64) -> Option<LogId> {
        let index = from.checked_sub(1)?;
        self.term_at(index).map(|term| LogId::new(term, index))
    }

    /// Whether `record` may come next.
    pub(crate) fn check(&self, record: &Record) -> Result<(), Violation> {
        match record {
            Record::Entry { entry, restated } => self.check_entry(entry.id, *restated),
            Record::Vote(vote) => check_vote(self.state.vote, *vote),
            Record::Committed(id) => self.check_committed(*id),
            Record::TruncateFrom { from, last } => self.check_truncation(*from, *last),
            Record::PurgedTo(id) => self.check_purge(*id),
            Record::Base(mark) => {
                let at = mark.at;
                let after = |id: Option<LogId>| id.is_none_or(|id| id.index <= at.index);
                let held = self.state.base.as_ref().map(|base| base.at);
                if self.may_hold(at) && after(held) && after(self.state.purged) {
                    return Ok(());
                }
                Err(Violation::BaseMisplaced { held, last: self.state.last, found: at })
            }
            Record::Install { mark, keeps_log } => self.check_install(mark, *keeps_log),
            Record::GroupState(state) if *state == self.state => Ok(()),
            Record::GroupState(_) => Err(Violation::StateDiffers),
            Record::GroupDropped | Record::Floor(_) | Record::Seal(_) => Ok(()),
        }
    }

    /// Whether entry `id` may come next.
    pub(crate) fn check_entry(&self, id: LogId, restated: bool) -> Result<(), Violation> {
        let fits = match self.state.last {
            None => !restated,
            Some(_) if restated => {
                self.may_hold(id) && self.state.purged.is_none_or(|p| p.index < id.index)
            }
            Some(last) => last.index.checked_add(1) == Some(id.index) && id.term >= last.term,
        };
        if fits {
            return Ok(());
        }
        Err(Violation::NotContiguous { expected: self.state.last, found: id })
    }

    fn check_committed(&self, id: LogId) -> Result<(), Violation> {
        let ascends = self.state.committed.is_none_or(|c| c.index <= id.index);
        if ascends && self.may_hold(id) {
            return Ok(());
        }
        Err(Violation::CommitAbsent { last: self.state.last, found: id })
    }

    fn check_truncation(&self, from: u64, last: Option<LogId>) -> Result<(), Violation> {
        if let Some(committed) = self.state.committed.filter(|c| c.index >= from) {
            return Err(Violation::TruncatesCommitted { from, committed: committed.index });
        }
        let within = self.state.last.is_some_and(|held| from <= held.index);
        let above = self.state.purged.is_none_or(|purged| from > purged.index);
        let ends = match last {
            Some(last) => last.index.checked_add(1) == Some(from) && self.may_hold(last),
            None => self.last_before(from).is_none(),
        };
        if within && above && ends {
            return Ok(());
        }
        Err(Violation::TruncatesAbsent { from })
    }

    fn check_purge(&self, id: LogId) -> Result<(), Violation> {
        let base = self.state.base.as_ref().map(|base| base.at);
        let ascends = self.state.purged.is_none_or(|p| p.index <= id.index);
        if ascends && base.is_some_and(|base| id.index <= base.index) && self.may_hold(id) {
            return Ok(());
        }
        Err(Violation::PurgeAboveBase { base, found: id })
    }

    fn check_install(&self, mark: &InstallMark, keeps_log: bool) -> Result<(), Violation> {
        let id = mark.snapshot;
        let below = |held: Option<LogId>| held.is_some_and(|held| held.index > id.index);
        let fits = if keeps_log {
            self.may_hold(id) && !below(self.state.purged)
        } else {
            !self.holds(id) && !below(self.state.committed) && !below(self.state.purged)
        };
        if fits && mark.base.at == id {
            return Ok(());
        }
        Err(Violation::InstallMisplaced { committed: self.state.committed, found: id })
    }

    /// Moves by `record`, which was checked.
    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::Entry { entry, restated } => {
                if *restated {
                    self.learn_term(entry.id);
                } else {
                    self.append(entry.id);
                }
            }
            Record::Vote(vote) => self.state.vote = Some(*vote),
            Record::Committed(id) => self.raise_committed(*id),
            Record::TruncateFrom { from, last } => {
                while self.terms.back().is_some_and(|(first, _)| first >= from) {
                    self.terms.pop_back();
                }
                self.state.last = *last;
            }
            Record::PurgedTo(id) => self.purge(*id),
            Record::Base(mark) => {
                self.raise_committed(mark.at);
                self.state.generation = mark.generation;
                self.state.base = Some(mark.clone());
            }
            Record::Install { mark, keeps_log } => {
                if !keeps_log {
                    self.terms.clear();
                    self.state.last = Some(mark.snapshot);
                    self.state.committed = Some(mark.snapshot);
                }
                self.raise_committed(mark.snapshot);
                self.state.generation = mark.generation;
                self.state.base = Some(mark.base.clone());
                self.purge(mark.snapshot);
            }
            Record::GroupState(state) => {
                if self.terms.is_empty() {
                    self.begin_at(state);
                }
                self.state = state.clone();
            }
            Record::GroupDropped => *self = Ledger::default(),
            Record::Floor(_) | Record::Seal(_) => {}
        }
    }

    /// Takes one more entry at the end.
    pub(crate) fn append(&mut self, id: LogId) {
        let term = Some(id.term.0);
        if self.terms.back().is_none_or(|(_, held)| *held != term) {
            self.terms.push_back((id.index, term));
        }
        self.state.last = Some(id);
    }

    pub(crate) fn raise_committed(&mut self, id: LogId) {
        if self.state.committed.is_none_or(|c| c.index < id.index) {
            self.state.committed = Some(id);
        }
    }

    fn purge(&mut self, id: LogId) {
        self.state.purged = Some(id);
        if self.state.last.is_none_or(|last| last.index <= id.index) {
            self.state.last = Some(id);
            self.terms.clear();
            return;
        }
        while self.terms.get(1).is_some_and(|(next, _)| *next <= id.index + 1) {
            self.terms.pop_front();
        }
        if let Some((first, _)) = self.terms.front_mut() {
            *first = (*first).max(id.index + 1);
        }
    }

    /// Takes a state whose entries lie in segments that are not read.
    fn begin_at(&mut self, state: &GroupState) {
        let Some(last) = state.last.filter(|last| Some(*last) != state.purged) else {
            return;
        };
        let from = state.purged.map_or(0, |purged| purged.index + 1);
        if from < last.index {
            self.terms.push_back((from, None));
        }
        self.terms.push_back((last.index, Some(last.term.0)));
    }

    /// Notes the term of an entry where none was known, told by a restated entry.
    fn learn_term(&mut self, id: LogId) {
        let after = self.terms.partition_point(|(first, _)| *first <= id.index);
        let Some(mut at) = after.checked_sub(1) else {
            return;
        };
        let (first, None) = self.terms[at] else {
            return;
        };
        let term = Some(id.term.0);
        if self.terms.get(after).is_none_or(|(next, _)| *next != id.index + 1) {
            self.terms.insert(after, (id.index + 1, None));
        }
        if first == id.index {
            self.terms[at].1 = term;
        } else {
            at += 1;
            self.terms.insert(at, (id.index, term));
        }
        if self.terms.get(at + 1).is_some_and(|(_, next)| *next == term) {
            self.terms.remove(at + 1);
        }
        if at > 0 && self.terms[at - 1].1 == term {
            self.terms.remove(at);
        }
    }
}

/// A vote may rise in term, be given where none was, or be followed by the quorum's leader of the same term.
fn check_vote(held: Option<Vote>, found: Vote) -> Result<(), Violation> {
    let Some(held) = held else { return Ok(()) };
    let fits = match found.term.cmp(&held.term) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => {
            let same = found.voted_for == held.voted_for;
            match (held.committed, found.committed) {
                (true, true) => same,
                (true, false) => false,
                (false, true) => true,
                (false, false) => same || held.voted_for.is_none(),
            }
        }
    };
    if fits {
        return Ok(());
    }
    Err(Violation::VoteLower { held: held.term, found: found.term })
}
