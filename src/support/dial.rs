//! Reaching an endpoint as etcd's clients write it, over TLS if it is to be (etcd `client/v3/internal/endpoint`).
//!
//! ```text
//!   [http://|https://]host:port   unix://path   unixs://path ──> Place, Wish ──> Dial ──> a wire
//! ```

use std::io;
use std::time::Duration;

use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use super::listen::words;
use super::tls::Connector;
use super::urls::split_host_port;

/// How long connecting may take (etcd's `DialTimeout` of the proxy's client).
pub const CONNECT_MAX: Duration = Duration::from_secs(5);

/// What a TLS connection is to carry.
const HTTP_2: &[&[u8]] = &[b"h2"];
const HTTP_1: &[&[u8]] = &[b"http/1.1"];

/// Bytes in and out.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// gRPC.
    Http2,
    /// What a member answers beside gRPC.
    Http1,
}

/// What an endpoint says about TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// `https`, `unixs`.
    Secure,
    /// `http`.
    Plain,
    /// Nothing: as the settings say.
    None,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `host:port`.
    Tcp(String),
    /// The path of a socket.
    Unix(String),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody was reached; in the words of Go's `net`.
    #[error("{0}")]
    NotReached(String),
    /// TLS was not agreed on.
    #[error("authentication handshake failed: {0}")]
    NotAgreed(String),
}

impl Place {
    /// `http(s)://host:port`, `unix(s)://path`, `unix(s):path`, or `host:port`.
    pub fn read(text: &str) -> (Place, Wish) {
        let text = text.trim();
        for (scheme, wish) in [("unixs:", Wish::Secure), ("unix:", Wish::None)] {
            if let Some(rest) = text.strip_prefix(scheme) {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                return (Place::Unix(path.to_owned()), wish);
            }
        }
        let (wish, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Wish::Secure, rest),
            Some(("http", rest)) => (Wish::Plain, rest),
            Some((_, rest)) => (Wish::None, rest),
            None => (Wish::None, text),
        };
        let host = rest.split('/').next().unwrap_or_default();
        (Place::Tcp(host.to_owned()), wish)
    }

    /// Whom a certificate must name.
    fn name(&self) -> String {
        match self {
            Place::Tcp(address) => {
                split_host_port(address).map_or_else(|_| address.clone(), |(host, _)| host)
            }
            Place::Unix(path) => path.rsplit('/').next().unwrap_or_default().to_owned(),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Wire>, String> {
        match self {
            Place::Tcp(address) => {
                let connected = connect_tcp(address).await;
                connected.map(|wire| Box::new(wire) as Box<dyn Wire>)
            }
            Place::Unix(path) => match UnixStream::connect(path).await {
                Ok(wire) => Ok(Box::new(wire)),
                Err(why) => Err(format!("dial unix {path}: connect: {}", words(&why))),
            },
        }
    }
}

/// Each address of the host in turn.
async fn connect_tcp(address: &str) -> Result<TcpStream, String> {
    let failed = |why: String| format!("dial tcp {address}: {why}");
    let found =
        lookup_host(address).await.map_err(|why| failed(format!("lookup: {}", words(&why))))?;
    let mut last = failed("lookup: no such host".to_owned());
    for socket in found {
        let connected = TcpStream::connect(socket).await;
        match connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => return Ok(stream),
            Err(why) => last = format!("dial tcp {socket}: connect: {}", words(&why)),
        }
    }
    Err(last)
}

/// Connects to one endpoint, as often as it is asked to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dial {
    place: Place,
    tls: Option<Connector>,
}

impl Dial {
    /// To `place`, over TLS if there is a connector, which offers what is spoken.
    pub fn new(place: Place, tls: Option<Connector>, speech: Speech) -> Dial {
        let offered = match speech {
            Speech::Http2 => HTTP_2,
            Speech::Http1 => HTTP_1,
        };
        Dial { place, tls: tls.map(|tls| tls.offering(offered)) }
    }

    /// How `endpoint` is reached, which has the first word on TLS; `tls` is what was set up for endpoints, if anything
    /// was. A socket is spoken with in plain unless it says otherwise.
    pub fn to(endpoint: &str, tls: Option<&Connector>, speech: Speech) -> Dial {
        let (place, wish) = Place::read(endpoint);
        let tls = match (wish, &place) {
            (Wish::Secure, _) => Some(tls.cloned().unwrap_or_default()),
            (Wish::Plain, _) | (Wish::None, Place::Unix(_)) => None,
            (Wish::None, Place::Tcp(_)) => tls.cloned(),
        };
        Dial::new(place, tls, speech)
    }

    /// The address under which requests are sent.
    pub fn uri(&self) -> Result<Uri, String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let host = match &self.place {
            Place::Tcp(host) => host,
            Place::Unix(_) => "localhost",
        };
        let uri: Result<Uri, _> = format!("{scheme}://{host}/").parse();
        uri.map_err(|why| format!("bad endpoint {host}: {why}"))
    }

    /// A new connection, within [`CONNECT_MAX`].
    pub async fn connect(&self) -> io::Result<Box<dyn Wire>> {
        match timeout(CONNECT_MAX, self.connect_at_leisure()).await {
            Ok(connected) => connected.map_err(io::Error::other),
            Err(_elapsed) => Err(late()),
        }
    }

    /// A new connection, however long it takes.
    pub async fn connect_at_leisure(&self) -> Result<Box<dyn Wire>, DialError> {
        let wire = self.place.connect().await.map_err(DialError::NotReached)?;
        let Some(tls) = &self.tls else { return Ok(wire) };
        let agreed = tls.connect(&self.place.name(), wire).await;
        let agreed = agreed.map_err(|why| DialError::NotAgreed(why.to_string()))?;
        Ok(Box::new(agreed))
    }
}

/// It took too long.
pub fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "i/o timeout")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str) -> Place {
        Place::Tcp(address.to_owned())
    }

    fn unix(path: &str) -> Place {
        Place::Unix(path.to_owned())
    }

    #[test]
    fn endpoints_are_read_as_etcds_client_reads_them() {
        assert_eq!(Place::read("http://a:1"), (tcp("a:1"), Wish::Plain));
        assert_eq!(Place::read(" https://[::1]:1/x"), (tcp("[::1]:1"), Wish::Secure));
        assert_eq!(Place::read("a:1"), (tcp("a:1"), Wish::None));
        assert_eq!(Place::read("unixs:///run/a.sock"), (unix("/run/a.sock"), Wish::Secure));
        assert_eq!(Place::read("unix:localhost:1"), (unix("localhost:1"), Wish::None));
        assert_eq!(tcp("[::1]:1").name(), "::1");
        assert_eq!(unix("/run/a.sock").name(), "a.sock");
    }

    #[test]
    fn schemes_decide_on_tls_and_else_its_settings_do() {
        let uri = |endpoint, tls: Option<&Connector>| {
            Dial::to(endpoint, tls, Speech::Http2).uri().unwrap().to_string()
        };
        let set = Connector::default();
        assert_eq!(uri("127.0.0.1:1", None), "http://127.0.0.1:1/");
        assert_eq!(uri("127.0.0.1:1", Some(&set)), "https://127.0.0.1:1/");
        assert_eq!(uri("http://a:1/x", Some(&set)), "http://a:1/");
        assert_eq!(uri("https://[::1]:1", None), "https://[::1]:1/");
        assert_eq!(uri("unix:///tmp/a.sock", Some(&set)), "http://localhost/");
        assert_eq!(uri("unixs:///tmp/a.sock", None), "https://localhost/");
    }
}
