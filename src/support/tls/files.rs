//! What stands in certificate, key, authority and revocation files, refused in Go's words (Go `crypto/tls/tls.go`,
//! `X509KeyPair`; etcd `client/pkg/tlsutil/tlsutil.go`).

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{PemObject as _, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::certificate::{Certificate, magnitude};
use crate::support::listen::words;

/// Where systems keep the authorities that all programs trust (Go `crypto/x509/root_linux.go`).
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Reads a file, with Go's words where that fails.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|why| format!("open {}: {}", path.display(), words(&why)))
}

type Section = (SectionKind, Vec<u8>);

/// The sections of a PEM file that are of a known kind; text around them does not matter.
fn sections(pem: &[u8]) -> Vec<Section> {
    Section::pem_slice_iter(pem).filter_map(Result::ok).collect()
}

/// The certificates of a PEM text, in DER and in order.
pub(super) fn certificates(pem: &[u8]) -> impl Iterator<Item = Vec<u8>> + use<> {
    let found = sections(pem).into_iter();
    found.filter(|(kind, _)| *kind == SectionKind::Certificate).map(|(_, der)| der)
}

fn is_key(kind: &SectionKind) -> bool {
    matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey)
}

/// Reads a certificate with its chain, and its key, and checks that they belong together.
pub(super) fn key_pair(
    certificates: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, String> {
    let found = sections(certificates);
    let has_key = found.iter().any(|(kind, _)| is_key(kind));
    let chain: Vec<CertificateDer<'static>> = found
        .into_iter()
        .filter(|(kind, _)| *kind == SectionKind::Certificate)
        .map(|(_, der)| CertificateDer::from(der))
        .collect();
    let Some(leaf) = chain.first() else {
        return Err(match has_key {
            true => {
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM \
                 inputs may have been switched"
            }
            false => "tls: failed to find any PEM data in certificate input",
        }
        .to_owned());
    };
    let has_certificate = sections(key).iter().any(|(kind, _)| *kind == SectionKind::Certificate);
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| match has_certificate {
        true => {
            "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
        }
        false => "tls: failed to find any PEM data in key input".to_owned(),
    })?;
    Certificate::parse(leaf)?;
    CertifiedKey::from_der(chain, key, provider).map_err(|why| match why {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "tls: private key does not match public key".to_owned()
        }
        _ => "tls: failed to parse private key".to_owned(),
    })
}

/// Authorities, and what verifies chains up to them. The default trusts nobody.
#[derive(Default)]
pub(super) struct Trust {
    /// The authorities' certificates: one that stands here is trusted itself.
    certificates: BTreeSet<Vec<u8>>,
    /// `None` where there are none: then nobody is trusted.
    pub(super) of_clients: Option<Arc<dyn ClientCertVerifier>>,
    pub(super) of_servers: Option<Arc<dyn ServerCertVerifier>>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({} authorities)", self.certificates.len())
    }
}

impl Trust {
    /// Reads a bundle of authorities. An empty one trusts nobody.
    pub(super) fn read(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Trust, String> {
        let mut roots = RootCertStore::empty();
        let mut certificates = BTreeSet::new();
        for (kind, der) in sections(pem) {
            if kind == SectionKind::Certificate {
                Certificate::parse(&der)?;
                let added = roots.add(CertificateDer::from(der.clone()));
                added.map_err(|why| format!("x509: malformed certificate: {why}"))?;
                certificates.insert(der);
            }
        }
        Trust::of(roots, certificates, provider)
    }

    fn of(
        roots: RootCertStore,
        certificates: BTreeSet<Vec<u8>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Trust, String> {
        if roots.is_empty() {
            return Ok(Trust { certificates, ..Trust::default() });
        }
        let roots = Arc::new(roots);
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
        let servers = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
        Ok(Trust {
            certificates,
            of_clients: Some(clients.build().map_err(|why| why.to_string())?),
            of_servers: Some(servers.build().map_err(|why| why.to_string())?),
        })
    }

    /// The system's authorities, as Go finds them; whatever cannot be read is none.
    pub(super) fn of_the_system(provider: &Arc<CryptoProvider>) -> Trust {
        let named = std::env::var("SSL_CERT_FILE").ok().filter(|path| !path.is_empty());
        let pem = match named {
            Some(path) => std::fs::read(path).ok(),
            None => SYSTEM_BUNDLES.iter().find_map(|path| std::fs::read(path).ok()),
        };
        let mut roots = RootCertStore::empty();
        let found = sections(&pem.unwrap_or_default());
        let found = found.into_iter().filter(|(kind, _)| *kind == SectionKind::Certificate);
        roots.add_parsable_certificates(found.map(|(_, der)| CertificateDer::from(der)));
        Trust::of(roots, BTreeSet::new(), provider).unwrap_or_else(|why| {
            tracing::warn!(error = why, "the system's authorities cannot be used");
            Trust::default()
        })
    }

    /// Whether this very certificate stands among the authorities.
    pub(super) fn holds(&self, der: &[u8]) -> bool {
        self.certificates.contains(der)
    }
}

/// Serial numbers that a list revokes. As in etcd neither its issuer nor its age is looked at: it says which numbers are
/// not wanted, and who may write the file is trusted.
#[derive(Debug, Default)]
pub(super) struct Revoked(BTreeSet<Vec<u8>>);

impl Revoked {
    /// Reads a list in DER, or in PEM.
    pub(super) fn read(bytes: &[u8]) -> Result<Revoked, String> {
        let lists: Vec<Vec<u8>> = sections(bytes)
            .into_iter()
            .filter(|(kind, _)| *kind == SectionKind::Crl)
            .map(|(_, der)| der)
            .collect();
        let mut serials = BTreeSet::new();
        let lists = if lists.is_empty() { vec![bytes.to_vec()] } else { lists };
        for list in lists {
            let (_, list) = CertificateRevocationList::from_der(&list)
                .map_err(|why| format!("x509: malformed crl: {why}"))?;
            serials.extend(
                list.iter_revoked_certificates().map(|entry| magnitude(entry.raw_serial())),
            );
        }
        Ok(Revoked(serials))
    }

    /// Refuses a certificate whose number is on the list.
    pub(super) fn check(&self, certificate: &Certificate) -> Result<(), String> {
        if !self.0.contains(&certificate.serial) {
            return Ok(());
        }
        let hex: String = certificate.serial.iter().map(|byte| format!("{byte:02x}")).collect();
        Err(format!("transport: certificate serial {hex} revoked"))
    }
}
