//! Who may ask over plain HTTP: host names (against DNS rebinding, CVE-2018-5702) and origins (CORS).

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, StatusCode};

use super::{Answer, error};
use crate::support::go::quote::quote;
use crate::support::tls::Encrypted;
use crate::support::urls::split_host_port;

/// `--host-whitelist` and `--cors`; nothing or `*` allows all.
#[derive(Debug, Default)]
pub(crate) struct Access {
    hosts: Vec<String>,
    origins: Vec<String>,
}

fn allows(list: &[String], name: &str) -> bool {
    list.is_empty() || list.iter().any(|allowed| allowed == "*" || allowed == name)
}

impl Access {
    pub(crate) fn new(hosts: Vec<String>, origins: Vec<String>) -> Self {
        Access { hosts, origins }
    }

    /// The refusal of a plain request for a host that is not ours; over TLS the certificate speaks for the host.
    pub(super) fn refuse_host<B>(&self, request: &Request<B>) -> Option<Answer> {
        if request.extensions().get::<Encrypted>().is_some() {
            return None;
        }
        let host = request
            .uri()
            .authority()
            .map(|authority| authority.as_str().to_owned())
            .or_else(|| Some(request.headers().get(header::HOST)?.to_str().ok()?.to_owned()))
            .unwrap_or_default();
        let host = split_host_port(&host).map_or(host, |(host, _)| host);
        if allows(&self.hosts, &host) {
            return None;
        }
        tracing::warn!(host, "rejecting HTTP request to prevent DNS rebinding attacks");
        let text = format!(
            "
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. etcd --host-whitelist {}

This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).
",
            quote(&host)
        );
        Some(error(StatusCode::MISDIRECTED_REQUEST, text))
    }

    /// The origin to name in the answer.
    pub(super) fn allowed_origin<B>(&self, request: &Request<B>) -> Option<HeaderValue> {
        if allows(&self.origins, "*") {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = request.headers().get(header::ORIGIN)?;
        allows(&self.origins, origin.to_str().ok()?).then(|| origin.clone())
    }
}

/// What the gateway says to who has a name in its certificate, while users count.
pub(super) fn refused_name() -> Answer {
    let text = "CommonName of client sending a request against gateway will be ignored and not used as expected";
    error(StatusCode::BAD_REQUEST, text.to_owned())
}

/// etcd's fixed CORS headers.
pub(super) fn add_cors(headers: &mut HeaderMap, origin: HeaderValue) {
    const METHODS: &str = "POST, GET, OPTIONS, PUT, DELETE";
    const NAMES: &str = "accept, content-type, authorization";
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(NAMES));
}
