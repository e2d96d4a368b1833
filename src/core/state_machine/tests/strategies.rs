//! Random requests over few keys, so that they meet each other.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::api::pb::authpb::Permission;
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::request_op::Request as Op;
use crate::api::pb::internal;
use crate::api::pb::internal::auth_request::Ask;
use crate::api::pb::internal::command::Request;

use super::fleet::strategies as fleet;
use super::member::{Age, Asked, TERM};

fn key() -> impl Strategy<Value = Bytes> {
    // The last ones are the fleet's, once there is one, but for the very last.
    let reserved = vec!["/k8sd/x", "/kat/config/x", "/kat/leader/x"];
    prop_oneof![
        12 => prop::sample::select(vec!["a", "aa", "b", "c", "\0"]),
        1 => prop::sample::select(reserved),
    ]
    .prop_map(Bytes::from_static_str)
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

pub(super) fn rarely() -> impl Strategy<Value = bool> {
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

fn user() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["root", "u", "u", "v"]).prop_map(str::to_owned)
}

fn role() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["root", "r", "r", "s"]).prop_map(str::to_owned)
}

/// A name that a request may get wrong.
fn odd(name: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop_oneof![9 => name, 1 => Just(String::new())]
}

fn permission() -> impl Strategy<Value = Permission> {
    (0..4i32, prop_oneof![9 => key().boxed(), 1 => Just(Bytes::new()).boxed()], range_end())
        .prop_map(|(perm_type, key, range_end)| Permission { perm_type, key, range_end })
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        2 => Just(Ask::Enable(pb::AuthEnableRequest {})),
        1 => Just(Ask::Disable(pb::AuthDisableRequest {})),
        2 => (odd(user()), rarely()).prop_map(|(name, no_password)| {
            Ask::UserAdd(internal::AuthUserAdd { name, no_password, password_hash: "h".to_owned() })
        }),
        1 => user().prop_map(|name| Ask::UserDelete(pb::AuthUserDeleteRequest { name })),
        1 => user().prop_map(|name| {
            let password_hash = "g".to_owned();
            Ask::UserChangePassword(internal::AuthUserChangePassword { name, password_hash })
        }),
        3 => (user(), role()).prop_map(|(user, role)| {
            Ask::UserGrantRole(pb::AuthUserGrantRoleRequest { user, role })
        }),
        1 => (user(), role()).prop_map(|(name, role)| {
            Ask::UserRevokeRole(pb::AuthUserRevokeRoleRequest { name, role })
        }),
        2 => odd(role()).prop_map(|name| Ask::RoleAdd(pb::AuthRoleAddRequest { name })),
        1 => role().prop_map(|role| Ask::RoleDelete(pb::AuthRoleDeleteRequest { role })),
        6 => (role(), prop::option::weighted(0.95, permission())).prop_map(|(name, perm)| {
            Ask::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name, perm })
        }),
        2 => (role(), key(), range_end()).prop_map(|(role, key, range_end)| {
            let revoke = pb::AuthRoleRevokePermissionRequest { role, key, range_end };
            Ask::RoleRevokePermission(revoke)
        }),
        2 => (user(), prop_oneof![3 => Just(0u64), 1 => Just(3)]).prop_map(
            |(name, checked_revision)| {
                let token_id = "t".to_owned();
                Ask::Login(internal::AuthLogin { name, checked_revision, token_id })
            }
        ),
    ]
}

fn auth(ask: Ask) -> Request {
    Request::Auth(internal::AuthRequest { ask: Some(ask) })
}

/// Any request, of anybody, changes of users and roles among them.
pub(crate) fn asked() -> impl Strategy<Value = Asked> {
    let user = prop::sample::select(vec!["", "root", "root", "root", "u", "u", "u", "v"]);
    let age = prop_oneof![9 => Just(Age::New), 1 => Just(Age::Old)];
    let request = prop_oneof![6 => request(), 4 => ask().prop_map(auth), 3 => fleet::request()];
    (user, age, request).prop_map(|(user, age, request)| Asked {
        user: user.to_owned(),
        age,
        request,
    })
}

/// As [`asked`], many; half of the time behind what it takes to turn authentication on, with a user `u` that has a
/// role, and half of the time behind the beginning of a fleet.
pub(crate) fn all_asked(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Asked>> {
    let first = (any::<bool>(), vec(permission(), 0..3), prop::option::of(fleet::bootstrap()));
    (first, vec(asked(), count)).prop_map(|((enabled, permissions, bootstrap), asked)| {
        let mut first: Vec<Request> = bootstrap.into_iter().collect();
        if enabled {
            first.extend(enabling(permissions).into_iter().map(auth));
        }
        first.into_iter().map(nobodys).chain(asked).collect()
    })
}

fn nobodys(request: Request) -> Asked {
    Asked { user: String::new(), age: Age::New, request }
}

fn enabling(permissions: Vec<Permission>) -> Vec<Ask> {
    let add = |name: &str| {
        let (name, password_hash) = (name.to_owned(), "h".to_owned());
        Ask::UserAdd(internal::AuthUserAdd { name, no_password: false, password_hash })
    };
    let grant = |user: &str, role: &str| {
        let (user, role) = (user.to_owned(), role.to_owned());
        Ask::UserGrantRole(pb::AuthUserGrantRoleRequest { user, role })
    };
    let permit = |perm| {
        let name = "r".to_owned();
        Ask::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name, perm: Some(perm) })
    };
    let mut all = vec![add("root"), grant("root", "root"), add("u")];
    all.push(Ask::RoleAdd(pb::AuthRoleAddRequest { name: "r".to_owned() }));
    all.extend(permissions.into_iter().map(permit));
    all.push(grant("u", "r"));
    all.push(Ask::Enable(pb::AuthEnableRequest {}));
    all
}
