//! Who signs.

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer as _, X509Certificate};

use super::super::secret::Secret;
use super::error::PkiError;
use super::names::CertificateName;
use super::request::{Pending, Request, Wanted, read_key};
use crate::support::tls::{Facts, Fingerprint, Usage, check_chain, read_certificates};

/// How long a node's certificate is valid: a year, in seconds.
pub const LEAF_SECONDS: u64 = 365 * 86_400;
/// How long an authority's certificate is valid: ten years, in seconds.
pub const AUTHORITY_SECONDS: u64 = 10 * LEAF_SECONDS;
/// Certificates are valid from this long before they are made: clocks differ.
pub(super) const BACKDATED_SECONDS: i64 = 3_600;
/// Certificates that would be valid for less are not made.
const SHORTEST_SECONDS: u64 = 60;
/// Longer than any authority that is in use; keeps times within what X.509 can say.
const LONGEST_SECONDS: u64 = 100 * LEAF_SECONDS;
const SERIAL_BYTES: usize = 16;

/// From when until when, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from: i64,
    /// The last one.
    pub until: i64,
}

impl Validity {
    /// From `now` (seconds since 1970), or a bit earlier, for so long.
    pub fn starting(now: i64, seconds: u64) -> Result<Validity, PkiError> {
        if seconds < SHORTEST_SECONDS {
            return Err(PkiError::TooShort);
        }
        let seconds =
            i64::try_from(seconds.min(LONGEST_SECONDS)).map_err(|_| PkiError::TooShort)?;
        Ok(Validity { from: now - BACKDATED_SECONDS, until: now + seconds })
    }

    /// No longer than the signer's own certificate.
    fn within(self, signer: &Facts) -> Result<Validity, PkiError> {
        let validity = Validity {
            from: self.from.max(signer.not_before),
            until: self.until.min(signer.not_after),
        };
        match validity.from < validity.until {
            true => Ok(validity),
            false => Err(PkiError::unfit("the authority", "it has expired or is not yet valid")),
        }
    }

    fn put(self, params: &mut CertificateParams) -> Result<(), PkiError> {
        let time = |seconds| {
            OffsetDateTime::from_unix_timestamp(seconds)
                .map_err(|_| PkiError::Make("a time beyond the calendar".to_owned()))
        };
        params.not_before = time(self.from)?;
        params.not_after = time(self.until)?;
        Ok(())
    }
}

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    /// PEM: stands behind its certificate in what it signs. Leads to the authority before it, while that one counts.
    bridge: String,
    facts: Facts,
    key: Secret,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({:?}, {})", self.facts.common_name, self.facts.fingerprint)
    }
}

fn serial() -> SerialNumber {
    let mut bytes = rand::random::<[u8; SERIAL_BYTES]>().to_vec();
    // Positive, and never zero.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from(bytes)
}

impl Authority {
    /// A new one for the fleet `uid`, which nobody trusts yet.
    pub fn generate(uid: &str, validity: Validity) -> Result<Authority, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        // Its own name each time: after a rotation a leaf's issuer is told by name, too.
        let name = format!("fleet {uid} {:08x}", rand::random::<u32>());
        let certificate = generated(&name, validity)?.self_signed(&key)?.pem();
        let key = Secret::from(key.serialize_pem());
        Authority::of("the authority", certificate, key)
    }

    /// One that somebody supplied, in PEM: refused unless it can be used at `now` (seconds since 1970).
    pub fn supplied(certificate: &str, key: &Secret, now: i64) -> Result<Authority, PkiError> {
        let authority =
            Authority::of("the supplied authority", certificate.to_owned(), key.clone())?;
        authority.prove(now)?;
        Ok(authority)
    }

    /// From what is kept. The first certificate of the text is its own.
    pub(super) fn of(what: &str, certificate: String, key: Secret) -> Result<Authority, PkiError> {
        let pair = read_key(&format!("{what}'s key"), &key)?;
        let read = read_certificates(certificate.as_bytes());
        let found = read.map_err(|why| PkiError::unfit(what, why))?;
        let [facts] = found.as_slice() else {
            return Err(PkiError::unfit(what, "one certificate is needed, without others"));
        };
        let facts = facts.clone();
        check_authority(what, &facts)?;
        let (_, parsed) = X509Certificate::from_der(&facts.der)
            .map_err(|_| PkiError::unfit(what, "x509: malformed certificate"))?;
        if parsed.public_key().subject_public_key.data != pair.der_bytes() {
            let why = "tls: private key does not match public key";
            return Err(PkiError::unfit(what, why));
        }
        check_subject(what, &parsed)?;
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(facts.der.as_slice()), pair)?;
        Ok(Authority { issuer, certificate, bridge: String::new(), facts, key })
    }

    /// Signs something and looks whether that leads back: an authority may have a name that cannot be put into what it
    /// signs, or be limited to something else.
    fn prove(&self, now: i64) -> Result<(), PkiError> {
        let wanted = Wanted::new(
            CertificateName::Peer,
            super::names::Organisation::ControlPlane,
            "localhost",
            &[],
            &[],
        );
        let pending = Pending::new(&wanted)?;
        let validity = Validity::starting(now, LEAF_SECONDS)?;
        let signed = self.sign(&Request::read(&pending.request)?, &wanted, validity)?;
        let now = u64::try_from(now).unwrap_or_default();
        for usage in [Usage::Server, Usage::Client] {
            check_chain(signed.as_bytes(), self.certificate.as_bytes(), usage, now)
                .map_err(|why| PkiError::unfit("what the supplied authority signs", why))?;
        }
        Ok(())
    }

    /// Its certificate, in PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// What its certificate says.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// How tokens name it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.facts.fingerprint
    }

    /// Its key, in PEM.
    pub fn key(&self) -> &Secret {
        &self.key
    }

    /// A certificate (PEM) for the key of `next`, which was generated: whoever trusts this authority alone can follow
    /// what `next` signs to here.
    pub(super) fn endorse(&self, next: &Authority) -> Result<String, PkiError> {
        let Facts { not_before, not_after, common_name, der, .. } = &next.facts;
        let validity = Validity { from: *not_before, until: *not_after }.within(&self.facts)?;
        let mut params = generated(common_name, validity)?;
        params.use_authority_key_identifier_extension = true;
        let malformed = || PkiError::unfit("the new authority", "x509: malformed certificate");
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| malformed())?;
        let key = SubjectPublicKeyInfo::from_der(parsed.public_key().raw);
        let signed = params.signed_by(&key.map_err(|_| malformed())?, &self.issuer)?;
        Ok(signed.pem())
    }

    /// From now on `bridge` (PEM) stands behind its certificate in what it signs.
    pub(super) fn shows(&mut self, bridge: String) {
        self.bridge = bridge;
    }

    /// PEM: what stands behind a certificate that it signs.
    pub(super) fn chain(&self) -> String {
        format!("{}{}", self.certificate, self.bridge)
    }

    /// Signs what `wanted` says for the key of `request`, no longer than this authority is valid itself. A request that
    /// wishes for another name is refused, and what else it wishes for is not looked at. The answer, in PEM, has the
    /// authority's certificate behind the new one, so that who knows its fingerprint alone can follow the chain, and what
    /// leads on to the authority before it as long as that one counts.
    pub fn sign(
        &self,
        request: &Request,
        wanted: &Wanted,
        validity: Validity,
    ) -> Result<String, PkiError> {
        if !request.name.is_empty() && request.name != wanted.name {
            return Err(PkiError::Request(format!(
                "it is for {:?}, and {:?} was admitted",
                request.name, wanted.name
            )));
        }
        let mut params = CertificateParams::default();
        validity.within(&self.facts)?.put(&mut params)?;
        params.serial_number = Some(serial());
        params.distinguished_name = wanted.subject();
        params.subject_alt_names = wanted.alternatives()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let usages = wanted.certificate.usages().iter().map(|usage| match usage {
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        });
        params.extended_key_usages = usages.collect();
        let signed = params.signed_by(&request.key, &self.issuer)?;
        Ok(format!("{}{}", signed.pem(), self.chain()))
    }
}

/// What the certificate of a generated authority says, whoever signs it.
fn generated(name: &str, validity: Validity) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    validity.put(&mut params)?;
    params.serial_number = Some(serial());
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "quorate");
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Refuses a subject that cannot be written as an issuer: with an empty part, or an attribute whose OID begins with
/// anything but 0, 1 or 2. The library that writes it would panic.
fn check_subject(what: &str, certificate: &X509Certificate<'_>) -> Result<(), PkiError> {
    let usual = |attribute: &AttributeTypeAndValue<'_>| {
        let arcs = attribute.attr_type().iter();
        arcs.is_some_and(|mut arcs| arcs.next().is_some_and(|first| first <= 2))
    };
    let good = certificate
        .subject()
        .iter()
        .all(|part| part.iter().next().is_some() && part.iter().all(usual));
    match good {
        true => Ok(()),
        false => Err(PkiError::unfit(what, "its subject cannot be put into what it signs")),
    }
}

/// Refuses a certificate that does not say of itself that it may sign for clients and servers. What verifies here does
/// not ask an authority for which sides it signs; what verifies elsewhere does, Go's clients among it.
pub(super) fn check_authority(what: &str, facts: &Facts) -> Result<(), PkiError> {
    if !facts.is_authority {
        return Err(PkiError::unfit(what, "the certificate is no authority by its own word"));
    }
    match facts.for_both_sides {
        true => Ok(()),
        false => Err(PkiError::unfit(what, "it may not sign for clients and servers alike")),
    }
}
