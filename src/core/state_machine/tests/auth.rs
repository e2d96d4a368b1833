//! Users, roles and permissions as tables, and etcd's security advisories of 2026 as regression tests.
//!
//! What random requests make of them stands in `properties.rs`, what etcd answered in `testdata/etcd_3_7_1/auth.txt`.

use bytes::Bytes;

use crate::api::pb::authpb::Permission;
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::request_op::Request as Op;
use crate::api::pb::internal::auth_request::Ask;
use crate::api::pb::internal::command::Request;
use crate::api::pb::internal::{AuthLogin, AuthRequest, AuthUserAdd, AuthUserChangePassword};
use crate::api::refusal::{AuthRefusal, Refusal};
use crate::api::reply::{Reply, TokenChange};
use crate::state_machine::auth::Caller;

use super::member::{Member, command};

const READ: i32 = 0;
const WRITE: i32 = 1;
const READWRITE: i32 = 2;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn auth(ask: Ask) -> Request {
    Request::Auth(AuthRequest { ask: Some(ask) })
}

fn user_add(name: &str) -> Request {
    let (name, password_hash) = (name.to_owned(), format!("hash of {name}"));
    auth(Ask::UserAdd(AuthUserAdd { name, no_password: false, password_hash }))
}

fn user_delete(name: &str) -> Request {
    auth(Ask::UserDelete(pb::AuthUserDeleteRequest { name: name.to_owned() }))
}

fn passwd(name: &str, hash: &str) -> Request {
    let (name, password_hash) = (name.to_owned(), hash.to_owned());
    auth(Ask::UserChangePassword(AuthUserChangePassword { name, password_hash }))
}

fn grant_role(user: &str, role: &str) -> Request {
    let (user, role) = (user.to_owned(), role.to_owned());
    auth(Ask::UserGrantRole(pb::AuthUserGrantRoleRequest { user, role }))
}

fn revoke_role(name: &str, role: &str) -> Request {
    let (name, role) = (name.to_owned(), role.to_owned());
    auth(Ask::UserRevokeRole(pb::AuthUserRevokeRoleRequest { name, role }))
}

fn role_add(name: &str) -> Request {
    auth(Ask::RoleAdd(pb::AuthRoleAddRequest { name: name.to_owned() }))
}

fn role_delete(role: &str) -> Request {
    auth(Ask::RoleDelete(pb::AuthRoleDeleteRequest { role: role.to_owned() }))
}

fn permit(role: &str, perm_type: i32, key: &str, end: &str) -> Request {
    let perm = Permission { perm_type, key: bytes(key), range_end: bytes(end) };
    let name = role.to_owned();
    auth(Ask::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name, perm: Some(perm) }))
}

fn forbid(role: &str, key: &str, end: &str) -> Request {
    let (role, key, range_end) = (role.to_owned(), bytes(key), bytes(end));
    let revoke = pb::AuthRoleRevokePermissionRequest { role, key, range_end };
    auth(Ask::RoleRevokePermission(revoke))
}

fn enable() -> Request {
    auth(Ask::Enable(pb::AuthEnableRequest {}))
}

fn disable() -> Request {
    auth(Ask::Disable(pb::AuthDisableRequest {}))
}

fn login(name: &str, checked_revision: u64) -> Request {
    let (name, token_id) = (name.to_owned(), "t".to_owned());
    auth(Ask::Login(AuthLogin { name, checked_revision, token_id }))
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes("secret"), ..pb::PutRequest::default() }
}

fn delete(key: &str, end: &str) -> pb::DeleteRangeRequest {
    let (key, range_end) = (bytes(key), bytes(end));
    pb::DeleteRangeRequest { key, range_end, prev_kv: false }
}

fn range(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), range_end: bytes(end), ..pb::RangeRequest::default() }
}

fn then(ops: Vec<Op>) -> pb::TxnRequest {
    let success = ops.into_iter().map(|op| pb::RequestOp { request: Some(op) }).collect();
    pb::TxnRequest { success, ..pb::TxnRequest::default() }
}

fn otherwise(ops: Vec<Op>) -> pb::TxnRequest {
    let txn = then(ops);
    pb::TxnRequest { failure: txn.success, ..pb::TxnRequest::default() }
}

fn ok(member: &mut Member, user: &str, request: Request) -> Reply {
    let told = format!("{request:?}");
    member.one_as(user, request).unwrap_or_else(|refusal| panic!("{told}: {refusal}"))
}

/// Authentication is on. Who asks has the password and the role of its name: `reader` reads `[a, c)`, `writer` writes
/// it, `both` may do both, and so may `point` with the one key `a`.
fn enabled() -> Member {
    let mut member = Member::new(1 << 20);
    let roles = [
        ("reader", READ, "a", "c"),
        ("writer", WRITE, "a", "c"),
        ("both", READWRITE, "a", "c"),
        ("point", READWRITE, "a", ""),
    ];
    for (name, kind, key, end) in roles {
        for request in
            [user_add(name), role_add(name), permit(name, kind, key, end), grant_role(name, name)]
        {
            ok(&mut member, "", request);
        }
    }
    for request in [user_add("root"), grant_role("root", "root"), enable()] {
        ok(&mut member, "", request);
    }
    member
}

fn refusal(member: &mut Member, user: &str, request: Request) -> Option<AuthRefusal> {
    match member.one_as(user, request) {
        Ok(_) => None,
        Err(Refusal::Auth(refusal)) => Some(refusal),
        Err(other) => panic!("{other}"),
    }
}

fn denied(member: &mut Member, user: &str, request: Request) {
    let (before, told) = (member.machine.revision(), format!("{request:?}"));
    let refused = refusal(member, user, request);
    assert_eq!(refused, Some(AuthRefusal::PermissionDenied), "{user}: {told}");
    assert_eq!(member.machine.revision(), before, "it has no effect");
}

#[test]
fn changes_of_users_and_roles_are_refused_as_etcd_refuses_them() {
    use AuthRefusal as R;
    let mut member = Member::new(1 << 20);
    #[rustfmt::skip]
    let table = [
        // request                                  refused with                     auth revision behind it
        (enable(),                                  Some(R::RootUserNotFound),       1),
        (disable(),                                 None,                            1),
        (login("u", 1),                             Some(R::NotEnabled),             1),
        (user_add(""),                              Some(R::UserEmpty),              1),
        (user_add("root"),                          None,                            2),
        (user_add("root"),                          Some(R::UserExists),             2),
        (enable(),                                  Some(R::RootRoleNotGranted),     2),
        // The role root may be granted though nobody added it.
        (grant_role("root", "root"),                None,                            3),
        (grant_role("root", "root"),                None,                            3),
        (grant_role("u", "r"),                      Some(R::UserNotFound),           3),
        (grant_role("root", "r"),                   Some(R::RoleNotFound),           3),
        (revoke_role("u", "r"),                     Some(R::UserNotFound),           3),
        (revoke_role("root", "r"),                  Some(R::RoleNotGranted),         3),
        (passwd("u", "h"),                          Some(R::UserNotFound),           3),
        (user_delete("u"),                          Some(R::UserNotFound),           3),
        (role_add(""),                              Some(R::RoleEmpty),              3),
        (role_add("r"),                             None,                            4),
        (role_add("r"),                             Some(R::RoleExists),             4),
        (role_delete("s"),                          Some(R::RoleNotFound),           4),
        (role_delete("root"),                       Some(R::RoleNotFound),           4),
        // What is granted is looked at before the role.
        (auth(Ask::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest {
            name: "s".to_owned(), perm: None })),   Some(R::PermissionNotGiven),     4),
        (permit("s", READ, "", ""),                 Some(R::InvalidManagement),      4),
        (permit("s", READ, "", "\0"),               Some(R::InvalidManagement),      4),
        (permit("s", READ, "a", "a"),               Some(R::InvalidManagement),      4),
        (permit("s", READ, "b", "a"),               Some(R::InvalidManagement),      4),
        (permit("s", READ, "a", ""),                Some(R::RoleNotFound),           4),
        (permit("r", READ, "a", ""),                None,                            5),
        (permit("r", READ, "a", ""),                None,                            6),
        (permit("r", READ, "\0", "\0"),             None,                            7),
        (forbid("s", "a", ""),                      Some(R::RoleNotFound),           7),
        (forbid("r", "a", "b"),                     Some(R::PermissionNotGranted),   7),
        (forbid("r", "a", ""),                      None,                            8),
        (forbid("r", "a", ""),                      Some(R::PermissionNotGranted),   8),
        (user_add("u"),                             None,                            9),
        (grant_role("u", "r"),                      None,                            10),
        (passwd("u", "h"),                          None,                            11),
        (enable(),                                  None,                            11),
        (enable(),                                  None,                            11),
        (login("nobody", 11),                       Some(R::Failed),                 11),
        (login("u", 10),                            Some(R::OldRevision),            11),
        (login("u", 11),                            None,                            11),
        (user_delete("root"),                       Some(R::InvalidManagement),      11),
        (role_delete("root"),                       Some(R::InvalidManagement),      11),
        (revoke_role("root", "root"),               Some(R::InvalidManagement),      11),
        (role_delete("r"),                          None,                            12),
        (revoke_role("u", "r"),                     Some(R::RoleNotGranted),         12),
        (disable(),                                 None,                            13),
        (revoke_role("root", "root"),               None,                            14),
        (enable(),                                  Some(R::RootRoleNotGranted),     14),
        (user_delete("root"),                       None,                            15),
    ];
    for (place, (request, refused, revision)) in table.into_iter().enumerate() {
        let told = format!("row {place}: {request:?}");
        assert_eq!(refusal(&mut member, "root", request), refused, "{told}");
        assert_eq!(member.machine.auth().revision(), revision, "{told}");
    }
}

#[test]
fn a_user_without_password_has_no_hash_and_cannot_log_in() {
    let mut member = enabled();
    let (name, password_hash) = ("cn".to_owned(), "given all the same".to_owned());
    let add = AuthUserAdd { name, no_password: true, password_hash };
    ok(&mut member, "root", auth(Ask::UserAdd(add)));
    ok(&mut member, "root", passwd("cn", "given later"));
    let user = member.machine.auth().user("cn").unwrap();
    assert_eq!((user.password_hash.as_str(), user.no_password), ("", true));
    let revision = member.machine.auth().revision();
    assert_eq!(refusal(&mut member, "", login("cn", revision)), Some(AuthRefusal::Failed));
}

#[test]
fn tokens_end_with_their_user_its_password_and_authentication() {
    let mut member = enabled();
    let mut tokens = |user: &str, request: Request| {
        let asked =
            super::member::Asked { user: user.to_owned(), age: super::member::Age::New, request };
        let command = member.command(&asked);
        member.pack_commands(vec![command]).tokens
    };
    let dropped = |user: &str| vec![TokenChange::UserDropped { user: user.to_owned() }];
    let (user, token_id) = ("reader".to_owned(), "t".to_owned());
    assert_eq!(tokens("", login("reader", 0)), [TokenChange::Given { user, token_id }]);
    assert_eq!(tokens("root", passwd("reader", "h")), dropped("reader"));
    assert_eq!(tokens("root", user_delete("reader")), dropped("reader"));
    assert_eq!(tokens("root", role_add("another")), []);
    assert_eq!(tokens("root", disable()), [TokenChange::AllDropped]);
    assert_eq!(tokens("root", disable()), []);
}

#[test]
fn what_changes_users_and_roles_takes_the_root_role() {
    use AuthRefusal as R;
    let requests = [
        enable(),
        disable(),
        user_add("x"),
        user_delete("reader"),
        passwd("reader", "h"),
        grant_role("reader", "root"),
        revoke_role("reader", "reader"),
        role_add("x"),
        role_delete("reader"),
        permit("reader", READWRITE, "a", "z"),
        forbid("reader", "a", "c"),
    ];
    let mut member = enabled();
    for request in &requests {
        #[rustfmt::skip]
        let table = [
            ("",       R::UserEmpty),
            ("nobody", R::UserNotFound),
            ("reader", R::PermissionDenied),
        ];
        for (user, refused) in table {
            assert_eq!(refusal(&mut member, user, request.clone()), Some(refused), "{request:?}");
        }
    }
    // The role counts, not the name.
    ok(&mut member, "root", grant_role("reader", "root"));
    ok(&mut member, "reader", user_add("x"));
}

#[test]
fn who_was_admitted_before_users_or_roles_changed_is_sent_back() {
    let mut member = enabled();
    let revision = member.machine.auth().revision();
    let mut put_at = |user: &str, auth_revision: u64| {
        let user = user.to_owned();
        let command = crate::api::pb::internal::Command {
            user,
            auth_revision,
            ..command(Request::Put(put("a")))
        };
        member.pack_commands(vec![command]).replies.remove(0).err()
    };
    let old = Some(Refusal::Auth(AuthRefusal::OldRevision));
    let empty = Some(Refusal::Auth(AuthRefusal::UserEmpty));
    let denied = Some(Refusal::Auth(AuthRefusal::PermissionDenied));
    #[rustfmt::skip]
    let table = [
        ("root",   revision,     None),
        ("root",   revision - 1, old.clone()),
        ("root",   0,            empty.clone()),
        ("writer", revision,     None),
        ("writer", revision - 1, old.clone()),
        ("nobody", revision,     denied),
        ("nobody", revision - 1, old),
        ("",       0,            empty),
    ];
    for (user, auth_revision, refused) in table {
        assert_eq!(put_at(user, auth_revision), refused, "{user} at {auth_revision}");
    }
}

/// Packed with the change itself: the permission counts as it is when the request's turn comes.
#[test]
fn a_permission_ends_with_the_command_before() {
    let mut member = enabled();
    let revision = member.machine.auth().revision();
    let by = |user: &str, auth_revision, request| crate::api::pb::internal::Command {
        user: user.to_owned(),
        auth_revision,
        request: Some(request),
    };
    let applied = member.pack_commands(vec![
        by("writer", revision, Request::Put(put("a"))),
        by("root", revision, forbid("writer", "a", "c")),
        by("writer", revision, Request::Put(put("a"))),
        by("writer", revision + 1, Request::Put(put("a"))),
    ]);
    let refused: Vec<_> = applied.replies.into_iter().map(Result::err).collect();
    let old = Some(Refusal::Auth(AuthRefusal::OldRevision));
    let denied = Some(Refusal::Auth(AuthRefusal::PermissionDenied));
    assert_eq!(refused, [None, None, old, denied]);
}

#[test]
fn granting_a_range_again_changes_its_kind_wherever_it_stands() {
    let mut member = enabled();
    for request in [
        role_add("r"),
        permit("r", READ, "a", ""),
        permit("r", READWRITE, "a", "c"),
        permit("r", READ, "a", "c"),
    ] {
        ok(&mut member, "root", request);
    }
    let kinds = |member: &Member| -> Vec<i32> {
        let permissions = &member.machine.auth().role("r").unwrap().permissions;
        permissions.iter().map(|permission| permission.perm_type).collect()
    };
    assert_eq!(kinds(&member), [READ, READ]);
}

#[test]
fn permissions_follow_their_roles() {
    let mut member = enabled();
    let may = |member: &Member, key: &str| {
        let auth = member.machine.auth();
        let caller = Caller { user: "reader".to_owned(), auth_revision: auth.revision() };
        auth.check_read(&caller, key.as_bytes(), b"").is_ok()
    };
    assert_eq!((may(&member, "b"), may(&member, "k")), (true, false));
    for request in [role_add("r"), grant_role("reader", "r"), permit("r", READ, "k", "")] {
        ok(&mut member, "root", request);
    }
    assert_eq!((may(&member, "b"), may(&member, "k")), (true, true));
    ok(&mut member, "root", revoke_role("reader", "reader"));
    assert_eq!((may(&member, "b"), may(&member, "k")), (false, true));
    ok(&mut member, "root", role_delete("r"));
    assert_eq!((may(&member, "b"), may(&member, "k")), (false, false));
    // A role of the old name is another role.
    for request in [role_add("r"), permit("r", READ, "k", "")] {
        ok(&mut member, "root", request);
    }
    assert!(!may(&member, "k"));
}

#[test]
fn users_are_told_of_themselves_and_the_administrator_of_all() {
    use AuthRefusal as R;
    let mut member = enabled();
    ok(&mut member, "root", role_add("root"));
    let auth = member.machine.auth();
    let caller = |user: &str| Caller { user: user.to_owned(), auth_revision: 1 };
    let (root, reader) = (caller("root"), caller("reader"));
    let refused = |refusal: R| Some(Refusal::Auth(refusal));
    assert_eq!(auth.user_get(&reader, "reader").unwrap().roles, ["reader"]);
    assert_eq!(auth.user_get(&reader, "root").err(), refused(R::PermissionDenied));
    assert_eq!(auth.user_get(&Caller::default(), "root").err(), refused(R::UserEmpty));
    assert_eq!(auth.user_get(&root, "x").err(), refused(R::UserNotFound));
    assert_eq!(auth.user_list(&reader).err(), refused(R::PermissionDenied));
    let users = auth.user_list(&root).unwrap().users;
    assert_eq!(users, ["both", "point", "reader", "root", "writer"]);
    assert_eq!(auth.role_get(&reader, "reader").unwrap().perm.len(), 1);
    assert_eq!(auth.role_get(&reader, "writer").err(), refused(R::PermissionDenied));
    assert_eq!(auth.role_get(&root, "x").err(), refused(R::RoleNotFound));
    let everything = auth.role_get(&root, "root").unwrap().perm;
    assert_eq!((&*everything[0].key, &*everything[0].range_end), (&b""[..], &b"\0"[..]));
    assert_eq!(auth.role_list(&reader).err(), refused(R::PermissionDenied));
    assert!(auth.status().enabled);
}

/// CVE-2026-33343: a txn within a txn got past the permissions of what is in it.
#[test]
fn cve_2026_33343_nested_txns_take_every_permission_of_what_is_in_them() {
    let mut member = enabled();
    let nest = |txn: pb::TxnRequest| then(vec![Op::RequestTxn(txn)]);
    let inner = [
        then(vec![Op::RequestPut(put("z"))]),
        then(vec![Op::RequestRange(range("z", ""))]),
        then(vec![Op::RequestRange(range("a", "\0"))]),
        then(vec![Op::RequestDeleteRange(delete("a", "z"))]),
        // The branch that is not taken counts as well.
        otherwise(vec![Op::RequestPut(put("z"))]),
        pb::TxnRequest {
            compare: vec![pb::Compare { key: bytes("z"), ..pb::Compare::default() }],
            ..pb::TxnRequest::default()
        },
    ];
    for txn in inner {
        for depth in 0..3 {
            let nested = (0..depth).fold(txn.clone(), |txn, _| nest(txn));
            denied(&mut member, "both", Request::Txn(nested.clone()));
            let caller =
                Caller { user: "both".to_owned(), auth_revision: member.machine.auth().revision() };
            let refused = member.machine.check_read_only(&caller, &nested);
            assert_eq!(refused, Err(Refusal::Auth(AuthRefusal::PermissionDenied)));
        }
    }
    let fine = nest(then(vec![Op::RequestPut(put("a")), Op::RequestRange(range("a", "c"))]));
    ok(&mut member, "both", Request::Txn(fine));
}

/// CVE-2026-44283: within a txn, a put's `prev_kv` and its lease were not looked at.
#[test]
fn cve_2026_44283_puts_in_a_txn_take_what_puts_take() {
    let mut member = enabled();
    ok(&mut member, "root", Request::Put(put("a")));
    ok(&mut member, "root", Request::LeaseGrant(pb::LeaseGrantRequest { id: 7, ttl: 60 }));
    ok(&mut member, "root", Request::Put(pb::PutRequest { lease: 7, ..put("z") }));
    ok(&mut member, "root", Request::LeaseGrant(pb::LeaseGrantRequest { id: 8, ttl: 60 }));
    let shown = pb::PutRequest { prev_kv: true, ..put("a") };
    let gone = pb::DeleteRangeRequest { prev_kv: true, ..delete("a", "") };
    let leased = |lease| pb::PutRequest { lease, ..put("a") };
    let (txn, op) = (|op| Request::Txn(then(vec![op])), Op::RequestPut);

    // Who may write and not read learns nothing of what was there.
    denied(&mut member, "writer", Request::Put(shown.clone()));
    denied(&mut member, "writer", txn(op(shown.clone())));
    denied(&mut member, "writer", Request::DeleteRange(gone.clone()));
    denied(&mut member, "writer", txn(Op::RequestDeleteRange(gone)));
    // Who could revoke the lease would delete z.
    denied(&mut member, "writer", Request::Put(leased(7)));
    denied(&mut member, "writer", txn(op(leased(7))));
    denied(&mut member, "writer", Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 7 }));

    ok(&mut member, "both", txn(op(shown)));
    ok(&mut member, "writer", txn(op(leased(8))));
    ok(&mut member, "writer", Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 8 }));
}

/// GHSA-xg4h-6gfc-h4m8: a watch from a key on was checked as one of that key alone.
#[test]
fn ghsa_xg4h_6gfc_h4m8_an_open_range_takes_an_open_permission() {
    let mut member = enabled();
    let check = |member: &Member, user: &str, end: &[u8]| {
        let auth = member.machine.auth();
        let caller = Caller { user: user.to_owned(), auth_revision: auth.revision() };
        auth.check_read(&caller, b"a", end)
    };
    let denied = Err(Refusal::Auth(AuthRefusal::PermissionDenied));
    assert_eq!(check(&member, "point", b""), Ok(()));
    assert_eq!(check(&member, "point", b"\0"), denied);
    assert_eq!(check(&member, "point", b"b"), denied);
    assert_eq!(check(&member, "both", b"c"), Ok(()));
    assert_eq!(check(&member, "both", b"\0"), denied);
    ok(&mut member, "root", permit("both", READ, "b", "\0"));
    assert_eq!(check(&member, "both", b"\0"), Ok(()));
}

/// CVE-2026-33413: some calls asked for no permission at all, leases and compaction among them.
#[test]
fn cve_2026_33413_leases_take_a_user_and_compaction_takes_the_administrator() {
    let mut member = enabled();
    let grant = Request::LeaseGrant(pb::LeaseGrantRequest { id: 7, ttl: 60 });
    let revoke = Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 7 });
    let compaction = Request::Compaction(pb::CompactionRequest { revision: 1, physical: false });
    let raise = Request::Alarm(pb::AlarmRequest { action: 1, member_id: 1, alarm: 1 });
    assert_eq!(refusal(&mut member, "", grant.clone()), Some(AuthRefusal::UserEmpty));
    ok(&mut member, "reader", grant);
    assert_eq!(refusal(&mut member, "", revoke.clone()), Some(AuthRefusal::UserEmpty));
    denied(&mut member, "reader", compaction.clone());
    denied(&mut member, "reader", raise);
    ok(&mut member, "root", compaction);
    // Nothing hangs on it.
    ok(&mut member, "reader", revoke);
}

#[test]
fn a_lease_is_shown_and_kept_by_who_may_read_or_write_its_keys() {
    let mut member = enabled();
    ok(&mut member, "root", Request::LeaseGrant(pb::LeaseGrantRequest { id: 7, ttl: 60 }));
    ok(&mut member, "root", Request::Put(pb::PutRequest { lease: 7, ..put("a") }));
    let revision = member.machine.auth().revision();
    let id = crate::api::ids::LeaseId(7);
    let machine = &member.machine;
    let checks = |user: &str| {
        let auth_revision = if user.is_empty() { 0 } else { revision };
        let caller = Caller { user: user.to_owned(), auth_revision };
        [
            machine.check_lease_renew(&caller, id),
            machine.check_lease_time_to_live(&caller, id, false),
            machine.check_lease_time_to_live(&caller, id, true),
            machine.check_lease_leases(&caller),
        ]
    };
    let denied = || Err(Refusal::Auth(AuthRefusal::PermissionDenied));
    let empty = || Err(Refusal::Auth(AuthRefusal::UserEmpty));
    assert_eq!(checks("root"), [Ok(()), Ok(()), Ok(()), Ok(())]);
    assert_eq!(checks("both"), [Ok(()), Ok(()), Ok(()), Ok(())]);
    assert_eq!(checks("reader"), [denied(), Ok(()), Ok(()), Ok(())]);
    assert_eq!(checks("writer"), [Ok(()), Ok(()), denied(), denied()]);
    assert_eq!(checks(""), [empty(), empty(), empty(), empty()]);
}

/// In etcd, too, it is asked whether somebody was admitted, not under which name (`requireAuthInfo`).
#[test]
fn who_shows_a_certificate_without_a_common_name_is_somebody_whom_nobody_knows() {
    use AuthRefusal as R;
    let grant = |id| Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl: 60 });
    let revoke = |id| Request::LeaseRevoke(pb::LeaseRevokeRequest { id });
    // Members of level 2 ask for a name, and what is applied beside them is decided as they do.
    for (level, is_somebody) in [(2, false), (3, true)] {
        let mut member = enabled();
        let to = crate::api::pb::internal::ClusterLevel { level };
        ok(&mut member, "", Request::ClusterLevel(to));
        ok(&mut member, "root", grant(7));
        ok(&mut member, "root", Request::Put(pb::PutRequest { lease: 7, ..put("a") }));
        let auth_revision = member.machine.auth().revision();
        let unnamed = Caller { user: String::new(), auth_revision };
        let mut refusal = |request: &Request, auth_revision| {
            let command =
                crate::api::pb::internal::Command { auth_revision, ..command(request.clone()) };
            member.pack_commands(vec![command]).replies.remove(0).err()
        };
        #[rustfmt::skip]
        let table = [
            (grant(8),                None),
            (revoke(8),               None),
            (revoke(9),               Some(Refusal::LeaseNotFound)),
            (revoke(7),               Some(R::PermissionDenied.into())),
        ];
        for (request, refused) in table {
            let refused = if is_somebody { refused } else { Some(R::UserEmpty.into()) };
            assert_eq!(refusal(&request, auth_revision), refused, "{request:?} at {level}");
            assert_eq!(refusal(&request, 0), Some(R::UserEmpty.into()), "nobody: {request:?}");
        }
        let denied = Some(R::PermissionDenied.into());
        assert_eq!(refusal(&Request::Put(put("a")), auth_revision), denied);
        assert_eq!(refusal(&user_add("x"), auth_revision), Some(R::UserEmpty.into()));

        // Of what is not in the log, every member decides for itself.
        ok(&mut member, "root", grant(8));
        let (machine, of_a, of_none) =
            (&member.machine, crate::api::ids::LeaseId(7), crate::api::ids::LeaseId(8));
        assert_eq!(machine.auth().check_somebody(&unnamed), Ok(()));
        assert_eq!(machine.check_lease_renew(&unnamed, of_none), Ok(()));
        assert_eq!(machine.check_lease_renew(&unnamed, of_a).err(), denied);
        assert_eq!(machine.check_lease_time_to_live(&unnamed, of_a, false), Ok(()));
        assert_eq!(machine.check_lease_time_to_live(&unnamed, of_a, true).err(), denied);
        assert_eq!(machine.check_lease_leases(&unnamed).err(), denied);
        assert_eq!(machine.auth().check_read(&unnamed, b"a", b"").err(), denied);
        let empty = Some(R::UserEmpty.into());
        assert_eq!(machine.auth().check_admin(&unnamed).err(), empty);
        assert_eq!(machine.check_lease_renew(&Caller::default(), of_none).err(), empty);
    }
}

#[test]
fn members_own_commands_need_nobody() {
    let mut member = enabled();
    let term = member.term;
    let requests = [
        Request::LeaseExpiry(crate::api::pb::internal::LeaseExpiry { term, lease_ids: vec![7] }),
        Request::LeaseCheckpoint(pb::LeaseCheckpointRequest::default()),
        Request::Compaction(pb::CompactionRequest { revision: 1, physical: false }),
        Request::Alarm(pb::AlarmRequest { action: 1, member_id: 1, alarm: 1 }),
        Request::MemberAttributes(Default::default()),
        Request::ClusterLevel(Default::default()),
    ];
    for request in requests {
        ok(&mut member, "", request);
    }
}

#[test]
fn while_authentication_is_off_nobody_is_asked() {
    let mut member = enabled();
    ok(&mut member, "root", disable());
    for user in ["", "nobody", "reader"] {
        ok(&mut member, user, Request::Put(put("z")));
        ok(&mut member, user, user_add(&format!("of {user}")));
    }
}

/// Hashes are in records and nowhere else.
#[test]
fn password_hashes_are_not_shown() {
    let mut member = Member::new(0);
    ok(&mut member, "", user_add("u"));
    assert!(member.machine.auth().user("u").unwrap().password_hash.contains("hash of"));
    assert!(!format!("{:?}", member.machine).contains("hash of"));
    for request in [user_add("u"), passwd("u", "hash of it")] {
        assert!(!format!("{request:?}").contains("hash of"), "{request:?}");
    }
    assert!(!format!("{:?}", login("u", 1)).contains("\"t\""));
}
