//! This node joins a fleet by a token.
//!
//! ```text
//!   token read ── noted ── keys ── a node of the fleet is asked: its authority fits the token? ── admitted, noted
//!        ── certificates, key ── member started ── it votes ── noted
//!   any failure: the fleet is asked to let it go, everything is undone
//!      └── the member was started, and nobody lets it go: it may have a vote, so it stays and asks again
//! ```
//!
//! **Invariant:** the secret is sent to nobody who is not signed for by the authority that the token names.
//! **Invariant:** the data of a member that was started are not emptied before the fleet has let it go: one that had a
//! vote and comes back with nothing could vote for a log that lacks what it has helped to agree on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use quorate_core::api::ids::MemberId;
use tokio::time::{Instant, sleep, timeout};

use super::bootstrap::ready;
use super::certificates::{self, Subject};
use super::launcher::{Ending, InitialNode, MemberPlan, MemberState};
use super::life::{Node, Turn, within};
use super::record::{Joining, Phase};
use super::refusals::unexpected;
use super::resume::parse_id;
use super::stage::{Seat, Stage};
use super::tokens::secret;
use super::wire::{self, Unanswered};
use crate::fleet::api::Sensitive;
use crate::fleet::api::cluster::JoinRequest;
use crate::fleet::api::internal::{JoinAdmission, JoinAsk, LeaveAsk, VERSION};
use crate::fleet::api::joining::{ControlPlaneJoinConfig, WorkerJoinConfig};
use crate::fleet::api::names::clean_name;
use crate::fleet::error::FleetError;
use crate::fleet::pki::{CertificateName, Pair};
use crate::fleet::seal::FleetKey;
use crate::fleet::tokens::{JoinRole, JoinToken};

/// Between two looks whether the member votes.
const LOOK: Duration = Duration::from_millis(100);

/// How long the fleet may take to let a node go again.
const LEFT_WITHIN: Duration = Duration::from_secs(10);

/// Between two tries to be let go.
const LEAVES_AGAIN: Duration = Duration::from_secs(2);

/// How long whoever has reset this node may take to give its turn back.
const FREE_WITHIN: Duration = Duration::from_secs(1);

/// A join that was checked as far as this node can.
pub(super) struct Journey {
    pub(super) token: JoinToken,
    pub(super) name: String,
    pub(super) address: String,
    pub(super) extra_sans: Vec<String>,
    supplied: BTreeMap<CertificateName, Pair>,
}

impl Journey {
    fn check(node: &Node, request: &JoinRequest) -> Result<Journey, FleetError> {
        let settings = &node.0.settings;
        let token = JoinToken::decode(&secret(&request.token));
        let token = token.map_err(|why| FleetError::JoinFailed(why.to_string()))?;
        let name = if request.name.is_empty() { &settings.name } else { &request.name };
        let (supplied, extra_sans) = match token.role {
            JoinRole::ControlPlane => {
                let config = ControlPlaneJoinConfig::parse(&request.config)?;
                let pairs =
                    certificates::supplied_pairs(config.supplied_server(), config.supplied_peer())?;
                (pairs, config.extra_sans.unwrap_or_default())
            }
            JoinRole::Worker => {
                WorkerJoinConfig::parse(&request.config)?;
                (BTreeMap::new(), Vec::new())
            }
        };
        Ok(Journey {
            token,
            name: clean_name(name)?,
            address: settings.api_address(&request.address),
            extra_sans,
            supplied,
        })
    }

    fn noted(&self) -> Joining {
        Joining {
            uid: self.token.uid.clone(),
            name: self.name.clone(),
            address: self.address.clone(),
            id: None,
            apis: self.token.addresses.clone(),
            members: Vec::new(),
        }
    }
}

impl Node {
    pub(super) async fn join_fleet(&self, request: JoinRequest) -> Result<(), FleetError> {
        let limit = request.timeout.or(self.0.settings.timers.call);
        within(limit, "the reset of this node", self.until_reset()).await?;
        self.refuse_if_part_of_something()?;
        let turn = timeout(FREE_WITHIN, Arc::clone(&self.0.turn).lock_owned()).await;
        let turn = turn.map_err(|_held| under_way())?;
        self.refuse_if_part_of_something()?;
        let journey = Journey::check(self, &request)?;
        let node = self.clone();
        self.detached(async move { node.join_here(journey, limit, turn).await }).await
    }

    /// Waits for a reset that is under way, or is about to begin.
    async fn until_reset(&self) -> Result<(), FleetError> {
        let mut stage = self.0.stage.subscribe();
        let leaves = |stage: &Stage| match stage {
            Stage::Resetting { .. } => true,
            Stage::Member(seat) => seat.member.state() == MemberState::Removed,
            Stage::Uninitialised { .. }
            | Stage::Bootstrapping { .. }
            | Stage::Joining { .. }
            | Stage::Worker(_)
            | Stage::Stopping => false,
        };
        stage.wait_for(|stage| !leaves(stage)).await.map_err(|_gone| FleetError::ShuttingDown)?;
        Ok(())
    }

    fn refuse_if_part_of_something(&self) -> Result<(), FleetError> {
        match self.stage() {
            Stage::Uninitialised { .. } => Ok(()),
            Stage::Member(_) | Stage::Worker(_) => {
                Err(FleetError::NodeInUse(self.tell_identity().name))
            }
            Stage::Bootstrapping { .. } | Stage::Joining { .. } | Stage::Resetting { .. } => {
                Err(under_way())
            }
            Stage::Stopping => Err(FleetError::ShuttingDown),
        }
    }

    async fn join_here(
        &self,
        journey: Journey,
        limit: Duration,
        turn: Turn,
    ) -> Result<(), FleetError> {
        let (name, address) = (journey.name.clone(), journey.address.clone());
        tracing::info!(name, address, role = %journey.token.role, "joining a cluster");
        let mut noted = journey.noted();
        self.note(&Phase::Joining(noted.clone()))?;
        self.enter(Stage::Joining { name, address });
        self.0.steps.reach("joining").await?;
        let deadline = Instant::now() + limit;
        let started = match journey.token.role {
            JoinRole::Worker => {
                within(limit, "joining", self.join_as_worker(&journey)).await.map(|()| None)
            }
            JoinRole::ControlPlane => {
                let admitted = within(limit, "joining", self.be_admitted(journey, &mut noted));
                match admitted.await {
                    Ok(key) => self.start_member(&noted, key).await.map(Some),
                    Err(why) => Err(why),
                }
            }
        };
        let joined = match started {
            Ok(Some(seat)) => self.settle_in(seat, noted.members, deadline, turn).await,
            Ok(None) => Ok(()),
            Err(why) => {
                self.turn_back(&noted, &why).await;
                Err(why)
            }
        };
        joined.map_err(|why| match why {
            FleetError::AnotherJoins
            | FleetError::TimedOut(_)
            | FleetError::ShuttingDown
            | FleetError::JoinFailed(_) => why,
            other => FleetError::JoinFailed(other.to_string()),
        })
    }

    /// Asks the nodes that the token names, in their order, until one has let this node in.
    async fn be_admitted(
        &self,
        journey: Journey,
        noted: &mut Joining,
    ) -> Result<Arc<FleetKey>, FleetError> {
        self.progress("join", "making keys");
        let settings = &self.0.settings;
        let Journey { token, name, address, extra_sans, supplied } = journey;
        let subject = Subject::of(settings, &name, &address, Some(&extra_sans));
        let missing: Vec<CertificateName> =
            CertificateName::ALL.into_iter().filter(|name| !supplied.contains_key(name)).collect();
        let asked = certificates::request(&subject, &missing)?;
        let ask = JoinAsk {
            version: VERSION,
            uid: token.uid.clone(),
            secret: Sensitive::new(token.secret.reveal()),
            name,
            address: address.clone(),
            peer_urls: vec![settings.peer_url(&address)],
            client_urls: vec![settings.client_url(&address)],
            csrs: asked.requests.clone(),
        };
        self.progress("join", "asking to be let in");
        let admission: JoinAdmission = wire::ask_again(&token, "/internal/join", &ask).await?;
        if admission.version != VERSION {
            let text = format!("version {} of joining is not known here", admission.version);
            return Err(FleetError::JoinFailed(text));
        }
        noted.id = Some(admission.id.clone());
        noted.members = admission
            .members
            .iter()
            .map(|member| InitialNode {
                // One that has not told its name yet is called by its id.
                name: match member.name.as_str() {
                    "" => member.id.clone(),
                    name => name.to_owned(),
                },
                peer_urls: member.peer_urls.clone(),
            })
            .collect();
        let key = FleetKey::from_base64(&secret(&admission.fleet_key));
        let key = key.map_err(|why| unexpected(&format!("the cluster's key: {why}")))?;
        key.store(&self.0.directory.fleet_key()).map_err(|why| unexpected(&why.to_string()))?;
        let directory = &self.0.directory;
        asked.install(directory, &admission.ca, &admission.certificates, supplied)?;
        self.note(&Phase::Joining(noted.clone()))?;
        self.0.steps.reach("let in").await?;
        Ok(Arc::new(key))
    }

    /// Starts the member of a node that was admitted.
    async fn start_member(&self, noted: &Joining, key: Arc<FleetKey>) -> Result<Seat, FleetError> {
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
    async fn settle_in(
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
    async fn turn_back(&self, noted: &Joining, why: &FleetError) {
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
        if self.is_listed(&noted, &id).await == Some(false) {
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

fn under_way() -> FleetError {
    FleetError::Conflict("another change of this node is under way".to_owned())
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
