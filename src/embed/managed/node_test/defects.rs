//! A0.6: the seven defects of the origin's etcd-backed database, each as a claim that fails with it.

use std::collections::BTreeSet;

use super::*;
use crate::fleet::api::auth::AuthTokenRequest;
use crate::fleet::api::config::{SetConfigRequest, UserFacingClusterConfig};
use crate::fleet::api::worker::WorkerInfoRequest;
use crate::fleet::secret::Secret;
use crate::fleet::tokens::JoinToken;

async fn formed(dir: &Path) -> Node {
    let node = bare(&settings(dir, "n1"));
    node.bootstrap(BootstrapRequest::default()).await.unwrap();
    node
}

fn user(name: &str, groups: &[&str]) -> AuthTokenRequest {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    AuthTokenRequest { username: name.to_owned(), groups }
}

fn worker_secret(token: &Sensitive) -> Sensitive {
    let token = JoinToken::decode(&Secret::from(token.reveal())).unwrap();
    Sensitive::new(token.secret.reveal())
}

fn worker(name: &str) -> JoinTokenRequest {
    JoinTokenRequest { name: name.to_owned(), worker: true, ..Default::default() }
}

fn at(address: &str) -> WorkerInfoRequest {
    WorkerInfoRequest { address: address.to_owned(), csr: None }
}

#[tokio::test]
async fn a0_6_defect_1_a_capi_token_is_compared() {
    let dir = tempfile::tempdir().unwrap();
    let node = formed(dir.path()).await;
    let (x, y) = (Sensitive::from("x"), Sensitive::from("y"));
    assert!(!node.check_capi_token(&x).await.unwrap(), "none is set, none counts");
    assert!(!node.check_capi_token(&Sensitive::from("")).await.unwrap());
    node.set_capi_token(&y).await.unwrap();
    assert!(!node.check_capi_token(&x).await.unwrap());
    assert!(node.check_capi_token(&y).await.unwrap());
    node.set_capi_token(&x).await.unwrap();
    assert!(!node.check_capi_token(&y).await.unwrap(), "the one before counts no more");
    node.shut_down().await.unwrap();
}

#[tokio::test]
async fn a0_6_defects_2_and_6_a_workers_token_runs_out_and_is_used_up() {
    let dir = tempfile::tempdir().unwrap();
    let node = formed(dir.path()).await;
    let short = JoinTokenRequest { ttl: Duration::from_millis(100).into(), ..worker("w0") };
    let short = worker_secret(&node.join_token(short).await.unwrap());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let why = node.worker_info("w0", &short, at("10.0.0.9")).await.unwrap_err();
    assert!(why.to_string().contains("expired"), "{why}");

    let token = worker_secret(&node.join_token(worker("w1")).await.unwrap());
    let other = node.worker_info("w2", &token, at("10.0.0.2")).await.unwrap_err();
    assert!(matches!(other, FleetError::Unauthorized(_)), "{other:?}");
    let info = node.worker_info("w1", &token, at("10.0.0.1")).await.unwrap();
    assert!(!info.ca.is_empty() && !info.api_servers.is_empty());
    let again = node.worker_info("w1", &token, at("10.0.0.1")).await.unwrap_err();
    assert!(matches!(again, FleetError::Unauthorized(_)), "{again:?}");
    node.shut_down().await.unwrap();
}

#[tokio::test]
async fn a0_6_defect_3_and_a0_5_fifty_changes_of_the_config_at_once_are_all_there() {
    let dir = tempfile::tempdir().unwrap();
    let node = formed(dir.path()).await;
    let put = |at: usize| {
        let node = node.clone();
        let annotations = [(format!("field-{at}"), at.to_string())].into();
        let config = UserFacingClusterConfig {
            annotations: Some(annotations),
            ..UserFacingClusterConfig::default()
        };
        let request = SetConfigRequest { config, ..SetConfigRequest::default() };
        tokio::spawn(async move { node.set_config(request).await })
    };
    let changes: Vec<_> = (0..50).map(put).collect();
    for change in changes {
        change.await.unwrap().unwrap();
    }
    let config = node.config().await.unwrap();
    let kept = config.status.annotations.unwrap();
    assert!(
        (0..50).all(|at| kept.get(&format!("field-{at}")) == Some(&at.to_string())),
        "{kept:?}"
    );

    let mut immutable = SetConfigRequest::default();
    immutable.datastore.kind = Some("external".to_owned());
    let why = node.set_config(immutable).await.unwrap_err();
    assert!(why.to_string().starts_with("prevented update of "), "{why}");
    node.shut_down().await.unwrap();
}

#[tokio::test]
async fn a0_6_defects_4_and_7_what_is_listed_and_looked_up_is_what_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let node = formed(dir.path()).await;
    // A name that begins with another one's is another node's.
    let w1 = node.join_token(worker("w1")).await.unwrap();
    let w11 = node.join_token(worker("w11")).await.unwrap();
    assert_ne!(w1, w11);
    assert_eq!(node.join_token(worker("w1")).await.unwrap(), w1, "the same while it counts");
    let stolen = node.worker_info("w11", &worker_secret(&w1), at("10.0.0.1")).await.unwrap_err();
    assert!(matches!(stolen, FleetError::Unauthorized(_)), "{stolen:?}");
    node.worker_info("w11", &worker_secret(&w11), at("10.0.0.11")).await.unwrap();
    let status = node.cluster_status().await.unwrap();
    let names: Vec<&str> = status.members.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["n1", "w11"]);
    node.shut_down().await.unwrap();
}

#[tokio::test]
async fn a0_6_defect_5_a_users_token_is_of_its_groups_too() {
    let dir = tempfile::tempdir().unwrap();
    let node = formed(dir.path()).await;
    let admin = node.issue_auth_token(user("alice", &["admins"])).await.unwrap();
    let plain = node.issue_auth_token(user("alice", &[])).await.unwrap();
    let both = node.issue_auth_token(user("alice", &["b", "a", "b"])).await.unwrap();
    let all: BTreeSet<&str> = [&admin, &plain, &both].iter().map(|token| token.reveal()).collect();
    assert_eq!(all.len(), 3);
    assert_eq!(node.issue_auth_token(user("alice", &["a", "b"])).await.unwrap(), both);
    let found = node.review_token(&both).await.unwrap().unwrap();
    assert_eq!((found.username.as_str(), found.groups), ("alice", vec!["a".into(), "b".into()]));
    node.revoke_auth_token(&admin).await.unwrap();
    node.revoke_auth_token(&admin).await.unwrap();
    assert_eq!(node.review_token(&admin).await.unwrap(), None);
    assert!(node.review_token(&plain).await.unwrap().is_some());
    assert_eq!(node.review_token(&Sensitive::from("token::made-up")).await.unwrap(), None);
    node.shut_down().await.unwrap();
}
