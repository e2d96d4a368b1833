//! One watch stream of one server, and what was heard on it.
//!
//! Heard is compared per watcher: the order of responses of *different* watchers, and how catch-up events are cut into
//! responses, etcd leaves to timing (a watcher is caught up every 100 ms, in whatever batch that finds). What must hold of
//! every single response is checked as it comes, see `Heard::hear`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::client::Client;
use crate::pb::etcdserverpb::watch_request::RequestUnion;
use crate::pb::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use crate::pb::mvccpb::Event;

/// Watched by every stream: an event here says that every synced watcher has been told of everything before.
pub(super) const SENTINEL_KEY: &[u8] = b"z";
const SENTINEL_ID: i64 = 1_000_000;
/// A watcher with a past: etcd catches up with all such watchers at once, so what it has heard they have been sent.
const CATCH_UP_ID: i64 = SENTINEL_ID + 1;
/// A watcher that is made and canceled behind a request that may have no answer.
const FENCE_ID: i64 = SENTINEL_ID + 2;

/// One thing a watcher was told.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    Event(Event),
    Canceled { compact_revision: i64, reason: String, revision: Option<i64> },
    Progress(i64),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Created {
    watch_id: i64,
    canceled: bool,
    compact_revision: i64,
    reason: String,
    revision: Option<i64>,
}

/// Everything that is compared of a stream.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Heard {
    pub(super) created: Vec<Created>,
    pub(super) watchers: BTreeMap<i64, Vec<Told>>,
    /// Revisions of the answers to manual progress requests.
    pub(super) progress: Vec<i64>,
    pub(super) ended: Option<String>,
    /// What no server may do; empty on both sides or a finding.
    pub(super) violations: Vec<String>,
}

/// One response with events.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cut {
    pub(super) events: usize,
    /// More of the same follows.
    pub(super) fragment: bool,
    pub(super) bytes: usize,
}

impl Heard {
    /// The same with progress that was told several times in a row told once: how often is a matter of time.
    pub(super) fn with_progress_once(mut self) -> Self {
        for told in self.watchers.values_mut() {
            told.dedup_by(|a, b| matches!(a, Told::Progress(_)) && a == b);
        }
        self.progress.dedup();
        self
    }
}

#[derive(Debug, Default)]
struct State {
    heard: Heard,
    sentinel: i64,
    sentinel_created: bool,
    caught_up: i64,
    fences: usize,
    /// How often the client canceled a watcher of an id.
    ended_by_client: BTreeMap<i64, usize>,
    /// How often a watcher of an id was canceled, by whomever.
    canceled: BTreeMap<i64, usize>,
    last_revision: BTreeMap<i64, i64>,
    in_fragment: BTreeMap<i64, bool>,
    cuts: BTreeMap<i64, Vec<Cut>>,
}

impl State {
    fn hear(&mut self, response: WatchResponse) {
        let id = response.watch_id;
        let revision = response.header.map(|h| h.revision);
        if id == SENTINEL_ID {
            self.sentinel_created |= response.created;
            self.sentinel = self.sentinel.max(revision.unwrap_or_default());
            return;
        }
        if id == FENCE_ID {
            self.fences += usize::from(response.canceled);
            return;
        }
        if id == CATCH_UP_ID {
            if !response.events.is_empty() {
                self.caught_up = self.caught_up.max(revision.unwrap_or_default());
            }
            return;
        }
        if response.created {
            self.heard.created.push(Created {
                watch_id: id,
                canceled: response.canceled,
                compact_revision: response.compact_revision,
                reason: response.cancel_reason,
                revision,
            });
            self.last_revision.remove(&id);
            return;
        }
        if response.canceled {
            *self.canceled.entry(id).or_default() += 1;
            if response.compact_revision == 0 {
                *self.ended_by_client.entry(id).or_default() += 1;
            }
            self.told(
                id,
                Told::Canceled {
                    compact_revision: response.compact_revision,
                    reason: response.cancel_reason,
                    revision,
                },
            );
            return;
        }
        if response.events.is_empty() && !response.fragment {
            let revision = revision.unwrap_or_default();
            if id == -1 {
                self.heard.progress.push(revision);
            } else {
                self.told(id, Told::Progress(revision));
            }
            return;
        }
        self.events(id, response);
    }

    fn events(&mut self, id: i64, response: WatchResponse) {
        self.cuts.entry(id).or_default().push(Cut {
            events: response.events.len(),
            fragment: response.fragment,
            bytes: response.encoded_len(),
        });
        let continues = self.in_fragment.insert(id, response.fragment).unwrap_or(false);
        let header = response.header.map_or(0, |h| h.revision);
        let mut last = self.last_revision.get(&id).copied().unwrap_or(0);
        for (nth, event) in response.events.iter().enumerate() {
            let at = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            if at < last {
                self.violation(format!("watcher {id}: revision {at} after {last}"));
            }
            if nth == 0 && at == last && !continues {
                self.violation(format!("watcher {id}: revision {at} split over two responses"));
            }
            if at > header {
                self.violation(format!("watcher {id}: event at {at} under header {header}"));
            }
            last = at;
        }
        self.last_revision.insert(id, last);
        for event in response.events {
            self.told(id, Told::Event(event));
        }
    }

    fn told(&mut self, id: i64, told: Told) {
        self.heard.watchers.entry(id).or_default().push(told);
    }

    fn violation(&mut self, what: String) {
        self.heard.violations.push(what);
    }
}

/// An open stream; dropping it cancels the stream.
#[derive(Debug)]
pub(super) struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    reader: JoinHandle<()>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Stream {
    pub(super) async fn open(client: &Client) -> Result<Self> {
        let (requests, outgoing) = mpsc::channel(64);
        let sentinel = WatchCreateRequest {
            key: Bytes::from_static(SENTINEL_KEY),
            watch_id: SENTINEL_ID,
            ..WatchCreateRequest::default()
        };
        requests.send(request(RequestUnion::CreateRequest(sentinel))).await?;
        let mut client = client.watch.clone();
        let mut incoming =
            timeout(Duration::from_secs(10), client.watch(ReceiverStream::new(outgoing)))
                .await??
                .into_inner();
        let state = Arc::new(Mutex::new(State::default()));
        let changed = Arc::new(Notify::new());
        let (heard, heard_changed) = (Arc::clone(&state), Arc::clone(&changed));
        let reader = tokio::spawn(async move {
            loop {
                match incoming.message().await {
                    Ok(Some(response)) => heard.lock().hear(response),
                    Ok(None) => {
                        heard.lock().heard.ended = Some("without a status".into());
                        break;
                    }
                    Err(status) => {
                        let text = format!("{:?}: {}", status.code(), status.message());
                        heard.lock().heard.ended = Some(text);
                        break;
                    }
                }
                heard_changed.notify_waiters();
            }
            heard_changed.notify_waiters();
        });
        let stream = Self { requests, state, changed, reader };
        stream.until("the sentinel is watched", |s| s.sentinel_created).await?;
        Ok(stream)
    }

    async fn until(&self, what: &str, holds: impl Fn(&State) -> bool) -> Result<()> {
        let waited = timeout(Duration::from_secs(10), async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                {
                    let state = self.state.lock();
                    if holds(&state) || state.heard.ended.is_some() {
                        return;
                    }
                }
                changed.await;
            }
        })
        .await;
        if waited.is_err() {
            bail!("watch stream: not within 10 s: {what}");
        }
        Ok(())
    }

    pub(super) fn heard(&self) -> Heard {
        self.state.lock().heard.clone()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.state.lock().heard.violations.clone()
    }

    /// How the events of a watcher came.
    pub(super) fn cuts(&self, id: i64) -> Vec<Cut> {
        self.state.lock().cuts.get(&id).cloned().unwrap_or_default()
    }

    /// Whether both have heard the same since they last agreed; if so, what watchers were told is forgotten.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.state.lock(), other.state.lock());
        if ours.heard != theirs.heard {
            return false;
        }
        ours.heard.watchers.clear();
        theirs.heard.watchers.clear();
        true
    }

    /// Sends a create request and waits for its one answer.
    pub(super) async fn create(&self, create: WatchCreateRequest) -> Result<()> {
        let before = self.state.lock().heard.created.len();
        self.send(RequestUnion::CreateRequest(create)).await?;
        self.until("an answer to a create request", |s| s.heard.created.len() > before).await
    }

    /// The ids that a cancel request would be answered for.
    fn is_open(&self, id: i64) -> bool {
        let state = self.state.lock();
        let created = state.heard.created.iter();
        let created = created.filter(|c| c.watch_id == id && !c.canceled).count();
        let ended_by_client = state.ended_by_client.get(&id).copied().unwrap_or(0);
        created > ended_by_client
    }

    /// Sends a cancel request and waits for its answer, if `id` is one that gets an answer.
    pub(super) async fn cancel(&self, id: i64) -> Result<()> {
        let open = self.is_open(id);
        let canceled = |s: &State| s.canceled.get(&id).copied().unwrap_or(0);
        let before = canceled(&self.state.lock());
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: id })).await?;
        if !open {
            return Ok(());
        }
        self.until("an answer to a cancel request", |s| canceled(s) > before).await
    }

    /// Asks for progress, and returns when requests behind it have been answered: requests are taken in order.
    pub(super) async fn ask_progress(&self) -> Result<()> {
        let before = self.state.lock().fences;
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await?;
        let create = WatchCreateRequest {
            key: Bytes::from_static(SENTINEL_KEY),
            watch_id: FENCE_ID,
            ..WatchCreateRequest::default()
        };
        self.send(RequestUnion::CreateRequest(create)).await?;
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: FENCE_ID })).await?;
        self.until("an answer behind a progress request", |s| s.fences > before).await
    }

    pub(super) async fn ask_nothing(&self) -> Result<()> {
        if self.state.lock().heard.ended.is_some() {
            return Ok(());
        }
        Ok(self.requests.send(WatchRequest { request_union: None }).await?)
    }

    /// Ends the requests; what is watched goes on.
    pub(super) fn half_close(&mut self) {
        let (closed, _) = mpsc::channel(1);
        self.requests = closed;
    }

    /// Drops the last answer to a progress request.
    pub(super) fn forget_progress(&self) {
        self.state.lock().heard.progress.pop();
    }

    pub(super) fn progress_count(&self) -> usize {
        self.state.lock().heard.progress.len()
    }

    /// Waits until the event of the sentinel key at `revision` has come.
    pub(super) async fn reached(&self, revision: i64) -> Result<()> {
        self.until("the sentinel's event", |s| s.sentinel >= revision).await
    }

    /// Waits until watchers with a past have been sent it; `revision` is the last one of the sentinel key.
    pub(super) async fn catch_up(&self, revision: i64) -> Result<()> {
        let create = WatchCreateRequest {
            key: Bytes::from_static(SENTINEL_KEY),
            watch_id: CATCH_UP_ID,
            start_revision: revision,
            ..WatchCreateRequest::default()
        };
        self.send(RequestUnion::CreateRequest(create)).await?;
        self.until("events of the past", |s| s.caught_up >= revision).await?;
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: CATCH_UP_ID })).await
    }

    async fn send(&self, union: RequestUnion) -> Result<()> {
        if self.state.lock().heard.ended.is_some() {
            return Ok(());
        }
        Ok(self.requests.send(request(union)).await?)
    }
}

fn request(union: RequestUnion) -> WatchRequest {
    WatchRequest { request_union: Some(union) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb::ResponseHeader;
    use crate::pb::mvccpb::KeyValue;

    fn response(header: i64, revisions: &[i64], fragment: bool) -> WatchResponse {
        let event = |revision: &i64| Event {
            kv: Some(KeyValue { mod_revision: *revision, ..KeyValue::default() }),
            ..Event::default()
        };
        WatchResponse {
            header: Some(ResponseHeader { revision: header, ..ResponseHeader::default() }),
            fragment,
            events: revisions.iter().map(event).collect(),
            ..WatchResponse::default()
        }
    }

    fn violations(responses: &[WatchResponse]) -> Vec<String> {
        let mut state = State::default();
        for response in responses {
            state.hear(response.clone());
        }
        state.heard.violations
    }

    #[test]
    fn one_response_per_revision_or_many_revisions_in_one_are_the_same() {
        let (mut one, mut many) = (State::default(), State::default());
        one.hear(response(3, &[2, 3], false));
        many.hear(response(2, &[2], false));
        many.hear(response(3, &[3], false));
        assert_eq!(one.heard, many.heard);
        assert!(one.heard.violations.is_empty());
    }

    #[test]
    fn a_revision_split_over_two_responses_is_found_unless_fragmented() {
        assert_eq!(violations(&[response(2, &[2], false), response(2, &[2], false)]).len(), 1);
        assert!(violations(&[response(2, &[2], true), response(2, &[2], false)]).is_empty());
    }

    #[test]
    fn events_out_of_order_or_above_their_header_are_found() {
        assert_eq!(violations(&[response(3, &[3, 2], false)]).len(), 1);
        assert_eq!(violations(&[response(2, &[3], false)]).len(), 1);
    }
}
