//! etcd's Watch service: requests to the stream's watchers, responses back, with who and when in their headers.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use quorate_core::api::pb::etcdserverpb::{ResponseHeader, WatchRequest, WatchResponse};
use quorate_core::api::refusal::Refusal;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, Streaming};

use super::leader_guard::{LeaderGuard, Seat};
use super::metrics::{Sent, WatchSendTimes};
use super::pb::etcdserverpb::watch_server::Watch;
use super::status::{owned, stopped, watch_cancelled};
use crate::keyspace::watch::{WatchError, WatchHub, WatchStream};

/// Responses of one stream.
pub type WatchResponses = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

/// The Watch service of one keyspace.
pub struct WatchService {
    hub: WatchHub,
    seat: Arc<dyn Seat>,
    election_timeout: Duration,
    times: WatchSendTimes,
}

impl fmt::Debug for WatchService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchService").field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl WatchService {
    /// Serves the watches of `hub`.
    pub fn new(hub: WatchHub, seat: Arc<dyn Seat>, election_timeout: Duration) -> WatchService {
        WatchService { hub, seat, election_timeout, times: WatchSendTimes::default() }
    }

    /// The same, with its times where the server's are.
    pub fn timed(self, times: WatchSendTimes) -> WatchService {
        WatchService { times, ..self }
    }

    /// Serves one stream of requests, however they came in. It goes on when `requests` end: a client may close its
    /// half and keep listening. Dropping it ends the watchers.
    fn serve(
        &self,
        requests: impl Stream<Item = Result<WatchRequest, Status>> + Send + Unpin + 'static,
        guard: LeaderGuard,
    ) -> WatchResponses {
        let session = Session {
            watches: self.hub.open(),
            requests,
            requests_ended: false,
            seat: Arc::clone(&self.seat),
            guard,
            times: self.times.clone(),
            handed: None,
        };
        let step = |session: Option<Session<_>>| async { session?.step().await };
        Box::pin(futures::stream::unfold(Some(session), step))
    }
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = WatchResponses;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<WatchResponses>, Status> {
        let guard = LeaderGuard::admit(request.metadata(), &self.seat, self.election_timeout)?;
        Ok(Response::new(self.serve(request.into_inner(), guard)))
    }
}

struct Session<R> {
    watches: WatchStream,
    requests: R,
    requests_ended: bool,
    seat: Arc<dyn Seat>,
    guard: LeaderGuard,
    times: WatchSendTimes,
    /// What the transport was handed last, and when: it comes back for more when it has sent that.
    handed: Option<(Sent, Instant)>,
}

/// An answer, and the session if it goes on.
type Step<R> = Option<(Result<WatchResponse, Status>, Option<Session<R>>)>;

impl<R: Stream<Item = Result<WatchRequest, Status>> + Unpin> Session<R> {
    /// Takes requests until there is a response.
    async fn step(mut self) -> Step<R> {
        if let Some((what, at)) = self.handed.take() {
            self.times.sent(what, at.elapsed());
        }
        loop {
            let listens = !self.requests_ended && self.watches.ready_for_requests();
            tokio::select! {
                request = self.requests.next(), if listens => match request {
                    Some(Ok(request)) => self.watches.request(request),
                    Some(Err(status)) => return Some((Err(cancelled(status)), None)),
                    None => self.requests_ended = true,
                },
                response = self.watches.next() => return match response {
                    Ok(mut response) => {
                        self.complete(&mut response);
                        self.handed = Some((Sent::of(&response), Instant::now()));
                        Some((Ok(response), Some(self)))
                    }
                    Err(error) => Some((Err(ended(error)), None)),
                },
                status = self.guard.lost() => return Some((Err(status), None)),
            }
        }
    }

    /// The header's revision is the watch's own, 0 included.
    fn complete(&self, response: &mut WatchResponse) {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        response.header = Some(ResponseHeader { revision, ..self.seat.header() });
    }
}

fn cancelled(status: Status) -> Status {
    if status.code() == Code::Cancelled { watch_cancelled() } else { status }
}

fn ended(error: WatchError) -> Status {
    match error {
        WatchError::Closed => stopped(),
        WatchError::Corrupt(_) => owned(Refusal::CorruptCluster.into()),
    }
}

#[cfg(test)]
#[path = "watch_test.rs"]
mod tests;
