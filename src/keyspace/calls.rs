//! The calls, each in etcd's order of checks: quota, shape, then the log or the state (v3rpc/quota.go, key.go).

use std::future::ready;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use quorate_core::api::ids::LeaseId;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::alarm_request::AlarmAction;
use quorate_core::api::pb::internal::command::Request;
use quorate_core::api::pb::internal::keyspace_request::Ask;
use quorate_core::api::pb::internal::keyspace_response::Answer;
use quorate_core::api::refusal::{Corrupt, Refusal};
use quorate_core::api::reply::Reply;
use quorate_core::state_machine::auth::Caller;
use quorate_core::state_machine::check::{
    check_delete_range, check_put, check_range, check_range_stream, check_txn,
};
use quorate_core::state_machine::{Limits, StateMachine, quota, txn};
use rand::RngCore as _;
use tokio::time::{Instant, timeout};

use super::auth::Permit;
use super::figures::Read;
use super::lease::admit_grant;
use super::upkeep::{downgrade, raise_nospace};
use super::watch::{WatchHub, WatchStream};
use super::{Keyspace, KeyspaceError, RangeChunks, TimeoutKind, members};

/// How long a defragmentation waits for compactions that were decided before it.
const SWEEP_FOR: Duration = Duration::from_secs(10);

/// A reply of another kind than its request asks for: the state machine and this floor disagree.
pub(super) fn unexpected(reply: &impl std::fmt::Debug) -> KeyspaceError {
    let kind = format!("{reply:?}");
    let kind = kind.split('(').next().unwrap_or_default();
    KeyspaceError::Corrupt(Corrupt::Invariant(format!("a reply of another kind: {kind}")))
}

/// The leader answered another question than was asked.
fn unexpected_answer(answer: &Answer) -> KeyspaceError {
    tracing::warn!(?answer, "the leader answered another question than was asked");
    KeyspaceError::Timeout(TimeoutKind::Plain)
}

impl Keyspace {
    /// Range: linearizable unless `serializable`.
    pub async fn range(
        &self,
        request: pb::RangeRequest,
    ) -> Result<pb::RangeResponse, KeyspaceError> {
        check_range(&request)?;
        let began = Instant::now();
        let answered = self.read_range(request).await;
        self.0.figures.read(Read::Range, answered.is_ok(), began.elapsed());
        answered
    }

    async fn read_range(
        &self,
        request: pb::RangeRequest,
    ) -> Result<pb::RangeResponse, KeyspaceError> {
        let permit = self.permit_range(&request).await?;
        let response = self.0.reader.range(request).await?;
        self.still_permitted(&permit)?;
        Ok(response)
    }

    /// The same in chunks, pinned to one revision (etcd 3.7). If users or roles change meanwhile, its last word is the
    /// refusal.
    pub async fn range_stream(
        &self,
        request: pb::RangeRequest,
    ) -> Result<RangeChunks, KeyspaceError> {
        check_range_stream(&request)?;
        let permit = self.permit_range(&request).await?;
        let chunks = self.0.reader.range_stream(request).await?;
        if permit.is_free() {
            return Ok(chunks);
        }
        let keyspace = self.clone();
        let last = async move { keyspace.still_permitted(&permit).err().map(Err) };
        Ok(Box::pin(chunks.chain(stream::once(last).filter_map(ready))))
    }

    async fn permit_range(&self, request: &pb::RangeRequest) -> Result<Permit, KeyspaceError> {
        if !request.serializable {
            self.0.reader.linearize().await?;
        }
        let (key, end) = (&request.key, &request.range_end);
        self.permit(|machine, caller| machine.auth().check_read(caller, key, end)).await
    }

    /// Put.
    pub async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, KeyspaceError> {
        self.check_quota(quota::put_cost(&request)).await?;
        check_put(&request)?;
        match self.write(Request::Put(request)).await? {
            Reply::Put(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    /// DeleteRange.
    pub async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, KeyspaceError> {
        check_delete_range(&request)?;
        match self.write(Request::DeleteRange(request)).await? {
            Reply::DeleteRange(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    /// Txn; one that only reads does not enter the log.
    pub async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, KeyspaceError> {
        self.check_quota(quota::txn_cost(&request)).await?;
        check_txn(&request, self.limits())?;
        if txn::is_read_only(&request) {
            let began = Instant::now();
            let answered = self.read_only_txn(request).await;
            self.0.figures.read(Read::Txn, answered.is_ok(), began.elapsed());
            return answered;
        }
        match self.write(Request::Txn(request)).await? {
            Reply::Txn(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    async fn read_only_txn(
        &self,
        request: pb::TxnRequest,
    ) -> Result<pb::TxnResponse, KeyspaceError> {
        if !txn::is_serializable(&request) {
            self.0.reader.linearize().await?;
        }
        let permit = self.permit(|machine, caller| machine.check_read_only(caller, &request));
        let permit = permit.await?;
        let response = self.0.reader.read_only_txn(request).await?;
        self.still_permitted(&permit)?;
        Ok(response)
    }

    /// Compact; with `physical` it waits until the dead revisions are gone from index and store.
    pub async fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, KeyspaceError> {
        self.require_admin().await?;
        match self.write(Request::Compaction(request)).await? {
            Reply::Compaction(response) => {
                if request.physical {
                    self.0.sweeper.wait_swept(request.revision).await?;
                }
                Ok(response)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// LeaseGrant: id 0 is replaced, the TTL raised to the minimum.
    pub async fn lease_grant(
        &self,
        request: pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, KeyspaceError> {
        self.check_quota(quota::cost(&Request::LeaseGrant(request))).await?;
        let draw = || self.0.random.lock().next_u64();
        let grant = admit_grant(request, self.0.config.election_timeout, draw);
        match self.write(Request::LeaseGrant(grant)).await? {
            Reply::LeaseGrant(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    /// LeaseRevoke: deletes the keys that hang on it, in one revision.
    pub async fn lease_revoke(
        &self,
        request: pb::LeaseRevokeRequest,
    ) -> Result<pb::LeaseRevokeResponse, KeyspaceError> {
        match self.write(Request::LeaseRevoke(request)).await? {
            Reply::LeaseRevoke(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    /// One keep-alive: the TTL in seconds after the renewal, 0 for a lease that is unknown or has run out.
    pub async fn lease_keep_alive(&self, id: LeaseId) -> Result<i64, KeyspaceError> {
        let permit = self.permit(|machine, caller| machine.check_lease_renew(caller, id)).await?;
        self.unchanged_since(&permit)?;
        self.check_renewable(id)?;
        match self.ask_leader(Ask::LeaseRenew(id.0)).await? {
            Answer::LeaseRenewed(ttl) => Ok(ttl),
            other => Err(unexpected_answer(&other)),
        }
    }

    /// LeaseTimeToLive: TTL -1 for an unknown lease.
    pub async fn lease_time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, KeyspaceError> {
        let (id, keys) = (LeaseId(request.id), request.keys);
        let check = |machine: &StateMachine, caller: &Caller| {
            machine.check_lease_time_to_live(caller, id, keys)
        };
        let permit = self.permit(check).await?;
        match self.ask_leader(Ask::LeaseTimeToLive(request)).await? {
            Answer::LeaseTimeToLive(response) => {
                if keys {
                    self.unchanged_since(&permit)?;
                }
                Ok(pb::LeaseTimeToLiveResponse { header: self.revision_header(), ..response })
            }
            other => Err(unexpected_answer(&other)),
        }
    }

    /// LeaseLeases: local, by deadline where they are held.
    pub async fn lease_leases(&self) -> Result<pb::LeaseLeasesResponse, KeyspaceError> {
        let permit = self.permit(StateMachine::check_lease_leases).await?;
        let ids = self.0.lessor.leases();
        self.unchanged_since(&permit)?;
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id: id.0 });
        Ok(pb::LeaseLeasesResponse { header: self.revision_header(), leases: leases.collect() })
    }

    /// A client's stream of watchers. Whoever hands it a client's requests asks [`Keyspace::require_watchable`] first.
    pub fn watch(&self) -> WatchStream {
        self.0.hub.open()
    }

    /// All watchers of this member, for metrics.
    pub fn watch_hub(&self) -> &WatchHub {
        &self.0.hub
    }

    /// Alarm GET, ACTIVATE and DEACTIVATE; all go through the log.
    pub async fn alarm(
        &self,
        request: pb::AlarmRequest,
    ) -> Result<pb::AlarmResponse, KeyspaceError> {
        if request.action == AlarmAction::Get as i32 {
            self.require_user().await?;
        } else {
            self.require_admin().await?;
        }
        match self.write(Request::Alarm(request)).await? {
            Reply::Alarm(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    }

    /// HashKV at a revision, 0 for the current one: of a finished compaction to exactly that revision first, even
    /// below today's compact revision, then computed.
    pub async fn hash_kv(&self, revision: i64) -> Result<pb::HashKvResponse, KeyspaceError> {
        self.require_admin().await?;
        let (hash, current) = self.hashes().at(revision).await?;
        Ok(pb::HashKvResponse {
            header: Some(pb::ResponseHeader { revision: current, ..Default::default() }),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.revision,
        })
    }

    /// Hash of everything applied: comparable between members of this software at the same applied index.
    pub async fn hash(&self) -> Result<pb::HashResponse, KeyspaceError> {
        self.require_admin().await?;
        let began = Instant::now();
        let rolling = self.0.state.machine.read().rolling_hash();
        self.0.figures.hash.observe(began.elapsed().as_secs_f64());
        Ok(pb::HashResponse {
            header: self.revision_header(),
            hash: crc32c::crc32c(&rolling.to_be_bytes()),
        })
    }

    /// Defragment: gives back what the state store holds for nothing, on this member alone, while everything goes on.
    /// It is done even if the caller goes away.
    pub async fn defragment(&self) -> Result<(), KeyspaceError> {
        // What a compaction has made dead is to go with it, unless a reader holds it.
        let compacted = self.compact_revision();
        if let Ok(stopped) = timeout(SWEEP_FOR, self.0.sweeper.wait_swept(compacted)).await {
            stopped?;
        }
        let store = self.0.state.store();
        let asked = store.request_defragment();
        if let Err(error) = store.run_upkeep() {
            return Err(KeyspaceError::DefragmentFailed(error.to_string()));
        }
        let done = store.defragmented(asked).await;
        done.map_err(|error| KeyspaceError::DefragmentFailed(error.to_string()))
    }

    /// Downgrade: whether it may be answered with the cluster's version, which it is when there is nothing to do.
    pub async fn downgrade(&self, request: &pb::DowngradeRequest) -> Result<(), KeyspaceError> {
        downgrade(request)
    }

    /// Members sorted by id. Its header has no revision, as in etcd.
    pub async fn member_list(
        &self,
        linearizable: bool,
    ) -> Result<pb::MemberListResponse, KeyspaceError> {
        if linearizable {
            self.0.reader.linearize().await?;
        }
        self.require_user().await?;
        Ok(pb::MemberListResponse {
            header: Some(pb::ResponseHeader::default()),
            members: members::list(&self.0.state.machine.read()),
        })
    }

    pub(super) fn limits(&self) -> Limits {
        self.0.reader.limits
    }

    fn revision_header(&self) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { revision: self.revision(), ..pb::ResponseHeader::default() })
    }

    /// Refuses growth beyond the quota, or beyond the disk, and raises the alarm that makes every member refuse it.
    async fn check_quota(&self, cost: u64) -> Result<(), KeyspaceError> {
        let store = self.0.state.store();
        let within = match self.0.config.quota() {
            Some(quota) => quota::fits(store.db_size(), cost, quota),
            None => true,
        };
        if within && (cost == 0 || store.growth_refused().is_none()) {
            return Ok(());
        }
        raise_nospace(&self.0.writer).await;
        Err(KeyspaceError::Refused(Refusal::NoSpace))
    }
}
