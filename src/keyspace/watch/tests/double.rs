//! A store double, and a way to see what a stream has to say right now.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_core::api::batch::RevisionRecord;
use quorate_core::api::ids::Revision;
use quorate_core::api::pb::etcdserverpb::{WatchCreateRequest, WatchResponse};
use quorate_core::api::pb::mvccpb::KeyValue;
use quorate_core::api::refusal::Corrupt;

use crate::keyspace::watch::{History, WatchError, WatchHub, WatchOptions, WatchStream};
use crate::support::spawn::Blocking;

/// One operation of a write transaction.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Put(&'static str, String),
    Delete(&'static str),
}

/// What is still stored, as the hub sees it. Reads of what a compaction dropped fail, as a store's would.
#[derive(Debug, Default)]
pub(crate) struct Past {
    stored: Mutex<BTreeMap<Revision, RevisionRecord>>,
    scans: Mutex<usize>,
}

impl Past {
    /// How often history was scanned.
    pub(crate) fn scans(&self) -> usize {
        *self.scans.lock()
    }
}

impl History for Past {
    fn scan(&self, from: Revision, max_bytes: usize) -> Result<Vec<RevisionRecord>, Corrupt> {
        *self.scans.lock() += 1;
        let stored = self.stored.lock();
        let mut found: Vec<RevisionRecord> = Vec::new();
        let mut bytes = 0;
        for (revision, record) in stored.range(from..) {
            let begins = found.last().is_some_and(|last| last.revision.main != revision.main);
            if begins && bytes >= max_bytes {
                break;
            }
            bytes += record.kv.key.len() + record.kv.value.len();
            found.push(RevisionRecord { prev: None, ..record.clone() });
        }
        Ok(found)
    }

    fn key_value(&self, revision: Revision) -> Result<KeyValue, Corrupt> {
        let stored = self.stored.lock();
        let record = stored.get(&revision).ok_or_else(|| Corrupt::BadRevision {
            revision: revision.to_string(),
            reason: "absent".to_owned(),
        })?;
        Ok(KeyValue::clone(&record.kv))
    }

    fn value_at(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, Corrupt> {
        let stored = self.stored.lock();
        let upto = stored.range(..=Revision::new(revision, i64::MAX)).rev();
        let newest = upto.map(|(_, record)| record).find(|record| record.kv.key == key);
        let alive = newest.filter(|record| !record.tombstone);
        Ok(alive.map(|record| KeyValue::clone(&record.kv)))
    }
}

/// A store with its hub: writes are decided here, stored, and published.
pub(crate) struct Double {
    pub(crate) hub: WatchHub,
    pub(crate) past: Arc<Past>,
    /// Everything that ever happened, whatever was compacted.
    pub(crate) everything: Vec<RevisionRecord>,
    pub(crate) current: i64,
    pub(crate) compacted: i64,
    alive: BTreeMap<Bytes, RevisionRecord>,
    by_key: BTreeMap<Bytes, Vec<usize>>,
}

impl Double {
    pub(crate) fn new() -> Double {
        Double::with(WatchOptions::default(), Blocking::in_place())
    }

    pub(crate) fn with(options: WatchOptions, blocking: Blocking) -> Double {
        let past = Arc::new(Past::default());
        let history = Arc::clone(&past) as Arc<dyn History>;
        Double {
            hub: WatchHub::new(history, Arc::new(blocking), options, 1, -1),
            past,
            everything: Vec::new(),
            current: 1,
            compacted: -1,
            alive: BTreeMap::new(),
            by_key: BTreeMap::new(),
        }
    }

    /// One entry with one write transaction.
    pub(crate) fn write(&mut self, ops: &[Op]) -> i64 {
        self.entry(&[ops.to_vec()]);
        self.current
    }

    pub(crate) fn put(&mut self, key: &'static str, value: &str) -> i64 {
        self.write(&[Op::Put(key, value.to_owned())])
    }

    pub(crate) fn delete(&mut self, key: &'static str) -> i64 {
        self.write(&[Op::Delete(key)])
    }

    /// One log entry with any number of write transactions, as the sink publishes it.
    pub(crate) fn entry(&mut self, txns: &[Vec<Op>]) {
        let records = self.store(txns);
        self.hub.publish(&records, self.current);
    }

    /// Decides and stores without publishing. A transaction that changes nothing takes no revision.
    pub(crate) fn store(&mut self, txns: &[Vec<Op>]) -> Vec<RevisionRecord> {
        let mut records = Vec::new();
        for txn in txns {
            let main = self.current + 1;
            let mut sub = 0;
            for op in txn {
                if let Some(record) = self.decide(op, Revision::new(main, sub)) {
                    records.push(record);
                    sub += 1;
                }
            }
            if sub > 0 {
                self.current = main;
            }
        }
        let mut stored = self.past.stored.lock();
        stored.extend(records.iter().map(|record| (record.revision, record.clone())));
        for record in &records {
            let at = self.everything.len();
            self.by_key.entry(record.kv.key.clone()).or_default().push(at);
            self.everything.push(record.clone());
        }
        records
    }

    fn decide(&mut self, op: &Op, revision: Revision) -> Option<RevisionRecord> {
        let (key, value) = match op {
            Op::Put(key, value) => (key, Some(value)),
            Op::Delete(key) => (key, None),
        };
        let key = Bytes::from_static(key.as_bytes());
        let before = self.alive.remove(&key);
        let prev = before.as_ref().map(|record| record.revision);
        let tombstone = value.is_none();
        if tombstone && before.is_none() {
            return None;
        }
        let kv = match value {
            None => KeyValue { key, mod_revision: revision.main, ..KeyValue::default() },
            Some(value) => KeyValue {
                create_revision: before.as_ref().map_or(revision.main, |it| it.kv.create_revision),
                mod_revision: revision.main,
                version: before.as_ref().map_or(1, |it| it.kv.version + 1),
                value: value.clone().into(),
                lease: 0,
                key,
            },
        };
        let record = RevisionRecord { revision, tombstone, kv: Arc::new(kv), prev };
        if !tombstone {
            self.alive.insert(record.kv.key.clone(), record.clone());
        }
        Some(record)
    }

    /// Compacts logically, then drops what is dead below, in the order the keyspace does.
    pub(crate) fn compact(&mut self, revision: i64) {
        self.compacted = revision;
        self.hub.compacted(revision);
        self.drop_dead();
    }

    pub(crate) fn drop_dead(&mut self) {
        let mut stored = self.past.stored.lock();
        let mut kept: BTreeMap<Bytes, Revision> = BTreeMap::new();
        for (at, record) in stored.range(..=Revision::new(self.compacted, i64::MAX)) {
            let buried = record.tombstone && at.main < self.compacted;
            if buried {
                kept.remove(&record.kv.key);
            } else {
                kept.insert(record.kv.key.clone(), *at);
            }
        }
        let compacted = self.compacted;
        stored.retain(|at, record| at.main >= compacted || kept.get(&record.kv.key) == Some(at));
    }

    /// The key-value of `key` at `revision`, whatever was compacted.
    pub(crate) fn value_at(&self, key: &[u8], revision: i64) -> Option<KeyValue> {
        let mut writes = self.by_key.get(key)?.iter().rev().map(|at| &self.everything[*at]);
        let newest = writes.find(|record| record.revision.main <= revision)?;
        (!newest.tombstone).then(|| KeyValue::clone(&newest.kv))
    }
}

/// Every response that the stream gives without waiting.
pub(crate) async fn drain(stream: &mut WatchStream) -> Vec<WatchResponse> {
    let mut responses = Vec::new();
    while let Some(response) = ready(stream).await {
        responses.push(response.expect("history can be read"));
    }
    responses
}

/// The next response, if the stream has one without waiting.
pub(crate) async fn ready(stream: &mut WatchStream) -> Option<Result<WatchResponse, WatchError>> {
    let mut next = std::pin::pin!(stream.next());
    for _ in 0..3 {
        let polled = std::future::poll_fn(|context| Poll::Ready(next.as_mut().poll(context)));
        if let Poll::Ready(response) = polled.await {
            return Some(response);
        }
        // A stream that only paused to let others run has something at the next poll.
        tokio::task::yield_now().await;
    }
    None
}

/// A create request for one key.
pub(crate) fn on(key: &'static str) -> WatchCreateRequest {
    WatchCreateRequest { key: key.into(), ..WatchCreateRequest::default() }
}

/// A create request for every key.
pub(crate) fn on_all() -> WatchCreateRequest {
    WatchCreateRequest { range_end: Bytes::from_static(b"\0"), ..WatchCreateRequest::default() }
}

/// What a response says, in one line: `#id`, what it is, `@` the header's revision.
pub(crate) fn line(response: &WatchResponse) -> String {
    let mut line = format!("#{}", response.watch_id);
    let marks = [
        (response.created, " created"),
        (response.canceled, " canceled"),
        (response.fragment, " fragment"),
    ];
    for (_, mark) in marks.iter().filter(|(set, _)| *set) {
        line.push_str(mark);
    }
    if response.compact_revision != 0 {
        line.push_str(&format!(" compacted={}", response.compact_revision));
    }
    if !response.cancel_reason.is_empty() {
        line.push_str(&format!(" ({})", response.cancel_reason));
    }
    for event in &response.events {
        let kv = event.kv.as_ref().expect("events carry a key-value");
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        if event.r#type == 0 {
            line.push_str(&format!(" {}={}", text(&kv.key), text(&kv.value)));
        } else {
            line.push_str(&format!(" -{}", text(&kv.key)));
        }
        line.push_str(&format!("/{}", kv.mod_revision));
        if let Some(prev) = &event.prev_kv {
            line.push_str(&format!("<{}/{}", text(&prev.value), prev.mod_revision));
        }
    }
    let revision = response.header.as_ref().map_or(-1, |header| header.revision);
    line.push_str(&format!(" @{revision}"));
    line
}

/// The lines of every response that the stream gives without waiting.
pub(crate) async fn lines(stream: &mut WatchStream) -> Vec<String> {
    drain(stream).await.iter().map(line).collect()
}
