//! The header fields of HTTP/2 requests on stderr, for who looks into what a client sends.
//!
//! The lines are those of Go's HTTP/2 server under `GODEBUG=http2debug=1` (golang.org/x/net/http2, `frame.go` and
//! `hpack/hpack.go`), which etcd's users and tests look for; what proves who somebody is stays untold here.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use http::{Request, Version};

use crate::support::clock::{rfc3339, unix_micros};
use crate::support::go::quote::quote;

/// How names end whose values let one in, also where the JSON gateway or another proxy is to pass them on
/// (`grpc-metadata-token`).
const SECRETS: [&str; 3] = ["authorization", "token", "cookie"];

/// Writes the fields of a request that came by HTTP/2.
pub(super) fn print<B>(request: &Request<B>) {
    if request.version() == Version::HTTP_2 {
        let text = lines(request, &stamp(&rfc3339(unix_micros())));
        // Who closed stderr does not read it.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// `2026-11-21T10:42:27.863685Z` as Go's `log` writes it.
fn stamp(rfc3339: &str) -> String {
    let (day, time) = rfc3339.split_once('T').unwrap_or((rfc3339, ""));
    format!("{} {}", day.replace('-', "/"), time.get(..8).unwrap_or_default())
}

fn lines<B>(request: &Request<B>, stamp: &str) -> String {
    let uri = request.uri();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let (name, value) = (quote(name), quote(value));
        writeln!(text, "{stamp} http2: decoded hpack field header field {name} = {value}")
            .expect("writing to a string");
    };
    line(":method", request.method().as_str());
    if let Some(scheme) = uri.scheme_str() {
        line(":scheme", scheme);
    }
    line(":path", path);
    if let Some(authority) = uri.authority() {
        line(":authority", authority.as_str());
    }
    for (name, value) in request.headers() {
        let shown = String::from_utf8_lossy(value.as_bytes());
        let secret = SECRETS.iter().any(|end| name.as_str().ends_with(end));
        line(name.as_str(), if secret { "(sensitive)" } else { &shown });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_as_go_tells_them_and_secrets_are_not() {
        let request = Request::post("https://localhost:2379/etcdserverpb.KV/Put")
            .version(Version::HTTP_2)
            .header("user-agent", "grpc-go/1.80")
            .header("token", "abc.17")
            .header("grpc-metadata-authorization", "Bearer abc.17")
            .body(())
            .unwrap();
        let said = |name: &str, value: &str| {
            format!(
                "2026/11/21 10:42:27 http2: decoded hpack field header field \"{name}\" = \"{value}\"\n"
            )
        };
        let expected = [
            said(":method", "POST"),
            said(":scheme", "https"),
            said(":path", "/etcdserverpb.KV/Put"),
            said(":authority", "localhost:2379"),
            said("user-agent", "grpc-go/1.80"),
            said("token", "(sensitive)"),
            said("grpc-metadata-authorization", "(sensitive)"),
        ];
        assert_eq!(lines(&request, &stamp("2026-11-21T10:42:27.863685Z")), expected.concat());
    }
}
