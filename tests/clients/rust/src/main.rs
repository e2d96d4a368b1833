//! Drives a server with the Rust crate etcd-client. Every claim is checked; the first that fails ends the program.

use std::time::{Duration, Instant};

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, EventType, GetOptions, LeaseTimeToLiveOptions,
    LockOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchOptions,
};
use tokio::time::sleep;

type Outcome = Result<(), Error>;

fn refusal<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer.expect_err("refused") {
        Error::GRpcStatus(status) => status.message().to_owned(),
        other => panic!("not a status: {other}"),
    }
}

async fn key_value(client: &mut Client, root: &str) -> Outcome {
    let key = |name: &str| format!("{root}{name}");
    let first = client.put(key("a"), "1", None).await?;
    let again = client
        .put(key("a"), "2", Some(PutOptions::new().with_prev_key()))
        .await?;
    let revision = |header: Option<&etcd_client::ResponseHeader>| header.expect("a header").revision();
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
    let twice = Txn::new().and_then([TxnOp::put(key("d"), "1", None), TxnOp::put(key("d"), "2", None)]);
    assert_eq!(refusal(client.txn(twice).await), "etcdserver: duplicate key given in txn request");
    assert_eq!(refusal(client.put("", "x", None).await), "etcdserver: key is not provided");
    let all = DeleteOptions::new().with_prefix();
    assert_eq!(client.delete(root, Some(all)).await?.deleted(), 3);
    Ok(())
}

async fn watch(client: &mut Client, root: &str) -> Outcome {
    let key = format!("{root}w");
    let start = client.put(key.as_str(), "0", None).await?;
    let start = start.header().expect("a header").revision();
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let (_live, mut events) = client.watch(root, Some(options)).await?;
    let mut live = 1;
    for n in 1..4 {
        client.put(key.as_str(), n.to_string(), None).await?;
    }
    client.delete(key.as_str(), None).await?;
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
    let (_past, mut past) = client.watch(key.as_str(), Some(options)).await?;
    let mut values = Vec::new();
    while values.len() < 5 {
        for event in past.message().await?.expect("more events").events() {
            values.extend(event.kv().map(|kv| kv.value_str().expect("text").to_owned()));
        }
    }
    assert_eq!(values, ["0", "1", "2", "3", ""]);
    Ok(())
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
    assert_eq!(client.leases().await?.leases().len(), 1);
    client.lease_revoke(lease).await?;
    assert_eq!(client.get(key.as_str(), None).await?.count(), 0);
    Ok(())
}

/// The Lock and Election services are the server's; a server may not have them yet and says so.
async fn lock_and_election(client: &mut Client, root: &str) -> Outcome {
    let lease = client.lease_grant(30, None).await?.id();
    let options = LockOptions::new().with_lease(lease);
    let lock = match client.lock(format!("{root}lock"), Some(options)).await {
        Ok(lock) => lock,
        Err(Error::GRpcStatus(status)) if status.message().is_empty() || format!("{:?}", status.code()) == "Unimplemented" => {
            println!("left out: the server has no Lock service ({:?})", status.code());
            return Ok(());
        }
        Err(other) => return Err(other),
    };
    client.unlock(lock.key()).await?;
    let won = client.campaign(format!("{root}elect"), "one", lease).await?;
    assert!(won.leader().is_some());
    let leader = client.leader(format!("{root}elect")).await?;
    assert_eq!(leader.kv().expect("a leader").value(), b"one");
    client.resign(None).await.err();
    client.lease_revoke(lease).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome {
    let endpoint = std::env::var("ENDPOINT").expect("ENDPOINT is set");
    let mut client = Client::connect([endpoint], None).await?;
    let nonce = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos();
    let root = format!("rust/{nonce}/");
    key_value(&mut client, &format!("{root}kv/")).await?;
    watch(&mut client, &format!("{root}watch/")).await?;
    leases(&mut client, &format!("{root}lease/")).await?;
    lock_and_election(&mut client, &format!("{root}lock/")).await?;
    assert_eq!(client.member_list().await?.members().len(), 1);
    assert!(client.status().await?.leader() != 0);
    println!("ok: rust etcd-client 0.17.0");
    Ok(())
}
