//! A small independent model of the journal, and random histories that are stopped anywhere and compared with it.
//!
//! One life: open, compare, random changes to several groups (some batched into one frame), an end: close, kill, a
//! failed sync, or the power going at a sync point. After it every group must be exactly as it was after the first
//! m steps, for one m common to all groups: at least as many steps as were acknowledged, at most as many as were
//! asked for. So nothing acknowledged is lost, and nothing is reordered, not even between groups.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use quorate_core::api::ids::{GroupId, LogId, MemberId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::options::Rule;
use super::*;
use crate::storage::device::double::DoubleDevice;

const GROUPS: u64 = 3;

/// One step of one group.
#[derive(Clone, Debug)]
enum Step {
    Entry(LogRecord),
    Vote(Vote),
    Truncate(u64),
    Purge(LogId),
    Base(BaseMark),
    Install(InstallMark),
    Dropped,
}

/// What a group must look like.
#[derive(Clone, Debug, Default, PartialEq)]
struct Group {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    base: Option<BaseMark>,
    generation: u64,
    entries: BTreeMap<u64, LogRecord>,
}

impl Group {
    fn id_at(&self, index: u64) -> Option<LogId> {
        let entry = self.entries.get(&index).map(|entry| entry.id);
        entry.or(self.purged.filter(|purged| purged.index == index))
    }

    fn drop_to(&mut self, id: LogId) {
        self.entries = self.entries.split_off(&(id.index + 1));
        self.purged = Some(id);
        if self.last.is_none_or(|last| last.index < id.index) {
            self.last = Some(id);
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Entry(entry) => {
                self.last = Some(entry.id);
                self.entries.insert(entry.id.index, entry.clone());
            }
            Step::Vote(vote) => self.vote = Some(*vote),
            Step::Truncate(from) => {
                self.entries.split_off(from);
                self.last = from.checked_sub(1).and_then(|index| self.id_at(index));
            }
            Step::Purge(id) => self.drop_to(*id),
            Step::Base(mark) => {
                self.base = Some(mark.clone());
                self.generation = mark.generation;
            }
            Step::Install(mark) => {
                if self.id_at(mark.snapshot.index) != Some(mark.snapshot) {
                    self.entries.clear();
                    self.last = Some(mark.snapshot);
                }
                self.base = Some(mark.base.clone());
                self.generation = mark.generation;
                self.drop_to(mark.snapshot);
            }
            Step::Dropped => *self = Group::default(),
        }
    }
}

type Groups = BTreeMap<u64, Group>;

/// What one call asks for.
#[derive(Clone, Debug)]
enum Call {
    Append(u64, Vec<LogRecord>),
    Other(u64, Step),
    Commit(u64, LogId),
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    Close,
    Kill,
    FreezeAt(u64),
    FailSyncAt(u64),
}

/// A history in the making: the disk, and what was asked of it.
pub(super) struct History {
    rng: StdRng,
    device: DoubleDevice,
    broken: Option<Rule>,
    /// State at the start of this life.
    start: Groups,
    /// State after all steps asked for.
    asked: Groups,
    committed: BTreeMap<u64, LogId>,
    steps: Vec<(u64, Step)>,
    acknowledged: Arc<AtomicUsize>,
    id: Option<JournalId>,
    pub(super) opens: u64,
}

impl History {
    pub(super) fn new(seed: u64, broken: Option<Rule>) -> History {
        History {
            rng: StdRng::seed_from_u64(seed),
            device: DoubleDevice::default(),
            broken,
            start: Groups::new(),
            asked: Groups::new(),
            committed: BTreeMap::new(),
            steps: Vec::new(),
            acknowledged: Arc::default(),
            id: None,
            opens: 0,
        }
    }

    fn options(&mut self) -> JournalOptions {
        JournalOptions {
            segment_bytes: 32 << 10,
            retained_bytes_max: 256 << 10,
            tail_bytes: self.rng.random_range(0..20_000),
            seed: Some(self.rng.random()),
            expected: self.id,
            broken: self.broken,
            ..JournalOptions::default()
        }
    }

    fn open(&mut self) -> Result<Journal, JournalError> {
        self.opens += 1;
        let options = self.options();
        Journal::open(Arc::new(self.device.clone()), options, Runner::InPlace)
    }

    /// Opens, through `crashes` power cuts during recovery.
    fn open_through(&mut self, crashes: u64) -> Result<Journal, String> {
        for at in 0..crashes {
            self.device.freeze_at(at);
            match self.open() {
                Ok(journal) if !self.device.is_frozen() => return Ok(journal),
                Ok(_) => {}
                Err(error) if !self.device.is_frozen() => return Err(error.to_string()),
                Err(_) => {}
            }
            self.device = self.device.after_power_cut(self.rng.random());
        }
        self.device = self.device.after_kill();
        self.open().map_err(|error| error.to_string())
    }

    /// One life with `calls` bursts of changes. An error is a violation found.
    pub(super) fn live(&mut self, bursts: u64, end: End) -> Result<u64, String> {
        let crashes = self.rng.random_range(0..6);
        let journal = self.open_through(crashes)?;
        self.compare(&journal)?;
        let created = self.id.is_none();
        self.id = Some(journal.id());
        match end {
            End::FreezeAt(at) => self.device.freeze_at(self.device.syncs() + at),
            End::FailSyncAt(at) => self.device.fail_sync_at(self.device.syncs() + at),
            End::Close | End::Kill => {}
        }
        let before = self.device.syncs();
        let mut journal = Some(journal);
        for _ in 0..bursts {
            let Some(open) = journal.take() else { break };
            journal = self.burst(open)?;
        }
        let syncs = self.device.syncs() - before;
        if let Some(journal) = journal {
            let closed = end == End::Close && journal.close().is_ok();
            if closed {
                self.acknowledged.store(self.steps.len(), Ordering::SeqCst);
            }
        }
        let power_cut = matches!(end, End::FreezeAt(_)) || self.rng.random_bool(0.5);
        self.device = if power_cut {
            self.device.after_power_cut(self.rng.random())
        } else {
            self.device.after_kill()
        };
        if created && self.acknowledged.load(Ordering::SeqCst) == 0 {
            // The first segment's name may be gone with everything else; then so is the journal's id.
            self.id = None;
        }
        Ok(syncs)
    }

    /// Some calls, perhaps within one frame, perhaps a seal or a restart. `None` when the journal has stopped.
    fn burst(&mut self, journal: Journal) -> Result<Option<Journal>, String> {
        match self.rng.random_range(0..20) {
            0..2 => journal.idle(),
            2 => {
                let states = self.states(&journal);
                if journal.close().is_err() {
                    return Ok(None);
                }
                self.acknowledged.store(self.steps.len(), Ordering::SeqCst);
                let journal = match self.open() {
                    Ok(journal) => journal,
                    Err(_) if self.device.is_frozen() => return Ok(None),
                    Err(JournalError::Io { .. }) => return Ok(None),
                    Err(error) => return Err(format!("after a close: {error}")),
                };
                let found = self.states(&journal);
                if found != states {
                    return Err(format!("a close and an opening made {found:?} of {states:?}"));
                }
                return Ok(Some(journal));
            }
            _ => {
                let count = if self.rng.random_bool(0.4) { 4 } else { 1 };
                let calls: Vec<_> = (0..count).filter_map(|_| self.call()).collect();
                if !submit(&journal, calls, &self.acknowledged) {
                    return Ok(None);
                }
            }
        }
        Ok(journal.poisoned().is_none().then_some(journal))
    }

    fn states(&self, journal: &Journal) -> Vec<GroupState> {
        (0..GROUPS).map(|group| journal.group(GroupId(group)).state()).collect()
    }

    /// Draws one call, and moves the model by it.
    fn call(&mut self) -> Option<(Call, usize)> {
        let id = self.rng.random_range(0..GROUPS);
        let group = self.asked.entry(id).or_default().clone();
        let committed = self.committed.get(&id).copied();
        let last = group.last;
        let next = last.map_or(0, |last| last.index + 1);
        let call = match self.rng.random_range(0..100) {
            0..50 => Call::Append(id, self.draw_entries(last)),
            50..58 => {
                let term = group.vote.map_or(1, |vote| vote.term + 1);
                let vote = Vote {
                    term,
                    voted_for: Some(MemberId(self.rng.random_range(1..4))),
                    committed: self.rng.random(),
                };
                Call::Other(id, Step::Vote(vote))
            }
            58..64 => {
                let floor = committed.max(group.purged).map_or(0, |id| id.index + 1);
                if floor >= next {
                    return None;
                }
                Call::Other(id, Step::Truncate(self.rng.random_range(floor..next)))
            }
            64..80 => {
                let from = committed.map_or(group.purged.map_or(0, |p| p.index + 1), |c| c.index);
                if from >= next {
                    return None;
                }
                let index = self.rng.random_range(from..next);
                Call::Commit(id, group.id_at(index)?)
            }
            80..88 => Call::Other(id, Step::Base(self.mark(committed?, group.generation))),
            88..94 => {
                let base = group.base.as_ref()?.at;
                let from = group.purged.map_or(0, |purged| purged.index + 1);
                if from > base.index {
                    return None;
                }
                let index = self.rng.random_range(from..=base.index);
                Call::Other(id, Step::Purge(group.id_at(index)?))
            }
            94..98 => self.draw_install(id, &group, committed),
            _ => {
                if !self.rng.random_bool(0.2) {
                    return None;
                }
                Call::Other(id, Step::Dropped)
            }
        };
        self.move_model(&call);
        Some((call, self.steps.len()))
    }

    fn draw_install(&mut self, id: u64, group: &Group, committed: Option<LogId>) -> Call {
        let next = group.last.map_or(0, |last| last.index + 1);
        let ahead = self.rng.random_range(0..4);
        let snapshot = match committed.filter(|_| ahead == 0) {
            Some(committed) => committed,
            None => {
                let term = group.last.map_or(1, |last| last.term.0 + 1);
                let above = committed.map_or(0, |c| c.index + 1);
                LogId::new(term, above.max(next.saturating_sub(3)) + ahead)
            }
        };
        let generation = group.generation + 1;
        let base = self.mark(snapshot, generation);
        let membership = Bytes::from_static(b"members");
        Call::Other(id, Step::Install(InstallMark { snapshot, generation, base, membership }))
    }

    fn draw_entries(&mut self, last: Option<LogId>) -> Vec<LogRecord> {
        let mut term = last.map_or(1, |last| last.term.0) + u64::from(self.rng.random_bool(0.1));
        let next = last.map_or(0, |last| last.index + 1);
        let count = self.rng.random_range(1..8);
        (next..next + count)
            .map(|index| {
                term += u64::from(self.rng.random_bool(0.05));
                let size = match self.rng.random_range(0..10) {
                    0 => self.rng.random_range(4000..7000),
                    1..4 => self.rng.random_range(300..1500),
                    _ => self.rng.random_range(0..100),
                };
                let fill: u8 = self.rng.random();
                LogRecord { id: LogId::new(term, index), payload: Bytes::from(vec![fill; size]) }
            })
            .collect()
    }

    fn mark(&mut self, at: LogId, generation: u64) -> BaseMark {
        BaseMark {
            at,
            generation,
            file_name: format!("base-{at}.qb").replace('/', "-"),
            len: self.rng.random(),
            content_hash: self.rng.random(),
        }
    }

    fn move_model(&mut self, call: &Call) {
        let mut step = |id: u64, step: Step| {
            self.asked.entry(id).or_default().apply(&step);
            self.steps.push((id, step));
        };
        match call {
            Call::Append(id, records) => {
                for record in records {
                    step(*id, Step::Entry(record.clone()));
                }
            }
            Call::Other(id, change) => {
                match change {
                    Step::Install(mark) => {
                        self.committed.insert(*id, mark.snapshot);
                    }
                    Step::Dropped => {
                        self.committed.remove(id);
                    }
                    Step::Entry(_)
                    | Step::Vote(_)
                    | Step::Truncate(_)
                    | Step::Purge(_)
                    | Step::Base(_) => {}
                }
                step(*id, change.clone());
            }
            Call::Commit(id, at) => {
                self.committed.insert(*id, *at);
            }
        }
    }

    /// The journal must be as after some number of steps between those acknowledged and those asked for.
    fn compare(&mut self, journal: &Journal) -> Result<(), String> {
        let mut found = Groups::new();
        for id in 0..GROUPS {
            let log = journal.group(GroupId(id));
            found.insert(id, self.read(id, &log)?);
        }
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let mut state = self.start.clone();
        let steps = std::mem::take(&mut self.steps);
        let mut applied = 0;
        let fits = |state: &Groups| {
            let empty = Group::default();
            (0..GROUPS).all(|id| found[&id] == *state.get(&id).unwrap_or(&empty))
        };
        while applied < acknowledged || !fits(&state) {
            let Some((id, step)) = steps.get(applied) else {
                return Err(format!(
                    "no prefix of at least {acknowledged} of {applied} steps gives what was found"
                ));
            };
            state.entry(*id).or_default().apply(step);
            applied += 1;
        }
        for id in 0..GROUPS {
            match journal.group(GroupId(id)).state().committed {
                Some(committed) => self.committed.insert(id, committed),
                None => self.committed.remove(&id),
            };
        }
        self.start = state.clone();
        self.asked = state;
        self.acknowledged = Arc::default();
        Ok(())
    }

    fn read(&self, id: u64, log: &GroupLog) -> Result<Group, String> {
        let state = log.state();
        let from = state.purged.map_or(0, |purged| purged.index + 1);
        let entries = log.entries(from, u64::MAX, usize::MAX);
        let entries = entries.map_err(|error| format!("reading group {id}: {error}"))?;
        if let Some(committed) = state.committed {
            let held = state.purged == Some(committed) || entries.iter().any(|e| e.id == committed);
            if !held {
                return Err(format!("group {id} commits {committed}, which it does not hold"));
            }
        }
        if state.base.is_some_and(|base| state.committed.is_none_or(|c| c.index < base.at.index)) {
            return Err(format!("group {id} has a base beyond its commit index"));
        }
        Ok(Group {
            vote: state.vote,
            purged: state.purged,
            last: state.last,
            base: log.state().base,
            generation: state.generation,
            entries: entries.into_iter().map(|entry| (entry.id.index, entry)).collect(),
        })
    }
}

/// Hands calls to the journal: all but the first from within the first one's callback, so that they share a frame.
/// `false` when the journal has stopped.
fn submit(journal: &Journal, calls: Vec<(Call, usize)>, acknowledged: &Arc<AtomicUsize>) -> bool {
    let mut calls = calls.into_iter();
    let Some((first, steps)) = calls.next() else {
        return true;
    };
    let rest: Vec<_> = calls.collect();
    let (again, counter) = (journal.clone(), Arc::clone(acknowledged));
    let done: Done = Box::new(move |result| {
        if result.is_ok() {
            counter.fetch_max(steps, Ordering::SeqCst);
        }
        for (call, steps) in rest {
            let counter = Arc::clone(&counter);
            let done: Done = Box::new(move |result| {
                if result.is_ok() {
                    counter.fetch_max(steps, Ordering::SeqCst);
                }
            });
            // A refusal here means that the journal has stopped, which the caller sees next.
            let _ = hand_over(&again, call, done);
        }
    });
    hand_over(journal, first, done)
}

fn hand_over(journal: &Journal, call: Call, done: Done) -> bool {
    let log = |id: u64| journal.group(GroupId(id));
    let taken = match call {
        Call::Append(id, records) => log(id).append(records, done),
        Call::Commit(id, at) => {
            log(id).set_committed(at);
            log(id).append(Vec::new(), done)
        }
        Call::Other(id, step) => match step {
            Step::Vote(vote) => log(id).save_vote(vote, done),
            Step::Truncate(from) => log(id).truncate_from(from, done),
            Step::Purge(to) => {
                let purged = log(id).purge_to(to);
                // Purges have no callback of their own; what follows in the queue has.
                purged.and_then(|()| log(id).append(Vec::new(), done))
            }
            Step::Base(mark) => log(id).mark_base(mark, done),
            Step::Install(mark) => log(id).install(mark, done),
            Step::Dropped => log(id).drop_group(done),
            Step::Entry(record) => log(id).append(vec![record], done),
        },
    };
    match taken {
        Ok(()) => true,
        Err(JournalError::Refused(why)) => panic!("the model asks for what is refused: {why}"),
        Err(_) => false,
    }
}

/// Some lives with random ends, from `seed`.
pub(super) fn random_lives(seed: u64, broken: Option<Rule>, lives: u64) -> Result<u64, String> {
    let mut history = History::new(seed, broken);
    for _ in 0..lives {
        let bursts = history.rng.random_range(5..60);
        let at = history.rng.random_range(0..bursts + 5);
        let end = match history.rng.random_range(0..10) {
            0..2 => End::Close,
            2..4 => End::Kill,
            4..6 => End::FailSyncAt(at),
            _ => End::FreezeAt(at),
        };
        history.live(bursts, end)?;
    }
    history.live(0, End::Kill)?;
    Ok(history.opens)
}

/// One life of `bursts`, stopped at sync `at`, and what a further life finds; the syncs it made.
pub(super) fn stopped_at(seed: u64, bursts: u64, at: u64) -> Result<u64, String> {
    let mut history = History::new(seed, None);
    let syncs = history.live(bursts, End::FreezeAt(at))?;
    history.live(3, End::Kill)?;
    history.live(0, End::Kill)?;
    Ok(syncs)
}
