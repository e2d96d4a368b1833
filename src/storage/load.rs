//! Taking a state in: from the state store, believing nothing, or from a base, believing its checksums.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use quorate_core::api::batch::Space;
use quorate_core::api::refusal::Corrupt;
use quorate_core::state_machine::quota::DbSize;
use quorate_core::state_machine::{Restorer, RevisionHeader};

use super::base::{BaseError, BaseReader, Part, check_block};
use super::device::LogFile;
use super::engine::{Engine, EngineBatch, EngineError};
use super::error::StoreError;
use super::format::{ContentSum, Malformed};
use super::history::{Block, Header, record_hash};
use super::journal::BaseMark;
use super::key_space::{
    HEADERS, STATE_MARK, headers_key, headers_key_revision, record_key, record_payload,
    record_value, values_key,
};
use super::mark::StateMark;
use super::open::Loaded;
use super::options::StoreOptions;
use super::size;

/// Bytes of a base that enter the state store in one batch.
const LOAD_BYTES: u64 = 256 << 10;

/// Why a state store is not believed. Never an error for the caller: it is rebuilt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Distrust {
    #[error("there was none")]
    Absent,
    #[error("damage noted earlier: {0}")]
    Noted(String),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("it has no applied id: it was not whole")]
    NoMark,
    #[error("the disk is nearly full, and it takes {bytes} bytes for {live} of base and journal")]
    Bloated { bytes: u64, live: u64 },
    #[error("it is of generation {0}")]
    OtherGeneration(u64),
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("its content sum is {found:?} instead of {told:?}")]
    Sum { found: ContentSum, told: ContentSum },
    #[error("it is older than the base")]
    OlderThanBase,
    #[error("it is ahead of the journal")]
    BeyondJournal,
    #[error("it stands at an entry that the journal does not have")]
    OtherLog,
    #[error("{0}")]
    Corrupt(#[from] Corrupt),
}

/// Collects what is found: for the core, for the content sum and for the accounted size.
struct Intake {
    restorer: Restorer,
    content: ContentSum,
    size: DbSize,
}

impl Intake {
    fn new(value_budget_bytes: usize, size: DbSize) -> Self {
        Intake { restorer: Restorer::new(value_budget_bytes), content: ContentSum::default(), size }
    }

    fn record(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), Corrupt> {
        self.content.add(record_hash(space as u8, key, value));
        self.restorer.record(space, key, value)
    }

    fn header(&mut self, header: Header) -> Result<(), Corrupt> {
        self.content.add(header.content_hash());
        let (key, value) = size::row(&header);
        self.size.find(key, value);
        self.restorer.header(&RevisionHeader {
            revision: header.revision,
            tombstone: header.tombstone,
            key: header.key,
            create_revision: header.create_revision,
            version: header.version,
            lease: header.lease,
            value_len: u32::try_from(header.value_len).unwrap_or(u32::MAX),
        })
    }
}

/// Reads every record and every header of a state store, and compares the sum with the mark's.
pub(crate) fn from_engine(
    engine: Arc<dyn Engine>,
    generation: u64,
    value_budget_bytes: usize,
) -> Result<Loaded, Distrust> {
    let mark = engine.get(&STATE_MARK)?.ok_or(Distrust::NoMark)?;
    let mark = StateMark::decode(&mark)?;
    if mark.generation != generation {
        return Err(Distrust::OtherGeneration(mark.generation));
    }
    let mut intake = Intake::new(value_budget_bytes, DbSize::with_high_water(mark.high_water));
    scan_all::<Distrust>(&*engine, &[Space::ALL[0] as u8], &[0xff], &mut |key, stored| {
        let space = key.first().and_then(|prefix| Space::from_prefix(*prefix));
        let space = space.ok_or(Malformed { what: "record prefix" })?;
        Ok(intake.record(space, &key[1..], record_payload(&stored)?)?)
    })?;
    scan_all::<Distrust>(&*engine, &[HEADERS], &[HEADERS + 1], &mut |key, headers| {
        let first = headers_key_revision(&key)?;
        for header in Block::decode_headers(first, &headers)? {
            intake.header(header)?;
        }
        Ok(())
    })?;
    if intake.content != mark.content {
        return Err(Distrust::Sum { found: intake.content, told: mark.content });
    }
    Ok(Loaded {
        engine,
        machine: intake.restorer.finish(mark.applied)?,
        applied: mark.applied,
        content: mark.content,
        size: intake.size,
    })
}

/// Hands every key from `low` up to `high` to `take`, until it refuses one.
pub(crate) fn scan_all<E: From<EngineError>>(
    engine: &dyn Engine,
    low: &[u8],
    high: &[u8],
    take: &mut dyn FnMut(Bytes, Bytes) -> Result<(), E>,
) -> Result<(), E> {
    let mut result = Ok(());
    engine.scan(low, high, &mut |key, value| match take(key, value) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            result = Err(error);
            ControlFlow::Break(())
        }
    })?;
    result
}

/// Asked after each batch of so many bytes: may wait, may call the whole thing off.
pub(crate) type Keep<'a> = dyn FnMut(u64) -> Result<(), BaseError> + 'a;

/// Reads the base that `mark` names into a fresh state store of the mark's generation, and checks all of it. The state
/// mark comes with the last batch, after the whole base has proved right.
pub(crate) fn from_base(
    options: &StoreOptions,
    mark: &BaseMark,
    engine: Arc<dyn Engine>,
    keep_on: &mut Keep<'_>,
) -> Result<Loaded, StoreError> {
    let file = options.device.open(&mark.file_name).map_err(BaseError::Io)?;
    let mut reader = BaseReader::begin(file, mark.len)?;
    let preamble = reader.preamble();
    if preamble.at != mark.at || preamble.group != options.group {
        return Err(BaseError::Damaged("it is another base than was named".to_owned()).into());
    }
    let mut intake = Intake::new(options.value_budget_bytes, DbSize::default());
    let mut batch = EngineBatch::default();
    let mut batch_bytes = 0;
    while let Some(part) = reader.next()? {
        batch_bytes += take_part(part, &mut reader, &mut intake, &mut batch)?;
        if batch_bytes >= LOAD_BYTES {
            keep_on(batch_bytes)?;
            engine.commit(std::mem::take(&mut batch))?;
            batch_bytes = 0;
        }
    }
    let written = reader.finish()?;
    if written.hash != mark.content_hash {
        return Err(BaseError::Damaged("its hash is not the one that was named".to_owned()).into());
    }
    let machine = intake.restorer.finish(Some(mark.at));
    let machine = machine.map_err(|corrupt| BaseError::Damaged(corrupt.to_string()))?;
    let state = StateMark {
        generation: mark.generation,
        applied: Some(mark.at),
        content: written.content,
        high_water: intake.size.size(),
    };
    batch.put(STATE_MARK.to_vec(), state.encode());
    keep_on(batch_bytes)?;
    engine.commit(batch)?;
    Ok(Loaded {
        engine,
        machine,
        applied: Some(mark.at),
        content: written.content,
        size: intake.size,
    })
}

fn take_part(
    part: Part,
    reader: &mut BaseReader,
    intake: &mut Intake,
    batch: &mut EngineBatch,
) -> Result<u64, BaseError> {
    let corrupt = |corrupt: Corrupt| BaseError::Damaged(corrupt.to_string());
    match part {
        Part::Records(records) => {
            let mut bytes = 0;
            for (space, key, value) in records {
                intake.record(space, &key, &value).map_err(corrupt)?;
                bytes += (key.len() + value.len()) as u64;
                batch.put(record_key(space, &key), record_value(&value));
            }
            Ok(bytes)
        }
        Part::Block { first, headers, values } => {
            let bytes = (headers.len() + values.len()) as u64;
            let decoded = check_block(first, &headers, &values)?;
            reader.count(&decoded);
            for header in decoded {
                intake.header(header).map_err(corrupt)?;
            }
            batch.changes.push((headers_key(first).into(), Some(headers)));
            batch.changes.push((values_key(first).into(), Some(values)));
            Ok(bytes)
        }
    }
}

/// The words in a note, whatever is in it.
pub(crate) fn text(file: &dyn LogFile) -> String {
    let len = file.size().unwrap_or(0).min(500) as usize;
    let mut bytes = vec![0; len];
    match file.read_at(0, &mut bytes) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => error.to_string(),
    }
}
