//! The one ordered channel of a stream. Three kinds of answers stand in it, each with a bound of its own, so that
//! none keeps another out for ever:
//!
//! | kind | bound | who puts it there | when full |
//! |---|---|---|---|
//! | events as they are published | 128, or 8 MiB | the write path | the watcher lags and reads history |
//! | events caught up | 32 | the stream, for its lagging watchers | it reads no more history |
//! | created, cancelled, progress | 16 | the stream, for the client | it reads no more requests |

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_core::api::pb::etcdserverpb::WatchResponse;
use tokio::sync::Notify;

use super::event::Event;
use super::watcher::Watcher;

/// Responses with fresh events that one stream holds (etcd `server/storage/mvcc/watchable_store.go`, `chanBufLen`).
const FRESH_LIMIT: usize = 128;

/// Bytes of keys and values in them, before the last.
const FRESH_BYTES: usize = 8 << 20;

/// Responses with events read back from history that one stream holds.
pub(super) const CAUGHT_UP_LIMIT: usize = 32;

/// Answers to requests, and progress, that one stream holds (etcd `v3rpc/watch.go`, `ctrlStreamBufLen`).
const CONTROL_LIMIT: usize = 16;

/// What stands in the queue.
#[derive(Debug)]
pub(super) enum Delivery {
    /// Events of one watcher, whole main revisions, ascending.
    Events {
        watcher: Arc<Watcher>,
        /// For the header.
        revision: i64,
        events: Vec<Arc<Event>>,
        /// They were read back from history.
        caught_up: bool,
    },
    /// Anything else, ready to be sent but for who and when.
    Control(WatchResponse),
}

/// What taking from the queue finds.
#[derive(Debug)]
pub(super) enum Taken {
    /// The oldest answer.
    Delivery(Delivery),
    /// Nothing yet.
    Nothing,
    /// Nothing, and nothing will come: the hub has closed.
    Closed,
}

/// The queue and the watchers of one stream that lag. Locked after the hub's lock, never before it.
#[derive(Debug, Default)]
pub(super) struct StreamQueue {
    state: Mutex<QueueState>,
    /// Told when something was put in, a watcher began to lag, or the hub closed.
    pub(super) wake: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: VecDeque<Delivery>,
    fresh: usize,
    fresh_bytes: usize,
    caught_up: usize,
    control: usize,
    /// Watchers that lag, in the order they get a slice of history; some may have been cancelled since.
    lagging: VecDeque<Arc<Watcher>>,
    closed: bool,
}

impl StreamQueue {
    /// Puts in fresh events, unless the queue is full.
    pub(super) fn offer(
        &self,
        watcher: &Arc<Watcher>,
        revision: i64,
        events: impl FnOnce() -> Vec<Arc<Event>>,
    ) -> bool {
        let mut state = self.state.lock();
        if state.fresh >= FRESH_LIMIT || state.fresh_bytes >= FRESH_BYTES {
            return false;
        }
        let events = events();
        state.fresh += 1;
        state.fresh_bytes += size(&events);
        state.waiting.push_back(Delivery::Events {
            watcher: Arc::clone(watcher),
            revision,
            events,
            caught_up: false,
        });
        drop(state);
        self.wake.notify_one();
        true
    }

    /// Puts in events read back; the caller has looked at [`Self::room_to_catch_up`].
    pub(super) fn push_caught_up(
        &self,
        watcher: &Arc<Watcher>,
        revision: i64,
        events: Vec<Arc<Event>>,
    ) {
        let mut state = self.state.lock();
        debug_assert!(state.caught_up < CAUGHT_UP_LIMIT, "there was room");
        state.caught_up += 1;
        state.waiting.push_back(Delivery::Events {
            watcher: Arc::clone(watcher),
            revision,
            events,
            caught_up: true,
        });
    }

    /// Puts in an answer; the caller has looked at [`Self::room_for_control`].
    pub(super) fn push_control(&self, response: WatchResponse) {
        let mut state = self.state.lock();
        state.control += 1;
        state.waiting.push_back(Delivery::Control(response));
    }

    /// There is room for an answer.
    pub(super) fn room_for_control(&self) -> bool {
        self.state.lock().control < CONTROL_LIMIT
    }

    /// How many responses of caught-up events may be put in.
    pub(super) fn room_to_catch_up(&self) -> usize {
        CAUGHT_UP_LIMIT.saturating_sub(self.state.lock().caught_up)
    }

    /// No caught-up events wait, and some watcher wants them.
    pub(super) fn hungry(&self) -> bool {
        let state = self.state.lock();
        state.caught_up == 0 && !state.lagging.is_empty()
    }

    /// A watcher lags from now on, or still.
    pub(super) fn push_lagging(&self, watcher: Arc<Watcher>) {
        self.state.lock().lagging.push_back(watcher);
        self.wake.notify_one();
    }

    /// The watcher that has waited longest for a slice of history.
    pub(super) fn pop_lagging(&self) -> Option<Arc<Watcher>> {
        self.state.lock().lagging.pop_front()
    }

    /// Takes the oldest answer.
    pub(super) fn take(&self) -> Taken {
        let mut state = self.state.lock();
        let Some(delivery) = state.waiting.pop_front() else {
            return if state.closed { Taken::Closed } else { Taken::Nothing };
        };
        match &delivery {
            Delivery::Events { caught_up: true, .. } => state.caught_up -= 1,
            Delivery::Events { caught_up: false, events, .. } => {
                state.fresh -= 1;
                state.fresh_bytes -= size(events);
            }
            Delivery::Control(_) => state.control -= 1,
        }
        Taken::Delivery(delivery)
    }

    /// Events in the queue, up to `limit` of them, whose previous key-value a watcher wants and nobody has read.
    pub(super) fn wanting_prev(&self, limit: usize) -> Vec<Arc<Event>> {
        let state = self.state.lock();
        let watched = state.waiting.iter().filter_map(|delivery| match delivery {
            Delivery::Events { watcher, events, .. } if watcher.prev_kv => Some(events),
            Delivery::Events { .. } | Delivery::Control(_) => None,
        });
        watched.flatten().filter(|event| event.wants_prev()).take(limit).map(Arc::clone).collect()
    }

    /// Nothing more will be put in.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }

    /// Empties the queue, as its stream goes, and counts the events thrown away.
    pub(super) fn clear(&self) -> usize {
        let (waiting, lagging) = {
            let mut state = self.state.lock();
            state.closed = true;
            (std::mem::take(&mut state.waiting), std::mem::take(&mut state.lagging))
        };
        drop(lagging);
        let events = waiting.iter().map(|delivery| match delivery {
            Delivery::Events { events, .. } => events.len(),
            Delivery::Control(_) => 0,
        });
        events.sum()
    }
}

fn size(events: &[Arc<Event>]) -> usize {
    events.iter().map(|event| event.size()).sum()
}
