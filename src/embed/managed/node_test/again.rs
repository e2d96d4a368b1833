//! Joins that break: an answer that is lost, a node that dies right after it got its vote, a fleet that cannot let go.

use quorate_core::api::pb::etcdserverpb as pb;

use super::*;
use crate::fleet::api::cluster::DatastoreRole;
use crate::fleet::api::internal::{JoinAsk, LeaveAsk};
use crate::fleet::secret::Secret;
use crate::fleet::tokens::JoinToken;
use crate::service::pb::etcdserverpb::cluster_client::ClusterClient;

impl Rig {
    /// Ends as it is: what it was about to do is not done, and nothing is undone.
    pub(super) async fn crash(self) -> (TempDir, NodeSettings) {
        let Rig { dir, settings, managed } = self;
        managed.stop().await.unwrap();
        (dir, settings)
    }

    pub(super) async fn back((dir, settings): (TempDir, NodeSettings)) -> Rig {
        let managed = Managed::start(settings.clone()).await.unwrap();
        Rig { dir, settings, managed }
    }

    /// Dies at `step` of letting `joiner` in, which has no time to wait until it is back.
    async fn dies_while_joins(self, joiner: &Rig, step: &'static str) -> (TempDir, NodeSettings) {
        let token = self.token("n2").await;
        self.node().crash_at(step);
        let node = joiner.node().clone();
        let request = JoinRequest { token, timeout: seconds(3), ..Default::default() };
        let joining = tokio::spawn(async move { node.join(request).await });
        self.node().crashed().await;
        let died = self.crash().await;
        assert!(joining.await.unwrap().is_err());
        died
    }

    /// Joins until it dies at `step`.
    pub(super) async fn joins_until(
        self,
        token: &Sensitive,
        step: &'static str,
    ) -> (TempDir, NodeSettings) {
        self.node().crash_at(step);
        let (node, request) =
            (self.node().clone(), JoinRequest { token: token.clone(), ..Default::default() });
        let joining = tokio::spawn(async move { node.join(request).await });
        self.node().crashed().await;
        let left = self.crash().await;
        assert!(joining.await.unwrap().is_err());
        left
    }

    async fn consists_of(&self, count: usize) {
        eventually("registry and raft have the same voters", async || {
            let Ok(status) = self.node().cluster_status().await else { return false };
            let voter = |node: &crate::fleet::api::cluster::NodeStatus| {
                node.datastore_role == Some(DatastoreRole::Voter)
            };
            let consistent = status.membership.is_some_and(|membership| membership.consistent);
            status.ready
                && consistent
                && status.members.len() == count
                && status.members.iter().all(voter)
        })
        .await;
    }
}

fn asking(token: &Sensitive, joiner: &Rig, note: &str) -> JoinAsk {
    let token = JoinToken::decode(&Secret::from(token.reveal())).unwrap();
    let url = |port: u16| vec![format!("https://127.0.0.1:{port}")];
    JoinAsk {
        version: 1,
        uid: token.uid.clone(),
        secret: Sensitive::new(token.secret.reveal()),
        name: "n3".to_owned(),
        address: joiner.settings.api_address(""),
        peer_urls: url(joiner.settings.peer_port),
        client_urls: vec![format!("https://127.0.0.1:{}{note}", joiner.settings.client_port)],
        csrs: std::collections::BTreeMap::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_10_a_node_whose_answer_was_lost_is_let_in_under_the_same_id() {
    let first = Rig::first().await;
    let second = Rig::start("n2").await;
    second.join(&first.token("n2").await).await.unwrap();
    assert!(!first.node().may_ask_again("n2").await, "it votes: it has had its answer");
    let joiner = Rig::start("n3").await;
    let token = first.token("n3").await;
    let ask = || asking(&token, &joiner, "");
    let admission = first.node().admit(ask()).await.unwrap();
    for asked in [&first, &second] {
        assert_eq!(asked.node().admit(ask()).await.unwrap().id, admission.id);
    }
    assert_eq!(first.status().await.membership.unwrap().nodes.len(), 3, "it was entered once");
    assert!(first.node().may_ask_again("n3").await);
    let other = first.node().admit(asking(&token, &joiner, "/")).await.unwrap_err();
    assert!(other.to_string().contains("was used"), "asked with anything else: {other}");
    for rig in [joiner, second, first] {
        rig.managed.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_10_the_node_that_lets_in_dies_before_its_answer_and_the_join_comes_about() {
    for step in ["admitted", "added"] {
        let first = Rig::first().await;
        let joiner = Rig::start("n2").await;
        let token = first.token("n2").await;
        first.node().crash_at(step);
        let (node, request) = (joiner.node().clone(), JoinRequest { token, ..Default::default() });
        let joining = tokio::spawn(async move { node.join(request).await });
        first.node().crashed().await;
        let first = Rig::back(first.crash().await).await;
        joining.await.unwrap().unwrap();
        first.consists_of(2).await;
        for rig in [joiner, first] {
            rig.managed.stop().await.unwrap();
        }
    }
}

/// Nobody but the deciders is left to undo it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_10_a_node_that_was_added_and_never_came_is_taken_out_again() {
    let first = Rig::first().await;
    let joiner = Rig::start("n2").await;
    let first = first.dies_while_joins(&joiner, "added").await;
    assert!(joiner.is_reset());
    let first = Rig::back(first).await;
    eventually("it was let in", async || first.status().await.members.len() == 2).await;
    first.consists_of(1).await;
    for rig in [joiner, first] {
        rig.managed.stop().await.unwrap();
    }
}

/// The second voter of two: without it the first has no quorum, and can tell it nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_10_a_node_that_dies_with_the_vote_of_two_comes_back_with_it() {
    for step in ["let in", "catching up", "votes"] {
        let first = Rig::first().await;
        let joiner = Rig::start("n2").await;
        let token = first.token("n2").await;
        let joiner = Rig::back(joiner.joins_until(&token, step).await).await;
        first.consists_of(2).await;
        eventually("it is a member", async || joiner.node().phase() == Phase::ControlPlane).await;
        for rig in [joiner, first] {
            rig.managed.stop().await.unwrap();
        }
    }
}

/// Wiped, a voter that nobody has let go would come back empty under an id that counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_10_who_has_no_time_left_keeps_its_vote_until_the_fleet_lets_it_go() {
    let first = Rig::first().await;
    let joiner = Rig::start("n2").await;
    let token = first.token("n2").await;
    joiner.node().crash_at("votes");
    let node = joiner.node().clone();
    let request = JoinRequest { token, timeout: seconds(10), ..Default::default() };
    let joining = tokio::spawn(async move { node.join(request).await });
    joiner.node().crashed().await;
    let first = first.crash().await;
    let why = joining.await.unwrap().unwrap_err();
    assert!(matches!(why, FleetError::TimedOut(_)), "{why:?}");
    assert_eq!(joiner.node().phase(), Phase::Joining);
    assert!(joiner.dir.path().join("member").exists(), "nobody has let it go");

    let first = Rig::back(first).await;
    eventually("it is let go, and clean", async || joiner.is_reset()).await;
    first.consists_of(1).await;
    for rig in [joiner, first] {
        rig.managed.stop().await.unwrap();
    }
}

/// Too few are there for one more, since it was entered: nobody but who has entered it can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_10_who_was_entered_and_cannot_be_added_is_taken_back() {
    let first = Rig::first().await;
    let (second, third) = (Rig::start("n2").await, Rig::start("n3").await);
    second.join(&first.token("n2").await).await.unwrap();
    third.join(&first.token("n3").await).await.unwrap();
    let joiner = Rig::start("n4").await;
    let token = first.token("n4").await;
    let mut away = None;
    let dies = async { away = Some(third.crash().await) };
    let held = async {
        first.node().hold_at("admitted", dies).await;
        Ok(())
    };
    let why = tokio::try_join!(joiner.join(&token), held).unwrap_err().to_string();
    assert!(why.contains("n3 cannot be reached"), "{why}");
    assert!(joiner.is_reset());
    let nodes = first.status().await.membership.unwrap().nodes;
    assert_eq!(nodes.len(), 3, "the registry has it no more: {nodes:?}");

    let third = Rig::back(away.unwrap()).await;
    first.consists_of(3).await;
    joiner.join(&first.token("n4").await).await.unwrap();
    first.consists_of(4).await;
    for rig in [joiner, third, second, first] {
        rig.managed.stop().await.unwrap();
    }
}

/// Who was told so would empty its data, and the deciders enter it a moment later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_10_a_member_that_is_not_listed_yet_is_not_told_that_it_was_let_go() {
    let first = Rig::start_open("n1").await;
    first.node().bootstrap(BootstrapRequest::default()).await.unwrap();
    let mut cluster = ClusterClient::connect(first.plain()).await.unwrap();
    let peer_ur_ls = vec!["https://127.0.0.1:1".to_owned()];
    let add = pb::MemberAddRequest { peer_ur_ls, is_learner: true };
    let id = cluster.member_add(add).await.unwrap().into_inner().member.unwrap().id;
    let leave = |id: u64| LeaveAsk { version: 1, id: format!("{id:x}"), reason: String::new() };
    let why = first.node().leave("n2", leave(id)).await.unwrap_err();
    assert!(matches!(why, FleetError::Unavailable(_)), "{why:?}");
    // Of one that is in neither nothing is left to do.
    first.node().leave("n2", leave(id ^ 1)).await.unwrap();
    first.managed.stop().await.unwrap();
}

/// S0.12: in the registry, and never a member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_12_a_node_that_was_let_in_and_never_added_is_removed() {
    let first = Rig::first().await;
    let joiner = Rig::start("n2").await;
    let first = first.dies_while_joins(&joiner, "admitted").await;
    let first = Rig::back(first).await;
    eventually("it is listed", async || {
        let status = first.node().cluster_status().await;
        status.is_ok_and(|status| status.ready && status.members.len() == 2)
    })
    .await;
    first.node().remove(removal("n2", true)).await.unwrap();
    first.consists_of(1).await;
    for rig in [joiner, first] {
        rig.managed.stop().await.unwrap();
    }
}

/// Whose API is not there for a moment: a node that has just joined binds its port anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_12_a_node_that_refuses_once_is_asked_again_before_it_is_called_dead() {
    let first = Rig::first().await;
    let (second, mut third) = (Rig::start("n2").await, Rig::start("n3").await);
    second.join(&first.token("n2").await).await.unwrap();
    third.join(&first.token("n3").await).await.unwrap();
    let mut removed = Ok(());
    // On a busy machine it may be back too late.
    for _ in 0..5 {
        let address = third.settings.api_address("");
        let away = third.crash().await;
        let door = tokio::net::TcpListener::bind(&address).await.unwrap();
        let node = first.node().clone();
        let removing = tokio::spawn(async move { node.remove(removal("n3", false)).await });
        drop(door.accept().await.unwrap());
        drop(door);
        third = Rig::back(away).await;
        removed = removing.await.unwrap();
        if removed.is_ok() {
            break;
        }
    }
    removed.unwrap();
    first.consists_of(2).await;
    for rig in [third, second, first] {
        rig.managed.stop().await.unwrap();
    }
}

/// S0.12: whoever was just removed may join at once: what is left of its reset is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s0_12_a_node_that_is_being_reset_joins_again_when_that_is_done() {
    let first = Rig::first().await;
    let second = Rig::start("n2").await;
    second.join(&first.token("n2").await).await.unwrap();
    first.node().remove(removal("n2", false)).await.unwrap();
    eventually("it has heard of it", async || second.node().phase() != Phase::ControlPlane).await;
    second.join(&first.token("n2").await).await.unwrap();
    first.consists_of(2).await;
    for rig in [second, first] {
        rig.managed.stop().await.unwrap();
    }
}
