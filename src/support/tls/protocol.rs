//! Versions and cipher suites, by the names that Go and thus etcd's flags have for them (etcd
//! `client/pkg/tlsutil/{versions,cipher_suites}.go`, Go `crypto/tls/cipher_suites.go`).
//!
//! Of Go's suites we offer those of TLS 1.3, and those of TLS 1.2 with forward secrecy and authenticated encryption; the
//! others are known by name, so that a list that names them among good ones still starts.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedProtocolVersion};

use crate::support::go::quote::quote;

/// A version of TLS that one may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

impl Version {
    /// Reads `--tls-min-version` and `--tls-max-version`; nothing is no wish.
    pub fn parse(text: &str) -> Result<Option<Version>, String> {
        match text {
            "" => Ok(None),
            "TLS1.2" => Ok(Some(Version::Tls12)),
            "TLS1.3" => Ok(Some(Version::Tls13)),
            other => Err(format!(
                "unexpected TLS version {} (must be one of: TLS1.2, TLS1.3)",
                quote(other)
            )),
        }
    }
}

/// What a name of a suite comes to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suite {
    /// Offered when it is named, or when none is.
    Ours(CipherSuite),
    /// Of TLS 1.3: always offered, as in Go.
    Always,
    /// Known and not offered.
    Never,
}

const SUITES: [(&str, Suite); 26] = [
    ("TLS_AES_128_GCM_SHA256", Suite::Always),
    ("TLS_AES_256_GCM_SHA384", Suite::Always),
    ("TLS_CHACHA20_POLY1305_SHA256", Suite::Always),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", Suite::Ours(ECDSA_AES_128)),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", Suite::Ours(ECDSA_AES_256)),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", Suite::Ours(ECDSA_CHACHA)),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", Suite::Ours(ECDSA_CHACHA)),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", Suite::Ours(RSA_AES_128)),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", Suite::Ours(RSA_AES_256)),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", Suite::Ours(RSA_CHACHA)),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", Suite::Ours(RSA_CHACHA)),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", Suite::Never),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", Suite::Never),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", Suite::Never),
    ("TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", Suite::Never),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", Suite::Never),
    ("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", Suite::Never),
    ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", Suite::Never),
    ("TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", Suite::Never),
    ("TLS_ECDHE_RSA_WITH_RC4_128_SHA", Suite::Never),
    ("TLS_RSA_WITH_AES_128_CBC_SHA", Suite::Never),
    ("TLS_RSA_WITH_AES_256_CBC_SHA", Suite::Never),
    ("TLS_RSA_WITH_AES_128_CBC_SHA256", Suite::Never),
    ("TLS_RSA_WITH_AES_128_GCM_SHA256", Suite::Never),
    ("TLS_RSA_WITH_AES_256_GCM_SHA384", Suite::Never),
    ("TLS_RSA_WITH_3DES_EDE_CBC_SHA", Suite::Never),
];
const ECDSA_AES_128: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
const ECDSA_AES_256: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384;
const ECDSA_CHACHA: CipherSuite = CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
const RSA_AES_128: CipherSuite = CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;
const RSA_AES_256: CipherSuite = CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384;
const RSA_CHACHA: CipherSuite = CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256;

/// Go still knows this one beside those of the table.
const RC4: &str = "TLS_RSA_WITH_RC4_128_SHA";

fn find(name: &str) -> Result<Suite, String> {
    let listed = SUITES.iter().find(|(known, _)| *known == name).map(|(_, suite)| *suite);
    listed
        .or_else(|| (name == RC4).then_some(Suite::Never))
        .ok_or_else(|| format!("unexpected TLS cipher suite {}", quote(name)))
}

static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
static ONLY_1_2: [&SupportedProtocolVersion; 1] = [&TLS12];
static ONLY_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];

/// The provider of all cryptography, narrowed to what was asked for, and the versions that may be spoken.
#[derive(Clone)]
pub struct Protocol {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) versions: &'static [&'static SupportedProtocolVersion],
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suites: Vec<_> = self.provider.cipher_suites.iter().map(|s| s.suite()).collect();
        write!(f, "Protocol({:?}, {suites:?})", self.versions)
    }
}

impl Default for Protocol {
    fn default() -> Self {
        Protocol { provider: Arc::new(aws_lc_rs::default_provider()), versions: &BOTH }
    }
}

impl Protocol {
    /// Versions from `min` to `max`, and of the suites those named; all if none is. A name that Go does not know is
    /// refused, one that only we do not offer is warned of.
    pub fn new(
        min: Option<Version>,
        max: Option<Version>,
        suites: &[String],
    ) -> Result<Protocol, String> {
        let versions: &'static [&'static SupportedProtocolVersion] = match (min, max) {
            (Some(Version::Tls13), _) => &ONLY_1_3,
            (_, Some(Version::Tls12)) => &ONLY_1_2,
            _ => &BOTH,
        };
        let mut provider = aws_lc_rs::default_provider();
        if !suites.is_empty() {
            let named = suites.iter().map(|name| find(name)).collect::<Result<Vec<_>, _>>()?;
            let never = suites.iter().zip(&named).filter(|(_, suite)| **suite == Suite::Never);
            let never: Vec<&String> = never.map(|(name, _)| name).collect();
            provider.cipher_suites.retain(|suite| {
                suite.tls13().is_some() || named.contains(&Suite::Ours(suite.suite()))
            });
            if !never.is_empty() {
                tracing::warn!(
                    "cipher-suites" = ?never,
                    "cipher suites without forward secrecy or authenticated encryption are not offered"
                );
            }
            if versions == ONLY_1_2 && provider.cipher_suites.iter().all(|s| s.tls13().is_some()) {
                return Err(format!(
                    "none of --cipher-suites {} is offered with TLS1.2",
                    suites.join(",")
                ));
            }
        }
        Ok(Protocol { provider: Arc::new(provider), versions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn unknown_names_are_refused_in_etcds_words() {
        assert_eq!(
            Version::parse("TLS1.1").unwrap_err(),
            "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)"
        );
        let refused = Protocol::new(None, None, &names(&["TLS_X"])).unwrap_err();
        assert_eq!(refused, "unexpected TLS cipher suite \"TLS_X\"");
    }

    #[test]
    fn named_suites_narrow_tls_1_2_and_leave_1_3_as_it_is() {
        let all = Protocol::default().provider.cipher_suites.len();
        let asked =
            names(&["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_RSA_WITH_AES_128_CBC_SHA"]);
        let narrowed = Protocol::new(None, None, &asked).unwrap();
        assert_eq!((all, narrowed.provider.cipher_suites.len()), (9, 4));
        let never = names(&["TLS_RSA_WITH_AES_128_CBC_SHA"]);
        assert!(Protocol::new(None, Some(Version::Tls12), &never).is_err());
        let only = Protocol::new(Some(Version::Tls13), None, &[]).unwrap();
        assert_eq!(only.versions, [&TLS13]);
    }
}
