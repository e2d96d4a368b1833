//! Claims about keys: reading, writing, watching, transactions, closing. By the trait alone.

use std::sync::Arc;

use quorate::fleet::store::{
    Compare, EventType, Kv, Op, StateStore, StoreError, WatchEvents, Watched,
};

use super::rig::{Rig, ok, soon};

fn store(rig: &Rig) -> Arc<dyn StateStore> {
    Arc::new(rig.store())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it was text")
}

fn keys(kvs: &[Kv]) -> Vec<&str> {
    kvs.iter().map(|kv| text(&kv.key)).collect()
}

pub(crate) async fn s3_3_get_after_put_gives_the_value_and_the_version(rig: &Rig) {
    let store = store(rig);
    let first = ok(store.put(b"k", b"1").await);
    let second = ok(store.put(b"k", b"2").await);
    assert!(second > first);
    let kv = ok(store.get(b"k").await);
    assert_eq!((text(&kv.value), kv.version, kv.created), ("2", second, first));
}

pub(crate) async fn s3_3_a_missing_key_is_a_typed_not_found(rig: &Rig) {
    let store = store(rig);
    assert_eq!(store.get(b"nothing").await, Err(StoreError::NotFound));
    let refused = store.get(b"").await.expect_err("a key is needed");
    assert!(matches!(refused, StoreError::Refused(_)), "{refused:?}");
}

pub(crate) async fn s3_4_list_is_sorted_and_exact(rig: &Rig) {
    let store = store(rig);
    for key in ["a/2", "ab", "a", "a/10", "a0", "a/", "b"] {
        ok(store.put(key.as_bytes(), b"x").await);
    }
    assert_eq!(keys(&ok(store.list(b"a/").await)), ["a/", "a/10", "a/2"]);
    let all = ok(store.list(b"").await);
    assert_eq!(keys(&all), ["a", "a/", "a/10", "a/2", "a0", "ab", "b"]);
    assert!(ok(store.list(b"a/3").await).is_empty());
}

pub(crate) async fn s3_5_delete_removes_and_a_missing_key_is_no_error(rig: &Rig) {
    let store = store(rig);
    ok(store.put(b"k", b"1").await);
    assert!(ok(store.delete(b"k").await));
    assert_eq!(store.get(b"k").await, Err(StoreError::NotFound));
    assert!(!ok(store.delete(b"k").await));
}

/// What happened to which key, its value, and the value before.
type Told = (EventType, String, String, Option<String>);

async fn next(events: &mut WatchEvents) -> Told {
    let event = soon("an event", events.next()).await.expect("it does not end by itself");
    let event = ok(event);
    let previous = event.previous.map(|kv| text(&kv.value).to_owned());
    (event.kind, text(&event.kv.key).to_owned(), text(&event.kv.value).to_owned(), previous)
}

fn told(kind: EventType, key: &str, value: &str, previous: Option<&str>) -> Told {
    (kind, key.to_owned(), value.to_owned(), previous.map(str::to_owned))
}

pub(crate) async fn s3_6_watch_tells_puts_and_deletes_with_what_was_before(rig: &Rig) {
    let store = store(rig);
    ok(store.put(b"w/a", b"0").await);
    let mut below = ok(store.watch(Watched::Prefix(b"w/"), 0).await);
    let mut one = ok(store.watch(Watched::Key(b"w/b"), 0).await);
    ok(store.put(b"w/a", b"1").await);
    ok(store.put(b"wx", b"not below").await);
    ok(store.put(b"w/b", b"2").await);
    ok(store.delete(b"w/a").await);
    assert_eq!(next(&mut below).await, told(EventType::Put, "w/a", "1", Some("0")));
    let b = told(EventType::Put, "w/b", "2", None);
    assert_eq!(next(&mut below).await, b);
    assert_eq!(next(&mut below).await, told(EventType::Delete, "w/a", "", Some("1")));
    assert_eq!(next(&mut one).await, b);
}

pub(crate) async fn s3_6_watch_from_a_revision_tells_all_since(rig: &Rig) {
    let store = store(rig);
    ok(store.put(b"k", b"1").await);
    let second = ok(store.put(b"k", b"2").await);
    ok(store.put(b"k", b"3").await);
    let mut since = ok(store.watch(Watched::Key(b"k"), second).await);
    assert_eq!(next(&mut since).await, told(EventType::Put, "k", "2", Some("1")));
    assert_eq!(next(&mut since).await, told(EventType::Put, "k", "3", Some("2")));
    // Dropped, and begun anew behind what was told: nothing is lost between.
    drop(since);
    let fourth = ok(store.put(b"k", b"4").await);
    let mut again = ok(store.watch(Watched::Key(b"k"), fourth).await);
    assert_eq!(next(&mut again).await, told(EventType::Put, "k", "4", Some("3")));
}

pub(crate) async fn s3_6_watch_ends_when_the_store_is_closed(rig: &Rig) {
    let store = store(rig);
    let mut events = ok(store.watch(Watched::Prefix(b""), 0).await);
    store.close().await;
    assert_eq!(soon("the end", events.next()).await, Some(Err(StoreError::Closed)));
    assert_eq!(soon("nothing more", events.next()).await, None);
}

pub(crate) async fn s3_7_a_transaction_does_one_side_or_the_other(rig: &Rig) {
    let store = store(rig);
    let version = ok(store.put(b"a", b"1").await);
    let checks = [Compare::version("a", version), Compare::absent("b")];
    let success = [Op::put("b", "2"), Op::get("a"), Op::get("none")];
    let failure = [Op::delete("a"), Op::put("c", "3")];
    let done = ok(store.do_transaction(&checks, &success, &failure).await);
    assert!(done.committed);
    assert_eq!(done.read.len(), 2);
    assert_eq!(done.read[0].as_ref().map(|kv| text(&kv.value)), Some("1"));
    assert_eq!(done.read[1], None);
    assert_eq!(ok(store.get(b"b").await).version, done.revision);
    assert_eq!(store.get(b"c").await, Err(StoreError::NotFound));

    let done = ok(store.do_transaction(&checks, &success, &failure).await);
    assert!(!done.committed, "b is there by now");
    assert_eq!(store.get(b"a").await, Err(StoreError::NotFound));
    assert_eq!(text(&ok(store.get(b"c").await).value), "3");
}

pub(crate) async fn s3_7_version_zero_means_that_a_key_must_not_exist(rig: &Rig) {
    let store = store(rig);
    let make = async || {
        ok(store.do_transaction(&[Compare::version("k", 0)], &[Op::put("k", "x")], &[]).await)
    };
    assert!(make().await.committed);
    assert!(!make().await.committed);
    ok(store.delete(b"k").await);
    assert!(make().await.committed, "it was deleted, so it does not exist");
}

/// Many read and write one number: none of their additions is lost.
pub(crate) async fn s3_7_transactions_are_atomic_among_many(rig: &Rig) {
    const EACH: u64 = 5;
    let adders = (0..4).map(|_| {
        let store = store(rig);
        async move {
            for _ in 0..EACH {
                while !add(&*store).await {}
            }
        }
    });
    soon("all additions", futures::future::join_all(adders)).await;
    assert_eq!(text(&ok(store(rig).get(b"n").await).value), "20");
}

async fn add(store: &dyn StateStore) -> bool {
    let (version, n) = match store.get(b"n").await {
        Ok(kv) => (kv.version, text(&kv.value).parse().expect("a number")),
        Err(StoreError::NotFound) => (0, 0u64),
        Err(why) => panic!("{why:?}"),
    };
    let put = Op::put("n", (n + 1).to_string());
    ok(store.do_transaction(&[Compare::version("n", version)], &[put], &[]).await).committed
}

pub(crate) async fn s3_1_a_closed_store_refuses_every_call(rig: &Rig) {
    let store = store(rig);
    store.close().await;
    let closed = StoreError::Closed;
    assert_eq!(store.put(b"k", b"v").await, Err(closed.clone()));
    assert_eq!(store.get(b"k").await, Err(closed.clone()));
    assert_eq!(store.delete(b"k").await, Err(closed.clone()));
    assert_eq!(store.list(b"k").await, Err(closed.clone()));
    assert_eq!(store.do_transaction(&[], &[], &[]).await, Err(closed.clone()));
    assert_eq!(store.watch(Watched::Key(b"k"), 0).await.err(), Some(closed.clone()));
    let ttl = std::time::Duration::from_secs(5);
    assert_eq!(store.campaign("e", "me", ttl).await.err(), Some(closed.clone()));
    assert_eq!(store.resign("e").await, Err(closed.clone()));
    assert_eq!(store.get_leader("e").await, Err(closed));
    store.close().await;
    assert_eq!(self::store(rig).get(b"k").await, Err(StoreError::NotFound), "nothing was written");
}
