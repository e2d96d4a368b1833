//! One committed log entry in, replies, changes and lease news out.
//!
//! ```text
//!   LogPayload ── Blank ─────────────────────────────────┐
//!              ── Membership ── MemberBook ──────────────┤
//!              ── Entry ── level? ── seen before? ── for each command:
//!                            │            │            alarms refuse? caller may not? ── decide ── reply
//!                        Corrupt      duplicate                                             │
//!                                                     Changes <─────────────────────────────┘
//!   WriteBatch <── Changes + MachineRecord
//! ```

use bytes::Bytes;
use prost::Message;

use crate::api::batch::{Space, WriteBatch};
use crate::api::ids::{LeaseId, LogId, Revision};
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::internal;
use crate::api::pb::internal::command::Request;
use crate::api::pb::internal::log_payload::Payload;
use crate::api::refusal::{Corrupt, Refusal};
use crate::api::reply::{Applied, Reply};
use crate::api::view::View;

use super::auth::Caller;
use super::changes::{Changes, LEVEL};
use super::mvcc::range::header;
use super::mvcc::write::WriteTxn;
use super::{CLUSTER_LEVEL, LEVEL_OF_EARLIER_MEMBERS, StateMachine, fleet, records, txn};

/// How many revisions [`StateMachine::cold_reads`] names at most: a prefetch beyond it would fill memory instead of
/// saving time.
const COLD_READS_MAX: usize = 10_000;

impl StateMachine {
    /// Decides one committed log entry. Deterministic: the same entries in the same order give the same results,
    /// however they are packed. An error means memory, disk or code is broken; the state is then undefined and the
    /// member must stop.
    pub fn apply(
        &mut self,
        view: &impl View,
        at: LogId,
        payload: &internal::LogPayload,
    ) -> Result<Applied, Corrupt> {
        self.follows(at)?;
        let mut applied = Applied::default();
        let mut changes = Changes::new(self.rolling_hash);
        match &payload.payload {
            Some(Payload::Blank(_)) => {}
            Some(Payload::Membership(membership)) => {
                self.members.change(at, membership, self.cluster_level, &mut changes);
            }
            Some(Payload::Entry(entry)) => {
                self.check_level(at, entry.level)?;
                if self.proposers.admit(entry, &mut changes) {
                    self.last_time_ms = entry.time_ms;
                    applied.replies = self.apply_commands(view, at, entry, &mut changes)?;
                } else {
                    applied.duplicate = true;
                }
            }
            None => return Err(undecodable(at, "an entry of no known kind")),
        }
        self.applied = Some(at);
        self.rolling_hash = changes.hash();
        let machine = self.machine_record();
        changes.record_unhashed(Space::Machine, Bytes::new(), Some(machine));
        applied.leases = std::mem::take(&mut changes.leases);
        applied.tokens = std::mem::take(&mut changes.tokens);
        applied.batch = WriteBatch {
            applied: at,
            records: changes.take_records(),
            revisions: changes.revisions,
            revision: self.mvcc.revision,
            compacted_to: changes.compacted_to,
        };
        Ok(applied)
    }

    fn follows(&self, at: LogId) -> Result<(), Corrupt> {
        match self.applied {
            Some(applied) if at.index <= applied.index || at.term < applied.term => {
                Err(Corrupt::Invariant(format!("entry {at} was handed to a state at {applied}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_level(&self, at: LogId, needed: u32) -> Result<(), Corrupt> {
        if needed > CLUSTER_LEVEL {
            return Err(Corrupt::LevelTooNew { index: at.index, needed, known: CLUSTER_LEVEL });
        }
        Ok(())
    }

    fn apply_commands(
        &mut self,
        view: &impl View,
        at: LogId,
        entry: &internal::Entry,
        changes: &mut Changes,
    ) -> Result<Vec<Result<Reply, Refusal>>, Corrupt> {
        let mut replies = Vec::with_capacity(entry.commands.len());
        for command in &entry.commands {
            let request = command
                .request
                .as_ref()
                .ok_or_else(|| undecodable(at, "a command of no known kind"))?;
            replies.push(match self.admit(command, request) {
                Ok(()) => self.decide(view, at, request, changes)?,
                Err(refusal) => Err(refusal),
            });
        }
        Ok(replies)
    }

    /// Whether the alarms, the caller's permissions and the fleet let a command pass. In etcd, too, alarms speak first.
    fn admit(&self, command: &internal::Command, request: &Request) -> Result<(), Refusal> {
        self.alarms.check(request)?;
        if self.auth.is_enabled() {
            let caller = Caller::of(command);
            self.auth.check_command(&caller, request, &self.leases, self.cluster_level)?;
        }
        self.fleet.check_reserved(request, &self.leases)
    }

    fn decide(
        &mut self,
        view: &impl View,
        at: LogId,
        request: &Request,
        changes: &mut Changes,
    ) -> Result<Result<Reply, Refusal>, Corrupt> {
        Ok(match request {
            Request::Put(put) => self.put(view, put, changes)?.map(Reply::Put),
            Request::DeleteRange(delete) => {
                let mut write = self.write(view, changes);
                let answer = write.delete_range(delete)?;
                write.end();
                Ok(Reply::DeleteRange(answer))
            }
            Request::Txn(txn) => txn::apply(self.write(view, changes), txn)?.map(Reply::Txn),
            Request::Compaction(compaction) => self.compact(compaction, changes),
            Request::LeaseGrant(grant) => self.grant(grant, changes),
            Request::LeaseRevoke(revoke) => {
                self.end_lease(view, LeaseId(revoke.id), changes).map(|()| {
                    Reply::LeaseRevoke(pb::LeaseRevokeResponse {
                        header: header(self.mvcc.revision),
                    })
                })
            }
            Request::LeaseExpiry(expiry) => self.expire(view, at, expiry, changes),
            Request::LeaseCheckpoint(checkpoint) => Ok(self.checkpoint(checkpoint, changes)),
            Request::Alarm(alarm) => Ok(Reply::Alarm(pb::AlarmResponse {
                alarms: self.alarms.apply(alarm, changes),
                header: header(self.mvcc.revision),
            })),
            Request::MemberAttributes(attributes) => {
                self.members.tell(attributes, changes);
                Ok(Reply::Done)
            }
            Request::ClusterLevel(level) => {
                self.raise_level(at, level.level, changes)?;
                Ok(Reply::Done)
            }
            Request::Auth(auth) => self
                .auth
                .apply(auth, header(self.mvcc.revision), changes)
                .ok_or_else(|| undecodable(at, "an auth request of no known kind"))?
                .map(Reply::Auth),
            Request::Fleet(fleet) => {
                let ask = fleet.ask.as_ref();
                let ask = ask.ok_or_else(|| undecodable(at, "a fleet request of no known kind"))?;
                self.steer(view, fleet.fence.as_ref(), ask, changes)?.map(Reply::Fleet)
            }
        })
    }

    pub(super) fn write<'a, V: View>(
        &'a mut self,
        view: &'a V,
        changes: &'a mut Changes,
    ) -> WriteTxn<'a, V> {
        WriteTxn::begin(&mut self.mvcc, &mut self.leases, changes, view)
    }

    fn put(
        &mut self,
        view: &impl View,
        put: &pb::PutRequest,
        changes: &mut Changes,
    ) -> Result<Result<pb::PutResponse, Refusal>, Corrupt> {
        if let Err(refusal) = txn::check_put(&self.mvcc, &self.leases, put) {
            return Ok(Err(refusal));
        }
        let mut write = self.write(view, changes);
        let answer = write.put(put)?;
        write.end();
        Ok(Ok(answer))
    }

    fn compact(
        &mut self,
        compaction: &pb::CompactionRequest,
        changes: &mut Changes,
    ) -> Result<Reply, Refusal> {
        self.mvcc.compact(compaction.revision, changes)?;
        Ok(Reply::Compaction(pb::CompactionResponse { header: header(self.mvcc.revision) }))
    }

    fn grant(
        &mut self,
        grant: &pb::LeaseGrantRequest,
        changes: &mut Changes,
    ) -> Result<Reply, Refusal> {
        self.leases.grant(LeaseId(grant.id), grant.ttl, changes)?;
        Ok(Reply::LeaseGrant(pb::LeaseGrantResponse {
            header: header(self.mvcc.revision),
            id: grant.id,
            ttl: grant.ttl,
            error: String::new(),
        }))
    }

    /// Ends a lease and deletes its keys in one revision, in key order; without keys there is no revision.
    pub(super) fn end_lease(
        &mut self,
        view: &impl View,
        id: LeaseId,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        let keys = self.leases.end(id, changes)?;
        let mut write = self.write(view, changes);
        for key in keys {
            write.delete(key.into());
        }
        write.end();
        Ok(())
    }

    /// Ends leases that ran out, each in a revision of its own as if revoked one by one; those that have ended
    /// meanwhile are passed over. Refused in any term but the one it was decided in: a deposed leader's late
    /// expiry must not end a lease that its successor has renewed.
    fn expire(
        &mut self,
        view: &impl View,
        at: LogId,
        expiry: &internal::LeaseExpiry,
        changes: &mut Changes,
    ) -> Result<Reply, Refusal> {
        if expiry.term != at.term.0 {
            return Err(Refusal::StaleLeaseExpiry);
        }
        for id in &expiry.lease_ids {
            match self.end_lease(view, LeaseId(*id), changes) {
                Ok(()) | Err(Refusal::LeaseNotFound) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(Reply::Done)
    }

    fn checkpoint(&mut self, request: &pb::LeaseCheckpointRequest, changes: &mut Changes) -> Reply {
        for checkpoint in &request.checkpoints {
            let id = LeaseId(checkpoint.id);
            self.leases.checkpoint(id, checkpoint.remaining_ttl, changes);
        }
        Reply::LeaseCheckpoint(pb::LeaseCheckpointResponse { header: header(self.mvcc.revision) })
    }

    /// Raises the cluster level, never lowers it. One beyond this member's own stops it here, before it meets
    /// an entry that it would misread.
    fn raise_level(&mut self, at: LogId, level: u32, changes: &mut Changes) -> Result<(), Corrupt> {
        self.check_level(at, level)?;
        if level > self.cluster_level {
            let notes = (self.cluster_level + 1..=level).contains(&LEVEL_OF_EARLIER_MEMBERS);
            self.cluster_level = level;
            changes.roll_fact(LEVEL, u64::from(level));
            if notes {
                self.members.note_gone(self.proposers.ids(), changes);
            }
        }
        Ok(())
    }

    /// Revisions that `apply` would read through the view now: to be read ahead, off the raft thread. A hint: what
    /// is missing, `apply` reads itself.
    pub fn cold_reads(&self, payload: &internal::LogPayload) -> Vec<Revision> {
        let mut cold = Vec::new();
        let Some(Payload::Entry(entry)) = &payload.payload else {
            return cold;
        };
        for command in &entry.commands {
            if cold.len() >= COLD_READS_MAX {
                break;
            }
            match &command.request {
                Some(Request::Put(put)) => txn::cold_in_put(&self.mvcc, put, &mut cold),
                Some(Request::DeleteRange(delete)) => {
                    txn::cold_in_delete(&self.mvcc, delete, COLD_READS_MAX, &mut cold);
                }
                Some(Request::Txn(txn)) => {
                    txn::cold_reads(&self.mvcc, txn, COLD_READS_MAX, &mut cold);
                }
                Some(Request::Fleet(fleet)) => {
                    if let Some(txn) = fleet::txn_of(fleet) {
                        txn::cold_reads(&self.mvcc, txn, COLD_READS_MAX, &mut cold);
                    }
                }
                Some(
                    Request::Compaction(_)
                    | Request::LeaseGrant(_)
                    | Request::LeaseRevoke(_)
                    | Request::LeaseExpiry(_)
                    | Request::LeaseCheckpoint(_)
                    | Request::Alarm(_)
                    | Request::MemberAttributes(_)
                    | Request::ClusterLevel(_)
                    | Request::Auth(_),
                )
                | None => {}
            }
        }
        cold.sort_unstable();
        cold.dedup();
        cold
    }

    /// The counters as a record's value.
    pub(crate) fn machine_record(&self) -> Bytes {
        self.machine_state().encode_to_vec().into()
    }

    pub(crate) fn machine_state(&self) -> internal::MachineRecord {
        internal::MachineRecord {
            applied: self.applied.map(records::position),
            revision: self.mvcc.revision,
            compact_revision: self.mvcc.compact_revision,
            rolling_hash: self.rolling_hash,
            cluster_level: self.cluster_level,
            last_time_ms: self.last_time_ms,
        }
    }
}

fn undecodable(at: LogId, reason: &str) -> Corrupt {
    Corrupt::Undecodable { what: format!("log entry {at}"), reason: reason.to_owned() }
}
