//! A fresh state store in place of one that has grown far beyond what it holds. sled gives nothing back: on a disk that
//! is nearly full, rewriting blocks in it would need the very room that a compaction is to free.
//!
//! ```text
//!   state-0    ──records, blocks without what is dead──▶  state-0.1     mark last: whole, or not believed
//!   readers ───────────────────────┐                          │
//!              (layout held alone) └──────── one swap ────────┘         state-0 goes
//! ```
//!
//! A crash on the way leaves two folders: the newer is believed if it is whole, else the older
//! ([`open`](super::open)).
//!
//! The room that is kept for the journal's next segments may be used meanwhile: the journal waits for a segment that
//! cannot be made, it does not fail.
//!
//! **Invariant:** a failure of the fresh one is no failure of the store: its folder goes, and the old one stays.

use std::fs;
use std::sync::Arc;

use quorate_core::api::batch::Space;
use quorate_core::api::ids::{LogId, Revision};

use super::compaction::{DropPass, Rewrite};
use super::engine::{Engine, EngineBatch, EngineError};
use super::error::StoreError;
use super::folders::{engine_folder, open_engine};
use super::history::{Block, Header};
use super::key_space::{HEADERS, STATE_MARK, headers_key_revision};
use super::load::scan_all;
use super::options::{EngineKind, Meter, STATE_STORE_ROOM};
use super::size;
use super::upkeep::Upkeep;

/// Bytes that go into the fresh store in one batch.
const COPY_BYTES: u64 = 2 << 20;
/// What sled takes for a byte of content at most, seen with values of 8 KiB.
pub(crate) const SLED_FACTOR: u64 = 3;

/// Why the fresh store is not taken.
pub(crate) enum Stopped {
    /// The old one does not read: the store's own failure.
    Old(StoreError),
    /// The new one cannot be written.
    New(StoreError),
    /// The disk is too full.
    NoRoom,
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Stopped::Old(error)
    }
}

impl From<EngineError> for Stopped {
    fn from(error: EngineError) -> Self {
        Stopped::Old(error.into())
    }
}

impl Upkeep {
    /// The number of the next fresh state store; never that of one that was begun before.
    pub(crate) fn next_serial(&mut self) -> u32 {
        self.serials += 1;
        self.serials
    }

    /// Moves the content, less the revisions in `dead`, to a fresh state store, with everything else waiting. Whether it
    /// did; not, where that would gain little or the disk has no room.
    pub(crate) fn renew(&mut self, dead: &[Revision]) -> Result<bool, StoreError> {
        let shared = Arc::clone(&self.shared);
        let (EngineKind::Sled, Some(applied)) = (shared.options.engine, self.applied) else {
            return Ok(false);
        };
        let old = shared.engine();
        let (live, files) = (live_bytes(&*old, dead)?, old.size_on_disk());
        let gains = files > 2 * SLED_FACTOR * live + STATE_STORE_ROOM;
        if !gains || !shared.options.has_room(SLED_FACTOR * live + STATE_STORE_ROOM) {
            return Ok(false);
        }
        let serial = self.next_serial();
        let folder = engine_folder(&shared.options, shared.generation, serial);
        let group = shared.options.group.0;
        match self.copy(&*old, serial, dead, applied) {
            Ok((fresh, rewrite)) => {
                let bytes = fresh.size_on_disk();
                let stale = engine_folder(&shared.options, shared.generation, self.serial);
                self.take_over(fresh, serial, rewrite);
                tracing::info!(group, from = files, to = bytes, "state store renewed");
                drop(old);
                if let Err(error) = fs::remove_dir_all(&stale) {
                    tracing::warn!(group, %error, "the old state store stays until the next start");
                }
                Ok(true)
            }
            Err(Stopped::Old(error)) => Err(error),
            Err(Stopped::New(error)) => {
                tracing::warn!(group, %error, "state store not renewed");
                remove(&folder, group);
                Ok(false)
            }
            Err(Stopped::NoRoom) => {
                tracing::warn!(group, "state store not renewed: the disk is too full");
                remove(&folder, group);
                Ok(false)
            }
        }
    }

    fn copy(
        &self,
        old: &dyn Engine,
        serial: u32,
        dead: &[Revision],
        applied: LogId,
    ) -> Result<(Arc<dyn Engine>, Rewrite), Stopped> {
        let shared = &self.shared;
        let fresh = open_engine(&shared.options, shared.generation, serial)
            .map_err(|error| Stopped::New(error.into()))?;
        let write = |batch: EngineBatch| {
            if !shared.options.state_store_has_room() {
                return Err(Stopped::NoRoom);
            }
            Meter::add(&shared.meter.state_store, batch.size());
            fresh.commit(batch).map_err(|error| Stopped::New(error.into()))
        };
        let records = ([Space::ALL[0] as u8], [0xff]);
        let mut batch = EngineBatch::default();
        scan_all::<Stopped>(old, &records.0, &records.1, &mut |key, value| {
            batch.put(key.to_vec(), value.to_vec());
            if batch.size() >= COPY_BYTES { write(std::mem::take(&mut batch)) } else { Ok(()) }
        })?;
        write(batch)?;
        let mut rewrite = Rewrite::new(self.content);
        let mut pass = DropPass::new(dead.to_vec());
        scan_all::<Stopped>(old, &[HEADERS], &[HEADERS + 1], &mut |key, headers| {
            let first = headers_key_revision(&key).map_err(StoreError::from)?;
            let decoded = Block::decode_headers(first, &headers).map_err(StoreError::from)?;
            rewrite.take_block(old, first, decoded, headers.len(), &mut pass)?;
            let full = rewrite.batch.size() >= COPY_BYTES;
            if full { write(rewrite.take_puts()) } else { Ok(()) }
        })?;
        rewrite.close();
        write(rewrite.take_puts())?;
        let mark = self.mark(applied, rewrite.content);
        let mut batch = EngineBatch::default();
        batch.put(STATE_MARK.to_vec(), mark.encode());
        write(batch)?;
        Ok((fresh, rewrite))
    }

    fn take_over(&mut self, fresh: Arc<dyn Engine>, serial: u32, rewrite: Rewrite) {
        let shared = Arc::clone(&self.shared);
        let _layout = shared.layout.write();
        *shared.engine.write() = fresh;
        shared.cache.lock().clear();
        let mut accounted = shared.size.lock();
        for (key, value) in rewrite.dropped.iter().map(size::row) {
            accounted.remove(key, value);
        }
        self.serial = serial;
        self.content = rewrite.content;
        self.open_block = None;
        self.dropped = true;
    }
}

pub(crate) fn remove(folder: &std::path::Path, group: u64) {
    if let Err(error) = fs::remove_dir_all(folder) {
        tracing::warn!(group, %error, "a state store that was begun stays until the next start");
    }
}

/// Bytes of keys and values that are not in `dead`, ascending.
fn live_bytes(engine: &dyn Engine, dead: &[Revision]) -> Result<u64, StoreError> {
    let mut bytes = 0;
    let mut add = |header: &Header| {
        if dead.binary_search(&header.revision).is_err() {
            bytes += (header.key.len() + header.value_len + 32) as u64;
        }
    };
    scan_all::<StoreError>(engine, &[HEADERS], &[HEADERS + 1], &mut |key, headers| {
        let headers = Block::decode_headers(headers_key_revision(&key)?, &headers)?;
        headers.iter().for_each(&mut add);
        Ok(())
    })?;
    Ok(bytes)
}
