//! One watcher: what it asked for, and how far it has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};

use quorate_core::api::ids::WatchId;
use quorate_core::api::pb::etcdserverpb::WatchCreateRequest;
use quorate_core::api::pb::etcdserverpb::watch_create_request::FilterType;

use super::event::Event;
use super::queue::StreamQueue;
use super::range::KeyRange;

/// A watcher of one stream.
///
/// **Invariant:** phase and cursor change only under the hub's lock; they are atomics so that a watcher can be shared
/// without a lock of its own.
#[derive(Debug)]
pub(super) struct Watcher {
    /// Order of creation in the hub.
    pub(super) number: u64,
    /// Its id in the stream.
    pub(super) id: WatchId,
    pub(super) range: KeyRange,
    /// The revision it was asked to start from; 0 is "from now on".
    pub(super) start: i64,
    pub(super) prev_kv: bool,
    pub(super) fragment: bool,
    pub(super) queue: Arc<StreamQueue>,
    no_put: bool,
    no_delete: bool,
    phase: AtomicU8,
    cursor: AtomicI64,
    /// No events were sent since the last tick of the progress clock.
    quiet: AtomicBool,
}

/// How far a watcher is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Events reach it as they are published.
    Synced = 0,
    /// It reads history from its cursor on.
    Lagging = 1,
    /// Compaction overtook it. Its id is taken until the client cancels it.
    Compacted = 2,
    /// The client cancelled it, or its stream has ended.
    Cancelled = 3,
}

impl Watcher {
    pub(super) fn new(
        number: u64,
        id: WatchId,
        range: KeyRange,
        request: &WatchCreateRequest,
        queue: Arc<StreamQueue>,
    ) -> Watcher {
        let filtered = |kind: FilterType| request.filters.contains(&i32::from(kind));
        Watcher {
            number,
            id,
            range,
            start: request.start_revision,
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            queue,
            no_put: filtered(FilterType::Noput),
            no_delete: filtered(FilterType::Nodelete),
            phase: AtomicU8::new(Phase::Synced as u8),
            cursor: AtomicI64::new(0),
            quiet: AtomicBool::new(true),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        const PHASES: [Phase; 4] =
            [Phase::Synced, Phase::Lagging, Phase::Compacted, Phase::Cancelled];
        PHASES[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// The first main revision it has not been given.
    pub(super) fn cursor(&self) -> i64 {
        self.cursor.load(Ordering::Relaxed)
    }

    pub(super) fn set_cursor(&self, cursor: i64) {
        self.cursor.store(cursor, Ordering::Relaxed);
    }

    /// Its filters let the event through.
    pub(super) fn lets_through(&self, event: &Event) -> bool {
        if event.is_delete() { !self.no_delete } else { !self.no_put }
    }

    /// Events were handed to the client: the next tick of the progress clock passes it over.
    pub(super) fn heard(&self) {
        self.quiet.store(false, Ordering::Relaxed);
    }

    /// A tick of the progress clock: whether nothing was sent since the one before.
    pub(super) fn tick(&self) -> bool {
        self.quiet.swap(true, Ordering::Relaxed)
    }
}
