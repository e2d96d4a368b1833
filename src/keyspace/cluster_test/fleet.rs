//! A fleet of three members: steered through whoever is there.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::internal::fleet_request::Ask;
use quorate_core::api::pb::internal::{FleetAdmit, FleetNode, FleetRequest, FleetTokenIssue};
use quorate_core::api::refusal::{FleetRefusal, Refusal};
use quorate_core::api::reply::FleetReply;
use quorate_core::state_machine::fleet::FleetState;

use super::rig::{Cluster, eventually, put, within};
use crate::keyspace::fleet_test::bootstrap;
use crate::keyspace::{Keyspace, KeyspaceError, MemberRefusal};

const LONG: Duration = Duration::from_secs(60);

async fn ask(keyspace: &Keyspace, ask: Ask) -> Result<FleetReply, KeyspaceError> {
    let request = FleetRequest { fence: None, ask: Some(ask) };
    within(LONG, keyspace.fleet_change(request)).await
}

fn names(fleet: &FleetState) -> Vec<String> {
    fleet.nodes().map(|node| node.name.clone()).collect()
}

fn token(name: &str, hash: bytes::Bytes) -> FleetTokenIssue {
    let (name, nonce) = (name.to_owned(), "nonce".into());
    FleetTokenIssue { name, role: 1, hash, nonce, expires_ms: i64::MAX }
}

#[tokio::test(start_paused = true)]
async fn what_is_changed_through_a_follower_is_known_to_all_and_used_up_once() {
    let cluster = Cluster::start().await;
    let [one, two] = cluster.followers().await[..] else { panic!("three members") };
    let (one, two) = (cluster.member(one), cluster.member(two));
    assert_eq!(within(LONG, one.fleet_change(bootstrap(1))).await, Ok(FleetReply::Done));
    let hash = bytes::Bytes::from(vec![7; 32]);
    ask(two, Ask::TokenIssue(token("n2", hash.clone()))).await.unwrap();
    // The two are asked at once: the log decides which of them used the token up.
    let admit = |id| {
        let (name, address) = ("n2".to_owned(), "b:1".to_owned());
        let node =
            FleetNode { id, name, address, role: 1, record: "{}".into(), ..FleetNode::default() };
        Ask::Admit(FleetAdmit { token_hash: hash.clone(), node: Some(node) })
    };
    let (first, second) = tokio::join!(ask(one, admit(8)), ask(two, admit(9)));
    let done = [&first, &second].into_iter().filter(|outcome| outcome.is_ok()).count();
    let unknown = Err(Refusal::Fleet(FleetRefusal::TokenUnknown).into());
    assert!(done == 1 && (first == unknown || second == unknown), "{first:?} {second:?}");
    for member in &cluster.members {
        assert_eq!(member.fleet(names).await, Ok(vec!["n1".to_owned(), "n2".to_owned()]));
    }
    cluster.settle().await;
    cluster.stop_all().await;
}

/// A joiner's member is added right after the one before it, and added again when the answer was lost.
#[tokio::test(start_paused = true)]
async fn a_member_is_added_under_a_drawn_id_at_once_and_only_once() {
    let mut cluster = Cluster::start().await;
    let follower = cluster.followers().await[0];
    let id = MemberId(0x77);
    let urls = ["http://m119:2380".to_owned()];
    let keyspace = cluster.member(follower).keyspace.clone();
    cluster.lose_answers(Some(2));
    for _ in 0..3 {
        let members = within(LONG, keyspace.member_add_as(id, &urls, false)).await.unwrap();
        assert_eq!(members.len(), 4);
        assert!(members.iter().any(|member| member.id == id.0 && !member.is_learner));
    }
    cluster.lose_answers(None);
    let elsewhere = ["http://elsewhere:2380".to_owned()];
    let taken = keyspace.member_add_as(id, &elsewhere, false).await;
    assert_eq!(taken, Err(KeyspaceError::Members(MemberRefusal::IdExists)));

    cluster.join(id).await;
    within(LONG, cluster.member(id).ready()).await.unwrap();
    eventually(LONG, || keyspace.voters().contains(&id)).await;
    cluster.member(id).put(put("a", "1")).await.unwrap();

    // A join that fails is undone at once, as often as it is asked.
    let early = within(LONG, keyspace.member_remove(id)).await;
    assert_eq!(early, Err(KeyspaceError::Members(MemberRefusal::Unhealthy)));
    for _ in 0..2 {
        let members = within(LONG, keyspace.member_remove_for_fleet(id)).await.unwrap();
        assert_eq!(members.len(), 3);
    }
    let again = within(LONG, keyspace.member_add_as(id, &urls, false)).await;
    let removed = Err(KeyspaceError::Members(MemberRefusal::NotFound));
    assert_eq!(again, removed, "S0.13: an id that was removed is never used again");
    cluster.stop(id).await;
    cluster.settle().await;
    cluster.stop_all().await;
}

/// S0.10: a join that was given up may still be on its way to a leader; S0.11: the next one waits for the one before.
#[tokio::test(start_paused = true)]
async fn a_fleets_member_is_added_once_it_is_listed_and_the_one_before_it_votes() {
    let mut cluster = Cluster::start().await;
    let follower = cluster.followers().await[0];
    let keyspace = cluster.member(follower).keyspace.clone();
    let own = keyspace.config().member_id;
    assert_eq!(within(LONG, keyspace.fleet_change(bootstrap(own.0))).await, Ok(FleetReply::Done));
    let urls = |id: u64| [format!("http://m{id}:2380")];
    let unlisted = within(LONG, keyspace.member_add_as(MemberId(0x77), &urls(0x77), false)).await;
    assert_eq!(unlisted, Err(KeyspaceError::Members(MemberRefusal::NotFound)));

    for id in [0x77_u64, 0x78] {
        let (name, address) = (format!("m{id}"), format!("m{id}:6400"));
        let (record, token_hash) = ("{}".into(), bytes::Bytes::from(vec![id as u8; 32]));
        ask(&keyspace, Ask::TokenIssue(token(&name, token_hash.clone()))).await.unwrap();
        let node = FleetNode { id, name, address, role: 1, record, ..FleetNode::default() };
        ask(&keyspace, Ask::Admit(FleetAdmit { token_hash, node: Some(node) })).await.unwrap();
    }
    let first = MemberId(0x77);
    within(LONG, keyspace.member_add_as(first, &urls(0x77), false)).await.unwrap();
    let too_early = within(LONG, keyspace.member_add_as(MemberId(0x78), &urls(0x78), false)).await;
    assert_eq!(too_early, Err(KeyspaceError::Members(MemberRefusal::NotEnoughStarted)));
    cluster.join(first).await;
    eventually(LONG, || keyspace.voters().contains(&first)).await;
    let members = within(LONG, keyspace.member_add_as(MemberId(0x78), &urls(0x78), false)).await;
    assert_eq!(members.map(|members| members.len()), Ok(5));
    cluster.stop_all().await;
}

/// Nobody may be stopped by an entry that it does not understand.
#[tokio::test(start_paused = true)]
async fn a_fleet_does_not_begin_beside_members_of_an_older_version() {
    let cluster = Cluster::start_beside(BTreeSet::from([2, 3].map(MemberId)), |_| {}).await;
    let asked = cluster.member(MemberId(1));
    let early = within(LONG, asked.fleet_change(bootstrap(1))).await.unwrap_err();
    assert!(matches!(early, KeyspaceError::Unimplemented(_)), "{early}");
    cluster.upgrade_all();
    assert_eq!(within(LONG, asked.fleet_change(bootstrap(1))).await, Ok(FleetReply::Done));
    cluster.settle().await;
    cluster.stop_all().await;
}
