//! Two nodes speak to each other without a pause while their certificates are made anew and the fleet's authority is
//! replaced: no request fails, and the last ones are spoken with what is new.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::signing_test::{UID, wanted};
use super::*;
use crate::support::clock::unix_micros;
use crate::support::http_client::{HttpClient, HttpError, Target};
use crate::support::listen::Connection;
use crate::support::tls::{Acceptor, Connector, Endpoint, FirstByte, Protocol, Side, TlsSettings};

const LONG: Duration = Duration::from_secs(30);
/// Requests between two steps.
const REQUESTS: usize = 5;

fn now() -> i64 {
    i64::try_from(unix_micros() / 1_000_000).unwrap()
}

fn fresh() -> Authority {
    Authority::generate(UID, Validity::starting(now(), AUTHORITY_SECONDS).unwrap()).unwrap()
}

fn a_year() -> Validity {
    Validity::starting(now(), LEAF_SECONDS).unwrap()
}

fn node(path: &Path, fleet: &Authorities) -> Folder {
    let folder = Folder::open(path).unwrap();
    let all = CertificateName::ALL.map(wanted);
    let signer = Some(fleet.signing().unwrap());
    let bundle =
        Bundle::make(&fleet.trusted(), signer, BTreeMap::new(), &all, a_year(), now()).unwrap();
    folder.write(&bundle).unwrap();
    folder
}

fn follow(folder: &Folder, fleet: &Authorities) {
    let followed = folder.change(|bundle| {
        let due = fleet.due(bundle, now())?;
        bundle.follow(fleet, &due, &wanted(CertificateName::Peer), now())
    });
    followed.unwrap();
}

/// Answers each request with the organisations of who asks.
async fn serve(listener: TcpListener, acceptor: Acceptor) {
    let mut connections = JoinSet::new();
    loop {
        let (wire, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            let wire = FirstByte::read(Connection::Tcp(wire)).await.unwrap().unwrap();
            let Ok(mut accepted) = acceptor.accept(wire).await else { return };
            let mut heard = Vec::new();
            while !heard.ends_with(b"\r\n\r\n") {
                heard.push(accepted.stream.read_u8().await.unwrap());
            }
            let identity = accepted.identity.unwrap_or_default();
            assert!(identity.belongs_to(Organisation::ControlPlane.as_str()));
            let body = serde_json::to_string(&identity.organisations).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            accepted.stream.write_all((head + &body).as_bytes()).await.unwrap();
            accepted.stream.shutdown().await.unwrap();
        });
    }
}

async fn ask(address: &str, connector: &Connector) -> Result<Value, HttpError> {
    let connector = connector.clone();
    let target = Target::Tls { address: address.to_owned(), connector };
    HttpClient::new(target).get("/").send(LONG).await?.json()
}

#[tokio::test]
async fn no_request_fails_while_certificates_and_authority_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = Authorities::of(fresh());
    let (one, two) = (node(&dir.path().join("1"), &fleet), node(&dir.path().join("2"), &fleet));
    let served = TlsSettings {
        admits_anonymous: true,
        ..one.tls(CertificateName::MemberApi, CertificateName::Client)
    };
    let dialling = two.tls(CertificateName::MemberApi, CertificateName::Client);
    let open = |settings| Side::open(settings, Protocol::default(), None).unwrap();
    let acceptor = open(&served).acceptor(Endpoint::Client).unwrap();
    let connector = open(&dialling).connector();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, acceptor));
    let asked = AtomicUsize::new(0);

    let asking = async {
        loop {
            let told = ask(&address, &connector).await.unwrap();
            assert_eq!(told, serde_json::json!(["quorate:control-plane"]));
            asked.fetch_add(1, Ordering::Relaxed);
        }
    };
    let more = async || {
        let until = asked.load(Ordering::Relaxed) + REQUESTS;
        while asked.load(Ordering::Relaxed) < until {
            tokio::task::yield_now().await;
        }
    };
    let changing = async {
        more().await;
        // Everything anew, a few times.
        let all = BTreeSet::from(CertificateName::ALL);
        for _ in 0..5 {
            for folder in [&one, &two] {
                let signer = fleet.signing().unwrap();
                let wanted = wanted(CertificateName::Peer);
                folder.change(|bundle| bundle.renew(signer, &wanted, &all, a_year())).unwrap();
                more().await;
            }
        }
        // Another authority, a node at a time.
        let first = fleet.fingerprint();
        for step in ["announce", "promote", "retire"] {
            fleet = match step {
                "announce" => fleet.announce(fresh()).unwrap(),
                "promote" => fleet.promote().unwrap(),
                _ => fleet.retire().unwrap(),
            };
            for folder in [&two, &one] {
                follow(folder, &fleet);
                more().await;
            }
        }
        assert!(!fleet.contains(first));
    };
    let whole = async {
        tokio::select! {
            () = changing => {}
            () = asking => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(120), whole).await.expect("the change ends in time");

    // A node that was told nothing is left out: its authority is not trusted any more.
    let stranger = node(&dir.path().join("3"), &Authorities::of(fresh()));
    let settings = stranger.tls(CertificateName::MemberApi, CertificateName::Client);
    let refused = ask(&address, &open(&settings).connector()).await.unwrap_err();
    assert!(matches!(refused, HttpError::Tls { .. }), "{refused:?}");
}
