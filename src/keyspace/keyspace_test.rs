//! A keyspace of one voter in this process: journal on the device double, state in memory, everything else real.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use quorate_core::api::ids::{GroupId, LeaseId};
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::request_op::Request as Op;
use quorate_core::api::refusal::Refusal;

use super::{InitialMember, Keyspace, KeyspaceConfig, KeyspaceError, Seams, members};
use crate::consensus::NoPeers;
use crate::storage::device::double::DoubleDevice;
use crate::storage::journal::{Journal, JournalOptions, Runner};
use crate::storage::{EngineKind, StoreOptions};
use crate::support::clock::SystemClock;
use crate::support::spawn::Blocking;

/// What outlives a restart.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    journal: Arc<DoubleDevice>,
    bases: Arc<DoubleDevice>,
}

pub(crate) struct Member {
    journal: Journal,
    pub(crate) keyspace: Keyspace,
}

impl std::ops::Deref for Member {
    type Target = Keyspace;

    fn deref(&self) -> &Keyspace {
        &self.keyspace
    }
}

pub(crate) fn config() -> KeyspaceConfig {
    let peer_urls = vec!["http://localhost:2380".to_owned()];
    let id = members::member_id(&peer_urls, "etcd-cluster");
    KeyspaceConfig::single(members::cluster_id(&[id]), InitialMember { id, peer_urls })
}

pub(crate) async fn start(disk: &Disk) -> Member {
    start_with(disk, config(), 1).await
}

pub(crate) async fn start_with(disk: &Disk, config: KeyspaceConfig, incarnation: u64) -> Member {
    start_over(disk, config, incarnation, 1 << 20).await
}

async fn start_over(
    disk: &Disk,
    config: KeyspaceConfig,
    incarnation: u64,
    segment_bytes: u64,
) -> Member {
    let options = JournalOptions { segment_bytes, ..JournalOptions::default() };
    let journal = Journal::open(disk.journal.clone(), options, Runner::Thread).unwrap();
    let mut store = StoreOptions::new(GroupId(0), "/unused".into(), disk.bases.clone());
    store.engine = EngineKind::Memory;
    store.single_voter = true;
    store.base_after_bytes = 256 << 10;
    let seams = Seams {
        clock: Arc::new(SystemClock::default()),
        blocking: Arc::new(Blocking::bounded(2)),
        transport: Arc::new(NoPeers),
        incarnation,
    };
    let log = journal.group(GroupId(0));
    let keyspace = Keyspace::open(config, store, log, seams).await.unwrap();
    keyspace.ready().await.unwrap();
    Member { journal, keyspace }
}

impl Member {
    pub(crate) async fn stop(self) {
        self.keyspace.shutdown().await;
        self.journal.close().unwrap();
    }

    async fn put_key(&self, key: &str, value: &str) -> i64 {
        let response = self.put(put(key, value)).await.unwrap();
        response.header.unwrap().revision
    }

    async fn get(&self, request: pb::RangeRequest) -> pb::RangeResponse {
        self.range(request).await.unwrap()
    }

    pub(crate) async fn value(&self, key: &str) -> Option<Bytes> {
        let found = self.get(key_of(key)).await;
        found.kvs.first().map(|kv| kv.value.clone())
    }
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes(value), ..pb::PutRequest::default() }
}

pub(crate) fn key_of(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), ..pb::RangeRequest::default() }
}

fn all() -> pb::RangeRequest {
    let everything = Bytes::from_static(b"\0");
    pb::RangeRequest { key: everything.clone(), range_end: everything, ..Default::default() }
}

pub(crate) fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// Each story runs on one thread, where nothing may block, and on several, where everything may race.
macro_rules! on_both_runtimes {
    ($($story:ident),* $(,)?) => {
        mod one_thread {
            $(#[tokio::test]
            async fn $story() {
                super::$story().await;
            })*
        }
        mod many_threads {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story().await;
            })*
        }
    };
}

on_both_runtimes!(
    a_put_is_read_back_and_survives_a_restart,
    a_txn_takes_one_branch_and_one_revision,
    deleting_nothing_leaves_the_revision_alone,
    compaction_hides_history_and_sweeps_it,
    the_hash_at_a_revision_survives_its_compaction,
    concurrent_puts_get_unique_and_dense_revisions,
    a_stream_of_chunks_adds_up_to_the_range,
    a_stream_sorted_by_value_leaves_nothing_out,
    requests_are_refused_as_etcd_does,
    a_store_beyond_its_quota_raises_the_alarm,
    leases_live_and_take_their_keys_along,
    calls_after_the_stop_answer_stopped,
    watchers_see_each_revision_once,
    a_journal_that_fails_ends_the_keyspace_with_its_words,
    batches_are_kept_to_what_the_journal_takes,
);

async fn a_put_is_read_back_and_survives_a_restart() {
    let disk = Disk::default();
    let member = start(&disk).await;
    assert_eq!(member.revision(), 1);
    assert_eq!(member.put_key("a", "1").await, 2);
    assert_eq!(member.put_key("a", "2").await, 3);
    let kv = member.get(key_of("a")).await.kvs.remove(0);
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
    let header = member.header();
    assert_eq!(format!("{:x}", header.member_id), "8e9e05c52164694d");
    assert_eq!((header.revision, header.raft_term), (3, 1));
    member.stop().await;

    let member = start_with(&disk, config(), 2).await;
    assert_eq!(member.value("a").await.unwrap(), "2");
    assert_eq!(member.put_key("b", "3").await, 4);
    let old = pb::RangeRequest { revision: 2, ..key_of("a") };
    assert_eq!(member.get(old).await.kvs[0].value, "1");
    assert_eq!(member.header().raft_term, 2);
    let listed = member.member_list(true).await.unwrap().members;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].peer_ur_ls, ["http://localhost:2380"]);
    member.stop().await;
}

async fn a_txn_takes_one_branch_and_one_revision() {
    let member = start(&Disk::default()).await;
    member.put_key("k", "old").await;
    let compare = pb::Compare {
        key: bytes("k"),
        target: pb::compare::CompareTarget::Value as i32,
        target_union: Some(pb::compare::TargetUnion::Value(bytes("old"))),
        ..pb::Compare::default()
    };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![
            op(Op::RequestPut(put("k", "new"))),
            op(Op::RequestPut(put("l", "too"))),
            op(Op::RequestRange(key_of("k"))),
        ],
        failure: vec![op(Op::RequestPut(put("k", "never")))],
    };
    let first = member.txn(txn.clone()).await.unwrap();
    assert!(first.succeeded);
    assert_eq!(first.header.unwrap().revision, 3);
    assert_eq!(first.responses.len(), 3);
    let second = member.txn(txn).await.unwrap();
    assert!(!second.succeeded);
    assert_eq!(member.value("k").await.unwrap(), "never");

    let read_only = pb::TxnRequest {
        success: vec![op(Op::RequestRange(all())), op(Op::RequestRange(key_of("l")))],
        ..pb::TxnRequest::default()
    };
    let answered = member.txn(read_only).await.unwrap();
    assert!(answered.succeeded);
    assert_eq!(answered.header.unwrap().revision, 4);
    assert_eq!(answered.responses.len(), 2);
    member.stop().await;
}

async fn deleting_nothing_leaves_the_revision_alone() {
    let member = start(&Disk::default()).await;
    member.put_key("a", "1").await;
    let delete =
        |key| pb::DeleteRangeRequest { key: bytes(key), prev_kv: true, ..Default::default() };
    let gone = member.delete_range(delete("a")).await.unwrap();
    assert_eq!((gone.deleted, gone.prev_kvs.len()), (1, 1));
    assert_eq!(gone.header.unwrap().revision, 3);
    let nothing = member.delete_range(delete("a")).await.unwrap();
    assert_eq!((nothing.deleted, nothing.header.unwrap().revision), (0, 3));
    member.stop().await;
}

async fn compaction_hides_history_and_sweeps_it() {
    let disk = Disk::default();
    let member = start(&disk).await;
    for n in 0..50 {
        member.put_key(&format!("k{}", n % 5), &n.to_string()).await;
    }
    let request = pb::CompactionRequest { revision: 40, physical: true };
    let response = member.compact(request).await.unwrap();
    assert_eq!(response.header.unwrap().revision, 51);
    let refused = |result: Result<pb::RangeResponse, KeyspaceError>| result.unwrap_err();
    let at = |revision| pb::RangeRequest { revision, ..all() };
    let compacted = KeyspaceError::Refused(Refusal::Compacted);
    assert_eq!(refused(member.range(at(39)).await), compacted);
    assert_eq!(member.get(at(40)).await.count, 5);
    let future = KeyspaceError::Refused(Refusal::FutureRevision);
    assert_eq!(refused(member.range(at(52)).await), future);
    assert_eq!(member.compact(request).await.unwrap_err(), compacted);
    member.stop().await;

    let member = start_with(&disk, config(), 2).await;
    assert_eq!(refused(member.range(at(39)).await), compacted);
    assert_eq!(member.get(at(40)).await.count, 5);
    member.stop().await;
}

async fn the_hash_at_a_revision_survives_its_compaction() {
    let member = start(&Disk::default()).await;
    for n in 0..30 {
        member.put_key(&format!("k{}", n % 3), &n.to_string()).await;
    }
    let before = member.hash_kv(20).await.unwrap();
    assert_eq!((before.hash_revision, before.compact_revision), (20, -1));
    let physical = pb::CompactionRequest { revision: 20, physical: true };
    member.compact(physical).await.unwrap();
    let cached = member.hash_kv(20).await.unwrap();
    assert_eq!((cached.hash, cached.compact_revision), (before.hash, -1));
    let newest = member.hash_kv(0).await.unwrap();
    assert_eq!((newest.hash_revision, newest.compact_revision), (31, 20));
    member.compact(pb::CompactionRequest { revision: 25, physical: true }).await.unwrap();
    assert_eq!(member.hash_kv(20).await.unwrap().hash, before.hash, "still in the cache");
    let refused = member.hash_kv(21).await.unwrap_err();
    assert_eq!(refused, KeyspaceError::Refused(Refusal::Compacted));
    member.stop().await;
}

async fn concurrent_puts_get_unique_and_dense_revisions() {
    const CLIENTS: usize = 64;
    const PUTS: usize = 20;
    let member = start(&Disk::default()).await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let keyspace = member.keyspace.clone();
        clients.spawn(async move {
            let mut revisions = Vec::new();
            for n in 0..PUTS {
                let request = put(&format!("c{client}"), &n.to_string());
                revisions.push(keyspace.put(request).await.unwrap().header.unwrap().revision);
                let seen = keyspace.range(key_of(&format!("c{client}"))).await.unwrap();
                assert_eq!(seen.kvs[0].value, n.to_string(), "reads its own write");
            }
            assert!(revisions.is_sorted(), "in the client's order");
            revisions
        });
    }
    let mut seen = BTreeSet::new();
    while let Some(revisions) = clients.join_next().await {
        for revision in revisions.unwrap() {
            assert!(seen.insert(revision), "revision {revision} was given twice");
        }
    }
    let total = i64::try_from(CLIENTS * PUTS).unwrap();
    assert_eq!(seen.first().zip(seen.last()), Some((&2, &(total + 1))));
    let entries = member.status().applied_index;
    assert!(entries < u64::try_from(total).unwrap(), "{total} puts in {entries} entries");
    member.stop().await;
}

async fn a_stream_of_chunks_adds_up_to_the_range() {
    let member = start(&Disk::default()).await;
    for n in 0..100 {
        member.put_key(&format!("k{n:03}"), "v").await;
    }
    for (limit, more) in [(0, false), (30, true), (100, false), (7, true)] {
        let request = pb::RangeRequest { limit, ..all() };
        let whole = member.get(request.clone()).await;
        let chunks: Vec<_> = member.range_stream(request).await.unwrap().collect().await;
        let mut kvs = Vec::new();
        let count = chunks.len();
        for (at, chunk) in chunks.into_iter().enumerate() {
            let chunk = chunk.unwrap().range_response.unwrap();
            let last = at + 1 == count;
            assert_eq!(chunk.header.is_some(), last);
            if last {
                assert_eq!((chunk.more, chunk.count), (more, 100), "limit {limit}");
                assert_eq!(chunk.header.unwrap().revision, 101);
            }
            kvs.extend(chunk.kvs);
        }
        assert_eq!(kvs, whole.kvs, "limit {limit}");
        assert_eq!(whole.more, more);
    }
    for one_message in
        [pb::RangeRequest { count_only: true, ..all() }, pb::RangeRequest { limit: -1, ..all() }]
    {
        let chunks: Vec<_> = member.range_stream(one_message).await.unwrap().collect().await;
        assert_eq!(chunks.len(), 1);
    }
    member.stop().await;
}

async fn a_stream_sorted_by_value_leaves_nothing_out() {
    let small = KeyspaceConfig { request_bytes_max: 1 << 10, ..config() };
    let member = start_over(&Disk::default(), small, 1, 1 << 20).await;
    for n in 0..50 {
        member.put_key(&format!("k{n:03}"), &format!("{:0100}", 50 - n)).await;
    }
    let sort_target = pb::range_request::SortTarget::Value.into();
    for limit in [0, 30] {
        let request = pb::RangeRequest { limit, sort_target, ..all() };
        let whole = member.get(request.clone()).await;
        let chunks: Vec<_> = member.range_stream(request).await.unwrap().collect().await;
        assert!(chunks.len() > 1, "in one chunk, limit {limit}");
        let mut kvs = Vec::new();
        let mut last = None;
        for chunk in chunks {
            let chunk = last.insert(chunk.unwrap().range_response.unwrap());
            kvs.append(&mut chunk.kvs);
        }
        let last = last.unwrap();
        assert_eq!((&last.header, last.more, last.count), (&whole.header, whole.more, whole.count));
        assert_eq!(kvs, whole.kvs, "limit {limit}");
        assert!(kvs.is_sorted_by_key(|kv| kv.value.clone()), "limit {limit}");
    }
    member.stop().await;
}

async fn requests_are_refused_as_etcd_does() {
    let member = start(&Disk::default()).await;
    let refused = |refusal| KeyspaceError::Refused(refusal);
    let empty = member.put(put("", "v")).await.unwrap_err();
    assert_eq!(empty, refused(Refusal::EmptyKey));
    let no_lease = pb::PutRequest { lease: 7, ..put("k", "v") };
    assert_eq!(member.put(no_lease).await.unwrap_err(), refused(Refusal::LeaseNotFound));
    let large = put("k", &"v".repeat(config().request_bytes_max));
    assert_eq!(member.put(large).await.unwrap_err(), KeyspaceError::RequestTooLarge);
    let many = pb::TxnRequest {
        success: vec![op(Op::RequestRange(key_of("k"))); 129],
        ..pb::TxnRequest::default()
    };
    assert_eq!(member.txn(many).await.unwrap_err(), refused(Refusal::TooManyOps));
    let endless = pb::LeaseGrantRequest { id: 7, ttl: i64::MAX };
    assert_eq!(member.lease_grant(endless).await.unwrap_err(), refused(Refusal::LeaseTtlTooLarge));
    let no_space = pb::AlarmRequest {
        action: pb::alarm_request::AlarmAction::Activate as i32,
        member_id: 0,
        alarm: pb::AlarmType::Nospace as i32,
    };
    member.alarm(no_space).await.unwrap();
    assert_eq!(member.lease_grant(endless).await.unwrap_err(), refused(Refusal::NoSpace));
    assert_eq!(member.revision(), 1);
    member.stop().await;
}

async fn a_store_beyond_its_quota_raises_the_alarm() {
    let quota = KeyspaceConfig { quota_bytes: 13 * 4096, ..config() };
    let member = start_with(&Disk::default(), quota, 1).await;
    member.put_key("small", "fits").await;
    let block = "x".repeat(4096);
    let mut refusal = None;
    for _ in 0..100 {
        if let Err(error) = member.put(put("k", &block)).await {
            refusal = Some(error);
            break;
        }
    }
    assert_eq!(refusal, Some(KeyspaceError::Refused(Refusal::NoSpace)));
    let alarms = member.status().alarms;
    assert_eq!(alarms.len(), 1);
    assert_eq!(alarms[0].alarm, pb::AlarmType::Nospace as i32);
    let delete = pb::DeleteRangeRequest { key: bytes("k"), ..Default::default() };
    assert_eq!(member.delete_range(delete).await.unwrap().deleted, 1);
    member.stop().await;
}

async fn leases_live_and_take_their_keys_along() {
    let member = start(&Disk::default()).await;
    let grant = pb::LeaseGrantRequest { ttl: 1, id: 0 };
    let granted = member.lease_grant(grant).await.unwrap();
    assert_eq!(granted.ttl, 2, "raised to the minimum");
    assert!(granted.id > 0);
    let attached = pb::PutRequest { lease: granted.id, ..put("k", "v") };
    member.put(attached).await.unwrap();
    assert_eq!(member.lease_keep_alive(LeaseId(granted.id)).await.unwrap(), 2);
    assert_eq!(member.lease_keep_alive(LeaseId(4711)).await.unwrap(), 0);
    let asked = pb::LeaseTimeToLiveRequest { id: granted.id, keys: true };
    let live = member.lease_time_to_live(asked).await.unwrap();
    assert_eq!((live.granted_ttl, live.keys), (2, vec![bytes("k")]));
    assert_eq!(member.lease_leases().await.unwrap().leases.len(), 1);
    let revoke = pb::LeaseRevokeRequest { id: granted.id };
    member.lease_revoke(revoke).await.unwrap();
    assert_eq!(member.value("k").await, None);
    let again = member.lease_revoke(revoke).await.unwrap_err();
    assert_eq!(again, KeyspaceError::Refused(Refusal::LeaseNotFound));
    member.stop().await;
}

async fn calls_after_the_stop_answer_stopped() {
    let member = start(&Disk::default()).await;
    member.put_key("a", "1").await;
    let keyspace = member.keyspace.clone();
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..50 {
        let keyspace = keyspace.clone();
        writers.spawn(async move { keyspace.put(put(&format!("k{n}"), "v")).await });
    }
    tokio::task::yield_now().await;
    let stopping = tokio::time::timeout(Duration::from_secs(20), member.stop());
    stopping.await.expect("the stop ends");
    while let Some(outcome) = writers.join_next().await {
        match outcome.unwrap() {
            Ok(_) | Err(KeyspaceError::Stopped) => {}
            Err(other) => panic!("a waiter heard {other:?}"),
        }
    }
    assert_eq!(keyspace.put(put("z", "v")).await.unwrap_err(), KeyspaceError::Stopped);
    assert_eq!(keyspace.range(key_of("a")).await.unwrap_err(), KeyspaceError::Stopped);
}

async fn watchers_see_each_revision_once() {
    let member = start(&Disk::default()).await;
    member.put_key("before", "0").await;
    let mut stream = member.watch();
    let create = pb::WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        start_revision: 1,
        ..pb::WatchCreateRequest::default()
    };
    stream.create(&create);
    for n in 0..20 {
        member.put_key("k", &n.to_string()).await;
    }
    let mut revisions = Vec::new();
    while revisions.len() < 21 {
        let next = tokio::time::timeout(Duration::from_secs(10), stream.next()).await;
        let response = next.unwrap().unwrap();
        let of =
            |event: &quorate_core::api::pb::mvccpb::Event| event.kv.as_ref().unwrap().mod_revision;
        revisions.extend(response.events.iter().map(of));
    }
    let expected: Vec<i64> = (2..23).collect();
    assert_eq!(revisions, expected);
    member.stop().await;
}

#[tokio::test]
async fn acknowledged_puts_survive_a_power_cut_at_any_moment() {
    for seed in 0..6 {
        let disk = Disk::default();
        let member = start(&disk).await;
        let mut acknowledged = Vec::new();
        for n in 0..5 + seed * 3 {
            let (a, b) = (format!("a{n}"), format!("b{n}"));
            let puts = [member.put(put(&a, "v")), member.put(put(&b, "v"))];
            for response in futures::future::join_all(puts).await {
                response.unwrap();
            }
            acknowledged.extend([a, b]);
        }
        let cut = Disk {
            journal: Arc::new(disk.journal.after_power_cut(seed)),
            bases: Arc::new(disk.bases.after_power_cut(seed)),
        };
        member.stop().await;

        let member = start_with(&cut, config(), 2).await;
        for key in &acknowledged {
            assert!(member.value(key).await.is_some(), "seed {seed}: {key} is gone");
        }
        assert_eq!(member.revision(), 1 + i64::try_from(acknowledged.len()).unwrap());
        member.stop().await;
    }
}

#[tokio::test]
async fn a_restarted_process_counts_its_batches_from_the_start() {
    let disk = Disk::default();
    let member = start_with(&disk, config(), 7).await;
    member.put_key("a", "1").await;
    member.stop().await;
    // Sequence numbers are compared within an incarnation: the state machine must not take these for repeats.
    let member = start_with(&disk, config(), 8).await;
    assert_eq!(member.put_key("a", "2").await, 3);
    member.stop().await;
}

#[tokio::test]
async fn a_log_that_was_purged_behind_a_base_opens_again() {
    let disk = Disk::default();
    let value = "x".repeat(10_000);
    for round in 0..3 {
        let few = KeyspaceConfig { catch_up_requests: 5, ..config() };
        let member = start_with(&disk, few, round + 1).await;
        for n in 0..60 {
            member.put_key(&format!("r{round}k{n}"), &value).await;
        }
        let purged = || member.journal.group(GroupId(0)).state().purged;
        eventually("a base lets entries go", || purged().is_some()).await;
        member.stop().await;
    }
    let member = start_with(&disk, config(), 9).await;
    assert_eq!(member.get(all()).await.count, 180);
    assert_eq!(member.put_key("more", "1").await, 182);
    member.stop().await;
}

/// Many writers, a disk that fails under them.
async fn a_journal_that_fails_ends_the_keyspace_with_its_words() {
    let disk = Disk::default();
    let member = start(&disk).await;
    member.put_key("before", "1").await;
    disk.journal.fail_writes(true);
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..100 {
        let keyspace = member.keyspace.clone();
        writers.spawn(async move { keyspace.put(put(&format!("k{n}"), "v")).await });
    }
    let long = Duration::from_secs(3);
    let cause = tokio::time::timeout(long, member.failed()).await.expect("it is told");
    assert!(cause.contains("writing"), "{cause}");
    let all = async {
        while let Some(outcome) = writers.join_next().await {
            assert_eq!(outcome.unwrap().unwrap_err(), KeyspaceError::Stopped);
        }
    };
    tokio::time::timeout(long, all).await.expect("everyone is answered");
    let late =
        tokio::time::timeout(long, member.put(put("late", "1"))).await.expect("so is who comes");
    assert_eq!(late.unwrap_err(), KeyspaceError::Stopped);
    let stopping = tokio::time::timeout(Duration::from_secs(20), member.keyspace.shutdown());
    stopping.await.expect("it stops");
}

/// Requests that fit one by one, but would not in one entry of a small segment.
async fn batches_are_kept_to_what_the_journal_takes() {
    let disk = Disk::default();
    let small = KeyspaceConfig { request_bytes_max: 1 << 20, ..config() };
    let member = start_over(&disk, small, 1, 64 << 10).await;
    let limit = member.journal.group(GroupId(0)).entry_bytes_max();
    let value = "x".repeat(2000);
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..200 {
        let (keyspace, value) = (member.keyspace.clone(), value.clone());
        writers.spawn(async move { keyspace.put(put(&format!("k{n}"), &value)).await });
    }
    while let Some(outcome) = writers.join_next().await {
        outcome.unwrap().unwrap();
    }
    let refused = member.put(put("large", &"x".repeat(limit))).await.unwrap_err();
    assert_eq!(refused, KeyspaceError::RequestTooLarge);
    member.put(put("fits", &"x".repeat(limit - 100))).await.unwrap();
    assert_eq!(member.get(all()).await.count, 201);
    member.stop().await;
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
