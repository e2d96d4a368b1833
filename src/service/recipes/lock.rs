//! v3lockpb.Lock (etcd `server/etcdserver/api/v3lock/lock.go`, `client/v3/concurrency/mutex.go`).

use bytes::Bytes;
use quorate_core::api::pb::etcdserverpb::request_op::Request as Operation;
use quorate_core::api::pb::v3lockpb as pb;
use tonic::{Request, Response, Status};

use super::line::Place;
use super::{Recipes, Store, get, key_of, oldest, prefix, put, read_by, revision};
use crate::service::patience::{patience, within};
use crate::service::pb::v3lockpb::lock_server;

/// The service.
pub(crate) struct LockService(Recipes);

impl LockService {
    pub(crate) fn new(recipes: Recipes) -> Self {
        LockService(recipes)
    }
}

impl Store {
    /// Joins the line, or finds its place in it: a lease that has the lock has it again.
    async fn acquire(&self, request: pb::LockRequest) -> Result<pb::LockResponse, Status> {
        let lease = self.session(request.lease).await?;
        let prefix = prefix(&request.name);
        let key = key_of(&prefix, lease);
        let first = Operation::RequestRange(oldest(&prefix));
        let then = vec![put(&key, Bytes::new(), lease), first.clone()];
        let otherwise = vec![get(&key), first];
        let joined = self.if_created_at(&key, 0, then, otherwise).await?;
        let mine = match read_by(&joined, 0).first() {
            Some(kv) if !joined.succeeded => kv.create_revision,
            _ => revision(joined.header.as_ref()),
        };
        let holder = read_by(&joined, 1).first();
        if holder.is_none_or(|holder| holder.create_revision == mine) {
            return Ok(pb::LockResponse { header: joined.header, key });
        }
        let place = Place::new(self, key.clone(), mine);
        let waited = async {
            self.wait_until_gone(&prefix, mine - 1).await?;
            place.check().await
        };
        match waited.await {
            Ok(Some(found)) => {
                place.keep();
                Ok(pb::LockResponse { header: found.header, key })
            }
            Ok(None) => {
                place.keep();
                Err(Status::unknown("mutex: session is expired"))
            }
            Err(why) => {
                place.give_up().await;
                Err(why)
            }
        }
    }
}

#[tonic::async_trait]
impl lock_server::Lock for LockService {
    async fn lock(
        &self,
        request: Request<pb::LockRequest>,
    ) -> Result<Response<pb::LockResponse>, Status> {
        let (store, patience) = (self.0.store(&request)?, patience(request.metadata()));
        within(patience, store.acquire(request.into_inner())).await.map(Response::new)
    }

    async fn unlock(
        &self,
        request: Request<pb::UnlockRequest>,
    ) -> Result<Response<pb::UnlockResponse>, Status> {
        let store = self.0.store(&request)?;
        let deleted = store.delete(request.into_inner().key).await?;
        Ok(Response::new(pb::UnlockResponse { header: deleted.header }))
    }
}
