//! Leases and alarms.

use bytes::Bytes;
use rand::Rng;

use super::Draw;
use super::txn::is_nested;
use crate::differential::call::{Call, OWN_MEMBER};
use crate::pb::etcdserverpb::{AlarmRequest, LeaseGrantRequest, PutRequest};

const LEASES: [i64; 7] = [1, 2, 3, 4, 5, 77, -6];
const GET: i32 = 0;
const ACTIVATE: i32 = 1;
const DEACTIVATE: i32 = 2;
const NOSPACE: i32 = 1;
const CORRUPT: i32 = 2;

impl Draw {
    pub(super) fn lease(&mut self) -> i64 {
        if self.chance(60) {
            return self.pick(&[99, i64::MAX, i64::MIN, 0]);
        }
        self.usual_lease()
    }

    fn usual_lease(&mut self) -> i64 {
        let id: i64 = self.pick(&LEASES);
        if self.dialect.negative_leases { id } else { id.abs() }
    }

    pub(super) fn grant(&mut self) -> LeaseGrantRequest {
        let ttl = match self.rng.random_range(0..100) {
            0..94 => self.pick(&[600, 1200, 3600, 100_000]),
            94..97 => 9_000_000_000,
            _ => self.pick(&[9_000_000_001, i64::MAX]),
        };
        LeaseGrantRequest { ttl, id: self.usual_lease() }
    }

    pub(super) fn short_grant(&mut self) -> LeaseGrantRequest {
        LeaseGrantRequest {
            ttl: self.pick(&[0, 1, 2, -7, i64::MIN, 700]),
            id: self.pick(&[0, 0, 500]),
        }
    }

    pub(super) fn expire(&mut self) -> Call {
        Call::Expire(PutRequest {
            key: Bytes::from_static(self.pick(self.dialect.keys())),
            value: self.value(),
            lease: 900,
            ..PutRequest::default()
        })
    }

    fn alarm_of(&mut self, action: i32, alarm: i32) -> AlarmRequest {
        AlarmRequest { action, alarm, member_id: self.pick(&[OWN_MEMBER, OWN_MEMBER, 0, 7]) }
    }

    /// A request that raises nothing.
    pub(in crate::differential) fn alarm_look(&mut self) -> AlarmRequest {
        let alarm = self.pick(&[0, NOSPACE, CORRUPT, 5]);
        match self.rng.random_range(0..4) {
            0 => self.alarm_of(DEACTIVATE, alarm),
            1 => self.alarm_of(ACTIVATE, 0),
            _ => self.alarm_of(GET, alarm),
        }
    }

    /// Raises an alarm, sometimes of a type nobody knows; calls under it; takes it back.
    pub(super) fn alarm_episode(&mut self) -> Call {
        let unknown = if self.dialect.unknown_enums { 5 } else { NOSPACE };
        let alarm = self.pick(&[NOSPACE, NOSPACE, NOSPACE, CORRUPT, CORRUPT, unknown]);
        let raise = self.alarm_of(ACTIVATE, alarm);
        let clear = AlarmRequest { action: DEACTIVATE, ..raise };
        let mut calls = vec![Call::Alarm(raise)];
        for _ in 0..self.rng.random_range(4..16) {
            let call = match self.rng.random_range(0..10) {
                0 => Call::Alarm(AlarmRequest { action: GET, ..raise }),
                1 => Call::Alarm(AlarmRequest { action: GET, alarm: 0, member_id: 0 }),
                2 => Call::Status,
                _ => match self.quiet_call() {
                    Call::Txn(txn) if !self.dialect.counts_nested_puts && is_nested(&txn) => {
                        Call::Put(self.put())
                    }
                    call => call,
                },
            };
            calls.push(call);
        }
        if self.chance(300) {
            calls.push(Call::Alarm(raise));
        }
        calls.push(Call::Alarm(clear));
        calls.push(if self.chance(300) { Call::Alarm(clear) } else { Call::Put(self.put()) });
        calls.reverse();
        self.alarms = calls;
        self.alarms.pop().unwrap_or(Call::Alarm(raise))
    }
}
