//! One client's stream of watchers: requests go in, responses come out, in one order.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::OptionFuture;
use quorate_core::api::ids::WatchId;
use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use quorate_core::api::pb::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use quorate_core::api::refusal::Corrupt;

use super::catch_up::{Group, Loading};
use super::hub::Hub;
use super::progress::ProgressClock;
use super::queue::{Delivery, StreamQueue, Taken};
use super::range::KeyRange;
use super::response::{self, Refused};
use super::watcher::{Phase, Watcher};

/// Why a stream ends otherwise than by its client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// History cannot be read. The member is about to stop, or should.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The hub was closed: the member shuts down.
    #[error("the keyspace is closing")]
    Closed,
}

/// Previous key-values read in one hop to a blocking thread.
const PREV_BATCH: usize = 512;

/// Groups served without a pause; then other tasks have a turn.
const GROUPS_IN_A_ROW: usize = 16;

/// A client's stream. One task owns it: it feeds requests by [`Self::request`] while [`Self::ready_for_requests`],
/// and takes responses by [`Self::next`]. When nobody calls `next`, nothing is read for its slow watchers and at most
/// a bounded number of responses waits; dropping it ends its watchers.
pub struct WatchStream {
    hub: Arc<Hub>,
    queue: Arc<StreamQueue>,
    number: u64,
    watchers: BTreeMap<i64, Arc<Watcher>>,
    next_id: i64,
    clock: ProgressClock,
    fragments: VecDeque<WatchResponse>,
    loading: Option<(Group, Loading)>,
    reading_prev: Option<(Delivery, ReadingPrev)>,
}

type ReadingPrev = Pin<Box<dyn Future<Output = Result<(), Corrupt>> + Send>>;

impl std::fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchStream")
            .field("number", &self.number)
            .field("watchers", &self.watchers.len())
            .finish_non_exhaustive()
    }
}

impl WatchStream {
    pub(super) fn new(hub: Arc<Hub>, queue: Arc<StreamQueue>, number: u64) -> WatchStream {
        let clock = ProgressClock::start(hub.options.progress_interval, number);
        WatchStream {
            hub,
            queue,
            number,
            watchers: BTreeMap::new(),
            next_id: 0,
            clock,
            fragments: VecDeque::new(),
            loading: None,
            reading_prev: None,
        }
    }

    /// There is room for the answer to another request. While there is none, the client's requests stay unread.
    pub fn ready_for_requests(&self) -> bool {
        self.queue.room_for_control()
    }

    /// Takes one request, of any kind; an empty one is ignored, as in etcd.
    pub fn request(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(&create),
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(WatchId(cancel.watch_id)),
            Some(RequestUnion::ProgressRequest(_)) => self.request_progress(),
            None => {}
        }
    }

    /// Makes a watcher; the answer, created or refused, is queued ahead of its events.
    pub fn create(&mut self, request: &WatchCreateRequest) {
        match self.admit(request) {
            Ok((id, range)) => {
                let watcher = self.hub.create(&self.queue, id, range, request);
                self.watchers.insert(id.0, watcher);
                if request.progress_notify {
                    self.clock.add(id.0);
                }
            }
            Err(refused) => self.refuse(refused.to_string()),
        }
    }

    /// Answers a create request that somebody else refused, for `reason` (a missing permission).
    pub fn refuse(&mut self, reason: String) {
        let queue = &self.queue;
        self.hub.locked(|state| {
            queue.push_control(response::refused(reason, state.current));
        });
    }

    fn admit(&mut self, request: &WatchCreateRequest) -> Result<(WatchId, KeyRange), Refused> {
        if request.start_revision < 0 {
            return Err(Refused::NegativeStart);
        }
        let range = KeyRange::of(&request.key, &request.range_end).ok_or(Refused::EmptyRange)?;
        if request.watch_id != 0 {
            if self.watchers.contains_key(&request.watch_id) {
                return Err(Refused::DuplicateId);
            }
            return Ok((WatchId(request.watch_id), range));
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        Ok((WatchId(id), range))
    }

    /// Ends a watcher; an unknown id is not answered.
    pub fn cancel(&mut self, id: WatchId) {
        if let Some(watcher) = self.watchers.remove(&id.0) {
            self.hub.cancel(&watcher);
            self.clock.remove(id.0);
        }
    }

    /// Queues one progress response for the whole stream, if every watcher on it is up to date and none waits for a
    /// future revision; else the request is dropped.
    pub fn request_progress(&mut self) {
        if self.watchers.is_empty() || !self.queue.room_for_control() {
            return;
        }
        let (queue, watchers) = (&self.queue, &self.watchers);
        self.hub.locked(|state| {
            if watchers.values().all(|watcher| up_to_date(watcher, state.current)) {
                queue.push_control(response::progress(None, state.current));
            }
        });
    }

    /// The next response, in order; only the header's revision is filled. `None` is never answered: a stream without
    /// watchers waits. May be dropped and called again; nothing is lost.
    pub async fn next(&mut self) -> Result<WatchResponse, WatchError> {
        let mut in_a_row = 0;
        loop {
            if let Some(response) = self.fragments.pop_front() {
                return Ok(response);
            }
            if let Some((_, reading)) = &mut self.reading_prev {
                let read = reading.await;
                let delivery = self.reading_prev.take().map(|(delivery, _)| delivery);
                read?;
                self.fragments = delivery.map(|it| self.respond(it)).unwrap_or_default();
                continue;
            }
            self.tick();
            let served = self.catch_up()?;
            match self.queue.take() {
                Taken::Delivery(delivery) => self.deliver(delivery),
                Taken::Closed => return Err(WatchError::Closed),
                Taken::Nothing if served => {
                    in_a_row += 1;
                    if in_a_row % GROUPS_IN_A_ROW == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                Taken::Nothing => self.wait().await?,
            }
        }
    }

    /// Waits until there may be something to do.
    async fn wait(&mut self) -> Result<(), WatchError> {
        let tick = self.clock.next_tick().map(tokio::time::sleep_until);
        let loading = self.loading.as_mut().map(|(_, loading)| loading);
        let loaded = tokio::select! {
            () = self.queue.wake.notified() => return Ok(()),
            Some(()) = OptionFuture::from(tick) => return Ok(()),
            Some(loaded) = OptionFuture::from(loading) => loaded,
        };
        self.serve(loaded)
    }

    fn serve(
        &mut self,
        loaded: Result<Arc<super::slice::Slice>, Corrupt>,
    ) -> Result<(), WatchError> {
        let group = self.loading.take().map(|(group, _)| group);
        let slice = loaded?;
        if let Some(group) = group {
            self.hub.serve(&self.queue, group, &slice);
        }
        Ok(())
    }

    /// Brings lagging watchers one slice forward, or sees to it that the slice is read. Says whether it did.
    fn catch_up(&mut self) -> Result<bool, WatchError> {
        if let Some((_, loading)) = &mut self.loading {
            return match loading.now_or_never() {
                Some(loaded) => self.serve(loaded).map(|()| true),
                None => Ok(false),
            };
        }
        if !self.queue.hungry() {
            return Ok(false);
        }
        let Some(group) = self.hub.pick(&self.queue) else {
            return Ok(false);
        };
        match self.hub.slice_at_hand(&group) {
            Some(slice) => {
                self.hub.serve(&self.queue, group, &slice);
                Ok(true)
            }
            None => {
                let loading = self.hub.load(&group);
                self.loading = Some((group, loading));
                Ok(true)
            }
        }
    }

    /// Lets the clock tick, and queues progress for watchers that are due while there is room.
    fn tick(&mut self) {
        let watchers = &self.watchers;
        self.clock.tick(|id| watchers.get(&id).is_some_and(|watcher| watcher.tick()));
        if !self.clock.has_due() {
            return;
        }
        let (clock, queue) = (&mut self.clock, &self.queue);
        self.hub.locked(|state| {
            while queue.room_for_control()
                && let Some(id) = clock.pop_due()
            {
                if let Some(watcher) = watchers.get(&id)
                    && up_to_date(watcher, state.current)
                {
                    queue.push_control(response::progress(Some(watcher.id), state.current));
                }
            }
        });
    }

    fn deliver(&mut self, delivery: Delivery) {
        let wanting = match &delivery {
            Delivery::Events { watcher, events, .. } if watcher.prev_kv => {
                events.iter().any(|event| event.wants_prev())
            }
            Delivery::Events { .. } | Delivery::Control(_) => false,
        };
        if wanting {
            let reading = self.read_prev(&delivery);
            self.reading_prev = Some((delivery, reading));
        } else {
            self.fragments = self.respond(delivery);
        }
    }

    /// Reads the previous key-values that this delivery and those behind it want.
    fn read_prev(&self, delivery: &Delivery) -> ReadingPrev {
        let mut events = match delivery {
            Delivery::Events { events, .. } => events.clone(),
            Delivery::Control(_) => Vec::new(),
        };
        events.extend(self.queue.wanting_prev(PREV_BATCH));
        let hub = Arc::clone(&self.hub);
        Box::pin(async move {
            let reader = Arc::clone(&hub);
            let read = move || {
                let compacted = || reader.compact_revision();
                let mut each = events.iter();
                each.try_for_each(|event| event.read_prev(&*reader.history, compacted))
            };
            hub.blocking.run(read).await
        })
    }

    fn respond(&self, delivery: Delivery) -> VecDeque<WatchResponse> {
        match delivery {
            Delivery::Control(response) => VecDeque::from([response]),
            Delivery::Events { watcher, revision, events, caught_up: _ } => {
                self.hub.counters.taken(events.len());
                watcher.heard();
                let limit = self.hub.options.fragment_bytes;
                let compacted = self.hub.compact_revision();
                response::events(&watcher, revision, &events, compacted, limit)
            }
        }
    }
}

/// The watcher has been given everything up to `current`, and has begun.
fn up_to_date(watcher: &Watcher, current: i64) -> bool {
    watcher.phase() == Phase::Synced && watcher.start <= current
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        let watchers = std::mem::take(&mut self.watchers).into_values();
        self.hub.close_stream(self.number, &self.queue, watchers);
    }
}
