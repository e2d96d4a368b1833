//! One client's stream: its requests, and its responses in their order.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use quorate_core::api::pb::etcdserverpb::{
    ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse,
};
use quorate_core::api::refusal::Refusal;
use tokio::sync::mpsc;
use tonic::Status;

use super::super::upstream::Caller;
use super::outbox::{NO_WATCH, Outbox};
use super::{Hub, Responses};
use crate::service::status::owned;

/// What a client is told that names a watch as another one is named (etcd `server/storage/mvcc/watcher.go`).
const DUPLICATE: &str = "mvcc: duplicate watch ID provided on the WatchStream";

/// A stream of one client. Its watches end with it.
pub(super) struct Session<R> {
    hub: Hub,
    caller: Caller,
    requests: R,
    outbox: Arc<Outbox>,
    queued: mpsc::Receiver<WatchResponse>,
    /// What is said next, before anything that is queued.
    words: VecDeque<WatchResponse>,
    /// How many of the queued responses come before what is to be said.
    before: Option<usize>,
    ended: Option<Status>,
}

type Step<R> = Option<(Result<WatchResponse, Status>, Option<Session<R>>)>;

impl<R> Session<R>
where
    R: Stream<Item = Result<WatchRequest, Status>> + Unpin + Send + 'static,
{
    pub(super) fn new(hub: Hub, caller: Caller, requests: R) -> Session<R> {
        let (outbox, queued) = Outbox::new();
        let words = VecDeque::new();
        Session { hub, caller, requests, outbox, queued, words, before: None, ended: None }
    }

    pub(super) fn responses(self) -> Responses {
        let step = |session: Option<Session<R>>| async { session?.step().await };
        Box::pin(futures::stream::unfold(Some(self), step))
    }

    async fn step(mut self) -> Step<R> {
        loop {
            if self.before == Some(0) {
                let (words, ended) = self.outbox.take();
                self.words.extend(words);
                self.ended = ended;
                self.before = None;
            }
            if let Some(word) = self.words.pop_front() {
                return Some((Ok(word), Some(self)));
            }
            if let Some(status) = self.ended.take() {
                return Some((Err(status), None));
            }
            tokio::select! {
                biased;
                () = self.outbox.spoken.notified(), if self.before.is_none() => {
                    self.before = Some(self.queued.len());
                }
                // The outbox is held here, so the queue does not end.
                Some(response) = self.queued.recv() => {
                    self.before = self.before.map(|before| before - 1);
                    return Some((Ok(response), Some(self)));
                }
                request = self.requests.next() => match request? {
                    Ok(request) => self.take(request),
                    Err(status) => return Some((Err(status), None)),
                },
            }
        }
    }

    fn take(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(&create),
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => {
                for (id, board) in self.outbox.ask() {
                    board.ask(&self.outbox, id);
                }
            }
            None => {}
        }
    }

    fn create(&mut self, create: &WatchCreateRequest) {
        if create.start_revision < 0 {
            let told = owned(Refusal::Compacted.into());
            return self.refuse(told.message());
        }
        if self.hub.open(create, self.caller.clone(), &self.outbox).is_err() {
            self.refuse(DUPLICATE);
        }
    }

    fn refuse(&self, why: &str) {
        self.outbox.say(WatchResponse {
            header: Some(ResponseHeader::default()),
            watch_id: NO_WATCH,
            created: true,
            canceled: true,
            cancel_reason: why.to_owned(),
            ..WatchResponse::default()
        });
    }

    fn cancel(&mut self, id: i64) {
        let Some(board) = self.outbox.forget(id) else { return };
        if let Some(header) = board.remove(&self.outbox, id) {
            self.outbox.say(WatchResponse {
                header: Some(header),
                watch_id: id,
                canceled: true,
                ..WatchResponse::default()
            });
        }
        self.hub.sweep(&board);
    }
}

impl<R> Drop for Session<R> {
    fn drop(&mut self) {
        for (id, board) in self.outbox.watches() {
            board.remove(&self.outbox, id);
            self.hub.sweep(&board);
        }
    }
}
