//! A0.3: twelve joins that must not be, told as one story. After each of them every node says of the fleet what it said
//! before, whoever was refused is clean, and no file has a secret in it.

use std::time::Duration;

use quorate::fleet::secret::Secret;
use quorate::fleet::store::StateStore as _;
use quorate::fleet::tokens::JoinToken;
use serde_json::{Value, json};

use super::asking::ask;
use super::daemon::{Daemon, LONG, eventually, eventually_within, leader_of};
use super::secrets::Secrets;

/// The steps of a join at which the leader dies, as the joiner tells them, and whether it is the leader that was asked.
const DEATHS: [(&str, bool); 3] =
    [("asking to be let in", false), ("starting the member", true), ("asking to be let in", true)];

/// A node that was let in and never heard of it is given up by the fleet after a minute.
const GIVEN_UP: Duration = Duration::from_secs(180);

/// A fleet, and one who wants to come in.
struct Story {
    nodes: [Daemon; 3],
    joiner: Daemon,
    secrets: Secrets,
    before: Value,
}

fn read(token: &str) -> JoinToken {
    JoinToken::decode(&Secret::from(token)).expect("a token")
}

fn text_of(token: &JoinToken) -> String {
    token.encode().reveal().to_owned()
}

/// What a node says of the membership, whoever leads.
async fn told_by(node: &Daemon) -> Option<Value> {
    let status = node.try_status().await?;
    let membership = &status["membership"];
    Some(json!({
        "ready": status["ready"], "members": status["members"], "nodes": membership["nodes"],
        "consistent": membership["consistent"],
    }))
}

impl Story {
    /// The token with which n2 joined is given back.
    async fn begin() -> (Story, String) {
        let nodes = [Daemon::start("n1"), Daemon::start("n2"), Daemon::start("n3")];
        nodes[0].does(&["bootstrap"]);
        let mut secrets = Secrets::new();
        let used = nodes[0].token("n2");
        for (joining, token) in nodes[1..].iter().zip([used.clone(), nodes[0].token("n3")]) {
            secrets.token(&format!("the token of {}", joining.name), &token);
            joining.does(&["join-cluster", &token]);
        }
        let before = told_by(&nodes[0]).await.expect("it is a node of a fleet");
        assert_eq!((&before["ready"], &before["consistent"]), (&json!(true), &json!(true)));
        let joiner = Daemon::start("n4");
        (Story { nodes, joiner, secrets, before }, used)
    }

    fn token(&mut self, name: &str, secret_of: &str) -> String {
        let token = self.nodes[0].token(name);
        self.secrets.token(secret_of, &token);
        token
    }

    async fn refused(&self, case: &str, token: &str, further: &[&str], because: &str) {
        let why = self.joiner.fails(&[&["join-cluster", token], further].concat());
        assert!(why.contains(because), "{case}: {why}");
        assert!(!why.contains(token), "{case}: the token is not repeated");
        self.nothing_happened(case).await;
    }

    async fn nothing_happened(&self, case: &str) {
        for node in &self.nodes {
            let now = told_by(node).await.expect("it is a node of a fleet");
            assert_eq!(now, self.before, "{case}: {} tells", node.name);
        }
        self.is_clean(case).await;
    }

    /// The joiner is as it was before it ever heard of a fleet.
    async fn is_clean(&self, case: &str) {
        assert!(self.joiner.is_reset(), "{case}: {}", self.joiner.log());
        let (code, told) = self.joiner.get("/1.0/k8sd/cluster").await;
        assert_eq!((code, &told["error"]), (503, &json!("daemon not yet initialized")), "{case}");
    }

    /// One of the fleet, by its name.
    fn named(&self, name: &str) -> &Daemon {
        self.nodes.iter().find(|node| node.name == name).expect("it is one of them")
    }

    /// Case 12: the leader dies while n4 is at `step`. It is in, or it never was: never in between.
    async fn the_leader_dies(&mut self, step: &str, was_asked: bool) {
        let case = format!("the leader dies at {step:?}, asked itself: {was_asked}");
        let leader = leader_of(&self.nodes).await;
        let other = self.nodes.iter().position(|node| node.name != leader).expect("two of them");
        let asked = if was_asked { self.named(&leader) } else { &self.nodes[other] };
        let token = asked.token("n4");
        self.secrets.token(&case, &token);
        let steps = || self.joiner.log().matches(step).count();
        let before = steps();
        let mut joining = self.joiner.begins(&["join-cluster", &token]);
        let look = Duration::from_millis(5);
        while steps() == before && joining.try_wait().expect("it is waited for").is_none() {
            tokio::time::sleep(look).await;
        }
        self.named(&leader).kill();
        let joined = joining.wait_with_output().expect("it is waited for");
        let said = String::from_utf8_lossy(&joined.stderr).into_owned();

        // Nobody waits for the dead one.
        let left: Vec<&Daemon> = self.nodes.iter().filter(|node| node.name != leader).collect();
        let is_in = joined.status.success();
        eventually_within(GIVEN_UP, &format!("{case}: both sides agree: {said}"), async || {
            let mut agreed = true;
            for node in &left {
                let told = told_by(node).await.unwrap_or_default();
                agreed &= told["ready"] == true && told["consistent"] == true;
                let nodes = told["nodes"].as_array().cloned().unwrap_or_default();
                let listed: Vec<_> = nodes.iter().filter(|node| node["name"] == "n4").collect();
                let votes = |node: &&Value| node["raft"] == "voter";
                agreed &= nodes.iter().all(|node| node["raft"] == "voter");
                agreed &= nodes.len() == if is_in { 4 } else { 3 };
                agreed &= listed.iter().filter(|node| votes(node)).count() == usize::from(is_in);
            }
            agreed
        })
        .await;
        let (_, told) = self.joiner.get("/1.0/k8sd/node").await;
        let status = &told["metadata"]["status"];
        if is_in {
            assert_eq!(status["datastore-role"], "voter", "{case}: {told}");
        } else {
            let away = format!("{leader} cannot be reached");
            assert!(said.contains(&away), "{case}: {said}");
            self.is_clean(&case).await;
            let listed = left[0].store().list(b"/k8sd/nodes/").await.expect("a list");
            assert_eq!(listed.len(), 3, "{case}: no record is left");
        }

        // As it was before, for the next one.
        self.named(&leader).restart();
        if is_in {
            self.nodes[other].does(&["remove-node", "n4"]);
            eventually("it is reset", async || self.joiner.is_reset()).await;
        }
        eventually(&format!("{case}: the fleet is whole again"), async || {
            let mut whole = true;
            for node in &self.nodes {
                whole &= told_by(node).await.as_ref() == Some(&self.before);
            }
            whole
        })
        .await;
    }
}

#[tokio::test]
async fn a0_3_twelve_bad_joins_change_nothing_and_tell_no_secret() {
    let (mut story, used) = Story::begin().await;
    let other = Daemon::start("m1");
    other.does(&["bootstrap"]);
    let foreign = other.token("n4");
    story.secrets.token("the other fleet's token", &foreign);
    let foreign = read(&foreign);

    // 1: its time is up before anybody shows it.
    let short = json!({"name": "n4", "ttl": 400_000_000});
    let (code, told) = story.nodes[0].post("/1.0/k8sd/cluster/tokens", &short).await;
    assert_eq!(code, 200, "{told}");
    let expired = told["metadata"]["token"].as_str().expect("a token").to_owned();
    story.secrets.token("the token that is over", &expired);
    tokio::time::sleep(Duration::from_millis(500)).await;
    story.refused("expired", &expired, &[], "the token has expired").await;
    // 2
    story.refused("used", &used, &["--name", "n2"], "was used").await;
    // 3
    let nine = story.token("n9", "the token of n9");
    story.refused("wrong name", &nine, &[], "of another name").await;
    // 4
    let good = story.token("n4", "the token of n4");
    let token = read(&good);
    let forged = JoinToken { fingerprint: foreign.fingerprint, ..token.clone() };
    story.refused("wrong fingerprint", &text_of(&forged), &[], "certificate").await;
    // 5: all that it says is of the other fleet, but for where it leads and whom it trusts.
    let forged = JoinToken {
        fingerprint: token.fingerprint,
        addresses: token.addresses.clone(),
        ..foreign.clone()
    };
    story.refused("other fleet's", &text_of(&forged), &[], "of another cluster").await;
    let forged = JoinToken { uid: token.uid.clone(), ..forged };
    story.refused("other fleet's secret", &text_of(&forged), &[], "is unknown").await;
    // 6
    story.refused("truncated", &good[..good.len() - 7], &[], "the token is not whole").await;
    // 7: in the API's own words, as no node of ours would.
    let worker = story.nodes[0].worker_token("n4");
    story.secrets.token("the worker's token", &worker);
    let asked = json!({
        "version": 1, "uid": token.uid, "secret": read(&worker).secret.reveal(), "name": "n4",
        "address": story.joiner.api_address(), "peer_urls": ["https://127.0.0.1:1"],
        "client_urls": ["https://127.0.0.1:2"], "csrs": {},
    });
    let stranger = story.nodes[1].stranger();
    let (code, told) = ask(&stranger, "POST /internal/join", &[], Some(&asked)).await;
    assert_eq!((code, &told["error"]), (401, &json!("the token is for a node of another role")));
    story.nothing_happened("worker's token on the way of the control plane").await;
    // 8
    let (code, told) = story.nodes[1].post("/1.0/k8sd/cluster/join", &json!({"token": good})).await;
    assert_eq!((code, &told["error"]), (521, &json!("node \"n2\" is part of the cluster")));
    story.nothing_happened("in use").await;
    // 9
    let unknown = json!({"token": good, "colour": "blue"});
    let (code, _) = story.joiner.post("/1.0/k8sd/cluster/join", &unknown).await;
    assert_eq!(code, 400);
    story.nothing_happened("an unknown field").await;
    // 10
    let taken = story.token("n2", "a token of a name that is taken");
    let why = "a node named \"n2\" is part of the cluster";
    story.refused("duplicate name", &taken, &["--name", "n2"], why).await;
    // 11
    let address = story.nodes[1].api_address();
    story.refused("duplicate address", &good, &["--address", &address], &address).await;
    // 12
    for (step, was_asked) in DEATHS {
        story.the_leader_dies(step, was_asked).await;
    }
    // Through all of it, who may join can.
    let late = story.token("n4", "the last token of n4");
    story.joiner.does(&["join-cluster", &late]);
    assert_eq!(story.nodes[0].voters().await, 4);

    let Story { nodes, joiner, mut secrets, .. } = story;
    nodes.iter().chain([&joiner]).for_each(|node| secrets.of_node(node));
    let mut found = Vec::new();
    for node in nodes.iter().chain([&joiner]) {
        found.extend(secrets.found_in_keys(node).await);
    }
    for node in nodes.iter().chain([&joiner]) {
        let ended = tokio::time::timeout(LONG, node.terminate()).await.expect("in time");
        assert_eq!(ended, Some(0));
        found.extend(secrets.found_at(node));
    }
    assert_eq!(found, Vec::<String>::new());
}
