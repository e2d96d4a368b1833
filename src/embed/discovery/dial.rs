//! Reaching the endpoints of a discovery service (etcd `client/v3/config.go`).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};

use super::settings::DiscoverySettings;
use crate::support::dial::{Dial, DialError, Place, Speech, Wire, Wish};
use crate::support::tls::{Connector, Protocol, Side, TlsSettings};

/// As in grpc-go: servers cut who pings more often.
const PING_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// One channel for each endpoint; none connects before it is asked.
pub(super) fn channels(settings: &DiscoverySettings) -> Result<Vec<Channel>, String> {
    let first = settings.endpoints.first().map(|text| Place::read(text));
    let tls = tls(settings, first.map_or(Wish::None, |(_, wish)| wish))?;
    let channel = |text: &String| {
        let (place, _) = Place::read(text);
        let endpoint = endpoint(&place, settings);
        endpoint.connect_with_connector_lazy(Dialler(Dial::new(place, tls.clone(), Speech::Http2)))
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
    Ok(wanted.then(|| side.connector()))
}

/// As grpc-go tells it.
fn told(error: &DialError) -> String {
    let step = match error {
        DialError::NotReached(why) => format!("Error while dialing: {why}"),
        DialError::NotAgreed(_) => error.to_string(),
    };
    format!("connection error: desc = \"transport: {step}\"")
}

/// Connects to one endpoint, for a channel, which limits the time.
#[derive(Clone)]
struct Dialler(Dial);

impl tower_service::Service<Uri> for Dialler {
    type Response = TokioIo<Box<dyn Wire>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Dialler(dial) = self.clone();
        Box::pin(async move {
            let connected = dial.connect_at_leisure().await;
            connected.map(TokioIo::new).map_err(|why| io::Error::other(told(&why)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
