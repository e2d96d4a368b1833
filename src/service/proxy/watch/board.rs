//! All watchers of one subject, and the feeds that serve them.
//!
//! ```text
//!   watcher ── a feed of its own, until a member has made the watch
//!          └── then: another feed that has caught up, and is not ahead of it? ── yes: joins it, and its own one ends
//!   a client that does not read ── leaves the feed it shares for one of its own
//! ```
//!
//! Each watcher keeps the place up to which it has been served, and takes from a feed only what comes behind it. So it
//! does not matter where it was served before: nothing comes twice, and nothing is missed, because it only joins feeds
//! that have not passed its place.
//!
//! **Invariant:** no watcher's place is before that of its feed.

use std::sync::Arc;

use parking_lot::Mutex;
use quorate_core::api::pb::etcdserverpb::{ResponseHeader, WatchResponse};
use quorate_core::api::pb::mvccpb::Event;
use tokio::sync::Notify;
use tonic::Status;

use super::super::figures::Figures;
use super::outbox::{NO_WATCH, Outbox, Unsent};
use super::subject::Subject;

/// The watchers of one subject.
pub(super) struct Board {
    pub(super) subject: Subject,
    state: Mutex<State>,
}

struct State {
    feeds: Vec<Feed>,
    next_id: u64,
    /// Watchers beyond the first of each feed, as they were counted last.
    shared: i64,
    figures: Figures,
}

/// The next event that is wanted: its revision, and how many events of that revision come before it. (0, 0) is not
/// known yet: from now on.
type Place = (i64, usize);

/// One watch at a member, over and over as connections break.
struct Feed {
    id: u64,
    place: Place,
    /// Where the present conversation is, for events of one revision that come in several responses.
    seen: Place,
    /// A member has made the watch, and it is being listened to: no response of it waits for a client.
    live: bool,
    /// The newest revision when the member made the watch: what is up to it is history.
    history: i64,
    header: ResponseHeader,
    watchers: Vec<Watcher>,
    nudge: Arc<Notify>,
}

/// One watch of a client.
struct Watcher {
    outbox: Arc<Outbox>,
    watch_id: i64,
    place: Place,
    /// Wants to hear of progress.
    progress: bool,
    /// Knows that it was made.
    created: bool,
}

/// What became of a response.
#[derive(Default)]
pub(super) struct Taken {
    /// Nothing: this client has no room for it, and nobody else waits.
    pub(super) full: Option<Arc<Outbox>>,
    /// The feed has ended.
    pub(super) over: bool,
    /// Feeds for clients that read too slowly, or that a compaction leaves alone.
    pub(super) split: Vec<Begun>,
}

/// A feed that is to be run.
pub(super) struct Begun {
    pub(super) id: u64,
    pub(super) nudge: Arc<Notify>,
}

impl Board {
    pub(super) fn new(subject: Subject, figures: Figures) -> Arc<Board> {
        let state = State { feeds: Vec::new(), next_id: 0, shared: 0, figures };
        Arc::new(Board { subject, state: Mutex::new(state) })
    }

    /// A new watcher, with a feed of its own.
    pub(super) fn open(
        &self,
        outbox: &Arc<Outbox>,
        watch_id: i64,
        start: i64,
        progress: bool,
    ) -> Begun {
        let outbox = Arc::clone(outbox);
        let watcher = Watcher { outbox, watch_id, place: (start, 0), progress, created: false };
        self.state.lock().begin(watcher)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().feeds.is_empty()
    }

    /// The revision from which a feed goes on; `None` if nobody wants it any more.
    pub(super) fn start(&self, id: u64) -> Option<i64> {
        let state = self.state.lock();
        state.feeds.iter().find(|feed| feed.id == id).map(|feed| feed.place.0)
    }

    /// Whether a feed must ask how far it is.
    pub(super) fn is_asked(&self, id: u64) -> bool {
        let state = self.state.lock();
        let feed = state.feeds.iter().find(|feed| feed.id == id);
        feed.is_some_and(|feed| feed.live && feed.watchers.iter().any(Watcher::is_asked))
    }

    /// A watcher has been asked how far it is: its feed hears of it.
    pub(super) fn ask(&self, outbox: &Arc<Outbox>, watch_id: i64) {
        let state = self.state.lock();
        let feed = state.feeds.iter().find(|feed| feed.position(outbox, watch_id).is_some());
        if let Some(feed) = feed {
            feed.nudge.notify_one();
        }
    }

    /// A client ends its watch: the header of its last response.
    pub(super) fn remove(&self, outbox: &Arc<Outbox>, watch_id: i64) -> Option<ResponseHeader> {
        let state = &mut *self.state.lock();
        let at = state.feeds.iter().position(|f| f.position(outbox, watch_id).is_some())?;
        let feed = &mut state.feeds[at];
        let header = feed.header;
        feed.watchers.retain(|w| !w.is(outbox, watch_id));
        state.close_if_empty(at);
        state.count();
        Some(header)
    }

    /// A feed's conversation has ended.
    pub(super) fn broken(&self, id: u64) {
        let state = &mut *self.state.lock();
        if let Some(feed) = state.feeds.iter_mut().find(|feed| feed.id == id) {
            (feed.live, feed.seen) = (false, (0, 0));
        }
    }

    /// A feed cannot go on: the streams of its watchers end.
    pub(super) fn fail(&self, id: u64, status: &Status) {
        let state = &mut *self.state.lock();
        let Some(at) = state.feeds.iter().position(|feed| feed.id == id) else { return };
        for watcher in state.feeds.swap_remove(at).watchers {
            watcher.outbox.forget(watcher.watch_id);
            watcher.outbox.end(status.clone());
        }
        state.count();
    }

    /// Hands on what a member sent to a feed.
    pub(super) fn take(&self, id: u64, response: &WatchResponse) -> Taken {
        let state = &mut *self.state.lock();
        let Some(at) = state.feeds.iter().position(|feed| feed.id == id) else {
            return Taken { over: true, ..Taken::default() };
        };
        let taken = if response.canceled {
            Taken { over: true, split: state.cancel(at, response), full: None }
        } else if response.created {
            state.created(at, response)
        } else if response.events.is_empty() {
            state.progress(at, response)
        } else {
            state.events(at, response)
        };
        state.count();
        taken
    }
}

impl State {
    fn begin(&mut self, watcher: Watcher) -> Begun {
        let (id, nudge) = (self.next_id, Arc::new(Notify::new()));
        self.next_id += 1;
        self.feeds.push(Feed {
            id,
            place: watcher.place,
            seen: (0, 0),
            live: false,
            history: 0,
            header: ResponseHeader::default(),
            watchers: vec![watcher],
            nudge: Arc::clone(&nudge),
        });
        Begun { id, nudge }
    }

    fn close_if_empty(&mut self, at: usize) {
        if self.feeds[at].watchers.is_empty() {
            self.feeds.swap_remove(at).nudge.notify_one();
        }
    }

    /// A member has made the watch, for the first time or after a break.
    fn created(&mut self, at: usize, response: &WatchResponse) -> Taken {
        let feed = &mut self.feeds[at];
        let header = response.header.unwrap_or_default();
        if feed.place == (0, 0) {
            feed.place = (header.revision + 1, 0);
        }
        let place = feed.place;
        for watcher in feed.watchers.iter_mut().filter(|watcher| !watcher.created) {
            let made = WatchResponse {
                header: Some(header),
                watch_id: watcher.watch_id,
                created: true,
                ..WatchResponse::default()
            };
            // Until it was made a watcher is alone on its feed.
            if watcher.outbox.try_send(made) == Err(Unsent::Full) {
                return Taken { full: Some(Arc::clone(&watcher.outbox)), ..Taken::default() };
            }
            watcher.created = true;
            watcher.place = watcher.place.max(place);
        }
        (feed.live, feed.history, feed.header) = (true, header.revision, header);
        self.join(at)
    }

    /// Joins a feed that has caught up and has not passed this one's place, if there is one: that which is furthest on.
    fn join(&mut self, at: usize) -> Taken {
        let place = self.feeds[at].place;
        let fits = |i: &usize| {
            let feed = &self.feeds[*i];
            *i != at && feed.live && feed.has_caught_up() && feed.place <= place
        };
        let fitting = (0..self.feeds.len()).filter(fits);
        let Some(other) = fitting.max_by_key(|i| self.feeds[*i].place) else {
            return Taken::default();
        };
        let joining = std::mem::take(&mut self.feeds[at].watchers);
        let feed = &mut self.feeds[other];
        if joining.iter().any(Watcher::is_asked) {
            feed.nudge.notify_one();
        }
        feed.watchers.extend(joining);
        self.close_if_empty(at);
        Taken { over: true, ..Taken::default() }
    }

    /// A member ends the watch, or never made it. Whom a compaction does not reach goes on with a feed of its own.
    fn cancel(&mut self, at: usize, response: &WatchResponse) -> Vec<Begun> {
        let compacted = response.compact_revision;
        let watchers = self.feeds.swap_remove(at).watchers.into_iter();
        let (go_on, end): (Vec<_>, Vec<_>) =
            watchers.partition(|watcher| 0 < compacted && compacted <= watcher.place.0);
        for watcher in end {
            let never_made = response.watch_id == NO_WATCH && !watcher.created;
            let word = WatchResponse {
                watch_id: if never_made { NO_WATCH } else { watcher.watch_id },
                created: response.created && !watcher.created,
                ..response.clone()
            };
            watcher.outbox.finish(watcher.watch_id, word);
        }
        go_on.into_iter().map(|watcher| self.begin(watcher)).collect()
    }

    /// Everything up to a revision has come.
    fn progress(&mut self, at: usize, response: &WatchResponse) -> Taken {
        let feed = &mut self.feeds[at];
        let header = response.header.unwrap_or_default();
        let reached = (header.revision + 1, 0);
        feed.place = feed.place.max(reached);
        feed.header = header;
        for watcher in &mut feed.watchers {
            // One that was served elsewhere may know more already.
            let is_news = watcher.place <= reached;
            watcher.place = watcher.place.max(reached);
            if !is_news {
                continue;
            }
            if watcher.is_asked() {
                watcher.outbox.reached(watcher.watch_id, header);
            }
            if watcher.progress && response.watch_id != NO_WATCH {
                let told = WatchResponse { watch_id: watcher.watch_id, ..response.clone() };
                // Who has no room hears of it with the events that wait.
                let _ = watcher.outbox.try_send(told);
            }
        }
        self.join(at)
    }

    fn events(&mut self, at: usize, response: &WatchResponse) -> Taken {
        let feed = &mut self.feeds[at];
        let (places, end) = places(feed.seen, response);
        let alone = feed.watchers.len() == 1;
        let (mut slow, mut kept) = (Vec::new(), Vec::new());
        for mut watcher in std::mem::take(&mut feed.watchers) {
            let told = watcher.cut(response, &places).map(|told| watcher.outbox.try_send(told));
            match told {
                None | Some(Ok(())) => {
                    watcher.place = watcher.place.max(end);
                    kept.push(watcher);
                }
                Some(Err(Unsent::Full)) if alone => {
                    let full = Some(Arc::clone(&watcher.outbox));
                    feed.watchers.push(watcher);
                    // Who joined now would wait with it.
                    feed.live = false;
                    return Taken { full, ..Taken::default() };
                }
                Some(Err(Unsent::Full)) => slow.push(watcher),
                // Its session takes it off the stream's books.
                Some(Err(Unsent::Gone)) => {}
            }
        }
        feed.live = true;
        feed.watchers = kept;
        feed.seen = places.last().map_or(feed.seen, |last| (last.0, last.1 + 1));
        feed.place = feed.place.max(end);
        feed.header = response.header.unwrap_or(feed.header);
        let others = feed.watchers.len().saturating_sub(1);
        self.figures.events_shared.inc_by(others as u64);
        let split = slow.into_iter().map(|watcher| self.begin(watcher)).collect();
        if self.feeds[at].watchers.is_empty() {
            self.close_if_empty(at);
            return Taken { over: true, split, full: None };
        }
        Taken { split, ..self.join(at) }
    }

    /// Keeps the figure of shared watchers.
    fn count(&mut self) {
        let beyond =
            |feed: &Feed| i64::try_from(feed.watchers.len()).unwrap_or(i64::MAX).max(1) - 1;
        let shared = self.feeds.iter().map(beyond).sum();
        let before = std::mem::replace(&mut self.shared, shared);
        self.figures.watchers_shared.add(shared - before);
    }
}

/// Where each event of a response stands, and the place behind the response. Only the last of several fragments is known
/// to end its revision.
fn places(mut seen: Place, response: &WatchResponse) -> (Vec<Place>, Place) {
    let mut places = Vec::with_capacity(response.events.len());
    for event in &response.events {
        let revision = revision(event);
        seen = if seen.0 == revision { seen } else { (revision, 0) };
        places.push(seen);
        seen.1 += 1;
    }
    let end = if response.fragment { seen } else { (seen.0 + 1, 0) };
    (places, end)
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |pair| pair.mod_revision)
}

impl Feed {
    fn has_caught_up(&self) -> bool {
        self.place.0 > self.history
    }

    fn position(&self, outbox: &Arc<Outbox>, watch_id: i64) -> Option<usize> {
        self.watchers.iter().position(|watcher| watcher.is(outbox, watch_id))
    }
}

impl Watcher {
    fn is(&self, outbox: &Arc<Outbox>, watch_id: i64) -> bool {
        self.watch_id == watch_id && Arc::ptr_eq(&self.outbox, outbox)
    }

    fn is_asked(&self) -> bool {
        self.outbox.is_asked(self.watch_id)
    }

    /// What of a response is news to this watcher.
    fn cut(&self, response: &WatchResponse, places: &[Place]) -> Option<WatchResponse> {
        let known = places.iter().take_while(|place| **place < self.place).count();
        if known == places.len() {
            return None;
        }
        Some(WatchResponse {
            header: response.header,
            watch_id: self.watch_id,
            fragment: response.fragment,
            events: response.events[known..].to_vec(),
            ..WatchResponse::default()
        })
    }
}

#[cfg(test)]
#[path = "board_test.rs"]
mod tests;
