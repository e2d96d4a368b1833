//! A way to a keyspace that can be cut: what is asked then is not answered, as behind a firewall.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use quorate::fleet::store::{Calls, Store, StoreError, WatchResponses};
use quorate_core::api::pb::etcdserverpb as pb;
use tokio::sync::watch;

#[derive(Clone, Debug)]
pub(crate) struct Severed {
    calls: Arc<dyn Calls>,
    cut: Arc<watch::Sender<bool>>,
}

impl Severed {
    /// The same store by a way that can be cut.
    pub(crate) fn new(store: &Store) -> (Severed, Store) {
        let severed = Severed { calls: store.calls(), cut: Arc::new(watch::Sender::new(false)) };
        (severed.clone(), Store::over(Arc::new(severed)))
    }

    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub(crate) fn mend(&self) {
        self.cut.send_replace(false);
    }

    /// Returns once it is not cut.
    async fn passable(&self) {
        let mut cut = self.cut.subscribe();
        let passable = cut.wait_for(|cut| !*cut).await;
        passable.expect("the sender is kept");
    }

    /// What is answered while it is cut is lost.
    async fn pass<T>(&self, call: impl Future<Output = T>) -> T {
        self.passable().await;
        let answer = call.await;
        self.passable().await;
        answer
    }
}

#[async_trait]
impl Calls for Severed {
    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, StoreError> {
        self.pass(self.calls.range(request)).await
    }

    async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, StoreError> {
        self.pass(self.calls.put(request)).await
    }

    async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, StoreError> {
        self.pass(self.calls.delete_range(request)).await
    }

    async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, StoreError> {
        self.pass(self.calls.txn(request)).await
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<pb::LeaseGrantResponse, StoreError> {
        self.pass(self.calls.lease_grant(ttl_seconds)).await
    }

    async fn lease_keep_alive(&self, lease: i64) -> Result<i64, StoreError> {
        self.pass(self.calls.lease_keep_alive(lease)).await
    }

    async fn lease_revoke(&self, lease: i64) -> Result<(), StoreError> {
        self.pass(self.calls.lease_revoke(lease)).await
    }

    async fn watch(&self, request: pb::WatchCreateRequest) -> Result<WatchResponses, StoreError> {
        let responses = self.pass(self.calls.watch(request)).await?;
        let this = self.clone();
        Ok(Box::pin(responses.then(move |response| {
            let this = this.clone();
            async move {
                this.passable().await;
                response
            }
        })))
    }
}
