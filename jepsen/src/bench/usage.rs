//! What a process and a directory cost, from `/proc` and the file system.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Linux's USER_HZ.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of CPU, user and system, of the process and all its threads.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
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

/// Bytes that the process wrote to files and sockets. `write_bytes` would count whole large folios for small writes.
pub(super) fn written_bytes(pid: u32) -> Result<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = io.lines().find_map(|l| l.strip_prefix("wchar: "));
    Ok(line.context("no wchar")?.parse()?)
}

/// Allocated MiB below `directory`, per directory that holds files.
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
                let part = part.display().to_string();
                *parts.entry(part).or_insert(0.0) += metadata.blocks() as f64 * 512.0 / 1048576.0;
            }
        }
    }
    parts
}
