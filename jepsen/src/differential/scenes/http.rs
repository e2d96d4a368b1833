//! What the client port answers over plain HTTP: status, type and body, to the byte.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

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

#[derive(Debug, Default, PartialEq)]
struct Response {
    status: String,
    headers: BTreeMap<String, String>,
    body: String,
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

async fn ask(port: u16, method: &str, path: &str) -> Result<Response> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes).await?;
    parse(&String::from_utf8_lossy(&bytes)).with_context(|| format!("no HTTP answer to {path}"))
}

fn parse(text: &str) -> Option<Response> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.to_owned();
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .filter(|(name, _)| !NOT_COMPARED.contains(&name.as_str()))
        .collect();
    let chunked = headers.get("transfer-encoding").is_some_and(|how| how == "chunked");
    let body = if chunked { unchunked(body)? } else { body.to_owned() };
    // etcd runs its probes in the order of a Go map.
    let mut checks: Vec<&str> = body.split_inclusive('\n').collect();
    checks.sort_by_key(|line| if line.starts_with('[') { *line } else { "~" });
    Some(Response { status, headers, body: checks.concat() })
}

/// The chunks of an answer put together: each has its length in front, in hexadecimal digits.
fn unchunked(mut text: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (length, rest) = text.split_once("\r\n")?;
        let length = usize::from_str_radix(length, 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..length)?);
        text = rest.get(length..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_headers_and_body() {
        let text = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: now\r\n\r\nok\n";
        let response = parse(text).unwrap();
        assert_eq!(response.status, "HTTP/1.1 200 OK");
        assert_eq!(response.headers.len(), 1);
        assert_eq!(response.body, "ok\n");
    }

    #[test]
    fn chunks_are_put_together() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456\r\n7\r\n1\r\n8\r\n0\r\n\r\n";
        assert_eq!(parse(text).unwrap().body, "0123456\r\n78");
        assert!(parse(&text[..text.len() - 7]).is_none(), "the end is missing");
    }
}
