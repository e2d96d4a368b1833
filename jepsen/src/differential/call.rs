//! The calls of a run, as data: pure functions of the seed, so that any part of a run can be replayed alone.
//!
//! Revisions are written relative to the revision the oracle is at when the call is made: a run with calls left out
//! (shrinking) still asks sensible questions. [`relative`] encodes "current + n" in the `i64` fields of the protocol's own
//! messages, far from any real revision; [`Call::at`] puts the real numbers in.

use crate::pb::etcdserverpb::compare::TargetUnion;
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseTimeToLiveRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
};

const RELATIVE_ZERO: i64 = 1 << 40;
const RELATIVE_REACH: i64 = 1 << 20;

/// "The current revision plus `offset`", to be resolved by [`Call::at`].
pub(super) fn relative(offset: i64) -> i64 {
    RELATIVE_ZERO + offset
}

fn resolve(revision: &mut i64, current: i64) {
    let offset = *revision - RELATIVE_ZERO;
    if offset.abs() < RELATIVE_REACH {
        *revision = current + offset;
    }
}

/// One step of the script, sent to both servers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Call {
    Range(RangeRequest),
    RangeStream(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    /// Grants with id 0 or a TTL below the minimum, looks, and revokes before it can expire.
    GrantAndRevoke(LeaseGrantRequest),
    /// Grants the shortest lease, hangs a key on it and waits until the key is gone.
    Expire(PutRequest),
    Revoke(i64),
    KeepAlive(i64),
    TimeToLive(LeaseTimeToLiveRequest),
    Leases,
    HashKv(i64),
    MemberList(bool),
    Status,
    WatchCreate(usize, WatchCreateRequest),
    WatchCancel(usize, i64),
    WatchProgress(usize),
    /// Drops the stream with all its watchers and opens another.
    WatchReopen(usize),
    /// Waits until every watcher has heard everything, and compares.
    WatchSettle,
}

impl Call {
    /// Whether the store is the same after it, however it was answered.
    pub(super) fn only_reads(&self) -> bool {
        matches!(
            self,
            Self::Range(_)
                | Self::RangeStream(_)
                | Self::TimeToLive(_)
                | Self::Leases
                | Self::HashKv(_)
                | Self::MemberList(_)
                | Self::Status
        )
    }

    /// The call with real revisions in it.
    pub(super) fn at(mut self, current: i64) -> Self {
        match &mut self {
            Self::Range(request) | Self::RangeStream(request) => range_at(request, current),
            Self::Txn(request) => txn_at(request, current),
            Self::Compact(request) => resolve(&mut request.revision, current),
            Self::HashKv(revision) => resolve(revision, current),
            Self::WatchCreate(_, request) => {
                let negative_on_purpose = request.start_revision < 0;
                resolve(&mut request.start_revision, current);
                if !negative_on_purpose {
                    request.start_revision = request.start_revision.max(0);
                }
            }
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Grant(_)
            | Self::GrantAndRevoke(_)
            | Self::Expire(_)
            | Self::Revoke(_)
            | Self::KeepAlive(_)
            | Self::TimeToLive(_)
            | Self::Leases
            | Self::MemberList(_)
            | Self::Status
            | Self::WatchCancel(..)
            | Self::WatchProgress(_)
            | Self::WatchReopen(_)
            | Self::WatchSettle => {}
        }
        self
    }
}

fn range_at(request: &mut RangeRequest, current: i64) {
    for revision in [
        &mut request.revision,
        &mut request.min_mod_revision,
        &mut request.max_mod_revision,
        &mut request.min_create_revision,
        &mut request.max_create_revision,
    ] {
        resolve(revision, current);
    }
}

fn txn_at(request: &mut TxnRequest, current: i64) {
    for compare in &mut request.compare {
        match &mut compare.target_union {
            Some(TargetUnion::CreateRevision(revision) | TargetUnion::ModRevision(revision)) => {
                resolve(revision, current)
            }
            Some(TargetUnion::Version(_) | TargetUnion::Value(_) | TargetUnion::Lease(_))
            | None => {}
        }
    }
    for RequestOp { request } in request.success.iter_mut().chain(&mut request.failure) {
        match request {
            Some(Request::RequestRange(range)) => range_at(range, current),
            Some(Request::RequestTxn(txn)) => txn_at(txn, current),
            Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => {}
        }
    }
}
