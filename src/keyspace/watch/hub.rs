//! The hub: takes what was committed, finds who watches it, and never waits.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_core::api::batch::RevisionRecord;
use quorate_core::api::ids::WatchId;
use quorate_core::api::pb::etcdserverpb::WatchCreateRequest;

use super::counters::WatchCounters;
use super::event::Event;
use super::history::History;
use super::index::WatcherIndex;
use super::queue::StreamQueue;
use super::range::KeyRange;
use super::response;
use super::slice::SliceCache;
use super::stream::WatchStream;
use super::tail::Tail;
use super::watcher::{Phase, Watcher};
use crate::support::spawn::Blocking;

/// How watches of a keyspace behave.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Between two progress notifications of a quiet watcher (`--watch-progress-notify-interval`); at least 100 ms.
    pub progress_interval: Duration,
    /// A response of this many bytes is cut for watchers that asked for fragments: `--max-request-bytes` + 512 KiB.
    pub fragment_bytes: usize,
    /// About how many bytes of history a lagging stream reads at once.
    pub slice_bytes: usize,
    /// The most main revisions in one caught-up response (etcd `watcher_group.go`, `watchBatchMaxRevs`).
    pub batch_revisions: usize,
}

/// etcd's floor under the progress interval.
const MIN_PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

impl Default for WatchOptions {
    fn default() -> Self {
        WatchOptions {
            progress_interval: Duration::from_secs(600),
            fragment_bytes: 2 << 20,
            slice_bytes: 1 << 20,
            batch_revisions: 1000,
        }
    }
}

/// All watches of one keyspace on this member. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WatchHub(Arc<Hub>);

/// What a hub and its streams share.
pub(super) struct Hub {
    state: Mutex<HubState>,
    /// The compact revision; written under the lock, read also without it.
    compacted: AtomicI64,
    pub(super) slices: Mutex<SliceCache>,
    pub(super) history: Arc<dyn History>,
    pub(super) blocking: Arc<Blocking>,
    pub(super) options: WatchOptions,
    pub(super) counters: Arc<WatchCounters>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// What the hub's lock guards.
pub(super) struct HubState {
    /// The newest published revision.
    pub(super) current: i64,
    pub(super) tail: Tail,
    index: WatcherIndex<Arc<Watcher>>,
    watchers: BTreeMap<u64, Arc<Watcher>>,
    streams: BTreeMap<u64, Arc<StreamQueue>>,
    numbers: u64,
    closed: bool,
}

impl WatchHub {
    /// A hub over a store that stands at `current` and was compacted at `compacted` (-1: never). Reading history
    /// runs on `blocking`.
    pub fn new(
        history: Arc<dyn History>,
        blocking: Arc<Blocking>,
        mut options: WatchOptions,
        current: i64,
        compacted: i64,
    ) -> WatchHub {
        options.progress_interval = options.progress_interval.max(MIN_PROGRESS_INTERVAL);
        WatchHub(Arc::new(Hub {
            state: Mutex::new(HubState {
                current,
                tail: Tail::after(current),
                index: WatcherIndex::default(),
                watchers: BTreeMap::new(),
                streams: BTreeMap::new(),
                numbers: 0,
                closed: false,
            }),
            compacted: AtomicI64::new(compacted),
            slices: Mutex::default(),
            history,
            blocking,
            options,
            counters: Arc::default(),
        }))
    }

    /// Shows watchers what one applied entry changed, after its commit: `records` ascending, any number of main
    /// revisions, and the store's revision after them. Called in log order by the sink; never waits for a watcher.
    pub fn publish(&self, records: &[RevisionRecord], current: i64) {
        let mut state = self.0.state.lock();
        debug_assert!(current >= state.current, "revisions never go back");
        if state.watchers.is_empty() {
            if current > state.current {
                state.tail = Tail::after(current);
            }
            state.current = current;
            return;
        }
        for revision in records.chunk_by(|one, next| one.revision.main == next.revision.main) {
            debug_assert!(
                revision[0].revision.main > state.current,
                "a revision is published once"
            );
            let events: Vec<Arc<Event>> =
                revision.iter().map(|record| Arc::new(Event::published(record))).collect();
            state.notify(&events, &self.0.counters);
            state.tail.push(&events);
        }
        state.current = current;
    }

    /// The store was compacted at `revision`. Called by the sink in log order, before any revision disappears from
    /// [`History`]; watchers with a cursor below it are cancelled when their stream next looks at them.
    pub fn compacted(&self, revision: i64) {
        let _state = self.0.state.lock();
        self.0.compacted.fetch_max(revision, Ordering::Relaxed);
    }

    /// The store was replaced by a snapshot at `current`, compacted at `compacted`: every watcher reads on from its
    /// cursor, or is cancelled.
    pub fn restored(&self, current: i64, compacted: i64) {
        let mut state = self.0.state.lock();
        let first_unseen = state.current + 1;
        state.current = current;
        state.tail = Tail::after(current);
        self.0.compacted.store(compacted, Ordering::Relaxed);
        self.0.slices.lock().clear();
        for watcher in state.watchers.values() {
            let cursor = watcher.cursor().max(first_unseen);
            if watcher.phase() == Phase::Synced && cursor <= current {
                state.lag(watcher, cursor, &self.0.counters);
            }
        }
    }

    /// Opens a client's stream of watchers.
    pub fn open(&self) -> WatchStream {
        let queue = Arc::new(StreamQueue::default());
        let number = {
            let mut state = self.0.state.lock();
            if state.closed {
                queue.close();
            }
            let number = state.number();
            state.streams.insert(number, Arc::clone(&queue));
            number
        };
        self.0.counters.add_streams(1);
        WatchStream::new(Arc::clone(&self.0), queue, number)
    }

    /// Ends every stream, now and later: each hands out what stands in its queue, then ends.
    pub fn close(&self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        for queue in state.streams.values() {
            queue.close();
        }
    }

    /// The newest revision that watchers were shown.
    pub fn revision(&self) -> i64 {
        self.0.state.lock().current
    }

    /// Facts for the metrics page.
    pub fn counters(&self) -> Arc<WatchCounters> {
        Arc::clone(&self.0.counters)
    }
}

impl Hub {
    /// Runs `work` under the hub's lock: nothing is published meanwhile.
    pub(super) fn locked<R>(&self, work: impl FnOnce(&mut HubState) -> R) -> R {
        work(&mut self.state.lock())
    }

    pub(super) fn compact_revision(&self) -> i64 {
        self.compacted.load(Ordering::Relaxed)
    }

    /// Makes a watcher and queues its created response, ahead of every event it will get.
    pub(super) fn create(
        &self,
        queue: &Arc<StreamQueue>,
        id: WatchId,
        range: KeyRange,
        request: &WatchCreateRequest,
    ) -> Arc<Watcher> {
        let mut state = self.state.lock();
        let number = state.number();
        let watcher = Watcher::new(number, id, range, request, Arc::clone(queue));
        let watcher = Arc::new(watcher);
        queue.push_control(response::created(id, state.current));
        state.index.insert(&watcher.range, number, Arc::clone(&watcher));
        state.watchers.insert(number, Arc::clone(&watcher));
        let start = watcher.start;
        if start == 0 || start > state.current {
            watcher.set_cursor(start.max(state.current + 1));
        } else {
            state.lag(&watcher, start, &self.counters);
        }
        self.counters.add_watchers(1);
        watcher
    }

    /// Ends a watcher and queues the answer.
    pub(super) fn cancel(&self, watcher: &Arc<Watcher>) {
        let mut state = self.state.lock();
        state.forget(watcher, Phase::Cancelled, &self.counters);
        let response = response::cancelled(watcher.id, state.current);
        watcher.queue.push_control(response);
    }

    /// Ends a stream with all its watchers, a bounded number under one hold of the lock.
    pub(super) fn close_stream(
        &self,
        number: u64,
        queue: &StreamQueue,
        watchers: impl Iterator<Item = Arc<Watcher>>,
    ) {
        let mut watchers = watchers.peekable();
        while watchers.peek().is_some() {
            let mut state = self.state.lock();
            for watcher in watchers.by_ref().take(1000) {
                state.forget(&watcher, Phase::Cancelled, &self.counters);
            }
        }
        self.state.lock().streams.remove(&number);
        self.counters.dropped(queue.clear());
        self.counters.add_streams(-1);
    }
}

impl HubState {
    /// Gives the events of one main revision to the synced watchers of their keys.
    fn notify(&self, events: &[Arc<Event>], counters: &WatchCounters) {
        let revision = events[0].revision();
        let takes = |watcher: &Watcher, event: &Event| {
            watcher.phase() == Phase::Synced
                && watcher.cursor() <= revision
                && watcher.lets_through(event)
        };
        if let [event] = events {
            self.index.matching(event.key(), |watcher| {
                if takes(watcher, event) {
                    self.give(watcher, revision, 1, counters, || vec![Arc::clone(event)]);
                }
            });
            return;
        }
        let mut shares: BTreeMap<u64, (Arc<Watcher>, Vec<Arc<Event>>)> = BTreeMap::new();
        for event in events {
            self.index.matching(event.key(), |watcher| {
                if takes(watcher, event) {
                    let new = || (Arc::clone(watcher), Vec::new());
                    let share = shares.entry(watcher.number).or_insert_with(new);
                    share.1.push(Arc::clone(event));
                }
            });
        }
        for (watcher, share) in shares.into_values() {
            self.give(&watcher, revision, share.len(), counters, || share);
        }
    }

    fn give(
        &self,
        watcher: &Arc<Watcher>,
        revision: i64,
        count: usize,
        counters: &WatchCounters,
        events: impl FnOnce() -> Vec<Arc<Event>>,
    ) {
        if watcher.queue.offer(watcher, revision, events) {
            watcher.set_cursor(revision + 1);
            counters.queued(count);
        } else {
            self.lag(watcher, revision, counters);
        }
    }

    /// The watcher reads history from `cursor` on.
    fn lag(&self, watcher: &Arc<Watcher>, cursor: i64, counters: &WatchCounters) {
        watcher.set_cursor(cursor);
        watcher.set_phase(Phase::Lagging);
        watcher.queue.push_lagging(Arc::clone(watcher));
        counters.add_slow(1);
    }

    /// The watcher has caught up.
    pub(super) fn synced(&self, watcher: &Watcher, counters: &WatchCounters) {
        watcher.set_phase(Phase::Synced);
        counters.add_slow(-1);
    }

    /// Compaction overtook the watcher: it is cancelled with the compact revision.
    pub(super) fn overtaken(
        &mut self,
        watcher: &Arc<Watcher>,
        compacted: i64,
        counters: &WatchCounters,
    ) {
        self.forget(watcher, Phase::Compacted, counters);
        let response = response::compacted(watcher.id, compacted);
        watcher.queue.push_control(response);
    }

    fn forget(&mut self, watcher: &Arc<Watcher>, phase: Phase, counters: &WatchCounters) {
        let before = watcher.phase();
        watcher.set_phase(phase);
        match before {
            Phase::Synced => {}
            Phase::Lagging => counters.add_slow(-1),
            Phase::Compacted | Phase::Cancelled => return,
        }
        self.index.remove(&watcher.range, watcher.number);
        self.watchers.remove(&watcher.number);
        counters.add_watchers(-1);
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}
