//! Who signs certificates, and what is asked of one.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use time::{Duration, OffsetDateTime};

/// Serial numbers, so that no two certificates of a run are alike.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1000);

/// Signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub(crate) pem: String,
}

/// What is asked of a certificate.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// `None`: its subject names nobody.
    pub(crate) common_name: Option<String>,
    /// Beside the loopback's address.
    pub(crate) host: Option<String>,
    /// From and until, in hours from now.
    pub(crate) hours: (i64, i64),
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) serial: u64,
    pub(crate) cert: String,
    pub(crate) key: String,
    /// As it is shown in a handshake.
    pub(crate) der: Vec<u8>,
}

impl Wanted {
    /// One for this common name, good since an hour ago, for a day.
    pub(crate) fn named(common_name: &str) -> Self {
        Self { common_name: Some(common_name.to_owned()), host: None, hours: (-1, 24) }
    }

    /// One that names nobody.
    pub(crate) fn nameless() -> Self {
        Self { common_name: None, host: None, hours: (-1, 24) }
    }

    /// The same, also for a host.
    pub(crate) fn of_host(self, host: &str) -> Self {
        Self { host: Some(host.to_owned()), ..self }
    }

    fn params(&self, serial: u64) -> Result<CertificateParams> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = &self.common_name {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        params.serial_number = Some(SerialNumber::from(serial));
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        if let Some(host) = &self.host {
            params.subject_alt_names.push(SanType::DnsName(host.as_str().try_into()?));
        }
        params.not_before = in_hours(self.hours.0);
        params.not_after = in_hours(self.hours.1);
        Ok(params)
    }
}

fn in_hours(hours: i64) -> OffsetDateTime {
    OffsetDateTime::from(SystemTime::now()) + Duration::hours(hours)
}

impl Authority {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let mut params = Wanted::named(name).params(1)?;
        params.subject_alt_names = Vec::new();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    pub(crate) fn sign(&self, wanted: &Wanted) -> Result<Made> {
        let serial = NEXT_SERIAL.fetch_add(1, Ordering::Relaxed);
        let key = KeyPair::generate()?;
        let cert = wanted.params(serial)?.signed_by(&key, &self.issuer)?;
        let der = cert.der().to_vec();
        Ok(Made { serial, cert: cert.pem(), key: key.serialize_pem(), der })
    }

    /// A list that revokes these serial numbers, in DER, as etcd reads it.
    pub(crate) fn revoke(&self, serials: &[u64]) -> Result<Vec<u8>> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: in_hours(-1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: in_hours(-1),
            next_update: in_hours(24),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.der().to_vec())
    }
}
