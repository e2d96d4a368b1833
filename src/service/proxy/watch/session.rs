//! One client's stream: its requests, and its responses in their order.

use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use quorate_core::api::pb::etcdserverpb::{
    ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse,
};
use quorate_core::api::refusal::Refusal;
use tokio::sync::mpsc;
use tonic::Status;

use super::super::caller::Caller;
use super::outbox::{Due, NO_WATCH, Outbox};
use super::{Hub, Responses};
use crate::service::status::owned;

/// What a client is told that names a watch as another one is named (etcd `server/storage/mvcc/watcher.go`).
const DUPLICATE: &str = "mvcc: duplicate watch ID provided on the WatchStream";

/// A stream of one client. Its watches end with it; it goes on when the client has sent its last request.
pub(super) struct Session<R> {
    hub: Hub,
    caller: Caller,
    requests: R,
    outbox: Arc<Outbox>,
    queued: mpsc::Receiver<WatchResponse>,
    /// How many of the queued responses the client has been handed.
    handed_out: u64,
    /// The client has sent its last.
    no_more: bool,
}

type Step<R> = Option<(Result<WatchResponse, Status>, Option<Session<R>>)>;

impl<R> Session<R>
where
    R: Stream<Item = Result<WatchRequest, Status>> + Unpin + Send + 'static,
{
    pub(super) fn new(hub: Hub, caller: Caller, requests: R) -> Session<R> {
        let (outbox, queued) = Outbox::new();
        Session { hub, caller, requests, outbox, queued, handed_out: 0, no_more: false }
    }

    pub(super) fn responses(self) -> Responses {
        let step = |session: Option<Session<R>>| async { session?.step().await };
        Box::pin(futures::stream::unfold(Some(self), step))
    }

    async fn step(mut self) -> Step<R> {
        loop {
            match self.outbox.due(self.handed_out) {
                Some(Due::Word(word)) => return Some((Ok(word), Some(self))),
                Some(Due::End(status)) => return Some((Err(status), None)),
                None => {}
            }
            // In no order, so that neither requests nor responses wait for as long as there are others.
            tokio::select! {
                () = self.outbox.spoken.notified() => {}
                // The outbox is held here, so the queue does not end.
                Some(response) = self.queued.recv() => {
                    self.handed_out += 1;
                    return Some((Ok(response), Some(self)));
                }
                request = self.requests.next(), if !self.no_more => match request {
                    Some(Ok(request)) => self.take(request),
                    Some(Err(status)) => return Some((Err(status), None)),
                    None => self.no_more = true,
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

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::stream;

    use super::super::super::figures::Figures;
    use super::super::super::namespace::Namespace;
    use super::super::outbox::Unsent;
    use super::*;
    use crate::service::upstream::{Upstream, UpstreamSettings};
    use crate::support::metrics::Metrics;

    fn session<R>(requests: R) -> (Arc<Outbox>, Responses)
    where
        R: Stream<Item = Result<WatchRequest, Status>> + Unpin + Send + 'static,
    {
        let upstream = Upstream::new(UpstreamSettings::default(), &[]).unwrap();
        let figures = Figures::new(&Metrics::default());
        let hub = Hub::new(upstream, Namespace::default(), figures);
        let session = Session::new(hub, Caller::default(), requests);
        (Arc::clone(&session.outbox), session.responses())
    }

    fn response(watch_id: i64) -> WatchResponse {
        WatchResponse { watch_id, ..WatchResponse::default() }
    }

    async fn next(responses: &mut Responses) -> i64 {
        responses.next().await.unwrap().unwrap().watch_id
    }

    #[tokio::test]
    async fn words_and_events_come_in_the_order_in_which_they_were_put_down() {
        let (outbox, mut responses) = session(stream::pending());
        outbox.try_send(response(1)).unwrap();
        outbox.say(response(2));
        assert_eq!(next(&mut responses).await, 1);
        outbox.try_send(response(3)).unwrap();
        outbox.say(response(4));
        outbox.try_send(response(5)).unwrap();
        outbox.end(Status::unavailable("gone"));
        for want in [2, 3, 4, 5] {
            assert_eq!(next(&mut responses).await, want);
        }
        assert_eq!(responses.next().await.unwrap().unwrap_err().message(), "gone");
        assert!(responses.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_always_has_something_to_read_is_listened_to() {
        let create = WatchCreateRequest { start_revision: -1, ..WatchCreateRequest::default() };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let requests = stream::iter([Ok(request)]).chain(stream::pending());
        let (outbox, mut responses) = session(requests);
        for _ in 0..1000 {
            while outbox.try_send(response(1)) != Err(Unsent::Full) {}
            if next(&mut responses).await == NO_WATCH {
                return;
            }
        }
        panic!("the request was not answered");
    }

    #[tokio::test]
    async fn a_client_that_has_sent_its_last_goes_on_reading() {
        let (outbox, mut responses) = session(stream::empty());
        assert!(responses.next().now_or_never().is_none(), "the stream goes on");
        outbox.try_send(response(1)).unwrap();
        assert_eq!(next(&mut responses).await, 1);
        assert!(responses.next().now_or_never().is_none(), "the stream goes on");
    }
}
