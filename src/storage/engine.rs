//! The seam to the state store: ordered bytes with atomic batches. sled behind it in the daemon
//! (`engine_sled`), a map in simulation and tests.
//!
//! **Invariant:** nothing kept by an engine is needed: it may lose everything, or any part, at any time; what it
//! gives back is believed only because the content sum says so (`docs/DATA_FORMAT.md`).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;
use parking_lot::RwLock;

/// What an engine may answer instead of data.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Reading or writing failed; `source` may be "no space left".
    #[error("the state store failed: {0}")]
    Io(#[source] io::Error),
    /// What it read makes no sense to it.
    #[error("the state store is damaged: {0}")]
    Damaged(String),
    /// It panicked; sled does so on some kinds of damage.
    #[error("the state store panicked: {0}")]
    Panicked(String),
}

/// Writes that are kept all or none. Of several changes of one key the last one holds.
#[derive(Clone, Debug, Default)]
pub struct EngineBatch {
    /// Key, and its new value or `None` to remove it.
    pub changes: Vec<(Bytes, Option<Bytes>)>,
}

impl EngineBatch {
    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.push((key.into(), Some(value.into())));
    }

    pub(crate) fn remove(&mut self, key: Vec<u8>) {
        self.changes.push((key.into(), None));
    }

    /// Bytes of keys and values.
    pub(crate) fn size(&self) -> u64 {
        let sizes = self
            .changes
            .iter()
            .map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len));
        sizes.sum::<usize>() as u64
    }
}

/// Called for each key and value of a scan; `Break` ends it.
pub type Visit<'a> = dyn FnMut(Bytes, Bytes) -> ControlFlow<()> + 'a;

/// An ordered store of byte strings. Many readers, one writer.
pub trait Engine: Send + Sync + fmt::Debug {
    /// The value under `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// The greatest key from `low` to `high`, both included, with its value.
    fn last_within(&self, low: &[u8], high: &[u8]) -> Result<Option<(Bytes, Bytes)>, EngineError>;

    /// Every key from `low` up to `high`, which is excluded, in order. Sees batches committed meanwhile, or not.
    fn scan(&self, low: &[u8], high: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError>;

    /// Keeps the batch, all or none. Not durable at return: it need not be.
    fn commit(&self, batch: EngineBatch) -> Result<(), EngineError>;

    /// Bytes of its files; 0 if it has none.
    fn size_on_disk(&self) -> u64;

    /// Writes out what it buffers. An engine dropped without it is what a crash leaves.
    fn flush(&self) -> Result<(), EngineError>;
}

/// An engine that forgets everything with the process.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    map: RwLock<BTreeMap<Bytes, Bytes>>,
}

impl Engine for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.map.read().get(key).cloned())
    }

    fn last_within(&self, low: &[u8], high: &[u8]) -> Result<Option<(Bytes, Bytes)>, EngineError> {
        let (low, high) = (Bytes::copy_from_slice(low), Bytes::copy_from_slice(high));
        let map = self.map.read();
        let last = map.range(low..=high).next_back();
        Ok(last.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn scan(&self, low: &[u8], high: &[u8], visit: &mut Visit<'_>) -> Result<(), EngineError> {
        let (low, high) = (Bytes::copy_from_slice(low), Bytes::copy_from_slice(high));
        // Not under the lock: a visitor may read other keys, and may take its time.
        let shared = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        let found: Vec<_> = self.map.read().range(low..high).map(shared).collect();
        for (key, value) in found {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, batch: EngineBatch) -> Result<(), EngineError> {
        let mut map = self.map.write();
        for (key, value) in batch.changes {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        Ok(())
    }

    fn size_on_disk(&self) -> u64 {
        0
    }

    fn flush(&self) -> Result<(), EngineError> {
        Ok(())
    }
}
