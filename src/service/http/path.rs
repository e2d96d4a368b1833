//! The path of a URL, as Go's `http.ServeMux` takes it: unescaped, and only when it is clean; else the client is sent
//! to the clean one. Clients that join `http://host:2379/` and `/v3/kv/range` live from that.

use std::borrow::Cow;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;

use super::Answer;

/// `%xx` undone; `None` if an escape is broken.
pub(super) fn unescape(path: &str) -> Option<Cow<'_, str>> {
    let Some((plain, mut rest)) = path.split_once('%') else { return Some(Cow::Borrowed(path)) };
    let mut bytes = plain.as_bytes().to_vec();
    loop {
        let digits = rest.get(..2).filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        let (plain, after) = match rest[2..].split_once('%') {
            Some((plain, after)) => (plain, Some(after)),
            None => (&rest[2..], None),
        };
        bytes.extend_from_slice(plain.as_bytes());
        match after {
            Some(after) => rest = after,
            None => return Some(String::from_utf8_lossy(&bytes).into_owned().into()),
        }
    }
}

/// Go's `path.Clean`, which here keeps a slash at the end.
fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(kept.pop()),
            part => kept.push(part),
        }
    }
    let mut clean = format!("/{}", kept.join("/"));
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    clean
}

/// Where the request should have gone, if not here.
pub(super) fn redirect<B>(request: &Request<B>, gateway: bool) -> Option<Answer> {
    let path = unescape(request.uri().path())?;
    let mut target = clean(&path);
    if gateway && target == "/v3" {
        target.push('/');
    }
    if target == path {
        return None;
    }
    if let Some(query) = request.uri().query() {
        target = format!("{target}?{query}");
    }
    let text = match *request.method() {
        Method::GET => format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", escape(&target)),
        _ => String::new(),
    };
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    answer.headers_mut().insert(header::LOCATION, HeaderValue::try_from(target).ok()?);
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        let kind = HeaderValue::from_static("text/html; charset=utf-8");
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    Some(answer)
}

/// Go's `htmlEscape`.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        for (path, want) in [
            ("/v3/kv/put", "/v3/kv/put"),
            ("//v3/kv//put", "/v3/kv/put"),
            ("/a/../version", "/version"),
            ("/../version/.", "/version"),
            ("/v3//", "/v3/"),
            ("/", "/"),
        ] {
            assert_eq!(clean(path), want);
        }
        for (path, want) in
            [("/a", Some("/a")), ("/%61%2Fb%c3%a9", Some("/a/bé")), ("/%6", None), ("/%+1", None)]
        {
            assert_eq!(unescape(path).as_deref(), want);
        }
    }
}
