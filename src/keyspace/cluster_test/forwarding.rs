//! Writes, reads and lease calls through members that do not lead.

use std::time::Duration;

use quorate_core::api::ids::LeaseId;
use quorate_core::api::pb::etcdserverpb as pb;
use tokio::time::Instant;

use super::rig::{Cluster, ELECTION, eventually, key_of, put, within};
use crate::keyspace::{Keyspace, KeyspaceError, TimeoutKind};

async fn value(keyspace: &Keyspace, key: &str) -> Option<String> {
    let found = keyspace.range(key_of(key)).await.unwrap();
    found.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_one_member_wrote_every_member_reads() {
    let cluster = Cluster::start().await;
    for (round, writer) in cluster.members.iter().enumerate() {
        let written = format!("by {}", writer.id);
        writer.put(put("k", &written)).await.unwrap();
        for reader in &cluster.members {
            assert_eq!(value(reader, "k").await.as_deref(), Some(&*written), "round {round}");
        }
    }
    let listed = cluster.members[0].member_list(true).await.unwrap().members;
    let names: Vec<_> = listed.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["m1", "m2", "m3"], "followers told their names through the leader");
    cluster.settle().await;
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_lost_apply_nothing_twice_and_fail_nobody() {
    let cluster = Cluster::start().await;
    cluster.lose_answers(Some(3));
    let mut writers = Vec::new();
    for member in &cluster.members {
        for client in 0..8 {
            let (keyspace, id) = (member.keyspace.clone(), member.id);
            writers.push(tokio::spawn(async move {
                for n in 0..20 {
                    let key = format!("{id}/{client}/{n}");
                    keyspace.put(put(&key, "v")).await.unwrap();
                }
            }));
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    cluster.lose_answers(None);
    let everything = bytes::Bytes::from_static(b"\0");
    let all = pb::RangeRequest { key: everything.clone(), range_end: everything, ..key_of("") };
    for member in &cluster.members {
        let found = member.range(all.clone()).await.unwrap();
        assert_eq!(found.count, 3 * 8 * 20);
        let twice = found.kvs.iter().find(|kv| kv.version != 1);
        assert_eq!(twice, None, "written once, applied once");
        assert_eq!(found.header.unwrap().revision, 1 + 3 * 8 * 20);
    }
    cluster.settle().await;
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn leases_are_kept_alive_and_looked_at_through_any_member() {
    let cluster = Cluster::start().await;
    let followers = cluster.followers().await;
    let (one, other) = (cluster.member(followers[0]), cluster.member(followers[1]));
    let grant = pb::LeaseGrantRequest { id: 77, ttl: 5 };
    one.lease_grant(grant).await.unwrap();
    let mut bound = put("k", "v");
    bound.lease = 77;
    other.put(bound).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(other.lease_keep_alive(LeaseId(77)).await.unwrap(), 5);
    }
    let look = pb::LeaseTimeToLiveRequest { id: 77, keys: true };
    let told = one.lease_time_to_live(look).await.unwrap();
    assert_eq!((told.granted_ttl, told.keys.len()), (5, 1));
    assert!((3..=5).contains(&told.ttl), "{}", told.ttl);
    assert_eq!(told.header.unwrap().revision, one.revision());

    assert_eq!(one.lease_keep_alive(LeaseId(78)).await.unwrap(), 0, "an unknown lease");
    let none = pb::LeaseTimeToLiveRequest { id: 78, keys: false };
    assert_eq!(one.lease_time_to_live(none).await.unwrap().ttl, -1);

    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(value(one, "k").await, None, "it ended with its lease");
    assert_eq!(one.lease_keep_alive(LeaseId(77)).await.unwrap(), 0);
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_is_replaced_and_says_so() {
    let cluster = Cluster::start().await;
    let old = cluster.leader().await;
    cluster.isolate(old);
    let lost = || cluster.member(old).leader_view().leader().is_none();
    // One election timeout after it was last acknowledged, seen by a look every 5 ms.
    eventually(ELECTION + Duration::from_millis(10), lost).await;

    // Nobody hears this member: its write never leaves it.
    let stranded = cluster.member(old).keyspace.clone();
    let stranded = tokio::spawn(async move {
        let began = Instant::now();
        let written = stranded.put(put("lost", "v")).await;
        (written, began.elapsed())
    });
    let survivors: Vec<_> = cluster.members.iter().filter(|member| member.id != old).collect();
    for survivor in &survivors {
        within(3 * ELECTION, survivor.put(put("kept", "v"))).await.unwrap();
    }
    let (written, took) = stranded.await.unwrap();
    assert_eq!(written, Err(KeyspaceError::DeadlineExceeded));
    assert_eq!(took.as_secs(), 7);
    let read = cluster.member(old).range(key_of("kept")).await;
    assert_eq!(read, Err(KeyspaceError::Timeout(TimeoutKind::Plain)));

    cluster.heal();
    within(2 * ELECTION, cluster.member(old).put(put("healed", "v"))).await.unwrap();
    assert_eq!(value(cluster.member(old), "kept").await.as_deref(), Some("v"));
    assert_eq!(value(cluster.member(old), "lost").await, None);
    cluster.settle().await;
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn writes_under_way_survive_the_loss_of_the_leader() {
    let cluster = Cluster::start().await;
    let old = cluster.leader().await;
    let follower = cluster.followers().await[0];
    let writers: Vec<_> = (0..8)
        .map(|client| {
            let keyspace = cluster.member(follower).keyspace.clone();
            tokio::spawn(async move {
                for n in 0..200 {
                    keyspace.put(put(&format!("{client}/{n}"), "v")).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(505)).await;
    cluster.isolate(old);
    for writer in writers {
        writer.await.unwrap();
    }
    cluster.heal();
    cluster.settle().await;
    assert_eq!(cluster.members[0].revision(), 1 + 8 * 200);
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_requests_end_in_time_with_etcds_texts() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let followers = cluster.followers().await;
    cluster.isolate(followers[0]);
    cluster.isolate(followers[1]);
    // Taken by the leader while it still believes in itself.
    let taken = cluster.member(leader).put(put("k", "v")).await;
    assert_eq!(taken, Err(KeyspaceError::Timeout(TimeoutKind::Plain)));
    for member in &cluster.members {
        assert_eq!(member.leader_view().leader(), None, "member {}", member.id);
    }
    let began = Instant::now();
    let (write, read, lease) = tokio::join!(
        cluster.member(followers[0]).put(put("k", "v")),
        cluster.member(followers[0]).range(key_of("k")),
        cluster.member(followers[1]).lease_keep_alive(LeaseId(1)),
    );
    assert_eq!(write, Err(KeyspaceError::DeadlineExceeded));
    assert_eq!(read, Err(KeyspaceError::Timeout(TimeoutKind::Plain)));
    assert_eq!(lease, Err(KeyspaceError::NoLeader));
    assert_eq!(began.elapsed().as_secs(), 7);
    let local = pb::RangeRequest { serializable: true, ..key_of("k") };
    cluster.member(followers[0]).range(local).await.unwrap();

    cluster.heal();
    within(2 * ELECTION, cluster.member(followers[0]).put(put("again", "v"))).await.unwrap();
    cluster.settle().await;
    cluster.stop_all().await;
}
