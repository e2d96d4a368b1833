//! Random requests over few keys, so that they meet each other.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::request_op::Request as Op;
use crate::api::pb::internal;
use crate::api::pb::internal::command::Request;

use super::member::TERM;

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "aa", "b", "c", "\0"]).prop_map(Bytes::from_static_str)
}

fn range_end() -> impl Strategy<Value = Bytes> {
    let ends = vec!["", "", "", "\0", "b", "c", "d"];
    prop::sample::select(ends).prop_map(Bytes::from_static_str)
}

trait FromStaticStr {
    fn from_static_str(text: &'static str) -> Bytes;
}

impl FromStaticStr for Bytes {
    fn from_static_str(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }
}

fn value() -> impl Strategy<Value = Bytes> {
    let values = vec!["", "x", "y", "a longer value, for budgets"];
    prop::sample::select(values).prop_map(Bytes::from_static_str)
}

fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.2)
}

fn put() -> impl Strategy<Value = pb::PutRequest> {
    (key(), value(), 0..4i64, any::<bool>(), rarely(), rarely()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| pb::PutRequest {
            key,
            value: if ignore_value { Bytes::new() } else { value },
            lease: if ignore_lease || lease == 3 { 0 } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete() -> impl Strategy<Value = pb::DeleteRangeRequest> {
    (key(), range_end(), any::<bool>())
        .prop_map(|(key, range_end, prev_kv)| pb::DeleteRangeRequest { key, range_end, prev_kv })
}

/// Revisions from a bit below to a bit above what a short history reaches.
fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0i64), 1 => -2..0i64, 3 => 1..14i64]
}

pub(crate) fn range() -> impl Strategy<Value = pb::RangeRequest> {
    let filters = prop::array::uniform4(prop_oneof![6 => Just(0i64), 1 => 1..12i64]);
    ((key(), range_end(), revision(), 0..5i64, 0..3i32, 0..5i32), (rarely(), rarely()), filters)
        .prop_map(|((key, range_end, revision, limit, sort_order, sort_target), flags, filters)| {
            pb::RangeRequest {
                key,
                range_end,
                limit,
                revision,
                sort_order,
                sort_target,
                serializable: false,
                keys_only: flags.0,
                count_only: flags.1,
                min_mod_revision: filters[0],
                max_mod_revision: filters[1],
                min_create_revision: filters[2],
                max_create_revision: filters[3],
            }
        })
}

fn compare() -> impl Strategy<Value = pb::Compare> {
    use pb::compare::TargetUnion as Union;
    let union = prop_oneof![
        1 => Just(None),
        8 => (0..5i64, value()).prop_map(|(number, value)| Some((number, value))),
    ];
    (0..6i32, 0..5i32, key(), range_end(), union).prop_map(
        |(target, result, key, range_end, union)| {
            let target_union = union.map(|(number, value)| match target {
                0 => Union::Version(number),
                1 => Union::CreateRevision(number),
                2 => Union::ModRevision(number),
                3 => Union::Value(value),
                _ => Union::Lease(number),
            });
            pb::Compare { result, target, key, range_end, target_union }
        },
    )
}

fn op(depth: u32) -> BoxedStrategy<pb::RequestOp> {
    let leaf = prop_oneof![
        3 => put().prop_map(Op::RequestPut),
        2 => range().prop_map(Op::RequestRange),
        2 => delete().prop_map(Op::RequestDeleteRange),
    ];
    let any = if depth == 0 {
        leaf.boxed()
    } else {
        prop_oneof![4 => leaf, 1 => txn(depth - 1).prop_map(Op::RequestTxn)].boxed()
    };
    any.prop_map(|request| pb::RequestOp { request: Some(request) }).boxed()
}

pub(crate) fn txn(depth: u32) -> impl Strategy<Value = pb::TxnRequest> {
    (vec(compare(), 0..2), vec(op(depth), 0..4), vec(op(depth), 0..3))
        .prop_map(|(compare, success, failure)| pb::TxnRequest { compare, success, failure })
}

/// Any request that is well formed but for the duplicate check: apply must stand what the check lets through and
/// more.
pub(crate) fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        8 => put().prop_map(Request::Put),
        4 => delete().prop_map(Request::DeleteRange),
        4 => txn(1).prop_map(Request::Txn),
        2 => (-1..16i64).prop_map(|revision| Request::Compaction(pb::CompactionRequest {
            revision,
            physical: false,
        })),
        3 => (0..3i64).prop_map(|id| Request::LeaseGrant(pb::LeaseGrantRequest { ttl: 60, id })),
        1 => (1..4i64).prop_map(|id| Request::LeaseRevoke(pb::LeaseRevokeRequest { id })),
        1 => (TERM - 1..TERM + 1, vec(0..4i64, 0..3)).prop_map(|(term, lease_ids)| {
            Request::LeaseExpiry(internal::LeaseExpiry { term, lease_ids })
        }),
        1 => (1..4i64, 0..50i64).prop_map(|(id, remaining_ttl)| {
            Request::LeaseCheckpoint(pb::LeaseCheckpointRequest {
                checkpoints: vec![pb::LeaseCheckpoint { id, remaining_ttl }],
            })
        }),
        1 => (0..3i32, 0..3u64, prop_oneof![1 => Just(0), 1 => Just(1), 4 => Just(2)]).prop_map(
            |(action, member_id, alarm)| {
                // Deactivating is the rule, or no command would ever get through.
                let (action, alarm) = if alarm == 2 { (2, 1) } else { (action, alarm) };
                Request::Alarm(pb::AlarmRequest { action, member_id, alarm })
            }
        ),
        1 => (0..2u32).prop_map(|level| Request::ClusterLevel(internal::ClusterLevel { level })),
        1 => (0..2u64).prop_map(|member_id| Request::MemberAttributes(internal::MemberAttributes {
            member_id,
            name: "m".to_owned(),
            client_urls: Vec::new(),
        })),
    ]
}
