//! Reaching the endpoints of a discovery service (etcd `client/v3/config.go`, `client/v3/internal/endpoint`).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tonic::transport::{Channel, Endpoint};

use super::settings::DiscoverySettings;
use crate::support::listen::{Connection, words};
use crate::support::tls::{Connector, Protocol, Side, TlsSettings};
use crate::support::urls::split_host_port;

/// As in grpc-go: servers cut who pings more often.
const PING_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// One channel for each endpoint; none connects before it is asked.
pub(super) fn channels(settings: &DiscoverySettings) -> Result<Vec<Channel>, String> {
    let first = settings.endpoints.first().map(|text| Place::read(text));
    let tls = tls(settings, first.map_or(Wish::None, |(_, wish)| wish))?;
    let channel = |text: &String| {
        let (place, _) = Place::read(text);
        let dial = Dial { place, tls: tls.clone() };
        endpoint(&dial.place, settings).connect_with_connector_lazy(dial)
    };
    Ok(settings.endpoints.iter().map(channel).collect())
}

fn endpoint(place: &Place, settings: &DiscoverySettings) -> Endpoint {
    // The socket is found by `Dial`: this is but the `:authority`.
    let shown = match place {
        Place::Tcp(address) => Endpoint::from_shared(format!("http://{address}")).ok(),
        Place::Unix(_) => None,
    };
    let mut endpoint = shown.unwrap_or_else(|| Endpoint::from_static("http://localhost"));
    if settings.dial_timeout.0 > 0 {
        endpoint = endpoint.connect_timeout(settings.dial_timeout.to_std());
    }
    if settings.keepalive_time.0 > 0 {
        let interval = settings.keepalive_time.to_std().max(PING_INTERVAL_MIN);
        endpoint = endpoint
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(settings.keepalive_timeout.to_std());
    }
    endpoint
}

/// What an endpoint says about TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// `https`, `unixs`.
    Secure,
    /// `http`.
    Plain,
    /// As the settings say.
    None,
}

/// TLS, if the settings or the first endpoint, which speaks for all, ask for it.
fn tls(settings: &DiscoverySettings, first: Wish) -> Result<Option<Connector>, String> {
    let DiscoverySettings { cert_file, key_file, trusted_ca_file, .. } = settings;
    let files = [cert_file, key_file, trusted_ca_file].iter().any(|file| !file.is_empty());
    let asked = files || !settings.insecure_transport || settings.insecure_skip_tls_verify;
    // Files that cannot be read refuse the start even where they are not needed.
    let side = Side::open(
        &TlsSettings {
            cert_file: cert_file.clone(),
            key_file: key_file.clone(),
            trusted_ca_file: trusted_ca_file.clone(),
            // Whoever answers is spoken with, as if nobody could have signed its certificate.
            self_signed: settings.insecure_skip_tls_verify,
            ..TlsSettings::default()
        },
        Protocol::default(),
        None,
    )?;
    let wanted = match first {
        Wish::Secure => true,
        Wish::Plain => false,
        Wish::None => asked,
    };
    Ok(wanted.then(|| side.connector().offering(&[b"h2"])))
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// `host:port`.
    Tcp(String),
    /// The path of a socket.
    Unix(String),
}

impl Place {
    /// `http(s)://host:port`, `unix(s)://path`, `unix(s):path`, or `host:port`.
    fn read(text: &str) -> (Place, Wish) {
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

    async fn connect(&self) -> Result<Connection, String> {
        match self {
            Place::Tcp(address) => connect_tcp(address).await.map(Connection::Tcp),
            Place::Unix(path) => {
                let connected = UnixStream::connect(path).await.map(Connection::Unix);
                connected.map_err(|why| format!("dial unix {path}: connect: {}", words(&why)))
            }
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

/// As grpc-go tells it.
fn failed(step: &str, why: &str) -> String {
    format!("connection error: desc = \"transport: {step}: {why}\"")
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Connects to one endpoint, for a channel.
#[derive(Clone)]
struct Dial {
    place: Place,
    tls: Option<Connector>,
}

impl Dial {
    async fn connect(self) -> Result<TokioIo<Box<dyn Wire>>, String> {
        let wire = self.place.connect().await.map_err(|why| failed("Error while dialing", &why))?;
        let Some(tls) = self.tls else { return Ok(TokioIo::new(Box::new(wire))) };
        let agreed = tls.connect(&self.place.name(), wire).await;
        let wire =
            agreed.map_err(|why| failed("authentication handshake failed", &why.to_string()))?;
        Ok(TokioIo::new(Box::new(wire)))
    }
}

impl tower_service::Service<Uri> for Dial {
    type Response = TokioIo<Box<dyn Wire>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move { dial.connect().await.map_err(io::Error::other) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str) -> Place {
        Place::Tcp(address.to_owned())
    }

    #[test]
    fn endpoints_are_read_as_etcds_client_reads_them() {
        assert_eq!(Place::read("http://a:1"), (tcp("a:1"), Wish::Plain));
        assert_eq!(Place::read(" https://[::1]:1/x"), (tcp("[::1]:1"), Wish::Secure));
        assert_eq!(Place::read("a:1"), (tcp("a:1"), Wish::None));
        let unix = |path: &str| Place::Unix(path.to_owned());
        assert_eq!(Place::read("unixs:///run/a.sock"), (unix("/run/a.sock"), Wish::Secure));
        assert_eq!(Place::read("unix:localhost:1"), (unix("localhost:1"), Wish::None));
        assert_eq!(tcp("[::1]:1").name(), "::1");
        assert_eq!(unix("/run/a.sock").name(), "a.sock");
    }

    #[test]
    fn files_ask_for_tls_and_the_first_endpoint_has_the_last_word() {
        let asks = |wish, change: fn(&mut DiscoverySettings)| {
            let mut settings = DiscoverySettings::default();
            change(&mut settings);
            tls(&settings, wish).map(|tls| tls.is_some())
        };
        assert_eq!(asks(Wish::None, |_| ()), Ok(false));
        assert_eq!(asks(Wish::Secure, |_| ()), Ok(true));
        assert_eq!(asks(Wish::None, |s| s.insecure_transport = false), Ok(true));
        assert_eq!(asks(Wish::Plain, |s| s.insecure_transport = false), Ok(false));
        assert_eq!(asks(Wish::None, |s| s.insecure_skip_tls_verify = true), Ok(true));
        assert_eq!(
            asks(Wish::None, |s| s.trusted_ca_file = "/nonexistent/ca".to_owned()),
            Err("open /nonexistent/ca: no such file or directory".to_owned())
        );
        assert_eq!(
            asks(Wish::None, |s| s.cert_file = "/nonexistent/cert".to_owned()),
            Err("KeyFile and CertFile must both be present[key: , cert: /nonexistent/cert]"
                .to_owned())
        );
    }
}
