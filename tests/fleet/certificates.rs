//! Certificates and their authority are made anew while clients ask all the time: story A0.8, S0.23 and
//! S0.24.

use std::fs;
use std::time::Duration;

use quorate::fleet::pki::{Authority, CertificateName, Organisation, Pair, Validity, Wanted};
use quorate::fleet::secret::Secret;
use quorate::fleet::store::{StateStore as _, StoreError};
use quorate::service::remote::{RemoteSettings, open, tls};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::daemon::{self, Daemon, LONG, eventually};
use crate::shown::{Shown, filed, shown};
use crate::three;
use crate::writer::Writer;

/// Each of two asks so often: 50 requests a second.
const PACE: Duration = Duration::from_millis(40);

/// Who keeps its connection, and who makes a new one each time; both over TLS.
fn clients_of(node: &Daemon) -> [Writer; 2] {
    let kept = open(node.secure()).expect("a URL");
    [Writer::start(kept, PACE), Writer::reconnecting(node.secure(), PACE)]
}

/// Each has asked often enough to notice.
fn have_asked(clients: &[Writer; 2]) -> bool {
    clients.iter().all(|client| client.made() >= 100)
}

/// Nobody was refused anything.
async fn all_were_served(clients: [Writer; 2]) {
    eventually("they ask", async || have_asked(&clients)).await;
    for client in clients {
        let written = client.stop().await;
        assert_eq!(written.failures, Vec::<String>::new());
        assert!(written.successes >= 100, "{written:?}");
    }
}

/// When a certificate of the node runs out, by its status: seconds since 1970.
async fn expiry(node: &Daemon, name: &str) -> i64 {
    let (code, told) = node.get("/1.0/k8sd/certs-status").await;
    assert_eq!(code, 200, "{told}");
    let listed = told["metadata"]["certificates"].as_array().expect("a list");
    let own = listed.iter().find(|own| own["name"] == name).expect("it is listed");
    assert_eq!(own["externally-managed"], false, "{own}");
    let moment = own["expires"].as_str().expect("a moment");
    chrono::DateTime::parse_from_rfc3339(moment).expect("RFC 3339").timestamp()
}

/// Plans and runs over REST; the answer to the run.
async fn renew(node: &Daemon, names: &[&str]) -> (u16, Value) {
    let (code, told) =
        node.post("/1.0/k8sd/refresh-certs/plan", &json!({"certificates": names})).await;
    assert_eq!(code, 200, "{told}");
    let run = json!({"certificates": names, "seed": told["metadata"]["seconds"]});
    node.post("/1.0/k8sd/refresh-certs/run", &run).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a0_8_certificates_are_made_anew_and_no_request_of_fifty_a_second_fails() {
    let node = Daemon::start("n1");
    let (authority, key) = daemon::authority();
    let config = json!({"ca-crt": authority, "ca-key": key, "extra-sans": ["kept.example"]});
    let bootstrap = json!({"name": "n1", "address": "", "config": config});
    let (code, told) = node.post("/1.0/k8sd/cluster", &bootstrap).await;
    assert_eq!(code, 200, "{told}");
    let clients = clients_of(&node);
    let ports = [node.client_address(), node.peer_address(), node.api_address()];
    let mut before = Vec::new();
    for port in &ports {
        let shown = shown(&node, port, &authority).await;
        assert_eq!(shown.issuer, "an authority of our own");
        assert!(shown.hosts.contains(&"kept.example".to_owned()), "{:?}", shown.hosts);
        before.push(shown.serial);
    }

    let mut round = 0;
    while round < 6 || !have_asked(&clients) {
        let (names, days) = (["server", "peer", "member-api"], 30 + round);
        let changed = match round % 3 {
            0 => {
                node.does(&["refresh-certs", "--expires-in", &format!("{days}d")]);
                days
            }
            1 => {
                let (code, told) = renew(&node, &names).await;
                assert_eq!(code, 200, "{told}");
                365
            }
            _ => {
                let names = names.join(",");
                let days = format!("{days}d");
                node.does(&["refresh-certs", "--certificates", &names, "--expires-in", &days]);
                30 + round
            }
        };
        for (at, port) in ports.iter().enumerate() {
            let shown = shown(&node, port, &authority).await;
            assert_ne!(shown.serial, before[at], "round {round}: {port} shows the old one");
            assert_eq!(shown.issuer, "an authority of our own");
            assert!(shown.hosts.contains(&"kept.example".to_owned()), "{:?}", shown.hosts);
            assert_eq!(expiry(&node, names[at]).await, shown.expires);
            let left = shown.expires - chrono::Utc::now().timestamp();
            let slack = i64::try_from(LONG.as_secs()).expect("seconds");
            assert!((changed * 86_400 - slack..=changed * 86_400).contains(&left), "{left}");
            before[at] = shown.serial;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        round += 1;
    }
    let told = node.does(&["certs-status"]);
    assert!(told.contains("member-api") && told.contains("RESIDUAL TIME"), "{told}");
    let (code, told) = node.post("/1.0/k8sd/refresh-certs/run", &json!({"seed": 7})).await;
    assert_eq!(code, 400, "a seed that no plan gave: {told}");
    assert_eq!(filed(&node, "server.crt").serial, before[0]);
    all_were_served(clients).await;
}

/// Fields of a bootstrap or join config: certificates for the two ports of a node, which somebody else has made.
fn made_elsewhere(authority: &Authority, node: &str) -> serde_json::Map<String, Value> {
    let hosts = ["127.0.0.1".to_owned(), "made.elsewhere".to_owned()];
    let validity = Validity::starting(chrono::Utc::now().timestamp(), 86_400).expect("a day");
    let mut fields = serde_json::Map::new();
    for name in [CertificateName::Server, CertificateName::Peer] {
        let wanted = Wanted::new(name, Organisation::ControlPlane, node, &hosts, &[]);
        let Pair { certificate, key } =
            Pair::signed(authority, &wanted, validity).expect("it is signed");
        fields.insert(format!("etcd-{name}-crt"), certificate.into());
        fields.insert(format!("etcd-{name}-key"), key.reveal().into());
    }
    fields
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_23_what_was_supplied_at_bootstrap_and_join_is_shown_until_the_authority_changes() {
    let (first, second) = (Daemon::start("n1"), Daemon::start("n2"));
    let (certificate, key) = daemon::authority();
    let now = chrono::Utc::now().timestamp();
    let authority = Authority::supplied(&certificate, &Secret::from(key.as_str()), now);
    let authority = authority.expect("it can sign");
    let mut config = made_elsewhere(&authority, "n1");
    config.insert("ca-crt".to_owned(), certificate.clone().into());
    config.insert("ca-key".to_owned(), key.into());
    let bootstrap = json!({"name": "n1", "address": "", "config": config});
    let (code, told) = first.post("/1.0/k8sd/cluster", &bootstrap).await;
    assert_eq!(code, 200, "{told}");
    let file = first.folder().join("join.json");
    let config = made_elsewhere(&authority, "n2");
    fs::write(&file, serde_json::to_vec(&config).expect("JSON")).expect("it can be written");
    second.does(&["join-cluster", &first.token("n2"), "--file", &file.display().to_string()]);
    assert_eq!(first.voters().await, 2);
    let supplied = "made.elsewhere".to_owned();
    for node in [&first, &second] {
        for port in [node.client_address(), node.peer_address()] {
            let shown = shown(node, &port, &certificate).await;
            assert!(shown.hosts.contains(&supplied), "{port}: {:?}", shown.hosts);
        }
        let made = shown(node, &node.api_address(), &certificate).await;
        assert_eq!(made.issuer, "an authority of our own");
        assert!(!made.hosts.contains(&supplied));
        // Who shows nothing is not let in.
        let trusted = node.state("pki/ca.crt").display().to_string();
        let nobody =
            RemoteSettings { tls: tls("", "", &trusted).expect("a file"), ..node.secure() };
        assert!(open(nobody).expect("a URL").put(b"/nobody", b"x").await.is_err());
    }

    first.does(&["refresh-certs", "--certificates", "ca"]);
    is_over(&[&first, &second]).await;
    let new = filed(&first, "ca.crt");
    for node in [&first, &second] {
        eventually("only the new one is trusted", async || trusts_only(node, &new)).await;
        let shown = filed(node, "server.crt");
        assert_eq!(shown.issuer, new.issuer);
        assert!(shown.hosts.contains(&supplied), "its names stay: {:?}", shown.hosts);
    }
    assert_eq!(second.voters().await, 2);
}

/// What a client has that has got the node's files at this moment.
fn keep_files(node: &Daemon) -> tempfile::TempDir {
    let kept = tempfile::tempdir().expect("a folder");
    for file in ["client.crt", "client.key", "ca.crt"] {
        let text = fs::read(node.state("pki").join(file)).expect("a file");
        fs::write(kept.path().join(file), text).expect("it can be written");
    }
    kept
}

/// A call to `node` with files that are kept elsewhere, trusting whom the node trusts now.
async fn asks_with(node: &Daemon, files: &tempfile::TempDir) -> Result<(), StoreError> {
    let file = |name: &str| files.path().join(name).display().to_string();
    let trusted = node.state("pki").join("ca.crt").display().to_string();
    let tls = tls(&file("client.crt"), &file("client.key"), &trusted).expect("good files");
    let store = open(RemoteSettings { tls, ..node.secure() }).expect("a URL");
    store.put(b"/who", b"x").await.map(drop)
}

/// How far the change of the authority is, as soon as the node can say.
async fn rotation(node: &Daemon) -> Option<String> {
    let deadline = Instant::now() + LONG;
    loop {
        let (code, told) = node.get("/1.0/k8sd/certs-status").await;
        if code == 200 {
            return told["metadata"]["rotation"]["state"].as_str().map(str::to_owned);
        }
        assert!(Instant::now() < deadline, "{told}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) fn trusts_only(node: &Daemon, authority: &Shown) -> bool {
    let text = fs::read_to_string(node.state("pki/ca.crt")).expect("a file");
    text.matches("BEGIN").count() == 1 && filed(node, "ca.crt").serial == authority.serial
}

/// Waits until the change of the authority is over; who has not followed tells why in its log.
pub(crate) async fn is_over(nodes: &[&Daemon]) {
    let deadline = Instant::now() + 2 * LONG;
    while rotation(nodes[0]).await.is_some() {
        if Instant::now() > deadline {
            let logs: String = nodes.iter().map(|node| node.log()).collect();
            panic!("{}\n{logs}", nodes[0].does(&["certs-status"]));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_24_the_authority_of_three_nodes_and_a_worker_changes_and_no_request_fails() {
    let nodes = three().await;
    let worker = Daemon::start("w1");
    worker.does(&["join-cluster", &nodes[0].worker_token("w1")]);
    let old = filed(&nodes[0], "ca.crt");
    let before = keep_files(&nodes[0]);
    asks_with(&nodes[0], &before).await.expect("it is good as long as its authority counts");
    let early = nodes[0].token("n4");
    let clients: Vec<[Writer; 2]> = nodes[..2].iter().map(clients_of).collect();

    nodes[1].does(&["refresh-certs", "--certificates", "ca"]);
    let again = nodes[2].fails(&["refresh-certs", "--certificates", "ca"]);
    assert!(again.contains("under way"), "{again}");
    let mixed = nodes[2].fails(&["refresh-certs", "--certificates", "ca,server"]);
    assert!(mixed.contains("by itself"), "{mixed}");
    is_over(&[&nodes[2], &nodes[0], &nodes[1], &worker]).await;
    let new = filed(&nodes[0], "ca.crt");
    assert_ne!(new.serial, old.serial);
    for node in nodes.iter().chain([&worker]) {
        eventually("only the new one is trusted", async || trusts_only(node, &new)).await;
        let authorities = fs::read_to_string(node.state("pki/ca.crt")).expect("a file");
        for port in [node.client_address(), node.api_address()] {
            assert_eq!(shown(node, &port, &authorities).await.issuer, new.issuer);
        }
    }
    for clients in clients {
        all_were_served(clients).await;
    }

    asks_with(&nodes[0], &keep_files(&nodes[0])).await.expect("one of the new authority is good");
    let refused = asks_with(&nodes[0], &before).await;
    assert!(refused.is_err(), "one of the old authority is good");
    let joiner = Daemon::start("n4");
    let why = joiner.fails(&["join-cluster", &early]);
    assert!(why.contains("get-join-token"), "{why}");
    joiner.does(&["join-cluster", &nodes[0].token("n4")]);
    assert_eq!(nodes[0].voters().await, 4);
    worker.store().put(b"/through", b"x").await.expect("the worker passes on");
}

/// Changes the authority until the new one signs, and kills the worker before its own certificates are made anew: the
/// change stays there. A token for n3 that was given before, and the authority of before.
async fn stop_half_way(first: &Daemon, worker: &Daemon) -> (String, Shown) {
    for _ in 0..10 {
        let before = (first.token("n3"), filed(first, "ca.crt"));
        first.does(&["refresh-certs", "--certificates", "ca"]);
        while rotation(first).await.as_deref() == Some("announced") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        worker.kill();
        tokio::time::sleep(Duration::from_secs(2)).await;
        if rotation(first).await.as_deref() == Some("promoted") {
            return before;
        }
        // It was faster.
        worker.restart();
        is_over(&[first, worker]).await;
    }
    panic!("the worker is always faster");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_24_who_joins_in_between_comes_in_by_a_token_of_before_and_is_waited_for() {
    let [first, second] = [Daemon::start("n1"), Daemon::start("n2")];
    first.does(&["bootstrap"]);
    second.does(&["join-cluster", &first.token("n2")]);
    let worker = Daemon::start("w1");
    worker.does(&["join-cluster", &first.worker_token("w1")]);
    let (early, old) = stop_half_way(&first, &worker).await;
    for node in [&first, &second] {
        eventually("it shows a new one", async || {
            filed(node, "member-api.crt").issuer != old.issuer
        })
        .await;
    }
    let third = Daemon::start("n3");
    third.does(&["join-cluster", &early]);
    let told = first.does(&["certs-status"]);
    assert!(told.contains("promoted") && told.contains("w1"), "{told}");

    worker.restart();
    is_over(&[&first, &second, &third, &worker]).await;
    for node in [&first, &second, &third, &worker] {
        let new = filed(&first, "ca.crt");
        assert_ne!(new.serial, old.serial);
        eventually("only the new one is trusted", async || trusts_only(node, &new)).await;
    }
    assert_eq!(first.voters().await, 3);
}

/// Puts certificates in the node's files that run out within the minute, signed by the fleet's authority.
fn put_ending(
    node: &Daemon,
    authority: &Authority,
    organisation: Organisation,
    names: &[CertificateName],
) {
    let now = chrono::Utc::now().timestamp();
    // An hour before that they were backdated: two minutes of good time are over, less than one is left.
    let validity = Validity { from: now - 3_600 - 120, until: now + 55 };
    let mut fields = serde_json::Map::new();
    for name in names {
        // A worker has one for everything.
        let usage = match organisation {
            Organisation::Worker => CertificateName::Peer,
            Organisation::ControlPlane | Organisation::Admin => *name,
        };
        let hosts = ["127.0.0.1".to_owned()];
        let wanted = Wanted::new(usage, organisation, &node.name, &hosts, &[]);
        let Pair { certificate, key } =
            Pair::signed(authority, &wanted, validity).expect("it is signed");
        fields.insert(format!("{name}-crt"), certificate.into());
        fields.insert(format!("{name}-key"), key.reveal().into());
    }
    let file = node.folder().join("update.json");
    fs::write(&file, serde_json::to_vec(&fields).expect("JSON")).expect("it can be written");
    node.does(&["refresh-certs", "--external-certificates", &file.display().to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_24_certificates_that_run_out_are_made_anew_by_themselves_on_members_and_workers() {
    let (first, worker) = (Daemon::start("n1"), Daemon::start("w1"));
    let (certificate, key) = daemon::authority();
    let now = chrono::Utc::now().timestamp();
    let authority = Authority::supplied(&certificate, &Secret::from(key.as_str()), now);
    let authority = authority.expect("it can sign");
    let config = json!({"ca-crt": certificate, "ca-key": key});
    let bootstrap = json!({"name": "n1", "address": "", "config": config});
    let (code, told) = first.post("/1.0/k8sd/cluster", &bootstrap).await;
    assert_eq!(code, 200, "{told}");
    worker.does(&["join-cluster", &first.worker_token("w1")]);
    let client = filed(&first, "client.crt");

    use CertificateName::{Client, MemberApi, Peer, Server};
    put_ending(&first, &authority, Organisation::ControlPlane, &[Server, Peer]);
    put_ending(&worker, &authority, Organisation::Worker, &[Server, Client, MemberApi]);
    for (node, file, seconds) in [
        // For as long as the one before; a worker's for as long as members sign.
        (&first, "server.crt", 175),
        (&first, "peer.crt", 175),
        (&worker, "server.crt", 365 * 86_400),
        (&worker, "client.crt", 365 * 86_400),
        (&worker, "member-api.crt", 365 * 86_400),
    ] {
        let left = || filed(node, file).expires - chrono::Utc::now().timestamp();
        eventually("it is made anew", async || left() > 60).await;
        assert!((seconds - 60..=seconds).contains(&left()), "{file} of {}: {}", node.name, left());
    }
    assert_eq!(filed(&first, "client.crt").serial, client.serial, "the others have time");
    for (node, port) in [(&first, first.client_address()), (&worker, worker.client_address())] {
        let shown = shown(node, &port, &certificate).await;
        assert_eq!(shown.serial, filed(node, "server.crt").serial);
    }
    worker.store().put(b"/through", b"x").await.expect("the worker passes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_24_a_change_of_the_authority_goes_on_where_whoever_decided_has_died() {
    let nodes = three().await;
    let old = filed(&nodes[0], "ca.crt");
    let leader = daemon::leader_of(&nodes).await;
    let (dead, left): (Vec<&Daemon>, Vec<&Daemon>) =
        nodes.iter().partition(|node| node.name == leader);
    left[0].does(&["refresh-certs", "--certificates", "ca"]);
    dead[0].kill();
    // Whoever does not answer has not done it: the others go no further than they may without it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let state = rotation(left[0]).await;
    assert!(state.is_some(), "a node that is gone was not waited for");
    dead[0].restart();
    is_over(&[left[0], left[1], dead[0]]).await;
    let new = filed(left[0], "ca.crt");
    assert_ne!(new.serial, old.serial);
    for node in &nodes {
        eventually("only the new one is trusted", async || trusts_only(node, &new)).await;
    }
    assert_eq!(left[1].voters().await, 3);
}
