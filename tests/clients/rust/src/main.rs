//! Drives members over TLS with the Rust crate etcd-client. Every claim is checked; the first that fails ends the
//! program.

use std::time::{Duration, Instant};

use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, Error, EventType,
    GetOptions, LeaseTimeToLiveOptions, LockOptions, MemberAddOptions, Permission, ProclaimOptions,
    PutOptions, ResignOptions, SortOrder, SortTarget, TlsOptions, Txn, TxnOp, TxnOpResponse,
    WatchOptions, WatchResponse, WatchStream,
};
use tokio::time::sleep;

type Outcome = Result<(), Error>;

const DENIED: &str = "etcdserver: permission denied";
const BAD_LOGIN: &str = "etcdserver: authentication failed, invalid user ID or password";

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set"))
}

async fn connect(login: Option<(&str, &str)>, ca_file: &str) -> Result<Client, Error> {
    let authority = std::fs::read(ca_file).expect("the authority's certificate");
    let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(authority));
    let mut options = ConnectOptions::new().with_tls(tls).with_timeout(Duration::from_secs(20));
    if let Some((name, password)) = login {
        options = options.with_user(name, password);
    }
    let endpoints = variable("ENDPOINTS");
    let endpoints: Vec<&str> = endpoints.split(',').collect();
    Client::connect(endpoints, Some(options)).await
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer.expect_err("refused") {
        Error::GRpcStatus(status) => status.message().to_owned(),
        other => panic!("not a status: {other}"),
    }
}

async fn key_value(client: &mut Client, root: &str) -> Outcome {
    let key = |name: &str| format!("{root}{name}");
    let first = client.put(key("a"), "1", None).await?;
    let again = client.put(key("a"), "2", Some(PutOptions::new().with_prev_key())).await?;
    let revision =
        |header: Option<&etcd_client::ResponseHeader>| header.expect("a header").revision();
    assert_eq!(revision(again.header()), revision(first.header()) + 1);
    assert_eq!(again.prev_key().expect("asked for").value(), b"1");
    client.put(key("b"), "3", None).await?;
    let sorted = GetOptions::new()
        .with_prefix()
        .with_sort(SortTarget::Key, SortOrder::Descend)
        .with_limit(1);
    let got = client.get(root, Some(sorted)).await?;
    assert_eq!((got.count(), got.more()), (2, true));
    assert_eq!(got.kvs()[0].key(), key("b").as_bytes());
    let past = GetOptions::new().with_revision(revision(first.header()));
    assert_eq!(client.get(key("a"), Some(past)).await?.kvs()[0].value(), b"1");
    let txn = Txn::new()
        .when([
            Compare::value(key("a"), CompareOp::Equal, "2"),
            Compare::create_revision(key("x"), CompareOp::Equal, 0),
        ])
        .and_then([TxnOp::put(key("t"), "then", None), TxnOp::get(key("t"), None)])
        .or_else([TxnOp::put(key("t"), "else", None)]);
    let answer = client.txn(txn).await?;
    assert!(answer.succeeded());
    match &answer.op_responses()[1] {
        TxnOpResponse::Get(read) => assert_eq!(read.kvs()[0].value(), b"then"),
        other => panic!("not a get: {other:?}"),
    }
    let twice =
        Txn::new().and_then([TxnOp::put(key("d"), "1", None), TxnOp::put(key("d"), "2", None)]);
    assert_eq!(refusal(client.txn(twice).await), "etcdserver: duplicate key given in txn request");
    assert_eq!(refusal(client.put("", "x", None).await), "etcdserver: key is not provided");
    let all = DeleteOptions::new().with_prefix();
    assert_eq!(client.delete(root, Some(all)).await?.deleted(), 3);
    Ok(())
}

async fn watch(client: &mut Client, admin: &mut Client, root: &str) -> Outcome {
    let key = format!("{root}w");
    let start = client.put(key.as_str(), "0", None).await?;
    let start = start.header().expect("a header").revision();
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let mut events = client.watch(root, Some(options)).await?;
    let mut live = 1;
    for n in 1..4 {
        admin.put(key.as_str(), n.to_string(), None).await?;
    }
    admin.delete(key.as_str(), None).await?;
    while live <= 4 {
        let response = events.message().await?.expect("more events");
        for event in response.events() {
            let before = event.prev_kv().expect("asked for").value().to_owned();
            assert_eq!(before, (live - 1).to_string().into_bytes());
            assert_eq!(event.event_type() == EventType::Delete, live == 4);
            live += 1;
        }
    }
    let options = WatchOptions::new().with_start_revision(start);
    let mut past = client.watch(key.as_str(), Some(options)).await?;
    let mut values = Vec::new();
    while values.len() < 5 {
        for event in past.message().await?.expect("more events").events() {
            values.extend(event.kv().map(|kv| kv.value_str().expect("text").to_owned()));
        }
    }
    assert_eq!(values, ["0", "1", "2", "3", ""]);
    let now = client.put(key.as_str(), "4", None).await?;
    let now = now.header().expect("a header").revision();
    assert_eq!(refusal(client.compact(now, None).await), DENIED);
    admin.compact(now, None).await?;
    let options = WatchOptions::new().with_start_revision(start);
    let mut compacted = client.watch(key.as_str(), Some(options)).await?;
    assert_eq!(ended(&mut compacted).await?.compact_revision(), now);
    Ok(())
}

async fn ended(watched: &mut WatchStream) -> Result<WatchResponse, Error> {
    loop {
        let answer = watched.message().await?.expect("an end with a reason");
        assert!(answer.events().is_empty(), "no event");
        if answer.canceled() {
            return Ok(answer);
        }
    }
}

async fn leases(client: &mut Client, root: &str) -> Outcome {
    let key = format!("{root}l");
    let lease = client.lease_grant(3, None).await?.id();
    let attached = PutOptions::new().with_lease(lease);
    client.put(key.as_str(), "x", Some(attached)).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
    for _ in 0..4 {
        sleep(Duration::from_secs(1)).await;
        keeper.keep_alive().await?;
        assert_eq!(answers.message().await?.expect("an answer").ttl(), 3);
    }
    let look = LeaseTimeToLiveOptions::new().with_keys();
    let look = client.lease_time_to_live(lease, Some(look)).await?;
    assert_eq!((look.granted_ttl(), look.keys().len()), (3, 1));
    let began = Instant::now();
    while client.get(key.as_str(), None).await?.count() > 0 {
        assert!(began.elapsed() < Duration::from_secs(15), "an abandoned lease ends");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(client.lease_time_to_live(lease, None).await?.ttl(), -1);
    assert_eq!(refusal(client.lease_revoke(lease).await), "etcdserver: requested lease not found");
    let lease = client.lease_grant(60, None).await?.id();
    client.put(key.as_str(), "y", Some(PutOptions::new().with_lease(lease))).await?;
    assert!(client.leases().await?.leases().iter().any(|each| each.id() == lease));
    client.lease_revoke(lease).await?;
    assert_eq!(client.get(key.as_str(), None).await?.count(), 0);
    Ok(())
}

/// The Lock service: the second waits until the first unlocks.
async fn lock(client: &mut Client, root: &str) -> Outcome {
    let name = format!("{root}lock");
    let first = client.lease_grant(30, None).await?.id();
    let second = client.lease_grant(30, None).await?.id();
    let options = LockOptions::new().with_lease(first);
    let held = client.lock(name.as_str(), Some(options)).await?;
    assert!(held.key().starts_with(name.as_bytes()));
    let (mut waiter, waited) = (client.clone(), name.clone());
    let waiting = tokio::spawn(async move {
        let options = LockOptions::new().with_lease(second);
        waiter.lock(waited, Some(options)).await
    });
    sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished(), "the second waits");
    client.unlock(held.key()).await?;
    let next = waiting.await.expect("no panic")?;
    assert_eq!(client.get(next.key(), None).await?.count(), 1);
    client.lease_revoke(second).await?;
    assert_eq!(client.get(next.key(), None).await?.count(), 0);
    let options = LockOptions::new().with_lease(12345);
    assert_eq!(
        refusal(client.lock(name, Some(options)).await),
        "etcdserver: requested lease not found"
    );
    client.lease_revoke(first).await?;
    Ok(())
}

/// The Election service: proclaim, observe, resign, and the next one leads.
async fn election(client: &mut Client, root: &str) -> Outcome {
    let name = format!("{root}elect");
    let first = client.lease_grant(30, None).await?.id();
    let second = client.lease_grant(30, None).await?.id();
    let won = client.campaign(name.as_str(), "one", first).await?;
    let key = won.leader().expect("a leader's key").clone();
    let mut observed = client.observe(name.as_str()).await?;
    let seen = |answer: Option<etcd_client::LeaderResponse>| {
        let leader = answer.expect("an answer");
        leader.kv().expect("a leader").value_str().expect("text").to_owned()
    };
    assert_eq!(seen(observed.message().await?), "one");
    let (mut rival, contested) = (client.clone(), name.clone());
    let campaign = tokio::spawn(async move { rival.campaign(contested, "two", second).await });
    let options = ProclaimOptions::new().with_leader(key.clone());
    client.proclaim("uno", Some(options)).await?;
    assert_eq!(seen(observed.message().await?), "uno");
    assert!(!campaign.is_finished(), "the second waits");
    client.resign(Some(ResignOptions::new().with_leader(key))).await?;
    campaign.await.expect("no panic")?;
    assert_eq!(seen(observed.message().await?), "two");
    assert_eq!(seen(Some(client.leader(name.as_str()).await?)), "two");
    client.lease_revoke(second).await?;
    assert_eq!(refusal(client.leader(name).await), "election: no leader");
    client.lease_revoke(first).await?;
    Ok(())
}

async fn permissions(client: &mut Client, root: &str) -> Outcome {
    assert_eq!(refusal(client.put("elsewhere", "1", None).await), DENIED);
    assert_eq!(refusal(client.get("elsewhere", None).await), DENIED);
    let wide = GetOptions::new().with_prefix();
    assert_eq!(refusal(client.get("app", Some(wide)).await), DENIED);
    let all = DeleteOptions::new().with_all_keys();
    assert_eq!(refusal(client.delete("", Some(all)).await), DENIED);
    let key = format!("{root}p");
    let outside = Txn::new()
        .when([Compare::version("elsewhere", CompareOp::Equal, 0)])
        .and_then([TxnOp::put(key.as_str(), "1", None)]);
    assert_eq!(refusal(client.txn(outside).await), DENIED);
    assert_eq!(client.get(key.as_str(), None).await?.count(), 0);
    let mut watched = client.watch("elsewhere", None).await?;
    let told = ended(&mut watched).await?;
    assert!(told.cancel_reason().contains("permission denied"), "{told:?}");
    assert_eq!(refusal(client.lock("elsewhere", None).await), DENIED);
    assert_eq!(refusal(client.user_list().await), DENIED);
    assert_eq!(refusal(client.auth_disable().await), DENIED);
    assert_eq!(refusal(client.move_leader(1).await), DENIED);
    assert_eq!(refusal(client.member_remove(1).await), DENIED);
    let ca = variable("CA_FILE");
    assert_eq!(refusal(connect(Some(("app", "guessed")), &ca).await.map(drop)), BAD_LOGIN);
    assert_eq!(refusal(connect(Some(("nobody", "guessed")), &ca).await.map(drop)), BAD_LOGIN);
    let mut stranger = connect(None, &ca).await?;
    assert_eq!(refusal(stranger.get(key.as_str(), None).await), "etcdserver: user name is empty");
    let mut untrusting = connect(None, &variable("STRANGER_CA_FILE")).await?;
    let failure = untrusting.get(key, None).await.expect_err("another authority's certificate");
    assert!(format!("{failure:?}").contains("UnknownIssuer"), "{failure:?}");
    Ok(())
}

/// What root makes, the new user may, and no more; what root takes away is gone at once.
async fn users_and_roles(admin: &mut Client, root: &str) -> Outcome {
    let key = format!("{root}r");
    admin.role_add("rust-reader").await?;
    admin.role_grant_permission("rust-reader", Permission::read(root).with_prefix()).await?;
    admin.user_add("rust-reader", "reads", None).await?;
    admin.user_grant_role("rust-reader", "rust-reader").await?;
    assert_eq!(admin.user_get("rust-reader").await?.roles(), ["rust-reader"]);
    assert!(admin.role_list().await?.roles().contains(&"rust-reader".to_owned()));
    admin.put(key.as_str(), "1", None).await?;
    let mut reader = connect(Some(("rust-reader", "reads")), &variable("CA_FILE")).await?;
    assert_eq!(reader.get(key.as_str(), None).await?.count(), 1);
    assert_eq!(refusal(reader.put(key.as_str(), "2", None).await), DENIED);
    admin.user_revoke_role("rust-reader", "rust-reader").await?;
    assert_eq!(refusal(reader.get(key.as_str(), None).await), DENIED);
    admin.user_delete("rust-reader").await?;
    admin.role_delete("rust-reader").await?;
    assert_eq!(refusal(admin.user_get("rust-reader").await), "etcdserver: user name not found");
    Ok(())
}

async fn members(admin: &mut Client) -> Outcome {
    let listed = admin.member_list().await?;
    let mut names: Vec<&str> = listed.members().iter().map(|member| member.name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["member1", "member2", "member3"]);
    let leader = admin.status().await?.leader();
    assert!(listed.members().iter().any(|member| member.id() == leader));
    let learner = Some(MemberAddOptions::new().with_is_learner());
    let added = admin.member_add(["https://127.0.0.1:23994"], learner).await?;
    assert_eq!(added.member_list().len(), 4);
    let id = added.member().expect("the new one").id();
    let early = refusal(admin.member_promote(id).await);
    assert_eq!(early, "etcdserver: can only promote a learner member which is in sync with leader");
    assert_eq!(admin.member_remove(id).await?.members().len(), 3);
    assert_eq!(refusal(admin.member_remove(id).await), "etcdserver: member not found");
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome {
    let (ca, app, may_all) =
        (variable("CA_FILE"), variable("APP_PASSWORD"), variable("ROOT_PASSWORD"));
    let mut client = connect(Some(("app", &app)), &ca).await?;
    let mut admin = connect(Some(("root", &may_all)), &ca).await?;
    let nonce = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos();
    let root = format!("app/rust/{nonce}/");
    key_value(&mut client, &format!("{root}kv/")).await?;
    watch(&mut client, &mut admin, &format!("{root}watch/")).await?;
    leases(&mut client, &format!("{root}lease/")).await?;
    lock(&mut client, &format!("{root}lock/")).await?;
    election(&mut client, &format!("{root}election/")).await?;
    permissions(&mut client, &format!("{root}permissions/")).await?;
    users_and_roles(&mut admin, &format!("{root}users/")).await?;
    members(&mut admin).await?;
    println!("ok: rust etcd-client 0.21.1");
    Ok(())
}
