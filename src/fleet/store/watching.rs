//! A watch that goes on where it stopped, whoever carried it.
//!
//! ```text
//!   open at R ── created ──> events, each response whole ──> R = last + 1
//!     ^── broken, and worth another try: rest ──────────────────┘
//! ```
//!
//! **Invariant:** nothing is skipped and nothing told twice: a revision is in one response or in none, and the next
//! watcher begins behind the last one told.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use quorate_core::api::pb::etcdserverpb as pb;
use tokio::sync::watch;
use tokio::time::sleep;

use super::calls::{Calls, WatchResponses, end_of, revision};
use super::error::StoreError;
use super::value::{WatchEvent, Watched};

/// Between two attempts that failed.
const REST_MIN: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_secs(1);

/// Events of a watch, in the order in which they happened. Dropped, the watch is cancelled. It ends with an error that
/// says why, and `None` after that; it does not end by itself.
pub struct WatchEvents(Pin<Box<dyn Stream<Item = Result<WatchEvent, StoreError>> + Send>>);

impl std::fmt::Debug for WatchEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WatchEvents")
    }
}

impl WatchEvents {
    /// The next event.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, StoreError>> {
        self.0.next().await
    }
}

impl Stream for WatchEvents {
    type Item = Result<WatchEvent, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

/// What one watcher is, and how far it has come.
pub(super) struct Watching {
    calls: Arc<dyn Calls>,
    key: Bytes,
    range_end: Bytes,
    /// Where the next watcher begins; 0: now.
    next: i64,
    open: Option<WatchResponses>,
    waiting: VecDeque<WatchEvent>,
    closed: watch::Receiver<bool>,
}

impl Watching {
    /// Made once this returns: what happens from then on is told, or from `start` on if that is not 0.
    pub(super) async fn open(
        calls: Arc<dyn Calls>,
        watched: Watched<'_>,
        start: i64,
        closed: watch::Receiver<bool>,
    ) -> Result<Watching, StoreError> {
        let (key, range_end) = match watched {
            Watched::Key(key) => (key.to_vec().into(), Bytes::new()),
            Watched::Prefix(b"") => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            Watched::Prefix(prefix) => (prefix.to_vec().into(), end_of(prefix)),
        };
        let (open, waiting) = (None, VecDeque::new());
        let mut this = Watching { calls, key, range_end, next: start, open, waiting, closed };
        this.reopen().await?;
        Ok(this)
    }

    /// Its events, for whoever asked for them.
    pub(super) fn events(self) -> WatchEvents {
        let told = futures::stream::unfold(Some(self), |this| async {
            let mut this = this?;
            let told = this.next().await;
            let over = told.is_err();
            Some((told, (!over).then_some(this)))
        });
        WatchEvents(Box::pin(told))
    }

    /// The next event. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        let mut closed = self.closed.clone();
        tokio::select! {
            // An error means that the store is gone as a whole.
            _ = closed.wait_for(|closed| *closed) => Err(StoreError::Closed),
            event = self.next_of_open() => event,
        }
    }

    async fn next_of_open(&mut self) -> Result<WatchEvent, StoreError> {
        let mut rest = REST_MIN;
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(event);
            }
            let came = match &mut self.open {
                Some(open) => match open.next().await {
                    Some(Ok(response)) => self.take(response),
                    Some(Err(why)) => Err(why),
                    None => Err(StoreError::Unavailable("the watch has ended".to_owned())),
                },
                None => self.reopen().await,
            };
            match came {
                Ok(()) => rest = REST_MIN,
                Err(why) if why.is_transient() => {
                    tracing::debug!(error = %why, "a watch broke and is made again");
                    self.open = None;
                    sleep(rest).await;
                    rest = (rest * 2).min(REST_MAX);
                }
                Err(why) => return Err(why),
            }
        }
    }

    /// A watcher from the present place on.
    async fn reopen(&mut self) -> Result<(), StoreError> {
        let create = pb::WatchCreateRequest {
            key: self.key.clone(),
            range_end: self.range_end.clone(),
            start_revision: self.next,
            prev_kv: true,
            ..Default::default()
        };
        let mut open = self.calls.watch(create).await?;
        let Some(first) = open.next().await else {
            return Err(StoreError::Unavailable("the watch was not made".to_owned()));
        };
        let first = first?;
        let made_at = revision(first.header.as_ref());
        self.take(first)?;
        if self.next == 0 {
            self.next = made_at + 1;
        }
        self.open = Some(open);
        Ok(())
    }

    fn take(&mut self, response: pb::WatchResponse) -> Result<(), StoreError> {
        if response.compact_revision != 0 {
            return Err(StoreError::Compacted { oldest: response.compact_revision });
        }
        if response.canceled {
            return Err(cancelled(response.cancel_reason));
        }
        for event in response.events {
            let event = WatchEvent::from(event);
            self.next = self.next.max(event.kv.version + 1);
            self.waiting.push_back(event);
        }
        Ok(())
    }
}

/// A member cancels watches when it has no leader, or when who asks may not read there.
fn cancelled(reason: String) -> StoreError {
    if reason.is_empty() || reason.contains("no leader") {
        StoreError::Unavailable(reason)
    } else if reason.contains("permission denied") || reason.contains("invalid auth token") {
        StoreError::Denied(reason)
    } else {
        StoreError::Refused(reason)
    }
}
