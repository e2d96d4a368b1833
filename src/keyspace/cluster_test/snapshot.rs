//! A member that is left behind the log comes back by a whole state.

use std::time::Duration;

use quorate_core::api::ids::{GroupId, MemberId};

use super::rig::{Cluster, eventually, key_of, put, within};

const LIMIT: Duration = Duration::from_secs(120);

async fn write(cluster: &Cluster, numbers: std::ops::Range<usize>) {
    let leader = cluster.leader().await;
    for n in numbers {
        let value = format!("{n}").repeat(200);
        let written = cluster.member(leader).put(put(&format!("key{}", n % 97), &value));
        within(LIMIT, written).await.unwrap();
    }
}

/// Up to which index a member has let its log go.
fn purged(cluster: &Cluster, id: MemberId) -> u64 {
    let state = cluster.member(id).journal.group(GroupId(0)).state();
    state.purged.map_or(0, |at| at.index)
}

#[tokio::test(start_paused = true)]
async fn a_member_left_behind_a_purge_comes_back_by_a_whole_state_while_writes_go_on() {
    let cluster = Cluster::start().await;
    write(&cluster, 0..20).await;
    let leader = cluster.leader().await;
    let behind = cluster.followers().await[0];
    cluster.isolate(behind);
    let before = cluster.member(behind).status().applied_index;
    write(&cluster, 20..400).await;
    eventually(LIMIT, || purged(&cluster, leader) > before + 100).await;

    cluster.heal();
    write(&cluster, 400..500).await;
    cluster.settle().await;
    let (sent, _) = cluster.member(leader).snapshot_figures().successes(behind);
    let (_, received) = cluster.member(behind).snapshot_figures().successes(leader);
    assert!(sent >= 1 && received >= 1, "{sent} sent, {received} received");
    assert!(purged(&cluster, behind) >= before + 100);

    // It answers reads, and what it leads is right.
    cluster.member(leader).move_leader(behind).await.unwrap();
    assert_eq!(cluster.leader().await, behind);
    write(&cluster, 500..520).await;
    let found = within(LIMIT, cluster.member(behind).range(key_of("key3"))).await.unwrap();
    assert_eq!(found.kvs[0].value, "488".repeat(200));
    cluster.settle().await;
    cluster.stop_all().await;
}
