//! Compaction and watchers that are behind it, ahead of it, or in the middle of reading.

use quorate_core::api::ids::WatchId;
use quorate_core::api::pb::etcdserverpb::WatchCreateRequest;

use super::double::{Double, lines, on, on_all, ready};
use crate::keyspace::watch::WatchOptions;
use crate::support::spawn::Blocking;

fn from(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { start_revision, ..on("a") }
}

#[tokio::test]
async fn a_start_below_the_compact_revision_is_created_then_cancelled() {
    let mut store = Double::new();
    for value in ["1", "2", "3"] {
        store.put("a", value);
    }
    store.compact(3);
    let mut stream = store.hub.open();

    stream.create(&from(2));
    stream.request_progress();
    assert_eq!(lines(&mut stream).await, ["#0 created @4", "#0 canceled compacted=3 @0"]);

    stream.create(&WatchCreateRequest { watch_id: 1, ..on("a") });
    stream.request_progress();
    assert_eq!(lines(&mut stream).await, ["#1 created @4"], "a dead watcher stands in the way");

    stream.cancel(WatchId(0));
    stream.request_progress();
    assert_eq!(lines(&mut stream).await, ["#0 canceled @4", "#-1 @4"]);
    assert_eq!(store.hub.counters().watchers(), 1);
}

#[tokio::test]
async fn the_id_of_a_compacted_watcher_is_taken_until_it_is_cancelled() {
    let mut store = Double::new();
    store.put("a", "1");
    store.put("a", "2");
    store.compact(3);
    let mut stream = store.hub.open();
    let seven = WatchCreateRequest { watch_id: 7, ..from(1) };
    stream.create(&seven);
    assert_eq!(lines(&mut stream).await, ["#7 created @3", "#7 canceled compacted=3 @0"]);

    stream.create(&seven);
    let said = lines(&mut stream).await;
    assert!(said[0].starts_with("#-1 created canceled (mvcc: duplicate"), "{said:?}");

    stream.cancel(WatchId(7));
    stream.create(&WatchCreateRequest { start_revision: 0, ..seven });
    assert_eq!(lines(&mut stream).await, ["#7 canceled @3", "#7 created @3"]);
}

#[tokio::test]
async fn the_compact_revision_itself_is_delivered_tombstone_included() {
    let mut store = Double::new();
    store.put("a", "1");
    store.delete("a");
    store.put("b", "1");
    store.compact(3);
    let mut stream = store.hub.open();

    stream.create(&WatchCreateRequest { start_revision: 3, prev_kv: true, ..on_all() });

    assert_eq!(lines(&mut stream).await, ["#0 created @4", "#0 -a/3 b=1/4 @4"]);
}

#[tokio::test]
async fn the_previous_value_is_silently_absent_once_it_is_compacted() {
    let mut store = Double::new();
    store.put("a", "1");
    let mut stream = store.hub.open();
    stream.create(&WatchCreateRequest { prev_kv: true, ..on("a") });
    store.put("a", "2");
    store.put("a", "3");
    store.compact(3);

    assert_eq!(
        lines(&mut stream).await,
        ["#0 created @2", "#0 a=2/3 @3", "#0 a=3/4<2/3 @4"],
        "revision 2 is compacted, revision 3 is not"
    );
}

#[tokio::test]
async fn a_previous_value_read_before_a_compaction_is_not_told_after_it() {
    let mut store = Double::new();
    store.put("a", "1");
    let mut early = store.hub.open();
    early.create(&WatchCreateRequest { prev_kv: true, ..on("a") });
    store.delete("a");
    assert_eq!(lines(&mut early).await, ["#0 created @2", "#0 -a/3<1/2 @3"]);
    store.compact(3);
    let mut late = store.hub.open();

    late.create(&WatchCreateRequest { prev_kv: true, start_revision: 3, ..on("a") });

    assert_eq!(lines(&mut late).await, ["#0 created @3", "#0 -a/3 @3"]);
}

#[tokio::test]
async fn compaction_that_passes_a_slow_watcher_cancels_it_where_it_stands() {
    let mut store = Double::new();
    let mut stream = store.hub.open();
    stream.create(&on("a"));
    for _ in 0..200 {
        store.put("a", "x");
    }
    assert_eq!(store.hub.counters().slow_watchers(), 1);
    store.compact(190);

    let said = lines(&mut stream).await;

    assert_eq!(said.len(), 1 + 128 + 1, "created, a full queue, cancelled");
    assert_eq!(said[128], "#0 a=x/129 @129");
    assert_eq!(said[129], "#0 canceled compacted=190 @0");
    assert_eq!(store.hub.counters().slow_watchers(), 0);
}

#[tokio::test]
async fn a_compaction_while_history_is_read_skips_nothing_silently() {
    let options = WatchOptions { slice_bytes: 1, ..WatchOptions::default() };
    let mut store = Double::with(options, Blocking::in_place());
    for _ in 0..10 {
        store.put("a", "x");
    }
    let mut stream = store.hub.open();
    stream.create(&from(2));
    let mut said = Vec::new();
    for _ in 0..4 {
        said.push(super::double::line(&ready(&mut stream).await.unwrap().unwrap()));
    }
    assert_eq!(said, ["#0 created @11", "#0 a=x/2 @11", "#0 a=x/3 @11", "#0 a=x/4 @11"]);

    store.compact(9);
    let rest = lines(&mut stream).await;
    assert_eq!(rest.last().map(String::as_str), Some("#0 canceled compacted=9 @0"));
    assert!(rest.len() <= 2, "{rest:?}");
}

#[tokio::test]
async fn a_watcher_at_the_compact_revision_reads_on() {
    let mut store = Double::new();
    let mut stream = store.hub.open();
    stream.create(&on("a"));
    for _ in 0..200 {
        store.put("a", "x");
    }
    store.compact(130);
    let said = lines(&mut stream).await;
    let events: usize = said.iter().map(|line| line.matches("a=x/").count()).sum();
    assert_eq!(events, 200);
    assert!(said.iter().all(|line| !line.contains("canceled")));
}

#[tokio::test]
async fn a_restored_store_makes_synced_watchers_read_on_or_cancels_them() {
    let mut store = Double::new();
    store.put("a", "1");
    let mut stream = store.hub.open();
    stream.create(&on("a"));
    stream.create(&WatchCreateRequest { start_revision: 99, ..on("a") });
    assert_eq!(lines(&mut stream).await.len(), 2);

    let put = |value: &str| vec![super::double::Op::Put("a", value.to_owned())];
    store.store(&[put("2"), put("3")]);
    store.hub.restored(store.current, -1);
    store.put("a", "4");
    assert_eq!(lines(&mut stream).await, ["#0 a=2/3 a=3/4 a=4/5 @5"]);

    store.store(&[put("5"), put("6"), put("7")]);
    store.compacted = 8;
    store.hub.restored(store.current, 8);
    store.drop_dead();
    assert_eq!(lines(&mut stream).await, ["#0 canceled compacted=8 @0"]);
    assert_eq!(store.hub.counters().watchers(), 1, "the one that waits for the future");
}
