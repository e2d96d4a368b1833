//! One authority takes another's place, step by step, with nodes that are fast, slow and silent.

use std::collections::BTreeMap;

use super::signing_test::{NOW, UID, a_year, authority, wanted};
use super::*;
use crate::fleet::seal::{FleetKey, SealError};
use crate::support::tls::{Usage, check_chain, read_certificates};

/// A node with its files.
struct Node {
    name: &'static str,
    bundle: Bundle,
}

impl Node {
    fn new(name: &'static str, fleet: &Authorities) -> Node {
        let all = CertificateName::ALL.map(wanted);
        let signer = fleet.signing().unwrap();
        let bundle =
            Bundle::make(&fleet.trusted(), Some(signer), BTreeMap::new(), &all, a_year(), NOW);
        Node { name, bundle: bundle.unwrap() }
    }

    /// Does what the record asks of it.
    fn follow(&mut self, fleet: &Authorities) {
        let due = fleet.due(&self.bundle, NOW).unwrap();
        assert!(due.is_something());
        self.bundle.follow(fleet, &due, &wanted(CertificateName::Peer), NOW).unwrap();
        self.bundle.check(NOW).unwrap();
        assert_eq!(fleet.due(&self.bundle, NOW).unwrap(), Due::default());
    }

    fn report(&self) -> NodeTrust {
        let reported = Some(self.bundle.report().unwrap());
        NodeTrust { name: self.name.to_owned(), reported }
    }
}

/// Whether a joiner that knows `authority` alone finds it behind what the node shows, and its way to there.
fn leads_a_joiner(node: &Node, authority: &str) -> bool {
    let shown = &node.bundle.pairs[&CertificateName::MemberApi].certificate;
    let fingerprint = |pem: &str| read_certificates(pem.as_bytes()).unwrap()[0].fingerprint;
    let is_there = read_certificates(shown.as_bytes())
        .unwrap()
        .iter()
        .any(|facts| facts.fingerprint == fingerprint(authority));
    let at = u64::try_from(NOW).unwrap();
    is_there && check_chain(shown.as_bytes(), authority.as_bytes(), Usage::Server, at).is_ok()
}

/// Everybody can speak to everybody.
fn all_agree(nodes: &[Node]) {
    for one in nodes {
        for other in nodes {
            for (name, pair) in &one.bundle.pairs {
                let met = pair.check(*name, &other.bundle.authorities, NOW);
                met.unwrap_or_else(|why| panic!("{} before {}: {why}", one.name, other.name));
            }
        }
    }
}

#[test]
fn an_authority_takes_anothers_place_and_at_no_moment_is_anybody_cut_off() {
    let mut fleet = Authorities::of(authority());
    let first = fleet.fingerprint();
    let before = fleet.trusted();
    let mut nodes = ["n1", "n2", "n3"].map(|name| Node::new(name, &fleet));
    let turn = |fleet: &Authorities, nodes: &[Node]| {
        fleet.turn(&nodes.iter().map(Node::report).collect::<Vec<_>>()).0
    };
    let late = |names: &[&str]| Turn::Wait(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(turn(&fleet, &nodes), Turn::Rest);

    // The new one is announced; each node trusts it in its own time.
    fleet = fleet.announce(authority()).unwrap();
    assert_eq!((fleet.generation(), fleet.fingerprint()), (2, first));
    for at in 0..nodes.len() {
        let behind = ["n1", "n2", "n3"];
        assert_eq!(turn(&fleet, &nodes), late(&behind[at..]));
        nodes[at].follow(&fleet);
        all_agree(&nodes);
    }
    assert_eq!(turn(&fleet, &nodes), Turn::Promote);

    // It signs; certificates are made anew one node after the other.
    fleet = fleet.promote().unwrap();
    assert_ne!(fleet.fingerprint(), first);
    let second = fleet.fingerprint();
    for at in 0..nodes.len() {
        assert!(matches!(turn(&fleet, &nodes), Turn::Wait(_)));
        nodes[at].follow(&fleet);
        all_agree(&nodes);
        assert!(leads_a_joiner(&nodes[at], &before), "tokens of before are good");
        let now = fleet.signing().unwrap().certificate();
        assert!(leads_a_joiner(&nodes[at], now), "and so are those of now");
    }
    assert_eq!((turn(&fleet, &nodes), fleet.rotation()), (Turn::Retire, Rotation::Promoted));

    // The record is what is gone on with, wherever that is.
    let key = FleetKey::generate();
    fleet = Authorities::open(&fleet.seal(&key, UID), &key, UID).unwrap();
    assert!(nodes.iter().all(|node| fleet.due(&node.bundle, NOW).unwrap() == Due::default()));
    fleet = fleet.retire().unwrap();
    for at in 0..nodes.len() {
        nodes[at].follow(&fleet);
        all_agree(&nodes);
        assert!(!leads_a_joiner(&nodes[at], &before), "tokens of before are no more");
    }
    assert_eq!((turn(&fleet, &nodes), fleet.rotation()), (Turn::Rest, Rotation::Rest));
    assert_eq!(
        (fleet.generation(), fleet.fingerprint(), fleet.contains(first)),
        (4, second, false)
    );
}

/// Its chain leads on to the one before, which tokens of before name.
#[test]
fn what_the_new_one_has_signed_leads_to_it_in_whatever_order_they_are_trusted() {
    let fleet = Authorities::of(authority());
    let old = fleet.fingerprint();
    let mut node = Node::new("n1", &fleet);
    let announced = fleet.announce(authority()).unwrap();
    let old_first = announced.trusted();
    node.follow(&announced);
    assert_eq!(node.bundle.report().unwrap().leads_to, [Some(old)].into());
    let promoted = announced.promote().unwrap();
    node.follow(&promoted);
    let new = [Some(promoted.fingerprint())];
    assert_eq!(node.bundle.report().unwrap().leads_to, new.into());
    node.bundle.authorities = old_first;
    assert_eq!(node.bundle.report().unwrap().leads_to, new.into());
}

#[test]
fn a_node_that_says_nothing_is_waited_for() {
    let fleet = Authorities::of(authority());
    let node = Node::new("n1", &fleet);
    let silent = NodeTrust { name: "n2".to_owned(), reported: None };
    let fleet = fleet.announce(authority()).unwrap();
    let mut trusting = node.report();
    trusting.reported.as_mut().unwrap().trusts.extend(
        read_certificates(fleet.trusted().as_bytes())
            .unwrap()
            .iter()
            .map(|facts| facts.fingerprint),
    );
    let nodes = [trusting, silent];
    assert_eq!(fleet.turn(&nodes).0, Turn::Wait(vec!["n2".to_owned()]));
    assert_eq!(fleet.turn(&nodes[..1]).0, Turn::Promote);
    let fleet = fleet.promote().unwrap();
    let waits = Turn::Wait(vec!["n1".to_owned(), "n2".to_owned()]);
    assert_eq!(fleet.turn(&nodes).0, waits, "n1's certificates lead to the old one");
}

#[test]
fn steps_out_of_turn_are_refused() {
    let rest = || Authorities::of(authority());
    assert!(matches!(rest().promote(), Err(PkiError::NothingAnnounced)));
    let announced = || rest().announce(authority()).unwrap();
    assert!(matches!(announced().announce(authority()), Err(PkiError::UnderWay)));
    assert!(matches!(announced().retire(), Err(PkiError::UnderWay)));
    let promoted = announced().promote().unwrap();
    assert!(matches!(promoted.announce(authority()), Err(PkiError::UnderWay)));
}

#[test]
fn the_record_has_the_keys_sealed_and_is_opened_by_the_fleets_key_alone() {
    let (key, uid) = (FleetKey::generate(), UID);
    let first = authority();
    let secret = first.key().reveal().lines().nth(1).unwrap().to_owned();
    let fleet = Authorities::of(first).announce(authority()).unwrap();
    let record = fleet.seal(&key, uid);
    assert_eq!((record.generation, record.certificates.len()), (2, 2));
    assert!(!String::from_utf8_lossy(&record.sealed_key).contains(&secret));

    let opened = Authorities::open(&record, &key, uid).unwrap();
    assert_eq!(opened.trusted(), fleet.trusted());
    assert_eq!(opened.signing().unwrap().key(), fleet.signing().unwrap().key());
    assert_eq!(opened.turn(&[]).0, Turn::Promote, "the second key is there, too");
    let promoted = opened.promote().unwrap().seal(&key, uid);
    let promoted = Authorities::open(&promoted, &key, uid).unwrap();
    assert_ne!(promoted.fingerprint(), fleet.fingerprint());
    assert_eq!(promoted.turn(&[]).0, Turn::Retire, "the old key is gone");

    let broken = |opened| matches!(opened, Err(PkiError::Seal(SealError::Broken)));
    assert!(broken(Authorities::open(&record, &FleetKey::generate(), uid)));
    assert!(broken(Authorities::open(&record, &key, "another")));
    let moved = quorate_core::api::pb::internal::FleetAuthority { generation: 3, ..record.clone() };
    assert!(broken(Authorities::open(&moved, &key, uid)));
    let foreign = quorate_core::api::pb::internal::FleetAuthority {
        certificates: vec![authority().certificate().to_owned().into()],
        ..record
    };
    let refused = Authorities::open(&foreign, &key, uid).unwrap_err().to_string();
    assert!(refused.contains("belongs to none of the certificates"), "{refused}");
}

#[test]
fn authorities_whose_keys_are_kept_elsewhere_sign_nothing_and_ask_nothing_of_nodes() {
    let (own, key) = (authority(), FleetKey::generate());
    let node = Node::new("n1", &Authorities::of(authority()));
    let fleet = Authorities::kept_elsewhere(own.certificate()).unwrap();
    assert!(matches!(fleet.signing(), Err(PkiError::KeyElsewhere)));
    assert_eq!(fleet.fingerprint(), own.fingerprint());
    let record = fleet.seal(&key, UID);
    assert!(record.sealed_key.is_empty());
    let fleet = Authorities::open(&record, &key, UID).unwrap();
    assert!(!fleet.can_sign() && fleet.contains(own.fingerprint()));
    assert_eq!(fleet.turn(&[node.report()]).0, Turn::Rest);
    let due = fleet.due(&node.bundle, NOW).unwrap();
    assert_eq!(due, Due { trust: true, ..Due::default() });
    // It can be replaced by one that signs here.
    let fleet = fleet.announce(authority()).unwrap();
    assert!(matches!(fleet.turn(&[node.report()]).0, Turn::Wait(_)));
    assert!(fleet.promote().unwrap().can_sign());
    assert!(Authorities::kept_elsewhere("nothing").is_err());
}
