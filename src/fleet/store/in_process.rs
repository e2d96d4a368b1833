//! A store in the process of its keyspace: calls are calls.

use async_trait::async_trait;
use futures::stream;
use quorate_core::api::ids::LeaseId;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use quorate_core::api::refusal::{AuthRefusal, Refusal};

use super::Store;
use super::calls::{Calls, WatchResponses};
use super::error::StoreError;
use crate::keyspace::watch::WatchError;
use crate::keyspace::{Keyspace, KeyspaceError};

impl Store {
    /// A store over `keyspace`, with the rights of whom that handle speaks for.
    pub fn in_process(keyspace: Keyspace) -> Store {
        Store::over(std::sync::Arc::new(InProcess { keyspace }))
    }
}

#[derive(Debug)]
struct InProcess {
    keyspace: Keyspace,
}

#[async_trait]
impl Calls for InProcess {
    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, StoreError> {
        Ok(self.keyspace.range(request).await?)
    }

    async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, StoreError> {
        Ok(self.keyspace.put(request).await?)
    }

    async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, StoreError> {
        Ok(self.keyspace.delete_range(request).await?)
    }

    async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, StoreError> {
        Ok(self.keyspace.txn(request).await?)
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<pb::LeaseGrantResponse, StoreError> {
        let request = pb::LeaseGrantRequest { ttl: ttl_seconds, id: 0 };
        Ok(self.keyspace.lease_grant(request).await?)
    }

    async fn lease_keep_alive(&self, lease: i64) -> Result<i64, StoreError> {
        Ok(self.keyspace.lease_keep_alive(LeaseId(lease)).await?)
    }

    async fn lease_revoke(&self, lease: i64) -> Result<(), StoreError> {
        self.keyspace.lease_revoke(pb::LeaseRevokeRequest { id: lease }).await?;
        Ok(())
    }

    async fn watch(&self, request: pb::WatchCreateRequest) -> Result<WatchResponses, StoreError> {
        self.keyspace.require_watchable(&request.key, &request.range_end).await?;
        let mut watch = self.keyspace.watch();
        let request_union = Some(RequestUnion::CreateRequest(request));
        watch.request(pb::WatchRequest { request_union });
        let responses = stream::unfold(watch, |mut watch| async {
            let told = watch.next().await.map_err(StoreError::from);
            Some((told, watch))
        });
        Ok(Box::pin(responses))
    }
}

impl From<WatchError> for StoreError {
    fn from(error: WatchError) -> StoreError {
        match error {
            WatchError::Closed => KeyspaceError::Stopped.into(),
            WatchError::Corrupt(why) => KeyspaceError::Corrupt(why).into(),
        }
    }
}

impl From<KeyspaceError> for StoreError {
    fn from(error: KeyspaceError) -> StoreError {
        let text = error.to_string();
        match error {
            KeyspaceError::Refused(refusal) => refused(&refusal, text),
            KeyspaceError::NoLeader
            | KeyspaceError::LeaderChanged
            | KeyspaceError::Timeout(_)
            | KeyspaceError::DeadlineExceeded
            | KeyspaceError::TooManyRequests
            | KeyspaceError::NotLeader
            | KeyspaceError::Stopped
            | KeyspaceError::LeaderTransferTimeout => StoreError::Unavailable(text),
            KeyspaceError::RequestTooLarge
            | KeyspaceError::MemberNotFound
            | KeyspaceError::Members(_)
            | KeyspaceError::NotForLearners
            | KeyspaceError::BadLeaderTransferee
            | KeyspaceError::WrongDowngradeVersionFormat
            | KeyspaceError::InvalidDowngradeTarget
            | KeyspaceError::UnknownMethod
            | KeyspaceError::DefragmentFailed(_)
            | KeyspaceError::Unimplemented(_)
            | KeyspaceError::Corrupt(_) => StoreError::Refused(text),
        }
    }
}

fn refused(refusal: &Refusal, text: String) -> StoreError {
    if *refusal == Refusal::LeaseNotFound {
        StoreError::LeaseGone
    } else if denies(refusal) {
        StoreError::Denied(text)
    } else if *refusal == Refusal::Auth(AuthRefusal::OldRevision) {
        // Users or roles changed while it was on its way: asked again it is judged by the new ones.
        StoreError::Unavailable(text)
    } else {
        StoreError::Refused(text)
    }
}

fn denies(refusal: &Refusal) -> bool {
    [AuthRefusal::PermissionDenied, AuthRefusal::UserEmpty, AuthRefusal::InvalidToken]
        .iter()
        .any(|why| *refusal == Refusal::Auth(*why))
}
