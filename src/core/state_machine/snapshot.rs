//! The whole state as records and headers: taken out for a base, taken in at a restart.
//!
//! ```text
//!   freeze() ──> records of a log position + a pin: history is then read through the view, at leisure
//!   Restorer ──> record(..) for each, header(..) in revision order, finish(applied) ──> StateMachine
//! ```

use bytes::Bytes;
use prost::Message;

use crate::api::batch::{RecordChange, Space};
use crate::api::ids::{LeaseId, LogId, Revision};
use crate::api::pb::internal::{MachineRecord, RemovedMember};
use crate::api::refusal::Corrupt;

use super::mvcc::key_index::Packed;
use super::mvcc::pins::Pin;
use super::mvcc::rebuild::Builder;
use super::records::{decode, log_id, member_key};
use super::{CLUSTER_LEVEL, StateMachine};

/// One stored revision without its value: what the index is rebuilt from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionHeader {
    /// Where it stands in history.
    pub revision: Revision,
    /// The key was deleted; then the numbers below are 0.
    pub tombstone: bool,
    /// The key.
    pub key: Bytes,
    /// The main revision that created the key.
    pub create_revision: i64,
    /// Puts since then, from 1.
    pub version: i64,
    /// The lease, or 0.
    pub lease: i64,
    /// Bytes of its value.
    pub value_len: u32,
}

/// The state at a log position, but for history, which the view has.
#[derive(Debug)]
pub struct FrozenMachine {
    /// The last entry in it.
    pub applied: Option<LogId>,
    /// Its newest revision: history up to here belongs to it.
    pub revision: i64,
    /// Its compact revision.
    pub compact_revision: i64,
    /// Its rolling hash.
    pub rolling_hash: u64,
    /// Every record of it, by space and key, [`Space::Machine`] first.
    pub records: Vec<RecordChange>,
    /// Keeps its history whole, from its compact revision on, until dropped.
    pub pin: Pin,
}

impl StateMachine {
    /// Takes the state as it is now; its size is that of the records, not of history.
    pub fn freeze(&self) -> FrozenMachine {
        let mut records = vec![change(Space::Machine, Bytes::new(), self.machine_record())];
        for (key, value) in self.leases.records() {
            records.push(change(Space::Lease, key, value));
        }
        for (key, value) in self.alarms.records() {
            records.push(change(Space::Alarm, key, value));
        }
        for (key, value) in self.proposers.records() {
            records.push(change(Space::Proposer, key, value));
        }
        let stored = self.members.stored();
        if stored.membership.is_some() {
            let value = stored.encode_to_vec().into();
            records.push(change(Space::Membership, Bytes::new(), value));
        }
        for attributes in self.members.all_attributes() {
            let key = member_key(attributes.member_id);
            let value = attributes.encode_to_vec().into();
            records.push(change(Space::MemberAttributes, key, value));
        }
        records.extend(self.auth.records().map(|(space, key, value)| change(space, key, value)));
        records.extend(self.fleet.records().map(|(space, key, value)| change(space, key, value)));
        for id in self.members.removed() {
            let value = RemovedMember { member_id: id.0 }.encode_to_vec().into();
            records.push(change(Space::RemovedMember, member_key(id.0), value));
        }
        FrozenMachine {
            applied: self.applied,
            revision: self.mvcc.revision,
            compact_revision: self.mvcc.compact_revision,
            rolling_hash: self.rolling_hash,
            records,
            pin: self.pin(self.mvcc.compact_revision),
        }
    }
}

fn change(space: Space, key: Bytes, value: Bytes) -> RecordChange {
    RecordChange { space, key, value: Some(value) }
}

/// Rebuilds a state machine.
#[derive(Debug)]
pub struct Restorer {
    machine: StateMachine,
    index: Builder,
    stored: Option<MachineRecord>,
    newest: Option<Revision>,
}

impl Restorer {
    /// Starts from nothing; values stay cold up to `value_budget_bytes` until they are written anew.
    pub fn new(value_budget_bytes: usize) -> Restorer {
        Restorer {
            machine: StateMachine::new(value_budget_bytes),
            index: Builder::new(),
            stored: None,
            newest: None,
        }
    }

    /// Takes a record. Their order does not matter.
    pub fn record(&mut self, space: Space, _key: &[u8], value: &[u8]) -> Result<(), Corrupt> {
        match space {
            Space::Machine => self.stored = Some(decode("machine record", value)?),
            Space::Lease => self.machine.leases.restore(value)?,
            Space::Alarm => self.machine.alarms.restore(value)?,
            Space::Proposer => self.machine.proposers.restore(value)?,
            Space::Membership => self.machine.members.restore_membership(value)?,
            Space::MemberAttributes => self.machine.members.restore_attributes(value)?,
            Space::Auth => self.machine.auth.restore(value)?,
            Space::User => self.machine.auth.restore_user(value)?,
            Space::Role => self.machine.auth.restore_role(value)?,
            Space::RemovedMember => self.machine.members.restore_removed(value)?,
            Space::Fleet => self.machine.fleet.restore(value)?,
            Space::FleetNode => self.machine.fleet.restore_node(value)?,
            Space::JoinToken => self.machine.fleet.restore_join_token(value)?,
            Space::AuthToken => self.machine.fleet.restore_auth_token(value)?,
        }
        Ok(())
    }

    /// Takes a stored revision; they come in ascending order.
    pub fn header(&mut self, header: &RevisionHeader) -> Result<(), Corrupt> {
        let revision = header.revision;
        let follows = self.newest.is_none_or(|newest| newest < revision);
        if !follows || revision.main < 1 || !(0..Packed::SUB_END).contains(&revision.sub) {
            return Err(Corrupt::BadRevision {
                revision: revision.to_string(),
                reason: "it does not follow the one before".to_owned(),
            });
        }
        self.newest = Some(revision);
        let packed = Packed::new(revision, header.tombstone);
        let (created, version, lease) = if header.tombstone {
            (0, 0, 0)
        } else {
            (header.create_revision, header.version, header.lease)
        };
        self.index.push(&header.key, packed, created, version, lease);
        Ok(())
    }

    /// The machine, if what came in agrees with `applied`, the log position it must stand at.
    pub fn finish(self, applied: Option<LogId>) -> Result<StateMachine, Corrupt> {
        let mut machine = self.machine;
        let stored = self.stored.unwrap_or_else(|| machine.machine_state());
        if stored.applied.map(log_id) != applied {
            return Err(Corrupt::Invariant(format!(
                "the machine record stands at {:?}, its store at {applied:?}",
                stored.applied.map(log_id)
            )));
        }
        if stored.cluster_level > CLUSTER_LEVEL {
            return Err(Corrupt::LevelTooNew {
                index: applied.map_or(0, |applied| applied.index),
                needed: stored.cluster_level,
                known: CLUSTER_LEVEL,
            });
        }
        if let Some(newest) = self.newest
            && newest.main > stored.revision
        {
            return Err(Corrupt::BadRevision {
                revision: newest.to_string(),
                reason: format!("the machine record ends at {}", stored.revision),
            });
        }
        machine.applied = applied;
        machine.mvcc.revision = stored.revision;
        machine.mvcc.compact_revision = stored.compact_revision;
        machine.rolling_hash = stored.rolling_hash;
        machine.cluster_level = stored.cluster_level;
        machine.last_time_ms = stored.last_time_ms;
        machine.mvcc.index.fill(self.index.finish());
        machine.attach_leased_keys()?;
        machine.auth.restored();
        Ok(machine)
    }
}

impl StateMachine {
    fn attach_leased_keys(&mut self) -> Result<(), Corrupt> {
        for (key, index) in self.mvcc.index.iter() {
            let lease = LeaseId(index.lease());
            if lease == LeaseId::NONE {
                continue;
            }
            if !self.leases.contains(lease) {
                return Err(Corrupt::Invariant(format!(
                    "revision {} hangs on lease {lease}, which does not exist",
                    index.newest().revision()
                )));
            }
            self.leases.attach(lease, key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(main: i64, sub: i64, lease: i64) -> RevisionHeader {
        RevisionHeader {
            revision: Revision::new(main, sub),
            tombstone: false,
            key: Bytes::from_static(b"a"),
            create_revision: main,
            version: 1,
            lease,
            value_len: 0,
        }
    }

    fn machine_record(index: u64, revision: i64) -> Vec<u8> {
        let record = MachineRecord {
            applied: Some(super::super::records::position(LogId::new(1, index))),
            revision,
            compact_revision: -1,
            ..MachineRecord::default()
        };
        record.encode_to_vec()
    }

    #[test]
    fn nothing_restores_to_an_empty_store() {
        let machine = Restorer::new(0).finish(None).unwrap();
        assert_eq!((machine.revision(), machine.compact_revision()), (1, -1));
    }

    #[test]
    fn revisions_out_of_order_or_out_of_bounds_are_refused() {
        for (main, sub) in [(3, 0), (3, 1), (2, 9), (4, -1), (4, 1 << 31), (-4, 0)] {
            let mut restorer = Restorer::new(0);
            restorer.header(&header(3, 1, 0)).unwrap();
            let refused = restorer.header(&header(main, sub, 0));
            assert!(matches!(refused, Err(Corrupt::BadRevision { .. })), "{main}.{sub}");
        }
    }

    #[test]
    fn records_that_contradict_each_other_are_refused() {
        let at = Some(LogId::new(1, 5));
        let restorer = |revision, lease| {
            let mut restorer = Restorer::new(0);
            restorer.record(Space::Machine, b"", &machine_record(5, revision)).unwrap();
            restorer.header(&header(3, 0, lease)).unwrap();
            restorer
        };
        assert!(restorer(3, 0).finish(at).is_ok());
        let elsewhere = restorer(3, 0).finish(Some(LogId::new(1, 6)));
        assert!(matches!(elsewhere, Err(Corrupt::Invariant(_))));
        let too_new = restorer(2, 0).finish(at);
        assert!(matches!(too_new, Err(Corrupt::BadRevision { .. })));
        let leaseless = restorer(3, 7).finish(at);
        assert!(matches!(leaseless, Err(Corrupt::Invariant(_))));
    }

    #[test]
    fn a_state_of_a_later_level_is_left_to_those_who_know_it() {
        let record = MachineRecord { cluster_level: CLUSTER_LEVEL + 1, ..MachineRecord::default() };
        let mut restorer = Restorer::new(0);
        restorer.record(Space::Machine, b"", &record.encode_to_vec()).unwrap();
        assert!(matches!(restorer.finish(None), Err(Corrupt::LevelTooNew { .. })));
    }

    #[test]
    fn a_record_that_does_not_decode_is_named() {
        let refused = Restorer::new(0).record(Space::Lease, b"", &[0xff]);
        let Err(Corrupt::Undecodable { what, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(what, "lease record");
    }
}
