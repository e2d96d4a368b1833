//! Users and roles: what changing and reading them answers.

use super::*;

fn precondition(text: &str) -> Refused {
    says(Code::FailedPrecondition, text)
}

fn role_add(name: &str) -> pb::AuthRoleAddRequest {
    pb::AuthRoleAddRequest { name: name.into() }
}

fn user_get(name: &str) -> pb::AuthUserGetRequest {
    pb::AuthUserGetRequest { name: name.into() }
}

fn role_get(role: &str) -> pb::AuthRoleGetRequest {
    pb::AuthRoleGetRequest { role: role.into() }
}

#[tokio::test]
async fn enabling_takes_root_with_its_role_and_is_idempotent() {
    let rig = Rig::start().await;
    let mut auth = rig.auth();
    let status = auth.auth_status(pb::AuthStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.enabled, status.auth_revision), (false, 1));
    let header = status.header.unwrap();
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.revision == 1);
    let enable = pb::AuthEnableRequest {};
    let no_root = precondition("root user does not exist");
    assert_eq!(refused(auth.auth_enable(enable).await), no_root);
    auth.user_add(user_add("root", "secret")).await.unwrap();
    let no_role = precondition("root user does not have root role");
    assert_eq!(refused(auth.auth_enable(enable).await), no_role);
    auth.user_grant_role(grant("root", "root")).await.unwrap();
    auth.auth_enable(enable).await.unwrap();
    let token = login(&rig.channel, "root", "secret").await.unwrap();
    auth.auth_enable(with(&token, enable)).await.unwrap();
    assert_eq!(refused(auth.auth_enable(enable).await), user_empty());
    let status = auth.auth_status(pb::AuthStatusRequest {}).await.unwrap().into_inner();
    // Enabling does not raise the revision.
    assert_eq!((status.enabled, status.auth_revision), (true, 3));
    auth.auth_disable(with(&token, pb::AuthDisableRequest {})).await.unwrap();
    auth.auth_disable(pb::AuthDisableRequest {}).await.unwrap();
    let status = auth.auth_status(pb::AuthStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.enabled, status.auth_revision), (false, 4));
    rig.stop().await;
}

#[tokio::test]
async fn users_come_and_go() {
    let rig = Rig::start().await;
    let mut auth = rig.auth();
    auth.user_add(user_add("ben", "x")).await.unwrap();
    auth.user_add(user_add("ann", "")).await.unwrap();
    auth.user_add(without_password("carl")).await.unwrap();
    let exists = precondition("user name already exists");
    assert_eq!(refused(auth.user_add(user_add("ann", "y")).await), exists);
    assert_eq!(refused(auth.user_add(user_add("", "y")).await), user_empty());
    let long = user_add("dora", &"p".repeat(73));
    let too_long = (Code::Unknown, "bcrypt: password length exceeds 72 bytes".to_owned());
    assert_eq!(refused(auth.user_add(long).await), too_long);
    let listed = auth.user_list(pb::AuthUserListRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.users, ["ann", "ben", "carl"]);
    let missing = precondition("user name not found");
    let delete = |name: &str| pb::AuthUserDeleteRequest { name: name.into() };
    auth.user_delete(delete("ben")).await.unwrap();
    assert_eq!(refused(auth.user_delete(delete("ben")).await), missing);
    assert_eq!(refused(auth.user_get(user_get("ben")).await), missing);
    assert_eq!(refused(auth.user_change_password(change_password("ben", "x")).await), missing);
    auth.user_change_password(change_password("carl", "x")).await.unwrap();
    let odd = |name: &str| pb::AuthUserChangePasswordRequest {
        hashed_password: "*".into(),
        ..change_password(name, "")
    };
    let no_password =
        (Code::Unknown, "auth: authentication failed, password was given for no password user");
    let no_password = (no_password.0, no_password.1.to_owned());
    assert_eq!(refused(auth.user_change_password(odd("ann")).await), no_password);
    assert_eq!(refused(auth.user_change_password(odd("ben")).await), missing);
    auth.user_change_password(odd("carl")).await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn roles_are_added_granted_and_taken() {
    let rig = Rig::start().await;
    let mut auth = rig.auth();
    auth.user_add(user_add("ann", "x")).await.unwrap();
    for role in ["two", "one"] {
        auth.role_add(role_add(role)).await.unwrap();
        auth.user_grant_role(grant("ann", role)).await.unwrap();
        auth.user_grant_role(grant("ann", role)).await.unwrap();
    }
    assert_eq!(
        refused(auth.role_add(role_add("one")).await),
        precondition("role name already exists")
    );
    let nameless = says(Code::InvalidArgument, "role name is empty");
    assert_eq!(refused(auth.role_add(role_add("")).await), nameless);
    let no_role = precondition("role name not found");
    assert_eq!(refused(auth.user_grant_role(grant("ann", "three")).await), no_role);
    let no_user = precondition("user name not found");
    assert_eq!(refused(auth.user_grant_role(grant("ben", "one")).await), no_user);
    let told = auth.user_get(user_get("ann")).await.unwrap().into_inner();
    assert_eq!(told.roles, ["one", "two"]);
    let listed = auth.role_list(pb::AuthRoleListRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.roles, ["one", "two"]);
    let revoke = pb::AuthUserRevokeRoleRequest { name: "ann".into(), role: "two".into() };
    auth.user_revoke_role(revoke.clone()).await.unwrap();
    let not_granted = precondition("role is not granted to the user");
    assert_eq!(refused(auth.user_revoke_role(revoke).await), not_granted);
    let delete = pb::AuthRoleDeleteRequest { role: "one".into() };
    auth.role_delete(delete.clone()).await.unwrap();
    assert_eq!(refused(auth.role_delete(delete).await), no_role);
    let told = auth.user_get(user_get("ann")).await.unwrap().into_inner();
    assert!(told.roles.is_empty());
    rig.stop().await;
}

#[tokio::test]
async fn permissions_are_granted_changed_and_taken() {
    let rig = Rig::start().await;
    let mut auth = rig.auth();
    auth.role_add(role_add("one")).await.unwrap();
    for (kind, key, end) in
        [(Type::Read, "b", ""), (Type::Write, "a", "b"), (Type::Readwrite, "a", "b")]
    {
        auth.role_grant_permission(permit("one", kind, key, end)).await.unwrap();
    }
    let told = auth.role_get(role_get("one")).await.unwrap().into_inner();
    let perms: Vec<_> = told
        .perm
        .iter()
        .map(|perm| (perm.perm_type(), &perm.key[..], &perm.range_end[..]))
        .collect();
    let want = [(Type::Readwrite, &b"a"[..], &b"b"[..]), (Type::Read, &b"b"[..], &b""[..])];
    assert_eq!(perms, want);
    let not_given = says(Code::InvalidArgument, "permission not given");
    let nothing = pb::AuthRoleGrantPermissionRequest { name: "one".into(), perm: None };
    assert_eq!(refused(auth.role_grant_permission(nothing).await), not_given);
    let bad = says(Code::InvalidArgument, "invalid auth management");
    for (key, end) in [("", ""), ("", "b"), ("b", "a"), ("b", "b")] {
        let request = permit("nobody", Type::Read, key, end);
        assert_eq!(refused(auth.role_grant_permission(request).await), bad, "{key} {end}");
    }
    let no_role = precondition("role name not found");
    let request = permit("nobody", Type::Read, "a", "\0");
    assert_eq!(refused(auth.role_grant_permission(request).await), no_role);
    let revoke = |key: &str, range_end: &str| pb::AuthRoleRevokePermissionRequest {
        role: "one".into(),
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
    };
    let not_granted = precondition("permission is not granted to the role");
    assert_eq!(refused(auth.role_revoke_permission(revoke("a", "")).await), not_granted);
    auth.role_revoke_permission(revoke("a", "b")).await.unwrap();
    let told = auth.role_get(role_get("one")).await.unwrap().into_inner();
    assert_eq!(told.perm.len(), 1);
    // Root's role can be granted without having been added, and then there is nothing to show.
    assert_eq!(refused(auth.role_get(role_get("root")).await), no_role);
    auth.role_add(role_add("root")).await.unwrap();
    let told = auth.role_get(role_get("root")).await.unwrap().into_inner();
    let perm = &told.perm[0];
    assert_eq!(
        (perm.perm_type(), &perm.key[..], &perm.range_end[..]),
        (Type::Readwrite, &b""[..], &b"\0"[..])
    );
    rig.stop().await;
}

#[tokio::test]
async fn nobody_can_take_root_away() {
    let (rig, root) = Rig::guarded().await;
    let mut auth = rig.auth();
    let bad = says(Code::InvalidArgument, "invalid auth management");
    auth.role_add(with(&root, role_add("root"))).await.unwrap();
    let delete = pb::AuthUserDeleteRequest { name: "root".into() };
    assert_eq!(refused(auth.user_delete(with(&root, delete)).await), bad);
    let delete = pb::AuthRoleDeleteRequest { role: "root".into() };
    assert_eq!(refused(auth.role_delete(with(&root, delete)).await), bad);
    let revoke = pb::AuthUserRevokeRoleRequest { name: "root".into(), role: "root".into() };
    assert_eq!(refused(auth.user_revoke_role(with(&root, revoke)).await), bad);
    rig.stop().await;
}

#[tokio::test]
async fn users_and_roles_outlive_a_restart_and_tokens_do_not() {
    let (rig, root) = Rig::guarded().await;
    add_user(&rig.channel, &root, "ann", &[(Type::Readwrite, "a", "b")]).await;
    rig.put(&root, "z", "1").await;
    let Rig { _dir: dir, server, channel } = rig;
    drop(channel);
    server.stop().await.unwrap();
    let mut config = Config::default();
    config.member.data_dir = dir.path().join("data").to_str().unwrap().to_owned();
    config.member.listen_client = parse_list("http://127.0.0.1:0").unwrap();
    config.member.listen_peer = parse_list("http://127.0.0.1:0").unwrap();
    config.log.outputs = vec!["/dev/null".to_owned()];
    let server = Server::spawn(config.build().unwrap()).await.unwrap();
    tokio::time::timeout(LONG, server.ready()).await.expect("a lone member elects itself");
    let rig = Rig { channel: connect(&server).await, _dir: dir, server };
    assert_eq!(refused(rig.kv().range(with(&root, get("z"))).await), invalid_token());
    assert_eq!(refused(rig.kv().range(get("z")).await), user_empty());
    let ann = login(&rig.channel, "ann", "secret").await.unwrap();
    rig.put(&ann, "aa", "1").await;
    assert_eq!(refused(rig.kv().range(with(&ann, get("z"))).await), denied());
    rig.stop().await;
}

#[tokio::test]
async fn the_metrics_tell_the_auth_revision() {
    let (rig, root) = Rig::guarded().await;
    add_user(&rig.channel, &root, "ann", &[(Type::Read, "a", "")]).await;
    let url = &rig.server.client_addresses()[0];
    let text = super::super::tests::http(url, "GET /metrics HTTP/1.1").await;
    assert!(text.contains("\netcd_debugging_auth_revision 7\n"), "{text}");
    for line in ["GET /health HTTP/1.1", "GET /readyz HTTP/1.1", "GET /livez HTTP/1.1"] {
        let text = super::super::tests::http(url, line).await;
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{line}: {text}");
    }
    rig.stop().await;
}
