//! Workers whose joins break: an answer that is lost, one that cannot serve, one that dies.

use super::*;
use crate::fleet::api::certificates::{RefreshPlanRequest, RefreshRunRequest};
use crate::fleet::api::worker::{WorkerInfo, WorkerInfoRequest};
use crate::fleet::pki::{CertificateName, LEAF_SECONDS, Organisation, Pending, Wanted};
use crate::fleet::secret::Secret;
use crate::fleet::tokens::JoinToken;

/// A worker's key, as it asks to have it signed.
fn csr(name: &str) -> String {
    let wanted = Wanted::new(CertificateName::Client, Organisation::Worker, name, &[], &[]);
    Pending::new(&wanted).unwrap().request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_10_a_worker_whose_answer_was_lost_is_let_in_under_the_same_id() {
    let first = Rig::first().await;
    let second = Rig::start("n2").await;
    second.join(&first.token("n2").await).await.unwrap();
    let token = first.node().join_token(JoinTokenRequest { worker: true, ..Default::default() });
    let token = JoinToken::decode(&Secret::from(token.await.unwrap().reveal())).unwrap();
    let secret = Sensitive::new(token.secret.reveal());
    let asks = async |rig: &Rig, name: &str, address: &str, csr: Option<&str>| {
        let (address, csr) = (address.to_owned(), csr.map(str::to_owned));
        rig.node().worker_info(name, &secret, WorkerInfoRequest { address, csr }).await
    };
    let (own, key) = ("10.0.0.1:6400", csr("w1"));
    let told = asks(&first, "w1", own, Some(&key)).await.unwrap();
    for rig in [&first, &second] {
        let again = asks(rig, "w1", own, Some(&key)).await.unwrap();
        assert_eq!(again.node_id, told.node_id);
        assert!(again.client_certificate.is_some_and(|signed| signed.contains("BEGIN")));
    }
    assert_eq!(first.status().await.membership.unwrap().nodes.len(), 3, "it was entered once");

    // Whoever else has the token has it too late: its name and its key are not those.
    let another = csr("w1");
    for (name, address, csr) in [
        ("w1", own, Some(another.as_str())),
        ("w1", own, None),
        ("w2", own, Some(key.as_str())),
        ("w1", "10.0.0.2:6400", Some(key.as_str())),
    ] {
        let why = asks(&first, name, address, csr).await.unwrap_err();
        assert!(why.to_string().contains("was used"), "{name} at {address}: {why}");
    }
    first.node().remove(removal("w1", false)).await.unwrap();
    let removed: Result<WorkerInfo, _> = asks(&second, "w1", own, Some(&key)).await;
    assert!(removed.unwrap_err().to_string().contains("was used"), "it was removed since");
    for rig in [second, first] {
        rig.managed.stop().await.unwrap();
    }
}

/// Its key is with nobody: nobody could be let in again by what was told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_10_a_worker_that_has_nothing_signed_is_let_in_once() {
    let first = Rig::first().await;
    let token = JoinToken::decode(&Secret::from(first.worker_token("w1").await.reveal())).unwrap();
    let secret = Sensitive::new(token.secret.reveal());
    let ask = || WorkerInfoRequest { address: "10.0.0.1".to_owned(), csr: None };
    first.node().worker_info("w1", &secret, ask()).await.unwrap();
    let again = first.node().worker_info("w1", &secret, ask()).await.unwrap_err();
    assert!(again.to_string().contains("was used"), "{again}");
    first.managed.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_10_the_node_that_lets_a_worker_in_dies_before_its_answer_and_the_join_comes_about() {
    let first = Rig::first().await;
    let worker = Rig::start("w1").await;
    let token = first.worker_token("w1").await;
    first.node().crash_at("admitted");
    let (node, request) = (worker.node().clone(), JoinRequest { token, ..Default::default() });
    let joining = tokio::spawn(async move { node.join(request).await });
    first.node().crashed().await;
    let first = Rig::back(first.crash().await).await;
    joining.await.unwrap().unwrap();
    assert_eq!(worker.node().phase(), Phase::Worker);
    let membership = first.status().await.membership.unwrap();
    assert_eq!((membership.nodes.len(), membership.consistent), (2, true), "it was entered once");
    for rig in [worker, first] {
        rig.managed.stop().await.unwrap();
    }
}

/// What it was let in for cannot be: the fleet does not keep its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_10_a_worker_that_was_let_in_and_cannot_serve_is_let_go_again() {
    let first = Rig::first().await;
    let worker = Rig::start("w1").await;
    let held = std::net::TcpListener::bind(("127.0.0.1", worker.settings.client_port)).unwrap();
    let why = worker.join(&first.worker_token("w1").await).await.unwrap_err();
    assert!(why.to_string().contains("address already in use"), "{why}");
    assert!(worker.is_reset());
    assert_eq!(first.status().await.members.len(), 1, "it is in the registry no more");
    drop(held);
    worker.join(&first.worker_token("w1").await).await.unwrap();
    assert_eq!(first.status().await.members.len(), 2);
    for rig in [worker, first] {
        rig.managed.stop().await.unwrap();
    }
}

/// It has lost nothing that it could not have again: the fleet does not keep its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_10_a_worker_that_dies_once_it_was_let_in_is_let_go_by_its_next_start() {
    let first = Rig::first().await;
    let worker = Rig::start("w1").await;
    let token = first.worker_token("w1").await;
    let worker = Rig::back(worker.joins_until(&token, "let in").await).await;
    assert!(worker.is_reset());
    assert_eq!(first.status().await.members.len(), 1, "it is in the registry no more");
    worker.join(&first.worker_token("w1").await).await.unwrap();
    for rig in [worker, first] {
        rig.managed.stop().await.unwrap();
    }
}

/// S0.24: by the fleet, as a worker cannot sign for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_24_a_workers_certificate_is_made_anew_when_it_is_asked_to() {
    let first = Rig::first().await;
    let worker = Rig::start("w1").await;
    worker.join(&first.worker_token("w1").await).await.unwrap();
    let shown = |name: &str| {
        let file = worker.dir.path().join("pki").join(format!("{name}.crt"));
        std::fs::read_to_string(file).unwrap()
    };
    let seed = async || {
        let plan = worker.node().plan_certificates(RefreshPlanRequest::default()).await;
        plan.unwrap().seed
    };
    let run = async |ask: RefreshRunRequest| worker.node().run_certificates(ask).await;
    let before = ["server", "client", "member-api"].map(shown);
    let day = RefreshRunRequest { expiration_seconds: 86_400, ..Default::default() };
    let until = run(RefreshRunRequest { seed: seed().await, ..day.clone() }).await.unwrap();
    let left = until.expiration_seconds - chrono::Utc::now().timestamp();
    assert!((86_400 - 60..=86_400).contains(&left), "{left}");
    for (name, before) in ["server", "client", "member-api"].into_iter().zip(&before) {
        assert_ne!(&shown(name), before, "{name}");
    }
    let after = shown("client");
    let some = vec!["member-api".to_owned()];
    let one = RefreshRunRequest { seed: seed().await, certificates: some, ..day.clone() };
    run(one).await.unwrap();
    assert_eq!(shown("client"), after, "it was not named");
    assert_ne!(shown("member-api"), after);

    let others = vec!["another.example".to_owned()];
    let long = i64::try_from(LEAF_SECONDS).unwrap() + 1;
    for (ask, why) in [
        (RefreshRunRequest { seed: 7, ..day.clone() }, "plan"),
        (RefreshRunRequest { seed: seed().await, extra_sans: others, ..day.clone() }, "no other"),
        (RefreshRunRequest { seed: seed().await, expiration_seconds: long, ..day }, "at most"),
    ] {
        let told = run(ask).await.unwrap_err().to_string();
        assert!(told.contains(why), "{told}");
        assert_eq!(shown("client"), after);
    }
    let ca = RefreshRunRequest { certificates: vec!["ca".to_owned()], ..Default::default() };
    assert!(matches!(run(ca).await, Err(FleetError::OnWorker)), "that is for members");
    for rig in [worker, first] {
        rig.managed.stop().await.unwrap();
    }
}
