//! Certificates while clients ask all the time: story A0.8.

use std::time::Duration;

use quorate::service::remote::open;
use serde_json::{Value, json};

use crate::daemon::{self, Daemon, LONG};
use crate::shown::{filed, shown};
use crate::writer::Writer;

/// Each of two asks so often: 50 requests a second.
const PACE: Duration = Duration::from_millis(40);

/// Who keeps its connection, and who makes a new one each time; both over TLS.
fn clients_of(node: &Daemon) -> [Writer; 2] {
    let kept = open(node.secure()).expect("a URL");
    [Writer::start(kept, PACE), Writer::reconnecting(node.secure(), PACE)]
}

/// Nobody was refused anything.
async fn all_were_served(clients: [Writer; 2]) {
    for client in clients {
        let written = client.stop().await;
        assert_eq!(written.failures, Vec::<String>::new());
        assert!(written.successes > 50, "{written:?}");
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

    for round in 0..6 {
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
    }
    let told = node.does(&["certs-status"]);
    assert!(told.contains("member-api") && told.contains("34d"), "{told}");
    let (code, told) = node.post("/1.0/k8sd/refresh-certs/run", &json!({"seed": 7})).await;
    assert_eq!(code, 400, "a seed that no plan gave: {told}");
    assert_eq!(filed(&node, "server.crt").serial, before[0]);
    all_were_served(clients).await;
}
