//! What is on its way to the client of one stream.
//!
//! ```text
//!   feeds ── queue, bounded: events ────────────────────────────────────────┐
//!        └── words: last answers of watches, progress ── each in its place ─┴──> session ──> client
//! ```
//!
//! **Invariant:** a word is said after everything that was put into the queue before it, and before everything that was
//! put there later.
//! **Invariant:** a board's lock may be held when this one's is taken, never the other way round.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_core::api::pb::etcdserverpb::{ResponseHeader, WatchResponse};
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, error::TrySendError};
use tonic::Status;

use super::board::Board;

/// The id of no watch (etcd's `InvalidWatchID`).
pub(super) const NO_WATCH: i64 = -1;

/// Responses that wait for a client.
const QUEUE_MAX: usize = 64;

/// The sending side of a stream. Feeds share it.
pub(super) struct Outbox {
    queue: mpsc::Sender<WatchResponse>,
    state: Mutex<State>,
    /// There are words, or the end.
    pub(super) spoken: Notify,
}

#[derive(Default)]
struct State {
    watches: HashMap<i64, Arc<Board>>,
    next_id: i64,
    asked: Option<Asked>,
    /// How many responses the queue has been given.
    queued: u64,
    words: VecDeque<Placed<WatchResponse>>,
    ended: Option<Placed<Status>>,
}

/// What has its place behind so many responses of the queue.
struct Placed<T>(u64, T);

/// What a client is to hear next, before the next response of the queue.
#[derive(Debug)]
pub(super) enum Due {
    Word(WatchResponse),
    /// The stream's end.
    End(Status),
}

/// The client wants to hear how far all of its watches are.
struct Asked {
    waiting: HashSet<i64>,
    least: Option<ResponseHeader>,
}

/// A response was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    Full,
    /// The client is gone.
    Gone,
}

impl Outbox {
    pub(super) fn new() -> (Arc<Outbox>, mpsc::Receiver<WatchResponse>) {
        Outbox::with_room(QUEUE_MAX)
    }

    /// One in which so many responses may wait.
    pub(super) fn with_room(room: usize) -> (Arc<Outbox>, mpsc::Receiver<WatchResponse>) {
        let (queue, queued) = mpsc::channel(room);
        let spoken = Notify::new();
        (Arc::new(Outbox { queue, state: Mutex::default(), spoken }), queued)
    }

    /// Gives a new watch its id: the one that is wanted, or for 0 the next free one. `None` if it is taken.
    pub(super) fn claim(&self, wanted: i64, board: &Arc<Board>) -> Option<i64> {
        let state = &mut *self.state.lock();
        let id = if wanted != 0 {
            wanted
        } else {
            while state.watches.contains_key(&state.next_id) {
                state.next_id += 1;
            }
            state.next_id += 1;
            state.next_id - 1
        };
        if state.watches.contains_key(&id) {
            return None;
        }
        state.watches.insert(id, Arc::clone(board));
        if let Some(asked) = &mut state.asked {
            asked.waiting.insert(id);
        }
        Some(id)
    }

    /// Whether a watch must tell how far it is.
    pub(super) fn is_asked(&self, id: i64) -> bool {
        self.state.lock().asked.as_ref().is_some_and(|asked| asked.waiting.contains(&id))
    }

    /// A watch has ended; where it was.
    pub(super) fn forget(&self, id: i64) -> Option<Arc<Board>> {
        let state = &mut *self.state.lock();
        let board = state.watches.remove(&id);
        if state.settle(id, None) {
            self.spoken.notify_one();
        }
        board
    }

    /// A watch has ended, and this is its last word.
    pub(super) fn finish(&self, id: i64, word: WatchResponse) {
        let state = &mut *self.state.lock();
        state.watches.remove(&id);
        state.settle(id, None);
        state.say(word);
        self.spoken.notify_one();
    }

    /// Every watch that has not ended.
    pub(super) fn watches(&self) -> Vec<(i64, Arc<Board>)> {
        self.state.lock().watches.iter().map(|(id, board)| (*id, Arc::clone(board))).collect()
    }

    /// The client asks how far its watches are: those that must tell. None, as with etcd, if there are none.
    pub(super) fn ask(&self) -> Vec<(i64, Arc<Board>)> {
        let watches = self.watches();
        let waiting: HashSet<i64> = watches.iter().map(|(id, _)| *id).collect();
        let least = None;
        self.state.lock().asked = (!waiting.is_empty()).then_some(Asked { waiting, least });
        watches
    }

    /// A watch has brought everything up to the revision in this header.
    pub(super) fn reached(&self, id: i64, header: ResponseHeader) {
        if self.state.lock().settle(id, Some(header)) {
            self.spoken.notify_one();
        }
    }

    pub(super) fn try_send(&self, response: WatchResponse) -> Result<(), Unsent> {
        let mut state = self.state.lock();
        self.queue.try_send(response).map_err(|why| match why {
            TrySendError::Full(_) => Unsent::Full,
            TrySendError::Closed(_) => Unsent::Gone,
        })?;
        state.queued += 1;
        Ok(())
    }

    /// Returns once there is room for a response, or nobody to read it.
    pub(super) async fn room(&self) {
        // Whether there is one or the other, the next attempt tells.
        let _ = self.queue.reserve().await;
    }

    /// Something to be said once all that is queued has been.
    pub(super) fn say(&self, word: WatchResponse) {
        self.state.lock().say(word);
        self.spoken.notify_one();
    }

    /// Ends the stream, behind all that is queued.
    pub(super) fn end(&self, status: Status) {
        let state = &mut *self.state.lock();
        state.ended.get_or_insert(Placed(state.queued, status));
        self.spoken.notify_one();
    }

    /// What has its place here, when so many responses of the queue have been handed out.
    pub(super) fn due(&self, handed_out: u64) -> Option<Due> {
        let state = &mut *self.state.lock();
        if state.words.front().is_some_and(|word| word.0 <= handed_out) {
            return state.words.pop_front().map(|Placed(_, word)| Due::Word(word));
        }
        let ended = state.ended.take_if(|ended| ended.0 <= handed_out);
        ended.map(|Placed(_, status)| Due::End(status))
    }
}

impl State {
    fn say(&mut self, word: WatchResponse) {
        self.words.push_back(Placed(self.queued, word));
    }

    /// One watch less to wait for. True if that was the last, and what all have reached is to be told.
    fn settle(&mut self, id: i64, reached: Option<ResponseHeader>) -> bool {
        let Some(asked) = &mut self.asked else { return false };
        if !asked.waiting.remove(&id) {
            return false;
        }
        if let Some(header) = reached
            && asked.least.is_none_or(|least| header.revision < least.revision)
        {
            asked.least = Some(header);
        }
        if !asked.waiting.is_empty() {
            return false;
        }
        let told = self.asked.take().and_then(|asked| asked.least);
        let word = told.map(|header| WatchResponse {
            header: Some(header),
            watch_id: NO_WATCH,
            ..WatchResponse::default()
        });
        let says = word.is_some();
        word.into_iter().for_each(|word| self.say(word));
        says
    }
}
