//! Against servers that answer by hand: what is sent, and what becomes of each way in which an answer fails.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use super::*;
use crate::support::listen::Connection;
use crate::support::tls::testing::{Authority, Folder, Made, wanted};
use crate::support::tls::{
    Endpoint, Fingerprint, FirstByte, Protocol, Side, TlsSettings, read_certificates,
};

const LONG: Duration = Duration::from_secs(30);

/// Reads a request to the end of its body.
async fn heard<W: AsyncRead + Unpin>(wire: &mut W) -> String {
    let mut heard = Vec::new();
    let mut byte = [0];
    while !heard.ends_with(b"\r\n\r\n") {
        wire.read_exact(&mut byte).await.unwrap();
        heard.push(byte[0]);
    }
    let head = String::from_utf8(heard).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    wire.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8(body).unwrap()
}

fn response(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// One who answers the first request on a unix socket with `said`, and then stays or goes; tells what was asked.
struct Double {
    _dir: tempfile::TempDir,
    client: HttpClient,
    asked: JoinHandle<String>,
}

fn double(said: String, stays: bool) -> Double {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let asked = tokio::spawn(async move {
        let (mut wire, _) = listener.accept().await.unwrap();
        let asked = heard(&mut wire).await;
        // Who hears an answer that is too long goes before its end.
        let _ = wire.write_all(said.as_bytes()).await;
        if stays {
            let _ = wire.read(&mut [0]).await;
        }
        asked
    });
    Double { _dir: dir, client: HttpClient::new(Target::Unix(path)), asked }
}

#[tokio::test]
async fn a_request_is_sent_as_it_was_put_together_and_answered_in_json() {
    let Double { _dir, client, asked } = double(response("200 OK", "{\"a\":1}"), false);
    let asking = client
        .post("/1.0/k8sd/worker/info?x=1")
        .header("worker-token", "hunter2")
        .json(&json!({"address": "hunter3"}));
    let shown = format!("{asking:?}");
    assert!(!shown.contains("hunter"), "{shown}");
    let answer = asking.send(LONG).await.unwrap();
    assert_eq!((answer.status, answer.json::<Value>().unwrap()), (200, json!({"a": 1})));
    let asked = asked.await.unwrap();
    for part in [
        "POST /1.0/k8sd/worker/info?x=1 HTTP/1.1\r\n",
        "host: localhost\r\n",
        "worker-token: hunter2\r\n",
        "content-type: application/json\r\n",
        "\r\n\r\n{\"address\":\"hunter3\"}",
    ] {
        assert!(asked.contains(part), "{part:?} is not in {asked:?}");
    }
}

#[tokio::test]
async fn a_refusal_comes_with_its_status_and_what_was_said() {
    let Double { _dir, client, .. } =
        double(response("521 Node In Use", "{\"error\":\"x\"}"), false);
    let refused = client.get("/").send(LONG).await.unwrap_err();
    let HttpError::Status { status, body, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!((*status, body.as_ref()), (521, b"{\"error\":\"x\"}".as_slice()));
    assert!(!refused.nothing_was_done());
}

#[tokio::test]
async fn each_way_to_get_no_answer_is_told_apart() {
    let absent = HttpClient::new(Target::Unix("/nonexistent/api.sock".into()));
    let refused = absent.get("/").send(LONG).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "unix:/nonexistent/api.sock cannot be reached: no such file or directory"
    );
    assert!(refused.nothing_was_done());

    let Double { _dir, client, .. } = double(String::new(), false);
    let broken = client.get("/").send(LONG).await.unwrap_err();
    assert!(matches!(broken, HttpError::Broken { .. }), "{broken:?}");

    let silent = double(String::new(), true);
    let late = silent.client.get("/").send(Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(late, HttpError::Deadline { .. }), "{late:?}");

    let endless = "x".repeat(ANSWER_BYTES_MAX + 1);
    let Double { _dir, client, .. } = double(response("200 OK", &endless), false);
    let long = client.get("/").send(LONG).await.unwrap_err();
    assert!(matches!(long, HttpError::TooLong { .. }), "{long:?}");

    let Double { _dir, client, .. } = double(response("200 OK", "[\"hunter2\"]"), false);
    let other = client.get("/").send(LONG).await.unwrap().json::<u64>().unwrap_err();
    assert!(matches!(other, HttpError::NotJson { line: 1, .. }), "{other:?}");
    assert!(!format!("{other} {other:?}").contains("hunter2"));

    let wrong = client.get("/").header("worker-token", "a\nb").send(LONG).await.unwrap_err();
    assert_eq!(wrong.to_string(), "the request cannot be made: the worker-token cannot be sent");
}

#[tokio::test]
async fn lines_are_told_one_by_one_and_the_last_needs_no_end() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunks = "9\r\ndata: 1\r\n\r\n8\r\n\ndata: 2\r\n6\r\n\nlast!\r\n0\r\n\r\n";
    let Double { _dir, client, .. } = double(format!("{head}{chunks}"), true);
    let mut lines = client.get("/1.0/events").lines(LONG).await.unwrap();
    let mut told = Vec::new();
    while let Some(line) = lines.next().await.unwrap() {
        told.push(line);
    }
    assert_eq!(told, ["data: 1", "", "data: 2", "last!"]);
    let Double { _dir, client, .. } = double(response("503 Not Yet", "later"), false);
    let refused = client.get("/1.0/events").lines(LONG).await.unwrap_err();
    assert!(matches!(refused, HttpError::Status { status: 503, .. }), "{refused:?}");
}

/// A server over TLS that shows its chain, and what clients need.
struct Secured {
    dir: tempfile::TempDir,
    authority: Authority,
    address: String,
    server: TlsSettings,
}

impl Secured {
    /// Answers whom it lets in with the organisation or `nobody`.
    async fn start() -> Secured {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new("fleet");
        let made = authority.sign(&wanted("server"));
        let chain = Made { cert: format!("{}{}", made.cert, authority.pem), key: made.key };
        let mut server = Folder::new(dir.path(), "server").settings(&chain, &authority.pem);
        server.client_cert_auth = true;
        server.admits_anonymous = true;
        let side = Side::open(&server, Protocol::default(), None).unwrap();
        let acceptor = side.acceptor(Endpoint::Client).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            loop {
                let (wire, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                let Some(wire) = FirstByte::read(Connection::Tcp(wire)).await.unwrap() else {
                    continue;
                };
                let Ok(mut accepted) = acceptor.accept(wire).await else { continue };
                let name = accepted.identity.and_then(|known| known.common_name);
                heard(&mut accepted.stream).await;
                let answer = response("200 OK", &json!(name).to_string());
                accepted.stream.write_all(answer.as_bytes()).await.unwrap();
                accepted.stream.shutdown().await.unwrap();
            }
        });
        Secured { dir, authority, address, server }
    }

    async fn asked_with(&self, settings: &TlsSettings) -> Result<Value, HttpError> {
        let connector = Side::open(settings, Protocol::default(), None).unwrap().connector();
        let target = Target::Tls { address: self.address.clone(), connector };
        HttpClient::new(target).get("/").send(LONG).await?.json()
    }
}

fn fingerprint(pem: &str) -> Fingerprint {
    read_certificates(pem.as_bytes()).unwrap()[0].fingerprint
}

fn pinned(pem: &str) -> TlsSettings {
    TlsSettings { pinned_authority: Some(fingerprint(pem)), ..TlsSettings::default() }
}

#[tokio::test]
async fn who_knows_the_authoritys_fingerprint_alone_reaches_its_fleet_and_nobody_else() {
    let secured = Secured::start().await;
    let nobody = Value::Null;
    assert_eq!(secured.asked_with(&pinned(&secured.authority.pem)).await.unwrap(), nobody);

    let other = Authority::new("fleet");
    let refused = secured.asked_with(&pinned(&other.pem)).await.unwrap_err();
    assert!(matches!(refused, HttpError::Tls { .. }) && refused.nothing_was_done(), "{refused:?}");
    // The leaf's own fingerprint is not the authority's.
    let leaf = std::fs::read_to_string(&secured.server.cert_file).unwrap();
    assert!(secured.asked_with(&pinned(&leaf)).await.is_err());
}

/// A connection whose other side has given its verdict already.
struct Refused;

impl AsyncRead for Refused {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let verdict = rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA);
        Poll::Ready(Err(io::Error::other(verdict)))
    }
}

impl AsyncWrite for Refused {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, n: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(n.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Also if its connection ends before the request is handed over: a race, which is lost now and then in so many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_by_tls_is_told_as_one_however_early_it_comes() {
    let client = HttpClient::new(Target::Unix("nobody".into()));
    for _ in 0..20_000 {
        let request = Request::get("/").body(Full::default()).unwrap();
        let why = client.over(Refused, request).await.unwrap_err();
        assert!(matches!(why, HttpError::Tls { .. }), "{why:?}");
    }
}

#[tokio::test]
async fn an_impostor_who_shows_the_authoritys_certificate_without_its_signature_is_refused() {
    let secured = Secured::start().await;
    let impostor = Authority::new("fleet").sign(&wanted("server"));
    let chain = format!("{}{}", impostor.cert, secured.authority.pem);
    Folder::new(secured.dir.path(), "server").show(&Made { cert: chain, key: impostor.key });
    let refused = secured.asked_with(&pinned(&secured.authority.pem)).await.unwrap_err();
    assert!(matches!(refused, HttpError::Tls { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_certificate_that_is_shown_must_be_good_also_where_none_is_needed() {
    let secured = Secured::start().await;
    let files = Folder::new(secured.dir.path(), "client");
    let good = files.settings(&secured.authority.sign(&wanted("n1")), &secured.authority.pem);
    assert_eq!(secured.asked_with(&good).await.unwrap(), json!("n1"));
    let bare = TlsSettings { trusted_ca_file: good.trusted_ca_file.clone(), ..Default::default() };
    assert_eq!(secured.asked_with(&bare).await.unwrap(), Value::Null);
    files.show(&Authority::new("another").sign(&wanted("n1")));
    let refused = secured.asked_with(&good).await.unwrap_err();
    let HttpError::Tls { why, .. } = &refused else { panic!("{refused:?}") };
    assert!(why.starts_with("remote error: tls: "), "{why}");
}
