//! When what runs out, and who could make it anew.

use super::bundle::Bundle;
use super::error::PkiError;
use super::names::CertificateName;
use super::rotation::Authorities;
use crate::support::tls::Fingerprint;

/// One certificate of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateStatus {
    /// Which.
    pub name: CertificateName,
    /// Seconds since 1970.
    pub expires: i64,
    /// The name of the authority that it leads to; empty if it leads to none that is trusted.
    pub authority: String,
    /// The fleet cannot make it anew: whoever supplied it has to.
    pub externally_managed: bool,
}

/// One trusted authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityStatus {
    /// `ca` for the first, which signs; `ca-` and eight digits of the fingerprint for others.
    pub name: String,
    /// Which.
    pub fingerprint: Fingerprint,
    /// Seconds since 1970.
    pub expires: i64,
    /// The fleet has not got its key.
    pub externally_managed: bool,
}

/// Everything of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// By name.
    pub certificates: Vec<CertificateStatus>,
    /// The first signs.
    pub authorities: Vec<AuthorityStatus>,
}

impl Bundle {
    /// What is known of it, in a fleet with these authorities.
    pub fn status(&self, fleet: &Authorities) -> Result<Status, PkiError> {
        let foreign = |of: Fingerprint| !(fleet.can_sign() && fleet.contains(of));
        let authorities: Vec<AuthorityStatus> = self
            .trusted()?
            .into_iter()
            .enumerate()
            .map(|(at, facts)| AuthorityStatus {
                name: match at {
                    0 => "ca".to_owned(),
                    _ => format!("ca-{}", &facts.fingerprint.to_string()[..8]),
                },
                fingerprint: facts.fingerprint,
                expires: facts.not_after,
                externally_managed: foreign(facts.fingerprint),
            })
            .collect();
        let issuers = self.issuers()?;
        let certificate = |(name, issuer): (CertificateName, Option<Fingerprint>)| {
            let known = authorities.iter().find(|known| Some(known.fingerprint) == issuer);
            Ok(CertificateStatus {
                name,
                expires: self.pairs[&name].facts(name)?.not_after,
                authority: known.map(|known| known.name.clone()).unwrap_or_default(),
                externally_managed: issuer.is_none_or(foreign),
            })
        };
        let certificates = issuers.into_iter().map(certificate).collect::<Result<_, PkiError>>()?;
        Ok(Status { certificates, authorities })
    }
}
