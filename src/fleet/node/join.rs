//! This node joins a fleet by a token.
//!
//! ```text
//!   token read ── noted ── keys ── a node of the fleet is asked: its authority fits the token? ── admitted, noted
//!        ── certificates, key ── member started, see `settle`
//!   any failure before: the fleet is asked to let it go, everything is undone
//! ```
//!
//! **Invariant:** the secret is sent to nobody who is not signed for by the authority that the token names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::certificates::{self, Subject};
use super::launcher::{InitialNode, MemberState};
use super::life::{Node, Turn, within};
use super::record::{Joining, Phase};
use super::refusals::unexpected;
use super::stage::Stage;
use super::tokens::secret;
use super::wire;
use crate::fleet::api::Sensitive;
use crate::fleet::api::cluster::JoinRequest;
use crate::fleet::api::internal::{JoinAdmission, JoinAsk, VERSION};
use crate::fleet::api::joining::{ControlPlaneJoinConfig, WorkerJoinConfig};
use crate::fleet::api::names::clean_name;
use crate::fleet::error::FleetError;
use crate::fleet::pki::{CertificateName, Pair};
use crate::fleet::seal::FleetKey;
use crate::fleet::tokens::{JoinRole, JoinToken};

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
            is_worker: self.token.role == JoinRole::Worker,
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
                let joined = self.join_as_worker(&journey, &mut noted);
                within(limit, "joining", joined).await.map(|()| None)
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
        let admission: JoinAdmission = wire::ask_again(&token, "/internal/join", &[], &ask).await?;
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
}

fn under_way() -> FleetError {
    FleetError::Conflict("another change of this node is under way".to_owned())
}
