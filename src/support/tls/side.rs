//! One side of TLS, clients' or peers': its files, kept up to date, and what each handshake is made of them.
//!
//! ```text
//!   TlsSettings ── Side::open: every file read, or refused ──> Acceptor (who connects)
//!                                                          └─> Connector (who is dialled)
//!   handshake: certificate, authorities, revocations as they are now ── rustls config ── Judge
//! ```
//!
//! **Invariant:** the cryptography is handed to each config; the process has no default provider.

use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, Error, ServerConfig, SignatureScheme};

use super::certificate::Certificate;
use super::files::{Revoked, Trust, key_pair};
use super::identity::PeerIdentity;
use super::judge::{Dialled, Judge, Rules, Seen};
use super::kept::Kept;
use super::protocol::Protocol;
use super::settings::TlsSettings;
use crate::support::aside::Aside;

/// One side. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Side {
    pub(super) inner: Arc<Inner>,
    /// Apart from what handshakes hold: the thread is not ended by who runs on it.
    pub(super) aside: Option<Arc<Aside>>,
}

/// What the handshakes of one side share.
pub(super) struct Inner {
    protocol: Protocol,
    /// Shown to who connects; `None` where nobody can.
    pair: Option<Kept<CertifiedKey>>,
    /// Shown to who is dialled, if it is another one.
    client_pair: Option<Kept<CertifiedKey>>,
    trust: Trusting,
    revoked: Option<Kept<Revoked>>,
    rules: Rules,
    demands_certificates: bool,
    admits_anonymous: bool,
    /// Common names are users.
    names_users: bool,
    /// But for those of members of these organisations.
    nameless: Vec<String>,
    pub(super) skips_san: bool,
    dialled: Dialled,
}

enum Trusting {
    Named(Kept<Trust>),
    /// The system's, read when they are first needed.
    System(OnceLock<Arc<Trust>>),
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Side({:?}, {:?})", self.pair, self.protocol)
    }
}

impl Side {
    /// Reads every file that `settings` name. Handshakes run on `aside`, or where they are asked for.
    pub fn open(
        settings: &TlsSettings,
        protocol: Protocol,
        aside: Option<Arc<Aside>>,
    ) -> Result<Side, String> {
        let pair = |cert: &str, key: &str, what| {
            if cert.is_empty() {
                return Ok(None);
            }
            let provider = Arc::clone(&protocol.provider);
            let read = move |files: &[Vec<u8>]| key_pair(&files[0], &files[1], &provider);
            Kept::open(what, &[cert, key], read).map(Some)
        };
        let (mut shown, mut shown_dialling) = (None, None);
        if !settings.is_empty() {
            settings.check()?;
            shown = pair(&settings.cert_file, &settings.key_file, "certificate and key")?;
            let (cert, key) = (&settings.client_cert_file, &settings.client_key_file);
            if cert != &settings.cert_file || key != &settings.key_file {
                shown_dialling = pair(cert, key, "client certificate and key")?;
            }
        }
        let trust = if settings.trusted_ca_file.is_empty() {
            Trusting::System(OnceLock::new())
        } else {
            let provider = Arc::clone(&protocol.provider);
            let read = move |files: &[Vec<u8>]| Trust::read(&files[0], &provider);
            let bundle = [settings.trusted_ca_file.as_str()];
            Trusting::Named(Kept::open("trusted authorities", &bundle, read)?)
        };
        let revoked = match settings.crl_file.as_str() {
            "" => None,
            path => {
                let read = |files: &[Vec<u8>]| Revoked::read(&files[0]);
                Some(Kept::open("revocation list", &[path], read)?)
            }
        };
        let inner = Inner {
            pair: shown,
            client_pair: shown_dialling,
            trust,
            revoked,
            rules: Rules {
                common_names: settings.allowed_common_names.clone(),
                hostnames: settings.allowed_hostnames.clone(),
                organisations: settings.allowed_organisations.clone(),
            },
            demands_certificates: settings.demands_certificates(),
            admits_anonymous: settings.admits_anonymous,
            names_users: settings.client_cert_auth,
            nameless: settings.nameless_organisations.clone(),
            skips_san: settings.skip_client_san_verification,
            dialled: match settings.pinned_authority {
                Some(pin) => Dialled::SignedBy(pin),
                None if settings.self_signed => Dialled::Anybody,
                None => Dialled::Trusted,
            },
            protocol,
        };
        Ok(Side { inner: Arc::new(inner), aside })
    }
}

impl Side {
    /// The common name in the certificate that is shown.
    pub fn common_name(&self) -> Option<String> {
        let pair = self.inner.pair.as_ref()?.current();
        let certificate = Certificate::parse(pair.cert.first()?).ok()?;
        certificate.common_name.filter(|name| !name.is_empty())
    }
}

/// What is shown, and what was asked for.
#[derive(Debug)]
pub(super) struct Shown {
    pair: Option<Arc<CertifiedKey>>,
    /// The name that the other side wants to speak to.
    pub(super) server_name: Mutex<Option<String>>,
}

/// What one accepted connection is shaken hands with.
pub(super) struct Serving {
    pub(super) config: ServerConfig,
    /// `None` where nobody has to say who it is.
    pub(super) judge: Option<Arc<Judge>>,
    pub(super) shown: Arc<Shown>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        *self.server_name.lock() = hello.server_name().map(str::to_owned);
        self.pair.clone()
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.pair.clone()
    }

    fn has_certs(&self) -> bool {
        self.pair.is_some()
    }
}

impl Inner {
    /// Whether there is a certificate to show to who connects.
    pub(super) fn can_be_served(&self) -> bool {
        self.pair.is_some()
    }

    /// What the services hear of who showed `certificate`.
    pub(super) fn identity(&self, certificate: Certificate) -> PeerIdentity {
        let nameless = certificate.organisations.iter().any(|own| self.nameless.contains(own));
        let name = certificate.common_name.filter(|_| !nameless).unwrap_or_default();
        PeerIdentity {
            common_name: self.names_users.then_some(name),
            organisations: certificate.organisations,
        }
    }

    fn trust(&self) -> Arc<Trust> {
        match &self.trust {
            Trusting::Named(kept) => kept.current(),
            Trusting::System(system) => {
                let read = || Arc::new(Trust::of_the_system(&self.protocol.provider));
                Arc::clone(system.get_or_init(read))
            }
        }
    }

    fn judge(&self, dialled: Dialled) -> Arc<Judge> {
        let trust = match dialled {
            Dialled::Trusted => self.trust(),
            Dialled::Anybody | Dialled::SignedBy(_) => Arc::default(),
        };
        Arc::new(Judge {
            trust,
            revoked: self.revoked.as_ref().map(Kept::current),
            rules: self.rules.clone(),
            admits_anonymous: self.admits_anonymous,
            dialled,
            algorithms: self.protocol.provider.signature_verification_algorithms,
            seen: Mutex::new(Seen::default()),
        })
    }

    /// What one accepted connection is shaken hands with. Reads files.
    pub(super) fn server(&self, offered: &[&[u8]]) -> Result<Serving, Error> {
        let pair = self.pair.as_ref().map(Kept::current);
        let shown = Arc::new(Shown { pair, server_name: Mutex::default() });
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.protocol.provider))
            .with_protocol_versions(self.protocol.versions)?;
        let judge = self.demands_certificates.then(|| self.judge(Dialled::Trusted));
        let builder = match &judge {
            Some(judge) => builder.with_client_cert_verifier(Arc::clone(judge) as _),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&shown) as _);
        config.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        // A resumed session would bring a certificate back that may be revoked by now.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Serving { config, judge, shown })
    }

    /// What one dialled connection is shaken hands with. Reads files.
    pub(super) fn client(&self) -> Result<(ClientConfig, Arc<Judge>), Error> {
        let pair = self.client_pair.as_ref().or(self.pair.as_ref()).map(Kept::current);
        let shown = Shown { pair, server_name: Mutex::default() };
        let judge = self.judge(self.dialled);
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.protocol.provider))
            .with_protocol_versions(self.protocol.versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&judge) as _)
            .with_client_cert_resolver(Arc::new(shown));
        config.resumption = Resumption::disabled();
        Ok((config, judge))
    }
}
