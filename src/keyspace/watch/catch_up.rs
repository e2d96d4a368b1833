//! How a stream brings its lagging watchers forward: a group of them at a time, over one slice of history.
//!
//! ```text
//!   pick a group   (lock)     the watchers that waited longest, as many as there is room for answers
//!   get a slice    (no lock)  from the tail or the cache at once, else from the store on a blocking thread
//!   match          (no lock)  each watcher's events of the slice
//!   serve          (lock)     queue them, add what was published meanwhile from the tail, move the cursor;
//!                             a cursor beyond the newest revision makes the watcher synced
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use quorate_core::api::refusal::Corrupt;

use super::event::Event;
use super::hub::{Hub, HubState};
use super::queue::StreamQueue;
use super::slice::Slice;
use super::watcher::{Phase, Watcher};

/// How many events published meanwhile are matched under the lock, per group.
const LAST_STEP: usize = 256;

/// Watchers that are being served, and where their slice has to begin.
pub(super) struct Group {
    watchers: Vec<Arc<Watcher>>,
    from: i64,
    upto: i64,
}

/// A slice on its way from the store.
pub(super) type Loading = Pin<Box<dyn Future<Output = Result<Arc<Slice>, Corrupt>> + Send>>;

impl Hub {
    /// The lagging watchers of a stream whose turn it is. Those that compaction overtook are cancelled on the way.
    pub(super) fn pick(&self, queue: &StreamQueue) -> Option<Group> {
        self.locked(|state| {
            let room = queue.room_to_catch_up();
            let compacted = self.compact_revision();
            let mut watchers = Vec::new();
            while watchers.len() < room
                && let Some(watcher) = queue.pop_lagging()
            {
                match watcher.phase() {
                    Phase::Lagging => {}
                    Phase::Synced | Phase::Compacted | Phase::Cancelled => continue,
                }
                if watcher.cursor() >= compacted {
                    watchers.push(watcher);
                } else if queue.room_for_control() {
                    state.overtaken(&watcher, compacted, &self.counters);
                } else {
                    queue.push_lagging(watcher);
                    break;
                }
            }
            let from = watchers.iter().map(|watcher| watcher.cursor()).min()?;
            let upto = state.current;
            Some(Group { watchers, from, upto })
        })
    }

    /// A slice for the group that needs no reading.
    pub(super) fn slice_at_hand(&self, group: &Group) -> Option<Arc<Slice>> {
        if let Some(slice) = self.slices.lock().find(group.from) {
            return Some(slice);
        }
        let (events, to) = self.locked(|state| {
            let events: Vec<_> = state.tail.from(group.from)?.map(Arc::clone).collect();
            Some((events, state.current))
        })?;
        let slice = Arc::new(Slice::of(group.from, to, events));
        self.slices.lock().keep(Arc::clone(&slice));
        Some(slice)
    }

    /// Reads the slice for the group.
    pub(super) fn load(self: &Arc<Self>, group: &Group) -> Loading {
        let hub = Arc::clone(self);
        let (from, upto) = (group.from, group.upto);
        Box::pin(async move {
            let (history, bytes) = (Arc::clone(&hub.history), hub.options.slice_bytes);
            let read = move || Slice::read(&*history, from, upto, bytes);
            let slice = Arc::new(hub.blocking.run(read).await?);
            hub.slices.lock().keep(Arc::clone(&slice));
            Ok(slice)
        })
    }

    /// Queues the group's events of the slice and moves its cursors.
    pub(super) fn serve(&self, queue: &StreamQueue, group: Group, slice: &Slice) {
        // Only its own stream moves a lagging watcher, so its cursor stands still here.
        let share = |watcher: Arc<Watcher>| {
            let within = slice.from <= watcher.cursor() && watcher.cursor() <= slice.to;
            let events = within.then(|| slice.matching(&watcher.range, watcher.cursor()));
            (watcher, events)
        };
        let shares: Vec<_> = group.watchers.into_iter().map(share).collect();
        self.locked(|state| {
            for (watcher, events) in shares {
                if watcher.phase() != Phase::Lagging {
                    continue;
                }
                let compacted = self.compact_revision();
                match events {
                    Some(events) if watcher.cursor() >= compacted => {
                        self.advance(state, &watcher, events, slice.to + 1);
                    }
                    // Its turn comes again: with another slice, or to be cancelled.
                    Some(_) | None => queue.push_lagging(watcher),
                }
            }
        });
    }

    fn advance(
        &self,
        state: &HubState,
        watcher: &Arc<Watcher>,
        mut events: Vec<Arc<Event>>,
        mut next: i64,
    ) {
        if let Some(rest) = state.tail.from(next)
            && rest.len() <= LAST_STEP
        {
            let matching = rest.filter(|event| watcher.range.contains(event.key()));
            events.extend(matching.map(Arc::clone));
            next = state.current + 1;
        }
        events.retain(|event| watcher.lets_through(event));
        if let Some((kept, left_out)) = cut(&events, self.options.batch_revisions) {
            events.truncate(kept);
            next = left_out;
        }
        if !events.is_empty() {
            self.counters.queued(events.len());
            watcher.queue.push_caught_up(watcher, state.current, events);
        }
        watcher.set_cursor(next);
        if next > state.current {
            state.synced(watcher, &self.counters);
        } else {
            watcher.queue.push_lagging(Arc::clone(watcher));
        }
    }
}

/// Where to cut so that at most `revisions` main revisions stay: how many events, and the first revision left out.
fn cut(events: &[Arc<Event>], revisions: usize) -> Option<(usize, i64)> {
    let mut seen = 0;
    let mut last = None;
    for (at, event) in events.iter().enumerate() {
        if last != Some(event.revision()) {
            last = Some(event.revision());
            seen += 1;
            if seen > revisions {
                return Some((at, event.revision()));
            }
        }
    }
    None
}
