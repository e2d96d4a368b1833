//! Floor 4, serve a keyspace: the calls of etcd's API, over one raft group and one store.
//!
//! ```text
//!   put, txn, ..  --> write: packs what waits --> consensus --> journal
//!                                                     |
//!                                                  sink: apply, commit, publish --> answers the waiters
//!   range, ..     --> read: read index, wait until applied, select, fetch
//!   watch, lease      fed by the sink
//!   upkeep            compaction, hashes, alarms            members   who they are
//! ```
//!
//! **Invariant:** only what has been committed and applied here answers a client or feeds a watcher.
//! **Invariant:** tonic and TLS are unknown on this floor; headers carry `revision`, the service adds the rest
//! from [`Keyspace::header`].

pub mod config;
mod error;
pub mod lease;
pub mod watch;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use quorate_core::api::ids::{LeaseId, MemberId};
use quorate_core::api::pb::etcdserverpb as pb;

pub use config::{AutoCompaction, InitialMember, KeyspaceConfig, Seams};
pub use error::{KeyspaceError, TimeoutKind};

/// The answers of one `RangeStream`: `kvs` in every chunk, header, `more` and `count` in the last alone.
pub type RangeChunks =
    Pin<Box<dyn Stream<Item = Result<pb::RangeStreamResponse, KeyspaceError>> + Send>>;

/// One running keyspace. Cheap to clone; [`Keyspace::shutdown`] ends it for all.
#[derive(Clone)]
pub struct Keyspace(Arc<Inner>);

struct Inner {}

/// What Maintenance.Status, health and metrics tell of this member.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusFacts {
    /// Accounted size of the database, in bytes: grows with every revision, as bbolt's file does.
    pub db_size: i64,
    /// The part of it that is in use.
    pub db_size_in_use: i64,
    /// The quota, in bytes; 0 when off.
    pub db_size_quota: i64,
    /// The leader, while it is known to lead.
    pub leader: Option<MemberId>,
    /// Committed log index.
    pub committed_index: u64,
    /// Applied log index.
    pub applied_index: u64,
    /// The term of the last applied entry.
    pub applied_term: u64,
    /// Alarms that stand.
    pub alarms: Vec<pb::AlarmMember>,
    /// Whether this member has no vote.
    pub learner: bool,
}

impl Keyspace {
    /// Range: linearizable unless `serializable`.
    pub async fn range(
        &self,
        request: pb::RangeRequest,
    ) -> Result<pb::RangeResponse, KeyspaceError> {
        let _ = (&self.0, request);
        Err(KeyspaceError::Unimplemented("range"))
    }

    /// The same in chunks, pinned to one revision (etcd 3.7).
    pub async fn range_stream(
        &self,
        request: pb::RangeRequest,
    ) -> Result<RangeChunks, KeyspaceError> {
        let _ = request;
        Err(KeyspaceError::Unimplemented("range_stream"))
    }

    /// Put.
    pub async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, KeyspaceError> {
        let _ = request;
        Err(KeyspaceError::Unimplemented("put"))
    }

    /// DeleteRange.
    pub async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, KeyspaceError> {
        let _ = request;
        Err(KeyspaceError::Unimplemented("delete_range"))
    }

    /// Txn; one that only reads does not enter the log.
    pub async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, KeyspaceError> {
        let _ = request;
        Err(KeyspaceError::Unimplemented("txn"))
    }

    /// Compact; with `physical` it waits until the dead revisions are gone from the store.
    pub async fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, KeyspaceError> {
        let _ = request;
        Err(KeyspaceError::Unimplemented("compact"))
    }

    /// LeaseGrant: id 0 is replaced, the TTL raised to the minimum.
    pub async fn lease_grant(
        &self,
        request: pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, KeyspaceError> {
        let _ = request;
        Err(KeyspaceError::Unimplemented("lease_grant"))
    }

    /// LeaseRevoke: deletes the keys that hang on it.
    pub async fn lease_revoke(
        &self,
        request: pb::LeaseRevokeRequest,
    ) -> Result<pb::LeaseRevokeResponse, KeyspaceError> {
        let _ = request;
        Err(KeyspaceError::Unimplemented("lease_revoke"))
    }

    /// One keep-alive: the TTL in seconds after the renewal, 0 for a lease that is unknown or has run out.
    pub async fn lease_keep_alive(&self, id: LeaseId) -> Result<i64, KeyspaceError> {
        let _ = id;
        Err(KeyspaceError::Unimplemented("lease_keep_alive"))
    }

    /// LeaseTimeToLive: TTL -1 for an unknown lease.
    pub async fn lease_time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, KeyspaceError> {
        let _ = request;
        Err(KeyspaceError::Unimplemented("lease_time_to_live"))
    }

    /// LeaseLeases: local, by expiry.
    pub async fn lease_leases(&self) -> Result<pb::LeaseLeasesResponse, KeyspaceError> {
        Err(KeyspaceError::Unimplemented("lease_leases"))
    }

    /// Alarm GET, ACTIVATE and DEACTIVATE; all go through the log.
    pub async fn alarm(
        &self,
        request: pb::AlarmRequest,
    ) -> Result<pb::AlarmResponse, KeyspaceError> {
        let _ = request;
        Err(KeyspaceError::Unimplemented("alarm"))
    }

    /// HashKV at a revision, 0 for the current one.
    pub async fn hash_kv(&self, revision: i64) -> Result<pb::HashKvResponse, KeyspaceError> {
        let _ = revision;
        Err(KeyspaceError::Unimplemented("hash_kv"))
    }

    /// Hash of everything stored: only comparable between members of this software.
    pub async fn hash(&self) -> Result<pb::HashResponse, KeyspaceError> {
        Err(KeyspaceError::Unimplemented("hash"))
    }

    /// Members sorted by id, with a header without revision, as in etcd.
    pub async fn member_list(
        &self,
        linearizable: bool,
    ) -> Result<pb::MemberListResponse, KeyspaceError> {
        let _ = linearizable;
        Err(KeyspaceError::Unimplemented("member_list"))
    }

    /// Who answers, at which revision, in which term.
    pub fn header(&self) -> pb::ResponseHeader {
        pb::ResponseHeader::default()
    }

    /// What Maintenance.Status, health and metrics tell of this member.
    pub fn status(&self) -> StatusFacts {
        StatusFacts {
            db_size: 0,
            db_size_in_use: 0,
            db_size_quota: 0,
            leader: None,
            committed_index: 0,
            applied_index: 0,
            applied_term: 0,
            alarms: Vec::new(),
            learner: false,
        }
    }

    /// Watches.
    pub fn watch(&self) -> watch::WatchHub {
        unreachable!()
    }
}
