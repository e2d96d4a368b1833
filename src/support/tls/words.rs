//! Why a handshake failed, in the words of Go's `crypto/tls` and `crypto/x509`: operators search for them, and tests of
//! others wait for them in the log.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::certificate::Certificate;
use crate::support::clock::rfc3339_seconds;
use crate::support::listen::words;

/// Go's name of an alert.
fn alert(alert: AlertDescription) -> String {
    let name = match alert {
        AlertDescription::CloseNotify => "close notify",
        AlertDescription::UnexpectedMessage => "unexpected message",
        AlertDescription::BadRecordMac => "bad record MAC",
        AlertDescription::DecryptionFailed => "decryption failed",
        AlertDescription::RecordOverflow => "record overflow",
        AlertDescription::DecompressionFailure => "decompression failure",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::IllegalParameter => "illegal parameter",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::DecodeError => "error decoding message",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::InsufficientSecurity => "insufficient security level",
        AlertDescription::InternalError => "internal error",
        AlertDescription::InappropriateFallback => "inappropriate fallback",
        AlertDescription::UserCanceled => "user canceled",
        AlertDescription::NoRenegotiation => "no renegotiation",
        AlertDescription::MissingExtension => "missing extension",
        AlertDescription::UnsupportedExtension => "unsupported extension",
        AlertDescription::UnrecognisedName => "unrecognized name",
        AlertDescription::CertificateRequired => "certificate required",
        AlertDescription::NoApplicationProtocol => "no application protocol",
        other => return format!("alert({})", u8::from(other)),
    };
    name.to_owned()
}

/// What TLS itself says.
pub(super) fn of_tls(error: &Error) -> String {
    match error {
        Error::AlertReceived(received) => format!("remote error: tls: {}", alert(*received)),
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        Error::InvalidMessage(_) => NOT_TLS.to_owned(),
        Error::PeerIncompatible(
            PeerIncompatible::NoCipherSuitesInCommon
            | PeerIncompatible::NoSignatureSchemesInCommon
            | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon,
        ) => "tls: no cipher suite supported by both client and server".to_owned(),
        Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon) => {
            "tls: no key exchanges supported by both client and server".to_owned()
        }
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            // Only what is older than 1.2 leaves it out.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "tls: client offered only unsupported versions".to_owned(),
        Error::NoApplicationProtocol => {
            "tls: client requested unsupported application protocols".to_owned()
        }
        Error::InvalidCertificate(why) => {
            format!("tls: failed to verify certificate: {}", of_chain(why))
        }
        other => format!("tls: {other}"),
    }
}

fn of_chain(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "x509: certificate signed by unknown authority".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "x509: certificate specifies an incompatible key usage".to_owned()
        }
        CertificateError::BadEncoding => "x509: malformed certificate".to_owned(),
        other => format!("x509: {other}"),
    }
}

/// What verifying `certificate` at `now` (seconds since 1970) came to, where `wanted` is the name it should have had.
pub(super) fn of_verification(
    error: &Error,
    certificate: &Certificate,
    now: u64,
    wanted: Option<&str>,
) -> String {
    let Error::InvalidCertificate(why) = error else { return of_tls(error) };
    let stamp = |seconds: i64| rfc3339_seconds(u64::try_from(seconds).unwrap_or_default());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let aged = |word: &str, limit: i64| {
        let (now, limit) = (stamp(now), stamp(limit));
        format!(
            "x509: certificate has expired or is not yet valid: current time {now} is {word} {limit}"
        )
    };
    let text = match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            aged("after", certificate.not_after)
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            aged("before", certificate.not_before)
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let wanted = wanted.unwrap_or_default();
            certificate.verify_hostname(wanted).err().unwrap_or_else(|| of_chain(why))
        }
        other => of_chain(other),
    };
    format!("tls: failed to verify certificate: {text}")
}

/// What TLS says somewhere inside an error, if it does: also after the handshake, where the other side's verdict on a
/// certificate comes with the first read.
pub fn tls_cause(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(of_tls(found));
        }
        if let Some(io) = error.downcast_ref::<io::Error>()
            && let Some(inner) = io.get_ref()
            && let Some(told) = tls_cause(inner)
        {
            return Some(told);
        }
        next = error.source();
    }
    None
}

/// What ended a handshake between two addresses. As in etcd, a connection that was closed is no news.
pub(super) fn of_io(error: &io::Error, between: Option<(SocketAddr, SocketAddr)>) -> String {
    if let Some(told) = tls_cause(error) {
        return told;
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return EOF.to_owned();
    }
    let call = match between {
        Some((own, other)) => format!("read tcp {own}->{other}"),
        None => "read unix".to_owned(),
    };
    match error.kind() {
        io::ErrorKind::TimedOut => format!("{call}: i/o timeout"),
        _ => format!("{call}: read: {}", words(error)),
    }
}

/// The other side speaks something else, plain HTTP as a rule.
pub(super) const NOT_TLS: &str = "tls: first record does not look like a TLS handshake";

/// The other side went away.
pub(super) const EOF: &str = "EOF";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_found_inside_other_errors_and_told_in_gos_words() {
        let alert = Error::AlertReceived(AlertDescription::BadCertificate);
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, alert);
        let twice = io::Error::other(wrapped);
        assert_eq!(tls_cause(&twice).as_deref(), Some("remote error: tls: bad certificate"));
        assert_eq!(of_io(&twice, None), "remote error: tls: bad certificate");
        assert_eq!(tls_cause(&io::Error::other("x")), None);
        let (own, other) = ("127.0.0.1:2379".parse().unwrap(), "127.0.0.1:9".parse().unwrap());
        assert_eq!(
            of_io(&io::ErrorKind::TimedOut.into(), Some((own, other))),
            "read tcp 127.0.0.1:2379->127.0.0.1:9: i/o timeout"
        );
    }

    #[test]
    fn an_old_certificate_is_told_with_the_hour() {
        let certificate = Certificate { not_after: 951_827_696, ..Certificate::default() };
        let told = of_verification(
            &Error::InvalidCertificate(CertificateError::Expired),
            &certificate,
            951_827_697,
            None,
        );
        assert_eq!(
            told,
            "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time \
             2000-02-29T12:34:57Z is after 2000-02-29T12:34:56Z"
        );
    }
}
