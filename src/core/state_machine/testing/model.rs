//! etcd's key-value semantics once more, without an index: a list of all writes, read from its start each time.
//!
//! Kept apart from the implementation on purpose: it shares only the messages with it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::request_op::Request as Op;
use crate::api::pb::etcdserverpb::response_op::Response as OpResponse;
use crate::api::pb::internal::command::Request;
use crate::api::pb::internal::fleet_request::Ask;
use crate::api::pb::internal::{Command, FleetRequest};
use crate::api::pb::mvccpb::KeyValue;
use crate::api::refusal::{FleetRefusal, Refusal};
use crate::api::reply::{FleetReply, Reply};

use super::auth_model::AuthModel;
use super::fleet_model::{Around, FleetModel};

/// All that was ever written.
#[derive(Clone, Debug)]
pub struct Model {
    writes: Vec<Write>,
    revision: i64,
    compact_revision: i64,
    leases: BTreeMap<i64, i64>,
    alarms: Vec<(i32, u64)>,
    auth: AuthModel,
    fleet: FleetModel,
}

/// One key written, or deleted if it has no value.
#[derive(Clone, Debug)]
struct Write {
    revision: i64,
    key: Bytes,
    value: Option<(Bytes, i64)>,
}

type Keys = BTreeMap<Bytes, KeyValue>;

impl Default for Model {
    fn default() -> Self {
        Model {
            writes: Vec::new(),
            revision: 1,
            compact_revision: -1,
            leases: BTreeMap::new(),
            alarms: Vec::new(),
            auth: AuthModel::default(),
            fleet: FleetModel::default(),
        }
    }
}

impl Model {
    /// The current revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Keys that are there now.
    pub fn live_key_count(&self) -> usize {
        self.keys_now().len()
    }

    /// The compact revision.
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// The auth revision, and whether authentication is on.
    pub fn auth(&self) -> (u64, bool) {
        (self.auth.revision(), self.auth.is_enabled())
    }

    /// The store as it was at `revision`.
    fn keys_at(&self, revision: i64) -> Keys {
        let mut keys = Keys::new();
        for write in self.writes.iter().filter(|write| write.revision <= revision) {
            let Some((value, lease)) = &write.value else {
                keys.remove(&write.key);
                continue;
            };
            let kv = keys.entry(write.key.clone()).or_insert_with(|| KeyValue {
                key: write.key.clone(),
                create_revision: write.revision,
                ..KeyValue::default()
            });
            kv.mod_revision = write.revision;
            kv.version += 1;
            kv.value = value.clone();
            kv.lease = *lease;
        }
        keys
    }

    /// The store with the writes of an unfinished transaction.
    fn keys_now(&self) -> Keys {
        self.keys_at(i64::MAX)
    }

    fn dirty(&self) -> bool {
        self.writes.last().is_some_and(|write| write.revision > self.revision)
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            revision: self.revision + i64::from(self.dirty()),
            ..pb::ResponseHeader::default()
        })
    }

    fn finish(&mut self) {
        self.revision += i64::from(self.dirty());
    }

    /// Whether there is a fleet.
    pub fn has_fleet(&self) -> bool {
        self.fleet.is_begun()
    }

    /// Decides a command committed in `term` by an entry of the hour `now_ms`, as etcd's appliers would.
    pub fn apply(&mut self, term: u64, now_ms: i64, command: &Command) -> Result<Reply, Refusal> {
        let request = command.request.as_ref().expect("every command asks something");
        self.refuse_by_alarm(request)?;
        let asker = (command.user.as_str(), command.auth_revision);
        self.auth.permit(asker, request, &|id| self.keys_of(id))?;
        self.fleet.permit(request, &|id| self.keys_of(id))?;
        let reply = match request {
            Request::Fleet(fleet) => Reply::Fleet(self.steer(now_ms, fleet)?),
            _ => self.answer(term, request)?,
        };
        self.finish();
        Ok(reply)
    }

    fn keys_of(&self, lease: i64) -> Vec<Vec<u8>> {
        let exists = self.leases.contains_key(&lease);
        let keys = self.keys_now().into_values();
        keys.filter(|kv| exists && kv.lease == lease).map(|kv| kv.key.to_vec()).collect()
    }

    fn steer(&mut self, now_ms: i64, request: &FleetRequest) -> Result<FleetReply, Refusal> {
        let keys = self.keys_now();
        if let Some(fence) = &request.fence {
            let created = keys.get(&fence.key).map(|kv| kv.create_revision);
            if created != Some(fence.create_revision) {
                return Err(FleetRefusal::FenceLost.into());
            }
        }
        let ask = request.ask.as_ref().expect("every request of the fleet asks something");
        if !self.fleet.is_begun() && !matches!(ask, Ask::Bootstrap(_)) {
            return Err(FleetRefusal::NotBootstrapped.into());
        }
        if let Ask::Txn(txn) = ask {
            return Ok(FleetReply::Txn(self.txn(txn)?));
        }
        if let Ask::LeaseRevoke(id) = ask {
            if !self.leases.contains_key(id) {
                return Err(Refusal::LeaseNotFound);
            }
            self.end_lease(*id);
            return Ok(FleetReply::Done);
        }
        let live_keys: Vec<Bytes> = keys.into_keys().collect();
        let is_fenced = request.fence.is_some();
        let around = Around { now_ms, is_fenced, live_keys: &live_keys };
        let (reply, changes) = self.fleet.apply(ask, &around)?;
        for (key, value) in changes {
            self.write(key, value.map(|value| (value, 0)));
        }
        Ok(reply)
    }

    fn answer(&mut self, term: u64, request: &Request) -> Result<Reply, Refusal> {
        Ok(match request {
            Request::Put(put) => {
                self.check_put(put)?;
                Reply::Put(self.put(put))
            }
            Request::DeleteRange(delete) => Reply::DeleteRange(self.delete_range(delete)),
            Request::Txn(txn) => Reply::Txn(self.txn(txn)?),
            Request::Compaction(compaction) => {
                self.compact(compaction.revision)?;
                Reply::Compaction(pb::CompactionResponse { header: self.header() })
            }
            Request::LeaseGrant(grant) => {
                self.grant(grant)?;
                Reply::LeaseGrant(pb::LeaseGrantResponse {
                    header: self.header(),
                    id: grant.id,
                    ttl: grant.ttl,
                    error: String::new(),
                })
            }
            Request::LeaseRevoke(revoke) => {
                if !self.leases.contains_key(&revoke.id) {
                    return Err(Refusal::LeaseNotFound);
                }
                self.end_lease(revoke.id);
                Reply::LeaseRevoke(pb::LeaseRevokeResponse { header: self.header() })
            }
            Request::LeaseExpiry(expiry) => {
                if expiry.term != term {
                    return Err(Refusal::StaleLeaseExpiry);
                }
                for id in &expiry.lease_ids {
                    self.end_lease(*id);
                }
                Reply::Done
            }
            Request::LeaseCheckpoint(_) => {
                Reply::LeaseCheckpoint(pb::LeaseCheckpointResponse { header: self.header() })
            }
            Request::Alarm(alarm) => Reply::Alarm(self.alarm(alarm)),
            Request::MemberAttributes(_) | Request::ClusterLevel(_) => Reply::Done,
            Request::Auth(auth) => {
                let ask = auth.ask.as_ref().expect("every auth request asks something");
                Reply::Auth(self.auth.apply(ask, self.header())?)
            }
            Request::Fleet(_) => panic!("answered before"),
        })
    }

    fn refuse_by_alarm(&self, request: &Request) -> Result<(), Refusal> {
        let stands = |alarm: i32| self.alarms.iter().any(|(kind, _)| *kind == alarm);
        let (nospace, corrupt) = (stands(1), stands(2));
        match request {
            Request::Put(_) | Request::LeaseGrant(_) if nospace && !corrupt => {
                Err(Refusal::NoSpace)
            }
            Request::Txn(txn) if nospace && !corrupt && has_put(txn) => Err(Refusal::NoSpace),
            Request::LeaseCheckpoint(_)
            | Request::Alarm(_)
            | Request::MemberAttributes(_)
            | Request::ClusterLevel(_)
            | Request::Auth(_) => Ok(()),
            Request::Fleet(fleet) if corrupt && !FleetModel::is_cure(fleet) => {
                Err(Refusal::CorruptCluster)
            }
            Request::Fleet(_) => Ok(()),
            Request::Put(_)
            | Request::LeaseGrant(_)
            | Request::Txn(_)
            | Request::DeleteRange(_)
            | Request::Compaction(_)
            | Request::LeaseRevoke(_)
            | Request::LeaseExpiry(_) => {
                if corrupt {
                    Err(Refusal::CorruptCluster)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn check_put(&self, put: &pb::PutRequest) -> Result<(), Refusal> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        let ignores = put.ignore_value || put.ignore_lease;
        if ignores && !self.keys_at(self.revision).contains_key(&put.key) {
            return Err(Refusal::KeyNotFound);
        }
        Ok(())
    }

    fn put(&mut self, put: &pb::PutRequest) -> pb::PutResponse {
        let old = self.keys_now().remove(&put.key);
        let mut value = (put.value.clone(), put.lease);
        if let Some(old) = &old {
            if put.ignore_value {
                value.0 = old.value.clone();
            }
            if put.ignore_lease {
                value.1 = old.lease;
            }
        }
        self.write(put.key.clone(), Some(value));
        pb::PutResponse { header: self.header(), prev_kv: old.filter(|_| put.prev_kv) }
    }

    fn write(&mut self, key: Bytes, value: Option<(Bytes, i64)>) {
        self.writes.push(Write { revision: self.revision + 1, key, value });
    }

    fn delete_range(&mut self, delete: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let found = within(self.keys_now(), &delete.key, &delete.range_end);
        for kv in &found {
            self.write(kv.key.clone(), None);
        }
        pb::DeleteRangeResponse {
            header: self.header(),
            deleted: found.len() as i64,
            prev_kvs: if delete.prev_kv { found } else { Vec::new() },
        }
    }

    fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.compact_revision {
            return Err(Refusal::Compacted);
        }
        if revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        self.compact_revision = revision;
        Ok(())
    }

    fn grant(&mut self, grant: &pb::LeaseGrantRequest) -> Result<(), Refusal> {
        if grant.id == 0 {
            return Err(Refusal::LeaseNotFound);
        }
        if grant.ttl > 9_000_000_000 {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&grant.id) {
            return Err(Refusal::LeaseExists);
        }
        self.leases.insert(grant.id, grant.ttl);
        Ok(())
    }

    fn end_lease(&mut self, id: i64) {
        if self.leases.remove(&id).is_none() {
            return;
        }
        for (key, kv) in self.keys_now() {
            if kv.lease == id {
                self.write(key, None);
            }
        }
        self.finish();
    }

    fn alarm(&mut self, request: &pb::AlarmRequest) -> pb::AlarmResponse {
        let alarm = (request.alarm, request.member_id);
        let listed = match request.action {
            0 => {
                let mut all = self.alarms.clone();
                all.sort_unstable();
                all.retain(|(kind, _)| request.alarm == 0 || *kind == request.alarm);
                all
            }
            1 if request.alarm != 0 => {
                if !self.alarms.contains(&alarm) {
                    self.alarms.push(alarm);
                }
                vec![alarm]
            }
            2 if self.alarms.contains(&alarm) => {
                self.alarms.retain(|other| *other != alarm);
                vec![alarm]
            }
            _ => Vec::new(),
        };
        let alarms = listed.into_iter();
        pb::AlarmResponse {
            header: self.header(),
            alarms: alarms.map(|(alarm, member_id)| pb::AlarmMember { member_id, alarm }).collect(),
        }
    }

    /// Answers a range outside a txn.
    pub fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Refusal> {
        if request.revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if request.revision > 0 && request.revision < self.compact_revision {
            return Err(Refusal::Compacted);
        }
        Ok(self.ranged(request))
    }

    fn ranged(&self, request: &pb::RangeRequest) -> pb::RangeResponse {
        let keys =
            if request.revision > 0 { self.keys_at(request.revision) } else { self.keys_now() };
        let mut kvs = within(keys, &request.key, &request.range_end);
        let count = kvs.len() as i64;
        let limit = if request.limit > 0 { request.limit as usize } else { usize::MAX };
        // Only an explicit order, or a filter, looks at all keys before the limit.
        let filters = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        let natural =
            request.sort_order == 0 || (request.sort_order == 1 && request.sort_target == 0);
        if natural && filters == [0; 4] {
            kvs.truncate(limit.saturating_add(1));
        }
        let at_least = |value: i64, bound: i64| bound == 0 || value >= bound;
        let at_most = |value: i64, bound: i64| bound == 0 || value <= bound;
        kvs.retain(|kv| {
            at_least(kv.mod_revision, filters[0])
                && at_most(kv.mod_revision, filters[1])
                && at_least(kv.create_revision, filters[2])
                && at_most(kv.create_revision, filters[3])
        });
        match request.sort_target {
            1 => kvs.sort_by_key(|kv| signed(request, kv.version)),
            2 => kvs.sort_by_key(|kv| signed(request, kv.create_revision)),
            3 => kvs.sort_by_key(|kv| signed(request, kv.mod_revision)),
            4 if request.sort_order == 2 => kvs.sort_by(|a, b| b.value.cmp(&a.value)),
            4 => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
            _ if request.sort_order == 2 => kvs.reverse(),
            _ => {}
        }
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        if request.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
                if request.sort_target != 4 {
                    kv.lease = 0;
                }
            }
        }
        let counting = request.count_only;
        pb::RangeResponse {
            header: self.header(),
            kvs: if counting { Vec::new() } else { kvs },
            more: more && !counting,
            count,
        }
    }

    /// Answers or applies a txn.
    pub fn txn(&mut self, txn: &pb::TxnRequest) -> Result<pb::TxnResponse, Refusal> {
        let before = self.clone();
        match before.check_txn(txn) {
            Some(refusal) => Err(refusal),
            None => {
                let mut response = self.run_txn(&before, txn);
                response.header = self.header();
                Ok(response)
            }
        }
    }

    fn holds(&self, txn: &pb::TxnRequest) -> bool {
        let keys = self.keys_at(self.revision);
        txn.compare.iter().all(|compare| {
            let found = within(keys.clone(), &compare.key, &compare.range_end);
            if found.is_empty() {
                return compare.target != 3 && compare_holds(compare, &KeyValue::default());
            }
            found.iter().all(|kv| compare_holds(compare, kv))
        })
    }

    fn chosen<'r>(&self, txn: &'r pb::TxnRequest) -> &'r [pb::RequestOp] {
        if self.holds(txn) { &txn.success } else { &txn.failure }
    }

    fn check_txn(&self, txn: &pb::TxnRequest) -> Option<Refusal> {
        self.chosen(txn).iter().find_map(|op| match op.request.as_ref()? {
            Op::RequestRange(range) if range.revision > self.revision => {
                Some(Refusal::FutureRevision)
            }
            Op::RequestRange(range)
                if range.revision != 0 && range.revision < self.compact_revision =>
            {
                Some(Refusal::Compacted)
            }
            Op::RequestPut(put) => self.check_put(put).err(),
            Op::RequestTxn(txn) => self.check_txn(txn),
            Op::RequestRange(_) | Op::RequestDeleteRange(_) => None,
        })
    }

    fn run_txn(&mut self, before: &Model, txn: &pb::TxnRequest) -> pb::TxnResponse {
        let ops = before.chosen(txn).iter();
        let responses = ops.filter_map(|op| {
            let response = match op.request.as_ref()? {
                Op::RequestRange(range) => OpResponse::ResponseRange(self.ranged(range)),
                Op::RequestPut(put) => OpResponse::ResponsePut(self.put(put)),
                Op::RequestDeleteRange(delete) => {
                    OpResponse::ResponseDeleteRange(self.delete_range(delete))
                }
                Op::RequestTxn(txn) => OpResponse::ResponseTxn(self.run_txn(before, txn)),
            };
            Some(pb::ResponseOp { response: Some(response) })
        });
        let responses = responses.collect();
        pb::TxnResponse {
            header: Some(pb::ResponseHeader::default()),
            succeeded: before.holds(txn),
            responses,
        }
    }
}

fn signed(request: &pb::RangeRequest, number: i64) -> i64 {
    if request.sort_order == 2 { -number } else { number }
}

fn within(keys: Keys, key: &Bytes, range_end: &Bytes) -> Vec<KeyValue> {
    let holds = |candidate: &Bytes| {
        if range_end.is_empty() {
            candidate == key
        } else if range_end.as_ref() == b"\0" {
            candidate >= key
        } else {
            candidate >= key && candidate < range_end
        }
    };
    keys.into_values().filter(|kv| holds(&kv.key)).collect()
}

fn has_put(txn: &pb::TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Op::RequestPut(_)) => true,
        Some(Op::RequestTxn(txn)) => has_put(txn),
        Some(Op::RequestRange(_) | Op::RequestDeleteRange(_)) | None => false,
    })
}

fn compare_holds(compare: &pb::Compare, kv: &KeyValue) -> bool {
    use pb::compare::TargetUnion as Union;
    let union = compare.target_union.as_ref();
    let order = match compare.target {
        0 => kv.version.cmp(&match union {
            Some(Union::Version(version)) => *version,
            _ => 0,
        }),
        1 => kv.create_revision.cmp(&match union {
            Some(Union::CreateRevision(revision)) => *revision,
            _ => 0,
        }),
        2 => kv.mod_revision.cmp(&match union {
            Some(Union::ModRevision(revision)) => *revision,
            _ => 0,
        }),
        3 => kv.value.cmp(&match union {
            Some(Union::Value(value)) => value.clone(),
            _ => Bytes::new(),
        }),
        4 => kv.lease.cmp(&match union {
            Some(Union::Lease(lease)) => *lease,
            _ => 0,
        }),
        _ => std::cmp::Ordering::Equal,
    };
    match compare.result {
        0 => order.is_eq(),
        1 => order.is_gt(),
        2 => order.is_lt(),
        3 => order.is_ne(),
        _ => true,
    }
}
