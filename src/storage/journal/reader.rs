//! Reading entries back from a live segment, the frame's CRC checked.

use quorate_core::api::ids::GroupId;

use super::error::JournalError;
use super::frame;
use super::record::{LogRecord, Record};
use super::runs::Place;
use super::segment::FileName;
use super::shared::Shared;

/// Entries `from .. end` of `group` as the frame at `place` holds them; the first is `from`.
pub(crate) fn entries_at(
    shared: &Shared,
    group: GroupId,
    place: Place,
    from: u64,
    end: u64,
) -> Result<Vec<LogRecord>, JournalError> {
    let found = newest_of(read_frame(shared, group, place)?, from, end);
    if found.first().is_some_and(|record| record.id.index == from) {
        return Ok(found);
    }
    Err(JournalError::Damaged {
        file: FileName::live(place.segment),
        offset: place.offset,
        reason: format!("entry {from} of group {group} is not in its frame"),
    })
}

/// The entries of `group` in the frame at `place`, in written order.
fn read_frame(
    shared: &Shared,
    group: GroupId,
    place: Place,
) -> Result<Vec<LogRecord>, JournalError> {
    let name = FileName::live(place.segment);
    let damaged = |reason: &str| JournalError::Damaged {
        file: name.clone(),
        offset: place.offset,
        reason: reason.to_owned(),
    };
    let segment = shared.segments.lock().get(&place.segment).cloned();
    let segment = segment.ok_or_else(|| damaged("the segment is gone"))?;
    let read = |buf: &mut [u8]| {
        let read = segment.file.read_at(place.offset, buf);
        read.map_err(JournalError::io(format!("reading {name}")))
    };
    let mut head = [0; frame::FRAME_HEADER];
    read(&mut head)?;
    let header = frame::peek(&head).ok_or_else(|| damaged("no frame here"))?;
    if place.offset + u64::from(header.length) > segment.bytes {
        return Err(damaged("the frame is longer than the segment"));
    }
    let mut bytes = vec![0; header.length as usize];
    read(&mut bytes)?;
    let header = frame::check(&bytes, segment.salt, place.offset)
        .ok_or_else(|| damaged("the frame's checksum does not match"))?;
    let records = frame::records(&header, &bytes.into())
        .ok_or_else(|| damaged("the frame's records do not decode"))?;
    let entries = records.into_iter().filter_map(|(of, record)| match record {
        Record::Entry { entry, .. } if of == group => Some(entry),
        Record::Entry { .. }
        | Record::Vote(_)
        | Record::Committed(_)
        | Record::TruncateFrom { .. }
        | Record::PurgedTo(_)
        | Record::Base(_)
        | Record::Install { .. }
        | Record::GroupState(_)
        | Record::GroupDropped
        | Record::Floor(_)
        | Record::Seal(_) => None,
    });
    Ok(entries.collect())
}

/// Of a frame's entries, in written order, those in `from .. end`; of one index the newest counts.
fn newest_of(records: Vec<LogRecord>, from: u64, end: u64) -> Vec<LogRecord> {
    let mut found: Vec<LogRecord> = Vec::new();
    for record in records {
        let index = record.id.index;
        while found.last().is_some_and(|last| last.id.index >= index) {
            found.pop();
        }
        if (from..end).contains(&index) {
            found.push(record);
        }
    }
    found
}
