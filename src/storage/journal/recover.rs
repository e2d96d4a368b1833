//! Opening: a new journal, one that was closed, or one that was not (rule 3).

use std::sync::Arc;

use quorate_core::api::ids::GroupId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::error::{JournalError, JournalId};
use super::options::Rule;
use super::pool::Pool;
use super::record::Record;
use super::replay::{Names, Replayed, replay};
use super::rotation::Ended;
use super::segment::{FileName, SEGMENT_HEADER, SegmentHeader};
use super::shared::{OpenSegment, Shared};
use super::writer::{Active, Position, Writer, written_entry};

/// What opening found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenReport {
    /// The journal was made by this call.
    pub created: bool,
    /// It had been closed in good order.
    pub closed: bool,
    /// Live segments read.
    pub segments: u64,
    /// Frames read.
    pub frames: u64,
    /// Records that were possibly never synced and were written anew.
    pub rewritten: u64,
    /// No group has any record.
    pub empty: bool,
}

/// Opens or makes the journal on `shared.device` and readies its writer.
pub(crate) fn open(shared: &Arc<Shared>) -> Result<(Writer, OpenReport), JournalError> {
    let device = &shared.device;
    let names = Names::read(device.as_ref())?;
    for name in &names.temporary {
        device.remove(name).map_err(JournalError::io(format!("removing {name}")))?;
    }
    let rng = match shared.options.seed {
        Some(seed) => StdRng::seed_from_u64(seed),
        None => StdRng::from_os_rng(),
    };
    if names.live.is_empty() {
        return match shared.options.expected {
            Some(expected) => Err(JournalError::Lost { expected }),
            None => create(shared, &names, rng),
        };
    }
    let replayed = replay(device.as_ref(), &shared.options, &names.live)?;
    let pool = fill_pool(shared, &names)?;
    resume(shared, pool, replayed, &names, rng)
}

fn fill_pool(shared: &Arc<Shared>, names: &Names) -> Result<Arc<Pool>, JournalError> {
    let number = |name: &String| {
        let digits = name.rsplit('-').next().unwrap_or_default();
        u64::from_str_radix(digits, 16).unwrap_or(0)
    };
    let highest = names.free.iter().chain(&names.temporary).map(number).max();
    let pool = Pool::new(
        Arc::clone(&shared.device),
        shared.options.segment_bytes,
        shared.runner,
        highest.unwrap_or(0),
    );
    for name in &names.free {
        let opening = shared.device.open(name);
        let file = opening.map_err(JournalError::io(format!("opening {name}")))?;
        let given = pool.give(name.clone(), file);
        given.map_err(JournalError::io(format!("keeping {name}")))?;
    }
    Ok(Arc::new(pool))
}

fn create(
    shared: &Arc<Shared>,
    names: &Names,
    mut rng: StdRng,
) -> Result<(Writer, OpenReport), JournalError> {
    let journal = JournalId(rng.random());
    let pool = fill_pool(shared, names)?;
    let header = SegmentHeader {
        journal,
        segment: 1,
        salt: rng.random(),
        bytes: shared.options.segment_bytes,
        floor: 1,
        previous: 0,
        previous_end: 0,
        previous_frame: 0,
        previous_crc: 0,
    };
    let prepared = pool.prepare().map_err(JournalError::io("making the first segment"))?;
    let position = Position {
        active: Active {
            number: 0,
            file: Arc::clone(&prepared.file),
            salt: 0,
            bytes: 0,
            offset: 0,
            staged_as: None,
        },
        sequence: 1,
        durable: 0,
        chain: 0,
        floor: 1,
    };
    let mut writer = Writer::new(Arc::clone(shared), pool, journal, rng, position);
    writer.begin_segment(prepared, &header)?;
    writer.name_segment()?;
    let report = OpenReport {
        created: true,
        closed: true,
        segments: 0,
        frames: 0,
        rewritten: 0,
        empty: true,
    };
    Ok((writer, report))
}

fn resume(
    shared: &Arc<Shared>,
    pool: Arc<Pool>,
    replayed: Replayed,
    names: &Names,
    rng: StdRng,
) -> Result<(Writer, OpenReport), JournalError> {
    let last = *replayed.segments.last().expect("a replay reads at least one");
    for header in &replayed.segments {
        let name = FileName::live(header.segment);
        let file = shared.device.open(&name);
        let segment = OpenSegment {
            file: file.map_err(JournalError::io(format!("opening {name}")))?,
            salt: header.salt,
            bytes: header.bytes,
        };
        shared.segments.lock().insert(header.segment, Arc::new(segment));
    }
    let file = Arc::clone(&shared.segments.lock()[&last.segment].file);
    let position = Position {
        active: Active {
            number: last.segment,
            file,
            salt: last.salt,
            bytes: last.bytes,
            offset: replayed.end,
            staged_as: None,
        },
        sequence: replayed.last_frame + 1,
        durable: replayed.last_frame,
        chain: replayed.last_crc,
        floor: replayed.floor,
    };
    let report = OpenReport {
        created: false,
        closed: replayed.closed,
        segments: replayed.segments.len() as u64,
        frames: replayed.frames,
        rewritten: replayed.unproven.len() as u64,
        empty: replayed.groups.is_empty() && replayed.unproven.is_empty(),
    };
    let mut writer = Writer::new(Arc::clone(shared), pool, replayed.journal, rng, position);
    for (id, read) in replayed.groups {
        let group = shared.group(id);
        group.front.lock().runs = read.runs;
        written_entry(&mut writer.written, &group).ledger = read.ledger;
    }
    if !replayed.closed && shared.options.keeps(Rule::Rewrites) {
        rewrite(&mut writer, replayed.unproven)?;
    }
    for written in writer.written.values() {
        written.group.front.lock().ledger = written.ledger.clone();
    }
    remove_below_floor(&writer, names)?;
    Ok((writer, report))
}

/// A segment begun by a crash is small: it is written while the start waits.
const SEGMENT_AFTER_CRASH: u64 = 8 << 20;

/// Rule 3: ends the last segment before the frames that are possibly not on the disk, and writes their records anew
/// at the head of a new one, which gets its live name when all of it is synced.
fn rewrite(writer: &mut Writer, unproven: Vec<(GroupId, Record)>) -> Result<(), JournalError> {
    let records = unproven.iter().map(|(_, record)| record.size_bound() + 8);
    let states = writer
        .written
        .values()
        .map(|written| Record::GroupState(written.ledger.state.clone()).size_bound() + 256);
    let needed = (records.sum::<usize>() + states.sum::<usize>() + 3 * SEGMENT_HEADER) as u64;
    let usual = writer.shared.options.segment_bytes.min(SEGMENT_AFTER_CRASH);
    let prepared = writer.pool.prepare_at_least(needed.max(usual))?;
    let size = prepared.file.size();
    let header = SegmentHeader {
        journal: writer.journal,
        segment: writer.active.number + 1,
        salt: writer.rng.random(),
        bytes: size.map_err(JournalError::io("measuring the new segment"))?,
        floor: writer.floor,
        previous: writer.active.number,
        previous_end: writer.active.offset,
        previous_frame: writer.sequence - 1,
        previous_crc: writer.chain,
    };
    let ended = Ended::of(writer);
    writer.begin_segment(prepared, &header)?;
    writer.restate_all()?;
    writer.floor_due = false;
    for (id, record) in unproven {
        let group = writer.shared.group(id);
        match record {
            Record::Entry { entry, restated } => {
                writer.add_entry(&group, &entry, (!restated).then_some(0))?;
            }
            Record::Floor(floor) => {
                writer.add_own_record(&Record::Floor(floor))?;
            }
            other @ (Record::Vote(_)
            | Record::Committed(_)
            | Record::TruncateFrom { .. }
            | Record::PurgedTo(_)
            | Record::Base(_)
            | Record::Install { .. }
            | Record::GroupState(_)
            | Record::GroupDropped
            | Record::Seal(_)) => writer.add_record(&group, &other)?,
        }
        writer.floor_due = false;
    }
    writer.flush()?;
    writer.name_segment()?;
    ended.mark_continued()?;
    ended.shrink()?;
    writer.floor_due = true;
    Ok(())
}

/// Segments that a floor record freed and a crash left.
fn remove_below_floor(writer: &Writer, names: &Names) -> Result<(), JournalError> {
    let device = &writer.shared.device;
    for number in names.live.iter().filter(|number| **number < writer.floor) {
        let name = FileName::live(*number);
        device.remove(&name).map_err(JournalError::io(format!("removing {name}")))?;
    }
    Ok(())
}
