//! Plans and seeds, new certificates, and those that are put in from outside.

use std::collections::{BTreeMap, BTreeSet};

use super::signing_test::{NOW, UID, a_year, authority, wanted};
use super::*;
use crate::fleet::secret::Secret;

const NOW_MS: i64 = NOW * 1000;

fn bundle(authority: &Authority) -> Bundle {
    let all = CertificateName::ALL.map(wanted);
    let signer = Some(authority);
    Bundle::make(authority.certificate(), signer, BTreeMap::new(), &all, a_year(), NOW).unwrap()
}

#[test]
fn a_run_shows_the_seed_of_what_was_planned_and_uses_it_up() {
    let bundle = bundle(&authority());
    let plans = Plans::default();
    let (peer, server) = (CertificateName::Peer, CertificateName::Server);
    let plan = plans.plan(&bundle, &[peer, server], NOW_MS).unwrap();
    assert!(plan.seed > 0 && plan.seed < 1 << 53);
    let redeem = |seed, names: &[_], now_ms| plans.redeem(seed, names, now_ms);
    assert!(matches!(redeem(plan.seed + 1, &[], NOW_MS), Err(PkiError::NoPlan)));
    let other = redeem(plan.seed, &[CertificateName::Client], NOW_MS).unwrap_err();
    assert_eq!(other.to_string(), "the plan does not cover the client certificate: plan again");
    assert_eq!(redeem(plan.seed, &[peer], NOW_MS).unwrap(), BTreeSet::from([peer]));
    assert!(matches!(redeem(plan.seed, &[peer], NOW_MS), Err(PkiError::NoPlan)));

    let all = plans.plan(&bundle, &[], NOW_MS).unwrap();
    assert_eq!(all.certificates.len(), 4);
    assert_eq!(redeem(all.seed, &[], NOW_MS).unwrap(), all.certificates);
    let old = plans.plan(&bundle, &[], NOW_MS).unwrap();
    assert!(matches!(redeem(old.seed, &[], NOW_MS + 3_600_000), Err(PkiError::NoPlan)));

    let worker = Bundle { pairs: BTreeMap::new(), ..bundle };
    let refused = plans.plan(&worker, &[peer], NOW_MS).unwrap_err();
    assert_eq!(refused.to_string(), "this node has no peer certificate");
}

#[test]
fn plans_are_bounded_and_the_newest_stay() {
    let bundle = bundle(&authority());
    let plans = Plans::default();
    let seeds: Vec<i64> = (0..20).map(|_| plans.plan(&bundle, &[], NOW_MS).unwrap().seed).collect();
    assert!(matches!(plans.redeem(seeds[0], &[], NOW_MS), Err(PkiError::NoPlan)));
    assert!(plans.redeem(seeds[19], &[], NOW_MS).is_ok());
}

#[test]
fn chosen_certificates_are_made_anew_with_new_keys_and_the_others_stay() {
    let authority = authority();
    let mut bundle = bundle(&authority);
    let before = bundle.clone();
    let later = Validity::starting(NOW + 86_400, 30 * 86_400).unwrap();
    let wanted = wanted(CertificateName::Peer).with_hosts(&["new.example".to_owned()]);
    let names = BTreeSet::from([CertificateName::Peer, CertificateName::MemberApi]);
    let expires = bundle.renew(&authority, &wanted, &names, later).unwrap();
    assert_eq!(expires, NOW + 31 * 86_400);
    for name in CertificateName::ALL {
        let same = bundle.pairs[&name] == before.pairs[&name];
        assert_eq!(same, !names.contains(&name), "{name}");
        assert_ne!(bundle.pairs[&name].key == before.pairs[&name].key, names.contains(&name));
    }
    let facts = bundle.pairs[&CertificateName::MemberApi].facts(CertificateName::MemberApi);
    assert!(facts.unwrap().hosts.contains(&"new.example".to_owned()));
    bundle.check(NOW + 86_400).unwrap();

    // The names that one was made for are its own from then on.
    let names = BTreeSet::from([CertificateName::MemberApi, CertificateName::Server]);
    bundle
        .renew(&authority, &super::signing_test::wanted(CertificateName::Peer), &names, later)
        .unwrap();
    let is_named = |name| {
        let hosts: Vec<String> = bundle.pairs[&name].facts(name).unwrap().hosts;
        hosts.contains(&"new.example".to_owned())
    };
    assert!(is_named(CertificateName::MemberApi) && !is_named(CertificateName::Server));

    let odd = wanted.with_hosts(&["a b".to_owned()]);
    let before = bundle.clone();
    assert!(bundle.renew(&authority, &odd, &names, later).is_err());
    assert_eq!(bundle, before, "all or none");
}

#[test]
fn the_status_tells_what_runs_out_when_and_who_could_make_it_anew() {
    let authority = authority();
    let (bundle, fingerprint) = (bundle(&authority), authority.fingerprint());
    let elsewhere = Authorities::kept_elsewhere(authority.certificate()).unwrap();
    let fleet = Authorities::of(authority);
    let status = bundle.status(&fleet).unwrap();
    let names: Vec<&str> = status.certificates.iter().map(|status| status.name.as_str()).collect();
    assert_eq!(names, ["server", "peer", "client", "member-api"]);
    for certificate in &status.certificates {
        assert_eq!(certificate.expires, NOW + 365 * 86_400);
        assert_eq!((certificate.authority.as_str(), certificate.externally_managed), ("ca", false));
    }
    let ca = AuthorityStatus {
        name: "ca".to_owned(),
        fingerprint,
        expires: NOW + 10 * 365 * 86_400,
        externally_managed: false,
    };
    assert_eq!(status.authorities, std::slice::from_ref(&ca));
    let status = bundle.status(&elsewhere).unwrap();
    assert!(status.certificates.iter().all(|status| status.externally_managed));
    assert_eq!(status.authorities, [AuthorityStatus { externally_managed: true, ..ca }]);
}

fn update(name: CertificateName, pair: Pair) -> Update {
    Update { authorities: None, pairs: BTreeMap::from([(name, pair)]) }
}

#[test]
fn certificates_from_outside_are_taken_over_if_they_fit_and_refused_otherwise() {
    let (authority, other) = (authority(), Authority::generate(UID, a_year()).unwrap());
    let start = bundle(&authority);
    let server = CertificateName::Server;
    let sign =
        |authority: &Authority, name| Pair::signed(authority, &wanted(name), a_year()).unwrap();
    let good = sign(&authority, server);
    let put = |update: Update, now| {
        let mut bundle = start.clone();
        let put = bundle.update(update, Organisation::ControlPlane, now);
        assert!(put.is_ok() || bundle == start, "refused whole");
        put.map(|()| bundle).map_err(|why| why.to_string())
    };
    assert_eq!(put(update(server, good.clone()), NOW).unwrap().pairs[&server], good);

    let mixed = Pair { key: start.pairs[&server].key.clone(), ..good.clone() };
    let swapped = Pair {
        certificate: good.key.reveal().to_owned(),
        key: Secret::from(good.certificate.as_str()),
    };
    let worker = Wanted { organisation: Organisation::Worker, ..wanted(CertificateName::Client) };
    let worker = Pair::signed(&authority, &worker, a_year()).unwrap();
    for (update, now, why) in [
        (update(server, mixed), NOW, "tls: private key does not match public key"),
        (update(server, sign(&other, server)), NOW, "unknown authority"),
        (update(server, good.clone()), NOW + 366 * 86_400, "expired"),
        (update(server, sign(&authority, CertificateName::Client)), NOW, "incompatible key usage"),
        (update(server, swapped), NOW, "PEM inputs may have been switched"),
        (update(CertificateName::Client, worker), NOW, "lacks the organisation"),
        (
            Update { authorities: Some(other.certificate().to_owned()), ..Update::default() },
            NOW,
            "unknown authority",
        ),
        (
            Update { authorities: Some("nothing".to_owned()), ..Update::default() },
            NOW,
            "failed to find any PEM data",
        ),
        (
            Update { authorities: Some(good.certificate.clone()), ..Update::default() },
            NOW,
            "no authority by its own word",
        ),
    ] {
        let refused = put(update, now).unwrap_err();
        assert!(refused.contains(why), "{refused}, not {why}");
        assert!(!refused.contains("PRIVATE KEY"), "{refused}");
    }

    // Everything at once, of another authority.
    let all = CertificateName::ALL.map(|name| (name, sign(&other, name)));
    let authorities = Some(other.certificate().to_owned());
    let put = put(Update { authorities, pairs: BTreeMap::from(all) }, NOW).unwrap();
    assert_eq!(put.trusted().unwrap()[0].fingerprint, other.fingerprint());
}
