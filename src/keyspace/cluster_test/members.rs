//! Members that come, get a vote and go, asked of whoever is there.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::state_machine::CLUSTER_LEVEL;

use super::rig::{Cluster, eventually, put, within};
use crate::keyspace::{Keyspace, KeyspaceError, MemberRefusal};

const LONG: Duration = Duration::from_secs(60);

fn urls(name: &str) -> Vec<String> {
    vec![format!("http://{name}:2380")]
}

async fn add(keyspace: &Keyspace, name: &str, learner: bool) -> Result<MemberId, KeyspaceError> {
    let (member, members) = within(LONG, keyspace.member_add(&urls(name), learner)).await?;
    assert!(members.contains(&member), "the answer lists it");
    assert!(keyspace.members().contains(&member), "it is applied where it was asked");
    Ok(MemberId(member.id))
}

/// Connections that have held for long enough.
async fn until_healthy() {
    tokio::time::sleep(Duration::from_secs(6)).await;
}

fn no<T>(refusal: MemberRefusal) -> Result<T, KeyspaceError> {
    Err(KeyspaceError::Members(refusal))
}

fn ids(members: &[pb::Member]) -> BTreeSet<u64> {
    members.iter().map(|member| member.id).collect()
}

#[tokio::test(start_paused = true)]
async fn a_learner_asked_for_through_a_follower_is_promoted_and_serves_as_a_voter() {
    let mut cluster = Cluster::start().await;
    until_healthy().await;
    let follower = cluster.followers().await[0];
    let id = add(cluster.member(follower), "m4", true).await.unwrap();
    let listed = |cluster: &Cluster| {
        let members = cluster.member(follower).members();
        members.into_iter().find(|member| member.id == id.0).unwrap()
    };
    assert!(listed(&cluster).is_learner && listed(&cluster).name.is_empty());
    // Nobody has started it: it has nothing.
    for _ in 0..30 {
        cluster.member(follower).put(put("a", "1")).await.unwrap();
    }
    let early = within(LONG, cluster.member(follower).member_promote(id)).await;
    assert_eq!(early, no(MemberRefusal::LearnerNotReady));
    cluster.join(id).await;
    within(LONG, cluster.member(id).ready()).await.unwrap();
    assert!(cluster.member(id).is_learner() && cluster.member(id).status().learner);
    eventually(LONG, || !listed(&cluster).name.is_empty()).await;
    // It never gets a vote by itself.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(listed(&cluster).is_learner);
    let members = within(LONG, cluster.member(follower).member_promote(id)).await.unwrap();
    assert!(members.iter().all(|member| !member.is_learner));
    eventually(LONG, || !cluster.member(id).is_learner()).await;
    let again = within(LONG, cluster.member(follower).member_promote(id)).await;
    assert_eq!(again, no(MemberRefusal::NotLearner));
    let leader = cluster.leader().await;
    let promotions = cluster.member(leader).promotions();
    assert_eq!((promotions.done(), promotions.refused().len()), (1, 2));
    cluster.member(id).put(put("b", "1")).await.unwrap();
    cluster.settle().await;
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn each_bad_change_is_refused() {
    let cluster = Cluster::start().await;
    let member = |id| cluster.member(MemberId(id));
    let follower = cluster.followers().await[0];
    let asked = cluster.member(follower);
    // Streams have to hold for five seconds before a member counts as connected; the rig's began with it.
    assert_eq!(add(asked, "m4", false).await, no(MemberRefusal::Unhealthy));
    assert_eq!(add(asked, "m4", true).await, no(MemberRefusal::Unhealthy));
    let removed = asked.member_remove(MemberId(1)).await;
    assert_eq!(removed, no(MemberRefusal::Unhealthy));
    until_healthy().await;
    assert_eq!(add(asked, "m2", false).await, no(MemberRefusal::PeerUrlExists));
    let bad = asked.member_add(&["m4".to_owned()], false).await.map(drop);
    assert_eq!(bad, no(MemberRefusal::BadUrls));
    assert_eq!(asked.member_add(&[], false).await.map(drop), no(MemberRefusal::BadUrls));
    let unknown = MemberId(99);
    assert_eq!(asked.member_remove(unknown).await, no(MemberRefusal::NotFound));
    assert_eq!(asked.member_promote(unknown).await, no(MemberRefusal::NotFound));
    assert_eq!(asked.member_update(unknown, urls("x")).await, no(MemberRefusal::NotFound));
    let taken = asked.member_update(MemberId(1), urls("m2")).await;
    assert_eq!(taken, no(MemberRefusal::PeerUrlExists));
    assert_eq!(asked.member_promote(MemberId(1)).await, no(MemberRefusal::NotLearner));
    let learner = add(asked, "m4", true).await.unwrap();
    assert_eq!(add(asked, "m5", true).await, no(MemberRefusal::TooManyLearners));
    // Three that have started are a quorum of five, not of six.
    add(asked, "m5", false).await.unwrap();
    add(asked, "m6", false).await.unwrap();
    assert_eq!(add(asked, "m7", false).await, no(MemberRefusal::NotEnoughStarted));
    assert_eq!(asked.member_remove(MemberId(2)).await, no(MemberRefusal::NotEnoughStarted));
    let members = asked.member_remove(learner).await.unwrap();
    assert_eq!(ids(&members).len(), 5);
    assert_eq!(asked.member_remove(learner).await, no(MemberRefusal::NotFound));
    for id in 1..=3 {
        eventually(LONG, || member(id).roster().borrow().removed.contains(&learner)).await;
    }
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn urls_that_are_updated_are_known_to_all() {
    let cluster = Cluster::start().await;
    let follower = cluster.followers().await[0];
    // As they are: etcd does not look at them either.
    let to = vec!["foo".to_owned()];
    let members = cluster.member(follower).member_update(MemberId(2), to.clone()).await.unwrap();
    assert_eq!(members[1].peer_ur_ls, to);
    assert!(!members[1].name.is_empty());
    for id in 1..=3 {
        eventually(LONG, || cluster.member(MemberId(id)).members()[1].peer_ur_ls == to).await;
    }
    cluster.settle().await;
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_removed_is_followed_by_another_without_a_gap() {
    let mut cluster = Cluster::start().await;
    until_healthy().await;
    let leader = cluster.leader().await;
    cluster.member(leader).put(put("a", "1")).await.unwrap();
    let members = within(LONG, cluster.member(leader).member_remove(leader)).await.unwrap();
    assert!(!ids(&members).contains(&leader.0) && members.len() == 2);
    let others: Vec<MemberId> =
        cluster.members.iter().map(|member| member.id).filter(|id| *id != leader).collect();
    within(Duration::from_secs(1), cluster.member(others[0]).put(put("a", "2"))).await.unwrap();
    cluster.stop(leader).await;
    // A quorum of two needs both.
    for id in &others {
        cluster.member(*id).put(put("b", "1")).await.unwrap();
        assert!(cluster.member(*id).roster().borrow().removed.contains(&leader));
    }
    cluster.settle().await;
    cluster.stop_all().await;
}

/// The answer of the leader is lost, and with it whether the change was made.
#[tokio::test(start_paused = true)]
async fn a_change_whose_answer_is_lost_is_made_once_and_answered_as_made() {
    let cluster = Cluster::start().await;
    until_healthy().await;
    let follower = cluster.followers().await[0];
    cluster.lose_answers(Some(2));
    for round in 0..6 {
        let id = add(cluster.member(follower), &format!("n{round}"), true).await.unwrap();
        let members = within(LONG, cluster.member(follower).member_remove(id)).await.unwrap();
        assert_eq!(ids(&members), BTreeSet::from([1, 2, 3]));
    }
    cluster.lose_answers(None);
    cluster.settle().await;
    assert_eq!(cluster.member(follower).roster().borrow().removed.len(), 6);
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn members_are_changed_one_after_the_other_however_many_ask() {
    let cluster = Cluster::start().await;
    until_healthy().await;
    let mut asked = Vec::new();
    for (n, member) in cluster.members.iter().enumerate() {
        let keyspace = member.keyspace.clone();
        asked.push(tokio::spawn(async move {
            for round in 0..4 {
                let name = format!("n{n}-{round}");
                let removed = loop {
                    match keyspace.member_add(&urls(&name), true).await {
                        Ok((member, _)) => break keyspace.member_remove(MemberId(member.id)).await,
                        Err(KeyspaceError::Members(MemberRefusal::TooManyLearners)) => {
                            tokio::time::sleep(Duration::from_millis(7)).await;
                        }
                        Err(error) => panic!("{error}"),
                    }
                };
                removed.unwrap();
            }
        }));
    }
    for task in asked {
        within(LONG, task).await.unwrap();
    }
    cluster.settle().await;
    let roster = cluster.members[0].roster().borrow().clone();
    assert_eq!((roster.removed.len(), ids(&roster.members)), (12, BTreeSet::from([1, 2, 3])));
    cluster.stop_all().await;
}

/// The level waits for a member that is dead for good, so it is removed while nobody is noted as such.
#[tokio::test(start_paused = true)]
async fn who_is_removed_beside_older_members_is_known_as_removed_once_they_are_upgraded() {
    let mut cluster = Cluster::start_beside([2, 3].map(MemberId).into(), |_| {}).await;
    until_healthy().await;
    let leader = cluster.leader().await;
    // Of the two others the last is of an older version, whoever leads.
    let [dead, older] = cluster.followers().await[..] else { panic!("three members") };
    cluster.stop(dead).await;
    within(LONG, cluster.member(leader).member_remove(dead)).await.unwrap();
    let removed = |cluster: &Cluster, id| cluster.member(id).roster().borrow().removed.clone();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(removed(&cluster, leader).is_empty());
    cluster.upgrade_all();
    for id in [leader, older] {
        eventually(LONG, || removed(&cluster, id) == BTreeSet::from([dead])).await;
    }
    cluster.settle().await;
    cluster.stop_all().await;
}

/// Whoever leads, another one is of an older version: raised by what a single member understands, the level would stop
/// it, and with it the upgrade.
#[tokio::test(start_paused = true)]
async fn what_is_new_waits_until_every_member_is_upgraded() {
    let cluster = Cluster::start_beside([2, 3].map(MemberId).into(), |_| {}).await;
    until_healthy().await;
    assert!(cluster.members.iter().all(|member| member.cluster_level() < CLUSTER_LEVEL));
    let asked = cluster.member(MemberId(1));
    let role = |name: &str| pb::AuthRoleAddRequest { name: name.to_owned() };
    let early = within(LONG, asked.role_add(role("a"))).await.unwrap_err();
    assert!(matches!(early, KeyspaceError::Unimplemented(_)), "{early}");
    asked.put(put("a", "1")).await.unwrap();

    let waits = tokio::spawn({
        let keyspace = asked.keyspace.clone();
        async move { keyspace.role_add(role("b")).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.upgrade_all();
    within(LONG, waits).await.unwrap().expect("it waits for the level");
    assert!(cluster.members.iter().any(|member| member.cluster_level() == CLUSTER_LEVEL));
    cluster.settle().await;
    cluster.stop_all().await;
}
