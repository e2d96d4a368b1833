//! Handshakes with who connects.
//!
//! ```text
//!   connection ── first byte ── a place (bounded) ── handshake, off the caller's thread ── address named? ──> stream
//!                     └───────── 10 s in all ──────────────┴── refused: why, in etcd's words
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::certificate::Certificate;
use super::first_byte::FirstByte;
use super::identity::PeerIdentity;
use super::san::San;
use super::side::{Inner, Serving, Side};
use super::words;
use crate::support::listen::Connection;

/// A handshake may take this long (etcd's `tlsHandshakeTimeout`).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes under way on one listener's side; more wait, as long as one may take.
const HANDSHAKES_MAX: usize = 1024;

/// Which connections an acceptor takes; decides what is checked, offered and told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A client URL.
    Client,
    /// A metrics URL: the certificate's names must fit the address that it comes from.
    Metrics,
    /// A peer URL: the same.
    Peer,
}

impl Endpoint {
    fn checks_address(self) -> bool {
        match self {
            Endpoint::Client => false,
            Endpoint::Metrics | Endpoint::Peer => true,
        }
    }

    fn offers(self) -> &'static [&'static [u8]] {
        match self {
            Endpoint::Client | Endpoint::Metrics => &[b"h2", b"http/1.1"],
            Endpoint::Peer => &[b"http/1.1"],
        }
    }
}

/// Shakes hands with who connects. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acceptor {
    side: Side,
    endpoint: Endpoint,
    places: Arc<Semaphore>,
    san: Arc<San>,
}

/// A connection on which both sides are content.
#[derive(Debug)]
pub struct Accepted {
    /// What is said on it.
    pub stream: TlsStream<FirstByte<Connection>>,
    /// Who is there, if it had to say.
    pub identity: Option<PeerIdentity>,
}

/// A connection that was refused, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    remote: String,
    server_name: String,
    /// Addresses and host names of a certificate whose chain was good.
    names: Option<(Vec<String>, Vec<String>)>,
    error: String,
}

impl Rejected {
    /// Why, in Go's words.
    pub fn error(&self) -> &str {
        &self.error
    }

    /// The one line that a refused connection gets. One that just went away is for debugging only, as with etcd.
    pub fn log(&self, endpoint: Endpoint) {
        let text = match endpoint {
            Endpoint::Client | Endpoint::Metrics => "rejected connection on client endpoint",
            Endpoint::Peer => "rejected connection on peer endpoint",
        };
        let (remote, server, error) = (&self.remote, &self.server_name, &self.error);
        match &self.names {
            _ if error == words::EOF => {
                tracing::debug!("remote-addr" = remote, "server-name" = server, error, "{text}")
            }
            Some((addresses, names)) => tracing::warn!(
                "remote-addr" = remote,
                "server-name" = server,
                "ip-addresses" = ?addresses,
                "dns-names" = ?names,
                error,
                "{text}"
            ),
            None => tracing::warn!("remote-addr" = remote, "server-name" = server, error, "{text}"),
        }
    }
}

impl Side {
    /// What serves `endpoint`; `None` without a certificate to show.
    pub fn acceptor(&self, endpoint: Endpoint) -> Option<Acceptor> {
        self.inner.can_be_served().then(|| Acceptor {
            side: self.clone(),
            endpoint,
            places: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            san: Arc::default(),
        })
    }
}

type Shaken = Result<(TlsStream<FirstByte<Connection>>, Option<Certificate>), Rejected>;

impl Acceptor {
    /// What it serves.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Shakes hands.
    pub async fn accept(&self, wire: FirstByte<Connection>) -> Result<Accepted, Rejected> {
        let between = wire.get_ref().addresses();
        let remote = between.map(|(_, other)| other.to_string()).unwrap_or_default();
        let rejected =
            |error: String| Rejected { remote: remote.clone(), error, ..Rejected::default() };
        if !wire.is_handshake() {
            return Err(rejected(words::NOT_TLS.to_owned()));
        }
        let work = shake(Arc::clone(&self.side.inner), self.endpoint, wire, between);
        let whole = async {
            let _place = self.places.acquire().await.expect("the semaphore is never closed");
            let (stream, certificate) = match &self.side.aside {
                Some(aside) => aside.run(work).await?,
                None => work.await?,
            };
            if let Some(certificate) = &certificate {
                let checked = self.check_address(certificate, between).await;
                checked.map_err(|why| told(&rejected(why), certificate))?;
            }
            let identity = certificate.map(|shown| self.side.inner.identity(shown));
            Ok(Accepted { stream, identity })
        };
        let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
        let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, whole).await;
        shaken.unwrap_or_else(|_elapsed| Err(rejected(words::of_io(&late, between))))
    }

    async fn check_address(
        &self,
        certificate: &Certificate,
        between: Option<(SocketAddr, SocketAddr)>,
    ) -> Result<(), String> {
        match between {
            Some((_, other)) if self.endpoint.checks_address() && !self.side.inner.skips_san => {
                self.san.check(certificate, other.ip()).await
            }
            _ => Ok(()),
        }
    }
}

fn told(rejected: &Rejected, certificate: &Certificate) -> Rejected {
    let addresses = certificate.ips.iter().map(ToString::to_string).collect();
    let names = Some((addresses, certificate.dns_names.clone()));
    Rejected { names, ..rejected.clone() }
}

async fn shake(
    side: Arc<Inner>,
    endpoint: Endpoint,
    wire: FirstByte<Connection>,
    between: Option<(SocketAddr, SocketAddr)>,
) -> Shaken {
    let remote = between.map(|(_, other)| other.to_string()).unwrap_or_default();
    let failed = |error| Rejected { remote: remote.clone(), error, ..Rejected::default() };
    let Serving { config, judge, shown } =
        side.server(endpoint.offers()).map_err(|why| failed(words::of_tls(&why)))?;
    let shaken = TlsAcceptor::from(Arc::new(config)).accept(wire).await;
    let seen = judge.map(|judge| judge.seen.lock().clone()).unwrap_or_default();
    match shaken {
        Ok(stream) => Ok((stream, seen.certificate)),
        Err(why) => {
            let error = seen.refused.unwrap_or_else(|| words::of_io(&why, between));
            let server_name = shown.server_name.lock().take().unwrap_or_default();
            let rejected = Rejected { server_name, ..failed(error) };
            Err(seen.certificate.map_or(rejected.clone(), |seen| told(&rejected, &seen)))
        }
    }
}
