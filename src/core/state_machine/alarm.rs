//! Alarms: which stand, and which commands each of them refuses.
//!
//! **Invariant:** the quota itself is never looked at here; a member's size is its own. Only the alarm, which is
//! replicated, refuses (etcd `server/etcdserver/apply/{capped,corrupt}.go`).

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;

use crate::api::batch::Space;
use crate::api::pb::etcdserverpb::alarm_request::AlarmAction;
use crate::api::pb::etcdserverpb::{AlarmMember, AlarmRequest, AlarmType};
use crate::api::pb::internal::AlarmRecord;
use crate::api::pb::internal::command::Request;
use crate::api::refusal::{Corrupt, Refusal};

use super::changes::Changes;
use super::{fleet, quota};

/// The alarms that stand, by type and member.
#[derive(Debug, Default)]
pub(crate) struct AlarmBook {
    alarms: BTreeSet<(i32, u64)>,
}

impl AlarmBook {
    /// Answers an alarm request: the alarms it named or changed.
    pub(crate) fn apply(
        &mut self,
        request: &AlarmRequest,
        changes: &mut Changes,
    ) -> Vec<AlarmMember> {
        let alarm = (request.alarm, request.member_id);
        match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => self.list(request.alarm),
            Ok(AlarmAction::Activate) => {
                if request.alarm == AlarmType::None as i32 {
                    return Vec::new();
                }
                if self.alarms.insert(alarm) {
                    changes.record(Space::Alarm, record_key(alarm), Some(record(alarm)));
                }
                vec![member(alarm)]
            }
            Ok(AlarmAction::Deactivate) => {
                if !self.alarms.remove(&alarm) {
                    return Vec::new();
                }
                changes.record(Space::Alarm, record_key(alarm), None);
                vec![member(alarm)]
            }
            Err(_) => Vec::new(),
        }
    }

    /// The alarms of a type, or all of them for 0.
    pub(crate) fn list(&self, alarm: i32) -> Vec<AlarmMember> {
        self.alarms
            .iter()
            .filter(|(kind, _)| alarm == AlarmType::None as i32 || *kind == alarm)
            .map(|alarm| member(*alarm))
            .collect()
    }

    fn stands(&self, alarm: AlarmType) -> bool {
        let kind = alarm as i32;
        self.alarms.range((kind, 0)..=(kind, u64::MAX)).next().is_some()
    }

    /// Whether the alarms that stand let `request` pass. CORRUPT speaks before NOSPACE, as in etcd.
    pub(crate) fn check(&self, request: &Request) -> Result<(), Refusal> {
        if self.alarms.is_empty() {
            return Ok(());
        }
        if self.stands(AlarmType::Corrupt) && refused_when_corrupt(request) {
            return Err(Refusal::CorruptCluster);
        }
        if self.stands(AlarmType::Nospace) && quota::grows(request) {
            return Err(Refusal::NoSpace);
        }
        Ok(())
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = (Bytes, Bytes)> {
        self.alarms.iter().map(|alarm| (record_key(*alarm), record(*alarm)))
    }

    pub(crate) fn restore(&mut self, value: &[u8]) -> Result<(), Corrupt> {
        let record = super::records::decode::<AlarmRecord>("alarm record", value)?;
        self.alarms.insert((record.alarm, record.member_id));
        Ok(())
    }
}

fn refused_when_corrupt(request: &Request) -> bool {
    match request {
        Request::Put(_)
        | Request::DeleteRange(_)
        | Request::Txn(_)
        | Request::Compaction(_)
        | Request::LeaseGrant(_)
        | Request::LeaseRevoke(_)
        | Request::LeaseExpiry(_) => true,
        Request::LeaseCheckpoint(_)
        | Request::Alarm(_)
        | Request::MemberAttributes(_)
        | Request::ClusterLevel(_)
        | Request::Auth(_) => false,
        Request::Fleet(fleet) => !fleet::takes_away(fleet),
    }
}

fn member((alarm, member_id): (i32, u64)) -> AlarmMember {
    AlarmMember { member_id, alarm }
}

fn record((alarm, member_id): (i32, u64)) -> Bytes {
    AlarmRecord { member_id, alarm }.encode_to_vec().into()
}

fn record_key((alarm, member_id): (i32, u64)) -> Bytes {
    let mut key = Vec::with_capacity(12);
    key.extend_from_slice(&member_id.to_be_bytes());
    key.extend_from_slice(&alarm.to_be_bytes());
    key.into()
}
