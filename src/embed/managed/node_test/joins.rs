//! Nodes that come, cannot come, and go.

use super::*;
use crate::fleet::api::cluster::DatastoreRole;
use crate::fleet::api::internal::JoinAsk;
use crate::fleet::api::worker::WorkerInfoRequest;
use crate::fleet::secret::Secret;
use crate::fleet::tokens::JoinToken;

fn voters(status: &ClusterStatus) -> usize {
    let votes = |node: &&crate::fleet::api::cluster::NodeStatus| {
        node.datastore_role == Some(DatastoreRole::Voter)
    };
    status.members.iter().filter(votes).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_8_three_nodes_become_one_fleet_and_one_leaves_it() {
    let first = Rig::first().await;
    let (second, third) = (Rig::start("n2").await, Rig::start("n3").await);
    second.join(&first.token("n2").await).await.unwrap();
    third.join(&first.token("n3").await).await.unwrap();
    let status = first.status().await;
    assert_eq!((status.members.len(), voters(&status)), (3, 3));
    let membership = status.membership.unwrap();
    assert!(membership.high_availability && membership.consistent, "{membership:?}");

    let used = third.join(&first.token("n4").await).await.unwrap_err();
    assert!(matches!(used, FleetError::NodeInUse(_)), "{used:?}");

    // Whoever is asked of itself has another one do it.
    first.node().remove(removal("n1", false)).await.unwrap();
    eventually("the removed node resets itself", async || first.is_reset()).await;
    let status = second.status().await;
    assert_eq!((status.members.len(), voters(&status)), (2, 2));
    let answer = first.node().node_status().await.unwrap();
    assert_eq!(answer.phase.unwrap().reason, "removed");
    for rig in [first, second, third] {
        rig.managed.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_12_the_last_voter_stays_and_a_dead_node_goes_by_force() {
    let first = Rig::first().await;
    let last = first.node().remove(removal("n1", true)).await.unwrap_err();
    assert!(last.to_string().contains("last voter"), "{last}");
    let unknown = first.node().remove(removal("n9", false)).await.unwrap_err();
    assert_eq!(unknown, FleetError::NodeNotInFleet("n9".to_owned()));
    let (second, third) = (Rig::start("n2").await, Rig::start("n3").await);
    second.join(&first.token("n2").await).await.unwrap();
    third.join(&first.token("n3").await).await.unwrap();
    let (dir, settings) = (third.dir, third.settings);
    third.managed.stop().await.unwrap();

    let dead = first.node().remove(removal("n3", false)).await.unwrap_err();
    assert!(dead.to_string().contains("does not answer"), "{dead}");
    first.node().remove(removal("n3", true)).await.unwrap();
    assert_eq!(first.status().await.members.len(), 2);

    // S0.13: it comes back with its data, hears of it, and is nothing any more.
    let back = Managed::start(settings).await.unwrap();
    eventually("it resets itself", async || {
        is_uninitialised(back.node()) && !dir.path().join("member").exists()
    })
    .await;
    let status = first.status().await;
    assert_eq!((status.members.len(), voters(&status)), (2, 2));
    back.stop().await.unwrap();
    second.managed.stop().await.unwrap();
    first.managed.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_12_of_two_removals_at_once_none_fails_for_the_other() {
    let first = Rig::first().await;
    for number in 0..20 {
        let name = format!("w{number}");
        let token = JoinToken::decode(&Secret::from(first.worker_token(&name).await.reveal()));
        let secret = Sensitive::new(token.unwrap().secret.reveal());
        let address = format!("10.0.0.{number}");
        let ask = WorkerInfoRequest { address, csr: None };
        first.node().worker_info(&name, &secret, ask).await.unwrap();
        let removal = || first.node().remove(removal(&name, false));
        let (one, other, third) = tokio::join!(removal(), removal(), removal());
        for removed in [one, other, third] {
            let gone = FleetError::NodeNotInFleet(name.clone());
            assert!(removed.is_ok() || removed == Err(gone), "{name}: {removed:?}");
        }
    }
    assert_eq!(first.status().await.members.len(), 1);
    first.managed.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_11_two_that_join_at_once_are_both_in() {
    let first = Rig::first().await;
    let (second, third) = (Rig::start("n2").await, Rig::start("n3").await);
    let tokens = (first.token("n2").await, first.token("n3").await);
    let (one, other) = tokio::join!(second.join(&tokens.0), third.join(&tokens.1));
    one.unwrap();
    other.unwrap();
    let status = first.status().await;
    assert_eq!((status.members.len(), voters(&status)), (3, 3));
    for rig in [third, second, first] {
        rig.managed.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a0_3_who_may_not_join_is_clean_afterwards_and_changes_nothing() {
    let (first, other) = (Rig::first().await, Rig::first().await);
    let joiner = Rig::start("n2").await;
    let short = JoinTokenRequest {
        name: "n2".to_owned(),
        ttl: Duration::from_millis(100).into(),
        ..JoinTokenRequest::default()
    };
    let expired = other.node().join_token(short).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let too_short = JoinTokenRequest {
        name: "n2".to_owned(),
        ttl: Duration::from_nanos(1).into(),
        ..JoinTokenRequest::default()
    };
    let refused = first.node().join_token(too_short).await.unwrap_err();
    assert!(matches!(refused, FleetError::Invalid(_)), "who asks for it is not unauthorized");
    let read = |token: &Sensitive| JoinToken::decode(&Secret::from(token.reveal())).unwrap();
    let whole = first.token("n2").await;
    let (good, foreign) = (read(&whole), read(&other.token("n2").await));
    let encode = |token: &JoinToken| Sensitive::new(token.encode().reveal());
    for (case, token) in [
        ("truncated", Sensitive::new(&whole.reveal()[..whole.reveal().len() / 2])),
        ("wrong name", first.token("n9").await),
        (
            "wrong fingerprint",
            encode(&JoinToken { fingerprint: foreign.fingerprint, ..good.clone() }),
        ),
        (
            "other fleet's secret",
            encode(&JoinToken { secret: foreign.secret.clone(), ..good.clone() }),
        ),
        ("other fleet's uid", encode(&JoinToken { uid: foreign.uid.clone(), ..good.clone() })),
        (
            "nobody there",
            encode(&JoinToken { addresses: vec!["127.0.0.1:1".into()], ..good.clone() }),
        ),
        ("expired", expired),
    ] {
        let why = joiner.join(&token).await.unwrap_err();
        assert!(matches!(why, FleetError::JoinFailed(_)), "{case}: {why:?}");
        assert!(!why.to_string().contains(good.secret.reveal()), "{case}");
        assert!(is_uninitialised(joiner.node()), "{case}");
        assert!(joiner.is_clean(), "{case}");
        assert_eq!(first.status().await.members.len(), 1, "{case}");
    }
    // A worker's token on the way of the control plane.
    let worker = read(&first.worker_token("n2").await);
    let url = |port: u16| vec![format!("https://127.0.0.1:{port}")];
    let ask = JoinAsk {
        version: 1,
        uid: good.uid.clone(),
        secret: Sensitive::new(worker.secret.reveal()),
        name: "n2".to_owned(),
        address: joiner.settings.api_address(""),
        peer_urls: url(joiner.settings.peer_port),
        client_urls: url(joiner.settings.client_port),
        csrs: std::collections::BTreeMap::new(),
    };
    let why = first.node().admit(ask).await.unwrap_err();
    assert!(why.to_string().contains("another role"), "{why}");
    // Through all of this the good token is good.
    joiner.join(&whole).await.unwrap();
    let used = Rig::start("n2").await;
    let why = used.join(&whole).await.unwrap_err();
    assert!(why.to_string().contains("used"), "{why}");
    for rig in [used, joiner, first, other] {
        rig.managed.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_10_a_join_that_fails_half_way_is_undone_on_both_sides() {
    let first = Rig::first().await;
    let joiner = Rig::start("n2").await;
    // Its member cannot start.
    let held = std::net::TcpListener::bind(("127.0.0.1", joiner.settings.peer_port)).unwrap();
    let why = joiner.join(&first.token("n2").await).await.unwrap_err();
    assert!(why.to_string().contains("address already in use"), "{why}");
    assert!(is_uninitialised(joiner.node()) && joiner.is_clean());
    let status = first.status().await;
    assert_eq!(status.members.len(), 1);
    assert_eq!(status.membership.unwrap().nodes.len(), 1, "out of raft, too");
    drop(held);
    joiner.join(&first.token("n2").await).await.unwrap();
    assert_eq!(first.status().await.members.len(), 2);
    for rig in [joiner, first] {
        rig.managed.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_26_a_worker_passes_on_and_holds_nothing_until_it_is_removed() {
    let first = Rig::first().await;
    let worker = Rig::start("w1").await;
    worker.join(&first.worker_token("w1").await).await.unwrap();
    assert_eq!(worker.node().phase(), Phase::Worker);
    assert!(!worker.dir.path().join("member").exists());
    assert_eq!(worker.node().cluster_status().await.unwrap_err(), FleetError::OnWorker);
    let status = first.status().await;
    assert_eq!(status.members.len(), 2);
    assert!(status.membership.unwrap().consistent);
    first.node().remove(removal("w1", false)).await.unwrap();
    eventually("the worker resets itself", async || worker.is_reset()).await;
    for rig in [worker, first] {
        rig.managed.stop().await.unwrap();
    }
}
