//! The folders of state stores: `state-<generation>`, or `state-<generation>.<serial>` for those that came in place of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::engine::{Engine, EngineError, MemoryEngine};
use super::engine_sled::SledEngine;
use super::error::OpenError;
use super::open::io_error;
use super::options::{EngineKind, StoreOptions};

/// Opens a state store, or makes one.
pub(crate) fn open_engine(
    options: &StoreOptions,
    generation: u64,
    serial: u32,
) -> Result<Arc<dyn Engine>, EngineError> {
    match options.engine {
        EngineKind::Memory => Ok(Arc::new(MemoryEngine::default())),
        EngineKind::Sled => {
            let tick = options.sled_tick.map(|tick| tick.as_millis() as u64);
            let folder = engine_folder(options, generation, serial);
            Ok(Arc::new(SledEngine::open(&folder, options.sled_cache_bytes, tick)?))
        }
    }
}

/// `state-<generation>`, or `state-<generation>.<serial>` for those that came in place of it.
pub(crate) fn engine_folder(options: &StoreOptions, generation: u64, serial: u32) -> PathBuf {
    options.folder.join(match serial {
        0 => format!("state-{generation}"),
        serial => format!("state-{generation}.{serial}"),
    })
}

/// The generation and serial that a state store's folder is named by.
pub(crate) fn parse_engine_folder(name: &str) -> Option<(u64, u32)> {
    let numbers = name.strip_prefix("state-")?;
    let (generation, serial) = numbers.split_once('.').unwrap_or((numbers, "0"));
    Some((generation.parse().ok()?, serial.parse().ok()?))
}

/// The serials of the generation's state stores, ascending.
pub(crate) fn serials(options: &StoreOptions, generation: u64) -> Result<Vec<u32>, OpenError> {
    if options.engine == EngineKind::Memory {
        return Ok(Vec::new());
    }
    let names =
        options.device.list().map_err(|source| io_error("list the group's folder", source))?;
    let mut serials: Vec<u32> = names
        .iter()
        .filter_map(|name| parse_engine_folder(name))
        .filter_map(|(of, serial)| (of == generation).then_some(serial))
        .collect();
    serials.sort_unstable();
    Ok(serials)
}

pub(crate) fn remove_engine(
    options: &StoreOptions,
    generation: u64,
    serial: u32,
) -> Result<(), OpenError> {
    let folder = engine_folder(options, generation, serial);
    remove_folder(&folder).map_err(|source| io_error("remove a state store", source))
}

/// Bytes of the files in a folder and below it, as far as they can be looked at.
pub(crate) fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => folder_bytes(&entry.path()),
        Ok(found) => found.len(),
        Err(_gone) => 0,
    });
    bytes.sum()
}

/// Removes a state store's folder, if it is there.
pub(crate) fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
