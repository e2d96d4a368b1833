//! This node joins a fleet by a token.
//!
//! ```text
//!   token read ── noted ── keys ── a node of the fleet is asked: its authority fits the token? ── admitted, noted
//!        ── certificates, key ── member started ── it votes ── noted
//!   any failure: the fleet is asked to let it go, everything is undone
//! ```
//!
//! **Invariant:** the secret is sent to nobody who is not signed for by the authority that the token names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use quorate_core::api::ids::MemberId;
use tokio::time::{Instant, sleep, timeout};

use super::bootstrap::ready;
use super::certificates::{self, Subject};
use super::launcher::{Ending, InitialNode, MemberPlan, MemberState};
use super::life::{Node, within};
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
        let turn = match self.stage() {
            Stage::Uninitialised { .. } => self.take_turn()?,
            Stage::Member(_) | Stage::Worker(_) => {
                let name = self.tell_identity().name;
                return Err(FleetError::NodeInUse(name));
            }
            Stage::Bootstrapping { .. } | Stage::Joining { .. } | Stage::Resetting { .. } => {
                return Err(FleetError::Conflict(
                    "another change of this node is under way".to_owned(),
                ));
            }
            Stage::Stopping => return Err(FleetError::ShuttingDown),
        };
        let journey = Journey::check(self, &request)?;
        let limit = request.timeout.or(self.0.settings.timers.call);
        let node = self.clone();
        self.detached(async move {
            let _turn = turn;
            node.join_here(journey, limit).await
        })
        .await
    }

    async fn join_here(&self, journey: Journey, limit: Duration) -> Result<(), FleetError> {
        let (name, address) = (journey.name.clone(), journey.address.clone());
        tracing::info!(name, address, role = %journey.token.role, "joining a cluster");
        let mut noted = journey.noted();
        self.note(&Phase::Joining(noted.clone()))?;
        self.enter(Stage::Joining { name, address });
        self.0.steps.reach("joining").await?;
        let deadline = Instant::now() + limit;
        let joined = match journey.token.role {
            JoinRole::Worker => within(limit, "joining", self.join_as_worker(&journey)).await,
            JoinRole::ControlPlane => {
                let admitted = self.be_admitted(journey, &mut noted);
                match within(limit, "joining", admitted).await {
                    Ok(key) => self.settle_in(noted.clone(), key, Some(deadline)).await,
                    Err(why) => Err(why),
                }
            }
        };
        if let Err(why) = &joined {
            self.turn_back(&noted, why).await;
        }
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
        let admission: JoinAdmission = wire::ask_first(&token, "/internal/join", &[], &ask).await?;
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

    /// Starts the member of a node that was admitted, and waits until it votes.
    async fn settle_in(
        &self,
        noted: Joining,
        key: Arc<FleetKey>,
        deadline: Option<Instant>,
    ) -> Result<(), FleetError> {
        self.progress("join", "starting the member");
        let id = parse_id(noted.id.as_deref().unwrap_or_default())?;
        let plan = MemberPlan {
            uid: noted.uid.clone(),
            name: noted.name.clone(),
            address: noted.address.clone(),
            members: noted.members.clone(),
            joins: true,
        };
        let member = self.launch(plan).await?;
        let Joining { uid, name, address, members, .. } = noted;
        let seat = Seat { uid, name, address, id, member, key };
        let voting = async {
            ready(&seat.member).await?;
            self.progress("join", "catching up");
            self.0.steps.reach("catching up").await?;
            votes(&seat).await
        };
        let voting = match deadline {
            Some(deadline) => {
                let rest = deadline.saturating_duration_since(Instant::now());
                within(rest, "joining", voting).await
            }
            None => voting.await,
        };
        let noted = voting.and_then(|()| {
            self.note(&Phase::Member {
                uid: seat.uid.clone(),
                name: seat.name.clone(),
                address: seat.address.clone(),
                id: seat.id.to_string(),
                members,
            })
        });
        match noted {
            Ok(()) => {
                self.make_node_token()?;
                self.take_seat(seat);
                Ok(())
            }
            Err(why) => {
                // Told before its member is stopped: with it gone the fleet could lack the quorum to let it go.
                self.ask_to_leave(&seat.name, &seat.id.to_string(), &why).await;
                self.reset_here(&format!("join failed: {why}"), Some((&seat, Ending::Removed)))
                    .await;
                Err(why)
            }
        }
    }

    /// The fleet is asked to let this node go, if it had let it in; everything here is undone.
    async fn turn_back(&self, noted: &Joining, why: &FleetError) {
        tracing::warn!(error = %why, "joining failed; undoing it");
        if let Stage::Joining { .. } = self.stage() {
            if let Some(id) = &noted.id {
                self.ask_to_leave(&noted.name, id, why).await;
            }
            self.reset_here(&format!("join failed: {why}"), None).await;
        }
    }

    /// Asks one node after the other; whoever was not asked removes this node when it hears nothing of it.
    async fn ask_to_leave(&self, name: &str, id: &str, why: &FleetError) {
        let Ok(Phase::Joining(noted)) = self.0.directory.load() else { return };
        let ask = LeaveAsk { version: VERSION, id: id.to_owned(), reason: why.to_string() };
        for api in &noted.apis {
            let asked = wire::ask_node::<serde_json::Value>(
                &self.0.directory,
                api,
                Method::POST,
                "/internal/leave",
                Some(&ask),
            );
            match timeout(LEFT_WITHIN, asked).await {
                Ok(Ok(_answer)) => return,
                Ok(Err(why)) => {
                    tracing::warn!(name, api, error = %why, "the cluster does not let this node go")
                }
                Err(_elapsed) => tracing::warn!(name, api, "the cluster does not answer in time"),
            }
        }
    }

    /// Goes on with a join that a crash has cut short.
    pub(super) async fn resume_join(&self, noted: Joining) -> Result<(), FleetError> {
        let undone = "join was interrupted";
        let (Some(id), Ok(key)) = (noted.id.clone(), self.load_key()) else {
            self.reset_here(undone, None).await;
            return Ok(());
        };
        match self.is_listed(&noted, &id).await {
            Some(true) => {}
            Some(false) => {
                self.reset_here(undone, None).await;
                return Ok(());
            }
            None => {
                return Err(FleetError::Unavailable(
                    "this node was joining, and no node of the cluster answers whether it is listed"
                        .to_owned(),
                ));
            }
        }
        let limit = Instant::now() + self.0.settings.timers.call;
        if let Err(why) = self.settle_in(noted.clone(), key, Some(limit)).await {
            self.turn_back(&noted, &why).await;
        }
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
