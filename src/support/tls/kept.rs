//! Something read from files, and read again when they change.
//!
//! ```text
//!   handshake ── current() ── as seen last time? ── yes: what was read then
//!                                  └── no: read ── good: that, from now on
//!                                                └── bad: what was read before, and one line in the log
//! ```
//!
//! **Why not on a signal or by watching the folder:** nothing has to be told; a handshake that begins after a change is
//! made with the change, whichever way files are replaced (rename, symbolic link, writing in place).
//!
//! **Invariant:** there is always something good: what the start could not read has refused the start.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::files;
use crate::support::clock::unix_micros;
use crate::support::listen::words;

/// File systems stamp in steps: a file that had changed this shortly before it was read may change again without
/// looking different.
const SETTLED_AFTER_MICROS: i64 = 2_000_000;

/// How often files that change while they are read are read anew.
const READS_MAX: usize = 4;

type Read<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync>;

/// What files hold, kept up to date.
pub(super) struct Kept<T> {
    what: &'static str,
    paths: Vec<PathBuf>,
    read: Read<T>,
    sums: RandomState,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    seen: Seen,
    /// What was last complained of; told once.
    complaint: Option<String>,
}

/// How files looked when they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    stamps: Vec<Stamp>,
    sum: u64,
    settled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified_micros: i64,
    changed_micros: i64,
}

impl<T> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({}, {:?})", self.what, self.paths)
    }
}

fn stamp(path: &PathBuf) -> io::Result<Stamp> {
    let found = std::fs::metadata(path)?;
    let micros = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000) + nanos / 1_000;
    Ok(Stamp {
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        modified_micros: micros(found.mtime(), found.mtime_nsec()),
        changed_micros: micros(found.ctime(), found.ctime_nsec()),
    })
}

impl<T> Kept<T> {
    /// Reads the files for the first time. `what` names them in the log.
    pub(super) fn open(
        what: &'static str,
        paths: &[&str],
        read: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Kept<T>, String> {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        let sums = RandomState::new();
        let (stamps, contents) = at_rest(&paths)?;
        let seen = seen(stamps, &contents, &sums);
        let value = Arc::new(read(&contents)?);
        let state = State { value, seen, complaint: None };
        Ok(Kept { what, paths, read: Box::new(read), sums, state: Mutex::new(state) })
    }

    /// What the files hold now, or what they held when they last held something good. Reads files.
    pub(super) fn current(&self) -> Arc<T> {
        let mut state = self.state.lock();
        if let Err(why) = self.look(&mut state)
            && state.complaint.as_ref() != Some(&why)
        {
            tracing::warn!(
                files = ?self.paths,
                error = why,
                "failed to reload the {}; the last good one stays in use",
                self.what
            );
            state.complaint = Some(why);
        }
        Arc::clone(&state.value)
    }

    fn look(&self, state: &mut State<T>) -> Result<(), String> {
        let same = |stamps: Vec<Stamp>| stamps == state.seen.stamps && state.seen.settled;
        if stamps(&self.paths).is_ok_and(same) {
            // What is wrong with files that look the same has been told.
            return Ok(());
        }
        let (stamps, contents) = at_rest(&self.paths)?;
        let now = seen(stamps, &contents, &self.sums);
        let same = now.sum == state.seen.sum;
        state.seen = now;
        if same {
            return Ok(());
        }
        state.value = Arc::new((self.read)(&contents)?);
        state.complaint = None;
        tracing::info!(files = ?self.paths, "reloaded the {}", self.what);
        Ok(())
    }
}

fn stamps(paths: &[PathBuf]) -> Result<Vec<Stamp>, String> {
    let stamp = |path: &PathBuf| {
        stamp(path).map_err(|why| format!("open {}: {}", path.display(), words(&why)))
    };
    paths.iter().map(stamp).collect()
}

fn contents(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
    paths.iter().map(|path| files::read(path)).collect()
}

/// What files that belong together hold, none of them from before a change and another one from after it, unless
/// changes do not end.
fn at_rest(paths: &[PathBuf]) -> Result<(Vec<Stamp>, Vec<Vec<u8>>), String> {
    for _ in 0..READS_MAX {
        let looked =
            stamps(paths).and_then(|before| Ok((before, contents(paths)?, stamps(paths)?)));
        // One that was there a moment ago may have been replaced in between.
        if let Ok((before, contents, after)) = looked
            && before == after
        {
            return Ok((before, contents));
        }
    }
    Ok((stamps(paths)?, contents(paths)?))
}

/// The stamps are those from before the files were read: a change in between is seen the next time.
fn seen(stamps: Vec<Stamp>, contents: &[Vec<u8>], sums: &RandomState) -> Seen {
    let newest = stamps.iter().map(|s| s.modified_micros.max(s.changed_micros)).max().unwrap_or(0);
    let now = i64::try_from(unix_micros()).unwrap_or(i64::MAX);
    let settled = newest.saturating_add(SETTLED_AFTER_MICROS) < now;
    Seen { stamps, sum: sums.hash_one(contents), settled }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(path: &std::path::Path) -> Kept<u32> {
        let read = |contents: &[Vec<u8>]| {
            let text = String::from_utf8_lossy(&contents[0]).into_owned();
            text.parse().map_err(|_| format!("no number: {text}"))
        };
        Kept::open("number", &[path.to_str().unwrap()], read).unwrap()
    }

    #[test]
    fn a_change_is_seen_at_once_and_a_bad_one_keeps_the_last_good() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        std::fs::write(&path, "1").unwrap();
        let kept = numbers(&path);
        assert_eq!(*kept.current(), 1);
        // The same length, within one step of the file system's clock.
        std::fs::write(&path, "2").unwrap();
        assert_eq!(*kept.current(), 2);
        std::fs::write(&path, "x").unwrap();
        assert_eq!((*kept.current(), *kept.current()), (2, 2));
        assert_eq!(kept.state.lock().complaint.as_deref(), Some("no number: x"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(*kept.current(), 2);
        let other = dir.path().join("other");
        std::fs::write(&other, "3").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(*kept.current(), 3);
        assert_eq!(kept.state.lock().complaint, None);
    }

    #[test]
    fn what_is_bad_from_the_start_is_refused() {
        let refused = Kept::<()>::open("x", &["/nonexistent/x"], |_| Ok(())).err();
        assert_eq!(refused.as_deref(), Some("open /nonexistent/x: no such file or directory"));
    }
}
