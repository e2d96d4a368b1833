//! A store in the process of its keyspace: calls are calls.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream;
use quorate_core::api::ids::LeaseId;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::request_op::Request as Operation;
use quorate_core::api::pb::etcdserverpb::response_op::Response as Outcome;
use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use quorate_core::api::pb::internal::FleetRequest;
use quorate_core::api::pb::internal::fleet_request::Ask;
use quorate_core::api::refusal::{AuthRefusal, Refusal};
use quorate_core::api::reply::FleetReply;
use quorate_core::state_machine::txn::is_read_only;

use super::Store;
use super::calls::{Calls, WatchResponses};
use super::error::StoreError;
use super::transaction::expect;
use crate::keyspace::watch::WatchError;
use crate::keyspace::{Keyspace, KeyspaceError};

impl Store {
    /// A store over `keyspace`, with the rights of whom that handle speaks for. Keys of the fleet's own can be read, and
    /// not written.
    pub fn in_process(keyspace: Keyspace) -> Store {
        Store::over(Arc::new(InProcess { keyspace, of_the_fleet: false }))
    }

    /// A store of a member of a fleet, over its own handle: it writes as the fleet does, also under reserved prefixes,
    /// and also when space is short. With the handle of a client every write is refused.
    pub fn of_the_fleet(keyspace: Keyspace) -> Store {
        Store::over(Arc::new(InProcess { keyspace, of_the_fleet: true }))
    }
}

#[derive(Debug)]
struct InProcess {
    keyspace: Keyspace,
    /// Writes go as commands of the fleet.
    of_the_fleet: bool,
}

impl InProcess {
    /// A write, as the fleet's.
    async fn fleet_txn(&self, txn: pb::TxnRequest) -> Result<pb::TxnResponse, StoreError> {
        let request = FleetRequest { fence: None, ask: Some(Ask::Txn(txn)) };
        match self.keyspace.fleet_change(request).await? {
            FleetReply::Txn(response) => Ok(response),
            FleetReply::Done | FleetReply::Token { .. } | FleetReply::AuthToken { .. } => {
                Err(expect("the outcome of a transaction"))
            }
        }
    }

    /// One operation, as the fleet's.
    async fn fleet_op(
        &self,
        request: Operation,
    ) -> Result<(Option<pb::ResponseHeader>, Option<Outcome>), StoreError> {
        let success = vec![pb::RequestOp { request: Some(request) }];
        let response = self.fleet_txn(pb::TxnRequest { success, ..Default::default() }).await?;
        let outcome = response.responses.into_iter().next().and_then(|op| op.response);
        Ok((response.header, outcome))
    }
}

#[async_trait]
impl Calls for InProcess {
    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, StoreError> {
        Ok(self.keyspace.range(request).await?)
    }

    async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, StoreError> {
        if !self.of_the_fleet {
            return Ok(self.keyspace.put(request).await?);
        }
        match self.fleet_op(Operation::RequestPut(request)).await? {
            (header, Some(Outcome::ResponsePut(put))) => Ok(pb::PutResponse { header, ..put }),
            (_, _) => Err(expect("the outcome of a put")),
        }
    }

    async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, StoreError> {
        if !self.of_the_fleet {
            return Ok(self.keyspace.delete_range(request).await?);
        }
        match self.fleet_op(Operation::RequestDeleteRange(request)).await? {
            (header, Some(Outcome::ResponseDeleteRange(deleted))) => {
                Ok(pb::DeleteRangeResponse { header, ..deleted })
            }
            (_, _) => Err(expect("the outcome of a delete")),
        }
    }

    async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, StoreError> {
        if self.of_the_fleet && !is_read_only(&request) {
            return self.fleet_txn(request).await;
        }
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
        if self.of_the_fleet {
            // What hangs on it may be the fleet's: then a plain revocation is refused.
            let request = FleetRequest { fence: None, ask: Some(Ask::LeaseRevoke(lease)) };
            self.keyspace.fleet_change(request).await?;
        } else {
            self.keyspace.lease_revoke(pb::LeaseRevokeRequest { id: lease }).await?;
        }
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
    if let Refusal::ReservedPrefix(prefix) = refusal {
        StoreError::Denied(format!("keys under {} are the fleet's", prefix.as_str()))
    } else if *refusal == Refusal::LeaseNotFound {
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
    if matches!(refusal, Refusal::ReservedPrefix(_)) {
        return true;
    }
    [AuthRefusal::PermissionDenied, AuthRefusal::UserEmpty, AuthRefusal::InvalidToken]
        .iter()
        .any(|why| *refusal == Refusal::Auth(*why))
}
