//! What a process and a directory cost, from `/proc` and the file system.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Linux's USER_HZ.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of CPU, user and system, of the process and all its threads.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("a process name in parentheses")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |nth: usize| -> Result<f64> { Ok(fields.get(nth).context("a field")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// Resident memory in MiB: anonymous, and mapped files.
pub(crate) fn resident_mib(pid: u32) -> Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<f64> {
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        let line = line.with_context(|| format!("no {name}"))?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    };
    Ok((field("RssAnon:")?, field("RssFile:")?))
}

/// What a process has written since it began, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct WrittenBytes {
    /// To files and sockets, by calls of write (`wchar`).
    pub(super) by_calls: u64,
    /// To block devices, as the kernel accounts it (`write_bytes`): whole pages, and whole large folios for small
    /// writes, each time they become dirty anew.
    pub(super) by_pages: u64,
}

pub(super) fn written_bytes(pid: u32) -> Result<WrittenBytes> {
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let field = |name: &str| -> Result<u64> {
        let line = io.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.with_context(|| format!("no {name}"))?.parse()?)
    };
    Ok(WrittenBytes { by_calls: field("wchar: ")?, by_pages: field("write_bytes: ")? })
}

/// Whether a base of ours is being written below `directory`.
pub(super) fn holds_base_in_progress(directory: &Path) -> bool {
    disk_mib(directory).keys().any(|part| part.ends_with(BASE_IN_PROGRESS))
}

/// Our file names that stand for a part of their own among others of their directory.
const BASE: &str = "base-";
pub(super) const BASE_IN_PROGRESS: &str = "tmp-base";

/// Allocated MiB below `directory`: per directory that holds files, bases and those being written apart.
pub(super) fn disk_mib(directory: &Path) -> BTreeMap<String, f64> {
    let mut parts = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        // Files come and go while a server runs: what is gone costs nothing.
        let Ok(entries) = fs::read_dir(&path) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                open.push(entry.path());
            } else {
                let part = path.strip_prefix(directory).unwrap_or(&path);
                let name = entry.file_name();
                let own = [BASE, BASE_IN_PROGRESS]
                    .into_iter()
                    .find(|own| name.to_string_lossy().starts_with(own));
                let part = part.join(own.unwrap_or_default()).display().to_string();
                *parts.entry(part).or_insert(0.0) += metadata.blocks() as f64 * 512.0 / 1048576.0;
            }
        }
    }
    parts
}
