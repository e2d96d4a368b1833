//! The authorities of a fleet in keyspaces of this process; what nodes report is written by hand.

use std::time::Duration;

use quorate_core::api::pb::internal::FleetRequest;
use quorate_core::state_machine::fleet::node_key;
use serde_json::{Map, Value, json};

use super::super::act::act;
use super::super::observe::look;
use super::super::tests::{Held, begun, elected, leader, rounds_of};
use super::super::{Planner, Round};
use super::*;
use crate::fleet::pki::{AUTHORITY_SECONDS, Authority, REPORT, Validity};
use crate::fleet::plan::Step;
use crate::keyspace::Keyspace;
use crate::keyspace::cluster_test::rig::{key_of, put, within};
use crate::keyspace::fleet_test::txn;
use crate::support::tls::Fingerprint;

const LONG: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(120);
/// Of the fleet that `begun` makes.
const UID: &str = "0a6b";

fn authority() -> Authority {
    let validity = Validity::starting(1_800_000_000, AUTHORITY_SECONDS).unwrap();
    Authority::generate(UID, validity).unwrap()
}

/// A node says whom it trusts, and what its certificates lead to.
async fn reports(keyspace: &Keyspace, id: u64, trusts: &[Fingerprint], leads_to: Fingerprint) {
    let key = String::from_utf8(node_key(MemberId(id)).to_vec()).unwrap();
    let kept = keyspace.range(key_of(&key)).await.unwrap().kvs.remove(0).value;
    let mut record: Map<String, Value> = serde_json::from_slice(&kept).unwrap();
    let trusts: Vec<String> = trusts.iter().map(Fingerprint::to_string).collect();
    let report = json!({"trusts": trusts, "leads-to": [leads_to.to_string()]});
    record.insert(REPORT.to_owned(), report);
    let request = txn(None, put(&key, &serde_json::to_string(&record).unwrap()));
    within(LONG, keyspace.fleet_change(request)).await.unwrap();
}

fn kept(keyspace: &Keyspace) -> FleetAuthority {
    keyspace.fleet_now(|fleet| fleet.record().unwrap().authority.clone().unwrap())
}

#[tokio::test(start_paused = true)]
async fn s0_24_each_step_waits_for_every_node_and_is_taken_once_by_who_is_elected() {
    let cluster = begun().await;
    let keyspace = leader(&cluster).await;
    let lead = elected(&keyspace, "/k8sd/leader/1").await;
    let key = FleetKey::generate();
    let (one, two) = (authority(), authority());
    let (old, new) = (one.fingerprint(), two.fingerprint());
    let announced = Authorities::of(one).announce(two).unwrap().seal(&key, UID);
    let change = FleetAuthorityChange { over_generation: 1, authority: Some(announced) };
    let request = FleetRequest { fence: None, ask: Some(Ask::Authority(change)) };
    within(LONG, keyspace.fleet_change(request)).await.unwrap();
    let view = View { keyspace: &keyspace, key: Some(&key) };
    let mut planner = Planner::default();

    // The members are entered first. Whoever has not said that it trusts the new one is waited for.
    rounds_of(view, &lead, &mut planner, LONG).await;
    rounds_of(view, &lead, &mut planner, LATER).await;
    for id in [1, 2] {
        reports(&keyspace, id, &[old, new], old).await;
    }
    reports(&keyspace, 3, &[old], old).await;
    assert_eq!(rounds_of(view, &lead, &mut planner, LATER).await, [Round::Quiet]);
    assert!(planner.is_waiting());
    reports(&keyspace, 3, &[old, new], old).await;

    // One that stood still decides nothing, and a step from an old look is not taken twice.
    let before = look(view).await.unwrap().unwrap();
    let late = Held {
        fence: quorate_core::api::pb::internal::FleetFence { create_revision: 2, ..lead.fence() },
    };
    assert_eq!(within(LONG, act(view, &late, &before, &Step::Succeed)).await, Outcome::Deposed);
    assert_eq!(kept(&keyspace).generation, 2);
    assert_eq!(rounds_of(view, &lead, &mut planner, LATER).await, [Round::Worked, Round::Quiet]);
    assert_eq!(kept(&keyspace).generation, 3);
    let again = within(LONG, act(view, &lead, &before, &Step::Succeed)).await;
    assert!(matches!(again, Outcome::Moot(_)), "{again:?}");

    // It signs; the one before goes once nothing leads to it any more.
    for id in [1, 2] {
        reports(&keyspace, id, &[new, old], new).await;
        assert_eq!(rounds_of(view, &lead, &mut planner, LATER).await, [Round::Quiet]);
    }
    reports(&keyspace, 3, &[new, old], new).await;
    assert_eq!(rounds_of(view, &lead, &mut planner, LATER).await, [Round::Worked, Round::Quiet]);
    let last = kept(&keyspace);
    assert_eq!((last.generation, last.certificates.len()), (4, 1));
    assert_eq!(Authorities::open(&last, &key, UID).unwrap().fingerprint(), new);
    assert!(!planner.is_waiting());
    cluster.stop_all().await;
}

#[test]
fn s0_24_a_member_that_is_not_listed_and_a_report_that_does_not_read_count_as_not_done() {
    let key = FleetKey::generate();
    let (one, two) = (authority(), authority());
    let both = json!({"trusts": [one.fingerprint().to_string(), two.fingerprint().to_string()], "leads-to": []});
    let record = Authorities::of(one).announce(two).unwrap().seal(&key, UID);
    let node = FleetNode { id: 1, name: "n1".to_owned(), ..FleetNode::default() };
    let said = |report: Value| {
        let record = Map::from_iter([(REPORT.to_owned(), report)]);
        BTreeMap::from([(MemberId(1), Shown { mod_revision: 1, record })])
    };
    let member = |id| Replica {
        id: MemberId(id),
        name: String::new(),
        vote: crate::fleet::plan::Vote::None,
        followed: None,
    };
    let nodes = [node];
    let turn = |members: &[Replica], shown| turn(&record, &key, UID, &nodes, members, &shown);
    let waits = |name: &str| Some(Turn::Wait(vec![name.to_owned()]));
    assert_eq!(turn(&[member(1)], said(both.clone())), Some(Turn::Promote));
    assert_eq!(turn(&[member(1), member(0xb)], said(both)), waits("b"));
    assert_eq!(turn(&[member(1)], said(json!("all of them"))), waits("n1"));
    assert_eq!(turn(&[member(1)], BTreeMap::new()), waits("n1"));
    let strange = FleetKey::generate();
    let unknown = super::turn(&record, &strange, UID, &nodes, &[], &BTreeMap::new());
    assert_eq!(unknown, None, "what cannot be opened is not judged");
}
