//! S0.12: a removal is over when the node that was removed has nothing of the fleet any more, so that whoever asked may
//! look at it, or have it join again, at once.

use serde_json::Value;

use super::daemon::{self, Daemon};
use super::three;

async fn is_clean(node: &Daemon) {
    assert!(node.is_reset(), "{}: {}", node.name, node.noted());
    let (_, told) = node.get("/1.0/k8sd/node").await;
    assert_eq!(told["metadata"]["phase"]["name"], "removed", "{told}");
    assert_eq!(told["metadata"]["status"]["datastore-role"], Value::Null, "{told}");
}

#[tokio::test]
async fn s0_12_a_node_that_was_removed_is_clean_and_joins_again_at_once() {
    let nodes = three().await;
    let [first, second, third] = &nodes;
    first.does(&["remove-node", "n3"]);
    is_clean(third).await;
    third.does(&["join-cluster", &first.token("n3")]);
    assert_eq!(first.voters().await, 3);

    // One that leads, and is asked itself.
    let leader = daemon::leader_of(&nodes).await;
    let leading = nodes.iter().find(|node| node.name == leader).unwrap();
    let other = nodes.iter().find(|node| node.name != leader).unwrap();
    leading.does(&["remove-node", &leader]);
    is_clean(leading).await;
    leading.does(&["join-cluster", &other.token(&leader)]);
    assert_eq!(other.voters().await, 3);

    // A worker looks for its key only now and then.
    let worker = Daemon::start("w1");
    worker.does(&["join-cluster", &second.worker_token("w1")]);
    second.does(&["remove-node", "w1"]);
    is_clean(&worker).await;
    worker.does(&["join-cluster", &second.worker_token("w1")]);
}
