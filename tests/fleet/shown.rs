//! What certificate a port shows.

use std::fs;
use std::sync::Arc;

use quorate::support::tls::{Facts, read_certificates};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use x509_parser::parse_x509_certificate;

use crate::daemon::{Daemon, LONG};

/// What a certificate says.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) serial: String,
    /// Common name of who signed it.
    pub(crate) issuer: String,
    /// Seconds since 1970.
    pub(crate) expires: i64,
    pub(crate) hosts: Vec<String>,
}

/// What is shown at `address` to the node's client certificate of this moment, if it leads to `authorities` (PEM).
pub(crate) async fn shown(node: &Daemon, address: &str, authorities: &str) -> Shown {
    let pki = |file: &str| fs::read(node.state("pki").join(file)).expect("a file");
    let own = CertificateDer::pem_slice_iter(&pki("client.crt")).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(&pki("client.key")).expect("a key");
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(authority.expect("PEM")).expect("an authority");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(own.expect("PEM"), key)
        .expect("a certificate and its key");
    let shaken = async {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a good one")
    };
    let stream = timeout(LONG, shaken).await.expect("it answers");
    let (_, connection) = stream.get_ref();
    let chain = connection.peer_certificates().expect("it shows one");
    said(&chain[0])
}

/// What a certificate file of the node says.
pub(crate) fn filed(node: &Daemon, file: &str) -> Shown {
    let text = fs::read(node.state("pki").join(file)).expect("a file");
    said(&CertificateDer::from_pem_slice(&text).expect("PEM"))
}

fn said(der: &CertificateDer<'_>) -> Shown {
    let (_, parsed) = parse_x509_certificate(der).expect("a certificate");
    let issuer = parsed.issuer().iter_common_name().next().and_then(|name| name.as_str().ok());
    let pem = pem(der);
    let Facts { hosts, not_after, .. } =
        read_certificates(pem.as_bytes()).expect("it reads").remove(0);
    Shown {
        serial: parsed.raw_serial_as_string(),
        issuer: issuer.unwrap_or_default().to_owned(),
        expires: not_after,
        hosts,
    }
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}
