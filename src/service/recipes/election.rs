//! v3electionpb.Election (etcd `server/etcdserver/api/v3election/election.go`, `client/v3/concurrency/election.go`).

use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use quorate_core::api::pb::etcdserverpb::TxnResponse;
use quorate_core::api::pb::v3electionpb as pb;
use tonic::{Request, Response, Status};

use super::line::Place;
use super::observe::Observer;
use super::{Recipes, Store, get, key_of, oldest, prefix, put, read_by, revision};
use crate::service::patience::{patience, within};
use crate::service::pb::v3electionpb::election_server;

/// The service.
pub(crate) struct ElectionService(Recipes);

/// The leaders that one caller observes.
type Leaders = Pin<Box<dyn Stream<Item = Result<pb::LeaderResponse, Status>> + Send>>;

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

fn leader_missing() -> Status {
    Status::unknown("\"leader\" field must be provided")
}

impl ElectionService {
    pub(crate) fn new(recipes: Recipes) -> Self {
        ElectionService(recipes)
    }
}

impl Store {
    /// Joins the line, or finds its place in it, then with the new value.
    async fn campaign(&self, request: pb::CampaignRequest) -> Result<pb::CampaignResponse, Status> {
        let lease = self.session(request.lease).await?;
        let prefix = prefix(&request.name);
        let key = key_of(&prefix, lease);
        let then = vec![put(&key, request.value.clone(), lease)];
        let joined = self.if_created_at(&key, 0, then, vec![get(&key)]).await?;
        let found = read_by(&joined, 0).first().filter(|_| !joined.succeeded);
        let rev = found.map_or(revision(joined.header.as_ref()), |kv| kv.create_revision);
        if found.is_some_and(|kv| kv.value != request.value) {
            let place = Place::new(self, key.clone(), rev);
            if let Err(why) = self.announce(&key, rev, request.value, lease).await {
                place.give_up().await;
                return Err(why);
            }
            place.keep();
        }
        let place = Place::new(self, key.clone(), rev);
        let won = async {
            self.wait_until_gone(&prefix, rev - 1).await?;
            Ok::<_, Status>(place.check().await?.is_some())
        };
        let won = won.await;
        place.keep();
        if !won? {
            return Err(not_leader());
        }
        let leader = pb::LeaderKey { name: request.name, key, rev, lease };
        Ok(pb::CampaignResponse { header: joined.header, leader: Some(leader) })
    }

    /// Puts a new value on the key, if it is still the one of `rev`.
    async fn announce(
        &self,
        key: &Bytes,
        rev: i64,
        value: Bytes,
        lease: i64,
    ) -> Result<TxnResponse, Status> {
        let then = vec![put(key, value, lease)];
        let done = self.if_created_at(key, rev, then, Vec::new()).await?;
        if done.succeeded { Ok(done) } else { Err(not_leader()) }
    }
}

#[tonic::async_trait]
impl election_server::Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<pb::CampaignRequest>,
    ) -> Result<Response<pb::CampaignResponse>, Status> {
        let (store, patience) = (self.0.store(&request)?, patience(request.metadata()));
        within(patience, store.campaign(request.into_inner())).await.map(Response::new)
    }

    async fn proclaim(
        &self,
        request: Request<pb::ProclaimRequest>,
    ) -> Result<Response<pb::ProclaimResponse>, Status> {
        let (store, request) = (self.0.store(&request)?, request.into_inner());
        let leader = request.leader.ok_or_else(leader_missing)?;
        let lease = store.session(leader.lease).await?;
        let done = store.announce(&leader.key, leader.rev, request.value, lease).await?;
        Ok(Response::new(pb::ProclaimResponse { header: done.header }))
    }

    async fn leader(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<pb::LeaderResponse>, Status> {
        let store = self.0.store(&request)?;
        let found = store.range(oldest(&prefix(&request.into_inner().name))).await?;
        let Some(kv) = found.kvs.into_iter().next() else {
            return Err(Status::unknown("election: no leader"));
        };
        Ok(Response::new(pb::LeaderResponse { header: found.header, kv: Some(kv) }))
    }

    type ObserveStream = Leaders;

    async fn observe(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<Leaders>, Status> {
        let store = self.0.store(&request)?;
        let observer = Observer::new(store, prefix(&request.into_inner().name));
        Ok(Response::new(Box::pin(observer.leaders())))
    }

    /// A key that is another's by now is left alone, and that is no error.
    async fn resign(
        &self,
        request: Request<pb::ResignRequest>,
    ) -> Result<Response<pb::ResignResponse>, Status> {
        let store = self.0.store(&request)?;
        let leader = request.into_inner().leader.ok_or_else(leader_missing)?;
        let done = store.leave(&leader.key, leader.rev).await?;
        Ok(Response::new(pb::ResignResponse { header: done.header }))
    }
}
