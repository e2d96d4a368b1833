//! Where the entries of a group lie: one run for each frame that holds some, 24 bytes however many they are.

use std::collections::VecDeque;

/// Entries `first .. first + count` of one group, in one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) count: u32,
    segment: u32,
    /// In units of 8 bytes.
    offset: u32,
    /// Payload bytes, for knowing what restating would cost.
    pub(crate) bytes: u32,
}

/// A frame's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

impl Run {
    pub(crate) fn new(first: u64, count: u32, place: Place, bytes: u32) -> Run {
        Run {
            first,
            count,
            segment: u32::try_from(place.segment).expect("2^32 segments are 256 PiB"),
            offset: u32::try_from(place.offset / 8).expect("a segment is below 32 GiB"),
            bytes,
        }
    }

    pub(crate) fn place(&self) -> Place {
        Place { segment: u64::from(self.segment), offset: u64::from(self.offset) * 8 }
    }

    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

/// All runs of a group, ascending.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs {
    runs: VecDeque<Run>,
    /// Some run lies later than what follows it.
    relocated: bool,
}

impl Runs {
    /// Adds entries after all others.
    pub(crate) fn push(&mut self, run: Run) {
        debug_assert!(self.runs.back().is_none_or(|last| last.end() <= run.first));
        self.runs.push_back(run);
    }

    /// The run that holds `index`.
    pub(crate) fn find(&self, index: u64) -> Option<Run> {
        let after = self.runs.partition_point(|run| run.first <= index);
        let run = self.runs.get(after.checked_sub(1)?)?;
        (index < run.end()).then_some(*run)
    }

    /// Forgets entries from `from` on.
    pub(crate) fn truncate_from(&mut self, from: u64) {
        while self.runs.back().is_some_and(|run| run.first >= from) {
            self.runs.pop_back();
        }
        if let Some(run) = self.runs.back_mut().filter(|run| run.end() > from) {
            run.count = u32::try_from(from - run.first).expect("a part of a count");
        }
    }

    /// Forgets entries up to `index`.
    pub(crate) fn purge_to(&mut self, index: u64) {
        while self.runs.front().is_some_and(|run| run.end() <= index + 1) {
            self.runs.pop_front();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.runs.clear();
        self.relocated = false;
    }

    /// Entries of `moved` lie in its frame from here on, wherever they lay before.
    pub(crate) fn relocate(&mut self, moved: Run) {
        let mut kept = VecDeque::with_capacity(self.runs.len() + 2);
        for run in self.runs.drain(..) {
            let left = run.end().min(moved.first).saturating_sub(run.first);
            if left > 0 {
                kept.push_back(part(run, run.first, left));
            }
            let start = run.first.max(moved.end());
            let right = run.end().saturating_sub(start);
            if right > 0 {
                kept.push_back(part(run, start, right));
            }
        }
        let at = kept.partition_point(|run| run.first < moved.first);
        kept.insert(at, moved);
        self.runs = kept;
        self.relocated = true;
    }

    /// The first segment that holds an entry above `purged`.
    pub(crate) fn first_segment(&self) -> Option<u64> {
        if !self.relocated {
            return self.runs.front().map(|run| run.place().segment);
        }
        self.runs.iter().map(|run| run.place().segment).min()
    }

    /// The runs that lie in `segment`.
    pub(crate) fn in_segment(&self, segment: u64) -> Vec<Run> {
        let lies_there = |run: &&Run| run.place().segment == segment;
        self.runs.iter().filter(lies_there).copied().collect()
    }

    /// Every index in `from ..= to` is in some run.
    pub(crate) fn cover(&self, from: u64, to: u64) -> bool {
        let before = self.runs.partition_point(|run| run.end() <= from);
        let mut next = from;
        for run in self.runs.range(before..) {
            if run.first > next {
                break;
            }
            next = run.end();
        }
        next > to
    }

    /// The first index held.
    pub(crate) fn first(&self) -> Option<u64> {
        self.runs.front().map(|run| run.first)
    }

    /// Payload bytes of all runs.
    pub(crate) fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.bytes)).sum()
    }
}

fn part(run: Run, first: u64, count: u64) -> Run {
    let share = u64::from(run.bytes) * count / u64::from(run.count);
    Run {
        first,
        count: u32::try_from(count).expect("a part of a count"),
        bytes: u32::try_from(share).expect("a part of a count"),
        ..run
    }
}
