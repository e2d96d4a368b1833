//! Handshakes with who is dialled.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::protocol::Protocol;
use super::settings::TlsSettings;
use super::side::{Inner, Side};
use super::words;

/// Shakes hands with who is dialled. Cheap to clone. The default one shows no certificate and trusts the system's
/// authorities.
#[derive(Clone, Debug)]
pub struct Connector {
    side: Side,
    /// Protocols that are offered, the best first; none is HTTP/1.1 as a rule (ALPN, RFC 7301).
    offered: Vec<Vec<u8>>,
    /// Whom the other side's certificate must be valid for, whichever host is dialled.
    name: Option<String>,
    /// Where connections are dialled from, if the kernel is not to choose (etcd keeps it in its `TLSInfo` likewise).
    local: Option<IpAddr>,
}

/// A dialled connection was not agreed on; why, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAgreed(pub String);

impl Default for Connector {
    fn default() -> Self {
        let side = Side::open(&TlsSettings::default(), Protocol::default(), None);
        side.expect("no file is read").connector()
    }
}

impl Side {
    /// What dials.
    pub fn connector(&self) -> Connector {
        Connector { side: self.clone(), offered: Vec::new(), name: None, local: None }
    }
}

impl Connector {
    /// The same, which offers these protocols: `h2` for gRPC.
    pub fn offering(self, protocols: &[&[u8]]) -> Connector {
        let offered = protocols.iter().map(|name| name.to_vec()).collect();
        Connector { offered, ..self }
    }

    /// The same, for which whoever is dialled must be able to speak for `name` (Go's `tls.Config.ServerName`).
    pub fn expecting(self, name: &str) -> Connector {
        Connector { name: Some(name.to_owned()), ..self }
    }

    /// The same, for connections from `local`.
    pub fn from_address(self, local: Option<IpAddr>) -> Self {
        Connector { local, ..self }
    }

    /// Where whoever dials is to do so from; `None`: the kernel chooses.
    pub fn local_address(&self) -> Option<IpAddr> {
        self.local
    }

    /// Shakes hands over `wire` with whom `host`, a name or an address without a port, stands for.
    pub async fn connect<W>(&self, host: &str, wire: W) -> Result<TlsStream<W>, NotAgreed>
    where
        W: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let host = match &self.name {
            Some(name) => name.as_str(),
            None if host.is_empty() => "localhost",
            None => host,
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|why| NotAgreed(format!("tls: {why}: {host}")))?;
        let work = shake(Arc::clone(&self.side.inner), self.offered.clone(), name, wire);
        match &self.side.aside {
            Some(aside) => aside.run(work).await,
            None => work.await,
        }
    }
}

async fn shake<W>(
    side: Arc<Inner>,
    offered: Vec<Vec<u8>>,
    name: ServerName<'static>,
    wire: W,
) -> Result<TlsStream<W>, NotAgreed>
where
    W: AsyncRead + AsyncWrite + Unpin,
{
    let (mut config, judge) = side.client().map_err(|why| NotAgreed(words::of_tls(&why)))?;
    config.alpn_protocols = offered;
    let shaken = TlsConnector::from(Arc::new(config)).connect(name, wire).await;
    shaken.map_err(|why| {
        let refused = judge.seen.lock().refused.take();
        NotAgreed(refused.unwrap_or_else(|| words::of_io(&why, None)))
    })
}
