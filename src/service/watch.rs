//! etcd's Watch service: requests to the stream's watchers, responses back, with who and when in their headers.
//!
//! Whether the client may read what it wants to watch is asked when a watcher is made, and never again: what is taken
//! from a user or a role afterwards ends no watch, as in etcd.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt};
use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use quorate_core::api::pb::etcdserverpb::{ResponseHeader, WatchRequest, WatchResponse};
use quorate_core::api::refusal::{AuthRefusal, Refusal};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Request, Response, Status, Streaming};

use super::credentials::admit_by;
use super::leader_guard::{LeaderGuard, Seat};
use super::metrics::{Sent, WatchSendTimes};
use super::pb::etcdserverpb::watch_server::Watch;
use super::status::{owned, stopped, watch_cancelled};
use crate::keyspace::auth::Gate;
use crate::keyspace::watch::{WatchError, WatchHub, WatchStream};
use crate::keyspace::{Keyspace, KeyspaceError};
use crate::support::failpoints::failpoint;

/// Responses of one stream.
pub type WatchResponses = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

/// Tells which clients may watch what.
pub trait Admission: Send + Sync + 'static {
    /// Knows the client of a stream by what came with its request.
    fn admit(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Box<dyn Watching>, Status>;
}

/// A client, as far as its watches go.
pub trait Watching: Send + Sync + 'static {
    /// It may, as of now, read `key` to `range_end` as a watch's request has them.
    fn may_watch<'a>(
        &'a self,
        key: &'a [u8],
        range_end: &'a [u8],
    ) -> BoxFuture<'a, Result<(), KeyspaceError>>;
}

impl Admission for Gate {
    fn admit(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Box<dyn Watching>, Status> {
        Ok(Box::new(admit_by(self, metadata, extensions)?))
    }
}

impl Watching for Keyspace {
    fn may_watch<'a>(
        &'a self,
        key: &'a [u8],
        range_end: &'a [u8],
    ) -> BoxFuture<'a, Result<(), KeyspaceError>> {
        self.require_watchable(key, range_end).boxed()
    }
}

/// The Watch service of one keyspace.
pub struct WatchService {
    hub: WatchHub,
    admission: Arc<dyn Admission>,
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
    /// Serves the watches of `hub` to whom `admission` lets in.
    pub fn new(
        hub: WatchHub,
        admission: Arc<dyn Admission>,
        seat: Arc<dyn Seat>,
        election_timeout: Duration,
    ) -> WatchService {
        let times = WatchSendTimes::default();
        WatchService { hub, admission, seat, election_timeout, times }
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
        client: Box<dyn Watching>,
        guard: LeaderGuard,
    ) -> WatchResponses {
        let session = Session {
            watches: self.hub.open(),
            client,
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
        let client = self.admission.admit(request.metadata(), request.extensions())?;
        Ok(Response::new(self.serve(request.into_inner(), client, guard)))
    }
}

struct Session<R> {
    watches: WatchStream,
    client: Box<dyn Watching>,
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
                    Some(Ok(request)) => self.take(request).await,
                    Some(Err(status)) => return Some((Err(cancelled(status)), None)),
                    None => self.requests_ended = true,
                },
                response = self.watches.next() => return match response {
                    Ok(mut response) => {
                        self.complete(&mut response);
                        failpoint!(wait beforeSendWatchResponse);
                        self.handed = Some((Sent::of(&response), Instant::now()));
                        Some((Ok(response), Some(self)))
                    }
                    Err(error) => Some((Err(ended(error)), None)),
                },
                status = self.guard.lost() => return Some((Err(status), None)),
            }
        }
    }

    /// Takes a request; a watch that the client may not have is answered with why.
    async fn take(&mut self, request: WatchRequest) {
        if let Some(RequestUnion::CreateRequest(create)) = &request.request_union
            // Refused below for what it is, whoever asks.
            && create.start_revision >= 0
            && let Err(why) = self.client.may_watch(&create.key, &create.range_end).await
        {
            return self.watches.refuse(reason(why));
        }
        self.watches.request(request);
    }

    /// The header's revision is the watch's own, 0 included.
    fn complete(&self, response: &mut WatchResponse) {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        response.header = Some(ResponseHeader { revision, ..self.seat.header() });
    }
}

/// Why a watch was not made, as etcd puts it: the status as Go prints it, and no other errors than these four.
fn reason(why: KeyspaceError) -> String {
    use AuthRefusal::{InvalidToken, OldRevision, PermissionDenied, UserEmpty};
    let named = [InvalidToken, OldRevision, UserEmpty]
        .into_iter()
        .find(|refusal| why == KeyspaceError::Refused((*refusal).into()));
    let told = owned(Refusal::Auth(named.unwrap_or(PermissionDenied)).into());
    format!("rpc error: code = {:?} desc = {}", told.code(), told.message())
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
