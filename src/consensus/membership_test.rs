//! Groups whose members change, over journals on device doubles and on paused time.

use std::collections::BTreeSet;

use openraft::EntryPayload;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_second_voter_that_comes_late_holds_up_nobody() {
    let one = MEMBERS[0];
    let mut cluster = Cluster::of(&[one]).await;
    cluster.write(0..5).await;
    cluster.add(MEMBERS[1]).await;
    // Nobody has started it yet.
    cluster.write(5..10).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    cluster.write(10..15).await;
    assert_eq!(cluster.voters().await, [one]);
    cluster.join(MEMBERS[1]).await;
    cluster.eventually_voters(&MEMBERS[..2]).await;
    cluster.write(15..20).await;
    cluster.level().await;
    // From now on both are needed.
    cluster.cut(Some(MEMBERS[1]));
    let leader = cluster.member(one);
    eventually(|| !leader.consensus.leads()).await;
    cluster.cut(None);
    cluster.write(20..25).await;
    cluster.level().await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_voter_is_brought_up_by_a_whole_state_where_the_log_is_gone() {
    let mut cluster = Cluster::start().await;
    cluster.write(0..300).await;
    cluster.level().await;
    for member in &cluster.members {
        member.sink.make_base().await;
    }
    for member in &cluster.members {
        eventually(|| member.purged() > 200).await;
    }
    cluster.add(FOURTH).await;
    cluster.join(FOURTH).await;
    cluster.write(300..320).await;
    let all = [MEMBERS[0], MEMBERS[1], MEMBERS[2], FOURTH];
    cluster.eventually_voters(&all).await;
    cluster.level().await;
    assert_eq!(cluster.member(FOURTH).sink.installs(), 1);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn members_go_one_by_one_until_one_is_left_that_cannot() {
    let mut cluster = Cluster::start().await;
    cluster.write(0..5).await;
    for left in [2, 1] {
        let leader = cluster.leader().await.id;
        let goes = cluster.members.iter().map(|member| member.id).find(|id| *id != leader);
        let goes = goes.unwrap();
        cluster.change(&MemberChange::Remove(goes)).await.unwrap();
        assert_eq!(cluster.voters().await.len(), left);
        cluster.lose(goes).await;
        let from = 10 * left as u64;
        cluster.write(from..from + 5).await;
    }
    let last = cluster.leader().await.id;
    let refused = cluster.change(&MemberChange::Remove(last)).await;
    assert!(matches!(refused, Err(ChangeError::Moved(_))), "{refused:?}");
    cluster.write(30..35).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_membership_that_is_another_by_now_is_refused() {
    let cluster = Cluster::start().await;
    cluster.write(0..5).await;
    let leader = cluster.leader().await;
    let stored = leader.sink.applied().1.log_id.unwrap();
    let over = LogId::new(stored.term, stored.index);
    cluster.add(FOURTH).await;
    let late = MemberChange::Remove(FOURTH);
    let refused = leader.consensus.change_members(over, &late).await;
    assert!(matches!(refused, Err(ChangeError::Moved(_))), "{refused:?}");
    let follower = cluster.members.iter().find(|member| member.id != leader.id).unwrap();
    let refused = follower.consensus.change_members(over, &late).await;
    assert_eq!(refused, Err(ChangeError::NotLeader));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn urls_move_and_the_member_stays() {
    let cluster = Cluster::start().await;
    cluster.write(0..5).await;
    let id = MEMBERS[1];
    let peer_urls = vec!["http://elsewhere".to_owned()];
    cluster.change(&MemberChange::Move { id, peer_urls: peer_urls.clone() }).await.unwrap();
    for member in &cluster.members {
        let known = super::super::Members::new();
        let moved = async {
            loop {
                let now = member.consensus.members_other_than(&known).await;
                if now[&id] == peer_urls {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), moved).await.unwrap();
    }
    assert_eq!(cluster.voters().await, MEMBERS);
    cluster.write(5..10).await;
    cluster.level().await;
    cluster.stop().await;
}

/// No leader of ours leaves two configs in force; another version's might.
#[tokio::test(start_paused = true)]
async fn a_joint_change_that_a_leader_left_behind_is_finished_by_the_next() {
    let cluster = Cluster::start().await;
    cluster.write(0..5).await;
    let leader = cluster.leader().await;
    // Its usher, the last of its tasks, would finish it at once.
    leader.consensus.0.tasks.lock().last().unwrap().abort();
    let now = leader.consensus.0.raft.server_metrics().borrow_watched().membership_config.clone();
    let nodes: BTreeMap<_, _> =
        now.membership().nodes().map(|(id, node)| (*id, node.clone())).collect();
    let of = |ids: &[MemberId]| ids.iter().map(|id| id.0).collect::<BTreeSet<u64>>();
    let wanted: Vec<MemberId> = MEMBERS.into_iter().filter(|id| *id != leader.id).collect();
    let joint = super::super::types::RaftMembership::new(vec![of(&MEMBERS), of(&wanted)], nodes);
    let raft = leader.consensus.0.raft.clone();
    raft.append_membership(joint.unwrap(), EntryPayload::Blank, []).await.unwrap();
    cluster.cut(Some(leader.id));
    cluster.eventually_voters(&wanted).await;
    cluster.write(5..10).await;
    let next = cluster.leader().await;
    assert_ne!(next.id, leader.id);
    let configs = next.sink.applied().1.membership.unwrap().configs;
    assert_eq!(configs.len(), 1, "{configs:?}");
    cluster.stop().await;
}
