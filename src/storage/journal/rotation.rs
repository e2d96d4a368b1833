//! Going on to a new segment: its header ends the one before, its first frame states every group anew.
//!
//! ```text
//!   old: … frame | frame | note "continued"          (the note lies behind the end that the header below names)
//!   new: header {previous end, frame, CRC} ─sync─▶ live name ─directory sync─▶ frame {all group states, …}
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quorate_core::api::ids::GroupId;
use rand::Rng;

use super::error::JournalError;
use super::frame::{self, FRAME_HEADER};
use super::options::Rule;
use super::pool::Prepared;
use super::record::{Record, Seal};
use super::segment::{FileName, SEGMENT_HEADER, SegmentHeader};
use super::shared::{Group, OpenSegment};
use super::writer::{Active, SEAL_ROOM, Writer, written_entry};
use crate::storage::device::LogFile;

impl Writer {
    /// Makes the last frame durable if it is a seal written without a sync.
    pub(crate) fn sync_idle_seal(&mut self) -> Result<(), JournalError> {
        if self.durable + 1 < self.sequence {
            let synced = self.active.file.sync_data();
            synced.map_err(JournalError::io("syncing a seal"))?;
            self.shared.figures.syncs.fetch_add(1, Ordering::Relaxed);
            self.durable = self.sequence - 1;
        }
        Ok(())
    }

    /// Goes on to a new segment, whose first frame begins with every group's state.
    pub(crate) fn rotate(&mut self) -> Result<(), JournalError> {
        // The header below says that all of this segment is durable.
        self.sync_idle_seal()?;
        let prepared = self.pool.take()?.ok_or(JournalError::Closed)?;
        let header = SegmentHeader {
            journal: self.journal,
            segment: self.active.number + 1,
            salt: self.rng.random(),
            bytes: self.active_bytes_of(&prepared)?,
            floor: self.floor,
            previous: self.active.number,
            previous_end: self.active.offset,
            previous_frame: self.sequence - 1,
            previous_crc: self.chain,
        };
        let ended = Ended::of(self);
        self.begin_segment(prepared, &header)?;
        self.name_segment()?;
        ended.mark_continued()?;
        self.floor_due = true;
        self.restate_all()
    }

    fn active_bytes_of(&self, prepared: &Prepared) -> Result<u64, JournalError> {
        let size = prepared.file.size();
        size.map_err(JournalError::io(format!("measuring {}", prepared.name)))
    }

    /// Writes and syncs the header; the file keeps its waiting name until [`Writer::name_segment`].
    pub(crate) fn begin_segment(
        &mut self,
        prepared: Prepared,
        header: &SegmentHeader,
    ) -> Result<(), JournalError> {
        let Prepared { name, file, recycled } = prepared;
        let bytes = header.encode();
        let begun = file.write_at(0, &bytes).and_then(|()| file.sync_data());
        begun.map_err(JournalError::io(format!("beginning segment {}", header.segment)))?;
        let figures = &self.shared.figures;
        figures.bytes_written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        figures.syncs.fetch_add(1, Ordering::Relaxed);
        let counter = if recycled { &figures.segments_recycled } else { &figures.segments_created };
        counter.fetch_add(1, Ordering::Relaxed);
        self.shared.segments.lock().insert(
            header.segment,
            Arc::new(OpenSegment {
                file: Arc::clone(&file),
                salt: header.salt,
                bytes: header.bytes,
            }),
        );
        self.active = Active {
            number: header.segment,
            file,
            salt: header.salt,
            bytes: header.bytes,
            offset: SEGMENT_HEADER as u64,
            staged_as: Some(name),
        };
        Ok(())
    }

    /// Gives the active segment its live name, durably.
    pub(crate) fn name_segment(&mut self) -> Result<(), JournalError> {
        let Some(waiting) = self.active.staged_as.take() else {
            return Ok(());
        };
        let live = FileName::live(self.active.number);
        let device = &self.shared.device;
        let named = device.rename(&waiting, &live).and_then(|()| {
            if self.shared.options.keeps(Rule::NameSynced) { device.sync_dir() } else { Ok(()) }
        });
        named.map_err(JournalError::io(format!("naming {live}")))
    }

    /// Adds every group's state to the frame: what lies in earlier segments but entries is then not needed (rule 9).
    pub(crate) fn restate_all(&mut self) -> Result<(), JournalError> {
        if !self.shared.options.keeps(Rule::Restates) {
            return Ok(());
        }
        let groups: Vec<_> = self.written.values().map(|w| Arc::clone(&w.group)).collect();
        for group in groups {
            self.restate(&group)?;
        }
        Ok(())
    }

    /// Adds one group's state to the frame, as the writer holds it at this moment.
    pub(crate) fn restate(&mut self, group: &Arc<Group>) -> Result<(), JournalError> {
        let ledger = &written_entry(&mut self.written, group).ledger;
        let record = Record::GroupState(ledger.state.clone());
        // Not through `reserve`, which may rotate, which calls this.
        let used = self.frame.bytes.len().max(FRAME_HEADER);
        if self.frame.records > 0 && used + record.size_bound() > self.frame_limit() {
            self.write_frame(true)?;
            self.publish();
        }
        self.push(group.id, &record);
        Ok(())
    }
}

/// A segment that frames went to.
pub(crate) struct Ended {
    file: Arc<dyn LogFile>,
    salt: u64,
    offset: u64,
    bytes: u64,
    sequence: u64,
    chain: u32,
}

impl Ended {
    /// The active segment, about to be left.
    pub(crate) fn of(writer: &Writer) -> Ended {
        Ended {
            file: Arc::clone(&writer.active.file),
            salt: writer.active.salt,
            offset: writer.active.offset,
            bytes: writer.active.bytes,
            sequence: writer.sequence,
            chain: writer.chain,
        }
    }

    /// Gives back what lies behind its end, but for the note that it goes on.
    pub(crate) fn shrink(&self) -> Result<(), JournalError> {
        let page = SEGMENT_HEADER as u64;
        let kept = (self.offset + SEAL_ROOM).next_multiple_of(page);
        if kept >= self.bytes {
            return Ok(());
        }
        let shrunk = self.file.shrink(kept);
        shrunk.map_err(JournalError::io("shortening a segment that a crash ended"))
    }

    /// Notes behind its end that a next segment exists, so that its loss is seen. Not synced: nothing needs it, and
    /// the next segment's header ends this one before it.
    pub(crate) fn mark_continued(&self) -> Result<(), JournalError> {
        let mut bytes = vec![0; FRAME_HEADER];
        Record::Seal(Seal::Continued).encode(GroupId::default(), &mut bytes);
        let durable = self.sequence - 1;
        let (salt, offset) = (self.salt, self.offset);
        frame::finish(&mut bytes, salt, offset, self.chain, self.sequence, durable, 1);
        if offset + bytes.len() as u64 > self.bytes {
            return Ok(());
        }
        let marked = self.file.write_at(offset, &bytes);
        marked.map_err(JournalError::io("marking a full segment"))
    }
}
