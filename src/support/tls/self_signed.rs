//! `--auto-tls` and `--peer-auto-tls`: a certificate made at the first start and kept (etcd
//! `client/pkg/transport/listener.go`, `SelfCert`). It encrypts; it proves nothing to who has not got it by another way.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P521_SHA512, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use super::settings::TlsSettings;
use crate::support::clock::{rfc3339_seconds, unix_micros};
use crate::support::listen::words;
use crate::support::urls::{Url, split_host_port};

/// Settings that show the certificate in `folder`, which is made if it is not there, valid for the hosts of `urls` and
/// `years`.
pub fn self_signed(folder: &Path, urls: &[Url], years: u64) -> Result<TlsSettings, String> {
    if years == 0 {
        let why = "selfSignedCertValidity is invalid,it should be greater than 0".to_owned();
        tracing::warn!(error = why, "cannot generate cert");
        return Err(why);
    }
    let tell = |call: &str, why: &io::Error| {
        let why = format!("{call} {}: {}", folder.display(), words(why));
        tracing::warn!(error = why, "cannot create cert directory");
        why
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|why| tell("mkdir", &why))?;
    let folder = folder.canonicalize().map_err(|why| tell("open", &why))?;
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    if !(cert.exists() && key.exists()) {
        make(&cert, &key, urls, years)?;
    }
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    Ok(TlsSettings {
        client_cert_file: cert.clone(),
        client_key_file: key.clone(),
        cert_file: cert,
        key_file: key,
        self_signed: true,
        ..TlsSettings::default()
    })
}

fn make(cert: &Path, key: &Path, urls: &[Url], years: u64) -> Result<(), String> {
    let now = i64::try_from(unix_micros() / 1_000_000).unwrap_or_default();
    let now = OffsetDateTime::from_unix_timestamp(now).map_err(|why| why.to_string())?;
    let days = i64::try_from(years).unwrap_or(i64::MAX).saturating_mul(365);
    let until = now.checked_add(Duration::days(days.min(365 * 1000))).unwrap_or(now);
    tracing::warn!(
        "certificate-validity-bound-not-after" =
            rfc3339_seconds(u64::try_from(until.unix_timestamp()).unwrap_or_default()),
        "automatically generate certificates"
    );
    let failed = |why: rcgen::Error| {
        let why = why.to_string();
        tracing::warn!(error = why, "cannot generate x509 certificate");
        why
    };
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).map_err(failed)?;
    let mut params = CertificateParams::default();
    params.not_before = now;
    params.not_after = until;
    params.serial_number = Some(SerialNumber::from(rand::random::<[u8; 16]>().to_vec()));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::CrlSign,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = urls.iter().filter_map(|url| name(&url.host)).collect();
    let made = params.self_signed(&pair).map_err(failed)?;
    write(cert, 0o644, &made.pem())?;
    tracing::info!(path = %cert.display(), "created cert file");
    write(key, 0o600, &pair.serialize_pem())?;
    tracing::info!(path = %key.display(), "created key file");
    Ok(())
}

/// The host of `host:port`, as a certificate names it.
fn name(address: &str) -> Option<SanType> {
    let (host, _) = split_host_port(address).ok()?;
    match host.parse() {
        Ok(address) => Some(SanType::IpAddress(address)),
        Err(_) if host.is_empty() => None,
        Err(_) => Ia5String::try_from(host).ok().map(SanType::DnsName),
    }
}

fn write(path: &Path, mode: u32, text: &str) -> Result<(), String> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|why| format!("open {}: {}", path.display(), words(&why)))
}
