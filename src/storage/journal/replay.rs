//! Reading a journal at start: which segments count, which frames are good, and what their records add up to.
//!
//! ```text
//!   names ──▶ last segment: frames up to the first bad one ── cut, or refused when later proof says "rot" (rule 1)
//!               │ floor, highest durable sequence D
//!               ▼
//!   floor … last: headers and chain (rule 2) ──▶ records ≤ D into the ledgers (rule 8)
//!                                                records > D kept aside, to be written anew (rule 3)
//! ```
//!
//! Nothing is written here.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::api::ids::GroupId;

use super::error::{JournalError, JournalId};
use super::frame::{self, ALIGN, FrameHeader};
use super::ledger::Ledger;
use super::options::{JournalOptions, Rule};
use super::record::{Record, Seal};
use super::runs::{Place, Run, Runs};
use super::segment::{BadHeader, FORMAT, FileName, SEGMENT_HEADER, SegmentHeader};
use crate::storage::device::LogDevice;

const ZEROES: [u8; 4096] = [0; 4096];

/// What a journal's folder holds.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) live: Vec<u64>,
    pub(crate) free: Vec<String>,
    pub(crate) temporary: Vec<String>,
}

impl Names {
    pub(crate) fn read(device: &dyn LogDevice) -> Result<Names, JournalError> {
        let listed = device.list();
        let mut names = Names::default();
        for name in listed.map_err(JournalError::io("listing the journal's folder"))? {
            match FileName::parse(&name) {
                FileName::Live(number) => names.live.push(number),
                FileName::Free => names.free.push(name),
                FileName::Temporary => names.temporary.push(name),
                FileName::Unknown => {}
            }
        }
        names.live.sort_unstable();
        Ok(names)
    }
}

/// One group as read back.
#[derive(Debug, Default)]
pub(crate) struct ReadGroup {
    pub(crate) ledger: Ledger,
    pub(crate) runs: Runs,
    /// Its first record was a restated state: what that leaves out is in freed segments.
    known: bool,
}

/// What a replay found.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) journal: JournalId,
    pub(crate) floor: u64,
    /// Live segments from the floor on, ascending, with their headers.
    pub(crate) segments: Vec<SegmentHeader>,
    pub(crate) groups: BTreeMap<GroupId, ReadGroup>,
    /// Where the accepted frames of the last segment end, the last of them, and its CRC.
    pub(crate) end: u64,
    pub(crate) last_frame: u64,
    pub(crate) last_crc: u32,
    /// The last frame is the seal of an orderly stop.
    pub(crate) closed: bool,
    /// Records of frames that were possibly never synced, in order.
    pub(crate) unproven: Vec<(GroupId, Record)>,
    /// Frames found, for the report.
    pub(crate) frames: u64,
}

/// A segment's bytes as far as they count.
struct Loaded {
    header: SegmentHeader,
    bytes: Bytes,
}

/// A good frame of the last segment.
struct Found {
    offset: u64,
    header: FrameHeader,
}

struct Replay<'a> {
    device: &'a dyn LogDevice,
    options: &'a JournalOptions,
    groups: BTreeMap<GroupId, ReadGroup>,
    frames: u64,
}

/// Reads the journal whose live segments are `live`, not empty.
pub(crate) fn replay(
    device: &dyn LogDevice,
    options: &JournalOptions,
    live: &[u64],
) -> Result<Replayed, JournalError> {
    let mut replay = Replay { device, options, groups: BTreeMap::new(), frames: 0 };
    let newest = *live.last().expect("the caller has looked");
    let last = replay.load(newest, None)?;
    let journal = last.header.journal;
    if let Some(expected) = options.expected.filter(|expected| *expected != journal) {
        return Err(JournalError::Foreign { expected, found: journal });
    }
    let found = replay.scan_last(&last)?;
    let durable = found.iter().map(|f| f.header.durable).max();
    let durable = durable.unwrap_or(0).max(last.header.previous_frame);
    let floor = replay.floor(&last, &found)?;
    let mut segments = replay.read_earlier(live, floor, &last)?;
    let ended = replay.read_last(&last, &found, durable)?;
    segments.push(last.header);
    replay.check_coverage()?;
    Ok(Replayed {
        journal,
        floor,
        segments,
        groups: replay.groups,
        end: ended.end,
        last_frame: ended.last_frame,
        last_crc: ended.last_crc,
        closed: ended.closed,
        unproven: ended.unproven,
        frames: replay.frames,
    })
}

/// Where the proven frames of the last segment end.
struct Ended {
    end: u64,
    last_frame: u64,
    last_crc: u32,
    closed: bool,
    unproven: Vec<(GroupId, Record)>,
}

fn damaged(segment: u64, offset: u64, reason: impl Into<String>) -> JournalError {
    JournalError::Damaged { file: FileName::live(segment), offset, reason: reason.into() }
}

impl Replay<'_> {
    fn checks(&self, rule: Rule) -> bool {
        self.options.keeps(rule)
    }

    /// Reads a segment, whole or up to where the next one's header says that it ends.
    fn load(&self, number: u64, next: Option<&SegmentHeader>) -> Result<Loaded, JournalError> {
        let name = FileName::live(number);
        let file = self.device.open(&name);
        let file = file.map_err(JournalError::io(format!("opening {name}")))?;
        let size = file.size().map_err(JournalError::io(format!("measuring {name}")))?;
        let mut head = vec![0; SEGMENT_HEADER];
        if size < SEGMENT_HEADER as u64 {
            return Err(damaged(number, 0, format!("{size} bytes are no segment")));
        }
        let read = JournalError::io(format!("reading {name}"));
        file.read_at(0, &mut head).map_err(read)?;
        let header = SegmentHeader::decode(&head).map_err(|bad| match bad {
            BadHeader::Damaged => damaged(number, 0, "the header's checksum does not match"),
            BadHeader::Newer(found) => JournalError::Newer { found, known: FORMAT },
        })?;
        self.check_header(number, size, &header, next)?;
        let end = match next {
            Some(next) => next.previous_end,
            None => size,
        };
        if end < SEGMENT_HEADER as u64 || end > size {
            return Err(damaged(number, end, "the next segment's header ends it elsewhere"));
        }
        let length = usize::try_from(end).expect("a segment fits memory");
        let mut bytes = head;
        bytes.resize(length.max(SEGMENT_HEADER), 0);
        let read = JournalError::io(format!("reading {name}"));
        file.read_at(0, &mut bytes).map_err(read)?;
        Ok(Loaded { header, bytes: bytes.into() })
    }

    /// Rule 2, of one segment.
    fn check_header(
        &self,
        number: u64,
        size: u64,
        header: &SegmentHeader,
        next: Option<&SegmentHeader>,
    ) -> Result<(), JournalError> {
        if !self.checks(Rule::ChainChecked) {
            return Ok(());
        }
        if header.segment != number {
            let reason = format!("the header is that of segment {}", header.segment);
            return Err(damaged(number, 0, reason));
        }
        // A segment that a crash ended is cut off behind its end; that none of it is missing, `load` checks.
        let whole = match next {
            Some(_) => size <= header.bytes,
            None => size == header.bytes,
        };
        if !whole {
            let reason = format!("{size} bytes long, {} by its header", header.bytes);
            return Err(damaged(number, 0, reason));
        }
        if let Some(next) = next
            && (next.previous != number || next.journal != header.journal)
        {
            return Err(damaged(number, 0, "the next segment's header names another one"));
        }
        Ok(())
    }

    fn salt(&self, header: &SegmentHeader) -> u64 {
        if self.checks(Rule::SaltSeedsCrc) { header.salt } else { 0 }
    }

    /// The good frames of the last segment; what follows them is a torn tail, or the journal is refused.
    fn scan_last(&self, last: &Loaded) -> Result<Vec<Found>, JournalError> {
        let salt = self.salt(&last.header);
        let mut offset = SEGMENT_HEADER;
        let mut chain = last.header.previous_crc;
        let mut sequence = last.header.previous_frame + 1;
        let mut found = Vec::new();
        while let Some(header) = frame::check(&last.bytes[offset..], salt, offset as u64) {
            if header.sequence != sequence || header.chain != chain {
                if self.checks(Rule::ChainChecked) {
                    let reason =
                        format!("frame {} does not follow frame {}", header.sequence, sequence - 1);
                    return Err(damaged(last.header.segment, offset as u64, reason));
                }
                if header.sequence < sequence {
                    break;
                }
            }
            found.push(Found { offset: offset as u64, header });
            chain = header.crc;
            sequence = header.sequence + 1;
            offset += header.length as usize;
        }
        if self.checks(Rule::RotRefuses) {
            self.refuse_rot(last, offset, sequence)?;
        }
        Ok(found)
    }

    /// Rule 1: frame `expected` is not at `offset`. A good frame further on that was written when `expected` was
    /// already durable proves that it has rotted.
    fn refuse_rot(&self, last: &Loaded, offset: usize, expected: u64) -> Result<(), JournalError> {
        let salt = self.salt(&last.header);
        let mut at = offset + ALIGN;
        while at + frame::FRAME_HEADER <= last.bytes.len() {
            let page = at..at + ZEROES.len();
            if at.is_multiple_of(ZEROES.len()) && last.bytes.get(page) == Some(&ZEROES) {
                at += ZEROES.len(); // no frame begins here; this is most of a segment
                continue;
            }
            let rest = &last.bytes[at..];
            let proof = frame::peek(rest)
                .filter(|header| header.sequence > expected && header.durable >= expected)
                .and_then(|_| frame::check(rest, salt, at as u64));
            if let Some(proof) = proof {
                let reason = format!(
                    "frame {expected} is damaged: frame {} at byte {at} was written after it was synced",
                    proof.sequence
                );
                return Err(damaged(last.header.segment, offset as u64, reason));
            }
            at += ALIGN;
        }
        Ok(())
    }

    fn records_of(
        &self,
        segment: &Loaded,
        offset: u64,
        header: &FrameHeader,
    ) -> Result<Vec<(GroupId, Record)>, JournalError> {
        let start = usize::try_from(offset).expect("within a segment in memory");
        let frame = segment.bytes.slice(start..);
        frame::records(header, &frame)
            .ok_or_else(|| damaged(segment.header.segment, offset, "its records do not decode"))
    }

    /// The highest floor that the last segment tells; refused if it tells of a segment after it.
    fn floor(&self, last: &Loaded, found: &[Found]) -> Result<u64, JournalError> {
        let mut floor = last.header.floor;
        for frame in found {
            for (_, record) in self.records_of(last, frame.offset, &frame.header)? {
                match record {
                    Record::Floor(first) => floor = floor.max(first),
                    Record::Seal(Seal::Continued) if self.checks(Rule::ChainChecked) => {
                        let reason = "missing, though the segment before it says that it exists";
                        return Err(damaged(last.header.segment + 1, 0, reason));
                    }
                    Record::Seal(_)
                    | Record::Entry { .. }
                    | Record::Vote(_)
                    | Record::Committed(_)
                    | Record::TruncateFrom { .. }
                    | Record::PurgedTo(_)
                    | Record::Base(_)
                    | Record::Install { .. }
                    | Record::GroupState(_)
                    | Record::GroupDropped => {}
                }
            }
        }
        if floor > last.header.segment {
            return Err(damaged(last.header.segment, 0, format!("floor {floor} is above it")));
        }
        Ok(floor)
    }

    /// Segments `floor .. last`, each of which must be there and good to its end.
    fn read_earlier(
        &mut self,
        live: &[u64],
        floor: u64,
        last: &Loaded,
    ) -> Result<Vec<SegmentHeader>, JournalError> {
        let mut headers: Vec<SegmentHeader> = Vec::new();
        let mut next = last.header;
        for number in (floor.max(1)..last.header.segment).rev() {
            if live.binary_search(&number).is_err() {
                if !self.checks(Rule::ChainChecked) {
                    break;
                }
                let reason = format!("missing, though segments from {floor} on are needed");
                return Err(damaged(number, 0, reason));
            }
            next = self.load_header(number, &next)?;
            headers.push(next);
        }
        headers.reverse();
        for (at, header) in headers.iter().enumerate() {
            let next = headers.get(at + 1).unwrap_or(&last.header);
            let loaded = self.load(header.segment, Some(next))?;
            self.read_full(&loaded, next)?;
        }
        Ok(headers)
    }

    fn load_header(
        &self,
        number: u64,
        next: &SegmentHeader,
    ) -> Result<SegmentHeader, JournalError> {
        let ends_here = SegmentHeader { previous_end: SEGMENT_HEADER as u64, ..*next };
        Ok(self.load(number, Some(&ends_here))?.header)
    }

    fn read_full(&mut self, segment: &Loaded, next: &SegmentHeader) -> Result<(), JournalError> {
        let number = segment.header.segment;
        let salt = self.salt(&segment.header);
        let mut offset = SEGMENT_HEADER;
        let mut chain = segment.header.previous_crc;
        let mut sequence = segment.header.previous_frame + 1;
        while offset < segment.bytes.len() {
            let Some(header) = frame::check(&segment.bytes[offset..], salt, offset as u64) else {
                if !self.checks(Rule::RotRefuses) {
                    return Ok(());
                }
                return Err(damaged(number, offset as u64, format!("frame {sequence} is damaged")));
            };
            if self.checks(Rule::ChainChecked)
                && (header.sequence != sequence || header.chain != chain)
            {
                let reason = format!("frame {} does not follow", header.sequence);
                return Err(damaged(number, offset as u64, reason));
            }
            let records = self.records_of(segment, offset as u64, &header)?;
            self.apply(number, offset as u64, records)?;
            chain = header.crc;
            sequence = header.sequence + 1;
            offset += header.length as usize;
        }
        let ended = next.previous_frame == sequence - 1 && next.previous_crc == chain;
        if !ended && self.checks(Rule::ChainChecked) {
            let reason = format!("ends with frame {}, not as its successor says", sequence - 1);
            return Err(damaged(number, offset as u64, reason));
        }
        Ok(())
    }

    /// Applies the frames up to `durable`, and keeps the records of those above it.
    fn read_last(
        &mut self,
        last: &Loaded,
        found: &[Found],
        durable: u64,
    ) -> Result<Ended, JournalError> {
        let rewrites = self.checks(Rule::Rewrites);
        let mut ended = Ended {
            end: SEGMENT_HEADER as u64,
            last_frame: last.header.previous_frame,
            last_crc: last.header.previous_crc,
            closed: false,
            unproven: Vec::new(),
        };
        for frame in found {
            let header = &frame.header;
            let records = self.records_of(last, frame.offset, header)?;
            if header.sequence <= durable || !rewrites {
                self.apply(last.header.segment, frame.offset, records)?;
                ended.end = frame.offset + u64::from(header.length);
                ended.last_frame = header.sequence;
                ended.last_crc = header.crc;
                continue;
            }
            ended.closed = matches!(records[..], [(_, Record::Seal(Seal::Closing))])
                && header.sequence == durable + 1;
            let kept = |(_, record): &(GroupId, Record)| !matches!(record, Record::Seal(_));
            ended.unproven.extend(records.into_iter().filter(kept));
        }
        Ok(ended)
    }

    fn apply(
        &mut self,
        segment: u64,
        offset: u64,
        records: Vec<(GroupId, Record)>,
    ) -> Result<(), JournalError> {
        self.frames += 1;
        let place = Place { segment, offset };
        let mut stretch = Stretch::default();
        for (id, record) in records {
            if matches!(record, Record::Floor(_) | Record::Seal(_)) {
                continue;
            }
            let group = self.groups.entry(id).or_default();
            let first = !group.known;
            let begins = first && matches!(record, Record::GroupState(_));
            if !begins && self.options.keeps(Rule::ReplayChecks) {
                let check = group.ledger.check(&record);
                check.map_err(|why| damaged(segment, offset, format!("group {id}: {why}")))?;
            }
            group.known = true;
            group.ledger.apply(&record);
            stretch.add(&mut self.groups, id, place, &record);
            if record == Record::GroupDropped {
                self.groups.remove(&id);
            }
        }
        stretch.finish(&mut self.groups);
        Ok(())
    }

    /// Every entry above `purged` must be there.
    fn check_coverage(&self) -> Result<(), JournalError> {
        for (id, group) in &self.groups {
            let state = &group.ledger.state;
            let (Some(last), purged) = (state.last, state.purged) else {
                continue;
            };
            let from = match purged {
                Some(purged) => purged.index + 1,
                None => group.runs.first().unwrap_or(last.index),
            };
            let whole = group.runs.cover(from, last.index);
            if !whole && self.checks(Rule::ReplayChecks) {
                let reason = format!("group {id}: not every entry of {from} to {last} is there");
                return Err(damaged(0, 0, reason));
            }
        }
        Ok(())
    }
}

/// Consecutive entries of one group within one frame, before they become a run.
#[derive(Default)]
struct Stretch {
    open: Option<(GroupId, Place, bool, u64, u32, u32)>,
}

impl Stretch {
    fn add(
        &mut self,
        groups: &mut BTreeMap<GroupId, ReadGroup>,
        id: GroupId,
        place: Place,
        record: &Record,
    ) {
        if let Record::Entry { entry, restated } = record {
            let bytes = u32::try_from(entry.payload.len()).expect("an entry fits a frame");
            if let Some((group, _, moved, first, count, sum)) = &mut self.open
                && (*group, *moved) == (id, *restated)
                && *first + u64::from(*count) == entry.id.index
            {
                *count += 1;
                *sum += bytes;
                return;
            }
            self.finish(groups);
            self.open = Some((id, place, *restated, entry.id.index, 1, bytes));
            return;
        }
        self.finish(groups);
        let Some(ReadGroup { runs, .. }) = groups.get_mut(&id) else {
            return;
        };
        match record {
            Record::TruncateFrom { from, .. } => runs.truncate_from(*from),
            Record::PurgedTo(to) => runs.purge_to(to.index),
            Record::Install { mark, keeps_log: true } => runs.purge_to(mark.snapshot.index),
            Record::Install { keeps_log: false, .. } | Record::GroupDropped => runs.clear(),
            Record::Entry { .. }
            | Record::Vote(_)
            | Record::Committed(_)
            | Record::Base(_)
            | Record::GroupState(_)
            | Record::Floor(_)
            | Record::Seal(_) => {}
        }
    }

    fn finish(&mut self, groups: &mut BTreeMap<GroupId, ReadGroup>) {
        let Some((id, place, moved, first, count, bytes)) = self.open.take() else {
            return;
        };
        let Some(group) = groups.get_mut(&id) else {
            return;
        };
        let run = Run::new(first, count, place, bytes);
        if moved {
            group.runs.relocate(run);
        } else {
            group.runs.push(run);
        }
    }
}
