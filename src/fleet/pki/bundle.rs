//! What one node has: the authorities it trusts, and its certificates with their keys.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::super::secret::Secret;
use super::authority::{Authority, Validity, check_authority};
use super::error::PkiError;
use super::names::{CertificateName, Organisation};
use super::request::{Pending, Request, Wanted};
use crate::support::tls::{Facts, Fingerprint, check_chain, check_pair, read_certificates};

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// PEM: the certificate, and those that lead from it to an authority.
    pub certificate: String,
    /// PEM.
    pub key: Secret,
}

/// A node's certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// PEM: whom it trusts.
    pub authorities: String,
    /// What it shows. A worker has not all of them.
    pub pairs: BTreeMap<CertificateName, Pair>,
}

impl Pair {
    /// A new key, signed for at once: on a node that has the authority's key.
    pub fn signed(
        authority: &Authority,
        wanted: &Wanted,
        validity: Validity,
    ) -> Result<Pair, PkiError> {
        let Pending { request, key } = Pending::new(wanted)?;
        let certificate = authority.sign(&Request::read(&request)?, wanted, validity)?;
        Ok(Pair { certificate, key })
    }

    /// What the certificate says.
    pub fn facts(&self, name: CertificateName) -> Result<Facts, PkiError> {
        let read = read_certificates(self.certificate.as_bytes());
        let found = read.map_err(|why| PkiError::unfit(format!("the {name} certificate"), why))?;
        Ok(found.into_iter().next().expect("what was read has one certificate at least"))
    }

    /// Whether it can be shown under `name` at `now` (seconds since 1970) to who trusts `authorities`.
    pub fn check(
        &self,
        name: CertificateName,
        authorities: &str,
        now: i64,
    ) -> Result<(), PkiError> {
        let unfit = |why: String| PkiError::unfit(format!("the {name} certificate"), why);
        let certificate = self.certificate.as_bytes();
        check_pair(certificate, self.key.reveal().as_bytes()).map_err(unfit)?;
        let now = u64::try_from(now).unwrap_or_default();
        for usage in name.usages() {
            check_chain(certificate, authorities.as_bytes(), *usage, now).map_err(unfit)?;
        }
        Ok(())
    }

    /// Whether others will take the node for what it is: the organisation in a certificate that it shows to them.
    pub fn check_organisation(
        &self,
        name: CertificateName,
        organisation: Organisation,
    ) -> Result<(), PkiError> {
        let facts = self.facts(name)?;
        if facts.organisations.iter().any(|own| own == organisation.as_str()) {
            return Ok(());
        }
        let why = format!("its subject lacks the organisation (O) {organisation}");
        Err(PkiError::unfit(format!("the {name} certificate"), why))
    }
}

impl Bundle {
    /// The certificates of a node: those that were supplied, checked, and the others signed by `authority`. `wanted`
    /// names what each is to say; the authorities are PEM. Without the authority's key all have to be supplied.
    pub fn make(
        authorities: &str,
        authority: Option<&Authority>,
        supplied: BTreeMap<CertificateName, Pair>,
        wanted: &[Wanted],
        validity: Validity,
        now: i64,
    ) -> Result<Bundle, PkiError> {
        check_authorities(authorities)?;
        let mut pairs = supplied;
        for wanted in wanted {
            let pair = match pairs.entry(wanted.certificate) {
                Entry::Occupied(own) => own.into_mut(),
                Entry::Vacant(place) => {
                    let authority = authority.ok_or(PkiError::KeyElsewhere)?;
                    place.insert(Pair::signed(authority, wanted, validity)?)
                }
            };
            if wanted.certificate.tells_role() {
                pair.check_organisation(wanted.certificate, wanted.organisation)?;
            }
        }
        let bundle = Bundle { authorities: authorities.to_owned(), pairs };
        bundle.check(now)?;
        Ok(bundle)
    }

    /// Whether all of it fits together at `now` (seconds since 1970).
    pub fn check(&self, now: i64) -> Result<(), PkiError> {
        check_authorities(&self.authorities)?;
        self.pairs.iter().try_for_each(|(name, pair)| pair.check(*name, &self.authorities, now))
    }

    /// What the trusted authorities say of themselves, the first first.
    pub fn trusted(&self) -> Result<Vec<Facts>, PkiError> {
        read_authorities(&self.authorities)
    }

    /// Which of the trusted authorities each certificate leads to, whatever the time; `None`: to none of them.
    pub fn issuers(&self) -> Result<BTreeMap<CertificateName, Option<Fingerprint>>, PkiError> {
        self.issuers_among(&self.authorities)
    }

    /// The same of other authorities (PEM) than those that are trusted here.
    pub(super) fn issuers_among(
        &self,
        authorities: &str,
    ) -> Result<BTreeMap<CertificateName, Option<Fingerprint>>, PkiError> {
        let trusted = read_authorities(authorities)?;
        let issuer = |(name, pair): (&CertificateName, &Pair)| {
            let facts = pair.facts(*name)?;
            // At the last hour at which it may be good.
            let leads = |chain: &str, authority: &Facts| {
                let at = facts.not_after.min(authority.not_after);
                let at = u64::try_from(at).unwrap_or_default();
                let one = pem(&authority.der);
                check_chain(chain.as_bytes(), one.as_bytes(), name.usages()[0], at).is_ok()
            };
            // Whoever has signed it goes before those that its chain leads on to.
            let leaf = pem(&facts.der);
            let direct = trusted.iter().find(|authority| leads(&leaf, authority));
            let found = || trusted.iter().find(|authority| leads(&pair.certificate, authority));
            Ok((*name, direct.or_else(found).map(|authority| authority.fingerprint)))
        };
        self.pairs.iter().map(issuer).collect()
    }
}

pub(super) fn read_authorities(pem: &str) -> Result<Vec<Facts>, PkiError> {
    read_certificates(pem.as_bytes()).map_err(|why| PkiError::unfit("the authorities", why))
}

/// Refuses what is trusted and is no authority.
pub(super) fn check_authorities(pem: &str) -> Result<(), PkiError> {
    read_authorities(pem)?.iter().try_for_each(|facts| check_authority("the authorities", facts))
}

/// One certificate as PEM.
pub(super) fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
