//! What one side of TLS is set up with: clients' or peers' (etcd `client/pkg/transport/listener.go`, `TLSInfo`).

use std::fmt;

use super::fingerprint::Fingerprint;
use crate::support::go::quote::quote_list;

/// Files and rules, as flags name them; an empty path is none. The same for clients and for peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// `--cert-file`: shown to who connects, and to who is dialled if there is no client certificate.
    pub cert_file: String,
    /// `--key-file`.
    pub key_file: String,
    /// `--client-cert-file`: shown to who is dialled.
    pub client_cert_file: String,
    /// `--client-key-file`.
    pub client_key_file: String,
    /// `--trusted-ca-file`: alone it already demands certificates of who connects.
    pub trusted_ca_file: String,
    /// `--client-cert-auth`: demands them too, by the system's authorities if no others are named.
    pub client_cert_auth: bool,
    /// Who connects may also show nothing, and is nobody then; a certificate that is shown must be good all the same.
    pub admits_anonymous: bool,
    /// Who is dialled must be signed by this very authority, which it must show; its names do not matter then, and no
    /// other authority does.
    pub pinned_authority: Option<Fingerprint>,
    /// `--client-crl-file`.
    pub crl_file: String,
    /// Common names of which the other side must have one; empty for any.
    pub allowed_common_names: Vec<String>,
    /// Host names of which the other side's certificate must be valid for one; empty for any.
    pub allowed_hostnames: Vec<String>,
    /// Organisations of which the other side must have one, whatever its names; empty for any.
    pub allowed_organisations: Vec<String>,
    /// Organisations whose members are no users, whatever their common names: they speak for others.
    pub nameless_organisations: Vec<String>,
    /// Who connects need not come from an address that its certificate names.
    pub skip_client_san_verification: bool,
    /// The certificate was made here: who is dialled is not verified, as nobody could have signed it.
    pub self_signed: bool,
}

impl TlsSettings {
    /// Whether there is nothing to show: then nobody can be served over TLS.
    pub fn is_empty(&self) -> bool {
        self.cert_file.is_empty() && self.key_file.is_empty()
    }

    /// Whether who connects must show a certificate.
    pub fn demands_certificates(&self) -> bool {
        self.client_cert_auth || !self.trusted_ca_file.is_empty()
    }

    /// Refuses files that belong together and are not all named, and rules that exclude each other.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.cert_file.is_empty() || self.key_file.is_empty() {
            return Err(format!(
                "KeyFile and CertFile must both be present[key: {}, cert: {}]",
                self.key_file, self.cert_file
            ));
        }
        if self.client_cert_file.is_empty() != self.client_key_file.is_empty() {
            return Err(format!(
                "ClientKeyFile and ClientCertFile must both be present or both absent: key: {}, cert: {}]",
                self.client_key_file, self.client_cert_file
            ));
        }
        if !self.allowed_common_names.is_empty() && !self.allowed_hostnames.is_empty() {
            return Err(format!(
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns={}, hostnames={})",
                quote_list(&self.allowed_common_names),
                quote_list(&self.allowed_hostnames)
            ));
        }
        Ok(())
    }
}

/// As etcd's start-up lines print it.
impl fmt::Display for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cert = {}, key = {}, client-cert={}, client-key={}, trusted-ca = {}, client-cert-auth = {}, \
             crl-file = {}",
            self.cert_file,
            self.key_file,
            self.client_cert_file,
            self.client_key_file,
            self.trusted_ca_file,
            self.client_cert_auth,
            self.crl_file
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_and_rules_that_exclude_each_other_are_refused_in_etcds_words() {
        let mut settings = TlsSettings { cert_file: "c".to_owned(), ..TlsSettings::default() };
        let refused = |settings: &TlsSettings| settings.check().unwrap_err();
        assert_eq!(refused(&settings), "KeyFile and CertFile must both be present[key: , cert: c]");
        settings.key_file = "k".to_owned();
        assert_eq!(settings.check(), Ok(()));
        settings.client_key_file = "x".to_owned();
        assert_eq!(
            refused(&settings),
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: x, cert: ]"
        );
        settings.client_key_file = String::new();
        settings.allowed_common_names = vec!["a".to_owned()];
        settings.allowed_hostnames = vec!["b".to_owned(), "c".to_owned()];
        assert_eq!(
            refused(&settings),
            "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"a\"], hostnames=[\"b\" \"c\"])"
        );
    }
}
