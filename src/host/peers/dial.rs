//! Reaching a member: name, socket, TLS, HTTP. Nothing is remembered from one time to the next, as addresses change.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;

use super::hello::{self, Hello, Refusal};
use super::stream::Wire;
use crate::support::tls::{Connector, NotAgreed, tls_cause};
use crate::support::urls::{Url, parse_list};

/// An answer's body is cut here.
const BODY_MAX: usize = 1 << 20;

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Finding the address of a name.
    pub(super) resolve: Duration,
    /// Connecting to one address.
    pub(super) connect: Duration,
    /// From the request to its answer.
    pub(super) answer: Duration,
}

/// A member was not reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{0}")]
    BadUrl(String),
    /// Both sides did not agree on a secure connection.
    #[error(transparent)]
    Tls(#[from] NotAgreed),
    #[error("cannot find {host}: {source}")]
    Resolve { host: String, source: io::Error },
    #[error("cannot connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("{0}")]
    Http(hyper::Error),
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("no answer in time")]
    NoAnswer,
    /// Who answered does not want this member.
    #[error("{refusal}")]
    Refused { refusal: Refusal, cluster: Option<String> },
    #[error("unexpected http status {0}")]
    Status(StatusCode),
    #[error("another member, or another cluster, answers there")]
    Imposter,
}

/// What the other side thinks of our certificate comes only after the handshake.
impl From<hyper::Error> for DialError {
    fn from(error: hyper::Error) -> Self {
        match tls_cause(&error) {
            Some(told) => DialError::Tls(NotAgreed(told)),
            None => DialError::Http(error),
        }
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "i/o timeout")
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_elapsed| Err(late()))
}

/// Connects to the host of a URL, with TLS if it says so.
async fn connect(
    url: &Url,
    tls: &Connector,
    patience: Patience,
) -> Result<Box<dyn Wire>, DialError> {
    let wire = connect_plainly(url, tls.local_address(), patience).await?;
    if !url.is_secure() {
        return Ok(wire);
    }
    let host = url.hostname();
    let agreed = timeout(patience.answer, tls.connect(&host, wire)).await;
    Ok(Box::new(agreed.map_err(|_elapsed| DialError::NoAnswer)??))
}

/// Each address of the host in turn.
async fn connect_plainly(
    url: &Url,
    local: Option<IpAddr>,
    patience: Patience,
) -> Result<Box<dyn Wire>, DialError> {
    if url.is_unix() {
        let path = url.socket_path();
        let connected = within(patience.connect, UnixStream::connect(&path)).await;
        let failed = |source| DialError::Connect { address: path, source };
        return Ok(Box::new(connected.map_err(failed)?));
    }
    let host = || url.host.clone();
    let addresses = within(patience.resolve, tokio::net::lookup_host(&url.host)).await;
    let addresses = addresses.map_err(|source| DialError::Resolve { host: host(), source })?;
    let none = io::Error::new(io::ErrorKind::NotFound, "no addresses");
    let mut last = DialError::Resolve { host: host(), source: none };
    for address in addresses {
        let connected = within(patience.connect, connect_from(local, address)).await;
        match connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => return Ok(Box::new(stream)),
            Err(source) => {
                last = DialError::Connect { address: address.to_string(), source };
            }
        }
    }
    Err(last)
}

/// A connection to `address`, from `local` if there is one.
async fn connect_from(local: Option<IpAddr>, address: SocketAddr) -> io::Result<TcpStream> {
    let Some(local) = local else {
        return TcpStream::connect(address).await;
    };
    let socket = match (local, address) {
        (IpAddr::V4(_), SocketAddr::V4(_)) => TcpSocket::new_v4(),
        (IpAddr::V6(_), SocketAddr::V6(_)) => TcpSocket::new_v6(),
        (IpAddr::V4(_), SocketAddr::V6(_)) | (IpAddr::V6(_), SocketAddr::V4(_)) => {
            let why = format!("no way from {local} to an address of another family");
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, why));
        }
    }?;
    socket.bind(SocketAddr::new(local, 0))?;
    socket.connect(address).await
}

fn parse(url: &str) -> Result<Url, DialError> {
    let urls = parse_list(url).map_err(DialError::BadUrl)?;
    urls.into_iter().next().ok_or_else(|| DialError::BadUrl("no URL".to_owned()))
}

/// The body of an answer, as far as it is wanted.
async fn body(response: Response<Incoming>) -> Bytes {
    let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
    body.map(http_body_util::Collected::to_bytes).unwrap_or_default()
}

/// Asks a member for a stream.
pub(super) async fn open_stream(
    url: &str,
    tls: &Connector,
    hello: Hello,
    own_urls: &[String],
    patience: Patience,
) -> Result<Box<dyn Wire>, DialError> {
    let url = parse(url)?;
    let wire = connect(&url, tls, patience).await?;
    let upgrade = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(wire)).await?;
        let request = hello.request(&url.host, own_urls, Empty::<Bytes>::new())?;
        let ask = async {
            let response = sender.send_request(request).await?;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                if !hello.is_answered_by(&response) {
                    return Err(DialError::Imposter);
                }
                return Ok(hyper::upgrade::on(response).await?);
            }
            let status = response.status();
            let cluster = hello::cluster(response.headers()).map(|cluster| cluster.to_string());
            let text = body(response).await;
            Err(match Refusal::parse(status, &String::from_utf8_lossy(&text)) {
                Some(refusal) => DialError::Refused { refusal, cluster },
                None => DialError::Status(status),
            })
        };
        // The connection ends by handing over the socket; its own error comes out of the request as well.
        let (upgraded, _) = alongside(ask, connection.with_upgrades()).await;
        upgraded
    };
    let upgraded = timeout(patience.answer, upgrade).await.map_err(|_| DialError::NoAnswer)??;
    Ok(Box::new(TokioIo::new(upgraded)))
}

/// Runs `work`, with `help` beside it for as long as that lasts.
async fn alongside<T, U>(
    work: impl Future<Output = T>,
    help: impl Future<Output = U>,
) -> (T, Option<U>) {
    let (mut work, mut help) = (std::pin::pin!(work), std::pin::pin!(help));
    tokio::select! {
        done = &mut work => (done, None),
        helped = &mut help => (work.await, Some(helped)),
    }
}

/// An answer to a GET.
pub(super) struct Got {
    /// The cluster that it names.
    pub(super) cluster: Option<quorate_core::api::ids::ClusterId>,
    /// That cluster's level.
    pub(super) level: Option<u32>,
    pub(super) body: Bytes,
}

/// What a GET of `path` is answered.
pub(super) async fn get(
    url: &str,
    tls: &Connector,
    path: &str,
    patience: Patience,
) -> Result<Got, DialError> {
    let url = parse(url)?;
    let wire = connect(&url, tls, patience).await?;
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(wire)).await?;
        let request = Request::get(path).header(http::header::HOST, &url.host);
        let request = request.body(Empty::<Bytes>::new())?;
        let ask = async {
            let response = sender.send_request(request).await?;
            if response.status() != StatusCode::OK {
                return Err(DialError::Status(response.status()));
            }
            let heads = response.headers();
            let (cluster, level) = (hello::cluster(heads), hello::cluster_level(heads));
            Ok(Got { cluster, level, body: body(response).await })
        };
        alongside(ask, connection).await.0
    };
    timeout(patience.answer, exchange).await.map_err(|_| DialError::NoAnswer)?
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_is_dialled_sees_the_address_that_was_to_be_dialled_from() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let local = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));
        let _dialled = connect_from(Some(local), address).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().1.ip(), local);
        let other = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
        let refused = connect_from(Some(other), address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
