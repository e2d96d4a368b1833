//! What is signed, for whom, and what is refused.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use x509_parser::pem::parse_x509_pem;

use super::names::host_of;
use super::*;
use crate::fleet::secret::Secret;
use crate::support::tls::{Facts, Usage, check_chain, read_certificates};

/// The hour of these tests, in seconds since 1970.
pub(super) const NOW: i64 = 1_800_000_000;
pub(super) const UID: &str = "6f1ed002-ab59-4d5e-8b3f-0d3f6f0d7a11";

pub(super) fn authority() -> Authority {
    Authority::generate(UID, Validity::starting(NOW, AUTHORITY_SECONDS).unwrap()).unwrap()
}

pub(super) fn a_year() -> Validity {
    Validity::starting(NOW, LEAF_SECONDS).unwrap()
}

pub(super) fn wanted(certificate: CertificateName) -> Wanted {
    let addresses = ["10.0.0.1:6400".to_owned(), "https://n1.example:2380".to_owned()];
    let extra = ["etcd.example".to_owned()];
    Wanted::new(certificate, Organisation::ControlPlane, "n1", &addresses, &extra)
}

fn signed(authority: &Authority, wanted: &Wanted) -> Result<Facts, PkiError> {
    let pending = Pending::new(wanted)?;
    let chain = authority.sign(&Request::read(&pending.request)?, wanted, a_year())?;
    Ok(read_certificates(chain.as_bytes()).unwrap().remove(0))
}

#[test]
fn a_certificate_says_who_holds_it_and_where_and_is_good_for_its_use_alone() {
    let authority = authority();
    for certificate in CertificateName::ALL {
        let wanted = wanted(certificate);
        let pair = Pair::signed(&authority, &wanted, a_year()).unwrap();
        let read = read_certificates(pair.certificate.as_bytes()).unwrap();
        assert_eq!(read.len(), 2, "the authority is shown behind it");
        assert_eq!(read[1].fingerprint, authority.fingerprint());
        let leaf = &read[0];
        assert_eq!(leaf.common_name, "n1");
        assert_eq!(leaf.organisations, ["quorate:control-plane"]);
        assert!(!leaf.is_authority);
        let mut hosts = leaf.hosts.clone();
        hosts.sort();
        let all = ["10.0.0.1", "127.0.0.1", "::1", "etcd.example", "localhost", "n1", "n1.example"];
        assert_eq!(hosts, all);
        assert_eq!((leaf.not_before, leaf.not_after), (NOW - 3600, NOW + 365 * 86_400));
        pair.check(certificate, authority.certificate(), NOW).unwrap();
        for usage in [Usage::Client, Usage::Server] {
            let trusted = authority.certificate().as_bytes();
            let now = u64::try_from(NOW).unwrap();
            let good = check_chain(pair.certificate.as_bytes(), trusted, usage, now).is_ok();
            assert_eq!(good, certificate.usages().contains(&usage), "{certificate} {usage:?}");
        }
    }
}

#[test]
fn two_certificates_have_two_numbers_and_two_keys() {
    let authority = authority();
    let wanted = wanted(CertificateName::Peer);
    let (one, other) = (signed(&authority, &wanted).unwrap(), signed(&authority, &wanted).unwrap());
    let serial = |facts: &Facts| {
        use x509_parser::prelude::FromDer as _;
        let (_, read) = x509_parser::prelude::X509Certificate::from_der(&facts.der).unwrap();
        read.raw_serial().to_vec()
    };
    assert_ne!(serial(&one), serial(&other));
    assert_eq!(serial(&one).len(), 16);
    assert_ne!(one.fingerprint, other.fingerprint);
}

#[test]
fn a_certificate_is_not_valid_for_longer_than_who_signed_it() {
    let short = Authority::generate(UID, Validity::starting(NOW, 86_400).unwrap()).unwrap();
    let leaf = signed(&short, &wanted(CertificateName::Server)).unwrap();
    assert_eq!(leaf.not_after, NOW + 86_400);
    let later = Validity::starting(NOW + 90_000 + 3600, LEAF_SECONDS).unwrap();
    let refused = Pair::signed(&short, &wanted(CertificateName::Server), later).unwrap_err();
    assert!(refused.to_string().contains("it has expired"), "{refused}");
    assert!(matches!(Validity::starting(NOW, 59), Err(PkiError::TooShort)));
}

/// A request that `change` made of an honest one.
fn request(change: impl FnOnce(&mut CertificateParams)) -> Result<Request, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "n1");
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    Request::read(&params.serialize_request(&key).unwrap().pem().unwrap())
}

#[test]
fn what_a_request_wishes_for_is_told_and_not_signed() {
    let greedy = request(|params| {
        params.distinguished_name.push(DnType::OrganizationName, "quorate:admin");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![
            rcgen::SanType::DnsName("other.example".try_into().unwrap()),
            rcgen::SanType::IpAddress("10.9.9.9".parse().unwrap()),
        ];
    })
    .unwrap();
    assert_eq!(greedy.hosts, ["other.example", "10.9.9.9"]);
    let authority = authority();
    let wanted = Wanted {
        organisation: Organisation::Worker,
        hosts: vec!["n1".to_owned()],
        ..wanted(CertificateName::Client)
    };
    let chain = authority.sign(&greedy, &wanted, a_year()).unwrap();
    let leaf = &read_certificates(chain.as_bytes()).unwrap()[0];
    assert_eq!(leaf.organisations, ["quorate:worker"]);
    assert_eq!(leaf.hosts, ["n1"]);
    assert!(!leaf.is_authority);
    // Who may have its wishes gets them.
    let granted = wanted.with_hosts(&greedy.hosts);
    assert_eq!(granted.hosts, ["n1", "other.example", "10.9.9.9"]);
}

#[test]
fn a_request_under_another_name_is_refused() {
    let other = request(|params| params.distinguished_name.push(DnType::CommonName, "n2"));
    let refused = authority().sign(&other.unwrap(), &wanted(CertificateName::Peer), a_year());
    let refused = refused.unwrap_err().to_string();
    assert!(refused.ends_with("it is for \"n2\", and \"n1\" was admitted"), "{refused}");
    let nameless = request(|params| params.distinguished_name = rcgen::DistinguishedName::new());
    assert!(authority().sign(&nameless.unwrap(), &wanted(CertificateName::Peer), a_year()).is_ok());
}

#[test]
fn each_bad_request_is_refused() {
    let good = Pending::new(&wanted(CertificateName::Peer)).unwrap().request;
    assert!(Request::read(&good).is_ok());
    let (_, pem) = parse_x509_pem(good.as_bytes()).unwrap();
    let armoured =
        |der: &[u8]| super::bundle::pem(der).replace("CERTIFICATE", "CERTIFICATE REQUEST");
    let mut forged = pem.contents.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let mut followed = pem.contents.clone();
    followed.push(0);
    let edwards = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let edwards = CertificateParams::default().serialize_request(&edwards).unwrap().pem().unwrap();
    for (given, why) in [
        (String::new(), "it is no PEM text"),
        (good.replace("REQUEST", "THING"), "the PEM text is none"),
        (armoured(&pem.contents[..last]), "it is malformed"),
        (armoured(&forged), "its signature does not fit its key"),
        (armoured(&followed), "something follows it"),
        ("x".repeat(20_000), "it is too long"),
        (edwards, "its key is neither P-256 nor P-384"),
    ] {
        let refused = Request::read(&given).unwrap_err().to_string();
        assert_eq!(refused, format!("the certificate signing request is refused: {why}"));
    }
    let larger = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let larger = CertificateParams::default().serialize_request(&larger).unwrap().pem().unwrap();
    assert!(Request::read(&larger).is_ok());
}

#[test]
fn a_host_that_is_none_is_refused_before_anything_is_signed() {
    let odd = Wanted { hosts: vec!["a b".to_owned()], ..wanted(CertificateName::Server) };
    let refused = Pending::new(&odd).unwrap_err();
    assert_eq!(refused.to_string(), "\"a b\" is neither a host name nor an address");
    // A name that no resolver would take is no host, and no reason to refuse the node.
    let named = Wanted::new(CertificateName::Peer, Organisation::Worker, "n 1", &[], &[]);
    assert_eq!(named.hosts, ["localhost", "127.0.0.1", "::1"]);
    assert_eq!(host_of("0.0.0.0:6400").as_deref(), Some("0.0.0.0"));
    let everywhere = ["0.0.0.0:6400".to_owned()];
    let open = Wanted::new(CertificateName::Peer, Organisation::Worker, "n1", &everywhere, &[]);
    assert!(!open.hosts.contains(&"0.0.0.0".to_owned()));
}

/// An authority as somebody else makes them.
fn foreign(change: impl FnOnce(&mut CertificateParams)) -> (String, Secret) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let printable = rcgen::DnValue::PrintableString("Example Root".try_into().unwrap());
    params.distinguished_name.push(DnType::CommonName, printable);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    change(&mut params);
    (params.self_signed(&key).unwrap().pem(), Secret::from(key.serialize_pem()))
}

#[test]
fn a_supplied_authority_signs_and_one_that_cannot_is_refused() {
    let (certificate, key) = foreign(|_| {});
    let supplied = Authority::supplied(&certificate, &key, NOW).unwrap();
    let pair = Pair::signed(&supplied, &wanted(CertificateName::Peer), a_year()).unwrap();
    pair.check(CertificateName::Peer, &certificate, NOW).unwrap();

    let refused = |certificate: &str, key: &Secret| {
        Authority::supplied(certificate, key, NOW).unwrap_err().to_string()
    };
    let (_, other) = foreign(|_| {});
    let why = refused(&certificate, &other);
    assert!(why.ends_with("tls: private key does not match public key"), "{why}");
    let (leaf, leaf_key) = foreign(|params| params.is_ca = rcgen::IsCa::ExplicitNoCa);
    let why = refused(&leaf, &leaf_key);
    assert!(why.ends_with("the certificate is no authority by its own word"), "{why}");
    let (mute, mute_key) =
        foreign(|params| params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign]);
    assert!(refused(&mute, &mute_key).ends_with("no authority by its own word"));
    let (old, old_key) = foreign(|params| {
        params.not_after = time::OffsetDateTime::from_unix_timestamp(NOW - 1).unwrap();
    });
    assert!(refused(&old, &old_key).contains("expired"));
    let (narrow, narrow_key) = foreign(|params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    let why = refused(&narrow, &narrow_key);
    assert!(why.ends_with("it may not sign for clients and servers alike"), "{why}");
    let (bounded, bounded_key) = foreign(|params| {
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("corp.example".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    });
    let why = refused(&bounded, &bounded_key);
    assert!(why.starts_with("what the supplied authority signs: "), "{why}");
    let (strange, strange_key) = foreign(|params| {
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 40, 1]), "x");
    });
    let why = refused(&strange, &strange_key);
    assert!(why.ends_with("its subject cannot be put into what it signs"), "{why}");
    let why = refused(&format!("{certificate}{certificate}"), &key);
    assert!(why.ends_with("one certificate is needed, without others"), "{why}");
    let why = refused(&certificate, &Secret::from("-----BEGIN hunter2"));
    assert!(!why.contains("hunter2") && why.contains("it cannot be read"), "{why}");
}

#[test]
fn what_is_not_supplied_is_signed_and_without_the_key_all_must_be_supplied() {
    let (certificate, key) = foreign(|_| {});
    let signer = Authority::supplied(&certificate, &key, NOW).unwrap();
    let all = CertificateName::ALL.map(wanted);
    let peer = Pair::signed(&signer, &wanted(CertificateName::Peer), a_year()).unwrap();
    let supplied = BTreeMap::from([(CertificateName::Peer, peer.clone())]);
    let make = |authority: Option<&Authority>, supplied: &BTreeMap<_, _>| {
        Bundle::make(&certificate, authority, supplied.clone(), &all, a_year(), NOW)
    };
    let bundle = make(Some(&signer), &supplied).unwrap();
    assert_eq!(bundle.pairs.len(), 4);
    assert_eq!(bundle.pairs[&CertificateName::Peer], peer);
    assert!(matches!(make(None, &supplied), Err(PkiError::KeyElsewhere)));
    assert_eq!(make(None, &bundle.pairs).unwrap(), bundle);
    // Of another authority; of another role.
    let stranger = Pair::signed(&authority(), &wanted(CertificateName::Peer), a_year()).unwrap();
    let refused = make(Some(&signer), &BTreeMap::from([(CertificateName::Peer, stranger)]));
    assert!(refused.unwrap_err().to_string().contains("unknown authority"));
    for name in [CertificateName::Client, CertificateName::Peer] {
        let worker = Wanted { organisation: Organisation::Worker, ..wanted(name) };
        let worker = Pair::signed(&signer, &worker, a_year()).unwrap();
        let refused = make(Some(&signer), &BTreeMap::from([(name, worker)]));
        let why = refused.unwrap_err().to_string();
        assert!(why.ends_with("lacks the organisation (O) quorate:control-plane"), "{why}");
    }
}

#[test]
fn keys_are_shown_to_nobody() {
    let authority = authority();
    let pair = Pair::signed(&authority, &wanted(CertificateName::Peer), a_year()).unwrap();
    let pending = Pending::new(&wanted(CertificateName::Peer)).unwrap();
    let secrets = [authority.key().reveal(), pair.key.reveal(), pending.key.reveal()];
    let secrets = secrets.map(|pem| pem.lines().nth(1).unwrap().to_owned());
    let bundle = Bundle {
        authorities: authority.certificate().to_owned(),
        pairs: BTreeMap::from([(CertificateName::Peer, pair.clone())]),
    };
    let update = Update { authorities: None, pairs: bundle.pairs.clone() };
    let shown = format!("{authority:?} {pair:?} {pending:?} {bundle:?} {update:?}");
    let shown = format!("{shown} {:?}", Authorities::of(authority));
    for secret in secrets {
        assert!(!shown.contains(&secret), "{shown}");
    }
}

/// A text in which one byte of the DER is another.
fn damaged(pem: &str, label: &str, at: prop::sample::Index, byte: u8) -> String {
    let (_, read) = parse_x509_pem(pem.as_bytes()).unwrap();
    let mut der = read.contents;
    let at = at.index(der.len());
    der[at] = byte;
    super::bundle::pem(&der).replace("CERTIFICATE", label)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_damaged_request_or_authority_is_refused_without_a_panic(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        static GOOD: LazyLock<(String, String, Secret)> = LazyLock::new(|| {
            let pending = Pending::new(&wanted(CertificateName::Peer)).unwrap();
            let authority = authority();
            (pending.request, authority.certificate().to_owned(), authority.key().clone())
        });
        let (request, certificate, key) = &*GOOD;
        let changed = damaged(request, "CERTIFICATE REQUEST", at, byte);
        // What is not signed may be damaged without harm, as how many bits of the last byte of the signature count.
        if let Ok(read) = Request::read(&changed) {
            let good = Request::read(request).unwrap();
            prop_assert_eq!((read.name, read.hosts, read.key), (good.name, good.hosts, good.key));
        }
        // A signature that nobody looks at may be damaged: an authority is trusted as it is.
        let _ = Authority::supplied(&damaged(certificate, "CERTIFICATE", at, byte), key, NOW);
    }
}
