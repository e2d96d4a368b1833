//! A state of one member put in the place of another's, with everything that stands on it: no raft, the test says
//! what is committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use quorate_core::api::ids::{ClusterId, GroupId, LogId, MemberId, Revision, Term};
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::internal::command::Request;
use quorate_core::api::pb::internal::log_payload::Payload;
use quorate_core::api::pb::internal::{Command, Entry, LogPayload, Membership, VoterSet};
use quorate_core::state_machine::RangeWork;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::open::Fed;
use super::seat::Past;
use super::sink::Sink;
use super::upkeep::hash_kv;
use super::watch::{History as _, WatchStream};
use super::{InitialMember, KeyspaceConfig, KeyspaceError, Seams, TimeoutKind};
use crate::consensus::{AppliedSink as _, NoPeers, PreparedSnapshot, SnapshotLabel};
use crate::storage::device::double::DoubleDevice;
use crate::storage::journal::{GroupLog, Journal, JournalOptions, LogRecord, Runner};
use crate::storage::{EngineKind, Store, StoreOptions, UpkeepRunner};
use crate::support::clock::SystemClock;
use crate::support::spawn::Blocking;

const PIECE: usize = 9000;

/// Everything of a keyspace but raft, and its journal.
struct Node {
    fed: Fed,
    sink: Sink,
    log: GroupLog,
    next: LogId,
    _journal: Journal,
}

impl Node {
    async fn start(id: u64, threads: bool) -> Node {
        let device = Arc::new(DoubleDevice::default());
        let options = JournalOptions { segment_bytes: 1 << 20, ..JournalOptions::default() };
        let runner = if threads { Runner::Thread } else { Runner::InPlace };
        let journal = Journal::open(device, options, runner).unwrap();
        let log = journal.group(GroupId(0));
        let bases = Arc::new(DoubleDevice::default());
        let mut store = StoreOptions::new(GroupId(0), "/unused".into(), bases);
        store.engine = EngineKind::Memory;
        let blocking = if threads { Blocking::bounded(2) } else { Blocking::in_place() };
        if !threads {
            store.runner = UpkeepRunner::InPlace;
        }
        // Everything is read from the store.
        store.value_budget_bytes = 0;
        let opened = Store::open(store, log.clone()).unwrap();
        let member = InitialMember { id: MemberId(id), peer_urls: Vec::new() };
        let config = KeyspaceConfig::single(ClusterId(7), member);
        let seams = Seams {
            clock: Arc::new(SystemClock::default()),
            blocking: Arc::new(blocking),
            transport: Arc::new(NoPeers),
            incarnation: 100 + id,
        };
        let fed = Fed::new(&config, &seams, opened, 1 << 20);
        let sink = fed.sink(&config, &seams);
        Node { fed, sink, log, next: LogId::new(1, 0), _journal: journal }
    }

    /// Two that have agreed on one membership.
    async fn pair(threads: bool) -> (Node, Node) {
        let (mut one, mut other) = (Node::start(1, threads).await, Node::start(2, threads).await);
        for node in [&mut one, &mut other] {
            let voters = VoterSet { member_ids: vec![1, 2] };
            let membership = Membership { configs: vec![voters], nodes: Vec::new() };
            node.commit(Payload::Membership(membership)).await;
        }
        (one, other)
    }

    async fn commit(&mut self, payload: Payload) {
        let payload = LogPayload { payload: Some(payload) };
        let record = LogRecord { id: self.next, payload: payload.encode_to_vec().into() };
        let (tell, told) = oneshot::channel();
        self.log.append(vec![record], Box::new(|synced| tell.send(synced).unwrap())).unwrap();
        told.await.unwrap().unwrap();
        self.log.set_committed(self.next);
        self.sink.apply(vec![(self.next, payload)]).await.unwrap();
        self.next.index += 1;
    }

    /// Commits a batch of `proposer`'s.
    async fn batch(&mut self, proposer: u64, seq: u64, requests: Vec<Request>) {
        let command = |request| Command { request: Some(request), ..Command::default() };
        let entry = Entry {
            level: 1,
            member_id: proposer,
            incarnation: 100 + proposer,
            seq,
            time_ms: 1,
            commands: requests.into_iter().map(command).collect(),
        };
        self.commit(Payload::Entry(entry)).await;
    }

    /// Puts `n` keys, one revision each.
    async fn write(&mut self, from: i64, n: i64) {
        for i in from..from + n {
            let seq = self.next.index + 1;
            self.batch(9, seq, vec![put(&format!("k{}", i % 20), &value(i))]).await;
        }
    }

    async fn take_base(&self) {
        let store = self.fed.state.store();
        let at = self.fed.state.applied();
        let mut bases = self.sink.snapshots();
        store.request_base();
        store.run_upkeep().unwrap();
        let newest = bases.wait_for(|base| *base == at);
        timeout(Duration::from_secs(20), newest).await.unwrap().unwrap();
        // As consensus does.
        self.log.purge_to(at.unwrap()).unwrap();
    }

    async fn prepare_from(&self, from: &Node) -> Box<dyn PreparedSnapshot> {
        let source = from.sink.snapshot().unwrap();
        let label = source.label().clone();
        let mut receiver = self.sink.receive(label.clone()).await.unwrap();
        while receiver.received() < label.len {
            let piece = source.read(receiver.received(), PIECE).await.unwrap();
            receiver.write(piece).await.unwrap();
        }
        receiver.prepare().await.unwrap()
    }

    async fn install_from(&mut self, from: &Node) {
        let prepared = self.prepare_from(from).await;
        let at = prepared.label().at;
        prepared.install().await.unwrap();
        self.next.index = at.index + 1;
    }

    fn revision(&self) -> i64 {
        self.fed.state.machine.read().revision()
    }

    /// What members compare.
    async fn told(&self) -> (Option<LogId>, u64, u32, Vec<i64>, u64) {
        let hash = hash_kv(&self.fed.state, 0).await.unwrap().hash;
        let mut leases: Vec<_> = self.fed.lessor.leases().into_iter().map(|id| id.0).collect();
        leases.sort_unstable();
        let in_use = self.fed.state.store().db_size_in_use();
        let machine = self.fed.state.machine.read();
        (self.sink.applied().0, machine.rolling_hash(), hash, leases, in_use)
    }
}

fn value(i: i64) -> String {
    format!("value {i} {}", "x".repeat(300))
}

fn put(key: &str, value: &str) -> Request {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Request::Put(pb::PutRequest { key: bytes(key), value: bytes(value), ..Default::default() })
}

fn grant(id: i64) -> Request {
    Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl: 60 })
}

fn compact(revision: i64) -> Request {
    Request::Compaction(pb::CompactionRequest { revision, physical: false })
}

fn all() -> pb::RangeRequest {
    let everything = Bytes::from_static(b"\0");
    pb::RangeRequest { key: everything.clone(), range_end: everything, ..Default::default() }
}

fn watch(stream: &mut WatchStream, start_revision: i64) {
    let all = all();
    stream.create(&pb::WatchCreateRequest {
        key: all.key,
        range_end: all.range_end,
        start_revision,
        prev_kv: true,
        ..Default::default()
    });
}

async fn next(stream: &mut WatchStream) -> pb::WatchResponse {
    timeout(Duration::from_secs(20), stream.next()).await.expect("in time").unwrap()
}

/// The revisions of the next events, until `count` came.
async fn revisions(stream: &mut WatchStream, count: usize) -> Vec<i64> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let response = next(stream).await;
        assert!(!response.canceled, "{response:?}");
        let kvs = response.events.into_iter().map(|event| event.kv.unwrap());
        seen.extend(kvs.map(|kv| kv.mod_revision));
    }
    seen
}

macro_rules! in_place_and_with_threads {
    ($($story:ident),* $(,)?) => {
        mod in_place {
            $(#[tokio::test(start_paused = true)]
            async fn $story() {
                super::$story(false).await;
            })*
        }
        mod with_threads {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story(true).await;
            })*
        }
    };
}

in_place_and_with_threads!(
    an_installed_state_is_the_senders_in_all_that_members_compare,
    watchers_go_on_without_a_gap_or_hear_of_the_compaction,
    waiters_of_batches_that_the_state_covers_hear_that_nobody_knows,
    readers_on_their_way_finish_in_the_state_they_began_in,
    a_sweep_goes_on_in_the_installed_state,
    what_is_not_newer_changes_nothing,
    readers_and_installs_do_not_disturb_each_other,
    a_build_that_nobody_waits_for_is_called_off,
);

async fn an_installed_state_is_the_senders_in_all_that_members_compare(threads: bool) {
    let (mut from, mut to) = Node::pair(threads).await;
    assert!(from.sink.snapshot().is_none());
    from.write(0, 60).await;
    from.batch(9, 1000, vec![grant(5), grant(6)]).await;
    from.take_base().await;
    to.write(500, 3).await;
    to.fed.lessor.leads(Some(Term(1)));
    assert_eq!(to.fed.lessor.leases(), []);
    let state = Arc::clone(&to.fed.state);
    let target = from.next.index - 1;
    let waits = tokio::spawn(async move { state.wait_applied(target).await });
    to.install_from(&from).await;
    timeout(Duration::from_secs(20), waits).await.unwrap().unwrap().unwrap();
    assert_eq!(to.told().await, from.told().await);
    assert_eq!(to.sink.applied(), from.sink.applied());
    assert_eq!(to.sink.snapshot().unwrap().label(), from.sink.snapshot().unwrap().label());
    for node in [&mut from, &mut to] {
        node.batch(9, 1001, vec![grant(7), compact(30)]).await;
        node.batch(9, 1002, vec![put("a", "b"), put("c", "d")]).await;
    }
    assert_eq!(to.told().await, from.told().await);
    let figures = to.fed.state.store().figures();
    assert_eq!(figures.installs, 1);
    assert_eq!(figures.received_bytes, from.sink.snapshot().unwrap().label().len);
}

async fn watchers_go_on_without_a_gap_or_hear_of_the_compaction(threads: bool) {
    let (mut from, mut to) = Node::pair(threads).await;
    for node in [&mut from, &mut to] {
        node.write(0, 10).await;
    }
    let seen = to.revision();
    let mut synced = to.fed.hub.open();
    watch(&mut synced, 0);
    assert!(next(&mut synced).await.created);
    let mut future = to.fed.hub.open();
    watch(&mut future, seen + 25);
    assert!(next(&mut future).await.created);
    let mut behind = to.fed.hub.open();
    watch(&mut behind, 2);
    from.write(10, 30).await;
    from.batch(9, 1000, vec![compact(seen - 2)]).await;
    from.take_base().await;
    to.install_from(&from).await;
    assert_eq!(to.fed.hub.revision(), from.revision());
    to.write(40, 5).await;
    let last = to.revision();
    let all: Vec<i64> = (seen + 1..=last).collect();
    assert_eq!(revisions(&mut synced, all.len()).await, all);
    assert_eq!(revisions(&mut future, all.len() - 24).await, all[24..]);
    assert!(next(&mut behind).await.created);
    let cancelled = next(&mut behind).await;
    assert!(cancelled.canceled);
    assert_eq!(cancelled.compact_revision, seen - 2);
}

async fn waiters_of_batches_that_the_state_covers_hear_that_nobody_knows(threads: bool) {
    let (mut from, mut to) = Node::pair(threads).await;
    for seq in 1..=3 {
        // The receiver's own batches, committed while it was away; the second was lost.
        if seq != 2 {
            from.batch(2, seq, vec![put("own", &value(seq as i64))]).await;
        }
    }
    from.take_base().await;
    let mut told = Vec::new();
    for seq in 1..=4 {
        let (tell, hear) = oneshot::channel();
        to.fed.in_flight.insert(seq, vec![tell]);
        told.push(hear);
    }
    let progress = to.fed.in_flight.progress();
    to.install_from(&from).await;
    for hear in &mut told[..3] {
        let unknown = KeyspaceError::Timeout(TimeoutKind::LeaderFailure);
        assert_eq!(hear.try_recv().unwrap(), Err(unknown));
    }
    assert!(told[3].try_recv().is_err(), "the last is still under way");
    assert_eq!(*progress.borrow(), 3);
    to.batch(2, 4, vec![put("own", "last")]).await;
    assert!(told[3].try_recv().unwrap().is_ok());
}

async fn readers_on_their_way_finish_in_the_state_they_began_in(threads: bool) {
    let (mut from, mut to) = Node::pair(threads).await;
    for node in [&mut from, &mut to] {
        node.write(0, 40).await;
    }
    let (revision, before) = (to.revision(), to.told().await.2);
    // Picked and not yet fetched; and a second, of which only the first slice is picked.
    let mut picked = RangeWork::new(all());
    let mut begun = RangeWork::new(all());
    let view = {
        let now = to.fed.state.machine.read();
        assert!(picked.step(&now, 1000).unwrap());
        assert!(!begun.step(&now, 5).unwrap());
        now.view()
    };
    let (mut scope, generation) = {
        let now = to.fed.state.machine.read();
        (now.hash_begin(0).unwrap(), now.number())
    };
    from.write(40, 40).await;
    from.batch(9, 1000, vec![compact(revision)]).await;
    from.take_base().await;
    to.install_from(&from).await;
    let told = picked.finish(&view).unwrap();
    assert_eq!((told.kvs.len(), told.header.unwrap().revision), (20, revision));
    let view = {
        let now = to.fed.state.machine.read();
        assert!(begun.step(&now, 1000).unwrap());
        assert_ne!(now.number(), generation);
        now.view()
    };
    let told_in_slices = begun.finish(&view).unwrap();
    assert_eq!(told_in_slices.kvs, told.kvs);
    // A hash that was begun before is not mixed from two states.
    assert!(!to.fed.state.machine.read().hash_step(&mut scope, 1));
    let mixed = super::upkeep::hash(&to.fed.state, scope, generation).await.unwrap();
    assert_eq!(mixed, None);
    assert_ne!(to.told().await.2, before);
    assert_eq!(to.told().await, from.told().await);
}

async fn a_sweep_goes_on_in_the_installed_state(threads: bool) {
    let (mut from, mut to) = Node::pair(threads).await;
    from.write(0, 60).await;
    let compacted = from.revision() - 5;
    from.batch(9, 1000, vec![compact(compacted)]).await;
    from.take_base().await;
    to.write(0, 10).await;
    to.batch(9, 1000, vec![compact(5)]).await;
    let (sweeper, state) = (Arc::clone(&to.fed.sweeper), Arc::clone(&to.fed.state));
    let sweeps = tokio::spawn(async move { sweeper.run(&state).await });
    to.install_from(&from).await;
    let swept = to.fed.sweeper.wait_swept(compacted);
    timeout(Duration::from_secs(20), swept).await.unwrap().unwrap();
    assert_eq!(to.fed.state.machine.read().swept_revision(), compacted);
    assert_eq!(to.told().await, from.told().await);
    sweeps.abort();
}

async fn readers_and_installs_do_not_disturb_each_other(threads: bool) {
    const INSTALLS: i64 = 12;
    let (mut from, mut to) = Node::pair(threads).await;
    for node in [&mut from, &mut to] {
        node.write(0, 40).await;
    }
    let mut watcher = to.fed.hub.open();
    watch(&mut watcher, to.revision() + 1);
    assert!(next(&mut watcher).await.created);
    let first = to.revision();
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for kind in 0..3 {
        let (state, done) = (Arc::clone(&to.fed.state), Arc::clone(&done));
        readers.push(tokio::spawn(async move {
            let past = Past(Arc::clone(&state));
            let mut count = 0;
            while !done.load(Ordering::Acquire) {
                let revision = state.machine.read().revision();
                match kind {
                    0 => drop(hash_kv(&state, 0).await.unwrap()),
                    1 => drop(past.value_at(b"k3", revision).unwrap()),
                    _ => drop(past.scan(Revision::new(revision - 5, 0), 1000).unwrap()),
                }
                count += 1;
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
            count
        }));
    }
    let (sweeper, state) = (Arc::clone(&to.fed.sweeper), Arc::clone(&to.fed.state));
    let sweeps = tokio::spawn(async move { sweeper.run(&state).await });
    for n in 1..=INSTALLS {
        from.write(40 * n, 30).await;
        let compacted = from.revision() - 33;
        from.batch(9, from.next.index + 1, vec![compact(compacted)]).await;
        from.take_base().await;
        to.install_from(&from).await;
        for node in [&mut from, &mut to] {
            node.write(40 * n + 30, 10).await;
        }
        let count = (to.revision() - first) as usize - 40 * (n as usize - 1);
        let seen = revisions(&mut watcher, count).await;
        let from = to.revision() - count as i64 + 1;
        assert_eq!(seen, (from..=to.revision()).collect::<Vec<_>>());
    }
    done.store(true, Ordering::Release);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    assert_eq!(to.told().await, from.told().await);
    sweeps.abort();
}

async fn a_build_that_nobody_waits_for_is_called_off(threads: bool) {
    let (mut from, mut to) = Node::pair(threads).await;
    from.write(0, 60).await;
    from.take_base().await;
    let before = to.told().await;
    let source = from.sink.snapshot().unwrap();
    for n in 0..20 {
        let mut receiver = to.sink.receive(source.label().clone()).await.unwrap();
        // It is all here still if the last build was called off before it began.
        let rest = source.read(receiver.received(), 1 << 20).await.unwrap();
        receiver.write(rest).await.unwrap();
        let _done_or_not = timeout(Duration::from_micros(n * 100), receiver.prepare()).await;
        to.sink.builder.end();
        assert_eq!(to.told().await, before);
    }
    to.install_from(&from).await;
    assert_eq!(to.told().await, from.told().await);
}

async fn what_is_not_newer_changes_nothing(threads: bool) {
    let (mut from, mut to) = Node::pair(threads).await;
    for node in [&mut from, &mut to] {
        node.write(0, 10).await;
    }
    from.write(10, 5).await;
    from.take_base().await;
    let prepared = to.prepare_from(&from).await;
    // The log brought it all meanwhile.
    to.write(10, 6).await;
    let (before, generation) = (to.told().await, to.fed.state.store().generation());
    prepared.install().await.unwrap();
    assert_eq!(to.told().await, before);
    assert_eq!(to.fed.state.store().generation(), generation);
    let label: SnapshotLabel = from.sink.snapshot().unwrap().label().clone();
    let refused = to.sink.receive(label).await.unwrap_err();
    assert!(refused.contains("has applied"), "{refused}");
}
