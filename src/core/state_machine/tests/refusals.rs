//! Tables: one request a line, what it is refused with in the last column.

use bytes::Bytes;

use crate::api::ids::LogId;
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::request_op::Request as Op;
use crate::api::pb::internal;
use crate::api::pb::internal::command::Request;
use crate::api::pb::internal::log_payload::Payload;
use crate::api::refusal::{Corrupt, Refusal};
use crate::state_machine::check::{
    check_delete_range, check_put, check_range, check_range_stream, check_txn,
};
use crate::state_machine::{CLUSTER_LEVEL, Limits, StateMachine};

use super::member::{Member, entry};

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn ranges_are_refused_by_shape() {
    let check = |key, order, target| {
        let request = pb::RangeRequest {
            key: bytes(key),
            sort_order: order,
            sort_target: target,
            ..pb::RangeRequest::default()
        };
        (check_range(&request).err(), check_range_stream(&request).err())
    };
    #[rustfmt::skip]
    let table = [
        // key, order, target    Range                               RangeStream
        ("a", 0, 0,              None,                               None),
        ("a", 1, 0,              None,                               None),
        ("a", 0, 4,              None,                               None),
        ("a", 2, 0,              None,                               Some(Refusal::StreamSort)),
        ("a", 1, 1,              None,                               Some(Refusal::StreamSort)),
        ("a", 3, 0,              Some(Refusal::InvalidSortOption),   Some(Refusal::InvalidSortOption)),
        ("a", -1, 0,             Some(Refusal::InvalidSortOption),   Some(Refusal::InvalidSortOption)),
        ("a", 0, 5,              Some(Refusal::InvalidSortOption),   Some(Refusal::InvalidSortOption)),
        ("",  3, 5,              Some(Refusal::EmptyKey),            Some(Refusal::EmptyKey)),
    ];
    for (key, order, target, range, stream) in table {
        assert_eq!(check(key, order, target), (range, stream), "{key} {order} {target}");
    }
}

#[test]
fn puts_and_deletes_are_refused_by_shape() {
    #[rustfmt::skip]
    let table = [
        // key, value, ignore_value, lease, ignore_lease
        ("a", "1", false, 7, false, None),
        ("a", "",  true,  0, true,  None),
        ("",  "1", true,  7, true,  Some(Refusal::EmptyKey)),
        ("a", "1", true,  7, true,  Some(Refusal::ValueProvided)),
        ("a", "",  true,  7, true,  Some(Refusal::LeaseProvided)),
        ("a", "1", false, 7, true,  Some(Refusal::LeaseProvided)),
    ];
    for (key, value, ignore_value, lease, ignore_lease, refusal) in table {
        let put = pb::PutRequest {
            key: bytes(key),
            value: bytes(value),
            lease,
            prev_kv: false,
            ignore_value,
            ignore_lease,
        };
        assert_eq!(check_put(&put).err(), refusal, "{put:?}");
    }
    let delete = pb::DeleteRangeRequest::default();
    assert_eq!(check_delete_range(&delete), Err(Refusal::EmptyKey));
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn puts(count: usize) -> Vec<pb::RequestOp> {
    let key = |number: usize| Bytes::from(number.to_string());
    let put = |number| pb::PutRequest { key: key(number), ..pb::PutRequest::default() };
    (0..count).map(|number| op(Op::RequestPut(put(number)))).collect()
}

fn nested(txn: pb::TxnRequest) -> pb::RequestOp {
    op(Op::RequestTxn(txn))
}

fn success(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { success, ..pb::TxnRequest::default() }
}

#[test]
fn a_nested_txn_has_what_the_largest_list_around_it_leaves() {
    let around = |inner: usize, beside: usize| {
        let mut ops = vec![nested(success(puts(inner)))];
        ops.extend((0..beside).map(|_| {
            op(Op::RequestDeleteRange(pb::DeleteRangeRequest {
                key: bytes("x"),
                ..pb::DeleteRangeRequest::default()
            }))
        }));
        success(ops)
    };
    #[rustfmt::skip]
    let table = [
        (success(puts(128)),              None),
        (success(puts(129)),              Some(Refusal::TooManyOps)),
        (around(127, 0),                  None),
        (around(128, 0),                  Some(Refusal::TooManyOps)),
        (around(28, 99),                  None),
        (around(29, 99),                  Some(Refusal::TooManyOps)),
        (around(0, 127),                  None),
        (around(0, 128),                  Some(Refusal::TooManyOps)),
        // Too large is said before what is wrong inside.
        (success(vec![pb::RequestOp::default(); 129]), Some(Refusal::TooManyOps)),
        (success(vec![pb::RequestOp::default()]),      Some(Refusal::KeyNotFound)),
        // Shape comes before duplicates, wherever each is.
        (pb::TxnRequest { success: [puts(1), puts(1)].concat(), failure: vec![pb::RequestOp::default()],
            ..pb::TxnRequest::default() },             Some(Refusal::KeyNotFound)),
        (pb::TxnRequest { compare: vec![pb::Compare::default(); 129], ..pb::TxnRequest::default() },
                                                       Some(Refusal::TooManyOps)),
        (pb::TxnRequest { compare: vec![pb::Compare::default()], success: vec![pb::RequestOp::default()],
            ..pb::TxnRequest::default() },             Some(Refusal::EmptyKey)),
    ];
    for (place, (txn, refusal)) in table.into_iter().enumerate() {
        assert_eq!(check_txn(&txn, Limits::default()).err(), refusal, "row {place}");
    }
}

#[test]
fn what_cannot_be_stops_the_member() {
    let payload = |member: &mut Member, payload| member.payload(payload).map(|_| ()).unwrap_err();
    let put = || {
        Request::Put(pb::PutRequest { key: bytes("a"), prev_kv: true, ..pb::PutRequest::default() })
    };

    let mut member = Member::new(0);
    let mut too_new = entry(1, 1, vec![put()]);
    too_new.level = CLUSTER_LEVEL + 1;
    let stopped = payload(&mut member, Payload::Entry(too_new));
    assert!(matches!(stopped, Corrupt::LevelTooNew { index: 0, needed: 5, known: 4 }));

    let mut member = Member::new(0);
    let level = Request::ClusterLevel(internal::ClusterLevel { level: CLUSTER_LEVEL + 1 });
    let stopped = payload(&mut member, Payload::Entry(entry(1, 1, vec![level])));
    assert!(matches!(stopped, Corrupt::LevelTooNew { .. }));

    let mut member = Member::new(0);
    let mut unknown = entry(1, 1, vec![]);
    unknown.commands.push(internal::Command::default());
    let stopped = payload(&mut member, Payload::Entry(unknown));
    assert!(matches!(stopped, Corrupt::Undecodable { .. }));

    let mut member = Member::new(0);
    let unknown = Request::Fleet(internal::FleetRequest::default());
    let stopped = payload(&mut member, Payload::Entry(entry(1, 1, vec![unknown])));
    assert!(matches!(stopped, Corrupt::Undecodable { .. }));

    // The store has lost a value that the index lists.
    let mut member = Member::new(0);
    member.pack(vec![put()]);
    member.view = Default::default();
    let entry = entry(1, 2, vec![put()]);
    let payload = internal::LogPayload { payload: Some(Payload::Entry(entry)) };
    let stopped = member.machine.apply(&member.view, LogId::new(3, 9), &payload);
    assert!(matches!(stopped, Err(Corrupt::BadRevision { .. })));
}

#[test]
fn entries_are_applied_in_log_order() {
    let mut machine = StateMachine::new(0);
    let view = crate::state_machine::testing::MemoryView::default();
    let blank = internal::LogPayload { payload: Some(Payload::Blank(internal::Blank {})) };
    machine.apply(&view, LogId::new(2, 5), &blank).unwrap();
    for at in [LogId::new(2, 5), LogId::new(2, 4), LogId::new(1, 6)] {
        let refused = machine.apply(&view, at, &blank);
        assert!(matches!(refused, Err(Corrupt::Invariant(_))), "{at}");
    }
    machine.apply(&view, LogId::new(2, 6), &blank).unwrap();
}

/// Readers share the machine between threads.
#[test]
fn the_machine_can_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<StateMachine>();
    shared::<crate::state_machine::RangeWork>();
    shared::<crate::state_machine::HashScope>();
    shared::<crate::state_machine::FrozenMachine>();
}
