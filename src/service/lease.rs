//! etcd's Lease service.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use quorate_core::api::ids::LeaseId;
use quorate_core::api::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, ResponseHeader,
};
use tonic::{Request, Response, Status, Streaming};

use super::credentials::admit;
use super::leader_guard::{LeaderGuard, Seat};
use super::pb::etcdserverpb::lease_server::Lease;
use crate::keyspace::auth::Gate;
use crate::keyspace::{Keyspace, KeyspaceError};

/// Responses of one keep-alive stream.
pub type KeepAliveResponses =
    Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

/// The Lease service of one keyspace.
#[derive(Clone)]
pub struct LeaseService {
    gate: Gate,
    seat: Arc<dyn Seat>,
    election_timeout: Duration,
    status: fn(KeyspaceError) -> Status,
}

impl fmt::Debug for LeaseService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseService").finish_non_exhaustive()
    }
}

impl LeaseService {
    /// Serves the leases behind `gate`; `status` is the table of wire errors.
    pub fn new(
        gate: Gate,
        seat: Arc<dyn Seat>,
        election_timeout: Duration,
        status: fn(KeyspaceError) -> Status,
    ) -> LeaseService {
        LeaseService { gate, seat, election_timeout, status }
    }

    /// Who and when; the revision is the one that the keyspace told, or the present one.
    fn header(&self, told: Option<ResponseHeader>) -> Option<ResponseHeader> {
        let present = self.seat.header();
        let revision = told.map(|header| header.revision).filter(|revision| *revision != 0);
        Some(ResponseHeader { revision: revision.unwrap_or(present.revision), ..present })
    }

    /// One keep-alive. The header is filled before the renewal: the lease was alive at its revision or later.
    async fn keep_alive(
        &self,
        keyspace: &Keyspace,
        id: i64,
    ) -> Result<LeaseKeepAliveResponse, Status> {
        let header = self.header(None);
        let ttl = keyspace.lease_keep_alive(LeaseId(id)).await.map_err(self.status)?;
        Ok(LeaseKeepAliveResponse { header, id, ttl })
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    type LeaseKeepAliveStream = KeepAliveResponses;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let granted = keyspace.lease_grant(request.into_inner()).await;
        let mut response = granted.map_err(self.status)?;
        response.header = self.header(response.header);
        Ok(Response::new(response))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let revoked = keyspace.lease_revoke(request.into_inner()).await;
        let mut response = revoked.map_err(self.status)?;
        response.header = self.header(response.header);
        Ok(Response::new(response))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAliveResponses>, Status> {
        let guard = LeaderGuard::admit(request.metadata(), &self.seat, self.election_timeout)?;
        let keyspace = admit(&self.gate, &request)?;
        let service = self.clone();
        let session = Session { service, keyspace, requests: request.into_inner(), guard };
        let step = |session: Option<Session<_>>| async { session?.step().await };
        Ok(Response::new(Box::pin(futures::stream::unfold(Some(session), step))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let lives = keyspace.lease_time_to_live(request.into_inner()).await;
        let mut response = lives.map_err(self.status)?;
        response.header = self.header(response.header);
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.lease_leases().await.map_err(self.status)?;
        response.header = self.header(response.header);
        Ok(Response::new(response))
    }
}

struct Session<R> {
    service: LeaseService,
    /// Speaks for the client, whose credentials are looked at for each request.
    keyspace: Keyspace,
    requests: R,
    guard: LeaderGuard,
}

/// An answer, and the session if it goes on.
type Step<R> = Option<(Result<LeaseKeepAliveResponse, Status>, Option<Session<R>>)>;

impl<R: Stream<Item = Result<LeaseKeepAliveRequest, Status>> + Unpin> Session<R> {
    /// One request, one response. The end of the requests is the end of the stream.
    async fn step(mut self) -> Step<R> {
        let answer = async {
            match self.requests.next().await? {
                Ok(request) => Some(self.service.keep_alive(&self.keyspace, request.id).await),
                Err(status) => Some(Err(status)),
            }
        };
        let answered = tokio::select! {
            answered = answer => answered?,
            status = self.guard.lost() => Err(status),
        };
        let goes_on = answered.is_ok();
        Some((answered, goes_on.then_some(self)))
    }
}
