//! Heads of an HTTP request as metadata of the call (grpc-gateway `runtime/context.go`).
//!
//! `Authorization` goes on as it is and, without `Bearer `, as `token`; `Grpc-Metadata-X` as `x`; `Grpc-Timeout` is how
//! long the caller waits. What belongs to the transport is never taken from a caller.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tonic::Status;

use super::base64::{self, Alphabet};

const PREFIX: &str = "grpc-metadata-";

/// Tells the services that a call came through the gateway.
const MARK: HeaderName = HeaderName::from_static("grpcgateway-accept");

/// How long a caller waits.
const TIMEOUT: &str = "grpc-timeout";

const TOKEN: HeaderName = HeaderName::from_static("token");

/// Metadata that grpc-go does not let a caller set.
const RESERVED: [&str; 9] = [
    "content-type",
    "user-agent",
    "grpc-message-type",
    "grpc-encoding",
    "grpc-message",
    "grpc-status",
    "grpc-timeout",
    "grpc-status-details-bin",
    "te",
];

/// What a call is made with besides its messages.
#[derive(Debug)]
pub(super) struct Annotations {
    pub(super) heads: HeaderMap,
    pub(super) patience: Option<Duration>,
}

/// Reads the heads of a request.
pub(super) fn annotate(request: &HeaderMap) -> Result<Annotations, Status> {
    let patience = match request.get(TIMEOUT) {
        Some(value) if !value.is_empty() => Some(patience(value)?),
        _ => None,
    };
    let mut heads = HeaderMap::new();
    let accept = request.get(header::ACCEPT).cloned();
    heads.insert(MARK, accept.unwrap_or(HeaderValue::from_static("*/*")));
    for (name, value) in request {
        let Some(key) = name.as_str().strip_prefix(PREFIX) else { continue };
        let Ok(key) = HeaderName::try_from(key) else { continue };
        if RESERVED.contains(&key.as_str()) {
            continue;
        }
        if let Some(value) = passed_on(&key, value)? {
            heads.append(key, value);
        }
    }
    if let Some(given) = request.get(header::AUTHORIZATION) {
        heads.insert(header::AUTHORIZATION, given.clone());
        if !heads.contains_key(&TOKEN) {
            let bare = given.as_bytes().strip_prefix(b"Bearer ").unwrap_or(given.as_bytes());
            let mut bare = HeaderValue::from_bytes(bare).unwrap_or_else(|_| given.clone());
            bare.set_sensitive(true);
            heads.insert(TOKEN, bare);
        }
    }
    Ok(Annotations { heads, patience })
}

/// A value as gRPC carries it; `None` if it cannot.
fn passed_on(key: &HeaderName, value: &HeaderValue) -> Result<Option<HeaderValue>, Status> {
    if !key.as_str().ends_with("-bin") {
        let plain = value.as_bytes().iter().all(|byte| (0x20..=0x7e).contains(byte));
        return Ok(plain.then(|| value.clone()));
    }
    let padded = value.len().is_multiple_of(4);
    let decoded = Alphabet { for_urls: false, padded }.decode(value.as_bytes());
    let bytes = decoded.map_err(|at| {
        let name = canonical(&format!("{PREFIX}{key}"));
        Status::invalid_argument(format!(
            "invalid binary header {name}: illegal base64 data at input byte {at}"
        ))
    })?;
    let mut spelled = String::new();
    base64::encode(&bytes, &mut spelled);
    Ok(HeaderValue::try_from(spelled).ok())
}

/// A head's name as Go spells it: `Grpc-Metadata-X-Bin`.
fn canonical(name: &str) -> String {
    let parts = name.split('-').map(|part| {
        let (first, rest) = part.split_at(part.len().min(1));
        first.to_uppercase() + rest
    });
    parts.collect::<Vec<_>>().join("-")
}

fn patience(value: &HeaderValue) -> Result<Duration, Status> {
    let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    parse_patience(&text)
        .ok_or_else(|| Status::invalid_argument(format!("invalid grpc-timeout: {text}")))
}

fn parse_patience(text: &str) -> Option<Duration> {
    let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let nanos_each: u64 = match unit {
        "H" => 3_600_000_000_000,
        "M" => 60_000_000_000,
        "S" => 1_000_000_000,
        "m" => 1_000_000,
        "u" => 1_000,
        "n" => 1,
        _ => return None,
    };
    let count: i64 = count.parse().ok()?;
    Some(Duration::from_nanos(count.max(0).unsigned_abs().saturating_mul(nanos_each)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotated(heads: &[(&str, &str)]) -> Result<Annotations, Status> {
        let mut map = HeaderMap::new();
        for (name, value) in heads {
            map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        annotate(&map)
    }

    #[test]
    fn the_token_goes_on_without_its_bearer() {
        let heads = annotated(&[("Authorization", "Bearer abc.1")]).unwrap().heads;
        assert_eq!(heads["token"], "abc.1");
        assert_eq!(heads["authorization"], "Bearer abc.1");
        let heads = annotated(&[("authorization", "abc.1"), ("Grpc-Metadata-Token", "own")]);
        assert_eq!(heads.unwrap().heads["token"], "own");
        let bare = annotated(&[]).unwrap();
        assert!(!bare.heads.contains_key("token") && bare.patience.is_none());
        assert!(bare.heads.contains_key("grpcgateway-accept"));
    }

    #[test]
    fn metadata_loses_its_prefix_and_never_replaces_the_transports() {
        let heads = annotated(&[
            ("Grpc-Metadata-hasleader", "true"),
            ("Grpc-Metadata-Te", "x"),
            ("Grpc-Metadata-Grpc-Status", "0"),
            ("X-Other", "1"),
            ("Grpc-Metadata-Raw-Bin", "Zg"),
        ]);
        let heads = heads.unwrap().heads;
        assert_eq!(heads["hasleader"], "true");
        assert_eq!(heads["raw-bin"], "Zg==");
        assert_eq!(heads.len(), 3, "{heads:?}");
        let refused = annotated(&[("Grpc-Metadata-Raw-Bin", "Z!")]).unwrap_err();
        let text =
            "invalid binary header Grpc-Metadata-Raw-Bin: illegal base64 data at input byte 1";
        assert_eq!((refused.code(), refused.message()), (tonic::Code::InvalidArgument, text));
    }

    #[test]
    fn timeouts_have_a_unit() {
        let patience = |text| annotated(&[("Grpc-Timeout", text)]).map(|read| read.patience);
        assert_eq!(patience("2S").unwrap(), Some(Duration::from_secs(2)));
        assert_eq!(patience("5m").unwrap(), Some(Duration::from_millis(5)));
        for wrong in ["5", "S", "xS", "5s"] {
            let text = format!("invalid grpc-timeout: {wrong}");
            assert_eq!(patience(wrong).unwrap_err().message(), text);
        }
    }
}
