//! Files that wait to become segments, prepared off the writer's path.
//!
//! ```text
//!   tmp-*  zero-filled, synced ──▶ free-* ──take──▶ writer: header, sync, rename to the live name
//!                                    ▲
//!   live segment below the floor ────┘ renamed, directory synced; one too many is removed
//! ```
//!
//! **Invariant:** with a thread, files are made, recycled and removed on it alone: a file system takes its time for
//! each, and the writer has callers that wait.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::error::JournalError;
use super::options::Runner;
use super::segment::FileName;
use crate::storage::device::{BACKGROUND_PACE, LogDevice, LogFile};

/// Files kept waiting at most; more are removed.
const READY_MAX: usize = 2;
const RETRY: Duration = Duration::from_millis(250);

/// A file of the segment size whose content does not count.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn LogFile>,
    /// It was a segment before.
    pub(crate) recycled: bool,
}

/// A segment that nobody needs any more, under its live name.
#[derive(Debug)]
pub(crate) struct Freed {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn LogFile>,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Prepared>,
    /// Segments below the floor, open until they are dealt with: who closes a removed file last pays for it.
    freed: Vec<Freed>,
    wanted: bool,
    stopped: bool,
    taker_waits: bool,
    /// The journal is being closed: a file that cannot be made now is not waited for.
    closing: bool,
    /// The last try to prepare one failed.
    failure: Option<Arc<io::Error>>,
    next_number: u64,
    live: Live,
}

/// Bytes of the live segment.
#[derive(Clone, Copy, Debug, Default)]
struct Live {
    used: u64,
    bytes: u64,
    /// How many were used when a file was asked for.
    asked_at: u64,
}

impl Live {
    /// How much of a file of `segment_bytes` is to be made by now, so that it is whole when two thirds of what the live
    /// segment had left are filled.
    fn needed(self, segment_bytes: u64) -> u64 {
        let left = self.bytes.saturating_sub(self.asked_at).max(1) as f64;
        let filled = self.used.saturating_sub(self.asked_at) as f64;
        (1.5 * filled / left * segment_bytes as f64) as u64
    }
}

/// The pool. One file is prepared when asked for, ahead of its use.
#[derive(Debug)]
pub(crate) struct Pool {
    device: Arc<dyn LogDevice>,
    segment_bytes: u64,
    runner: Runner,
    state: Mutex<State>,
    changed: Condvar,
    bytes_zeroed: AtomicU64,
}

impl Pool {
    pub(crate) fn new(
        device: Arc<dyn LogDevice>,
        segment_bytes: u64,
        runner: Runner,
        next_number: u64,
    ) -> Pool {
        Pool {
            device,
            segment_bytes,
            runner,
            state: Mutex::new(State { next_number, ..State::default() }),
            changed: Condvar::new(),
            bytes_zeroed: AtomicU64::new(0),
        }
    }

    /// Asks for a file to be ready before the live segment is full, of whose `bytes` so many are `used`.
    pub(crate) fn request(&self, used: u64, bytes: u64) {
        let mut state = self.state.lock();
        (state.live.used, state.live.bytes) = (used, bytes);
        if state.ready.is_empty() && !state.wanted {
            state.live.asked_at = used;
            state.wanted = true;
            self.changed.notify_all();
        }
    }

    /// A prepared file. With a thread, waits for one; `None` when the pool was stopped meanwhile. In place, prepares
    /// it now.
    pub(crate) fn take(&self) -> Result<Option<Prepared>, JournalError> {
        let mut state = self.state.lock();
        loop {
            if let Some(prepared) = state.ready.pop_front() {
                return Ok(Some(prepared));
            }
            if state.stopped {
                return Ok(None);
            }
            match &state.failure {
                // Space may come back; anything else that a disk says is final, as a failed write would be.
                Some(failure) if !is_full(failure) => return Err(preparing(Arc::clone(failure))),
                Some(_full) if state.closing => return Err(JournalError::NoSpace),
                Some(_) | None => {}
            }
            if !self.runner.has_threads() {
                drop(state);
                return self.prepare().map(Some).map_err(|error| preparing(Arc::new(error)));
            }
            state.wanted = true;
            state.taker_waits = true;
            self.changed.notify_all();
            self.changed.wait(&mut state);
            state.taker_waits = false;
        }
    }

    /// The writer waits for a file that could not be made.
    #[cfg(test)]
    pub(crate) fn is_waited_for(&self) -> bool {
        let state = self.state.lock();
        state.taker_waits && state.failure.is_some()
    }

    /// Takes a file that waits already; one too many or of another size is removed.
    pub(crate) fn give(&self, name: String, file: Arc<dyn LogFile>) -> io::Result<()> {
        let fits = file.size()? == self.segment_bytes;
        {
            let mut state = self.state.lock();
            if fits && state.ready.len() < READY_MAX {
                state.ready.push_back(Prepared { name, file, recycled: true });
                state.failure = None;
                self.changed.notify_all();
                return Ok(());
            }
        }
        self.device.remove(&name)
    }

    /// Takes segments that a synced floor record has freed: with a thread soon, in place now.
    pub(crate) fn free(&self, freed: Vec<Freed>) -> io::Result<()> {
        if !self.runner.has_threads() {
            return self.recycle(freed);
        }
        self.state.lock().freed.extend(freed);
        self.changed.notify_all();
        Ok(())
    }

    /// Gives as many as may wait another name, durably, and removes the rest. What an error leaves lies below the
    /// floor: replay ignores it, and the next start removes it.
    fn recycle(&self, freed: Vec<Freed>) -> io::Result<()> {
        let mut waiting = Vec::new();
        let mut outcome = Ok(());
        for Freed { name, file } in freed {
            let fits = file.size().is_ok_and(|size| size == self.segment_bytes);
            let done = if fits && self.ready() + waiting.len() < READY_MAX {
                let free = self.free_name();
                let renamed = self.device.rename(&name, &free);
                renamed.map(|()| waiting.push(Prepared { name: free, file, recycled: true }))
            } else {
                self.device.remove(&name)
            };
            outcome = outcome.and(done);
        }
        if waiting.is_empty() {
            return outcome;
        }
        self.device.sync_dir()?;
        let mut state = self.state.lock();
        state.ready.extend(waiting);
        state.failure = None;
        self.changed.notify_all();
        outcome
    }

    /// A name for a file that waits.
    pub(crate) fn free_name(&self) -> String {
        let mut state = self.state.lock();
        state.next_number += 1;
        FileName::free(state.next_number)
    }

    /// A file of `bytes` or more: one that waits if it can be, else one just that long.
    pub(crate) fn prepare_at_least(&self, bytes: u64) -> Result<Prepared, JournalError> {
        let waiting = match bytes <= self.segment_bytes {
            true => self.state.lock().ready.pop_front(),
            false => None,
        };
        let page = 4096;
        match waiting {
            Some(waiting) => Ok(waiting),
            None => {
                let made = self.prepare_sized(bytes.next_multiple_of(page), &mut |_part| {});
                made.map_err(|error| preparing(Arc::new(error)))
            }
        }
    }

    /// Makes a file now, on the caller's thread. What was made of it goes when it cannot be finished.
    pub(crate) fn prepare(&self) -> io::Result<Prepared> {
        self.prepare_sized(self.segment_bytes, &mut |_part| {})
    }

    fn prepare_sized(&self, bytes: u64, written: &mut dyn FnMut(u64)) -> io::Result<Prepared> {
        let free = self.free_name();
        let temporary = free.replacen("free-", "tmp-", 1);
        let made = self.device.create_zeroed(&temporary, bytes, written).and_then(|file| {
            self.device.rename(&temporary, &free)?;
            Ok(file)
        });
        match made {
            Ok(file) => {
                self.bytes_zeroed.fetch_add(bytes, Ordering::Relaxed);
                Ok(Prepared { name: free, file, recycled: false })
            }
            Err(error) => {
                // Best effort: it is ignored at the next start, too.
                let _ = self.device.remove(&temporary);
                Err(error)
            }
        }
    }

    /// Makes one ahead of its use, at a pace that lets the syncs of others pass and is ready well before it is needed.
    fn prepare_at_leisure(&self) -> io::Result<Prepared> {
        let mut made = 0;
        self.prepare_sized(self.segment_bytes, &mut |part| {
            made += part;
            let mut state = self.state.lock();
            let hurried = state.taker_waits || state.stopped || state.closing;
            if !hurried && made > state.live.needed(self.segment_bytes) {
                let rest = Duration::from_secs_f64(part as f64 / BACKGROUND_PACE);
                self.changed.wait_for(&mut state, rest);
            }
        })
    }

    /// Whether the last try to prepare a file failed and none is ready.
    pub(crate) fn is_short(&self) -> bool {
        let state = self.state.lock();
        state.ready.is_empty() && state.failure.is_some()
    }

    /// Bytes of the files made so far, each filled with zeroes.
    pub(crate) fn bytes_zeroed(&self) -> u64 {
        self.bytes_zeroed.load(Ordering::Relaxed)
    }

    /// Files that wait.
    pub(crate) fn ready(&self) -> usize {
        self.state.lock().ready.len()
    }

    /// The preparing thread's loop: until [`Pool::stop`].
    pub(crate) fn run(&self) {
        let mut state = self.state.lock();
        loop {
            let freed = std::mem::take(&mut state.freed);
            if !freed.is_empty() {
                drop(state);
                // Best effort: a disk that refuses this refuses the writer's next name, too.
                let _ = self.recycle(freed);
                state = self.state.lock();
                continue;
            }
            if state.stopped {
                return;
            }
            if !state.wanted || !state.ready.is_empty() {
                state.wanted = false;
                self.changed.wait(&mut state);
                continue;
            }
            drop(state);
            let made = self.prepare_at_leisure();
            state = self.state.lock();
            match made {
                Ok(prepared) => {
                    state.failure = None;
                    state.ready.push_back(prepared);
                    self.changed.notify_all();
                }
                Err(error) => {
                    state.failure = Some(Arc::new(error));
                    self.changed.notify_all();
                    // Someone may free space: try again after a while, or when a segment comes back.
                    self.changed.wait_for(&mut state, RETRY);
                }
            }
        }
    }

    /// From here on nobody waits for space.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }
}

/// The error tells of space that may come back.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn preparing(source: Arc<io::Error>) -> JournalError {
    if is_full(&source) {
        return JournalError::NoSpace;
    }
    JournalError::Io { what: "preparing a segment".to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::device::double::DoubleDevice;

    #[test]
    fn a_file_is_whole_when_two_thirds_of_what_was_left_are_filled() {
        let pool = Pool::new(Arc::new(DoubleDevice::default()), 6000, Runner::Thread, 0);
        let needed = || pool.state.lock().live.needed(6000);
        pool.request(100, 1000);
        assert_eq!(needed(), 0, "at leisure");
        pool.request(400, 1000);
        assert_eq!(needed(), 3000);
        pool.request(700, 1000);
        assert_eq!(needed(), 6000);
        pool.request(30, 6000);
        assert_eq!(needed(), 0, "the live segment is another one");
    }
}
