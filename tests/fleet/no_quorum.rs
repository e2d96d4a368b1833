//! A fleet that has lost its quorum: whoever asks a node that is left hears so soon, and what needs nobody else is told.

use quorate::support::http_client::HttpClient;
use serde_json::Value;
use tokio::time::{Duration, Instant};

use super::daemon::{Daemon, LONG, eventually, told};
use super::three;

/// Probes give up after three seconds; the machine may be busy.
const SOON: Duration = Duration::from_secs(10);

async fn probed(client: &HttpClient, path: &str) -> (u16, Value) {
    let begin = Instant::now();
    let answer = told(client.get(path).send(LONG).await);
    assert!(begin.elapsed() < SOON, "{path} took {:?}", begin.elapsed());
    answer
}

/// S1.6 and S1.7 of a managed node: liveness stays good, readiness and health fall, and come back.
#[tokio::test]
async fn s1_7_without_a_quorum_a_node_is_alive_and_says_that_it_is_not_ready() {
    let [first, second, third] = three().await;
    for path in ["/livez", "/readyz", "/health"] {
        assert_eq!(probed(&first.socket(), path).await.0, 200, "{path}");
    }
    second.kill();
    third.kill();
    let doors: [fn(&Daemon) -> HttpClient; 2] = [Daemon::socket, Daemon::stranger];
    for door in doors {
        let client = door(&first);
        for path in ["/readyz", "/health"] {
            eventually("it is noticed", async || probed(&client, path).await.0 == 503).await;
            let (_, answer) = probed(&client, path).await;
            assert_eq!(answer["health"], "false", "{answer}");
            assert_ne!(answer["reason"], "", "{answer}");
        }
        let alive = probed(&client, "/livez").await;
        assert_eq!(alive.0, 200, "{alive:?}");
    }

    // What it knows itself is told, and that this is all.
    let begin = Instant::now();
    let status = first.status().await;
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    assert_ne!(status["ready"], true, "{status}");
    assert_eq!(status["members"].as_array().map(Vec::len), Some(3), "{status}");
    let why = first.fails(&["config", "get"]);
    assert!(why.contains("no quorum of the members has answered in time"), "{why}");

    second.restart();
    let ready = async || probed(&first.socket(), "/readyz").await.0 == 200;
    eventually("a quorum is back", ready).await;
    assert_eq!(first.status().await["ready"], true);
}
