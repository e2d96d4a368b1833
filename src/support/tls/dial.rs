//! Handshakes with who is dialled.

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
pub struct Connector(Side);

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
        Connector(self.clone())
    }
}

impl Connector {
    /// Shakes hands over `wire` with whom `host`, a name or an address without a port, stands for.
    pub async fn connect<W>(&self, host: &str, wire: W) -> Result<TlsStream<W>, NotAgreed>
    where
        W: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let host = if host.is_empty() { "localhost" } else { host };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|why| NotAgreed(format!("tls: {why}: {host}")))?;
        let work = shake(Arc::clone(&self.0.inner), name, wire);
        match &self.0.aside {
            Some(aside) => aside.run(work).await,
            None => work.await,
        }
    }
}

async fn shake<W>(
    side: Arc<Inner>,
    name: ServerName<'static>,
    wire: W,
) -> Result<TlsStream<W>, NotAgreed>
where
    W: AsyncRead + AsyncWrite + Unpin,
{
    let (config, judge) = side.client().map_err(|why| NotAgreed(words::of_tls(&why)))?;
    let shaken = TlsConnector::from(Arc::new(config)).connect(name, wire).await;
    shaken.map_err(|why| {
        let refused = judge.seen.lock().refused.take();
        NotAgreed(refused.unwrap_or_else(|| words::of_io(&why, None)))
    })
}
