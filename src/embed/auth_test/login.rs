//! Logging in, and what becomes of tokens.

use super::*;

fn failed() -> Refused {
    says(Code::InvalidArgument, "authentication failed, invalid user ID or password")
}

async fn turned_away(rig: &Rig, name: &str, password: &str) -> Refused {
    let status = login(&rig.channel, name, password).await.unwrap_err();
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn who_knows_the_password_gets_a_token_of_etcds_form() {
    let (rig, root) = Rig::guarded().await;
    let (letters, index) = root.split_once('.').unwrap();
    assert!(letters.len() == 16 && letters.bytes().all(|c| c.is_ascii_alphabetic()), "{root}");
    assert!(index.parse::<u64>().unwrap() > 0);
    let other = login(&rig.channel, "root", "secret").await.unwrap();
    assert_ne!(root, other);
    for token in [&root, &other, &format!("Bearer {root}")] {
        rig.put(token, "a", "1").await;
    }
    let mut by_other_name = Request::new(get("a"));
    by_other_name.metadata_mut().insert("authorization", root.parse().unwrap());
    rig.kv().range(by_other_name).await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn who_does_not_is_turned_away() {
    let (rig, root) = Rig::guarded().await;
    rig.auth().user_add(with(&root, user_add("ann", ""))).await.unwrap();
    rig.auth().user_add(with(&root, without_password("ben"))).await.unwrap();
    rig.auth().user_add(with(&root, user_add("carl", "x"))).await.unwrap();
    rig.auth().user_change_password(with(&root, change_password("carl", ""))).await.unwrap();
    for (name, password) in [
        ("root", "Secret"),
        ("root", ""),
        ("nobody", "x"),
        ("", ""),
        ("ann", "x"),
        ("carl", "x"),
        ("carl", ""),
    ] {
        assert_eq!(turned_away(&rig, name, password).await, failed(), "{name} {password}");
    }
    let text = "auth: authentication failed, password was given for no password user";
    assert_eq!(turned_away(&rig, "ben", "x").await, (Code::Unknown, text.to_owned()));
    login(&rig.channel, "ann", "").await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn while_auth_is_off_nobody_logs_in_and_tokens_are_not_looked_at() {
    let rig = Rig::start().await;
    rig.auth().user_add(user_add("ann", "x")).await.unwrap();
    let off = says(Code::FailedPrecondition, "authentication is not enabled");
    assert_eq!(turned_away(&rig, "ann", "x").await, off);
    rig.put("nonsense", "a", "1").await;
    rig.stop().await;
}

#[tokio::test]
async fn tokens_end_with_the_password_the_user_and_auth_itself() {
    let (rig, root) = Rig::guarded().await;
    let may = [(Type::Readwrite, "a", "")];
    let ann = add_user(&rig.channel, &root, "ann", &may).await;
    let ben = add_user(&rig.channel, &root, "ben", &may).await;
    rig.put(&ann, "a", "1").await;
    let mut auth = rig.auth();
    auth.user_change_password(with(&root, change_password("ann", "other"))).await.unwrap();
    assert_eq!(refused(rig.kv().put(with(&ann, put("a", "2"))).await), invalid_token());
    assert_eq!(turned_away(&rig, "ann", "secret").await, failed());
    let ann = login(&rig.channel, "ann", "other").await.unwrap();
    rig.put(&ann, "a", "3").await;
    rig.put(&ben, "a", "4").await;
    let delete = pb::AuthUserDeleteRequest { name: "ben".into() };
    auth.user_delete(with(&root, delete)).await.unwrap();
    assert_eq!(refused(rig.kv().put(with(&ben, put("a", "5"))).await), invalid_token());
    auth.auth_disable(with(&root, pb::AuthDisableRequest {})).await.unwrap();
    rig.put(&ben, "a", "6").await;
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    for token in [&root, &ann, &ben] {
        assert_eq!(refused(rig.kv().range(with(token, get("a"))).await), invalid_token());
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_simple_token_lives_as_long_as_it_is_used() {
    let rig = Rig::start_with(|config, _| config.cluster.auth_token_ttl_s = 2).await;
    let root = enable(&rig.channel).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rig.put(&root, "a", "1").await;
    }
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(refused(rig.kv().range(with(&root, get("a"))).await), invalid_token());
    rig.stop().await;
}

/// What was granted to a user holds for a simple token at once: it always stands at the present revision.
#[tokio::test]
async fn a_simple_token_follows_its_users_roles() {
    let (rig, root) = Rig::guarded().await;
    let ann = add_user(&rig.channel, &root, "ann", &[(Type::Read, "a", "")]).await;
    assert_eq!(refused(rig.kv().put(with(&ann, put("a", "1"))).await), denied());
    let more = permit("ann", Type::Readwrite, "a", "");
    rig.auth().role_grant_permission(with(&root, more)).await.unwrap();
    rig.put(&ann, "a", "1").await;
    let less = pb::AuthRoleRevokePermissionRequest {
        role: "ann".into(),
        key: "a".into(),
        range_end: "".into(),
    };
    rig.auth().role_revoke_permission(with(&root, less)).await.unwrap();
    assert_eq!(refused(rig.kv().range(with(&ann, get("a"))).await), denied());
    rig.stop().await;
}

pub(super) fn jwt(ttl: &'static str) -> impl FnOnce(&mut Config, &Path) {
    move |config, dir| {
        let key = dir.join("key");
        std::fs::write(&key, include_bytes!("../../../tests/testdata/auth/rsa.key")).unwrap();
        let key = key.display();
        config.cluster.auth_token = format!("jwt,sign-method=RS256,priv-key={key},ttl={ttl}");
    }
}

/// A signed token says at which revision it was made: it is of no use after the next change.
#[tokio::test]
async fn a_signed_token_is_good_for_its_own_revision() {
    let rig = Rig::start_with(jwt("5m")).await;
    let root = enable(&rig.channel).await;
    assert_eq!(root.split('.').count(), 3);
    rig.put(&root, "a", "1").await;
    rig.kv().range(with(&root, get("a"))).await.unwrap();
    rig.auth().user_add(with(&root, user_add("ann", "x"))).await.unwrap();
    assert_eq!(refused(rig.kv().put(with(&root, put("a", "2"))).await), old_revision());
    assert_eq!(refused(rig.kv().range(with(&root, get("a"))).await), old_revision());
    let ranged = pb::TxnRequest {
        success: vec![pb::RequestOp {
            request: Some(pb::request_op::Request::RequestRange(get("a"))),
        }],
        ..Default::default()
    };
    assert_eq!(refused(rig.kv().txn(with(&root, ranged)).await), old_revision());
    // What takes the role root is asked of the role alone.
    rig.auth().user_list(with(&root, pb::AuthUserListRequest {})).await.unwrap();
    let root = login(&rig.channel, "root", "secret").await.unwrap();
    rig.put(&root, "a", "2").await;
    assert_eq!(refused(rig.kv().range(with(&root[1..], get("a"))).await), invalid_token());
    rig.stop().await;
}

#[tokio::test]
async fn a_signed_token_ends_by_its_time() {
    let rig = Rig::start_with(jwt("2s")).await;
    let root = enable(&rig.channel).await;
    rig.put(&root, "a", "1").await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(refused(rig.kv().range(with(&root, get("a"))).await), invalid_token());
    rig.stop().await;
}

#[tokio::test]
async fn a_member_with_a_public_key_believes_tokens_and_makes_none() {
    let key = include_bytes!("../../../tests/testdata/auth/rsa.pub");
    let rig = Rig::start_with(|config, dir| {
        let file = dir.join("key");
        std::fs::write(&file, key).unwrap();
        config.cluster.auth_token = format!("jwt,sign-method=RS256,pub-key={}", file.display());
    })
    .await;
    let mut auth = rig.auth();
    auth.user_add(user_add("root", "secret")).await.unwrap();
    auth.user_grant_role(grant("root", "root")).await.unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    let text = "auth: token signing attempted with verify-only key";
    assert_eq!(turned_away(&rig, "root", "secret").await, (Code::Unknown, text.to_owned()));
    rig.stop().await;
}

#[tokio::test]
async fn an_auth_token_option_that_is_none_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.member.data_dir = dir.path().join("data").to_str().unwrap().to_owned();
    config.member.listen_client = parse_list("http://127.0.0.1:0").unwrap();
    config.member.listen_peer = parse_list("http://127.0.0.1:0").unwrap();
    config.log.outputs = vec!["/dev/null".to_owned()];
    config.cluster.auth_token = "jwt,sign-method=RS256,priv-key=/nowhere".to_owned();
    let refused = Server::spawn(config.build().unwrap()).await.err().unwrap();
    assert_eq!(refused.to_string(), "auth: invalid auth options");
}

/// The password of CVE-2021-28235 was in the log: what is kept is a hash, and of tokens not even that.
#[tokio::test]
async fn neither_password_nor_token_is_in_the_data() {
    let rig = Rig::start_with(|config, _| {
        config.member.journal_segment_bytes = 64 << 10;
        config.cluster.request_bytes_max = 10_000;
    })
    .await;
    let root = enable(&rig.channel).await;
    let password = "kVtMq7Wd2Zx";
    rig.auth().user_add(with(&root, user_add("ann", password))).await.unwrap();
    rig.auth().user_change_password(with(&root, change_password("ann", password))).await.unwrap();
    let token = login(&rig.channel, "ann", password).await.unwrap();
    let letters = token.split('.').next().unwrap().to_owned();
    let Rig { _dir: dir, server, channel } = rig;
    drop(channel);
    server.stop().await.unwrap();
    let mut folders = vec![dir.path().to_owned()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let content = std::fs::read(&path).unwrap();
            bytes += content.len();
            for secret in [password, letters.as_str(), "secret"] {
                let found = content.windows(secret.len()).any(|some| some == secret.as_bytes());
                assert!(!found, "{secret} is in {}", path.display());
            }
        }
    }
    assert!(bytes > 1000);
}
