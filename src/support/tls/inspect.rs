//! What stands in certificates, and whether they fit, judged by what judges handshakes: what is found good here is not
//! refused there.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certificate::Certificate;
use super::files::{Trust, certificates, key_pair};
use super::fingerprint::Fingerprint;
use super::protocol::Protocol;
use super::words;

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The certificate.
    pub der: Vec<u8>,
    /// How it is named where it must be this one.
    pub fingerprint: Fingerprint,
    /// The subject's common name, empty if there is none.
    pub common_name: String,
    /// The subject's organisations.
    pub organisations: Vec<String>,
    /// Host names and addresses it is valid for.
    pub hosts: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Whether it may sign others.
    pub is_authority: bool,
    /// Whether it, and whoever it signs for, may be shown by a client and by a server.
    pub for_both_sides: bool,
}

/// What a certificate is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// By who connects.
    Client,
    /// By who is connected to.
    Server,
}

/// Every certificate of a PEM text, in its order. None is an error.
pub fn read_certificates(pem: &[u8]) -> Result<Vec<Facts>, String> {
    let found: Vec<Facts> = certificates(pem).map(facts).collect::<Result<_, _>>()?;
    match found.is_empty() {
        true => Err("tls: failed to find any PEM data in certificate input".to_owned()),
        false => Ok(found),
    }
}

fn facts(der: Vec<u8>) -> Result<Facts, String> {
    let read = Certificate::parse(&der)?;
    let malformed = |why: &dyn std::fmt::Display| format!("x509: malformed certificate: {why}");
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|why| malformed(&why))?;
    let constraints = parsed.basic_constraints().map_err(|why| malformed(&why))?;
    let usage = parsed.key_usage().map_err(|why| malformed(&why))?;
    let is_authority = constraints.is_some_and(|found| found.value.ca)
        && usage.is_none_or(|found| found.value.key_cert_sign());
    let addresses = read.ips.iter().map(ToString::to_string);
    Ok(Facts {
        fingerprint: Fingerprint::of(&der),
        common_name: read.common_name.unwrap_or_default(),
        organisations: read.organisations,
        hosts: read.dns_names.iter().cloned().chain(addresses).collect(),
        not_before: read.not_before,
        not_after: read.not_after,
        is_authority,
        for_both_sides: read.for_clients && read.for_servers,
        der,
    })
}

/// Whether the first certificate of a PEM text belongs to this key; if not, why not, in Go's words.
pub fn check_pair(certificates: &[u8], key: &[u8]) -> Result<(), String> {
    key_pair(certificates, key, &provider()).map(drop)
}

/// Whether the first certificate of `chain` leads to one of `authorities` (both PEM) at `now` (seconds since 1970), for
/// this use and whatever its names; if not, why not, in Go's words.
pub fn check_chain(chain: &[u8], authorities: &[u8], usage: Usage, now: u64) -> Result<(), String> {
    let mut shown = certificates(chain).map(CertificateDer::from);
    let leaf = shown.next().ok_or("tls: failed to find any PEM data in certificate input")?;
    let others: Vec<CertificateDer<'_>> = shown.collect();
    let (provider, time) = (provider(), UnixTime::since_unix_epoch(Duration::from_secs(now)));
    let verdict = match usage {
        Usage::Client => {
            let trust = Trust::read(authorities, &provider)?;
            let verifier = trust.of_clients.ok_or("x509: there are no authorities")?;
            verifier.verify_client_cert(&leaf, &others, time).map(drop)
        }
        Usage::Server => {
            let mut roots = RootCertStore::empty();
            for der in certificates(authorities) {
                let added = roots.add(CertificateDer::from(der));
                added.map_err(|why| format!("x509: malformed certificate: {why}"))?;
            }
            let algorithms = provider.signature_verification_algorithms.all;
            ParsedCertificate::try_from(&leaf).and_then(|leaf| {
                verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &others, time, algorithms)
            })
        }
    };
    let certificate = Certificate::parse(&leaf)?;
    verdict.map_err(|why| words::of_verification(&why, &certificate, now, None))
}

fn provider() -> Arc<CryptoProvider> {
    Protocol::default().provider
}

#[cfg(test)]
mod tests {
    use rcgen::ExtendedKeyUsagePurpose;

    use super::super::testing::{Authority, Wanted, wanted};
    use super::*;
    use crate::support::clock::unix_micros;

    #[test]
    fn a_certificate_is_good_for_what_its_authority_signed_it_for() {
        let (authority, other) = (Authority::new("one"), Authority::new("other"));
        let made = authority
            .sign(&Wanted { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..wanted("m1") });
        let now = unix_micros() / 1_000_000;
        let check = |bundle: &str, usage, now| {
            check_chain(made.cert.as_bytes(), bundle.as_bytes(), usage, now)
        };
        assert_eq!(check(&authority.pem, Usage::Server, now), Ok(()));
        let both = format!("{}{}", other.pem, authority.pem);
        assert_eq!(check(&both, Usage::Server, now), Ok(()));
        for (bundle, usage, now, why) in [
            (&authority.pem, Usage::Client, now, "incompatible key usage"),
            (&other.pem, Usage::Server, now, "unknown authority"),
            (&authority.pem, Usage::Server, now + 90_000, "expired"),
            (&String::new(), Usage::Server, now, "unknown authority"),
        ] {
            let refused = check(bundle, usage, now).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        assert_eq!(check_pair(made.cert.as_bytes(), made.key.as_bytes()), Ok(()));
        let another = authority.sign(&wanted("m1"));
        assert_eq!(
            check_pair(made.cert.as_bytes(), another.key.as_bytes()),
            Err("tls: private key does not match public key".to_owned())
        );
    }

    #[test]
    fn facts_are_told_of_each_certificate_in_order() {
        let authority = Authority::new("one");
        let leaf = authority.sign(&wanted("m1")).cert;
        let read = read_certificates(format!("{leaf}{}", authority.pem).as_bytes()).unwrap();
        let names: Vec<(&str, bool)> =
            read.iter().map(|found| (found.common_name.as_str(), found.is_authority)).collect();
        assert_eq!(names, [("m1", false), ("one", true)]);
        assert_eq!(read[0].hosts, ["127.0.0.1"]);
        assert_eq!(read[0].not_after - read[0].not_before, 25 * 3600);
        assert!(read_certificates(b"nothing").is_err());
    }
}
