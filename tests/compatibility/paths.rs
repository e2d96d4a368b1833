//! Every path of HTTP: of the three kinds of ports, and of the JSON gateway.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cluster::{LONG, Member};
use crate::seen::{Kind, Seen};
use crate::shape;

/// Of the answers that are not compared word by word, so much is shown.
const SHORT: usize = 100;

const CLIENT: [&str; 20] = [
    "/health",
    "/health?serializable=true",
    "/health?exclude=NOSPACE",
    "/livez",
    "/livez?verbose",
    "/livez/serializable_read",
    "/readyz",
    "/readyz/data_corruption",
    "/readyz/serializable_read",
    "/readyz/linearizable_read",
    "/readyz/non_learner",
    "/version",
    "/metrics",
    "/debug/vars",
    "/debug/pprof/",
    "/debug/requests",
    "/debug/events",
    "/v3beta/kv/range",
    "/v2/keys",
    "/",
];

const METRICS: [&str; 10] = [
    "/health",
    "/livez",
    "/livez/serializable_read",
    "/readyz",
    "/readyz/data_corruption",
    "/readyz/serializable_read",
    "/readyz/linearizable_read",
    "/readyz/non_learner",
    "/metrics",
    "/version",
];

const PEER: [&str; 11] = [
    "/version",
    "/members",
    "/members/promote/1",
    "/members/hashkv",
    "/downgrade/enabled",
    "/leases",
    "/leases/internal",
    "/raft",
    "/raft/probing",
    "/raft/snapshot",
    "/raft/stream/message/1",
];

/// One request.
pub(crate) struct Asked {
    method: Method,
    path: String,
    body: String,
}

/// One answer; of a stream its first line.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    kind: String,
}

impl Asked {
    pub(crate) fn get(path: &str) -> Asked {
        Asked { method: Method::GET, path: path.to_owned(), body: String::new() }
    }

    pub(crate) fn post(path: &str, body: impl Into<String>) -> Asked {
        Asked { method: Method::POST, path: path.to_owned(), body: body.into() }
    }

    /// What is asked for is in most bodies nothing, and what every path takes.
    fn on(port: Kind, path: &str) -> Asked {
        match (port, path) {
            (Kind::Client, "/v3beta/kv/range") => Asked::post(path, r#"{"key":"YQ=="}"#),
            (Kind::Peer, "/members/promote/1") => Asked::post(path, ""),
            (Kind::Peer, "/members/hashkv") => {
                Asked { body: r#"{"revision":0}"#.to_owned(), ..Asked::get(path) }
            }
            _ => Asked::get(path),
        }
    }

    fn of_gateway(path: &str) -> Asked {
        let body = match path {
            "/v3/watch" => r#"{"create_request":{"key":"YQ=="}}"#,
            // Its own name, lest it wait for the campaign's key.
            "/v3/lock/lock" => r#"{"name":"bG9jaw=="}"#,
            _ => "{}",
        };
        Asked::post(path, body)
    }
}

/// Asks; nothing if nobody answers.
pub(crate) async fn ask(address: &str, asked: &Asked) -> Option<Answer> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(&asked.method)
        .uri(&asked.path)
        .header("host", "127.0.0.1")
        .body(Full::new(Bytes::from(asked.body.clone())))
        .expect("the paths are paths");
    let answered = timeout(LONG, sender.send_request(request)).await.ok()?.ok()?;
    let (head, mut body) = answered.into_parts();
    let kind = head.headers.get("content-type").map(|kind| kind.as_bytes().to_vec());
    let streams = asked.path.starts_with("/v3/");
    let mut bytes = Vec::new();
    while let Ok(Some(Ok(frame))) = timeout(LONG, body.frame()).await {
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        if streams && bytes.contains(&b'\n') {
            break;
        }
    }
    connection.abort();
    Some(Answer {
        status: head.status.as_u16(),
        body: String::from_utf8_lossy(&bytes).into_owned(),
        kind: String::from_utf8_lossy(&kind.unwrap_or_default()).into_owned(),
    })
}

impl Answer {
    /// Status, kind of body, and its shape; an error's body, and one that is short, as it is.
    fn show(&self, depth: usize) -> String {
        let first = self.body.lines().next().unwrap_or_default();
        let json = serde_json::from_str(&self.body).or_else(|_| serde_json::from_str(first)).ok();
        let json = json.filter(|json: &serde_json::Value| json.is_object() || json.is_array());
        let body = match json {
            Some(json) if self.status == 200 => shape::of_json(&json, depth),
            _ if self.body.len() <= SHORT => self.body.clone(),
            _ => String::new(),
        };
        format!("{} {} {body}", self.status, self.kind)
    }
}

async fn answer(address: &str, asked: &Asked, depth: usize) -> String {
    ask(address, asked).await.map_or("no answer".to_owned(), |answer| answer.show(depth))
}

/// Asks every path of a member.
pub(crate) async fn walk(member: &Member, seen: &mut Seen) {
    let api = shape::api();
    let mut gateway: Vec<String> =
        shape::methods(&api).iter().flat_map(|(_, method)| shape::paths(&api, method)).collect();
    gateway.sort();
    for path in gateway {
        let shown = answer(&member.client, &Asked::of_gateway(&path), 3).await;
        seen.add(Kind::Gateway, &path, shown);
    }
    for (port, address, paths) in [
        (Kind::Client, &member.client, &CLIENT[..]),
        (Kind::MetricsPort, &member.metrics, &METRICS),
        (Kind::Peer, &member.peer, &PEER),
    ] {
        for path in paths {
            // Go's memory statistics are deep, and no contract.
            let depth = if *path == "/debug/vars" { 1 } else { 3 };
            seen.add(port, path, answer(address, &Asked::on(port, path), depth).await);
        }
    }
}
