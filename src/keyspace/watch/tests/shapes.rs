//! What each kind of response looks like, and when it comes: etcd's rules, one test a rule.

use std::time::Duration;

use quorate_core::api::ids::WatchId;
use quorate_core::api::pb::etcdserverpb::watch_create_request::FilterType;
use quorate_core::api::pb::etcdserverpb::{WatchCreateRequest, WatchRequest};

use super::double::{Double, Op, line, lines, on, on_all, ready};
use crate::keyspace::watch::{WatchError, WatchOptions};
use crate::support::spawn::Blocking;

#[tokio::test]
async fn created_comes_first_with_the_exact_revision() {
    let mut store = Double::new();
    store.put("a", "1");
    let mut stream = store.hub.open();

    stream.create(&on("a"));
    store.put("a", "2");

    assert_eq!(lines(&mut stream).await, ["#0 created @2", "#0 a=2/3 @3"]);
}

#[tokio::test]
async fn ids_count_from_zero_past_those_that_are_taken() {
    let store = Double::new();
    let mut stream = store.hub.open();
    for id in [0, 2, 1, 0, -7, 0] {
        stream.create(&WatchCreateRequest { watch_id: id, ..on("a") });
    }
    let said = lines(&mut stream).await;
    let ids = ["#0", "#2", "#1", "#3", "#-7", "#4"].map(|id| format!("{id} created @1"));
    assert_eq!(said, ids);
}

#[tokio::test]
async fn what_cannot_be_made_is_created_and_canceled_as_minus_one() {
    let mut store = Double::new();
    store.put("a", "1");
    let mut stream = store.hub.open();
    let create = |key: &'static str, end: &'static str, id, start| WatchCreateRequest {
        key: key.into(),
        range_end: end.into(),
        watch_id: id,
        start_revision: start,
        ..WatchCreateRequest::default()
    };

    stream.create(&create("a", "", 5, 0));
    stream.create(&create("a", "", 5, 0));
    stream.create(&create("b", "a", 0, 0));
    stream.create(&create("a", "a", 5, 0));
    stream.create(&create("a", "", 0, -1));
    stream.refuse("rpc error: no".to_owned());
    stream.request(WatchRequest { request_union: None });
    stream.create(&create("a", "", 0, 0));

    assert_eq!(
        lines(&mut stream).await,
        [
            "#5 created @2",
            "#-1 created canceled (mvcc: duplicate watch ID provided on the WatchStream) @2",
            "#-1 created canceled (mvcc: watcher range is empty) @2",
            "#-1 created canceled (mvcc: watcher range is empty) @2",
            "#-1 created canceled (etcdserver: mvcc: required revision has been compacted) @2",
            "#-1 created canceled (rpc error: no) @2",
            "#0 created @2",
        ]
    );
}

#[tokio::test]
async fn cancel_is_answered_once_and_only_for_a_known_id() {
    let mut store = Double::new();
    let mut stream = store.hub.open();
    stream.create(&on("a"));
    store.put("a", "1");
    stream.cancel(WatchId(0));
    stream.cancel(WatchId(0));
    stream.cancel(WatchId(9));
    store.put("a", "2");
    assert_eq!(lines(&mut stream).await, ["#0 created @1", "#0 a=1/2 @2", "#0 canceled @2"]);

    stream.create(&WatchCreateRequest { watch_id: 0, ..on("a") });
    assert_eq!(lines(&mut stream).await, ["#1 created @3"], "an id is not given twice");
    assert_eq!(store.hub.counters().watchers(), 1);
}

#[tokio::test]
async fn a_past_start_reads_history_and_a_future_start_waits() {
    let mut store = Double::new();
    for value in ["1", "2", "3"] {
        store.put("a", value);
    }
    let mut stream = store.hub.open();
    let from = |start_revision| WatchCreateRequest { start_revision, ..on("a") };

    stream.create(&from(3));
    stream.create(&from(4));
    stream.create(&from(5));
    stream.create(&from(7));
    assert_eq!(
        lines(&mut stream).await,
        [
            "#0 created @4",
            "#1 created @4",
            "#2 created @4",
            "#3 created @4",
            "#0 a=2/3 a=3/4 @4",
            "#1 a=3/4 @4",
        ]
    );

    store.put("a", "4");
    store.put("a", "5");
    assert_eq!(
        lines(&mut stream).await,
        ["#0 a=4/5 @5", "#1 a=4/5 @5", "#2 a=4/5 @5", "#0 a=5/6 @6", "#1 a=5/6 @6", "#2 a=5/6 @6"]
    );

    store.put("a", "6");
    let said = lines(&mut stream).await;
    assert_eq!(said.last().map(String::as_str), Some("#3 a=6/7 @7"));
}

#[tokio::test]
async fn a_revision_is_one_response_in_the_order_of_its_operations() {
    let mut store = Double::new();
    store.put("c", "0");
    let mut stream = store.hub.open();
    stream.create(&on_all());
    stream.create(&on("c"));

    let put = |key, value: &str| Op::Put(key, value.to_owned());
    store.entry(&[vec![put("b", "1"), Op::Delete("c"), put("a", "1")], vec![put("a", "2")]]);

    assert_eq!(
        lines(&mut stream).await,
        ["#0 created @2", "#1 created @2", "#0 b=1/3 -c/3 a=1/3 @3", "#1 -c/3 @3", "#0 a=2/4 @4",]
    );
}

#[tokio::test]
async fn previous_values_come_with_synced_and_with_caught_up_events() {
    let mut store = Double::new();
    store.put("a", "1");
    store.put("a", "2");
    store.delete("a");
    let mut stream = store.hub.open();
    let create = WatchCreateRequest { prev_kv: true, start_revision: 2, ..on("a") };
    stream.create(&create);
    stream.create(&on("a"));
    let _ = lines(&mut store.hub.open()).await;

    assert_eq!(
        lines(&mut stream).await,
        ["#0 created @4", "#1 created @4", "#0 a=1/2 a=2/3<1/2 -a/4<2/3 @4"]
    );

    store.put("a", "3");
    store.put("a", "4");
    store.delete("a");
    assert_eq!(
        lines(&mut stream).await,
        [
            "#0 a=3/5 @5",
            "#1 a=3/5 @5",
            "#0 a=4/6<3/5 @6",
            "#1 a=4/6 @6",
            "#0 -a/7<4/6 @7",
            "#1 -a/7 @7",
        ]
    );
}

#[tokio::test]
async fn filtered_events_leave_nothing_behind() {
    let mut store = Double::new();
    store.put("a", "1");
    let mut stream = store.hub.open();
    let without = |kind: FilterType, start_revision| WatchCreateRequest {
        filters: vec![kind.into()],
        start_revision,
        ..on("a")
    };
    stream.create(&without(FilterType::Noput, 0));
    stream.create(&without(FilterType::Nodelete, 2));

    store.put("a", "2");
    store.delete("a");
    stream.request_progress();

    assert_eq!(
        lines(&mut stream).await,
        ["#0 created @2", "#1 created @2", "#0 -a/4 @4", "#1 a=1/2 a=2/3 @4"],
        "one watcher lagged: no progress for the stream"
    );
    stream.request_progress();
    assert_eq!(lines(&mut stream).await, ["#-1 @4"]);
}

#[tokio::test]
async fn asked_progress_needs_every_watcher_present_and_synced() {
    let mut store = Double::new();
    store.put("a", "1");
    let mut stream = store.hub.open();
    stream.request_progress();
    assert_eq!(lines(&mut stream).await, [""; 0], "no watchers, no progress");

    stream.create(&on("a"));
    stream.create(&WatchCreateRequest { start_revision: 4, ..on("b") });
    stream.request_progress();
    assert_eq!(
        lines(&mut stream).await,
        ["#0 created @2", "#1 created @2"],
        "one is in the future"
    );

    store.put("a", "2");
    store.put("a", "3");
    stream.request_progress();
    assert_eq!(lines(&mut stream).await, ["#0 a=2/3 @3", "#0 a=3/4 @4", "#-1 @4"]);
}

#[tokio::test(start_paused = true)]
async fn the_progress_clock_passes_over_watchers_that_heard_something() {
    let interval = Duration::from_secs(600);
    let mut store = Double::new();
    let mut stream = store.hub.open();
    let listening = |key| WatchCreateRequest { progress_notify: true, ..on(key) };
    stream.create(&listening("a"));
    stream.create(&listening("b"));
    stream.create(&WatchCreateRequest { start_revision: 99, ..listening("c") });
    stream.create(&on("d"));
    assert_eq!(lines(&mut stream).await.len(), 4);

    tokio::time::advance(interval - Duration::from_secs(1)).await;
    store.put("b", "1");
    assert_eq!(lines(&mut stream).await, ["#1 b=1/2 @2"]);

    tokio::time::advance(interval / 10 + Duration::from_secs(1)).await;
    assert_eq!(lines(&mut stream).await, ["#0 @2"], "a was quiet, b was not, c is in the future");

    tokio::time::advance(interval + interval / 10).await;
    assert_eq!(lines(&mut stream).await, ["#0 @2", "#1 @2"]);
}

#[tokio::test(start_paused = true)]
async fn the_progress_clock_wakes_a_waiting_stream_and_knows_a_floor() {
    let options =
        WatchOptions { progress_interval: Duration::from_millis(1), ..WatchOptions::default() };
    let store = Double::with(options, Blocking::in_place());
    let mut stream = store.hub.open();
    stream.create(&WatchCreateRequest { progress_notify: true, ..on("a") });
    assert_eq!(lines(&mut stream).await, ["#0 created @1"]);

    let begun = tokio::time::Instant::now();
    let response = stream.next().await.unwrap();

    assert_eq!(line(&response), "#0 @1");
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
    assert!(begun.elapsed() <= Duration::from_millis(112), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_large_response_is_cut_only_for_those_who_asked() {
    let options = WatchOptions { fragment_bytes: 400, ..WatchOptions::default() };
    let mut store = Double::with(options, Blocking::in_place());
    let mut stream = store.hub.open();
    stream.create(&WatchCreateRequest { fragment: true, ..on_all() });
    stream.create(&on_all());
    assert_eq!(lines(&mut stream).await.len(), 2);

    let large = "x".repeat(150);
    let put = |key| Op::Put(key, large.clone());
    store.write(&[put("a"), put("b"), put("c"), put("d"), put("e")]);

    let mut shape = Vec::new();
    while let Some(response) = ready(&mut stream).await {
        let response = response.unwrap();
        shape.push((response.watch_id, response.events.len(), response.fragment));
    }
    assert_eq!(shape, [(0, 2, true), (0, 2, true), (0, 1, false), (1, 5, false)]);
}

#[tokio::test]
async fn a_closed_hub_hands_out_what_is_queued_and_ends() {
    let mut store = Double::new();
    let mut stream = store.hub.open();
    stream.create(&on("a"));
    store.put("a", "1");
    store.hub.close();
    assert_eq!(line(&stream.next().await.unwrap()), "#0 created @1");
    assert_eq!(line(&stream.next().await.unwrap()), "#0 a=1/2 @2");
    assert_eq!(stream.next().await, Err(WatchError::Closed));
    assert_eq!(store.hub.open().next().await, Err(WatchError::Closed));
}

#[tokio::test]
async fn counters_come_back_to_nothing_with_the_stream() {
    let mut store = Double::new();
    store.put("a", "1");
    let mut stream = store.hub.open();
    stream.create(&on("a"));
    stream.create(&WatchCreateRequest { start_revision: 1, ..on("a") });
    store.put("a", "2");

    let counters = store.hub.counters();
    let facts = || {
        [
            counters.streams(),
            counters.watchers(),
            counters.slow_watchers(),
            counters.pending_events(),
        ]
    };
    assert_eq!(facts(), [1, 2, 1, 1]);
    assert_eq!(lines(&mut stream).await.len(), 4);
    assert_eq!((facts(), counters.events()), ([1, 2, 0, 0], 3));
    store.put("a", "3");
    drop(stream);
    assert_eq!(facts(), [0, 0, 0, 0]);
}
