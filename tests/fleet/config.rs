//! A0.5: the config is changed by many at once, and outlives the leader.

use futures::future::join_all;
use serde_json::{Value, json};

use super::asking::ask;
use super::daemon::{Daemon, eventually, leader_of};
use super::three;

const CONFIG: &str = "/1.0/k8sd/cluster/config";
const CHANGES: usize = 50;

/// Fifty fields, each with a value that it does not have at the start: every one that can stand alone, and texts by name.
fn fields() -> Vec<(String, Value)> {
    let own = [
        ("/network/enabled", json!(true)),
        ("/network/kube-proxy-enabled", json!(true)),
        ("/dns/enabled", json!(true)),
        ("/dns/cluster-domain", json!("fleet.example")),
        ("/dns/service-ip", json!("10.152.183.10")),
        ("/dns/upstream-nameservers", json!(["10.0.0.53"])),
        ("/ingress/default-tls-secret", json!("default/tls")),
        ("/ingress/enable-proxy-protocol", json!(true)),
        ("/load-balancer/enabled", json!(true)),
        ("/load-balancer/cidrs", json!(["10.64.0.0/24"])),
        ("/load-balancer/l2-mode", json!(false)),
        ("/load-balancer/l2-interfaces", json!(["eth0"])),
        ("/load-balancer/bgp-local-asn", json!(64512)),
        ("/load-balancer/bgp-peer-address", json!("10.0.0.1/32")),
        ("/load-balancer/bgp-peer-asn", json!(64513)),
        ("/load-balancer/bgp-peer-port", json!(179)),
        ("/local-storage/local-path", json!("/srv/volumes")),
        ("/local-storage/reclaim-policy", json!("Retain")),
        ("/local-storage/default", json!(false)),
        ("/metrics-server/enabled", json!(false)),
        ("/cloud-provider", json!("external")),
    ];
    let texts = (0..CHANGES - own.len()).map(|at| (format!("/annotations/text-{at}"), json!("x")));
    own.map(|(place, value)| (place.to_owned(), value)).into_iter().chain(texts).collect()
}

/// A change of the field alone.
fn change(place: &str, value: &Value) -> Value {
    let nested = place.rsplit('/').filter(|name| !name.is_empty());
    let config = nested.fold(value.clone(), |inner, name| json!({ name: inner }));
    json!({ "config": config })
}

async fn config_at(node: &Daemon) -> Option<Value> {
    let (code, mut told) = node.get(CONFIG).await;
    (code == 200).then(|| told["metadata"].take())
}

#[tokio::test]
async fn a0_5_fifty_changes_at_once_by_three_nodes_are_all_there_and_outlive_the_leader() {
    let nodes = three().await;
    let before = config_at(&nodes[0]).await.expect("a config");
    let fields = fields();
    assert_eq!(fields.len(), CHANGES);
    let put = |form: &'static str, node: usize, body: Value| {
        let client = nodes[node].socket();
        async move { ask(&client, form, &[], Some(&body)).await }
    };
    let changes = fields.iter().enumerate().map(|(at, (place, value))| {
        assert_ne!(before["status"].pointer(place), Some(value), "{place} is a change");
        // In both forms of the row.
        let form = ["PUT /1.0/k8sd/cluster/config", "POST /1.0/k8sd/cluster/config"][at % 2];
        put(form, at % 3, change(place, value))
    });
    for (told, (place, _)) in join_all(changes).await.into_iter().zip(&fields) {
        assert_eq!(told.0, 200, "{place}: {}", told.1);
    }
    let kept = config_at(&nodes[0]).await.expect("a config");
    for (place, value) in &fields {
        assert_eq!(kept["status"].pointer(place), Some(value), "{place}: {kept}");
    }

    // What is for ever is refused by its name, and nothing of the same request is taken.
    for (body, name) in [
        (json!({"datastore": {"type": "external"}}), "datastore type"),
        (json!({"config": {"dns": {"service-ip": "10.152.183.11"}}}), "kubelet cluster DNS"),
    ] {
        let mut body = body;
        body["config"]["annotations"] = json!({"text-0": "y"});
        let (code, told) = put("PUT /1.0/k8sd/cluster/config", 1, body).await;
        let text = format!("prevented update of {name}: value cannot change");
        assert_eq!((code, &told["error"]), (400, &json!(text)));
    }
    for node in &nodes {
        assert_eq!(config_at(node).await.as_ref(), Some(&kept), "{}", node.name);
    }

    // The leader dies: the others tell the same, and go on.
    let leader = leader_of(&nodes).await;
    nodes.iter().find(|node| node.name == leader).expect("it is one of them").kill();
    let left: Vec<usize> = (0..3).filter(|at| nodes[*at].name != leader).collect();
    for at in &left {
        eventually("the same config", async || {
            config_at(&nodes[*at]).await.as_ref() == Some(&kept)
        })
        .await;
    }
    let late = json!({"config": {"annotations": {"text-0": "-", "late": "x"}}});
    let (code, told) = put("PUT /1.0/k8sd/cluster/config", left[0], late).await;
    assert_eq!(code, 200, "{told}");
    let after = config_at(&nodes[left[1]]).await.expect("a config");
    assert_eq!(after["status"]["annotations"]["late"], "x");
    assert_eq!(after["status"]["annotations"].get("text-0"), None);
    assert_eq!(config_at(&nodes[left[0]]).await, Some(after));
}
