//! Fleets of real processes, driven by the program's own commands: stories A0.1 to A0.5, A0.7, A0.8 and A0.10, and A3.2.

#![expect(
    clippy::print_stderr,
    reason = "a round that is tried is named, for it to be tried again"
)]

#[path = "fleet/asking.rs"]
mod asking;
#[path = "fleet/bad_joins.rs"]
mod bad_joins;
#[path = "fleet/certificates.rs"]
mod certificates;
#[path = "fleet/config.rs"]
mod config;
#[path = "fleet/crashes.rs"]
mod crashes;
#[path = "fleet/daemon.rs"]
mod daemon;
#[path = "management/golden.rs"]
mod golden;
#[path = "fleet/gone.rs"]
mod gone;
#[path = "fleet/init.rs"]
mod init;
#[path = "fleet/no_quorum.rs"]
mod no_quorum;
#[path = "agent/process.rs"]
#[expect(dead_code, reason = "agents beside a node are other tests' matter")]
mod process;
#[path = "fleet/removed.rs"]
mod removed;
#[path = "fleet/rows.rs"]
mod rows;
#[path = "fleet/schema.rs"]
mod schema;
#[path = "fleet/secrets.rs"]
mod secrets;
#[path = "fleet/shown.rs"]
mod shown;
#[path = "fleet/together.rs"]
mod together;
#[path = "fleet/writer.rs"]
mod writer;

use std::time::Duration;

use daemon::{Daemon, LONG, eventually};
use quorate::fleet::store::StateStore as _;
use secrets::Secrets;
use serde_json::json;
use writer::Writer;

/// Three nodes, the first of which has formed the fleet.
async fn three() -> [Daemon; 3] {
    let nodes = [Daemon::start("n1"), Daemon::start("n2"), Daemon::start("n3")];
    nodes[0].does(&["bootstrap"]);
    for node in &nodes[1..] {
        node.does(&["join-cluster", &nodes[0].token(&node.name)]);
    }
    nodes
}

#[tokio::test]
async fn a0_1_three_nodes_join_by_token_and_one_is_removed() {
    let [first, second, third] = three().await;
    let status = second.status().await;
    assert_eq!(status["membership"]["high-availability"], true, "{status}");
    assert_eq!(second.voters().await, 3);
    let records = first.store().list(b"/k8sd/nodes/").await.unwrap();
    assert_eq!(records.len(), 3);
    eventually("every record says voter", async || {
        let records = first.store().list(b"/k8sd/nodes/").await.unwrap();
        records.iter().all(|kv| String::from_utf8_lossy(&kv.value).contains("\"voter\""))
    })
    .await;
    let forged = first.store().put(b"/k8sd/nodes/ff", b"{}").await;
    assert!(forged.is_err(), "a client enters no node");

    first.does(&["remove-node", "n3"]);
    assert_eq!(first.store().list(b"/k8sd/nodes/").await.unwrap().len(), 2);
    assert_eq!(second.voters().await, 2);
    eventually("its directory is reset", async || third.is_reset()).await;
    let refused = third.fails(&["status"]);
    assert!(!refused.is_empty());
    for node in [first, second, third] {
        assert_eq!(node.terminate().await, Some(0), "S0.31");
    }
}

#[tokio::test]
async fn a0_1_tokens_of_a_node_go_with_it() {
    let [first, _second, third] = three().await;
    let token = first.token("n4");
    let fourth = Daemon::start("n4");
    fourth.does(&["join-cluster", &token]);
    // One that was given while it was a member.
    let late = first.token("n4");
    first.does(&["remove-node", "n4", "--force"]);
    eventually("it is reset", async || fourth.is_reset()).await;
    let (_, listed) = first.get("/1.0/tokens").await;
    assert_eq!(listed["metadata"], json!([]), "its token list is empty");
    for token in [token, late] {
        let why = fourth.fails(&["join-cluster", &token]);
        assert!(why.contains("token is unknown"), "{why}");
    }
    fourth.does(&["join-cluster", &third.token("n4")]);
    assert_eq!(first.voters().await, 4);
}

/// S0.9, too: from one to four.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a0_2_who_writes_all_the_time_sees_no_failure_while_nodes_join() {
    let nodes = ["n1", "n2", "n3", "n4"].map(Daemon::start);
    nodes[0].does(&["bootstrap"]);
    let writer = Writer::start(nodes[0].store(), Duration::from_millis(50));
    for node in &nodes[1..] {
        node.does(&["join-cluster", &nodes[0].token(&node.name)]);
    }
    let written = writer.stop().await;
    assert_eq!(written.failures, Vec::<String>::new());
    assert!(written.successes > 10, "{written:?}");
    assert_eq!(nodes[0].voters().await, 4, "and no learner is left");
    let kept = nodes[3].store().list(b"/written/").await.unwrap();
    assert_eq!(kept.len(), written.successes);
}

#[tokio::test]
async fn a0_7_the_leader_removes_itself_and_a_dead_node_cannot_come_back() {
    let nodes = three().await;
    let leader = daemon::leader_of(&nodes).await;
    let (leading, others): (Vec<&Daemon>, Vec<&Daemon>) =
        nodes.iter().partition(|node| node.name == leader);
    leading[0].does(&["remove-node", &leader]);
    eventually("it is reset", async || leading[0].is_reset()).await;
    assert_eq!(others[0].voters().await, 2);

    // It joins again, dies, and its data are kept aside.
    leading[0].does(&["join-cluster", &others[0].token(&leader)]);
    assert_eq!(others[0].voters().await, 3);
    leading[0].kill();
    let away = format!("not reachable:            {leader}\n");
    eventually("it is shown as away", async || others[0].does(&["status"]).contains(&away)).await;
    let why = others[0].fails(&["remove-node", &leader]);
    assert!(why.contains("force"), "{why}");
    others[0].does(&["remove-node", &leader, "--force"]);
    assert_eq!(others[0].voters().await, 2);

    // Back with its old data it finds itself removed; nobody's term changes for it.
    let term = others[0].term().await;
    leading[0].restart();
    eventually("it is reset", async || leading[0].is_reset()).await;
    assert_eq!(others[0].term().await, term);
    assert_eq!(others[0].voters().await, 2);
    let (_, told) = leading[0].get("/1.0/k8sd/node").await;
    assert_eq!(told["metadata"]["phase"]["reason"], "removed", "{told}");
}

#[tokio::test]
async fn a0_10_a_worker_passes_on_across_a_change_of_leaders_and_holds_no_replica() {
    let nodes = three().await;
    let worker = Daemon::start("w1");
    worker.does(&["join-cluster", &nodes[1].worker_token("w1")]);
    let store = worker.store();
    store.put(b"/through/1", b"a").await.unwrap();
    assert_eq!(&nodes[0].store().get(b"/through/1").await.unwrap().value[..], b"a");
    assert!(!worker.state("member").exists());
    // S0.3: what it does not answer itself.
    let (code, _) = worker.get("/1.0/k8sd/cluster").await;
    assert_eq!(code, 403);

    let leader = daemon::leader_of(&nodes).await;
    nodes.iter().find(|node| node.name == leader).unwrap().kill();
    let deadline = tokio::time::Instant::now() + LONG;
    while let Err(why) = store.put(b"/through/2", b"b").await {
        assert!(tokio::time::Instant::now() < deadline, "{why}");
    }
    let left = nodes.iter().find(|node| node.name != leader).unwrap();
    assert_eq!(&left.store().get(b"/through/2").await.unwrap().value[..], b"b");
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test]
async fn s0_20_no_secret_is_in_a_log_a_key_or_a_file_that_is_not_there_for_it() {
    let nodes = [Daemon::start("n1"), Daemon::start("n2")];
    let [first, second] = &nodes;
    let worker = Daemon::start("w1");
    let mut secrets = Secrets::new();
    // An authority of our own, so that its key is known here.
    let (certificate, key) = daemon::authority();
    secrets.key("the authority's key", &key);
    let config = json!({"ca-crt": certificate, "ca-key": key});
    let bootstrap = json!({"name": "n1", "address": "", "config": config});
    let (code, told) = first.post("/1.0/k8sd/cluster", &bootstrap).await;
    assert_eq!(code, 200, "{told}");

    // Tokens that are used, and one that never is.
    for (name, joiner) in [("n2", second), ("w1", &worker)] {
        let token = match name {
            "w1" => first.worker_token(name),
            _ => first.token(name),
        };
        secrets.token(&format!("the token of {name}"), &token);
        joiner.does(&["join-cluster", &token]);
    }
    secrets.token("a token that nobody used", &second.token("n9"));
    // Tokens of users, shown to the webhook, and the one of cluster-api, shown to be let in.
    let user = json!({"username": "ada", "groups": ["dev", "ops"]});
    let (_, told) = first.post("/1.0/kubernetes/auth/tokens", &user).await;
    let token = told["metadata"]["token"].as_str().expect("a token").to_owned();
    secrets.text("a user's token", &token);
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token},
    });
    let (code, told) = second.post("/1.0/kubernetes/auth/webhook", &review).await;
    assert_eq!((code, &told["status"]["user"]["username"]), (200, &json!("ada")), "{told}");
    let capi = "capi-0123456789abcdef-shown-to-nobody";
    secrets.text("the token of cluster-api", capi);
    let (code, told) = first.post("/1.0/x/capi/set-auth-token", &json!({"token": capi})).await;
    assert_eq!(code, 200, "{told}");
    let control = b"this is to be found";
    first.store().put(b"/control", control).await.unwrap();

    nodes.iter().for_each(|node| secrets.of_node(node));
    let mut found = Vec::new();
    for node in &nodes {
        found.extend(secrets.found_in_keys(node).await);
        let (_, audit) = node.get("/1.0/audit").await;
        found.extend(secrets.found_in("the audit log", audit.to_string().as_bytes()));
    }
    // The search finds what is there: a client's value lies in the journal as it was written, ...
    assert!(first.has_in_a_file("journal", control), "{:?}", first.files());
    for node in [&worker, first, second] {
        found.extend(secrets.found_at(node));
    }
    // ... and in the whole states, which are what is left of a journal that has grown.
    secrets::fill(first).await;
    for node in &nodes {
        eventually("there is a whole state", async || node.has_in_a_file("base-", control)).await;
    }
    for node in [&worker, first, second] {
        assert_eq!(node.terminate().await, Some(0));
        found.extend(secrets.found_at(node));
    }
    assert_eq!(found, Vec::<String>::new());
}
