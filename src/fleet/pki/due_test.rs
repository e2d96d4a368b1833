//! When certificates are made anew, and which are left alone.

use std::collections::{BTreeMap, BTreeSet};

use super::signing_test::{NOW, UID, authority, wanted};
use super::*;

const DAY: i64 = 86_400;

fn node(fleet: &Authorities, days: u64) -> Bundle {
    let all = CertificateName::ALL.map(wanted);
    let validity = Validity::starting(NOW, days * 86_400).unwrap();
    let signer = Some(fleet.signing().unwrap());
    Bundle::make(&fleet.trusted(), signer, BTreeMap::new(), &all, validity, NOW).unwrap()
}

fn renewed_at(fleet: &Authorities, bundle: &Bundle, day: i64) -> usize {
    fleet.due(bundle, NOW + day * DAY).unwrap().renew.len()
}

#[test]
fn certificates_are_renewed_with_a_third_of_their_time_left_and_not_all_at_once() {
    let fleet = Authorities::of(authority());
    let mut moments = BTreeSet::new();
    for _ in 0..4 {
        let bundle = node(&fleet, 90);
        assert_eq!(renewed_at(&fleet, &bundle, 56), 0);
        assert_eq!(renewed_at(&fleet, &bundle, 60), 4);
        let hours = (57 * 24..60 * 24).map(|hour| NOW + hour * 3600);
        moments.extend(hours.map(|now| fleet.due(&bundle, now).unwrap().renew.len()));
    }
    assert!(moments.len() > 2, "by chance each at an hour of its own: {moments:?}");
}

#[test]
fn a_renewed_certificate_is_good_for_as_long_as_the_one_before_it() {
    let fleet = Authorities::of(authority());
    let mut bundle = node(&fleet, 30);
    let now = NOW + 25 * DAY;
    let due = fleet.due(&bundle, now).unwrap();
    assert_eq!(due.renew.len(), 4);
    bundle.follow(&fleet, &due, &wanted(CertificateName::Peer), now).unwrap();
    bundle.check(now).unwrap();
    for (name, pair) in &bundle.pairs {
        assert_eq!(pair.facts(*name).unwrap().not_after, now + 30 * DAY);
    }
    assert_eq!(fleet.due(&bundle, now).unwrap(), Due::default());
}

#[test]
fn what_ends_with_its_authority_is_told_and_not_made_anew_again_and_again() {
    let short = Validity::starting(NOW, 100 * 86_400).unwrap();
    let fleet = Authorities::of(Authority::generate(UID, short).unwrap());
    let bundle = node(&fleet, 365);
    let due = fleet.due(&bundle, NOW + 90 * DAY).unwrap();
    assert!(!due.is_something());
    assert_eq!(due.stuck[&CertificateName::Server], NOW + 100 * DAY);
    // Its successor gives them their time back.
    let mut bundle = bundle;
    let now = NOW + 90 * DAY;
    let next = Validity::starting(now, AUTHORITY_SECONDS).unwrap();
    let fleet = fleet.announce(Authority::generate(UID, next).unwrap()).unwrap();
    let fleet = fleet.promote().unwrap();
    let due = fleet.due(&bundle, now).unwrap();
    bundle.follow(&fleet, &due, &wanted(CertificateName::Peer), now).unwrap();
    let facts = bundle.pairs[&CertificateName::Peer].facts(CertificateName::Peer).unwrap();
    assert_eq!(facts.not_after, now + 365 * DAY);
}

#[test]
fn what_somebody_else_has_signed_is_never_replaced_and_told_when_it_runs_out() {
    let (fleet, other) = (Authorities::of(authority()), authority());
    let mut bundle = node(&fleet, 90);
    let server = wanted(CertificateName::Server);
    let validity = Validity::starting(NOW, 30 * 86_400).unwrap();
    let foreign = Pair::signed(&other, &server, validity).unwrap();
    bundle.pairs.insert(CertificateName::Server, foreign.clone());
    assert_eq!(fleet.due(&bundle, NOW).unwrap(), Due::default());
    let due = fleet.due(&bundle, NOW + 29 * DAY).unwrap();
    assert_eq!(due.stuck, BTreeMap::from([(CertificateName::Server, NOW + 30 * DAY)]));
    let fleet = fleet.announce(authority()).unwrap().promote().unwrap();
    let due = fleet.due(&bundle, NOW).unwrap();
    assert_eq!(due.renew.len(), 3);
    bundle.follow(&fleet, &due, &wanted(CertificateName::Peer), NOW).unwrap();
    assert_eq!(bundle.pairs[&CertificateName::Server], foreign);
}

#[test]
fn what_a_node_reports_is_read_back_and_what_is_no_fingerprint_is_nobody() {
    let fleet = Authorities::of(authority());
    let mut bundle = node(&fleet, 90);
    let report = bundle.report().unwrap();
    let told = serde_json::to_value(&report).unwrap();
    assert_eq!(told["trusts"], serde_json::json!([fleet.fingerprint().to_string()]));
    assert_eq!(serde_json::from_value::<Trusted>(told).unwrap(), report);
    bundle.authorities = authority().certificate().to_owned();
    let told = serde_json::to_value(bundle.report().unwrap()).unwrap();
    assert_eq!(told["leads-to"], serde_json::json!([""]));
    let odd = serde_json::json!({"trusts": ["x"], "leads-to": ["x"]});
    let odd: Trusted = serde_json::from_value(odd).unwrap();
    assert_eq!((odd.trusts.len(), odd.leads_to), (0, BTreeSet::from([None])));
}
