//! A feed: one watch at a member, made again with the next one wherever it breaks.
//!
//! ```text
//!   create from the feed's place ── responses ──> board
//!        ^── broken: rest ──┘   └── nobody wants it any more: the end
//! ```

use std::sync::Arc;
use std::time::Duration;

use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use quorate_core::api::pb::etcdserverpb::{WatchProgressRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Hub;
use super::board::{Begun, Board, Taken};
use super::outbox::Outbox;
use crate::service::upstream::paths::WATCH;
use crate::service::upstream::{Broken, Upstream};

/// Between two attempts that failed.
const REST_MIN: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_secs(1);

/// A client that reads nothing for so long does not hold a member's watch any longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Requests on their way: one creates, the others ask for progress, and one of those is as good as many.
const REQUESTS_MAX: usize = 4;

/// What runs one feed of a board.
pub(super) struct Feeding {
    pub(super) hub: Hub,
    pub(super) board: Arc<Board>,
    pub(super) begun: Begun,
}

/// How a conversation with a member ended.
enum End {
    /// Nobody wants the feed any more.
    Over,
    /// The one client that it is for does not read.
    Slow(Arc<Outbox>),
    Broken(Broken),
}

impl Feeding {
    pub(super) async fn run(self) {
        let (board, id) = (&self.board, self.begun.id);
        let mut rest = REST_MIN;
        let mut leaderless = 0;
        while let Some(start) = board.start(id) {
            let mut made = false;
            let end = self.converse(start, &mut made).await;
            board.broken(id);
            if made {
                (rest, leaderless) = (REST_MIN, 0);
            }
            match end {
                End::Over => break,
                End::Slow(outbox) => self.unless_over(outbox.room()).await.unwrap_or_default(),
                End::Broken(broken) => {
                    let no_leader =
                        broken.has_no_leader() && board.subject.caller.requires_leader();
                    leaderless += usize::from(no_leader);
                    let nowhere = leaderless >= self.upstream().endpoints().len().max(1);
                    if !broken.may_go_on() || (no_leader && nowhere) {
                        board.fail(id, &broken.into_status());
                        break;
                    }
                    let status = broken.into_status();
                    tracing::debug!(error = status.message(), "a watch at a member broke");
                    if self.unless_over(tokio::time::sleep(rest)).await.is_none() {
                        break;
                    }
                    rest = (rest * 2).min(REST_MAX);
                }
            }
        }
        self.hub.sweep(board);
    }

    fn upstream(&self) -> &Upstream {
        self.hub.upstream()
    }

    /// Waits for `work`, but not longer than anybody wants the feed.
    async fn unless_over<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let over = async {
            while self.board.start(self.begun.id).is_some() {
                self.begun.nudge.notified().await;
            }
        };
        tokio::select! {
            done = work => Some(done),
            () = over => None,
        }
    }

    async fn converse(&self, start: i64, made: &mut bool) -> End {
        let (requests, sent) = mpsc::channel(REQUESTS_MAX);
        let subject = &self.board.subject;
        let create = RequestUnion::CreateRequest(subject.create(start));
        let create = WatchRequest { request_union: Some(create) };
        requests.try_send(create).expect("the channel has just been made");
        let metadata = subject.caller.metadata();
        let opened = self.upstream().converse::<_, WatchResponse>(WATCH, metadata, sent);
        let mut responses = match self.unless_over(opened).await {
            None => return End::Over,
            Some(Err(broken)) => return End::Broken(broken),
            Some(Ok(responses)) => responses,
        };
        loop {
            let message = tokio::select! {
                message = responses.message() => message,
                () = self.begun.nudge.notified() => {
                    if self.board.start(self.begun.id).is_none() {
                        return End::Over;
                    }
                    self.ask(&requests);
                    continue;
                }
            };
            let mut response = match message {
                Ok(Some(response)) => response,
                Ok(None) => return End::Broken(Broken::ended()),
                Err(status) => return End::Broken(Broken::new(status)),
            };
            self.hub.names().leave_events(&mut response.events);
            let created = response.created && !response.canceled;
            *made |= created;
            if let Some(end) = self.hand_on(&response).await {
                return end;
            }
            if created {
                self.ask(&requests);
            }
        }
    }

    /// Gives a response to the watchers; the end, if the feed goes no further.
    async fn hand_on(&self, response: &WatchResponse) -> Option<End> {
        loop {
            let Taken { full, over, split } = self.board.take(self.begun.id, response);
            for begun in split {
                self.hub.feed(&self.board, begun);
            }
            if over {
                return Some(End::Over);
            }
            let outbox = full?;
            match self.unless_over(timeout(PATIENCE, outbox.room())).await {
                None => return Some(End::Over),
                // A question may have come in meanwhile.
                Some(Ok(())) => self.begun.nudge.notify_one(),
                Some(Err(_elapsed)) => return Some(End::Slow(outbox)),
            }
        }
    }

    /// Asks how far the watch is, if a watcher wants to know.
    fn ask(&self, requests: &mpsc::Sender<WatchRequest>) {
        if self.board.is_asked(self.begun.id) {
            let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
            // If there is no room, enough questions are on their way.
            let _ = requests.try_send(WatchRequest { request_union: Some(progress) });
        }
    }
}
