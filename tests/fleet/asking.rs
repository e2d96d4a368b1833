//! The API as somebody in particular asks it: by a row's form, on a node's socket or over TLS.

use http::Method;
use quorate::support::http_client::{HttpClient, Target};
use quorate::support::tls::{Protocol, Side, TlsSettings};
use serde_json::Value;

use super::daemon::{Daemon, LONG, told};

impl Daemon {
    /// Over TLS, showing nothing.
    pub(crate) fn stranger(&self) -> HttpClient {
        self.over_tls(TlsSettings::default())
    }

    /// Over TLS, with the certificate that this node shows to others.
    pub(crate) fn insider(&self) -> HttpClient {
        let file = |name: &str| self.state(name).display().to_string();
        self.over_tls(TlsSettings {
            cert_file: file("pki/client.crt"),
            key_file: file("pki/client.key"),
            ..TlsSettings::default()
        })
    }

    fn over_tls(&self, settings: TlsSettings) -> HttpClient {
        let trusted_ca_file = self.state("pki/ca.crt").display().to_string();
        let settings = TlsSettings { trusted_ca_file, ..settings };
        let side = Side::open(&settings, Protocol::default(), None).expect("the files are there");
        let address = self.api_address();
        HttpClient::new(Target::Tls { address, connector: side.connector() })
    }
}

/// Asks by a form as the golden files have it (`POST /1.0/k8sd/node`): HTTP status and what was said.
pub(crate) async fn ask(
    client: &HttpClient,
    form: &str,
    headers: &[(&'static str, String)],
    body: Option<&Value>,
) -> (u16, Value) {
    let (method, path) = form.split_once(' ').expect("a method and a path");
    let method: Method = method.parse().expect("a method");
    let mut asking = client.ask(method, path);
    for (name, value) in headers {
        asking = asking.header(name, value);
    }
    if let Some(body) = body {
        asking = asking.json(body);
    }
    told(asking.send(LONG).await)
}
