//! What a certificate says, and whom it names: Go's rules for host names (Go `crypto/x509/verify.go`), because etcd's
//! rules and log lines are made of them.

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Beyond so many names a refusal counts them instead.
const NAMES_TOLD: usize = 100;

/// What is asked of one certificate here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Certificate {
    /// The last common name of the subject.
    pub(super) common_name: Option<String>,
    /// The subject's organisations.
    pub(super) organisations: Vec<String>,
    /// Host names it is valid for.
    pub(super) dns_names: Vec<String>,
    /// Addresses it is valid for.
    pub(super) ips: Vec<IpAddr>,
    /// The serial number's bytes, highest first, without leading zeros.
    pub(super) serial: Vec<u8>,
    /// Seconds since 1970.
    pub(super) not_before: i64,
    /// Seconds since 1970.
    pub(super) not_after: i64,
    /// Whether it may be shown by a client; by a server. Without a word about it, both.
    pub(super) for_clients: bool,
    pub(super) for_servers: bool,
}

/// Without leading zeros, as numbers are compared.
pub(super) fn magnitude(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().skip_while(|byte| *byte == 0).collect()
}

impl Certificate {
    /// Reads a certificate in DER.
    pub(super) fn parse(der: &[u8]) -> Result<Certificate, String> {
        let malformed = |why: &dyn std::fmt::Display| format!("x509: malformed certificate: {why}");
        let (_, parsed) = X509Certificate::from_der(der).map_err(|why| malformed(&why))?;
        let names = parsed.subject_alternative_name().map_err(|why| malformed(&why))?;
        let usages = parsed.extended_key_usage().map_err(|why| malformed(&why))?;
        let subject = parsed.subject().iter_common_name();
        let common_name = subject.filter_map(|name| name.as_str().ok()).last();
        let organisations = parsed.subject().iter_organization();
        let organisations = organisations.filter_map(|name| name.as_str().ok());
        let mut certificate = Certificate {
            common_name: common_name.map(str::to_owned),
            organisations: organisations.map(str::to_owned).collect(),
            serial: magnitude(parsed.raw_serial()),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            for_clients: usages
                .as_ref()
                .is_none_or(|usage| usage.value.any || usage.value.client_auth),
            for_servers: usages
                .as_ref()
                .is_none_or(|usage| usage.value.any || usage.value.server_auth),
            ..Certificate::default()
        };
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => certificate.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => certificate.ips.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(certificate)
    }

    /// Whether it is valid for `host`, a name or an address; if not, why not, in Go's words.
    pub(super) fn verify_hostname(&self, host: &str) -> Result<(), String> {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            let address = address.to_canonical();
            return match self.ips.contains(&address) {
                true => Ok(()),
                false => Err(self.mismatch(bare, true)),
            };
        }
        let host_lower = host.to_ascii_lowercase();
        let usual = is_hostname(&host_lower, false);
        let fits = |pattern: &String| match usual && is_hostname(pattern, true) {
            true => matches(pattern, &host_lower),
            false => !["", "."].contains(&host) && pattern.eq_ignore_ascii_case(&host_lower),
        };
        match self.dns_names.iter().any(fits) {
            true => Ok(()),
            false => Err(self.mismatch(host, false)),
        }
    }

    fn mismatch(&self, host: &str, is_address: bool) -> String {
        let nameless = self.dns_names.is_empty() && self.ips.is_empty();
        if nameless && self.common_name.as_ref().is_some_and(|name| matches(name, host)) {
            return "x509: certificate relies on legacy Common Name field, use SANs instead"
                .to_owned();
        }
        let (kind, valid): (&str, Vec<String>) = match is_address {
            true if self.ips.is_empty() => {
                return format!(
                    "x509: cannot validate certificate for {host} because it doesn't contain any IP SANs"
                );
            }
            true => ("IP SANs", self.ips.iter().map(IpAddr::to_string).collect()),
            false => ("names", self.dns_names.clone()),
        };
        match valid.len() {
            0 => {
                format!("x509: certificate is not valid for any names, but wanted to match {host}")
            }
            NAMES_TOLD.. => format!(
                "x509: certificate is valid for {} {kind}, but none matched {host}",
                valid.len()
            ),
            _ => format!("x509: certificate is valid for {}, not {host}", valid.join(", ")),
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four: Result<[u8; 4], _> = bytes.try_into();
    let sixteen: Result<[u8; 16], _> = bytes.try_into();
    let address = four.map(IpAddr::from).or_else(|_| sixteen.map(IpAddr::from));
    address.ok().map(|address| address.to_canonical())
}

/// Go's `validHostname`: letters, digits, `-`, `_`; the first label of a pattern may be `*`.
fn is_hostname(host: &str, is_pattern: bool) -> bool {
    let host = if is_pattern { host } else { host.strip_suffix('.').unwrap_or(host) };
    if host.is_empty() || host == "*" {
        return false;
    }
    host.split('.').enumerate().all(|(i, label)| {
        let wild = is_pattern && i == 0 && label == "*";
        let usual =
            |(j, c): (usize, char)| c.is_ascii_alphanumeric() || c == '_' || (c == '-' && j != 0);
        wild || (!label.is_empty() && label.chars().enumerate().all(usual))
    })
}

/// Label by label; `*` stands for a whole first one.
fn matches(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    if pattern.is_empty() || host.is_empty() {
        return false;
    }
    let (wanted, given): (Vec<&str>, Vec<&str>) =
        (pattern.split('.').collect(), host.split('.').collect());
    let fits = |(i, (want, have)): (usize, (&&str, &&str))| {
        (i == 0 && *want == "*") || want.eq_ignore_ascii_case(have)
    };
    wanted.len() == given.len() && wanted.iter().zip(&given).enumerate().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(dns: &[&str], ips: &[&str], common_name: Option<&str>) -> Certificate {
        Certificate {
            common_name: common_name.map(str::to_owned),
            dns_names: dns.iter().map(|name| (*name).to_owned()).collect(),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            ..Certificate::default()
        }
    }

    #[test]
    fn names_and_addresses_are_matched_as_go_matches_them() {
        let one =
            certificate(&["a.example", "*.pods.example", "Odd Name"], &["127.0.0.1", "::1"], None);
        for host in ["a.example", "A.Example.", "m0.pods.example", "odd name", "127.0.0.1", "[::1]"]
        {
            assert_eq!(one.verify_hostname(host), Ok(()), "{host}");
        }
        for host in ["b.example", "pods.example", "x.m0.pods.example", "127.0.0.2", "*", ""] {
            assert!(one.verify_hostname(host).is_err(), "{host}");
        }
    }

    #[test]
    fn a_mismatch_is_told_in_gos_words() {
        let told = |certificate: Certificate, host| certificate.verify_hostname(host).unwrap_err();
        assert_eq!(
            told(certificate(&["a", "b"], &["127.0.0.1"], None), "10.0.0.1"),
            "x509: certificate is valid for 127.0.0.1, not 10.0.0.1"
        );
        assert_eq!(
            told(certificate(&["a", "b"], &[], None), "10.0.0.1"),
            "x509: cannot validate certificate for 10.0.0.1 because it doesn't contain any IP SANs"
        );
        assert_eq!(
            told(certificate(&["a", "b"], &[], None), "c"),
            "x509: certificate is valid for a, b, not c"
        );
        assert_eq!(
            told(certificate(&[], &[], Some("c")), "c"),
            "x509: certificate relies on legacy Common Name field, use SANs instead"
        );
        assert_eq!(
            told(certificate(&[], &["::1"], None), "c"),
            "x509: certificate is not valid for any names, but wanted to match c"
        );
    }
}
