//! Freeing (rule 4) and pinning (rule 9): which segments are needed, and how the rest go.
//!
//! A segment is needed while it holds an entry above some group's `purged`. Votes and the like never pin: the head of
//! every segment states them anew. Order: the floor record is synced, then the names change, durably, then a file may
//! get a new header.

use std::sync::Arc;

use quorate_core::api::ids::GroupId;

use super::error::JournalError;
use super::options::Rule;
use super::pool::Freed;
use super::reader;
use super::record::Record;
use super::segment::FileName;
use super::shared::{Group, OpenSegment};
use super::writer::Writer;

/// Room for one restated group state.
const STATE_ROOM: usize = 1024;

impl Writer {
    /// Raises the floor as far as the groups let it, durably, and frees what lies below.
    pub(crate) fn raise_floor(&mut self) -> Result<(), JournalError> {
        let mut floor = self.floor_possible();
        if let Some(group) = self.pinner_over_limit(floor) {
            self.move_oldest_entries(&group)?;
            floor = self.floor_possible();
        }
        if floor <= self.floor {
            return Ok(());
        }
        let freed_early = !self.shared.options.keeps(Rule::FloorFirst);
        if freed_early {
            self.floor = floor;
            self.free_segments()?;
        }
        self.add_own_record(&Record::Floor(floor))?;
        self.floor = floor;
        self.flush()?;
        if !freed_early {
            self.free_segments()?;
        }
        Ok(())
    }

    /// The first segment that any group still needs. The active one's head must be durable before it may count, and
    /// it is: this runs only after a synced frame.
    fn floor_possible(&self) -> u64 {
        let first_needed = |group: &Arc<Group>| {
            let front = group.front.lock();
            front.runs.first_segment()
        };
        let pinned = self.written.values().filter_map(|w| first_needed(&w.group));
        let head_is_durable = self.active.offset > super::segment::SEGMENT_HEADER as u64;
        let newest = if head_is_durable { self.active.number } else { self.active.number - 1 };
        pinned.min().unwrap_or(newest).min(newest).max(self.floor)
    }

    /// The group that pins the oldest segment, when the journal is over its limit and the group's entries are few
    /// enough that moving them gains something.
    fn pinner_over_limit(&self, floor: u64) -> Option<Arc<Group>> {
        let limit = self.shared.options.retained_bytes_max;
        let live: u64 =
            self.shared.segments.lock().range(floor..).map(|(_, segment)| segment.bytes).sum();
        let moves = self.shared.options.keeps(Rule::MovesPinned);
        if !moves || live <= limit || floor >= self.active.number {
            return None;
        }
        self.written.values().find_map(|written| {
            let front = written.group.front.lock();
            let pins = front.runs.first_segment() == Some(floor);
            (pins && front.runs.bytes() < limit / 2).then(|| Arc::clone(&written.group))
        })
    }

    /// Writes the group's state and its entries of the oldest segment anew, from this writer's own table.
    fn move_oldest_entries(&mut self, group: &Arc<Group>) -> Result<(), JournalError> {
        self.reserve(STATE_ROOM)?;
        self.restate(group)?;
        let oldest = {
            let front = group.front.lock();
            front.runs.in_segment(front.runs.first_segment().unwrap_or_default())
        };
        for run in oldest {
            let entries =
                reader::entries_at(&self.shared, group.id, run.place(), run.first, run.end())?;
            for entry in &entries {
                self.add_entry(group, entry, None)?;
            }
        }
        self.flush()
    }

    /// Takes segments below the floor out of use and hands their files on.
    pub(crate) fn free_segments(&mut self) -> Result<(), JournalError> {
        let freed: Vec<Freed> = {
            let mut segments = self.shared.segments.lock();
            let kept = segments.split_off(&self.floor);
            let below = std::mem::replace(&mut *segments, kept).into_iter();
            let freed = |(number, segment): (u64, Arc<OpenSegment>)| Freed {
                name: FileName::live(number),
                file: Arc::clone(&segment.file),
            };
            below.map(freed).collect()
        };
        if freed.is_empty() {
            return Ok(());
        }
        self.pool.free(freed).map_err(JournalError::io("freeing segments"))
    }

    /// Adds a record that belongs to no group.
    pub(crate) fn add_own_record(&mut self, record: &Record) -> Result<(), JournalError> {
        self.reserve(record.size_bound())?;
        self.push(GroupId::default(), record);
        Ok(())
    }
}
