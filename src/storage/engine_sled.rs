//! sled 0.34.7 behind the [`Engine`] seam; sled is named only here.
//!
//! What is done about it, from its source and by trial (`docs/decisions`):
//! - A page above a quarter of the segment is moved to `blobs/`, which costs and is never synced. A leaf holds up to
//!   sixteen items and is rewritten whole. So segments are 4 MiB and no item is longer than [`PART_BYTES`]: a longer
//!   value is kept in numbered parts, written in the same batch.
//! - It panics on some kinds of damage: every call is run under `catch_unwind`.
//! - Nothing is synced here: the journal and the base are the truth.
//!
//! ```text
//!   key          ->  key | 00 00   varint(parts) first piece
//!                    key | 00 01   second piece ...
//! ```
//!
//! **Invariant:** no key of a prefix begins another of it, so that the parts of a key lie side by side.

use std::io;
use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::engine::{Engine, EngineBatch, EngineError, Visit};
use super::format::{Reader, put_varint};
use crate::support::spawn::rest;

/// The longest item handed to sled.
const PART_BYTES: usize = 48 << 10;
const SEGMENT_BYTES: usize = 4 << 20;
/// How long an earlier database of this process may take to let go of its files: sled's threads keep its lock for a
/// moment after the last handle is dropped. No other process can have it, as the data directory is locked before.
const HANDOVER: Duration = Duration::from_secs(5);
const HANDOVER_STEP: Duration = Duration::from_millis(5);

/// One sled database with one tree.
pub(crate) struct SledEngine {
    db: sled::Db,
    tree: sled::Tree,
}

impl std::fmt::Debug for SledEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SledEngine").finish_non_exhaustive()
    }
}

impl SledEngine {
    /// Opens or creates the database in `folder`.
    ///
    /// `flush_every_ms`: the tick of sled's own thread, which also collects its garbage; `None`: no such thread.
    pub(crate) fn open(
        folder: &Path,
        cache_bytes: u64,
        flush_every_ms: Option<u64>,
    ) -> Result<Self, EngineError> {
        let config = sled::Config::new()
            .path(folder)
            .cache_capacity(cache_bytes)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(flush_every_ms);
        let mut waited = Duration::ZERO;
        let db = loop {
            match guarded(|| config.open()) {
                Err(error) if is_locked(&error) && waited < HANDOVER => {
                    rest(HANDOVER_STEP);
                    waited += HANDOVER_STEP;
                }
                opened => break opened?,
            }
        };
        let tree = sled::Tree::clone(&db);
        Ok(SledEngine { db, tree })
    }

    fn whole(&self, key: &[u8], first: &sled::IVec) -> Result<Bytes, EngineError> {
        let (parts, piece_at) = part_count(first)?;
        if parts == 1 {
            return Ok(Bytes::from_owner(first.clone()).slice(piece_at..));
        }
        let mut value = Vec::with_capacity(parts as usize * PART_BYTES);
        value.extend_from_slice(&first[piece_at..]);
        for part in 1..parts {
            let piece = self.tree.get(part_key(key, part)).map_err(failed)?;
            let piece = piece.ok_or_else(|| damaged("a part of a long value is missing"))?;
            value.extend_from_slice(&piece);
        }
        Ok(value.into())
    }

    fn parts_of(&self, key: &[u8]) -> Result<u16, EngineError> {
        match self.tree.get(part_key(key, 0)).map_err(failed)? {
            Some(first) => Ok(part_count(&first)?.0),
            None => Ok(0),
        }
    }
}

impl Engine for SledEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        guarded_engine(|| {
            let first = self.tree.get(part_key(key, 0)).map_err(failed)?;
            first.map(|first| self.whole(key, &first)).transpose()
        })
    }

    fn last_within(&self, low: &[u8], high: &[u8]) -> Result<Option<(Bytes, Bytes)>, EngineError> {
        guarded_engine(|| {
            let bounds = part_key(low, 0)..=part_key(high, u16::MAX);
            let Some(found) = self.tree.range(bounds).next_back() else {
                return Ok(None);
            };
            let (stored, value) = found.map_err(failed)?;
            let (key, part) = split_part(&stored)?;
            let first = if part == 0 {
                value
            } else {
                let first = self.tree.get(part_key(key, 0)).map_err(failed)?;
                first.ok_or_else(|| damaged("the first part of a long value is missing"))?
            };
            let value = self.whole(key, &first)?;
            Ok(Some((Bytes::copy_from_slice(key), value)))
        })
    }

    fn scan(&self, low: &[u8], high: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        guarded_engine(|| {
            let bounds = (Bound::Included(part_key(low, 0)), Bound::Excluded(part_key(high, 0)));
            for item in self.tree.range::<Vec<u8>, _>(bounds) {
                let (stored, first) = item.map_err(failed)?;
                let (key, part) = split_part(&stored)?;
                if part != 0 {
                    continue;
                }
                let value = self.whole(key, &first)?;
                if let ControlFlow::Break(()) = visit(Bytes::copy_from_slice(key), value) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn commit(&self, batch: EngineBatch) -> Result<(), EngineError> {
        guarded_engine(|| {
            let mut items = sled::Batch::default();
            for (key, value) in batch.changes {
                let pieces = value.as_deref().map_or(0, part_total);
                for part in pieces..self.parts_of(&key)? {
                    items.remove(part_key(&key, part));
                }
                let Some(value) = value else { continue };
                for (part, piece) in value.chunks(PART_BYTES).enumerate() {
                    let part = part as u16;
                    items.insert(part_key(&key, part), stored_piece(part, pieces, piece));
                }
                if value.is_empty() {
                    items.insert(part_key(&key, 0), stored_piece(0, 1, &[]));
                }
            }
            self.tree.apply_batch(items).map_err(failed)
        })
    }

    fn size_on_disk(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }

    fn flush(&self) -> Result<(), EngineError> {
        guarded_engine(|| self.tree.flush().map(drop).map_err(failed))
    }
}

/// How many parts a value takes; at least one.
fn part_total(value: &[u8]) -> u16 {
    u16::try_from(value.len().div_ceil(PART_BYTES).max(1))
        .expect("a value of 3 GiB is refused long before")
}

fn stored_piece(part: u16, pieces: u16, piece: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(piece.len() + 3);
    if part == 0 {
        put_varint(&mut stored, u64::from(pieces));
    }
    stored.extend_from_slice(piece);
    stored
}

/// The number of parts, told by the first one, and where its own piece begins.
fn part_count(first: &[u8]) -> Result<(u16, usize), EngineError> {
    let mut reader = Reader::new(first, "part count");
    let parts = reader.varint().ok().and_then(|n| u16::try_from(n).ok());
    match parts {
        Some(parts) if parts > 0 => Ok((parts, first.len() - reader.remaining())),
        Some(_) | None => Err(damaged("a value tells no number of parts")),
    }
}

fn part_key(key: &[u8], part: u16) -> Vec<u8> {
    let mut stored = Vec::with_capacity(key.len() + 2);
    stored.extend_from_slice(key);
    stored.extend_from_slice(&part.to_be_bytes());
    stored
}

fn split_part(stored: &[u8]) -> Result<(&[u8], u16), EngineError> {
    let (key, part) =
        stored.split_last_chunk::<2>().ok_or_else(|| damaged("a key is too short"))?;
    Ok((key, u16::from_be_bytes(*part)))
}

fn damaged(what: &str) -> EngineError {
    EngineError::Damaged(what.to_owned())
}

fn failed(error: sled::Error) -> EngineError {
    match error {
        sled::Error::Io(error) => EngineError::Io(error),
        other @ (sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. }) => EngineError::Damaged(other.to_string()),
    }
}

/// Whether the folder is locked; sled has words for it alone (0.34.7, `config.rs`, `try_lock`).
fn is_locked(error: &EngineError) -> bool {
    match error {
        EngineError::Io(error) => error.to_string().starts_with("could not acquire lock"),
        EngineError::Damaged(_) | EngineError::Panicked(_) => false,
    }
}

fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, EngineError> {
    guarded_engine(|| call().map_err(failed))
}

/// Runs `call`; a panic in it becomes an error that carries its words.
pub(crate) fn guarded_engine<T>(
    call: impl FnOnce() -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result,
        Err(panic) => {
            let words = panic
                .downcast_ref::<&str>()
                .map(|words| (*words).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".to_owned());
            Err(EngineError::Panicked(words))
        }
    }
}

/// Whether an error means that the disk is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::engine::MemoryEngine;
    use crate::support::spawn::thread;

    fn filled(engine: &dyn Engine) -> Vec<(Vec<u8>, usize)> {
        let mut batch = EngineBatch::default();
        for (n, len) in
            [0usize, 1, PART_BYTES, PART_BYTES + 1, 5 * PART_BYTES, 7].iter().enumerate()
        {
            batch.put(vec![1, n as u8], vec![n as u8; *len]);
        }
        engine.commit(batch).unwrap();
        let mut batch = EngineBatch::default();
        batch.put(vec![1, 3], vec![9; 3]);
        batch.remove(vec![1, 4]);
        batch.put(vec![2, 0], vec![8; 2 * PART_BYTES]);
        engine.commit(batch).unwrap();
        let mut seen = Vec::new();
        let mut visit = |key: Bytes, value: Bytes| {
            seen.push((key.to_vec(), value.len()));
            ControlFlow::Continue(())
        };
        engine.scan(&[0], &[3], &mut visit).unwrap();
        seen
    }

    #[test]
    fn sled_and_memory_give_the_same_answers() {
        let folder = tempfile::tempdir().unwrap();
        let sled = SledEngine::open(folder.path(), 1 << 20, None).unwrap();
        let memory = MemoryEngine::default();
        assert_eq!(filled(&sled), filled(&memory));
        for (low, high) in [
            (&[1u8, 0][..], &[1u8, 9][..]),
            (&[1, 4], &[1, 4]),
            (&[0, 0], &[1, 2]),
            (&[2, 0], &[2, 0]),
        ] {
            assert_eq!(
                sled.last_within(low, high).unwrap(),
                memory.last_within(low, high).unwrap()
            );
        }
        assert_eq!(sled.get(&[1, 3]).unwrap(), memory.get(&[1, 3]).unwrap());
        assert_eq!(sled.get(&[1, 4]).unwrap(), None);
        assert_eq!(sled.tree.len(), 7, "the parts of shortened and removed values are gone");
    }

    #[test]
    fn long_values_never_make_blobs() {
        let folder = tempfile::tempdir().unwrap();
        let sled = SledEngine::open(folder.path(), 4 << 20, None).unwrap();
        for n in 0..300u32 {
            let mut batch = EngineBatch::default();
            let key = [&[2u8][..], &n.to_be_bytes()].concat();
            batch.put(key, vec![n as u8; if n % 50 == 0 { 2 << 20 } else { PART_BYTES }]);
            sled.commit(batch).unwrap();
        }
        sled.flush().unwrap();
        let blobs = std::fs::read_dir(folder.path().join("blobs")).unwrap().count();
        assert_eq!(blobs, 0);
    }

    /// Seen one time in a few hundred restarts within one process: the state store was given up for nothing.
    #[test]
    fn a_database_that_is_still_closing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let first = SledEngine::open(folder.path(), 1 << 20, None).unwrap();
        let closing = thread("closing", move || {
            rest(Duration::from_millis(100));
            drop(first);
        });
        let second = SledEngine::open(folder.path(), 1 << 20, None);
        closing.unwrap().join().unwrap();
        assert!(second.is_ok(), "{second:?}");
    }

    #[test]
    fn a_panic_is_named() {
        let result: Result<(), _> = guarded_engine(|| panic!("broken {}", 7));
        assert!(matches!(result, Err(EngineError::Panicked(words)) if words == "broken 7"));
    }
}
