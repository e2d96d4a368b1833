//! A node that was let in takes its seat, or is let go again.
//!
//! ```text
//!   member started ── it votes ── noted
//!        └── no time left, or it fails: the fleet is asked to let it go ── done: everything is emptied
//!                                                                       └─ nobody answers: it runs, and asks again
//!   a start: the member has data, or is listed, or nobody says ── member started ── it votes ── noted
//!            it never ran, and is not listed, or it is a worker: emptied, and let go
//! ```
//!
//! **Invariant:** the data of a member that was started are not emptied before the fleet has let it go: one that had a
//! vote and comes back with nothing could vote for a log that lacks what it has helped to agree on.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use quorate_core::api::ids::MemberId;
use tokio::time::{Instant, sleep, timeout};

use super::bootstrap::ready;
use super::launcher::{Ending, InitialNode, MemberPlan, MemberState};
use super::life::{Node, Turn, within};
use super::record::{Joining, Phase};
use super::refusals::unexpected;
use super::resume::parse_id;
use super::stage::{Seat, Stage};
use super::wire::{self, Unanswered};
use crate::fleet::api::internal::{LeaveAsk, VERSION};
use crate::fleet::error::FleetError;
use crate::fleet::seal::FleetKey;

/// Between two looks whether the member votes.
const LOOK: Duration = Duration::from_millis(100);

/// How long the fleet may take to let a node go again.
const LEFT_WITHIN: Duration = Duration::from_secs(10);

/// Between two tries to be let go.
const LEAVES_AGAIN: Duration = Duration::from_secs(2);

impl Node {
    /// Starts the member of a node that was admitted.
    pub(super) async fn start_member(
        &self,
        noted: &Joining,
        key: Arc<FleetKey>,
    ) -> Result<Seat, FleetError> {
        self.progress("join", "starting the member");
        let id = parse_id(noted.id.as_deref().unwrap_or_default())?;
        let Joining { uid, name, address, members, .. } = noted.clone();
        let plan = MemberPlan {
            uid: uid.clone(),
            name: name.clone(),
            address: address.clone(),
            members,
            joins: true,
        };
        let member = self.launch(plan).await?;
        Ok(Seat { uid, name, address, id, member, key })
    }

    /// Waits until the member votes, at most until `deadline`; then it is asked for that it is let go.
    pub(super) async fn settle_in(
        &self,
        seat: Seat,
        members: Vec<InitialNode>,
        deadline: Instant,
        turn: Turn,
    ) -> Result<(), FleetError> {
        let rest = deadline.saturating_duration_since(Instant::now());
        let voting = within(rest, "joining", self.until_it_votes(&seat)).await;
        match voting.and_then(|()| self.note_seat(&seat, members)) {
            Ok(()) => self.take_new_seat(seat),
            Err(why) => {
                self.leave_again(seat, turn, &why).await;
                Err(why)
            }
        }
    }

    async fn until_it_votes(&self, seat: &Seat) -> Result<(), FleetError> {
        ready(&seat.member).await?;
        self.progress("join", "catching up");
        self.0.steps.reach("catching up").await?;
        votes(seat).await?;
        self.0.steps.reach("votes").await
    }

    fn note_seat(&self, seat: &Seat, members: Vec<InitialNode>) -> Result<(), FleetError> {
        self.note(&Phase::Member {
            uid: seat.uid.clone(),
            name: seat.name.clone(),
            address: seat.address.clone(),
            id: seat.id.to_string(),
            members,
        })
    }

    fn take_new_seat(&self, seat: Seat) -> Result<(), FleetError> {
        self.make_node_token()?;
        self.take_seat(seat);
        Ok(())
    }

    /// The fleet is asked to let a member go that was started, before it is stopped: with it gone the fleet could lack
    /// the quorum for that. Until it is let go it runs, and keeps what it has.
    async fn leave_again(&self, seat: Seat, turn: Turn, why: &FleetError) {
        let why = format!("join failed: {why}");
        if self.is_let_go(&seat, &why).await {
            return self.reset_here(&why, Some((&seat, Ending::Removed))).await;
        }
        tracing::warn!(
            name = seat.name,
            "joining failed, and the cluster has not let this node go"
        );
        let node = self.clone();
        self.spawn(async move {
            let _turn = turn;
            while !node.is_let_go(&seat, &why).await {
                match seat.member.state() {
                    MemberState::Starting | MemberState::Ready | MemberState::Removed => {}
                    MemberState::Failed(why) => return node.fail(why),
                    MemberState::Ended(_) => return,
                }
                sleep(LEAVES_AGAIN).await;
            }
            node.reset_here(&why, Some((&seat, Ending::Removed))).await;
        });
    }

    async fn is_let_go(&self, seat: &Seat, why: &str) -> bool {
        seat.member.state() == MemberState::Removed
            || self.ask_to_leave(&seat.name, &seat.id.to_string(), why).await
    }

    /// The fleet is asked to let this node go, if it had let it in; everything here is undone. Its member was not
    /// started.
    pub(super) async fn turn_back(&self, noted: &Joining, why: &FleetError) {
        if let Stage::Joining { .. } = self.stage() {
            tracing::warn!(error = %why, "joining failed; undoing it");
            if let Some(id) = &noted.id {
                self.ask_to_leave(&noted.name, id, &why.to_string()).await;
            }
            self.reset_here(&format!("join failed: {why}"), None).await;
        }
    }

    /// Asks one node after the other; whether one of them has let this node go. Whoever was not asked removes it when
    /// it hears nothing of it.
    async fn ask_to_leave(&self, name: &str, id: &str, why: &str) -> bool {
        let Ok(Phase::Joining(noted)) = self.0.directory.load() else { return false };
        let ask = LeaveAsk { version: VERSION, id: id.to_owned(), reason: why.to_owned() };
        for api in &noted.apis {
            let asked = wire::ask_node::<serde_json::Value>(
                &self.0.directory,
                api,
                Method::POST,
                "/internal/leave",
                Some(&ask),
            );
            match timeout(LEFT_WITHIN, asked).await {
                Ok(Ok(_answer)) => return true,
                Ok(Err(why)) => {
                    tracing::warn!(name, api, error = %why, "the cluster does not let this node go")
                }
                Err(_elapsed) => tracing::warn!(name, api, "the cluster does not answer in time"),
            }
        }
        false
    }

    /// Goes on with a join that a crash has cut short. One that was let in stays until it votes or the fleet lets it go:
    /// its vote may be the one that the others lack for telling it anything.
    pub(super) async fn resume_join(&self, noted: Joining, turn: Turn) -> Result<(), FleetError> {
        let undone = "join was interrupted";
        let Some(id) = noted.id.clone() else {
            self.reset_here(undone, None).await;
            return Ok(());
        };
        if noted.is_worker {
            self.turn_back(&noted, &FleetError::JoinFailed(undone.to_owned())).await;
            return Ok(());
        }
        // One that has run hears from the others if it was removed, and they may wait for it.
        let has_run = self.0.directory.member().exists();
        if !has_run && self.is_listed(&noted, &id).await == Some(false) {
            self.reset_here(undone, None).await;
            return Ok(());
        }
        let key = self.load_key()?;
        let seat = self.start_member(&noted, key).await?;
        let node = self.clone();
        self.spawn(async move {
            let voting = node.until_it_votes(&seat).await;
            let seated = match voting.and_then(|()| node.note_seat(&seat, noted.members)) {
                Ok(()) => node.take_new_seat(seat),
                Err(FleetError::ShuttingDown) => Ok(()),
                Err(why) => {
                    node.leave_again(seat, turn, &why).await;
                    Ok(())
                }
            };
            if let Err(why) = seated {
                node.fail(why.to_string());
            }
        });
        Ok(())
    }

    /// Whether the fleet lists this node; `None`: nobody says.
    async fn is_listed(&self, noted: &Joining, id: &str) -> Option<bool> {
        for api in &noted.apis {
            let told = wire::ask_node::<crate::fleet::api::cluster::ClusterStatus>(
                &self.0.directory,
                api,
                Method::GET,
                "/1.0/k8sd/cluster",
                None::<&()>,
            );
            let told: Result<_, Unanswered> = match timeout(LEFT_WITHIN, told).await {
                Ok(told) => told,
                Err(_elapsed) => continue,
            };
            if let Ok(status) = told
                && let Some(membership) = status.membership
                && status.ready
            {
                return Some(membership.nodes.iter().any(|node| node.id == id));
            }
        }
        None
    }
}

/// Waits until the member has its vote, by what it has applied itself.
async fn votes(seat: &Seat) -> Result<(), FleetError> {
    let id: MemberId = seat.id;
    loop {
        if seat.keyspace().voters().contains(&id) && seat.keyspace().ready().await.is_ok() {
            return Ok(());
        }
        match seat.member.state() {
            MemberState::Ready | MemberState::Starting => {}
            MemberState::Removed => {
                return Err(FleetError::JoinFailed("the node was removed again".to_owned()));
            }
            MemberState::Failed(why) => return Err(unexpected(&why)),
            MemberState::Ended(_) => return Err(FleetError::ShuttingDown),
        }
        sleep(LOOK).await;
    }
}
