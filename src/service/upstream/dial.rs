//! Reaching an endpoint: where it is, and a connection to it, over TLS if it is to be.
//!
//! An endpoint is written as etcd's clients write it: `host:port` with or without `http://` or `https://`, or a
//! `unix://` socket. Without a scheme it is TLS that decides: spoken if any of its settings was given.

use std::io;
use std::time::Duration;

use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::support::listen::words;
use crate::support::tls::Connector;

/// How long connecting may take (etcd's `DialTimeout` of the proxy's client).
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(5);

/// What a TLS connection is to carry.
const HTTP_2: &[&[u8]] = &[b"h2"];
const HTTP_1: &[&[u8]] = &[b"http/1.1"];

/// Bytes in and out.
pub(in crate::service) trait Wire:
    AsyncRead + AsyncWrite + Send + Unpin
{
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::service) enum Speech {
    /// gRPC.
    Http2,
    /// What a member answers beside gRPC.
    Http1,
}

/// Connects to one endpoint, as often as it is asked to.
#[derive(Clone, Debug)]
pub(in crate::service) struct Dial {
    place: Place,
    tls: Option<Connector>,
    speech: Speech,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// `host:port`.
    Tcp(String),
    /// A socket's path.
    Unix(String),
}

impl Dial {
    /// How `endpoint` is reached; `tls` is what was set up for endpoints, if anything was.
    pub(in crate::service) fn new(endpoint: &str, tls: Option<&Connector>, speech: Speech) -> Dial {
        let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
        let tls = match scheme {
            "https" | "unixs" => Some(tls.cloned().unwrap_or_default()),
            "http" | "unix" => None,
            _ => tls.cloned(),
        };
        let place = match scheme {
            "unix" | "unixs" => Place::Unix(rest.to_owned()),
            _ => Place::Tcp(rest.split('/').next().unwrap_or_default().to_owned()),
        };
        Dial { place, tls, speech }
    }

    /// The address under which requests are sent.
    pub(in crate::service) fn uri(&self) -> Result<Uri, String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let host = match &self.place {
            Place::Tcp(host) => host,
            Place::Unix(_) => "localhost",
        };
        let uri: Result<Uri, _> = format!("{scheme}://{host}/").parse();
        uri.map_err(|why| format!("bad endpoint {host}: {why}"))
    }

    /// A new connection.
    pub(in crate::service) async fn connect(&self) -> io::Result<Box<dyn Wire>> {
        let connected = timeout(CONNECT_MAX, self.connect_at_leisure()).await;
        connected.unwrap_or_else(|_elapsed| Err(late()))
    }

    async fn connect_at_leisure(&self) -> io::Result<Box<dyn Wire>> {
        let (wire, host): (Box<dyn Wire>, &str) = match &self.place {
            Place::Tcp(address) => {
                let fault = |why: io::Error| {
                    io::Error::new(
                        why.kind(),
                        format!("dial tcp {address}: connect: {}", words(&why)),
                    )
                };
                let stream = TcpStream::connect(address.as_str()).await.map_err(fault)?;
                stream.set_nodelay(true)?;
                let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
                (Box::new(stream), host.trim_matches(['[', ']']))
            }
            Place::Unix(path) => (Box::new(UnixStream::connect(path).await?), "localhost"),
        };
        let Some(tls) = &self.tls else { return Ok(wire) };
        let offered = match self.speech {
            Speech::Http2 => HTTP_2,
            Speech::Http1 => HTTP_1,
        };
        let agreed = tls.clone().offering(offered).connect(host, wire).await;
        let agreed = agreed
            .map_err(|why| io::Error::other(format!("authentication handshake failed: {why}")))?;
        Ok(Box::new(agreed))
    }
}

pub(super) fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "i/o timeout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_decide_on_tls_and_else_its_settings_do() {
        let uri = |endpoint, tls: Option<&Connector>| {
            Dial::new(endpoint, tls, Speech::Http2).uri().unwrap().to_string()
        };
        let set = Connector::default();
        assert_eq!(uri("127.0.0.1:1", None), "http://127.0.0.1:1/");
        assert_eq!(uri("127.0.0.1:1", Some(&set)), "https://127.0.0.1:1/");
        assert_eq!(uri("http://a:1/x", Some(&set)), "http://a:1/");
        assert_eq!(uri("https://[::1]:1", None), "https://[::1]:1/");
        let unix = Dial::new("unix:///tmp/a.sock", None, Speech::Http2);
        assert_eq!(unix.place, Place::Unix("/tmp/a.sock".to_owned()));
    }
}
