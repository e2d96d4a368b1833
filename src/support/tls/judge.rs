//! Whether the certificate of the other side is good enough, for one handshake.
//!
//! ```text
//!   chain up to an authority, in time, for this use (and name) ── rules: names, organisation ── not revoked
//! ```
//!
//! One judge sees one connection and remembers what it saw, because rustls's errors say less than etcd's log lines.
//!
//! **Invariant:** every connection is judged by what the files hold when it begins: no session is resumed.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};

use super::certificate::Certificate;
use super::files::{Revoked, Trust};
use super::fingerprint::Fingerprint;
use super::words;

/// Names of which the other side must have one, in one of the lists at most; and organisations, one of which it must
/// have besides. An empty list asks for nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) common_names: Vec<String>,
    pub(super) hostnames: Vec<String>,
    pub(super) organisations: Vec<String>,
}

impl Rules {
    fn ask_for_names(&self) -> bool {
        !self.common_names.is_empty() || !self.hostnames.is_empty()
    }

    fn are_empty(&self) -> bool {
        !self.ask_for_names() && self.organisations.is_empty()
    }

    fn allow(&self, certificate: &Certificate) -> bool {
        let own = certificate.common_name.as_deref().unwrap_or_default();
        let named = !self.ask_for_names()
            || self.common_names.iter().any(|name| name == own)
            || self.hostnames.iter().any(|host| certificate.verify_hostname(host).is_ok());
        let belongs = |wanted: &String| certificate.organisations.contains(wanted);
        named && (self.organisations.is_empty() || self.organisations.iter().any(belongs))
    }
}

/// What a judge has seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// The certificate, once its chain was found good.
    pub(super) certificate: Option<Certificate>,
    /// Why it was refused.
    pub(super) refused: Option<String>,
}

/// The judge of one handshake.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) trust: Arc<Trust>,
    /// `None` without a list.
    pub(super) revoked: Option<Arc<Revoked>>,
    pub(super) rules: Rules,
    /// Who connects may show nothing.
    pub(super) admits_anonymous: bool,
    pub(super) dialled: Dialled,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    pub(super) seen: Mutex<Seen>,
}

/// Who may be there, where one dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialled {
    /// Whom the authorities vouch for, under the name that was dialled.
    Trusted,
    /// Not verified.
    Anybody,
    /// Whoever was signed by this authority, whatever its name.
    SignedBy(Fingerprint),
}

/// What one side may show a certificate for.
#[derive(Clone, Copy)]
enum Use<'a> {
    Client,
    Server(&'a str),
}

impl Judge {
    fn refuse(&self, error: Error, why: String) -> Error {
        self.seen.lock().refused = Some(why);
        error
    }

    /// `verdict` is what following the chain came to.
    fn judge(
        &self,
        shown: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        usage: Use<'_>,
        now: UnixTime,
        verdict: Result<(), Error>,
    ) -> Result<(), Error> {
        let malformed = |why| {
            let error = Error::InvalidCertificate(CertificateError::BadEncoding);
            self.refuse(error, format!("tls: failed to parse certificate: {why}"))
        };
        let certificate = Certificate::parse(shown.0).map_err(malformed)?;
        if let Err(error) = verdict
            && !self.is_trusted_itself(shown.0, &certificate, usage, now)
        {
            let wanted = match usage {
                Use::Client => None,
                Use::Server(name) => Some(name),
            };
            let why = words::of_verification(&error, &certificate, now.as_secs(), wanted);
            return Err(self.refuse(error, why));
        }
        self.seen.lock().certificate = Some(certificate.clone());
        // Chains of who is trusted without a look are no chains: as in Go, no name in them counts.
        let unseen = self.dialled == Dialled::Anybody && !self.rules.are_empty();
        if unseen || !self.rules.allow(&certificate) {
            // On the wire this is "bad certificate", as from Go.
            let error = Error::InvalidCertificate(CertificateError::NotValidForName);
            return Err(self.refuse(error, "client certificate authentication failed".to_owned()));
        }
        self.check_revoked(certificate, shown.1)
    }

    fn check_revoked(&self, leaf: Certificate, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        let Some(revoked) = &self.revoked else { return Ok(()) };
        let others = others.iter().filter_map(|der| Certificate::parse(der).ok());
        for certificate in std::iter::once(leaf).chain(others) {
            revoked.check(&certificate).map_err(|why| {
                self.refuse(Error::InvalidCertificate(CertificateError::Revoked), why)
            })?;
        }
        Ok(())
    }

    /// Go takes a certificate that stands among the authorities, also if it is none by its own word.
    fn is_trusted_itself(
        &self,
        der: &[u8],
        certificate: &Certificate,
        usage: Use<'_>,
        now: UnixTime,
    ) -> bool {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let in_time = (certificate.not_before..=certificate.not_after).contains(&now);
        let fits = match usage {
            Use::Client => certificate.for_clients,
            Use::Server(name) => {
                certificate.for_servers && certificate.verify_hostname(name).is_ok()
            }
        };
        in_time && fits && self.trust.holds(der)
    }

    fn signature12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn signature13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }
}

fn nobody() -> Error {
    Error::InvalidCertificate(CertificateError::UnknownIssuer)
}

/// Whether the authority of this fingerprint was shown and leads to `leaf`. Of what was shown nothing else is trusted.
fn signed_by(
    pin: Fingerprint,
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    now: UnixTime,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    let shown = others.iter().find(|der| Fingerprint::of(der) == pin).ok_or_else(nobody)?;
    let mut roots = RootCertStore::empty();
    roots.add(shown.clone())?;
    let leaf = ParsedCertificate::try_from(leaf)?;
    verify_server_cert_signed_by_trust_anchor(&leaf, &roots, others, now, algorithms.all)
}

impl ClientCertVerifier for Judge {
    fn client_auth_mandatory(&self) -> bool {
        !self.admits_anonymous
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        match &self.trust.of_clients {
            Some(verifier) => verifier.root_hint_subjects(),
            None => &[],
        }
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verdict = match &self.trust.of_clients {
            Some(verifier) => verifier.verify_client_cert(end_entity, intermediates, now).map(drop),
            None => Err(nobody()),
        };
        self.judge((end_entity, intermediates), Use::Client, now, verdict)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = match (self.dialled, &self.trust.of_servers) {
            (Dialled::Anybody, _) => Ok(()),
            (Dialled::SignedBy(pin), _) => {
                signed_by(pin, end_entity, intermediates, now, &self.algorithms)
            }
            (Dialled::Trusted, Some(verifier)) => verifier
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map(drop),
            (Dialled::Trusted, None) => Err(nobody()),
        };
        let name = server_name.to_str();
        self.judge((end_entity, intermediates), Use::Server(&name), now, verdict)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
