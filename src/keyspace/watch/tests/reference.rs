//! Random schedules of writes, compactions, snapshots, creates, cancels and slow reads, each response held against
//! the whole history: the guarantees of etcd's robustness suite (filter, ordered, unique, atomic, reliable, resumable,
//! bookmarkable, is-create, previous value).
//!
//! Replay one seed: `QUORATE_SEED=<n> cargo test -p quorate --lib keyspace::watch::tests::reference`

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use bytes::Bytes;
use quorate_core::api::batch::RevisionRecord;
use quorate_core::api::ids::WatchId;
use quorate_core::api::pb::etcdserverpb::watch_create_request::FilterType;
use quorate_core::api::pb::etcdserverpb::{WatchCreateRequest, WatchResponse};
use quorate_core::api::pb::mvccpb;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::double::{Double, Op, line, ready};
use crate::keyspace::watch::range::KeyRange;
use crate::keyspace::watch::{WatchOptions, WatchStream};
use crate::support::spawn::Blocking;

const KEYS: [&str; 6] = ["a", "ab", "b", "ba", "c", "cc"];

/// The seeds of a run: the one asked for, or the default ones.
pub(super) fn seeds(default: RangeInclusive<u64>) -> Vec<u64> {
    match std::env::var("QUORATE_SEED") {
        Ok(seed) => vec![seed.parse().expect("QUORATE_SEED is a number")],
        Err(_) => default.collect(),
    }
}

/// Prints how to see a failure again, if there is one.
pub(super) struct Replay {
    pub(super) seed: u64,
    pub(super) test: &'static str,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "replay: QUORATE_SEED={} cargo test -p quorate --lib {}",
                self.seed, self.test
            );
        }
    }
}

/// What a client knows of one of its watchers.
struct Expecting {
    request: WatchCreateRequest,
    range: KeyRange,
    created: bool,
    /// The first revision it may be given.
    from: i64,
    /// How many records of the whole history it has passed.
    position: usize,
    /// Nothing up to here is missing, it was told or has seen.
    bookmark: i64,
    ended: bool,
}

impl Expecting {
    fn wants(&self, record: &RevisionRecord) -> bool {
        let filtered = if record.tombstone { FilterType::Nodelete } else { FilterType::Noput };
        record.revision.main >= self.from
            && self.range.contains(&record.kv.key)
            && !self.request.filters.contains(&i32::from(filtered))
    }

    /// The next record it must be given, at or after its position.
    fn next(&self, everything: &[RevisionRecord]) -> Option<usize> {
        let rest = everything.iter().enumerate().skip(self.position);
        rest.filter(|(_, record)| self.wants(record)).map(|(at, _)| at).next()
    }

    fn take(&mut self, store: &Double, event: &mvccpb::Event) {
        let at = self.next(&store.everything).expect("an event beyond history");
        let record = &store.everything[at];
        let kv = event.kv.as_ref().unwrap();
        assert_eq!((kv.mod_revision, &kv.key), (record.revision.main, &record.kv.key), "a gap");
        assert_eq!(event.r#type == 1, record.tombstone);
        assert_eq!(kv.value, record.kv.value);
        assert!(kv.mod_revision > self.bookmark, "an event at or below a bookmark");
        let before = store.value_at(&kv.key, kv.mod_revision - 1);
        if !record.tombstone {
            let is_create = kv.create_revision == kv.mod_revision;
            assert_eq!(is_create, before.is_none(), "create");
        }
        match &event.prev_kv {
            Some(prev) => {
                assert!(self.request.prev_kv, "a previous value nobody asked for");
                assert_eq!(Some(prev), before.as_ref(), "previous value");
            }
            None if self.request.prev_kv && before.is_some() => {
                assert!(kv.mod_revision - 1 < store.compacted, "a previous value is missing");
            }
            None => {}
        }
        self.position = at + 1;
    }
}

/// One client.
struct Client {
    stream: WatchStream,
    watchers: BTreeMap<i64, Expecting>,
    refusals: usize,
}

impl Client {
    fn create(&mut self, random: &mut StdRng, store: &Double) {
        let key = |random: &mut StdRng| KEYS[random.random_range(0..KEYS.len())].into();
        let range_end: Bytes = match random.random_range(0..4) {
            0 | 1 => Bytes::new(),
            2 => Bytes::from_static(b"\0"),
            _ => key(random),
        };
        let request = WatchCreateRequest {
            key: key(random),
            range_end,
            start_revision: match random.random_range(0..5) {
                0 | 1 => 0,
                2 => random.random_range(store.current..store.current + 8),
                _ => random.random_range(1..=store.current),
            },
            filters: match random.random_range(0..6) {
                0 => vec![FilterType::Noput.into()],
                1 => vec![FilterType::Nodelete.into()],
                _ => Vec::new(),
            },
            prev_kv: random.random_bool(0.5),
            watch_id: random.random_range(1..12),
            progress_notify: false,
            fragment: false,
        };
        if self.watchers.get(&request.watch_id).is_some_and(|watcher| watcher.ended) {
            return;
        }
        self.stream.create(&request);
        let range = KeyRange::of(&request.key, &request.range_end);
        let (Some(range), false) = (range, self.watchers.contains_key(&request.watch_id)) else {
            self.refusals += 1;
            return;
        };
        let from = match request.start_revision {
            0 => store.current + 1,
            start => start,
        };
        let expecting = Expecting {
            range,
            created: false,
            from,
            position: 0,
            bookmark: 0,
            ended: false,
            request,
        };
        self.watchers.insert(expecting.request.watch_id, expecting);
    }

    fn cancel(&mut self, random: &mut StdRng) {
        let ids: Vec<i64> = self.watchers.keys().copied().collect();
        if let Some(id) = ids.get(random.random_range(0..12)) {
            self.stream.cancel(WatchId(*id));
            // What is queued for it may still come; then its cancelled response.
            let watcher = self.watchers.get_mut(id);
            watcher.expect("the id was just listed").ended = true;
        }
    }

    /// Takes up to `limit` responses, each held against history.
    async fn read(&mut self, store: &Double, limit: usize) -> usize {
        for taken in 0..limit {
            let Some(response) = ready(&mut self.stream).await else { return taken };
            self.check(store, &response.unwrap());
        }
        limit
    }

    fn check(&mut self, store: &Double, response: &WatchResponse) {
        let said = line(response);
        let revision = response.header.as_ref().unwrap().revision;
        if response.watch_id == -1 {
            if response.created {
                assert!(response.canceled && !response.cancel_reason.is_empty(), "{said}");
                self.refusals -= 1;
                return;
            }
            assert!(response.events.is_empty() && !response.canceled, "{said}");
            for watcher in self.watchers.values_mut().filter(|it| it.created && !it.ended) {
                bookmark(watcher, store, revision, &said);
            }
            return;
        }
        let watcher = self.watchers.get_mut(&response.watch_id).expect("a known watcher");
        if response.created {
            assert!(!watcher.created, "created twice: {said}");
            watcher.created = true;
            if watcher.request.start_revision == 0 {
                assert_eq!(watcher.from, revision + 1, "{said}");
            }
            return;
        }
        assert!(watcher.created, "before it was created: {said}");
        if response.compact_revision != 0 {
            assert!(response.canceled && revision == 0, "{said}");
            assert!(response.compact_revision <= store.compacted, "{said}");
            let next = watcher.next(&store.everything).map(|at| &store.everything[at]);
            let seen = watcher.position.checked_sub(1).map(|at| &store.everything[at]);
            let seen = seen.map_or(watcher.from, |record| record.revision.main + 1);
            assert!(seen < response.compact_revision, "overtaken too soon: {said} {next:?}");
            watcher.ended = true;
            // The id stays taken until the client cancels it.
            self.stream.cancel(WatchId(response.watch_id));
            return;
        }
        if response.canceled {
            assert!(watcher.ended, "{said}");
            self.watchers.remove(&response.watch_id);
            return;
        }
        assert!(!response.events.is_empty(), "nobody asked for progress of one watcher: {said}");
        for event in &response.events {
            watcher.take(store, event);
        }
        let last = store.everything[watcher.position - 1].revision.main;
        if let Some(next) = watcher.next(&store.everything) {
            assert!(store.everything[next].revision.main > last, "split: {said}");
        }
        assert!(revision >= last && revision <= store.current, "{said}");
        watcher.bookmark = watcher.bookmark.max(last);
    }
}

fn bookmark(watcher: &mut Expecting, store: &Double, revision: i64, said: &str) {
    assert!(revision >= watcher.bookmark, "{said} goes back");
    assert!(revision >= watcher.request.start_revision, "{said} speaks for the future");
    if let Some(next) = watcher.next(&store.everything) {
        let next = store.everything[next].revision.main;
        assert!(next > revision, "{said} overtakes {next}");
    }
    watcher.bookmark = revision;
}

fn txn(random: &mut StdRng) -> Vec<Op> {
    let mut keys = KEYS.to_vec();
    let count = if random.random_bool(0.7) { 1 } else { random.random_range(2..5) };
    (0..count)
        .map(|_| {
            let key = keys.swap_remove(random.random_range(0..keys.len()));
            if random.random_bool(0.3) {
                Op::Delete(key)
            } else {
                Op::Put(key, format!("{}", random.random_range(0..1000)))
            }
        })
        .collect()
}

async fn run(seed: u64) {
    let _replay = Replay { seed, test: "keyspace::watch::tests::reference" };
    let mut random = StdRng::seed_from_u64(seed);
    let options = WatchOptions {
        slice_bytes: [1, 20, 300, 1 << 20][random.random_range(0..4)],
        batch_revisions: [1, 3, 50, 1000][random.random_range(0..4)],
        ..WatchOptions::default()
    };
    let mut store = Double::with(options, Blocking::in_place());
    let mut clients: Vec<Client> = (0..random.random_range(1..4))
        .map(|_| Client { stream: store.hub.open(), watchers: BTreeMap::new(), refusals: 0 })
        .collect();
    for _ in 0..400 {
        let which = random.random_range(0..clients.len());
        match random.random_range(0..100) {
            0..40 => {
                let txns: Vec<_> =
                    (0..random.random_range(1..4)).map(|_| txn(&mut random)).collect();
                store.entry(&txns);
            }
            40..43 => {
                for _ in 0..random.random_range(50..250) {
                    store.entry(&[txn(&mut random)]);
                }
            }
            43..46 => {
                let floor = store.compacted.max(1);
                let to = random.random_range(floor..=store.current);
                if to > store.compacted {
                    store.compact(to);
                }
            }
            46..47 => {
                let txns: Vec<_> =
                    (0..random.random_range(1..9)).map(|_| txn(&mut random)).collect();
                store.store(&txns);
                store.hub.restored(store.current, store.compacted);
            }
            47..60 => {
                if clients[which].stream.ready_for_requests() {
                    clients[which].create(&mut random, &store);
                }
            }
            60..65 => {
                if clients[which].stream.ready_for_requests() {
                    clients[which].cancel(&mut random);
                }
            }
            65..72 => clients[which].stream.request_progress(),
            _ => {
                let limit = [1, 3, 20, 200][random.random_range(0..4)];
                clients[which].read(&store, limit).await;
            }
        }
    }
    settle(&store, &mut clients).await;
}

/// Everybody reads to the end: nothing may be missing, and the whole stream may be told so.
async fn settle(store: &Double, clients: &mut [Client]) {
    for client in clients {
        while client.read(store, 1000).await == 1000 {}
        assert_eq!(client.refusals, 0, "every refusal was told");
        for (id, watcher) in &client.watchers {
            assert!(watcher.created && !watcher.ended, "#{id}");
            assert_eq!(watcher.next(&store.everything), None, "#{id} misses events");
        }
        let futures = client.watchers.values().any(|it| it.request.start_revision > store.current);
        client.stream.request_progress();
        let progress = ready(&mut client.stream).await;
        assert_eq!(progress.is_some(), !futures && !client.watchers.is_empty());
        if let Some(response) = progress {
            client.check(store, &response.unwrap());
        }
    }
    assert_eq!(store.hub.counters().slow_watchers(), 0);
    assert_eq!(store.hub.counters().pending_events(), 0);
}

#[tokio::test]
async fn every_schedule_keeps_every_guarantee() {
    for seed in seeds(1..=40) {
        run(seed).await;
    }
}
