//! The journal: every acknowledged byte of every keyspace on this device, and the home of the raft logs.
//!
//! ```text
//!   GroupLog::append, save_vote, …        (front: readable at once)
//!        │ one ordered queue
//!        ▼
//!   writer ── frame = one write, one CRC, one fdatasync ──▶ segments of 64 MiB
//!        │                                                    ▲         │ below the floor
//!        └──▶ callbacks, durable end                        pool ◀──────┘ recycled
//!
//!   open: replay ──▶ ledgers ──▶ recover (what may not be on disk is written anew) ──▶ serve
//! ```
//!
//! Format: docs/DATA_FORMAT.md. Each file here holds one noun of it.
//!
//! **Invariant:** votes, entries and marks share one queue; what is acknowledged is synced, and nothing is ever
//! reordered. **Invariant:** after a failed write or sync in a live segment nothing more is written.
//! **Invariant:** the journal knows nothing of what a payload means.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use quorate_core::api::ids::GroupId;

use crate::storage::device::LogDevice;
use crate::support::spawn;

mod error;
mod floor;
mod frame;
mod group;
mod ledger;
mod options;
mod pool;
mod reader;
mod record;
mod recover;
mod replay;
mod rotation;
mod runs;
mod segment;
mod shared;
mod writer;

#[cfg(test)]
mod crash_test;
#[cfg(test)]
mod damage_test;
#[cfg(test)]
mod format_test;
#[cfg(test)]
mod journal_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod rule_test;
#[cfg(test)]
mod thread_test;

pub use error::{JournalError, JournalId, Violation};
pub use group::GroupLog;
pub use options::{
    FrameFigures, JournalObserver, JournalOptions, Runner, Unobserved, entry_bytes_max,
};
pub use record::{BaseMark, GroupState, InstallMark, LogRecord, Vote};
pub use recover::OpenReport;
pub use shared::{Done, DurableListener};

use pool::Pool;
use shared::{Figures, Queue, Shared, Submission};
use writer::Writer;

/// The journal of one device. Clones are the same journal.
///
/// [`Journal::close`] seals it. Dropping the last handle (a [`GroupLog`] is one) without closing finishes what is
/// queued and stops, as a kill would leave it.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Journal({})", self.inner.id)
    }
}

/// How full the journal is and what it has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalUsage {
    /// Live segments.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Files that wait to become segments.
    pub prepared: u64,
    /// Bytes of frames, seals and segment headers written.
    pub bytes_written: u64,
    /// Bytes of zeroes that new segments were filled with.
    pub bytes_zeroed: u64,
    /// Data frames written, each with one fdatasync.
    pub frames: u64,
    /// Every fdatasync of a segment: frames, headers of new segments, seals.
    pub syncs: u64,
    /// Records in them.
    pub records: u64,
    /// Segments made of new files.
    pub segments_created: u64,
    /// Segments made of freed ones.
    pub segments_recycled: u64,
    /// Payload bytes in the memory tail.
    pub tail_bytes: u64,
}

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pool: Arc<Pool>,
    id: JournalId,
    report: OpenReport,
    /// Without a thread of its own: the writer.
    writer: Mutex<Option<Writer>>,
    /// With [`Runner::Thread`]: the writer's and the pool's.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Journal {
    /// Opens the journal on `device`, or makes one when the folder holds none and `options.expected` is `None`.
    ///
    /// Refuses a lost journal, another directory's, a newer one, and one whose acknowledged bytes are damaged; a torn
    /// last batch, which nobody was told of, is cut.
    pub fn open(
        device: Arc<dyn LogDevice>,
        options: JournalOptions,
        runner: Runner,
    ) -> Result<Journal, JournalError> {
        let shared = Arc::new(Shared {
            device,
            options,
            runner,
            queue: Mutex::new(Queue::default()),
            work: Default::default(),
            room: Default::default(),
            groups: Mutex::default(),
            segments: Mutex::default(),
            stamps_due: Mutex::default(),
            poison: Mutex::default(),
            poisoned: Default::default(),
            writer_thread: Default::default(),
            figures: Figures::default(),
        });
        let (writer, report) = recover::open(&shared)?;
        let pool = Arc::clone(&writer.pool);
        let inner = Inner {
            shared,
            pool,
            id: writer.journal,
            report,
            writer: Mutex::new(Some(writer)),
            threads: Mutex::default(),
        };
        if runner == Runner::Thread {
            inner.start_threads()?;
        }
        Ok(Journal { inner: Arc::new(inner) })
    }

    /// Its id, for the directory's identity file.
    pub fn id(&self) -> JournalId {
        self.inner.id
    }

    /// What opening found.
    pub fn report(&self) -> OpenReport {
        self.inner.report
    }

    /// The log of a group; one that was never written is empty.
    pub fn group(&self, id: GroupId) -> GroupLog {
        GroupLog { group: self.inner.shared.group(id), inner: Arc::clone(&self.inner) }
    }

    /// Groups that have a state, ascending.
    pub fn groups(&self) -> Vec<GroupId> {
        let groups: Vec<_> = self.inner.shared.groups.lock().values().cloned().collect();
        groups
            .iter()
            .filter(|group| group.front.lock().ledger.state != GroupState::default())
            .map(|group| group.id)
            .collect()
    }

    /// Why the journal has stopped, if it has.
    pub fn poisoned(&self) -> Option<String> {
        self.inner.shared.poison.lock().clone()
    }

    /// How full it is and what it did.
    pub fn usage(&self) -> JournalUsage {
        let shared = &self.inner.shared;
        let figures = &shared.figures;
        let (segments, segment_bytes) = {
            let live = shared.segments.lock();
            (live.len() as u64, live.values().map(|s| s.bytes).sum())
        };
        let read = |figure: &std::sync::atomic::AtomicU64| figure.load(Ordering::Relaxed);
        JournalUsage {
            segments,
            segment_bytes,
            prepared: self.inner.pool.ready() as u64,
            bytes_written: read(&figures.bytes_written),
            bytes_zeroed: self.inner.pool.bytes_zeroed(),
            syncs: read(&figures.syncs),
            frames: read(&figures.frames),
            records: read(&figures.records),
            segments_created: read(&figures.segments_created),
            segments_recycled: read(&figures.segments_recycled),
            tail_bytes: figures.tail_bytes.load(Ordering::Relaxed) as u64,
        }
    }

    /// Whether writes that grow the store must be refused: less is free than two segments (those that wait count)
    /// and `reserve` bytes, which is what the next base may take; or preparing a segment failed (rule 6).
    pub fn growth_refused(&self, reserve: u64) -> bool {
        let shared = &self.inner.shared;
        if self.inner.pool.is_short() {
            return true;
        }
        let segment = shared.options.segment_bytes;
        let waiting = self.inner.pool.ready() as u64 * segment;
        match shared.device.free_space() {
            Ok(free) => free.saturating_add(waiting) < reserve.saturating_add(2 * segment),
            // What cannot be asked is not refused: the write itself will tell.
            Err(_) => false,
        }
    }

    /// The group that keeps the oldest segment while the journal is above `retained_bytes_max`: it should write a
    /// base, mark it and purge to it.
    pub fn oldest_pinner(&self) -> Option<GroupId> {
        let shared = &self.inner.shared;
        let (oldest, bytes) = {
            let live = shared.segments.lock();
            let bytes: u64 = live.values().map(|segment| segment.bytes).sum();
            (*live.keys().next()?, bytes)
        };
        if bytes <= shared.options.retained_bytes_max {
            return None;
        }
        let groups: Vec<_> = shared.groups.lock().values().cloned().collect();
        let pins =
            |group: &Arc<shared::Group>| group.front.lock().runs.first_segment() == Some(oldest);
        groups.into_iter().find(pins).map(|group| group.id)
    }

    /// What the idle timer does with [`Runner::Thread`]: writes a seal frame, unsynced, unless one is the last.
    pub fn idle(&self) {
        if let Some(writer) = self.inner.writer.lock().as_mut() {
            // The failure has poisoned the journal; the next call says so.
            let _ = writer.seal_or_poison(false);
        }
    }

    /// With [`Runner::Stepped`]: how many changes wait for a step.
    pub fn waiting(&self) -> usize {
        self.inner.shared.queue.lock().items.len()
    }

    /// With [`Runner::Stepped`]: writes the first `changes` that wait, syncs them and answers their callers.
    pub fn step(&self, changes: usize) {
        self.inner.step(changes);
    }

    /// Finishes what is queued, seals and syncs. Later calls through other handles answer [`JournalError::Closed`].
    pub fn close(self) -> Result<(), JournalError> {
        self.inner.stop(false);
        match self.inner.writer.lock().take() {
            Some(mut writer) => {
                writer.process(Inner::take_queue(&self.inner.shared));
                writer.seal_or_poison(true)
            }
            None => self.inner.shared.refuse_if_poisoned(),
        }
    }
}

impl Inner {
    /// Waits while the queue is full; the writer never waits for itself.
    pub(crate) fn wait_for_room(&self) -> Result<(), JournalError> {
        let shared = &self.shared;
        let mut queue = shared.queue.lock();
        loop {
            if queue.closed {
                return Err(JournalError::Closed);
            }
            shared.refuse_if_poisoned()?;
            let full = queue.bytes > shared.options.queue_bytes_max;
            let me = std::thread::current().id();
            if !full || !shared.runner.has_threads() || shared.writer_thread.get() == Some(&me) {
                return Ok(());
            }
            shared.room.wait(&mut queue);
        }
    }

    /// Takes all that is queued.
    fn take_queue(shared: &Shared) -> VecDeque<Submission> {
        let mut queue = shared.queue.lock();
        queue.bytes = 0;
        std::mem::take(&mut queue.items)
    }

    /// Runs the writer on this thread until the queue is empty, unless someone up the stack already does.
    pub(crate) fn drive(&self) {
        while !self.shared.queue.lock().items.is_empty() {
            let Some(mut writer) = self.writer.try_lock() else {
                return; // who holds it looks at the queue again when done
            };
            let Some(writer) = writer.as_mut() else {
                return;
            };
            writer.process(Inner::take_queue(&self.shared));
        }
    }

    /// One frame or more of the first `changes` in the queue.
    fn step(&self, changes: usize) {
        let Some(mut writer) = self.writer.try_lock() else {
            return; // a callback further up the stack
        };
        let Some(writer) = writer.as_mut() else {
            return;
        };
        let batch = {
            let mut queue = self.shared.queue.lock();
            let changes = changes.min(queue.items.len());
            let batch: VecDeque<_> = queue.items.drain(..changes).collect();
            queue.bytes -= batch.iter().map(|submission| submission.change.bytes()).sum::<usize>();
            batch
        };
        writer.process(batch);
    }

    fn start_threads(&self) -> Result<(), JournalError> {
        let spawning = || JournalError::io("starting the journal's threads");
        let writer = self.writer.lock().take().expect("it was just opened");
        let pool = Arc::clone(&self.pool);
        let preparing = spawn::thread("journal-pool", move || pool.run()).map_err(spawning())?;
        let writing = spawn::thread("journal", move || run(writer)).map_err(spawning())?;
        let _first = self.shared.writer_thread.set(writing.thread().id());
        self.threads.lock().extend([preparing, writing]);
        Ok(())
    }

    fn stop(&self, abandoned: bool) {
        {
            let mut queue = self.shared.queue.lock();
            if !queue.closed {
                queue.closed = true;
                queue.abandoned = abandoned;
            }
        }
        self.shared.work.notify_all();
        self.shared.wake_all();
        self.pool.close();
        let threads: Vec<_> = self.threads.lock().drain(..).collect();
        if threads.is_empty() {
            return;
        }
        let me = std::thread::current().id();
        for thread in threads.into_iter().rev() {
            // A callback that drops the last handle runs on the writer's own thread, which then ends by itself.
            if thread.thread().id() != me && thread.join().is_err() {
                self.shared.poison("a thread of the journal panicked");
            }
            // The writer may still have needed a segment; now nobody does.
            self.pool.stop();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop(true);
    }
}

/// The writer's thread.
fn run(mut writer: Writer) {
    let shared = Arc::clone(&writer.shared);
    loop {
        let batch = {
            let mut queue = shared.queue.lock();
            while queue.items.is_empty() {
                if queue.closed {
                    let abandoned = queue.abandoned;
                    drop(queue);
                    if !abandoned {
                        // Poisoned by the failure; `close` reports it.
                        let _ = writer.seal_or_poison(true);
                    }
                    return;
                }
                queue.writer_sleeps = true;
                if writer.sealed {
                    shared.work.wait(&mut queue);
                    continue;
                }
                let idle = shared.options.idle_seal;
                if shared.work.wait_for(&mut queue, idle).timed_out() && queue.items.is_empty() {
                    drop(queue);
                    // Poisoned by the failure; the next call reports it.
                    let _ = writer.seal_or_poison(false);
                    writer.sealed = true;
                    queue = shared.queue.lock();
                }
            }
            queue.writer_sleeps = false;
            queue.bytes = 0;
            std::mem::take(&mut queue.items)
        };
        shared.room.notify_all();
        writer.process(batch);
    }
}
