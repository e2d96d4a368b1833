//! One process per data directory: an advisory lock (`flock`) on a file that also names its holder.
//!
//! The lock goes with the process, so that nothing is left to clean up after a crash; the pid in the file is only
//! for the message.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Held for as long as the directory is in use; dropping it lets go.
#[derive(Debug)]
pub(crate) struct ProcessLock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug)]
pub(crate) enum LockFailure {
    /// A live process holds it; its pid, if it could be read.
    Held(Option<u32>),
    Io(io::Error),
}

impl ProcessLock {
    /// Takes the lock and writes our pid; a file left by a dead process is taken over.
    pub(crate) fn take(path: &Path) -> Result<ProcessLock, LockFailure> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(LockFailure::Io)?;
        let mut pid = String::new();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let read = Read::take(&file, 20).read_to_string(&mut pid);
                return Err(LockFailure::Held(read.ok().and_then(|_| pid.trim().parse().ok())));
            }
            Err(TryLockError::Error(error)) => return Err(LockFailure::Io(error)),
        }
        let write = || -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        let mut write = write;
        write().map_err(LockFailure::Io)?;
        Ok(ProcessLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_holder_is_named_and_a_stale_lock_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("LOCK");
        std::fs::write(&path, "4000000\n").unwrap();
        let lock = ProcessLock::take(&path).unwrap();
        match ProcessLock::take(&path) {
            Err(LockFailure::Held(Some(pid))) => assert_eq!(pid, std::process::id()),
            other => panic!("{other:?}"),
        }
        drop(lock);
        ProcessLock::take(&path).unwrap();
    }
}
