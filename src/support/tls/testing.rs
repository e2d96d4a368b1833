//! Certificates for tests, made on the spot: nothing in the tree expires.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use super::TlsSettings;

/// Signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// What is asked of a certificate; valid for 127.0.0.1, from an hour ago for a day.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) common_name: String,
    pub(crate) organisations: Vec<String>,
    pub(crate) serial: u64,
    pub(crate) names: Vec<SanType>,
    /// From and until, in hours from now.
    pub(crate) hours: (i64, i64),
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
}

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// A certificate named so.
pub(crate) fn wanted(common_name: &str) -> Wanted {
    Wanted {
        common_name: common_name.to_owned(),
        organisations: Vec::new(),
        serial: 7,
        names: vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))],
        hours: (-1, 24),
        usages: Vec::new(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates are compared with the hour of the machine"
)]
fn in_hours(hours: i64) -> OffsetDateTime {
    OffsetDateTime::from(std::time::SystemTime::now()) + Duration::hours(hours)
}

fn params(wanted: &Wanted) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for organisation in &wanted.organisations {
        params.distinguished_name.push(DnType::OrganizationName, organisation.as_str());
    }
    params.distinguished_name.push(DnType::CommonName, wanted.common_name.as_str());
    params.serial_number = Some(SerialNumber::from(wanted.serial));
    params.subject_alt_names = wanted.names.clone();
    (params.not_before, params.not_after) = (in_hours(wanted.hours.0), in_hours(wanted.hours.1));
    params.extended_key_usages = wanted.usages.clone();
    params
}

impl Authority {
    /// A new one.
    pub(crate) fn new(name: &str) -> Authority {
        let mut params = params(&Wanted { names: Vec::new(), ..wanted(name) });
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Signs one.
    pub(crate) fn sign(&self, wanted: &Wanted) -> Made {
        let key = KeyPair::generate().unwrap();
        let cert = params(wanted).signed_by(&key, &self.issuer).unwrap();
        Made { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A list that revokes `serials`, in DER, and that ran out an hour ago.
    pub(crate) fn revoke(&self, serials: &[u64]) -> Vec<u8> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: in_hours(-3),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: in_hours(-2),
            next_update: in_hours(-1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}

/// A certificate that signs itself and is no authority.
pub(crate) fn alone(wanted: &Wanted) -> Made {
    let key = KeyPair::generate().unwrap();
    let cert = params(wanted).self_signed(&key).unwrap();
    Made { cert: cert.pem(), key: key.serialize_pem() }
}

/// Files of one side in a folder of its own.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(above: &Path, name: &str) -> Folder {
        let folder = above.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Puts a file there in one step, as who rotates certificates should.
    pub(crate) fn put(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let (path, beside) = (self.path(name), self.path("new"));
        std::fs::write(&beside, content).unwrap();
        std::fs::rename(beside, &path).unwrap();
        path
    }

    pub(crate) fn show(&self, made: &Made) {
        self.put("key", &made.key);
        self.put("cert", &made.cert);
    }

    /// Shows `made` and trusts `bundle`.
    pub(crate) fn settings(&self, made: &Made, bundle: &str) -> TlsSettings {
        self.show(made);
        TlsSettings {
            cert_file: self.path("cert"),
            key_file: self.path("key"),
            trusted_ca_file: self.put("ca", bundle),
            ..TlsSettings::default()
        }
    }
}
