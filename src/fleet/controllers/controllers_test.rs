//! Deciders over keyspaces of this process: three members, frames handed over directly, and tokio's paused clock.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::internal::fleet_request::Ask;
use quorate_core::api::pb::internal::{
    FleetAdmit, FleetFence, FleetNode, FleetRequest, FleetTokenIssue,
};
use quorate_core::state_machine::fleet::FleetState;
use serde_json::Value;

use super::*;
use crate::fleet::plan::{ADDED_WITHIN, ANSWERS_WITHIN};
use crate::fleet::store::Store;
use crate::keyspace::cluster_test::rig::{Cluster, eventually, key_of, put, within};
use crate::keyspace::fleet_test::{bootstrap, txn};

const LONG: Duration = Duration::from_secs(60);

/// A lead as it stands in the state, held by the clock for as long as a test says so.
pub(super) struct Held {
    pub(super) fence: FleetFence,
}

impl Lead for Held {
    fn fence(&self) -> FleetFence {
        self.fence.clone()
    }

    fn is_held(&self) -> bool {
        true
    }
}

/// A fleet whose first member is the one node that is entered.
pub(super) async fn begun() -> Cluster {
    let cluster = Cluster::start().await;
    let first = cluster.member(MemberId(1));
    within(LONG, first.fleet_change(bootstrap(1))).await.unwrap();
    cluster
}

/// A member's view without the fleet's key.
fn bare(keyspace: &Keyspace) -> View<'_> {
    View { keyspace, key: None }
}

/// Somebody is elected.
pub(super) async fn elected(keyspace: &Keyspace, key: &str) -> Held {
    let request = txn(None, put(key, "me"));
    within(LONG, keyspace.fleet_change(request)).await.unwrap();
    let created = keyspace.range(key_of(key)).await.unwrap().kvs[0].create_revision;
    Held { fence: FleetFence { key: key.to_owned().into(), create_revision: created } }
}

pub(super) async fn leader(cluster: &Cluster) -> Keyspace {
    let id = cluster.leader().await;
    eventually(LONG, || cluster.member(id).leads()).await;
    cluster.member(id).keyspace.clone()
}

/// Rounds until there is nothing more to do; what the clock of the planner says meanwhile is `now`.
async fn rounds(
    keyspace: &Keyspace,
    lead: &Held,
    planner: &mut Planner,
    now: Duration,
) -> Vec<Round> {
    rounds_of(bare(keyspace), lead, planner, now).await
}

pub(super) async fn rounds_of(
    view: View<'_>,
    lead: &Held,
    planner: &mut Planner,
    now: Duration,
) -> Vec<Round> {
    let mut rests = Rests::default();
    let mut worked = Vec::new();
    for _ in 0..10 {
        let round =
            within(LONG, Box::pin(round(view, lead, planner, &mut rests, now))).await.unwrap();
        worked.push(round);
        if round != Round::Worked {
            break;
        }
    }
    worked
}

/// Name and status of every node, as clients read them.
async fn shown(keyspace: &Keyspace) -> Vec<(String, String)> {
    let look = observe::look(bare(keyspace)).await.unwrap().unwrap();
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("-").to_owned();
    let said = look.shown.values();
    said.map(|shown| (text(shown.record.get("name")), text(shown.record.get("status")))).collect()
}

fn names(fleet: &FleetState) -> Vec<String> {
    fleet.nodes().map(|node| node.name.clone()).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, status)| ((*name).to_owned(), (*status).to_owned())).collect()
}

async fn ask(keyspace: &Keyspace, ask: Ask) {
    let request = FleetRequest { fence: None, ask: Some(ask) };
    within(LONG, keyspace.fleet_change(request)).await.unwrap();
}

/// Lets a node in, as whoever is asked by it does before its member is added.
async fn admit(keyspace: &Keyspace, id: u64, name: &str) {
    let hash = Bytes::from(vec![7; 32]);
    ask(
        keyspace,
        Ask::TokenIssue(FleetTokenIssue {
            name: name.to_owned(),
            role: 1,
            hash: hash.clone(),
            nonce: "nonce".into(),
            expires_ms: i64::MAX,
        }),
    )
    .await;
    let record = format!(r#"{{"name":"{name}","status":"PENDING","joined-at":"then"}}"#);
    let node = FleetNode {
        id,
        name: name.to_owned(),
        address: format!("{name}:6400"),
        role: 1,
        record: record.into(),
        ..FleetNode::default()
    };
    ask(keyspace, Ask::Admit(FleetAdmit { token_hash: hash, node: Some(node) })).await;
}

/// S0.15: registry and membership never diverge silently, whichever of them was changed.
#[tokio::test(start_paused = true)]
async fn s0_15_members_of_another_way_are_entered_and_removed_ones_are_forgotten() {
    let cluster = begun().await;
    let keyspace = leader(&cluster).await;
    let lead = elected(&keyspace, "/k8sd/leader/1").await;
    let mut planner = Planner::default();
    let all = || {
        cluster.members.iter().all(|member| {
            keyspace.members().iter().any(|known| known.id == member.id.0 && !known.name.is_empty())
        })
    };
    eventually(LONG, all).await;
    assert_eq!(rounds(&keyspace, &lead, &mut planner, LONG).await, [Round::Worked, Round::Quiet]);
    let expected = [("-", "voter"), ("m2", "voter"), ("m3", "voter")];
    let told = shown(&keyspace).await;
    assert_eq!(told[1..], pairs(&expected)[1..]);
    assert_eq!(told[0].1, "voter", "the record of the first said nothing before");

    // Removed by whoever speaks etcd's API; a token of its name goes with it.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let gone = cluster.followers().await[0];
    let name = format!("m{}", gone.0);
    if gone != MemberId(1) {
        let (role, hash) = (1, Bytes::from(vec![9; 32]));
        let nonce = Bytes::from_static(b"nonce");
        let issue = FleetTokenIssue { name, role, hash, nonce, expires_ms: i64::MAX };
        ask(&keyspace, Ask::TokenIssue(issue)).await;
    }
    within(LONG, keyspace.member_remove(gone)).await.unwrap();
    assert_eq!(rounds(&keyspace, &lead, &mut planner, LONG).await, [Round::Worked, Round::Quiet]);
    let left = keyspace.fleet(|fleet| (fleet.nodes().count(), fleet.join_tokens().count())).await;
    assert_eq!(left, Ok((2, 0)));
    assert!(keyspace.fleet_now(|fleet| fleet.node(gone).is_none()));
    cluster.stop_all().await;
}

/// A decider that stood still must leave things alone when it wakes.
#[tokio::test(start_paused = true)]
async fn a_deposed_decider_changes_nothing_whatever_it_has_planned() {
    let cluster = begun().await;
    let keyspace = leader(&cluster).await;
    let lead = elected(&keyspace, "/k8sd/leader/1").await;
    let late = Held { fence: FleetFence { create_revision: 2, ..lead.fence.clone() } };
    let before = keyspace.revision();
    let mut planner = Planner::default();
    assert_eq!(rounds(&keyspace, &late, &mut planner, LONG).await, [Round::Deposed]);
    assert_eq!(keyspace.revision(), before);
    // Also where the change is raft's, which knows no fence: it asks the log first.
    let look = observe::look(bare(&keyspace)).await.unwrap().unwrap();
    for step in [Step::Promote(MemberId(2)), Step::Expel(MemberId(2))] {
        let outcome = within(LONG, act::act(bare(&keyspace), &late, &look, &step)).await;
        assert_eq!(outcome, Outcome::Deposed, "{step:?}");
    }
    assert_eq!(keyspace.members().len(), 3);
    assert_eq!(rounds(&keyspace, &lead, &mut planner, LONG).await, [Round::Worked, Round::Quiet]);
    cluster.stop_all().await;
}

/// S0.10: a join that fails half-way is undone, even if whoever let the node in has died since.
#[tokio::test(start_paused = true)]
async fn s0_10_a_node_that_was_let_in_and_never_came_is_taken_out_again() {
    let cluster = begun().await;
    let keyspace = leader(&cluster).await;
    let lead = elected(&keyspace, "/k8sd/leader/1").await;
    let mut planner = Planner::default();
    rounds(&keyspace, &lead, &mut planner, Duration::ZERO).await;
    admit(&keyspace, 0x77, "n7").await;
    let urls = ["http://m119:2380".to_owned()];
    let added = keyspace.member_add_as(MemberId(0x77), &urls, false);
    assert_eq!(within(LONG, added).await.unwrap().len(), 4);
    admit(&keyspace, 0x78, "n8").await;
    assert_eq!(rounds(&keyspace, &lead, &mut planner, Duration::ZERO).await, [Round::Quiet]);
    assert!(planner.is_waiting());

    let soon = ANSWERS_WITHIN - Duration::from_secs(1);
    assert_eq!(rounds(&keyspace, &lead, &mut planner, soon).await, [Round::Quiet]);
    rounds(&keyspace, &lead, &mut planner, ANSWERS_WITHIN).await;
    assert_eq!(keyspace.members().len(), 3, "the one that never answered is no member");
    let left = keyspace.fleet(names).await.unwrap();
    assert!(!left.contains(&"n7".to_owned()) && left.contains(&"n8".to_owned()), "{left:?}");
    rounds(&keyspace, &lead, &mut planner, ADDED_WITHIN).await;
    let left = keyspace.fleet(names).await.unwrap();
    assert!(!left.contains(&"n8".to_owned()), "the one that was never added: {left:?}");
    assert_eq!(rounds(&keyspace, &lead, &mut planner, ADDED_WITHIN).await, [Round::Quiet]);
    cluster.settle().await;
    cluster.stop_all().await;
}

/// Unknown is not absent: a decider that does not lead raft cannot know who answers.
#[tokio::test(start_paused = true)]
async fn a_decider_that_does_not_lead_expels_nobody() {
    let cluster = begun().await;
    let follower = cluster.followers().await[0];
    let keyspace = cluster.member(follower).keyspace.clone();
    let lead = elected(&keyspace, "/k8sd/leader/1").await;
    admit(&keyspace, 0x77, "n7").await;
    let urls = ["http://m119:2380".to_owned()];
    within(LONG, keyspace.member_add_as(MemberId(0x77), &urls, false)).await.unwrap();
    let mut planner = Planner::default();
    for minutes in 0..5 {
        let now = Duration::from_secs(60 * minutes);
        assert_eq!(rounds(&keyspace, &lead, &mut planner, now).await.last(), Some(&Round::Quiet));
    }
    assert!(keyspace.fleet_now(|fleet| fleet.node(MemberId(0x77)).is_some()));
    assert_eq!(keyspace.members().len(), 4);
    cluster.stop_all().await;
}

#[tokio::test(start_paused = true)]
async fn a_joiners_record_goes_from_pending_to_voter_and_a_learner_is_promoted() {
    let mut cluster = begun().await;
    let keyspace = leader(&cluster).await;
    let lead = elected(&keyspace, "/k8sd/leader/1").await;
    let mut planner = Planner::default();
    rounds(&keyspace, &lead, &mut planner, Duration::ZERO).await;
    let id = MemberId(0x77);
    admit(&keyspace, id.0, "m119").await;
    let urls = ["http://m119:2380".to_owned()];
    within(LONG, keyspace.member_add_as(id, &urls, false)).await.unwrap();
    cluster.join(id).await;
    eventually(LONG, || keyspace.voters().contains(&id)).await;
    rounds(&keyspace, &lead, &mut planner, Duration::ZERO).await;
    assert!(shown(&keyspace).await.contains(&("m119".to_owned(), "voter".to_owned())));
    let look = observe::look(bare(&keyspace)).await.unwrap().unwrap();
    assert_eq!(look.shown[&id].record["joined-at"], "then", "the rest of it is as it was");

    // One that was asked for as a learner, over etcd's API.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let urls = ["http://m120:2380".to_owned()];
    let (learner, _members) = within(LONG, keyspace.member_add(&urls, true)).await.unwrap();
    let learner = MemberId(learner.id);
    cluster.join(learner).await;
    let named = || {
        keyspace.members().iter().any(|member| member.id == learner.0 && !member.name.is_empty())
    };
    eventually(LONG, named).await;
    for _ in 0..60 {
        rounds(&keyspace, &lead, &mut planner, Duration::ZERO).await;
        if keyspace.voters().contains(&learner) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(keyspace.voters().contains(&learner), "it is in sync, and has its vote");
    rounds(&keyspace, &lead, &mut planner, Duration::ZERO).await;
    assert!(shown(&keyspace).await.iter().all(|(_, status)| status == "voter"));
    cluster.stop_all().await;
}

fn start(cluster: &Cluster) -> Vec<(MemberId, Controllers)> {
    let start = |member: &crate::keyspace::cluster_test::rig::Member| {
        let store = Arc::new(Store::of_the_fleet(member.keyspace.clone()));
        let name = format!("m{}", member.id.0);
        (
            member.id,
            Controllers::start(member.keyspace.clone(), store, &name, None, Timers::default()),
        )
    };
    cluster.members.iter().map(start).collect()
}

/// The deciders as they run: raft's leader decides, and whoever leads next takes over from it.
#[tokio::test(start_paused = true)]
async fn the_leader_decides_and_its_successor_follows_it() {
    let cluster = begun().await;
    let deciders = start(&cluster);
    let entered = |cluster: &Cluster| {
        let any = &cluster.members[0];
        any.fleet_now(|fleet| fleet.nodes().count()) == cluster.members.len()
    };
    eventually(LONG, || entered(&cluster)).await;
    let store = Store::in_process(cluster.members[0].keyspace.clone());
    let first = cluster.leader().await;
    let decides = store.get_leader(ELECTION).await.unwrap();
    assert_eq!(decides, Some(format!("m{}", first.0)));

    tokio::time::sleep(Duration::from_secs(6)).await;
    let next = cluster.followers().await[0];
    within(LONG, cluster.member(first).move_leader(next)).await.unwrap();
    let expected = Some(format!("m{}", next.0));
    for _ in 0..600 {
        if store.get_leader(ELECTION).await.ok().flatten() == expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(store.get_leader(ELECTION).await.unwrap(), expected);

    // What is removed by etcd's API is forgotten by whoever decides now.
    let gone = cluster.followers().await[0];
    within(LONG, cluster.member(next).member_remove(gone)).await.unwrap();
    let forgotten = || cluster.member(next).fleet_now(|fleet| fleet.node(gone).is_none());
    eventually(LONG, forgotten).await;
    for (id, decider) in deciders {
        within(LONG, decider.stop()).await;
        if id == next {
            assert_eq!(store_of(&cluster, next).get_leader(ELECTION).await.unwrap(), None);
        }
    }
    cluster.stop_all().await;
}

fn store_of(cluster: &Cluster, id: MemberId) -> Store {
    Store::in_process(cluster.member(id).keyspace.clone())
}

#[test]
fn a_step_that_fails_rests_longer_each_time_and_is_forgotten_when_it_is_not_planned() {
    let (mut rests, step) = (Rests::default(), Step::Promote(MemberId(1)));
    let second = Duration::from_secs(1);
    assert!(!rests.rests(&step, second));
    let mut now = second;
    for expected in [1, 2, 4, 8, 16, 30, 30] {
        rests.failed(step.clone(), now);
        let until = now + Duration::from_secs(expected);
        assert!(rests.rests(&step, until - Duration::from_millis(1)), "{expected}");
        assert!(!rests.rests(&step, until), "{expected}");
        now = until;
    }
    rests.keep(&[]);
    assert!(!rests.rests(&step, now));
    rests.failed(step.clone(), now);
    assert!(!rests.rests(&step, now + second), "it begins anew");
}
