//! Whether who connects comes from where its certificate says (etcd `client/pkg/transport/listener_tls.go`,
//! `checkCertSAN`): by address, else by a name that the address has or that leads to it.

use std::net::IpAddr;

use super::certificate::Certificate;
use crate::support::go::quote::{quote, quote_list};
use crate::support::listen::words;
use crate::support::spawn::Blocking;

/// Names of addresses that are looked up at once.
const LOOKUPS_MAX: usize = 4;

/// Looks names up.
#[derive(Debug)]
pub(super) struct San {
    lookups: Blocking,
}

impl Default for San {
    fn default() -> Self {
        San { lookups: Blocking::bounded(LOOKUPS_MAX) }
    }
}

impl San {
    /// Refuses a certificate that names addresses or hosts, and not where it comes from.
    pub(super) async fn check(
        &self,
        certificate: &Certificate,
        from: IpAddr,
    ) -> Result<(), String> {
        let from = from.to_canonical();
        let names = &certificate.dns_names;
        if !certificate.ips.is_empty() {
            match certificate.verify_hostname(&from.to_string()) {
                Ok(()) => return Ok(()),
                Err(why) if names.is_empty() => return Err(why),
                Err(_) => {}
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        let mut failed = String::new();
        for name in names.iter().filter(|name| !name.starts_with("*.")) {
            match tokio::net::lookup_host((name.as_str(), 0)).await {
                Ok(mut found) => {
                    if found.any(|found| found.ip().to_canonical() == from) {
                        return Ok(());
                    }
                }
                Err(why) => failed = format!(" (lookup {name}: {})", words(&why)),
            }
        }
        let own = self.lookups.run(move || dns_lookup::lookup_addr(&from).ok()).await;
        if own.is_some_and(|own| is_one_of(&own, names)) {
            return Ok(());
        }
        let from = quote(&from.to_string());
        Err(format!("tls: {from} does not match any of DNSNames {}{failed}", quote_list(names)))
    }
}

/// As etcd compares them: whole, or by the end after `*`.
fn is_one_of(own: &str, names: &[String]) -> bool {
    let own = own.strip_suffix('.').unwrap_or(own);
    names.iter().any(|name| match name.strip_prefix('*') {
        Some(end) if end.starts_with('.') => own.ends_with(end),
        _ => name == own,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(dns: &[&str], ips: &[&str]) -> Certificate {
        Certificate {
            dns_names: dns.iter().map(|name| (*name).to_owned()).collect(),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            ..Certificate::default()
        }
    }

    #[tokio::test]
    async fn who_connects_must_come_from_where_its_certificate_says() {
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let san = San::default();
        for (dns, ips) in [
            (&[][..], &[][..]),
            (&[], &["127.0.0.1"]),
            (&["localhost"], &[]),
            (&["localhost"], &["10.0.0.1"]),
        ] {
            assert_eq!(san.check(&certificate(dns, ips), local).await, Ok(()), "{dns:?} {ips:?}");
        }
        assert_eq!(
            san.check(&certificate(&[], &["10.0.0.1"]), local).await.unwrap_err(),
            "x509: certificate is valid for 10.0.0.1, not 127.0.0.1"
        );
        let why = san.check(&certificate(&["nowhere.invalid"], &[]), local).await.unwrap_err();
        let want = "tls: \"127.0.0.1\" does not match any of DNSNames [\"nowhere.invalid\"] (lookup nowhere.invalid: ";
        assert!(why.starts_with(want), "{why}");
    }

    #[test]
    fn a_wildcard_fits_by_its_end() {
        let names = ["*.pods.example".to_owned(), "m0".to_owned()];
        assert!(is_one_of("a.b.pods.example.", &names) && is_one_of("m0", &names));
        assert!(!is_one_of("pods.example", &names) && !is_one_of("m1", &names));
    }
}
