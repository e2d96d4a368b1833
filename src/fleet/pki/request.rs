//! Keys and certificate signing requests: made by who is to have a certificate, read by who signs it.
//!
//! **Invariant:** a request is believed in one thing, the key, which its signature proves. Its subject and extensions
//! say what is wished for; [`Wanted`] says what is signed.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rcgen::{PKCS_ECDSA_P384_SHA384, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;

use super::super::secret::Secret;
use super::error::PkiError;
use super::names::{CertificateName, Organisation, alternative, host_of, is_host_name};

/// Longer requests are refused before they are read.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Hosts that every node is valid for, as seen from itself.
const OWN: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What a certificate is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it is for.
    pub certificate: CertificateName,
    /// What its holder is.
    pub organisation: Organisation,
    /// The node's name: the subject's common name.
    pub name: String,
    /// Names and addresses that it is valid for.
    pub hosts: Vec<String>,
}

impl Wanted {
    /// For the node `name`, reached at `addresses` (URLs, `host:port` or hosts) and `extra` ones, and by itself.
    pub fn new(
        certificate: CertificateName,
        organisation: Organisation,
        name: &str,
        addresses: &[String],
        extra: &[String],
    ) -> Wanted {
        let unspecified = ["0.0.0.0", "::"];
        let mut hosts: Vec<String> = Vec::new();
        let own = OWN.iter().map(|host| (*host).to_owned());
        let named = is_host_name(name).then(|| name.to_owned());
        let reached = addresses.iter().filter_map(|address| host_of(address));
        for host in named.into_iter().chain(reached).chain(own).chain(extra.iter().cloned()) {
            if !hosts.contains(&host) && !unspecified.contains(&host.as_str()) {
                hosts.push(host);
            }
        }
        Wanted { certificate, organisation, name: name.to_owned(), hosts }
    }

    /// The same for another certificate.
    pub fn of(&self, certificate: CertificateName) -> Wanted {
        Wanted { certificate, ..self.clone() }
    }

    /// The same, also valid for `hosts`: a node's own wishes, once it may have them.
    pub fn with_hosts(mut self, hosts: &[String]) -> Wanted {
        let new = hosts.iter().filter(|host| !self.hosts.contains(host));
        let new: Vec<String> = new.cloned().collect();
        self.hosts.extend(new);
        self
    }

    /// The same, also valid for what another certificate of the node is valid for, as far as we can sign for it.
    pub(super) fn keeping_hosts(self, hosts: &[String]) -> Wanted {
        let fit = hosts.iter().filter(|host| alternative(host).is_ok());
        let fit: Vec<String> = fit.cloned().collect();
        self.with_hosts(&fit)
    }

    pub(super) fn subject(&self) -> DistinguishedName {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, self.organisation.as_str());
        subject.push(DnType::CommonName, self.name.as_str());
        subject
    }

    pub(super) fn alternatives(&self) -> Result<Vec<rcgen::SanType>, PkiError> {
        self.hosts.iter().map(|host| alternative(host)).collect()
    }
}

/// A new key, and the request for its certificate.
#[derive(Clone, Debug)]
pub struct Pending {
    /// PEM.
    pub request: String,
    /// PEM; stays here.
    pub key: Secret,
}

impl Pending {
    /// Makes both.
    pub fn new(wanted: &Wanted) -> Result<Pending, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = wanted.subject();
        params.subject_alt_names = wanted.alternatives()?;
        let request = params.serialize_request(&key)?.pem()?;
        Ok(Pending { request, key: Secret::from(key.serialize_pem()) })
    }
}

/// A request as it was received: its signature is good.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) key: SubjectPublicKeyInfo,
    /// The common name that is wished for; empty for none.
    pub name: String,
    /// The hosts that are wished for.
    pub hosts: Vec<String>,
}

impl Request {
    /// Reads a request in PEM, and checks that whoever made it has the key.
    pub fn read(pem: &str) -> Result<Request, PkiError> {
        let refused = |why: &str| PkiError::Request(why.to_owned());
        if pem.len() > REQUEST_BYTES_MAX {
            return Err(refused("it is too long"));
        }
        let (_, found) =
            parse_x509_pem(pem.as_bytes()).map_err(|_| refused("it is no PEM text"))?;
        if !["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"].contains(&found.label.as_str()) {
            return Err(refused("the PEM text is none"));
        }
        let (rest, request) = X509CertificationRequest::from_der(&found.contents)
            .map_err(|_| refused("it is malformed"))?;
        if !rest.is_empty() {
            return Err(refused("something follows it"));
        }
        request.verify_signature().map_err(|_| refused("its signature does not fit its key"))?;
        let info = &request.certification_request_info;
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw)
            .ok()
            .filter(|key| {
                let algorithm = rcgen::PublicKeyData::algorithm(key);
                [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384].contains(&algorithm)
            })
            .ok_or_else(|| refused("its key is neither P-256 nor P-384"))?;
        let name = info.subject.iter_common_name().filter_map(|name| name.as_str().ok()).last();
        let hosts = hosts(&request).ok_or_else(|| refused("a name in it is malformed"))?;
        Ok(Request { key, name: name.unwrap_or_default().to_owned(), hosts })
    }
}

fn hosts(request: &X509CertificationRequest<'_>) -> Option<Vec<String>> {
    let mut hosts = Vec::new();
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            hosts.push(match name {
                GeneralName::DNSName(name) => (*name).to_owned(),
                GeneralName::IPAddress(bytes) => address(bytes)?,
                // Nothing else is ever signed.
                _ => continue,
            });
        }
    }
    Some(hosts)
}

fn address(bytes: &[u8]) -> Option<String> {
    let four: Result<[u8; 4], _> = bytes.try_into();
    let sixteen: Result<[u8; 16], _> = bytes.try_into();
    let address = four.map(std::net::IpAddr::from).or_else(|_| sixteen.map(std::net::IpAddr::from));
    address.ok().map(|address| address.to_string())
}

/// Reads a private key in PEM. What is wrong with it is not told: it would be told of a secret.
pub(super) fn read_key(what: &str, pem: &Secret) -> Result<KeyPair, PkiError> {
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject as _;
    let refused = || PkiError::unfit(what, "it cannot be read: a PEM text of a key, not encrypted");
    let der = PrivateKeyDer::from_pem_slice(pem.reveal().as_bytes()).map_err(|_| refused())?;
    KeyPair::try_from(&der).map_err(|_| refused())
}
