//! Quota, defragmentation and the comparison of data on three members.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::alarm_request::AlarmAction;
use quorate_core::api::refusal::Refusal;
use quorate_core::state_machine::KvHash;

use super::rig::{Cluster, Member, eventually, key_of, put, within};
use crate::keyspace::KeyspaceError;

const LIMIT: Duration = Duration::from_secs(60);

fn delete(key: &str) -> pb::DeleteRangeRequest {
    let key = Bytes::copy_from_slice(key.as_bytes());
    pb::DeleteRangeRequest { key, ..pb::DeleteRangeRequest::default() }
}

fn alarm(action: AlarmAction, member_id: u64, alarm: pb::AlarmType) -> pb::AlarmRequest {
    pb::AlarmRequest { action: action.into(), member_id, alarm: alarm.into() }
}

/// Writes until it is refused; which refusal, and after how many puts.
async fn fill(member: &Member, keys: usize, bytes: usize) -> (KeyspaceError, usize) {
    for n in 0..10_000 {
        let request = put(&format!("key{}", n % keys), &"v".repeat(bytes));
        if let Err(error) = within(LIMIT, member.put(request)).await {
            return (error, n);
        }
    }
    panic!("the quota was never met");
}

async fn equal_hashes(cluster: &Cluster) {
    cluster.settle().await;
    let mut hashes = Vec::new();
    for member in &cluster.members {
        let hash = member.hash_kv(0).await.unwrap();
        hashes.push((hash.hash, hash.hash_revision, hash.compact_revision));
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

/// Requirement A1.8: fill 16 MiB, the alarm stands on all, compact, defragment and disarm, and writes go on.
#[tokio::test(start_paused = true)]
async fn a1_8_a_full_cluster_is_restored_by_compaction_defragmentation_and_disarming() {
    const QUOTA: i64 = 16 << 20;
    let cluster = Cluster::start_with(|config| config.quota_bytes = QUOTA).await;
    let leader = cluster.leader().await;
    let follower = cluster.member(cluster.followers().await[0]);

    let (refused, puts) = fill(follower, 20, 128 << 10).await;
    let no_space = KeyspaceError::Refused(Refusal::NoSpace);
    assert_eq!(refused, no_space);
    assert!((100..130).contains(&puts), "{puts} puts of 128 KiB");
    equal_hashes(&cluster).await;

    for member in &cluster.members {
        let raised = [pb::AlarmMember { member_id: follower.id.0, alarm: 1 }];
        assert_eq!(member.alarms(), raised, "on {}", member.id);
        assert_eq!(member.put(put("more", "x")).await.unwrap_err(), no_space, "on {}", member.id);
        let grant = pb::LeaseGrantRequest { id: 7, ttl: 60 };
        assert_eq!(member.lease_grant(grant).await.unwrap_err(), no_space);
        assert_eq!(member.range(key_of("key3")).await.unwrap().count, 1, "reads go on");
    }
    assert_eq!(follower.delete_range(delete("key19")).await.unwrap().deleted, 1, "deletes go on");
    equal_hashes(&cluster).await;

    let revision = cluster.member(leader).revision();
    let compaction = pb::CompactionRequest { revision, physical: true };
    within(LIMIT, follower.compact(compaction)).await.unwrap();
    equal_hashes(&cluster).await;
    for member in &cluster.members {
        let before = member.status().db_size;
        within(LIMIT, member.defragment()).await.unwrap();
        let after = member.status();
        assert!(after.db_size < before / 5, "{before} bytes, then {}", after.db_size);
        assert!(after.db_size_in_use <= after.db_size);
    }
    assert_eq!(follower.put(put("more", "x")).await.unwrap_err(), no_space, "until it is disarmed");
    let disarm = alarm(AlarmAction::Deactivate, follower.id.0, pb::AlarmType::Nospace);
    assert_eq!(follower.alarm(disarm).await.unwrap().alarms.len(), 1);
    for member in &cluster.members {
        within(LIMIT, member.put(put("more", "x"))).await.unwrap();
    }
    equal_hashes(&cluster).await;
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_own_quota_is_met_raises_the_alarm_for_all() {
    let small = MemberId(1);
    let cluster = Cluster::start_with(|config| {
        config.quota_bytes = if config.member_id == small { 13 * 4096 } else { -1 };
    })
    .await;
    let (refused, _) = fill(cluster.member(MemberId(2)), 5, 4096).await;
    assert_eq!(refused, KeyspaceError::Refused(Refusal::NoSpace));
    let raised = [pb::AlarmMember { member_id: small.0, alarm: 1 }];
    assert_eq!(cluster.member(MemberId(2)).alarms(), raised);
    assert_eq!(cluster.member(MemberId(2)).status().db_size_quota, -1);
    equal_hashes(&cluster).await;
    cluster.stop_all().await;
}

/// Makes a member tell another hash at `revision` than it has.
fn forge(member: &Member, compact_revision: i64, revision: i64) {
    member.keyspace.0.sweeper.forge(KvHash { hash: 0xdead, compact_revision, revision });
}

async fn refused_as_corrupt(member: &Member) {
    let corrupt = KeyspaceError::Refused(Refusal::CorruptCluster);
    assert_eq!(member.put(put("a", "2")).await.unwrap_err(), corrupt);
    assert_eq!(member.delete_range(delete("a")).await.unwrap_err(), corrupt);
    let compaction = pb::CompactionRequest { revision: 2, physical: false };
    assert_eq!(member.compact(compaction).await.unwrap_err(), corrupt);
    assert_eq!(member.range(key_of("a")).await.unwrap().count, 1, "reads go on");
}

#[tokio::test(start_paused = true)]
async fn the_leader_finds_who_has_other_data_and_stops_writes() {
    let every = Some(Duration::from_secs(2));
    let cluster = Cluster::start_with(|config| config.corrupt_check = every).await;
    let (leader, other) = (cluster.leader().await, cluster.followers().await[0]);
    for n in 0..10 {
        cluster.member(leader).put(put("a", &n.to_string())).await.unwrap();
    }
    cluster.settle().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(cluster.member(leader).alarms().is_empty(), "all alike");

    let revision = cluster.member(leader).revision();
    forge(cluster.member(other), -1, revision);
    let raised = || !cluster.member(leader).alarms().is_empty();
    eventually(LIMIT, raised).await;
    cluster.settle().await;
    for member in &cluster.members {
        let stands = [pb::AlarmMember { member_id: other.0, alarm: 2 }];
        assert_eq!(member.alarms(), stands, "on {}", member.id);
        refused_as_corrupt(member).await;
    }
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn the_leader_compares_what_compactions_left() {
    let every = Some(Duration::from_secs(2));
    let cluster = Cluster::start_with(|config| config.compact_hash_check = every).await;
    let (leader, other) = (cluster.leader().await, cluster.followers().await[1]);
    for n in 0..10 {
        cluster.member(leader).put(put("a", &n.to_string())).await.unwrap();
    }
    cluster.settle().await;
    // Forged before it is computed: the first one at a revision is told.
    forge(cluster.member(other), -1, 8);
    let compaction = pb::CompactionRequest { revision: 8, physical: true };
    cluster.member(leader).compact(compaction).await.unwrap();
    eventually(LIMIT, || !cluster.member(leader).alarms().is_empty()).await;
    let stands = [pb::AlarmMember { member_id: other.0, alarm: 2 }];
    assert_eq!(cluster.member(leader).alarms(), stands);
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_with_other_data_than_a_peer_does_not_serve() {
    let cluster = Cluster::start().await;
    let (leader, other) = (cluster.leader().await, cluster.followers().await[0]);
    cluster.member(leader).put(put("a", "1")).await.unwrap();
    cluster.settle().await;
    within(LIMIT, cluster.member(other).check_before_serving()).await.unwrap();
    let revision = cluster.member(leader).revision();
    forge(cluster.member(leader), -1, revision);
    let checked = within(LIMIT, cluster.member(other).check_before_serving()).await;
    assert_eq!(checked, Err(KeyspaceError::Stopped));
    let cause = within(LIMIT, cluster.member(other).failed()).await;
    assert_eq!(cause, format!("{other} found data inconsistency with peers"));
    // With nobody to ask, nobody differs.
    let alone = cluster.followers().await[1];
    cluster.isolate(alone);
    within(LIMIT, cluster.member(alone).check_before_serving()).await.unwrap();
    cluster.heal();
    cluster.stop_all().await;
}
