//! Leadership that moves: on request, on the way out, and never at the cost of writes.

use std::time::Duration;

use quorate_core::api::ids::MemberId;
use tokio::time::Instant;

use super::rig::{Cluster, ELECTION, key_of, put, within};
use crate::keyspace::KeyspaceError;

/// Clients of every member that write without a pause, and fail on the first error; how long the longest write took.
fn writers(cluster: &Cluster, until: Instant) -> Vec<tokio::task::JoinHandle<(i64, Duration)>> {
    let mut writers = Vec::new();
    for member in &cluster.members {
        for client in 0..2 {
            let (keyspace, id) = (member.keyspace.clone(), member.id);
            writers.push(tokio::spawn(async move {
                let (mut count, mut longest) = (0, Duration::ZERO);
                while Instant::now() < until {
                    let began = Instant::now();
                    let key = format!("{id}/{client}/{count}");
                    keyspace.put(put(&key, "v")).await.unwrap();
                    count += 1;
                    longest = longest.max(began.elapsed());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                (count, longest)
            }));
        }
    }
    writers
}

#[tokio::test(start_paused = true)]
async fn leadership_moves_under_load_and_no_write_fails() {
    let cluster = Cluster::start().await;
    let writers = writers(&cluster, Instant::now() + Duration::from_secs(4));
    for _ in 0..20 {
        let leader = cluster.leader().await;
        let target = cluster.followers().await[0];
        within(2 * ELECTION, cluster.member(leader).move_leader(target)).await.unwrap();
        assert_eq!(cluster.leader().await, target);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut written = 0;
    for writer in writers {
        let (count, longest) = writer.await.unwrap();
        assert!(longest < ELECTION, "{longest:?}");
        written += count;
    }
    cluster.settle().await;
    assert_eq!(cluster.members[0].revision(), 1 + written);
    cluster.stop_all().await;
}

/// Who asks whoever led before is refused, or not answered, and by then the next one may lead already.
#[tokio::test(start_paused = true)]
async fn leadership_moves_and_no_read_waits_for_what_has_happened_already() {
    let cluster = Cluster::start().await;
    let until = Instant::now() + Duration::from_secs(4);
    let mut readers = Vec::new();
    for (member, client) in cluster.members.iter().flat_map(|member| [(member, 0), (member, 1)]) {
        let keyspace = member.keyspace.clone();
        readers.push(tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            while Instant::now() < until {
                let began = Instant::now();
                keyspace.range(key_of("k")).await.unwrap();
                longest = longest.max(began.elapsed());
                tokio::time::sleep(Duration::from_millis(1 + client)).await;
            }
            longest
        }));
    }
    for _ in 0..20 {
        let leader = cluster.leader().await;
        let target = cluster.followers().await[0];
        within(2 * ELECTION, cluster.member(leader).move_leader(target)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for reader in readers {
        let longest = reader.await.unwrap();
        assert!(longest < ELECTION / 4, "{longest:?}");
    }
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_transfer_to_a_member_out_of_reach_leaves_writes_alone() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let target = cluster.followers().await[0];
    cluster.isolate(target);
    let moving = cluster.member(leader).keyspace.clone();
    let moving = tokio::spawn(async move { moving.move_leader(target).await });
    let until = Instant::now() + 9 * ELECTION;
    while Instant::now() < until {
        within(ELECTION, cluster.member(leader).put(put("k", "v"))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(moving.await.unwrap(), Err(KeyspaceError::LeaderTransferTimeout));
    assert_eq!(cluster.leader().await, leader);
    cluster.heal();
    cluster.settle().await;
    cluster.stop_all().await;
}

/// The old leader has stepped down before the new one leads.
#[tokio::test(start_paused = true)]
async fn a_transfer_to_a_slow_member_is_told_when_it_leads() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let target = cluster.followers().await[0];
    cluster.slow(target, ELECTION / 8);
    assert_eq!(cluster.member(leader).move_leader(target).await, Ok(()));
    assert_eq!(cluster.leader().await, target);
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_moves_leadership_and_only_to_a_voter() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let follower = cluster.followers().await[0];
    let asked = cluster.member(follower).move_leader(leader).await;
    assert_eq!(asked, Err(KeyspaceError::NotLeader));
    let asked = cluster.member(leader).move_leader(MemberId(99)).await;
    assert_eq!(asked, Err(KeyspaceError::BadLeaderTransferee));
    assert_eq!(cluster.member(leader).move_leader(leader).await, Ok(()));
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stops_hands_over_first() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let follower = cluster.followers().await[0];
    let writer = cluster.member(follower).keyspace.clone();
    let writer = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        for n in 0..200 {
            let began = Instant::now();
            writer.put(put(&format!("k{n}"), "v")).await.unwrap();
            longest = longest.max(began.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        longest
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.stop(leader).await;
    let longest = writer.await.unwrap();
    assert!(longest < Duration::from_millis(200), "{longest:?}: an election would take longer");
    assert_ne!(cluster.leader().await, leader);
    cluster.stop_all().await;
}
