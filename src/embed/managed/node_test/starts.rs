//! How a fleet begins: all of it, or nothing, wherever it is interrupted.

use super::*;
use crate::fleet::api::bootstrap::BootstrapConfig;

#[tokio::test]
async fn s0_6_a_fleet_begins_once_and_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), "n1");
    let node = bare(&settings);
    let status = node.bootstrap(BootstrapRequest::default()).await.unwrap();
    assert_eq!(status.name, "n1");
    assert_eq!(status.address, format!("127.0.0.1:{}", settings.api_port));
    let again = node.bootstrap(BootstrapRequest::default()).await.unwrap_err();
    assert_eq!(again.to_string(), "already bootstrapped");
    let uid = node.identity().cluster_uid;
    node.shut_down().await.unwrap();
    drop(node);

    let node = bare(&settings);
    node.resume().await.unwrap();
    eventually("the member serves again", async || {
        node.cluster_status().await.is_ok_and(|status| status.ready)
    })
    .await;
    assert_eq!(node.identity().cluster_uid, uid);
    let status = node.cluster_status().await.unwrap();
    assert_eq!(status.members.len(), 1);
    assert!(status.membership.unwrap().consistent);
    node.shut_down().await.unwrap();
}

/// The API is served before the start is over.
#[tokio::test]
async fn s0_6_what_a_node_is_asked_while_it_starts_does_not_end_it() {
    let dir = tempfile::tempdir().unwrap();
    let node = bare(&settings(dir.path(), "n1"));
    node.crash_at("noted");
    let asked = node.clone();
    let asking = tokio::spawn(async move { asked.bootstrap(BootstrapRequest::default()).await });
    node.crashed().await;
    node.resume().await.unwrap();
    node.abandon().await;
    assert!(asking.await.unwrap().is_err());
}

#[tokio::test]
async fn s0_6_a_crash_at_any_step_leaves_nothing_or_a_fleet() {
    for (step, formed) in [
        ("noted", false),
        ("key", false),
        ("certificates", false),
        ("started", false),
        ("ready", false),
        ("agreed", true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path(), "n1");
        let node = bare(&settings);
        node.crash_at(step);
        let (asked, crashing) = (node.clone(), node.clone());
        let asking =
            tokio::spawn(async move { asked.bootstrap(BootstrapRequest::default()).await });
        crashing.crashed().await;
        node.abandon().await;
        assert!(asking.await.unwrap().is_err(), "{step}");
        drop(crashing);

        let node = reopened(&settings).await;
        node.resume().await.unwrap();
        if formed {
            assert_eq!(node.phase(), Phase::ControlPlane, "{step}");
            assert!(node.cluster_status().await.is_ok(), "{step}");
        } else {
            assert!(is_uninitialised(&node), "{step}: {:?}", node.phase());
            assert!(!dir.path().join("member").exists(), "{step}");
            assert!(!dir.path().join("pki").exists(), "{step}");
            node.bootstrap(BootstrapRequest::default()).await.unwrap();
        }
        node.shut_down().await.unwrap();
    }
}

/// Directory and ports are free once what was abandoned has let them go.
async fn reopened(settings: &NodeSettings) -> Node {
    let deadline = Instant::now() + LONG;
    for port in [settings.client_port, settings.peer_port] {
        eventually("the ports are free", async || {
            std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
        })
        .await;
    }
    loop {
        match Node::open(settings.clone(), Arc::new(EmbedLauncher::new(settings.clone()))) {
            Ok(node) => return node,
            Err(why) => assert!(Instant::now() < deadline, "{why}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_config_that_does_not_hold_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let node = bare(&settings(dir.path(), "n1"));
    let overlapping = BootstrapConfig {
        pod_cidr: Some("10.0.0.0/8".to_owned()),
        service_cidr: Some("10.1.0.0/24".to_owned()),
        ..BootstrapConfig::default()
    };
    let half = BootstrapConfig { ca_crt: Some(Sensitive::from("x")), ..BootstrapConfig::default() };
    let unfit = BootstrapConfig {
        ca_crt: Some(Sensitive::from("x")),
        ca_key: Some(Sensitive::from("y")),
        ..BootstrapConfig::default()
    };
    for config in [overlapping, half, unfit] {
        let request = BootstrapRequest { config, ..BootstrapRequest::default() };
        let why = node.bootstrap(request).await.unwrap_err();
        assert!(matches!(why, FleetError::Invalid(_)), "{why:?}");
        assert_eq!(node.phase(), Phase::Uninitialized);
        assert!(!dir.path().join("node.json").exists());
    }
}

#[tokio::test]
async fn a_bootstrap_that_fails_is_undone_and_may_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), "n1");
    let node = bare(&settings);
    let held = std::net::TcpListener::bind(("127.0.0.1", settings.peer_port)).unwrap();
    let why = node.bootstrap(BootstrapRequest::default()).await.unwrap_err();
    assert!(why.to_string().contains("address already in use"), "{why}");
    assert!(is_uninitialised(&node));
    assert!(!dir.path().join("pki").exists() && !dir.path().join("fleet.key").exists());
    drop(held);
    node.bootstrap(BootstrapRequest::default()).await.unwrap();
    node.shut_down().await.unwrap();
}

#[tokio::test]
async fn s0_31_who_was_shut_down_answers_that_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let node = bare(&settings(dir.path(), "n1"));
    node.bootstrap(BootstrapRequest::default()).await.unwrap();
    node.shut_down().await.unwrap();
    assert_eq!(node.phase(), Phase::Stopping);
    assert!(node.condition().await.not_ready.is_some());
    assert_eq!(node.config().await.unwrap_err(), FleetError::ShuttingDown);
}
