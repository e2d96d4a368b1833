//! The calls of a run, as data: pure functions of the seed, so that any part of a run can be replayed alone.
//!
//! Revisions are written relative to the revision the oracle is at when the call is made, or to its last compaction: a
//! run with calls left out (shrinking) still asks sensible questions. [`relative`] and [`since_compaction`] encode "that
//! plus n" in the `i64` fields of the protocol's own messages, far from any real revision; [`Call::at`] puts the real
//! numbers in.

use super::auth::call::AuthCall;
use super::members::MemberCall;
use super::upkeep::UpkeepCall;
use crate::pb::etcdserverpb::compare::TargetUnion;
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseTimeToLiveRequest,
    PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
};

/// Stands for the id of whichever member is asked.
pub(super) const OWN_MEMBER: u64 = u64::MAX - 1;

const RELATIVE_ZERO: i64 = 1 << 40;
const COMPACTION_ZERO: i64 = 1 << 41;
const RELATIVE_REACH: i64 = 1 << 20;

/// "The current revision plus `offset`", to be resolved by [`Call::at`].
pub(super) fn relative(offset: i64) -> i64 {
    RELATIVE_ZERO + offset
}

/// "The revision of the last compaction plus `offset`", to be resolved by [`Call::at`].
pub(super) fn since_compaction(offset: i64) -> i64 {
    COMPACTION_ZERO + offset
}

/// Where the oracle is when a call is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) current: i64,
    /// 0 before the first compaction.
    pub(super) compacted: i64,
}

impl Place {
    fn resolve(self, revision: &mut i64) {
        for (zero, base) in [(RELATIVE_ZERO, self.current), (COMPACTION_ZERO, self.compacted)] {
            let offset = revision.saturating_sub(zero);
            if offset.saturating_abs() < RELATIVE_REACH {
                *revision = base + offset;
                return;
            }
        }
    }

    fn resolve_range(self, request: &mut RangeRequest) {
        for revision in [
            &mut request.revision,
            &mut request.min_mod_revision,
            &mut request.max_mod_revision,
            &mut request.min_create_revision,
            &mut request.max_create_revision,
        ] {
            self.resolve(revision);
        }
    }

    fn resolve_txn(self, request: &mut TxnRequest) {
        for compare in &mut request.compare {
            match &mut compare.target_union {
                Some(
                    TargetUnion::CreateRevision(revision) | TargetUnion::ModRevision(revision),
                ) => self.resolve(revision),
                Some(TargetUnion::Version(_) | TargetUnion::Value(_) | TargetUnion::Lease(_))
                | None => {}
            }
        }
        for RequestOp { request } in request.success.iter_mut().chain(&mut request.failure) {
            match request {
                Some(Request::RequestRange(range)) => self.resolve_range(range),
                Some(Request::RequestTxn(txn)) => self.resolve_txn(txn),
                Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => {}
            }
        }
    }
}

/// Many keys at once: written, read back, read as a stream, deleted; compacted away by whoever plays it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Burst {
    pub(super) write: TxnRequest,
    pub(super) range: RangeRequest,
    pub(super) stream: RangeRequest,
    pub(super) delete: DeleteRangeRequest,
}

/// A watcher on a stream of its own; once it is there, root makes a call and puts; what is heard of that.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Follow {
    pub(super) watch: WatchCreateRequest,
    pub(super) meanwhile: AuthCall,
    pub(super) put: PutRequest,
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
    Alarm(AlarmRequest),
    Auth(AuthCall),
    Member(MemberCall),
    Upkeep(UpkeepCall),
    /// Creates a watcher on a stream of its own, and hears one answer.
    Look(WatchCreateRequest),
    Follow(Box<Follow>),
    Burst(Box<Burst>),
    /// SIGTERM, and another start on the same data; then everything is read.
    Restart,
    WatchCreate(usize, WatchCreateRequest),
    WatchCancel(usize, i64),
    WatchProgress(usize),
    /// A request that asks for nothing.
    WatchNothing(usize),
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
    pub(super) fn at(mut self, place: Place) -> Self {
        match &mut self {
            Self::Range(request) | Self::RangeStream(request) => place.resolve_range(request),
            Self::Txn(request) => place.resolve_txn(request),
            Self::Compact(request) => place.resolve(&mut request.revision),
            Self::HashKv(revision) => place.resolve(revision),
            Self::WatchCreate(_, request) => {
                let negative_on_purpose = request.start_revision < 0;
                place.resolve(&mut request.start_revision);
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
            | Self::Alarm(_)
            | Self::Auth(_)
            | Self::Member(_)
            | Self::Upkeep(_)
            | Self::Look(_)
            | Self::Follow(_)
            | Self::Burst(_)
            | Self::Restart
            | Self::WatchCancel(..)
            | Self::WatchProgress(_)
            | Self::WatchNothing(_)
            | Self::WatchReopen(_)
            | Self::WatchSettle => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_revisions_become_real_and_others_stay() {
        let place = Place { current: 50, compacted: 20 };
        let at = |revision| match Call::HashKv(revision).at(place) {
            Call::HashKv(revision) => revision,
            other => panic!("{other:?}"),
        };
        assert_eq!(at(relative(-3)), 47);
        assert_eq!(at(since_compaction(1)), 21);
        for revision in [0, -1, 7, i64::MAX, i64::MIN] {
            assert_eq!(at(revision), revision);
        }
    }
}
