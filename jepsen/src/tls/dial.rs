//! Connections over TLS, each with a handshake of its own.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint, Uri};

use super::authority::Made;
use crate::client::Client;

const PATIENCE: Duration = Duration::from_secs(10);
/// Between two pieces of an answer.
const REST: Duration = Duration::from_millis(500);

/// What is spoken over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Grpc,
    Http1,
}

/// Whom a client trusts, and what it shows.
#[derive(Debug, Clone)]
pub(crate) struct Trusting {
    /// Certificates of authorities, one after the other.
    pub(crate) bundle: String,
    /// Certificate and key.
    pub(crate) shows: Option<(String, String)>,
}

impl Trusting {
    pub(crate) fn showing(bundle: &str, made: &Made) -> Self {
        let shows = Some((made.cert.clone(), made.key.clone()));
        Self { bundle: bundle.to_owned(), shows }
    }

    pub(crate) fn showing_nothing(bundle: &str) -> Self {
        Self { bundle: bundle.to_owned(), shows: None }
    }
}

/// Opens connections of one kind. Counts them: a channel dials anew by itself when its connection breaks.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    config: Arc<ClientConfig>,
    dialled: Arc<AtomicU64>,
}

impl Dialer {
    /// # Errors
    /// When certificate and key do not belong together: files that are being replaced.
    pub(crate) fn new(trusting: &Trusting, speaks: Speaks) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for der in CertificateDer::pem_slice_iter(trusting.bundle.as_bytes()) {
            roots.add(der?)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match &trusting.shows {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain: Result<Vec<_>, _> =
                    CertificateDer::pem_slice_iter(cert.as_bytes()).collect();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
                builder.with_client_auth_cert(chain?, key)?
            }
        };
        config.resumption = Resumption::disabled();
        config.alpn_protocols = match speaks {
            Speaks::Grpc => vec![b"h2".to_vec()],
            Speaks::Http1 => vec![b"http/1.1".to_vec()],
        };
        Ok(Self { config: Arc::new(config), dialled: Arc::default() })
    }

    /// Connections made so far.
    pub(crate) fn dialled(&self) -> u64 {
        self.dialled.load(Ordering::Relaxed)
    }

    async fn over(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        stream.set_nodelay(true)?;
        let host = ServerName::IpAddress(stream.peer_addr()?.ip().into());
        TlsConnector::from(Arc::clone(&self.config)).connect(host, stream).await
    }

    async fn dial(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        self.dialled.fetch_add(1, Ordering::Relaxed);
        self.over(TcpStream::connect(address).await?).await
    }

    /// A channel of one connection, which is open at return.
    pub(crate) async fn channel(&self, endpoint: &str) -> Result<Channel> {
        // The connector does what the scheme would.
        let plain = endpoint.replace("https://", "http://");
        Endpoint::from_shared(plain)?
            .connect_timeout(PATIENCE)
            .connect_with_connector(self.clone())
            .await
            .with_context(|| format!("cannot connect to {endpoint}"))
    }

    /// Every service over one connection.
    pub(crate) async fn client(&self, endpoint: &str) -> Result<Client> {
        Ok(Client::over(self.channel(endpoint).await?))
    }

    /// The certificate that is shown at `address`, in DER.
    pub(crate) async fn shown_at(&self, address: SocketAddr) -> Result<Vec<u8>> {
        let stream = timeout(PATIENCE, self.dial(address)).await??;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        Ok(shown.context("no certificate was shown")?.to_vec())
    }

    /// Sends an HTTP/1.1 request and reads until the other side ends, or rests: what it said, and from where it was asked.
    /// With TLS 1.3 the verdict on what was shown comes with the first read.
    pub(crate) async fn ask(&self, address: SocketAddr, request: &str) -> (SocketAddr, Answer) {
        self.dialled.fetch_add(1, Ordering::Relaxed);
        let asked = async {
            let stream = TcpStream::connect(address).await?;
            let own = stream.local_addr()?;
            let said = async {
                let mut stream = self.over(stream).await?;
                converse(&mut stream, request).await
            };
            Ok::<_, io::Error>((own, said.await))
        };
        settle(timeout(2 * PATIENCE, asked).await)
    }
}

/// What came of a request; `Err` says how the connection ended instead.
pub(crate) type Answer = Result<String, String>;

/// The same without TLS.
pub(crate) async fn ask_plainly(address: SocketAddr, request: &str) -> (SocketAddr, Answer) {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let own = stream.local_addr()?;
        Ok::<_, io::Error>((own, converse(&mut stream, request).await))
    };
    settle(timeout(2 * PATIENCE, asked).await)
}

type Asked = (SocketAddr, io::Result<String>);

fn settle(asked: Result<io::Result<Asked>, tokio::time::error::Elapsed>) -> (SocketAddr, Answer) {
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    match asked {
        Ok(Ok((own, Ok(text)))) if text.is_empty() => {
            (own, Err("closed without a word".to_owned()))
        }
        Ok(Ok((own, said))) => (own, said.map_err(|why| why.to_string())),
        Ok(Err(why)) => (nowhere, Err(why.to_string())),
        Err(_) => (nowhere, Err(format!("nothing happened for {:?}", 2 * PATIENCE))),
    }
}

async fn converse<S>(stream: &mut S, request: &str) -> io::Result<String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.write_all(request.as_bytes()).await?;
    let mut said = Vec::new();
    // Some never close a connection, and some end it without TLS's last word.
    loop {
        let patience = if said.is_empty() { PATIENCE } else { REST };
        match timeout(patience, stream.read_buf(&mut said)).await {
            Ok(Ok(0)) => break,
            Ok(Ok(_)) => {}
            Ok(Err(why)) if said.is_empty() => return Err(why),
            Err(_) if said.is_empty() => return Err(io::ErrorKind::TimedOut.into()),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// The address of an endpoint.
///
/// # Errors
/// When its host is a name.
pub(crate) fn address_of(endpoint: &str) -> Result<SocketAddr> {
    let bare = endpoint.split_once("://").map_or(endpoint, |(_, bare)| bare);
    Ok(bare.parse()?)
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            let place = uri.authority().map(|authority| authority.as_str().to_owned());
            let place = place.ok_or_else(|| io::Error::other("an endpoint without a host"))?;
            let address = place.parse().map_err(io::Error::other)?;
            Ok(TokioIo::new(dialer.dial(address).await?))
        })
    }
}
