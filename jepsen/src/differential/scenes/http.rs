//! What the client port answers over plain HTTP: status, type and body, to the byte.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Stage;

/// Method and path.
const ASKED: [(&str, &str); 35] = [
    ("GET", "/health"),
    ("GET", "/health?serializable=true"),
    ("GET", "/health?serializable=nonsense"),
    ("GET", "/health?exclude=NOSPACE"),
    ("GET", "/health?exclude=NOSPACE&exclude=CORRUPT"),
    ("GET", "/health?exclude=CORRUPT&serializable=true"),
    ("GET", "/health?exclude=NONSENSE"),
    ("GET", "/health/"),
    ("HEAD", "/health"),
    ("POST", "/health"),
    ("PUT", "/health"),
    ("GET", "/livez"),
    ("GET", "/livez?verbose"),
    ("GET", "/livez?verbose=true"),
    ("GET", "/livez?exclude=serializable_read"),
    ("GET", "/livez?exclude=nonsense&verbose"),
    ("GET", "/livez/serializable_read"),
    ("GET", "/livez/serializable_read?verbose"),
    ("GET", "/livez/nonsense"),
    ("POST", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/readyz?verbose"),
    ("GET", "/readyz?exclude=data_corruption&verbose"),
    ("GET", "/readyz/data_corruption"),
    ("GET", "/readyz/linearizable_read"),
    ("GET", "/readyz/serializable_read"),
    ("GET", "/readyz/non_learner"),
    ("GET", "/readyz/non_learner?verbose"),
    ("DELETE", "/readyz"),
    ("GET", "/version"),
    ("HEAD", "/version"),
    ("POST", "/version"),
    ("OPTIONS", "/version"),
    ("GET", "/nothing/here"),
    ("GET", "/"),
];

/// After it an answer that has not ended is taken as it is.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Headers that tell of the moment or the connection.
const NOT_COMPARED: [&str; 3] = ["date", "content-length", "connection"];

/// What was done, counted: the same calls make the same figures.
///
/// Not ranges, txns and deletes: there etcd counts its own too, for compares, previous values and leases that end. Not
/// watchers and events: etcd counts watchers it has ended over a compaction until they are canceled, and events that no
/// longer found theirs.
const COUNTED: [&str; 11] = [
    "etcd_mvcc_put_total",
    "etcd_debugging_mvcc_keys_total",
    "etcd_debugging_mvcc_current_revision",
    "etcd_debugging_mvcc_compact_revision",
    "etcd_debugging_mvcc_watch_stream_total",
    "etcd_debugging_lease_granted_total",
    "etcd_debugging_lease_revoked_total",
    "etcd_debugging_lease_renewed_total",
    "etcd_debugging_server_lease_expired_total",
    "etcd_server_has_leader",
    "etcd_server_is_leader",
];

/// The figures that differ between two members that were asked the same.
pub(in crate::differential) async fn metrics_that_differ(
    ours: u16,
    theirs: u16,
) -> Result<Vec<String>> {
    let (ours, theirs) = tokio::try_join!(counted(ours), counted(theirs))?;
    let told = |figures: &BTreeMap<String, f64>, name| figures.get(name).copied();
    Ok(COUNTED
        .iter()
        .map(|name| (name, told(&ours, *name), told(&theirs, *name)))
        .filter(|(_, ours, theirs)| ours.is_none() || ours != theirs)
        .map(|(name, ours, theirs)| format!("metric {name}: ours {ours:?} etcd {theirs:?}"))
        .collect())
}

async fn counted(port: u16) -> Result<BTreeMap<String, f64>> {
    let response = ask(port, "GET", "/metrics").await?;
    let figures = response.body.lines().filter_map(|line| line.split_once(' '));
    Ok(figures.filter_map(|(name, told)| Some((name.to_owned(), told.parse().ok()?))).collect())
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::differential) struct Response {
    pub(in crate::differential) status: String,
    pub(in crate::differential) headers: BTreeMap<String, String>,
    pub(in crate::differential) body: String,
}

/// Asks everything of both; against another release than ours nothing.
pub(super) async fn compare(stage: &mut Stage<'_>, when: &str) {
    if !stage.run.release.speaks_our_http() {
        return;
    }
    stage.asked += ASKED.len();
    for (method, path) in ASKED {
        let ports = (stage.ours.port(), stage.theirs.port());
        let answers = tokio::try_join!(ask(ports.0, method, path), ask(ports.1, method, path));
        match answers {
            Ok((ours, theirs)) if ours == theirs => {}
            Ok((ours, theirs)) => stage
                .fault(format!("{method} {path} {when}:\n   ours {ours:?}\n   etcd {theirs:?}")),
            Err(error) => stage.fault(format!("{method} {path} {when}: {error:#}")),
        }
    }
}

/// Asks without heads or body, and reads to the end.
pub(in crate::differential) async fn ask(port: u16, method: &str, path: &str) -> Result<Response> {
    send(port, &Request { method, path, heads: &[], body: b"", ends_with: None }).await
}

/// One request over a connection of its own.
#[derive(Debug, Clone, Copy)]
pub(in crate::differential) struct Request<'a> {
    pub(in crate::differential) method: &'a str,
    pub(in crate::differential) path: &'a str,
    pub(in crate::differential) heads: &'a [(&'a str, &'a str)],
    pub(in crate::differential) body: &'a [u8],
    /// What the answer is left after, if it does not end by itself.
    pub(in crate::differential) ends_with: Option<&'a str>,
}

/// The status of who says nothing, such as a stream whose first message was not understood: silence compares, too.
const SILENT: &str = "silent";

/// Sends a request, and reads the answer to its end or to what it is left after.
pub(in crate::differential) async fn send(port: u16, request: &Request<'_>) -> Result<Response> {
    let Request { method, path, heads, body, ends_with } = request;
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n");
    for (name, value) in *heads {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    connection.write_all(&[head.as_bytes(), b"\r\n", body].concat()).await?;
    let mut bytes = Vec::new();
    let whole = timeout(ANSWER_DEADLINE, async {
        while connection.read_buf(&mut bytes).await? > 0 {
            if ends_with.is_some_and(|end| String::from_utf8_lossy(&bytes).contains(end)) {
                return Ok::<_, std::io::Error>(false);
            }
        }
        Ok(true)
    });
    let left = match whole.await {
        Ok(read) => !read?,
        Err(_elapsed) if bytes.is_empty() => {
            return Ok(Response { status: SILENT.to_owned(), ..Response::default() });
        }
        Err(_elapsed) => true,
    };
    let text = String::from_utf8_lossy(&bytes);
    parse(&text, left).with_context(|| format!("no HTTP answer to {path}"))
}

/// An answer that was `left` before its end is as long as it came.
fn parse(text: &str, left: bool) -> Option<Response> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.to_owned();
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .filter(|(name, _)| !NOT_COMPARED.contains(&name.as_str()))
        .collect();
    let chunked = headers.get("transfer-encoding").is_some_and(|how| how == "chunked");
    let body = if chunked { unchunked(body, left)? } else { body.to_owned() };
    // etcd runs its probes in the order of a Go map.
    let mut checks: Vec<&str> = body.split_inclusive('\n').collect();
    checks.sort_by_key(|line| if line.starts_with('[') { *line } else { "~" });
    Some(Response { status, headers, body: checks.concat() })
}

/// The chunks of an answer put together: each has its length in front, in hexadecimal digits.
fn unchunked(mut text: &str, left: bool) -> Option<String> {
    let mut whole = String::new();
    loop {
        match chunk(text) {
            Some(("", _)) => return Some(whole),
            Some((piece, rest)) => {
                whole.push_str(piece);
                text = rest;
            }
            None => return left.then_some(whole),
        }
    }
}

/// The first chunk, and what follows it.
fn chunk(text: &str) -> Option<(&str, &str)> {
    let (length, rest) = text.split_once("\r\n")?;
    let length = usize::from_str_radix(length, 16).ok()?;
    Some((rest.get(..length)?, rest.get(length..)?.strip_prefix("\r\n")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_headers_and_body() {
        let text = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: now\r\n\r\nok\n";
        let response = parse(text, false).unwrap();
        assert_eq!(response.status, "HTTP/1.1 200 OK");
        assert_eq!(response.headers.len(), 1);
        assert_eq!(response.body, "ok\n");
    }

    #[test]
    fn chunks_are_put_together() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456\r\n7\r\n1\r\n8\r\n0\r\n\r\n";
        assert_eq!(parse(text, false).unwrap().body, "0123456\r\n78");
        assert!(parse(&text[..text.len() - 7], false).is_none(), "the end is missing");
        assert_eq!(parse(&text[..text.len() - 5], true).unwrap().body, "0123456\r\n78");
    }
}
