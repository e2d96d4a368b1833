//! The JSON gateway of a whole server, held against what a real etcd answered.
//!
//! `tests/testdata/gateway/*.txt` was recorded from etcd 3.7.1 by this very code:
//! `GATEWAY_RECORD=127.0.0.1:2379 cargo test -p quorate --lib embed::server::gateway_tests` with an empty etcd there, one
//! for each file.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderMap;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::tests::{config, start};
use crate::embed::Config;

/// Far more than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// Heads that are compared, if an answer has them.
const COMPARED: [&str; 9] = [
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "allow",
    "content-type",
    "grpc-metadata-content-type",
    "location",
    "www-authenticate",
    "x-content-type-options",
];

/// Numbers that differ from cluster to cluster.
const VARYING: [&str; 5] = ["cluster_id", "member_id", "raft_term", "dbSize", "hash"];

/// One request, and after `--` what is answered.
struct Exchange {
    title: String,
    request: Vec<String>,
    /// Lines after which a stream is left; 0 waits for its end.
    lines: usize,
    answer: String,
}

fn parse(text: &str) -> (String, Vec<Exchange>) {
    let mut blocks = text.split("\n== ");
    let head = blocks.next().unwrap_or_default().to_owned();
    let exchanges = blocks.map(|block| {
        let (asked, answer) = block.split_once("\n--").expect("an exchange has an answer");
        let (options, answer) = answer.split_once('\n').unwrap_or((answer, ""));
        let mut lines = asked.lines().map(str::to_owned);
        Exchange {
            title: lines.next().expect("a title"),
            request: lines.collect(),
            lines: options.trim().strip_prefix("lines=").map_or(0, |n| n.parse().unwrap()),
            answer: answer.trim_end().to_owned(),
        }
    });
    (head, exchanges.collect())
}

fn print(head: &str, exchanges: &[Exchange]) -> String {
    let mut text = head.to_owned();
    for Exchange { title, request, lines, answer } in exchanges {
        let options = if *lines > 0 { format!(" lines={lines}") } else { String::new() };
        write!(text, "\n== {title}\n{}\n--{options}\n{answer}\n", request.join("\n")).unwrap();
    }
    text
}

/// `POST /path`, heads, an empty line, the body.
fn request(lines: &[String]) -> Request<Full<Bytes>> {
    let (method, path) = lines[0].split_once(' ').expect("a method and a path");
    let mut builder = Request::builder().method(method.parse::<Method>().unwrap()).uri(path);
    let blank = lines.iter().position(String::is_empty).unwrap_or(lines.len());
    for line in &lines[1..blank] {
        let (name, value) = line.split_once(": ").expect("a head");
        builder = builder.header(name, value);
    }
    if !lines[..blank].iter().any(|line| line.starts_with("Host: ")) {
        builder = builder.header("host", "127.0.0.1");
    }
    let body = lines.get(blank + 1..).unwrap_or_default().join("\n");
    builder.body(Full::new(body.into())).unwrap()
}

async fn exchange(address: &str, exchange: &Exchange) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let answered = tokio::time::timeout(LONG, sender.send_request(request(&exchange.request)));
    let (parts, mut body) = answered.await.expect("an answer in time").unwrap().into_parts();
    let mut text = String::new();
    while exchange.lines == 0 || text.matches('\n').count() < exchange.lines {
        let frame = tokio::time::timeout(LONG, body.frame()).await.expect("the body ends in time");
        let Some(frame) = frame else { break };
        text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
    }
    connection.abort();
    show(parts.status.as_u16(), &parts.headers, &text)
}

fn show(status: u16, heads: &HeaderMap, body: &str) -> String {
    let mut shown = format!("{status}\n");
    for name in COMPARED {
        if let Some(value) = heads.get(name) {
            writeln!(shown, "{name}: {}", value.to_str().unwrap()).unwrap();
        }
    }
    for line in body.split_inclusive('\n') {
        // `|` a line that ends, `>` one that does not.
        let mark = if line.ends_with('\n') { '|' } else { '>' };
        writeln!(shown, "{mark} {}", settle(line.trim_end_matches('\n'))).unwrap();
    }
    shown.trim_end().to_owned()
}

/// Replaces what varies by 0.
fn settle(line: &str) -> String {
    let mut line = line.to_owned();
    for name in VARYING {
        for quote in ["\"", ""] {
            let before = format!("\"{name}\":{quote}");
            let parts: Vec<&str> = line.split(&before).collect();
            let mut settled = parts[0].to_owned();
            for part in &parts[1..] {
                let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
                let zero = if rest.len() < part.len() { "0" } else { "" };
                settled = settled + &before + zero + rest;
            }
            line = settled;
        }
    }
    line
}

async fn replay(file: &str, change: impl FnOnce(&mut Config)) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/gateway").join(file);
    let (head, mut exchanges) = parse(&fs::read_to_string(&path).unwrap());
    if let Ok(etcd) = std::env::var("GATEWAY_RECORD") {
        for asked in &mut exchanges {
            asked.answer = exchange(&etcd, asked).await;
        }
        fs::write(&path, print(&head, &exchanges)).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    change(&mut config);
    let server = start(config).await;
    let mut wrong = String::new();
    for asked in &exchanges {
        let answer = exchange(&server.client_addresses()[0], asked).await;
        if answer != asked.answer {
            let title = &asked.title;
            write!(wrong, "\n== {title}\netcd:\n{}\nours:\n{answer}\n", asked.answer).unwrap();
        }
    }
    server.stop().await.unwrap();
    assert!(wrong.is_empty(), "{file}\n{wrong}");
}

#[tokio::test]
async fn keys_and_transactions_answer_as_etcds() {
    replay("kv.txt", |_| {}).await;
}

#[tokio::test]
async fn bad_requests_answer_as_etcds() {
    replay("errors.txt", |_| {}).await;
}

#[tokio::test]
async fn streams_answer_as_etcds() {
    replay("streams.txt", |_| {}).await;
}

#[tokio::test]
async fn leases_locks_and_elections_answer_as_etcds() {
    replay("recipes.txt", |_| {}).await;
}

#[tokio::test]
async fn listed_origins_and_hosts_answer_as_etcds() {
    replay("access.txt", |config| {
        config.member.cors =
            vec!["http://a.example:80".to_owned(), "http://b.example:80".to_owned()];
        config.member.host_whitelist = vec!["127.0.0.1".to_owned(), "good.example".to_owned()];
    })
    .await;
}

#[tokio::test]
async fn without_the_gateway_its_paths_answer_as_etcds() {
    replay("disabled.txt", |config| config.member.grpc_gateway = false).await;
}

/// A caller's WebSocket, by hand.
struct Socket(TcpStream);

impl Socket {
    async fn open(address: &str, path: &str) -> Socket {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
        assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
        Socket(stream)
    }

    async fn send(&mut self, kind: u8, payload: &[u8]) {
        assert!(payload.len() < 126);
        let mut frame = vec![0x80 | kind, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    async fn receive(&mut self) -> (u8, String) {
        let read = async {
            let kind = self.0.read_u8().await.unwrap() & 0xf;
            let length = match self.0.read_u8().await.unwrap() {
                126 => usize::from(self.0.read_u16().await.unwrap()),
                length => usize::from(length),
            };
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await.unwrap();
            (kind, settle(&String::from_utf8_lossy(&payload)))
        };
        tokio::time::timeout(LONG, read).await.expect("a message in time")
    }
}

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

#[tokio::test]
async fn a_web_socket_watches_and_goes_on_until_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(config(&dir)).await;
    let address = server.client_addresses()[0].clone();
    let mut watcher = Socket::open(&address, "/v3/watch").await;
    watcher.send(TEXT, br#"{"create_request":{"key":"Zm9v"}}"#).await;
    let header = r#""header":{"cluster_id":"0","member_id":"0","revision":"1","raft_term":"0"}"#;
    let created = format!("{{\"result\":{{{header},\"created\":true}}}}");
    assert_eq!(watcher.receive().await, (TEXT, created));
    watcher.send(PING, b"still there?").await;
    assert_eq!(watcher.receive().await, (PONG, "still there?".to_owned()));
    let mut putter = Socket::open(&address, "/v3/kv/put").await;
    putter.send(TEXT, br#"{"key":"Zm9v","value":"YmFy"}"#).await;
    let (kind, answer) = putter.receive().await;
    assert_eq!(kind, TEXT);
    assert!(answer.contains(r#""revision":"2""#), "{answer}");
    assert_eq!(putter.receive().await.0, CLOSE);
    let (kind, event) = watcher.receive().await;
    assert_eq!(kind, TEXT);
    assert!(event.contains(r#""events":[{"kv":{"key":"Zm9v""#), "{event}");
    watcher.send(TEXT, br#"{"cancel_request":{}}"#).await;
    assert!(watcher.receive().await.1.contains(r#""canceled":true"#));
    watcher.send(CLOSE, &1000_u16.to_be_bytes()).await;
    assert_eq!(watcher.receive().await.0, CLOSE);
    let mut lost = Socket::open(&address, "/v3/nowhere").await;
    let not_found = r#"{"code":5,"message":"Not Found"}"#;
    assert_eq!(lost.receive().await, (TEXT, not_found.to_owned()));
    // An open conversation does not hold the server up.
    let mut open = Socket::open(&address, "/v3/kv/put").await;
    tokio::time::timeout(LONG, server.stop()).await.unwrap().unwrap();
    assert_eq!(open.0.read(&mut [0; 8]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn calls_of_the_gateway_wait_for_their_turn() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.member.concurrent_streams_max = 1;
    let server = start(config).await;
    let address = server.client_addresses()[0].clone();
    let mut watcher = Socket::open(&address, "/v3/watch").await;
    watcher.send(TEXT, br#"{"create_request":{"key":"Zm9v"}}"#).await;
    watcher.receive().await;
    let asked = |timeout: &str| Exchange {
        title: String::new(),
        request: ["POST /v3/kv/range", timeout, "", r#"{"key":"Zm9v"}"#].map(str::to_owned).into(),
        lines: 0,
        answer: String::new(),
    };
    let late = exchange(&address, &asked("Grpc-Timeout: 100m")).await;
    assert!(late.starts_with("504\n"), "{late}");
    assert!(late.contains(r#"{"code":4,"message":"context deadline exceeded"}"#), "{late}");
    watcher.send(CLOSE, &[]).await;
    let answered = exchange(&address, &asked("Grpc-Timeout: 20S")).await;
    assert!(answered.starts_with("200\n"), "{answered}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn calls_of_the_gateway_are_counted_as_calls() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(config(&dir)).await;
    let address = server.client_addresses()[0].clone();
    let ask = |lines: &[&str]| Exchange {
        title: String::new(),
        request: lines.iter().map(|line| (*line).to_owned()).collect(),
        lines: 0,
        answer: String::new(),
    };
    let put =
        ["POST /v3/kv/put", "Grpc-Metadata-Client-Api-Version: 3.7.1", "", r#"{"key":"YQ=="}"#];
    assert!(exchange(&address, &ask(&put)).await.starts_with("200\n"));
    assert!(exchange(&address, &ask(&["POST /v3/kv/put"])).await.starts_with("400\n"));
    let metrics = exchange(&address, &ask(&["GET /metrics"])).await;
    let labels = r#"grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}"#;
    for line in [
        format!("grpc_server_started_total{{{labels} 2"),
        format!("grpc_server_handled_total{{grpc_code=\"OK\",{labels} 1"),
        format!("grpc_server_handled_total{{grpc_code=\"InvalidArgument\",{labels} 1"),
        r#"etcd_server_client_requests_total{client_api_version="3.7.1",type="unary"} 1"#
            .to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    server.stop().await.unwrap();
}
