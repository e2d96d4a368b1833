//! The API as others meet it: on its socket, over TLS, and over more than one request.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::double::Double;
use super::{ManagementDesk, bind_socket, serve_management};
use crate::fleet::api::server::{AuditRecord, EventKind};
use crate::fleet::management::{Management as _, Phase};
use crate::fleet::pki::{
    Authority, Bundle, CertificateName, Folder, LEAF_SECONDS, Organisation, Validity, Wanted,
};
use crate::service::serve::{Entrance, Security, Tasks, Traffic};
use crate::support::clock::unix_micros;
use crate::support::http_client::{HttpClient, HttpError, Target};
use crate::support::listen::{SocketOptions, bind};
use crate::support::shutdown::Drain;
use crate::support::tls::{Connector, Endpoint, Protocol, Side, TlsSettings};
use crate::support::urls::parse_list;

const LONG: Duration = Duration::from_secs(30);

/// An API on a socket and on a TLS port.
pub(super) struct Served {
    dir: tempfile::TempDir,
    double: Arc<Double>,
    drain: Drain,
    address: String,
    authority: Authority,
}

fn now() -> i64 {
    i64::try_from(unix_micros() / 1_000_000).unwrap()
}

/// Certificates of a node or person in `folder`, for `organisation`.
fn certificates(folder: &Path, authority: &Authority, organisation: Organisation) -> Folder {
    let validity = Validity::starting(now(), LEAF_SECONDS).unwrap();
    let addresses = ["127.0.0.1:6400".to_owned()];
    let wanted = Wanted::new(CertificateName::Client, organisation, "n1", &addresses, &[]);
    let wanted = CertificateName::ALL.map(|name| wanted.of(name));
    let made = Bundle::make(
        authority.certificate(),
        Some(authority),
        std::collections::BTreeMap::new(),
        &wanted,
        validity,
        now(),
    )
    .unwrap();
    let folder = Folder::open(folder).unwrap();
    folder.write(&made).unwrap();
    folder
}

impl Served {
    pub(super) async fn start() -> Served {
        Served::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(dir: tempfile::TempDir) -> Served {
        let double = Double::new(Phase::ControlPlane, dir.path());
        let drain = Drain::default();
        let desk = ManagementDesk::new(double.clone(), drain.join().unwrap());
        let socket = bind_socket(&dir.path().join("api.sock")).unwrap();
        let validity = Validity::starting(now(), LEAF_SECONDS).unwrap();
        let authority = Authority::generate("u", validity).unwrap();
        let node = certificates(&dir.path().join("pki"), &authority, Organisation::ControlPlane);
        let settings = TlsSettings {
            admits_anonymous: true,
            ..node.tls(CertificateName::MemberApi, CertificateName::Client)
        };
        let side = Side::open(&settings, Protocol::default(), None).unwrap();
        let url = parse_list("https://127.0.0.1:0").unwrap().remove(0);
        let port = bind(&url, SocketOptions::default()).unwrap();
        let address = format!("127.0.0.1:{}", port.port().unwrap());
        let acceptor = side.acceptor(Endpoint::Client).unwrap();
        for (listener, security) in [(socket, Security::Plain), (port, Security::Tls(acceptor))] {
            let entrance = Entrance { listener, traffic: Traffic::Management, security };
            let (desk, draining) = (desk.clone(), drain.join().unwrap());
            tokio::spawn(async move {
                let drain = Duration::from_secs(5);
                serve_management(entrance, &desk, drain, Tasks::new(None), draining).await;
            });
        }
        Served { dir, double, drain, address, authority }
    }

    fn socket(&self) -> HttpClient {
        HttpClient::new(Target::Unix(self.dir.path().join("api.sock")))
    }

    /// Over TLS, with no certificate.
    pub(super) async fn connect(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let wire = TcpStream::connect(&self.address).await.unwrap();
        self.connector(None).connect("127.0.0.1", wire).await.unwrap()
    }

    /// Over TLS, with a certificate of this organisation or none.
    fn port(&self, organisation: Option<Organisation>) -> HttpClient {
        let (address, connector) = (self.address.clone(), self.connector(organisation));
        HttpClient::new(Target::Tls { address, connector })
    }

    fn connector(&self, organisation: Option<Organisation>) -> Connector {
        let own = organisation.map(|organisation| {
            let folder = self.dir.path().join(organisation.as_str().replace(':', "-"));
            certificates(&folder, &self.authority, organisation)
        });
        let settings = match own {
            Some(own) => own.tls(CertificateName::Client, CertificateName::Client),
            None => TlsSettings {
                trusted_ca_file: self.dir.path().join("pki/ca.crt").display().to_string(),
                ..TlsSettings::default()
            },
        };
        Side::open(&settings, Protocol::default(), None).unwrap().connector()
    }
}

async fn told(client: &HttpClient, path: &str) -> Value {
    client.get(path).send(LONG).await.unwrap().json().unwrap()
}

fn status_of<T>(answer: Result<T, HttpError>) -> u16 {
    match answer {
        Ok(_) => 200,
        Err(HttpError::Status { status, .. }) => status,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_socket_is_the_daemons_users_alone_and_tells_what_the_port_tells() {
    let served = Served::start().await;
    let mode = std::fs::metadata(served.dir.path().join("api.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let admin = served.port(Some(Organisation::Admin));
    for path in ["/1.0", "/1.0/k8sd/cluster", "/1.0/k8sd/node", "/1.0/k8sd/cluster/config"] {
        assert_eq!(told(&served.socket(), path).await, told(&admin, path).await, "{path}");
    }
    let node = served.port(Some(Organisation::ControlPlane));
    assert_eq!(told(&node, "/1.0").await["metadata"]["auth"], "trusted");
}

#[tokio::test]
async fn workers_and_strangers_on_the_port_get_what_is_open_and_nothing_else() {
    let served = Served::start().await;
    for client in [served.port(Some(Organisation::Worker)), served.port(None)] {
        assert_eq!(told(&client, "/1.0").await["metadata"]["auth"], "untrusted");
        assert_eq!(told(&client, "/livez").await["health"], "true");
        for path in ["/1.0/k8sd/cluster", "/1.0/events", "/1.0/audit", "/1.0/operations"] {
            assert_eq!(status_of(client.get(path).send(LONG).await), 403, "{path}");
        }
    }
    assert!(served.double.calls().is_empty());
}

#[tokio::test]
async fn nodes_join_by_a_token_alone_and_leave_by_their_certificate() {
    let served = Served::start().await;
    let ask = json!({
        "version": 1, "uid": "u", "secret": "s3cret", "name": "n2", "address": "10.0.0.2:6400",
        "peer_urls": ["https://10.0.0.2:2380"], "client_urls": [], "csrs": {"peer": "CSR"},
    });
    let stranger = served.port(None);
    let answer = stranger.post("/internal/join").json(&ask).send(LONG).await.unwrap();
    assert_eq!(answer.json::<Value>().unwrap()["metadata"]["id"], "a1");
    let later = json!({"version": 2});
    let refused = stranger.post("/internal/join").json(&later).send(LONG).await;
    assert_eq!(status_of(refused), 400);

    let leave = json!({"version": 1, "id": "a1", "reason": "undone"});
    let refused = stranger.post("/internal/leave").json(&leave).send(LONG).await;
    assert_eq!(status_of(refused), 403);
    let worker = served.port(Some(Organisation::Worker));
    worker.post("/internal/leave").json(&leave).send(LONG).await.unwrap();
    let (call, asked) = served.double.calls().pop().unwrap();
    assert_eq!((call, &asked["who"], &asked["ask"]["id"]), ("leave", &json!("n1"), &json!("a1")));
}

#[tokio::test]
async fn s0_24_workers_report_and_renew_by_their_certificate_alone() {
    let served = Served::start().await;
    let report = json!({"trusts": [], "leads-to": [""]});
    let trust = json!({"version": 1, "id": "b2", "report": report});
    let renew = json!({"version": 1, "id": "b2", "csr": "CSR"});
    let (stranger, worker) = (served.port(None), served.port(Some(Organisation::Worker)));
    for (path, ask, call) in
        [("/internal/trust", &trust, "hear"), ("/internal/renew", &renew, "renew")]
    {
        let refused = stranger.post(path).json(ask).send(LONG).await;
        assert_eq!(status_of(refused), 403, "{path}");
        worker.post(path).json(ask).send(LONG).await.unwrap();
        let (called, asked) = served.double.calls().pop().unwrap();
        assert_eq!(
            (called, &asked["who"], &asked["ask"]["id"]),
            (call, &json!("n1"), &json!("b2"))
        );
        let refused = worker.post(path).json(&json!({"version": 2})).send(LONG).await;
        assert_eq!(status_of(refused), 400, "{path}");
    }
}

#[tokio::test]
async fn an_operation_is_waited_for_told_and_forgotten() {
    let served = Served::start().await;
    let gate = served.double.hold_calls();
    let socket = served.socket();
    let begun = socket
        .post("/1.0/k8sd/cluster/remove")
        .header("prefer", "respond-async")
        .json(&json!({"name": "n2"}))
        .send(LONG)
        .await
        .unwrap();
    assert_eq!(begun.status, 202);
    let url = begun.json::<Value>().unwrap()["operation"].as_str().unwrap().to_owned();

    // Under way: it is told, and not forgotten.
    let early = told(&socket, &format!("{url}/wait?timeout=0")).await;
    assert_eq!(early["metadata"]["status_code"], 103);
    assert_eq!(status_of(socket.delete(&url).send(LONG).await), 409);
    assert_eq!(told(&socket, "/1.0/operations").await["metadata"][0]["description"], "remove");

    // Over: whoever waited hears it.
    let waiting = {
        let (socket, url) = (socket.clone(), format!("{url}/wait"));
        tokio::spawn(async move { told(&socket, &url).await })
    };
    gate.notify_one();
    let over = waiting.await.unwrap();
    assert_eq!(over["metadata"]["status"], "Success");
    assert_eq!(over["metadata"]["metadata"], json!({"object": "n2", "result": {}}));
    assert_eq!(told(&socket, &url).await, over);
    socket.delete(&url).send(LONG).await.unwrap();
    assert_eq!(status_of(socket.get(&url).send(LONG).await), 404);
}

#[tokio::test]
async fn what_was_begun_goes_on_when_its_client_has_left_and_holds_the_drain() {
    let mut served = Served::start().await;
    let gate = served.double.hold_calls();
    let mut client = UnixStream::connect(served.dir.path().join("api.sock")).await.unwrap();
    let body = r#"{"name":"n2"}"#;
    let head = format!("content-length: {}\r\n\r\n", body.len());
    let request = format!("POST /1.0/k8sd/cluster/remove HTTP/1.1\r\nhost: x\r\n{head}{body}");
    client.write_all(request.as_bytes()).await.unwrap();
    let asked = async {
        while served.double.calls().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, asked).await.unwrap();
    drop(client);
    served.drain.start();
    assert!(!served.drain.finished(Duration::from_millis(100)).await);
    gate.notify_one();
    assert!(served.drain.finished(LONG).await);
    let records = served.double.audit().tail(10).await.unwrap();
    let results: Vec<&str> = records.iter().map(|record| record.result.as_str()).collect();
    assert_eq!(results, ["asked", "done"]);
}

#[tokio::test]
async fn the_audit_log_says_who_did_what_and_no_secret() {
    let served = Served::start().await;
    let admin = served.port(Some(Organisation::Admin));
    let token = json!({"token": "hunter2"});
    admin.post("/1.0/x/capi/set-auth-token").json(&token).send(LONG).await.unwrap();
    let ask = json!({"name": "n9", "token": "hunter2", "config": "etcd-server-key: hunter2"});
    served.socket().post("/1.0/k8sd/cluster/join").json(&ask).send(LONG).await.unwrap();
    // Who is let in nowhere leaves nothing.
    let stranger = served.port(None);
    let refused = stranger.post("/1.0/k8sd/cluster/remove").json(&json!({"name": "n1"}));
    assert_eq!(status_of(refused.send(LONG).await), 403);

    let text = std::fs::read_to_string(served.dir.path().join("audit.log")).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    let answer = told(&served.socket(), "/1.0/audit?limit=3").await;
    let records: Vec<AuditRecord> = serde_json::from_value(answer["metadata"].clone()).unwrap();
    let lines: Vec<String> = records
        .iter()
        .map(|r| format!("{} {} {:?} {} {}", r.actor, r.operation, r.object, r.result, r.code))
        .collect();
    assert_eq!(
        lines,
        [
            "certificate:n1 capi-set-auth-token \"\" done 200",
            "unix join \"n9\" asked 0",
            "unix join \"n9\" done 200"
        ]
    );
    assert_eq!(records[1].request_id, records[2].request_id);
}

#[tokio::test]
async fn a_change_that_cannot_be_noted_is_not_begun_and_a_log_that_is_gone_is_a_fault() {
    let served = Served::start().await;
    served.double.audit().fail_from_now_on();
    let socket = served.socket();
    let refused = socket.post("/1.0/k8sd/cluster/remove").json(&json!({"name": "n2"}));
    assert_eq!(status_of(refused.send(LONG).await), 500);
    assert!(served.double.calls().is_empty());
    std::fs::remove_file(served.dir.path().join("audit.log")).unwrap();
    assert_eq!(status_of(socket.get("/1.0/audit").send(LONG).await), 500);
}

#[tokio::test]
async fn events_go_on_after_the_last_one_that_was_heard() {
    let served = Served::start().await;
    let events = served.double.events().clone();
    for number in 1..=3 {
        events.publish(EventKind::Progress, json!({"step": number}));
    }
    let socket = served.socket();
    // From the second on, and then what comes.
    let mut lines =
        socket.get("/1.0/events").header("last-event-id", "2").lines(LONG).await.unwrap();
    let mut data = Vec::new();
    events.publish(EventKind::Lifecycle, json!({"phase": "joining"}));
    while data.len() < 2 {
        let line = tokio::time::timeout(LONG, lines.next()).await.unwrap().unwrap().unwrap();
        if let Some(text) = line.strip_prefix("data: ") {
            data.push(serde_json::from_str::<Value>(text).unwrap());
        }
    }
    assert_eq!((&data[0]["sequence"], &data[0]["metadata"]), (&json!(3), &json!({"step": 3})));
    assert_eq!((&data[1]["sequence"], &data[1]["type"]), (&json!(4), &json!("lifecycle")));

    // All that is kept, and no more.
    let mut lines = socket.get("/1.0/events?after=0&wait=false").lines(LONG).await.unwrap();
    let mut ids = Vec::new();
    while let Some(line) = lines.next().await.unwrap() {
        ids.extend(line.strip_prefix("id: ").map(str::to_owned));
    }
    assert_eq!(ids, ["1", "2", "3", "4"]);
    for bad in ["after=x", "after=-1", "since=1"] {
        let refused = socket.get(&format!("/1.0/events?{bad}")).send(LONG).await;
        assert_eq!(status_of(refused), 400, "{bad}");
    }
    for bad in ["-1", "x", ""] {
        let asking = socket.get("/1.0/events?after=0&wait=false").header("last-event-id", bad);
        assert_eq!(status_of(asking.send(LONG).await), 400, "{bad}");
    }
}

#[tokio::test]
async fn a_stream_of_events_ends_when_the_daemon_does() {
    let mut served = Served::start().await;
    let mut lines = served.socket().get("/1.0/events").lines(LONG).await.unwrap();
    served.drain.start();
    let ended = async { while lines.next().await.is_ok_and(|line| line.is_some()) {} };
    tokio::time::timeout(LONG, ended).await.unwrap();
    drop(lines);
    assert!(served.drain.finished(LONG).await);
}

#[tokio::test]
async fn the_document_is_served_to_anybody() {
    let served = Served::start().await;
    let document = told(&served.port(None), "/1.0/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"].get("/internal/join").is_none());
}

#[tokio::test]
async fn a_body_that_is_cut_short_is_refused_or_ended_and_never_believed() {
    let served = Served::start().await;
    let mut client = UnixStream::connect(served.dir.path().join("api.sock")).await.unwrap();
    let request = "POST /1.0/k8sd/cluster/remove HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{\"name\":\"n2\"}";
    client.write_all(request.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LONG, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(served.double.calls().is_empty());
}

/// For `tests/management/schemathesis`: serves the double over TLS until `<folder>/stop` is there. Without the folder's
/// name it only shows that an administrator who has the files gets an answer.
#[tokio::test]
async fn an_administrator_with_the_files_of_the_folder_is_served() {
    let served = Served::start().await;
    let own = served.dir.path().join("quorate-admin");
    let admin = served.port(Some(Organisation::Admin));
    assert_eq!(status_of(admin.get("/1.0/operations").send(LONG).await), 200);
    let Some(folder) = std::env::var_os("QUORATE_SERVE_MANAGEMENT") else { return };
    let folder = Path::new(&folder);
    for (from, to) in
        [("ca.crt", "ca.crt"), ("client.crt", "admin.crt"), ("client.key", "admin.key")]
    {
        std::fs::copy(own.join(from), folder.join(to)).unwrap();
    }
    std::fs::write(folder.join("address.new"), &served.address).unwrap();
    std::fs::rename(folder.join("address.new"), folder.join("address")).unwrap();
    while !folder.join("stop").exists() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
