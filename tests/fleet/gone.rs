//! A change of the authority that nodes keep from going on which are gone for good: S0.24.

use quorate::fleet::store::StateStore as _;
use serde_json::json;

use super::certificates::{is_over, trusts_only};
use super::daemon::{Daemon, eventually};
use super::shown::filed;

/// Waits until the change of the authority is as far as `state`, and waits for this node alone.
async fn waits_for(node: &Daemon, state: &str, name: &str) {
    let wanted = [json!(state), json!([name])];
    eventually(&format!("{state}, it waits for {name}"), async || {
        let (_, told) = node.get("/1.0/k8sd/certs-status").await;
        let rotation = &told["metadata"]["rotation"];
        [rotation["state"].clone(), rotation["waits-for"].clone()] == wanted
    })
    .await;
    let told = node.does(&["certs-status"]);
    assert!(told.contains(state) && told.contains(&format!(": {name}.\n")), "{told}");
}

/// Whoever died before the new one was announced keeps it from signing; whoever died after it had reported that it
/// trusts the new one keeps the old one from going.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_24_a_change_of_the_authority_waits_for_the_dead_until_they_are_removed() {
    let nodes = ["n1", "n2", "n3", "n4"].map(Daemon::start);
    nodes[0].does(&["bootstrap"]);
    for node in &nodes[1..] {
        node.does(&["join-cluster", &nodes[0].token(&node.name)]);
    }
    let workers = ["w1", "w2"].map(Daemon::start);
    for worker in &workers {
        worker.does(&["join-cluster", &nodes[0].worker_token(&worker.name)]);
    }
    let mut left: Vec<&Daemon> = nodes.iter().chain(&workers).collect();
    for (early, late) in [(&workers[0], &nodes[3]), (&nodes[2], &workers[1])] {
        let old = filed(&nodes[0], "ca.crt");
        early.kill();
        nodes[1].does(&["refresh-certs", "--certificates", "ca"]);
        waits_for(&nodes[0], "announced", &early.name).await;
        late.kill();
        nodes[0].does(&["remove-node", &early.name, "--force"]);
        waits_for(&nodes[1], "promoted", &late.name).await;
        nodes[0].does(&["remove-node", &late.name, "--force"]);
        left.retain(|node| ![&early.name, &late.name].contains(&&node.name));
        is_over(&left).await;
        let new = filed(&nodes[0], "ca.crt");
        assert_ne!(new.serial, old.serial);
        for node in &left {
            eventually("only the new one is trusted", async || trusts_only(node, &new)).await;
        }
    }
    assert_eq!(nodes[0].voters().await, 2);
    nodes[1].store().put(b"/after", b"x").await.expect("it serves");
    // Whoever comes back is nobody's any more. It cannot even be told: it is known by an authority that is gone.
    let term = nodes[0].term().await;
    nodes[2].restart();
    eventually("it is refused", async || nodes[2].log().contains("unknown authority")).await;
    assert_eq!(nodes[0].term().await, term);
    assert_eq!(nodes[0].voters().await, 2);
    assert!(!nodes[2].is_reset());
}
