//! Names: of certificates, of what their holders are, of hosts.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rcgen::SanType;
use rcgen::string::Ia5String;

use super::error::PkiError;
use crate::support::tls::Usage;
use crate::support::urls::split_host_port;

/// A certificate of a node, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateName {
    /// Of the member's client port.
    Server,
    /// Of the member among members, on both ends.
    Peer,
    /// Of the node as a client of others.
    Client,
    /// Of the API's TCP port.
    MemberApi,
}

impl CertificateName {
    /// All of them.
    pub const ALL: [CertificateName; 4] = [
        CertificateName::Server,
        CertificateName::Peer,
        CertificateName::Client,
        CertificateName::MemberApi,
    ];

    /// As it stands in requests, answers and file names.
    pub fn as_str(self) -> &'static str {
        match self {
            CertificateName::Server => "server",
            CertificateName::Peer => "peer",
            CertificateName::Client => "client",
            CertificateName::MemberApi => "member-api",
        }
    }

    /// What it is shown for.
    pub fn usages(self) -> &'static [Usage] {
        match self {
            CertificateName::Server | CertificateName::MemberApi => &[Usage::Server],
            CertificateName::Client => &[Usage::Client],
            CertificateName::Peer => &[Usage::Server, Usage::Client],
        }
    }
}

impl CertificateName {
    /// Whether others let its holder do things for what it is to the fleet, by its organisation.
    pub fn tells_role(self) -> bool {
        match self {
            CertificateName::Peer | CertificateName::Client | CertificateName::MemberApi => true,
            CertificateName::Server => false,
        }
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CertificateName {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let found = CertificateName::ALL.into_iter().find(|name| name.as_str() == text);
        found.ok_or_else(|| PkiError::NoSuchName(text.to_owned()))
    }
}

/// What the holder of a certificate is to the fleet; stands in it as the subject's organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Organisation {
    /// A node that holds a replica: may do everything.
    ControlPlane,
    /// A node that passes on: a client like others.
    Worker,
    /// A person or program: may do everything.
    Admin,
}

impl Organisation {
    /// As it stands in the certificate.
    pub fn as_str(self) -> &'static str {
        match self {
            Organisation::ControlPlane => "quorate:control-plane",
            Organisation::Worker => "quorate:worker",
            Organisation::Admin => "quorate:admin",
        }
    }
}

impl fmt::Display for Organisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The host of a URL, of `host:port` or of a bare host; `None` where there is none.
pub fn host_of(address: &str) -> Option<String> {
    let bare = address.split_once("://").map_or(address, |(_, rest)| rest);
    let bare = bare.split('/').next().unwrap_or(bare);
    let host = match split_host_port(bare) {
        Ok((host, _)) => host.to_string(),
        Err(_) => bare.trim_start_matches('[').trim_end_matches(']').to_owned(),
    };
    (!host.is_empty()).then_some(host)
}

/// How a certificate names a host: by address, or by a name that others will take for one.
pub(super) fn alternative(host: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let refused = || PkiError::Host(host.to_owned());
    if !is_host_name(host) {
        return Err(refused());
    }
    Ia5String::try_from(host).map(SanType::DnsName).map_err(|_| refused())
}

/// Letters, digits, `-` and `_` in labels of 63 at most; the first may be `*`. As those who verify read it.
pub(super) fn is_host_name(host: &str) -> bool {
    let label = |(at, label): (usize, &str)| {
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let bounded = !label.starts_with('-') && !label.ends_with('-') && label.len() <= 63;
        (at == 0 && label == "*" && host.len() > 2)
            || (!label.is_empty() && bounded && label.bytes().all(usual))
    };
    host.len() <= 253 && host.split('.').enumerate().all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_the_authority_is_none_of_them() {
        for name in CertificateName::ALL {
            assert_eq!(name.as_str().parse::<CertificateName>().unwrap(), name);
        }
        let refused = "ca".parse::<CertificateName>().unwrap_err().to_string();
        assert!(refused.starts_with("no certificate is named \"ca\""), "{refused}");
    }

    #[test]
    fn the_host_is_found_in_all_that_names_one() {
        for (address, host) in [
            ("https://m1.example:2380", Some("m1.example")),
            ("https://[::1]:2380/", Some("::1")),
            ("127.0.0.1:6400", Some("127.0.0.1")),
            ("[::1]:6400", Some("::1")),
            ("m1", Some("m1")),
            (":6400", None),
            ("", None),
        ] {
            assert_eq!(host_of(address).as_deref(), host, "{address}");
        }
    }

    #[test]
    fn what_nobody_would_take_for_a_host_is_refused() {
        for good in ["m1", "m-1.example.com", "*.example.com", "10.0.0.1", "::1", "a_b"] {
            assert!(alternative(good).is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "*", "a..b", "-a", "a b", "é", "a.*", "http://a", "a:1", &long] {
            assert!(alternative(bad).is_err(), "{bad}");
        }
    }
}
