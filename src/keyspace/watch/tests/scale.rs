//! Many watchers: cheap to make, and an event looks only at those it concerns.

use std::time::Duration;

use quorate_core::api::pb::etcdserverpb::WatchCreateRequest;
use tokio::time::Instant;

use super::double::{Double, drain, on};

const MANY: usize = 100_000;

/// Opens `watchers` on one stream, each of its own key or span, and publishes events that concern one of them. Answers
/// how long publishing took.
async fn publish_among(watchers: usize) -> Duration {
    let mut store = Double::new();
    let mut stream = store.hub.open();
    let begun = Instant::now();
    for number in 0..watchers {
        let end = if number % 2 == 0 { String::new() } else { format!("key-{number:06}~") };
        let request = WatchCreateRequest {
            key: format!("key-{number:06}").into(),
            range_end: end.into(),
            ..WatchCreateRequest::default()
        };
        stream.create(&request);
        if !stream.ready_for_requests() {
            drain(&mut stream).await;
        }
    }
    drain(&mut stream).await;
    let created = begun.elapsed();

    let begun = Instant::now();
    for _ in 0..10_000 {
        store.put("key-000051", "x");
    }
    let published = begun.elapsed();
    let events: usize = drain(&mut stream).await.iter().map(|response| response.events.len()).sum();
    let begun = Instant::now();
    drop(stream);

    let closed = begun.elapsed();
    println!(
        "{watchers} watchers: created {created:?}, published {published:?}, closed {closed:?}"
    );
    assert_eq!(events, 10_000);
    assert_eq!(store.hub.counters().watchers(), 0);
    published
}

/// A thousand times the watchers: looking at every one would take a thousand times as long.
#[tokio::test]
async fn an_event_looks_only_at_those_it_concerns() {
    let few = publish_among(MANY / 1000).await;
    let many = publish_among(MANY).await;
    assert!(many < few * 100, "{few:?} among few, {many:?} among many");
}

/// One key that 20,000 watchers of one stream want: the queue holds 128, all get it, and each is synced again.
#[tokio::test]
async fn one_event_for_everybody_reaches_everybody() {
    let mut store = Double::new();
    let mut stream = store.hub.open();
    let watchers = 20_000;
    for _ in 0..watchers {
        stream.create(&on("a"));
        if !stream.ready_for_requests() {
            drain(&mut stream).await;
        }
    }
    drain(&mut stream).await;
    let begun = Instant::now();
    store.put("a", "1");
    let published = begun.elapsed();
    let mut heard: Vec<i64> = Vec::new();
    for response in drain(&mut stream).await {
        assert_eq!(response.events.len(), 1);
        heard.push(response.watch_id);
    }
    println!("publish {published:?}, read {:?}", begun.elapsed());
    heard.sort_unstable();
    assert_eq!(heard, (0..watchers).collect::<Vec<_>>());
    assert_eq!(store.hub.counters().slow_watchers(), 0);
    assert_eq!(store.past.scans(), 0, "the event was still in memory");
}

/// Many streams come back at once from the same revision: they share what is read.
#[tokio::test]
async fn streams_that_come_back_together_share_a_reading() {
    let mut store = Double::new();
    for _ in 0..5000 {
        store.put("a", "x");
    }
    let mut events = 0;
    for _ in 0..100 {
        let mut stream = store.hub.open();
        let from = WatchCreateRequest { start_revision: 4990, ..on("a") };
        stream.create(&from);
        let responses = drain(&mut stream).await;
        events += responses.iter().map(|response| response.events.len()).sum::<usize>();
    }
    assert_eq!(events, 100 * 12);
    assert!(store.past.scans() <= 2, "{} scans", store.past.scans());
}
