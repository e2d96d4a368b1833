//! TLS of one server: from its flags to what accepts and dials, in etcd's order and words (etcd
//! `server/embed/{config,etcd}.go`).
//!
//! ```text
//!   peers: suites ── auto-tls ── files ──> Acceptor, Connector        clients: the same ──> Acceptors
//! ```
//!
//! **Invariant:** a file that cannot be used refuses the start, before a port is bound.

use std::path::Path;
use std::sync::Arc;

use super::config::{Config, SecuritySettings};
use super::local_address;
use crate::service::serve::Security;
use crate::support::aside::Aside;
use crate::support::listen::words;
use crate::support::tls::{
    Acceptor, Connector, Endpoint, Protocol, Side, TlsSettings, Version, self_signed,
};
use crate::support::urls::Url;

/// What is wrong with the versions and suites asked for, in the order in which etcd looks.
pub(super) fn version_fault(settings: &SecuritySettings) -> Option<String> {
    let (least, most) = (&settings.min_version, &settings.max_version);
    let (min, max) = match (Version::parse(least), Version::parse(most)) {
        (Ok(min), Ok(max)) => (min, max),
        (Err(why), _) | (_, Err(why)) => return Some(why),
    };
    if max.is_some() && min > max {
        return Some(format!("min version ({least}) is greater than max version ({most})"));
    }
    if min == Some(Version::Tls13) && !settings.cipher_suites.is_empty() {
        let why = "cipher suites cannot be configured when only TLS1.3 is enabled";
        return Some(why.to_owned());
    }
    None
}

/// What listeners and dialling need.
pub(super) struct Secured {
    peers: Option<Acceptor>,
    clients: Option<Acceptor>,
    metrics: Option<Acceptor>,
    pub(super) connector: Connector,
}

/// Reads every file that the settings name, and makes those that `--auto-tls` asks for.
pub(super) fn secure(config: &Config) -> Result<Secured, String> {
    let (member, security) = (&config.member, &config.security);
    let read = |text: &str| Version::parse(text).ok().flatten();
    let (min, max) = (read(&security.min_version), read(&security.max_version));
    let protocol = Protocol::new(min, max, &security.cipher_suites)?;
    let folder = Path::new(&member.data_dir).join("fixtures");
    let years = security.self_signed_years;
    let own = |settings: &TlsSettings, auto: bool, name: &str, urls: &[Url]| match auto {
        true if settings.is_empty() => self_signed(&folder.join(name), urls, years),
        true => {
            tracing::warn!("ignoring {name} auto TLS since certs given");
            Ok(settings.clone())
        }
        false => Ok(settings.clone()),
    };
    let peer = own(&security.peer, security.peer_auto, "peer", &member.listen_peer)?;
    if !peer.is_empty() {
        tracing::info!("tls-info" = %peer, "cipher-suites" = ?security.cipher_suites, "starting with peer TLS");
    }
    warn_of_plain(&member.listen_peer, &peer, PEER_WARNINGS, |url, text| {
        tracing::warn!("peer-url" = %url, "{text}");
    });
    if let Some(url) = member.listen_peer.iter().find(|url| url.is_secure() && peer.is_empty()) {
        let place = url.socket_path();
        return Err(format!(
            "cannot listen on TLS for {place}: KeyFile and CertFile are not presented"
        ));
    }
    let client_urls: Vec<Url> =
        member.listen_client.iter().chain(&member.listen_client_http).cloned().collect();
    let client = own(&security.client, security.client_auto, "client", &client_urls)?;
    warn_of_plain(&client_urls, &client, CLIENT_WARNINGS, |url, text| {
        tracing::warn!("client-url" = %url, "{text}");
    });
    if let Some(url) = client_urls.iter().find(|url| url.is_secure() && client.is_empty()) {
        return Err(format!(
            "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
        ));
    }
    if client.is_empty() && member.listen_metrics.iter().any(Url::is_secure) {
        let why =
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url";
        return Err(why.to_owned());
    }
    if !client.is_empty() {
        tracing::info!("tls-info" = %client, "cipher-suites" = ?security.cipher_suites, "starting with client TLS");
    }
    let mut secured = open(&peer, &client, &protocol)?;
    secured.connector = secured.connector.from_address(local_address::infer(config));
    Ok(secured)
}

fn open(peer: &TlsSettings, client: &TlsSettings, protocol: &Protocol) -> Result<Secured, String> {
    let aside = match peer.is_empty() && client.is_empty() {
        true => None,
        false => {
            let started = Aside::start("tls");
            Some(Arc::new(
                started.map_err(|why| format!("cannot start a thread: {}", words(&why)))?,
            ))
        }
    };
    let peers = Side::open(peer, protocol.clone(), aside.clone())?;
    let clients = match client.is_empty() {
        true => None,
        false => Some(Side::open(client, protocol.clone(), aside)?),
    };
    let served = |endpoint| clients.as_ref().and_then(|side| side.acceptor(endpoint));
    Ok(Secured {
        clients: served(Endpoint::Client),
        metrics: served(Endpoint::Metrics),
        peers: peers.acceptor(Endpoint::Peer),
        connector: peers.connector(),
    })
}

const PEER_WARNINGS: [&str; 2] = [
    "scheme is HTTP while key and cert files are present; ignoring key and cert files",
    "scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client cert auth for this URL",
];
const CLIENT_WARNINGS: [&str; 2] = [
    "scheme is http or unix while key and cert files are present; ignoring key and cert files",
    "scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth for this URL",
];

fn warn_of_plain(
    urls: &[Url],
    settings: &TlsSettings,
    [files, auth]: [&str; 2],
    warn: impl Fn(&Url, &str),
) {
    for url in urls.iter().filter(|url| !url.is_secure()) {
        if !settings.is_empty() {
            warn(url, files);
        }
        if settings.client_cert_auth {
            warn(url, auth);
        }
    }
}

impl Secured {
    /// How the listener of `urls`, all of the same place, is spoken to.
    pub(super) fn security(&self, endpoint: Endpoint, urls: &[&Url]) -> Security {
        let acceptor = match endpoint {
            Endpoint::Client => &self.clients,
            Endpoint::Metrics => &self.metrics,
            Endpoint::Peer => &self.peers,
        };
        let secure = urls.iter().filter(|url| url.is_secure()).count();
        match acceptor {
            Some(acceptor) if secure == urls.len() => Security::Tls(acceptor.clone()),
            Some(acceptor) if secure > 0 => Security::Both(acceptor.clone()),
            // Without a certificate a secure URL has refused the start.
            _ => Security::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::urls::parse_list;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        secure(&config).err().unwrap()
    }

    #[test]
    fn secure_urls_without_certificates_are_refused_in_etcds_words() {
        let urls = |text| parse_list(text).unwrap();
        assert_eq!(
            refused(|c| c.member.listen_peer = urls("https://127.0.0.1:2380")),
            "cannot listen on TLS for 127.0.0.1:2380: KeyFile and CertFile are not presented"
        );
        assert_eq!(
            refused(|c| c.member.listen_client = urls("https://127.0.0.1:2379")),
            "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:2379 with \
             HTTPS scheme"
        );
        assert_eq!(
            refused(|c| c.member.listen_metrics = urls("https://127.0.0.1:2381")),
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
        );
        assert_eq!(
            refused(|c| c.security.client.cert_file = "/x/cert".to_owned()),
            "KeyFile and CertFile must both be present[key: , cert: /x/cert]"
        );
        assert_eq!(
            refused(|c| {
                c.security.peer.cert_file = "/x/cert".to_owned();
                c.security.peer.key_file = "/x/key".to_owned();
            }),
            "open /x/cert: no such file or directory"
        );
        assert_eq!(
            refused(|c| c.security.cipher_suites = vec!["TLS_X".to_owned()]),
            "unexpected TLS cipher suite \"TLS_X\""
        );
    }

    #[test]
    fn versions_and_suites_that_do_not_go_together_are_refused_in_etcds_words() {
        let fault = |min: &str, max: &str, suites: &[&str]| {
            version_fault(&SecuritySettings {
                min_version: min.to_owned(),
                max_version: max.to_owned(),
                cipher_suites: suites.iter().map(|name| (*name).to_owned()).collect(),
                ..SecuritySettings::default()
            })
        };
        assert_eq!(fault("TLS1.2", "", &["TLS_AES_128_GCM_SHA256"]), None);
        assert_eq!(fault("", "TLS1.2", &[]), None);
        assert_eq!(
            fault("TLS1.3", "TLS1.2", &[]).unwrap(),
            "min version (TLS1.3) is greater than max version (TLS1.2)"
        );
        assert_eq!(
            fault("TLS1.3", "", &["TLS_AES_128_GCM_SHA256"]).unwrap(),
            "cipher suites cannot be configured when only TLS1.3 is enabled"
        );
        assert_eq!(
            fault("TLS1.2", "1.3", &[]).unwrap(),
            "unexpected TLS version \"1.3\" (must be one of: TLS1.2, TLS1.3)"
        );
    }
}
