//! Slow readers and real threads: a writer that never waits, readers that do.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_core::api::ids::WatchId;
use quorate_core::api::pb::etcdserverpb::WatchCreateRequest;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::double::{Double, Op, drain, line, lines, on, on_all, ready};
use super::reference::{Replay, seeds};
use crate::keyspace::watch::{WatchOptions, WatchStream};
use crate::support::spawn::Blocking;

#[tokio::test]
async fn a_full_queue_loses_nothing_and_reads_the_newest_from_memory() {
    let mut store = Double::new();
    let mut stream = store.hub.open();
    stream.create(&on("a"));
    for _ in 0..1500 {
        store.put("a", "x");
    }

    let said = drain(&mut stream).await;

    let revisions: Vec<i64> = said
        .iter()
        .flat_map(|response| &response.events)
        .map(|event| event.kv.as_ref().unwrap().mod_revision)
        .collect();
    assert_eq!(revisions, (2..=1501).collect::<Vec<_>>());
    let sizes: Vec<usize> = said.iter().skip(129).map(|response| response.events.len()).collect();
    assert_eq!(sizes, [1000, 372], "a batch holds 1000 revisions");
    assert!(said[129..].iter().all(|it| it.header.as_ref().unwrap().revision == 1501));
    assert_eq!(store.past.scans(), 0);
}

#[tokio::test]
async fn a_queue_is_full_of_bytes_before_it_is_full_of_responses() {
    let mut store = Double::new();
    let mut stream = store.hub.open();
    stream.create(&on("a"));
    let large = "x".repeat(1 << 20);
    for _ in 0..100 {
        store.put("a", &large);
    }
    assert_eq!(store.hub.counters().pending_events(), 8);
    let revisions: Vec<i64> = drain(&mut stream)
        .await
        .iter()
        .flat_map(|response| &response.events)
        .map(|event| event.kv.as_ref().unwrap().mod_revision)
        .collect();
    assert_eq!(revisions, (2..=101).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_wide_revision_is_not_split_by_a_small_slice() {
    let options = WatchOptions { slice_bytes: 1, batch_revisions: 1, ..WatchOptions::default() };
    let mut store = Double::with(options, Blocking::in_place());
    let put = |key| Op::Put(key, "x".to_owned());
    store.write(&[put("a"), put("b"), put("c")]);
    store.write(&[put("a"), put("b")]);
    let mut stream = store.hub.open();
    stream.create(&WatchCreateRequest { start_revision: 1, ..on_all() });
    assert_eq!(
        lines(&mut stream).await,
        ["#0 created @3", "#0 a=x/2 b=x/2 c=x/2 @3", "#0 a=x/3 b=x/3 @3"]
    );
}

#[tokio::test]
async fn a_quiet_lagging_watcher_does_not_keep_others_from_their_events() {
    let options = WatchOptions { slice_bytes: 1, ..WatchOptions::default() };
    let mut store = Double::with(options, Blocking::in_place());
    for _ in 0..500 {
        store.put("b", "x");
    }
    let mut stream = store.hub.open();
    stream.create(&WatchCreateRequest { start_revision: 1, ..on("a") });
    stream.create(&on("b"));
    store.put("b", "y");
    store.put("a", "z");
    let mut said = Vec::new();
    for _ in 0..4 {
        let soon = Duration::from_secs(5);
        let response = tokio::time::timeout(soon, stream.next()).await.expect("soon");
        said.push(line(&response.unwrap()));
    }
    assert_eq!(said[..2], ["#0 created @501", "#1 created @501"]);
    assert_eq!(said[2], "#1 b=y/502 @502");
    assert_eq!(said[3], "#0 a=z/503 @503");
}

#[tokio::test]
async fn a_cancel_while_history_is_on_its_way_is_the_last_word() {
    let mut store = Double::with(WatchOptions::default(), Blocking::bounded(1));
    for _ in 0..10 {
        store.put("a", "x");
    }
    let mut stream = store.hub.open();
    stream.create(&WatchCreateRequest { start_revision: 2, ..on("a") });
    assert_eq!(line(&ready(&mut stream).await.unwrap().unwrap()), "#0 created @11");
    let _ = ready(&mut stream).await;
    stream.cancel(WatchId(0));
    stream.create(&on("b"));

    let mut said = Vec::new();
    while let Ok(response) = tokio::time::timeout(Duration::from_millis(100), stream.next()).await {
        said.push(line(&response.unwrap()));
    }
    let at = said.iter().position(|said| said == "#0 canceled @11").expect("it is answered");
    assert!(said[at + 1..].iter().all(|said| !said.starts_with("#0")), "{said:?}");
    assert_eq!(store.hub.counters().slow_watchers(), 0);
}

/// A reader that pauses at random; it answers every revision it was given, in order.
async fn read_all(mut stream: WatchStream, until: i64, mut random: StdRng) -> Vec<i64> {
    let mut revisions = Vec::new();
    let mut bookmark = 0;
    while revisions.last() != Some(&until) {
        let response = stream.next().await.expect("history can be read");
        let header = response.header.as_ref().unwrap().revision;
        if response.events.is_empty() && !response.created {
            let last = revisions.last().copied().unwrap_or(0);
            assert!(header >= last && header >= bookmark, "progress goes back");
            bookmark = header;
        }
        for event in &response.events {
            let revision = event.kv.as_ref().unwrap().mod_revision;
            assert!(revision > bookmark, "an event behind a progress notification");
            revisions.push(revision);
        }
        if random.random_bool(0.02) {
            tokio::time::sleep(Duration::from_micros(random.random_range(0..3000))).await;
        }
        if random.random_bool(0.1) && stream.ready_for_requests() {
            stream.request_progress();
        }
    }
    revisions
}

/// One thread writes without a pause while readers on others fall behind and catch up through real blocking threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn readers_on_threads_see_every_revision_once_and_in_order() {
    for seed in seeds(1..=3) {
        let _replay = Replay { seed, test: "keyspace::watch::tests::slow" };
        let options = WatchOptions { slice_bytes: 2000, ..WatchOptions::default() };
        let store = Arc::new(Mutex::new(Double::with(options, Blocking::bounded(2))));
        let writes: i64 = 3000;
        let mut readers = Vec::new();
        for reader in 0..6 {
            let mut stream = store.lock().hub.open();
            let start_revision = if reader % 2 == 0 { 2 } else { 0 };
            stream.create(&WatchCreateRequest { start_revision, ..on("a") });
            let random = StdRng::seed_from_u64(seed * 100 + reader);
            readers.push(tokio::spawn(read_all(stream, writes + 1, random)));
        }
        let writer = tokio::spawn(async move {
            for _ in 0..writes {
                store.lock().put("a", "x");
                tokio::task::yield_now().await;
            }
        });
        let expected: Vec<i64> = (2..=writes + 1).collect();
        for reader in readers {
            let seen = tokio::time::timeout(Duration::from_secs(30), reader).await;
            assert_eq!(seen.expect("readers get to the end").unwrap(), expected, "seed {seed}");
        }
        writer.await.unwrap();
    }
}

/// Streams open, watch from now on and go while a thread writes: the first event follows the created revision, none is
/// missing, and nothing is left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn streams_that_come_and_go_under_writes_begin_exactly_where_they_were_told() {
    let store = Arc::new(Mutex::new(Double::new()));
    let hub = store.lock().hub.clone();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let writer = tokio::spawn(async move {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            store.lock().put("a", "x");
            tokio::task::yield_now().await;
        }
    });
    let mut clients = Vec::new();
    for _ in 0..2 {
        let hub = hub.clone();
        clients.push(tokio::spawn(async move {
            for _ in 0..150 {
                let mut stream = hub.open();
                stream.create(&on("a"));
                let created = stream.next().await.unwrap();
                let mut next = created.header.unwrap().revision + 1;
                for _ in 0..5 {
                    for event in stream.next().await.unwrap().events {
                        assert_eq!(event.kv.unwrap().mod_revision, next);
                        next += 1;
                    }
                }
                stream.cancel(WatchId(0));
                while !stream.next().await.unwrap().canceled {}
            }
        }));
    }
    for client in clients {
        let ended = tokio::time::timeout(Duration::from_secs(20), client).await;
        ended.expect("events come").unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.await.unwrap();
    let counters = hub.counters();
    assert_eq!((counters.streams(), counters.watchers()), (0, 0));
    assert_eq!((counters.slow_watchers(), counters.pending_events()), (0, 0));
}

/// Progress is asked for while writes go on at full speed: catching up ends, however fast the writer is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_becomes_synced_under_a_steady_stream_of_writes() {
    let store = Arc::new(Mutex::new(Double::with(WatchOptions::default(), Blocking::bounded(1))));
    for _ in 0..6000 {
        store.lock().put("b", "x");
    }
    let mut stream = store.lock().hub.open();
    stream.create(&WatchCreateRequest { start_revision: 2, ..on("a") });
    let stop = Arc::new(tokio::sync::Notify::new());
    let stopped = Arc::clone(&stop);
    let writer = tokio::spawn(async move {
        loop {
            store.lock().put("b", "x");
            let pause = tokio::time::sleep(Duration::from_micros(100));
            tokio::select! {
                () = stopped.notified() => return,
                () = pause => {}
            }
        }
    });
    let progress = async {
        loop {
            stream.request_progress();
            let soon = Duration::from_millis(5);
            if let Ok(response) = tokio::time::timeout(soon, stream.next()).await {
                let response = response.unwrap();
                if response.watch_id == -1 {
                    return response;
                }
            }
        }
    };
    let response = tokio::time::timeout(Duration::from_secs(10), progress).await;
    assert!(response.expect("progress comes").header.unwrap().revision >= 6001);
    stop.notify_one();
    writer.await.unwrap();
}
