//! The handshake of RFC 6455, section 4.2, with the answers of `gorilla/websocket`.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use sha1::{Digest as _, Sha1};
use tonic::body::Body;

use crate::service::gateway::base64::{self, Alphabet};

/// What every server appends to the caller's key (RFC 6455, section 1.3).
const SEED: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Heads that go on to the call.
const FORWARDED: [HeaderName; 2] = [header::ORIGIN, header::REFERER];

/// The caller wants a WebSocket, well or badly.
pub(crate) fn is_upgrade(heads: &HeaderMap) -> bool {
    lists(heads, &header::CONNECTION, "upgrade") && lists(heads, &header::UPGRADE, "websocket")
}

/// Whether one of the comma-separated tokens of a head is `token`.
fn lists(heads: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = heads.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(token))
}

fn text<'a>(heads: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    heads.get(name)?.to_str().ok()
}

/// The answer that opens the WebSocket, or the status of the one that does not.
pub(super) fn accept(method: &Method, heads: &HeaderMap) -> Result<Response<Body>, StatusCode> {
    if method != Method::GET {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    if !lists(heads, &header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(StatusCode::BAD_REQUEST);
    }
    let key = text(heads, &header::SEC_WEBSOCKET_KEY).unwrap_or_default();
    let standard = Alphabet { for_urls: false, padded: true };
    if standard.decode(key.as_bytes()).map(|bytes| bytes.len()) != Ok(16) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let proof = HeaderValue::try_from(proof(key)).expect("base64 makes a head");
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, proof);
    let protocol = text(heads, &header::SEC_WEBSOCKET_PROTOCOL).unwrap_or_default();
    if protocol.starts_with("Bearer") {
        answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("Bearer"));
    }
    Ok(response)
}

/// The answer to a handshake that fails.
pub(super) fn refuse(status: StatusCode) -> Response<Body> {
    let text = format!("{}\n", status.canonical_reason().unwrap_or_default());
    let mut response = Response::new(Body::new(Full::from(text)));
    *response.status_mut() = status;
    let heads = response.headers_mut();
    heads.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    heads.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    heads.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// That we have read the caller's key.
fn proof(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(SEED);
    let mut text = String::new();
    base64::encode(&hash.finalize(), &mut text);
    text
}

/// The request that the WebSocket stands for.
pub(super) fn inner_request(uri: &Uri, heads: &HeaderMap) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    for name in FORWARDED {
        if let Some(value) = heads.get(&name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    if let Some(bearer) = token(heads)
        && let Ok(mut value) = HeaderValue::try_from(format!("Bearer {bearer}"))
    {
        value.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    request
}

/// The token of the cookie, else of the protocol.
fn token(heads: &HeaderMap) -> Option<&str> {
    let cookies = heads.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == "token").then_some(value)
    });
    pairs.next().or_else(|| {
        let (_, after) = text(heads, &header::SEC_WEBSOCKET_PROTOCOL)?.split_once("Bearer,")?;
        Some(after.trim_matches(' '))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> HeaderMap {
        let mut heads = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            heads.insert(name, HeaderValue::from_static(value));
        }
        heads
    }

    #[test]
    fn the_key_of_the_standard_is_proven() {
        let heads = asked();
        assert!(is_upgrade(&heads));
        let answer = accept(&Method::GET, &heads).unwrap();
        assert_eq!(answer.status(), 101);
        assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!answer.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn bad_handshakes_are_refused() {
        assert_eq!(accept(&Method::POST, &asked()).unwrap_err(), 405);
        for name in ["sec-websocket-version", "sec-websocket-key"] {
            let mut heads = asked();
            heads.insert(name, HeaderValue::from_static("12"));
            assert_eq!(accept(&Method::GET, &heads).unwrap_err(), 400, "{name}");
        }
        let refused = refuse(StatusCode::BAD_REQUEST);
        assert_eq!(refused.headers()["sec-websocket-version"], "13");
        assert!(!is_upgrade(&HeaderMap::new()));
    }

    #[test]
    fn tokens_come_by_protocol_or_cookie() {
        let uri = Uri::from_static("/v3/watch");
        let mut heads = asked();
        assert!(inner_request(&uri, &heads).headers().is_empty());
        heads.insert("sec-websocket-protocol", HeaderValue::from_static("Bearer, abc.1"));
        heads.insert("origin", HeaderValue::from_static("http://a"));
        let inner = inner_request(&uri, &heads);
        assert_eq!(inner.method(), Method::POST);
        assert_eq!(inner.headers()["authorization"], "Bearer abc.1");
        assert_eq!(inner.headers()["origin"], "http://a");
        heads.insert("cookie", HeaderValue::from_static("a=b; token=xyz.2"));
        assert_eq!(inner_request(&uri, &heads).headers()["authorization"], "Bearer xyz.2");
        let answer = accept(&Method::GET, &heads).unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "Bearer");
    }
}
