//! A fleet begins with this node.
//!
//! ```text
//!   checked ── noted ── key, certificates ── member started ── leader ── ONE entry: the fleet ── noted
//!      │                      any failure: all of it is undone              │
//!      └ nothing is made before                     a start in between: finished if the entry is there, else undone
//! ```

use std::sync::Arc;

use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::internal::fleet_request::Ask;
use quorate_core::api::pb::internal::{
    FleetAuthority, FleetBootstrap, FleetKey as KeyPair, FleetNode, FleetRole,
};

use super::certificates::{self, Subject};
use super::launcher::{Ending, MemberPlan, MemberState, RunningMember};
use super::life::{Node, within};
use super::record::Phase;
use super::refusals::{of_keyspace, unexpected};
use super::registry::{CONFIG_KEY, NodeRecord, SCHEMA_VERSION, change};
use super::stage::{Seat, Stage};
use crate::fleet::api::bootstrap::BootstrapConfig;
use crate::fleet::api::cluster::{BootstrapRequest, ClusterRole, DatastoreRole, NodeStatus};
use crate::fleet::api::names::clean_name;
use crate::fleet::api::stored::{ClusterConfig, Ports};
use crate::fleet::error::FleetError;
use crate::fleet::seal::FleetKey;
use crate::support::clock::{rfc3339_seconds, unix_micros};

/// What a fleet is to begin with, checked and with every default in place.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// Drawn for this fleet.
    uid: String,
    name: String,
    address: String,
    config: Box<BootstrapConfig>,
    stored: Box<ClusterConfig>,
    /// Further keys under reserved prefixes.
    keys: Vec<(String, Vec<u8>)>,
}

impl Node {
    /// Checks what is asked for; nothing is made. `keys` are put, under reserved prefixes, together with the fleet's.
    pub fn check_beginning(
        &self,
        request: &BootstrapRequest,
        keys: Vec<(String, Vec<u8>)>,
    ) -> Result<Beginning, FleetError> {
        let settings = &self.0.settings;
        request.config.refuse_not_ours()?;
        let name = if request.name.is_empty() { &settings.name } else { &request.name };
        let ports = Ports { client: settings.client_port, peer: settings.peer_port };
        let stored = ClusterConfig::from_bootstrap(&request.config, ports)?;
        certificates::check_supplied(&request.config)?;
        Ok(Beginning {
            uid: uuid::Uuid::new_v4().to_string(),
            name: clean_name(name)?,
            address: settings.api_address(&request.address),
            config: Box::new(request.config.clone()),
            stored: Box::new(stored),
            keys,
        })
    }

    /// Forms a fleet of this node.
    pub async fn begin(
        &self,
        beginning: Beginning,
        limit: std::time::Duration,
    ) -> Result<NodeStatus, FleetError> {
        let turn = self.take_turn()?;
        match self.stage() {
            Stage::Uninitialised { .. } => {}
            Stage::Member(_) | Stage::Worker(_) | Stage::Bootstrapping { .. } => {
                return Err(FleetError::AlreadyBootstrapped);
            }
            Stage::Joining { .. } | Stage::Resetting { .. } => {
                return Err(FleetError::Conflict("this node is joining or leaving".to_owned()));
            }
            Stage::Stopping => return Err(FleetError::ShuttingDown),
        }
        let node = self.clone();
        self.detached(async move {
            let _turn = turn;
            node.begin_here(beginning, limit).await
        })
        .await
    }

    async fn begin_here(
        &self,
        beginning: Beginning,
        limit: std::time::Duration,
    ) -> Result<NodeStatus, FleetError> {
        let (name, address) = (beginning.name.clone(), beginning.address.clone());
        let uid = beginning.uid.clone();
        tracing::info!(name, address, uid, "forming a cluster");
        self.enter(Stage::Bootstrapping { name: name.clone(), address: address.clone() });
        self.note(&Phase::Bootstrapping { uid, name, address })?;
        let mut started = None;
        let formed = Box::pin(self.form(beginning, &mut started));
        match within(limit, "bootstrap", formed).await {
            Ok(seat) => {
                let status = NodeStatus {
                    name: seat.name.clone(),
                    address: seat.address.clone(),
                    cluster_role: Some(ClusterRole::ControlPlane),
                    datastore_role: Some(DatastoreRole::Voter),
                };
                self.sit(seat)?;
                Ok(status)
            }
            Err(why) => {
                tracing::warn!(error = %why, "forming a cluster failed; undoing it");
                if let Some(member) = started
                    && let Err(why) = RunningMember::stop(&member, Ending::Removed).await
                {
                    tracing::warn!(error = %why, "stopping the member failed");
                }
                self.reset_here(&format!("bootstrap failed: {why}"), None).await;
                Err(why)
            }
        }
    }

    async fn form(
        &self,
        beginning: Beginning,
        started: &mut Option<RunningMember>,
    ) -> Result<Seat, FleetError> {
        let steps = &self.0.steps;
        steps.reach("noted").await?;
        self.progress("bootstrap", "making certificates");
        let key = FleetKey::generate();
        key.store(&self.0.directory.fleet_key()).map_err(|why| unexpected(&why.to_string()))?;
        self.make_node_token()?;
        steps.reach("key").await?;
        let Beginning { uid, name, address, config, stored, keys } = beginning;
        let subject = Subject::of(&self.0.settings, &name, &address, config.extra_sans.as_deref());
        let authority = certificates::begin(&self.0.directory, &key, &uid, &subject, &config)?;
        steps.reach("certificates").await?;
        self.progress("bootstrap", "starting the member");
        let plan = MemberPlan {
            uid: uid.clone(),
            name: name.clone(),
            address: address.clone(),
            members: Vec::new(),
            joins: false,
        };
        let member = self.launch(plan).await?;
        *started = Some(member.clone());
        steps.reach("started").await?;
        ready(&member).await?;
        steps.reach("ready").await?;
        self.progress("bootstrap", "writing the cluster's records");
        let id = member.keyspace().config().member_id;
        let fleet = fleet(&uid, id, &name, &address, authority, &stored, keys);
        change(member.keyspace(), Ask::Bootstrap(fleet)).await.map_err(of_keyspace)?;
        steps.reach("agreed").await?;
        Ok(Seat { uid, name, address, id, member, key: Arc::new(key) })
    }

    pub(super) async fn launch(&self, plan: MemberPlan) -> Result<RunningMember, FleetError> {
        let launched = self.0.launcher.member(plan).await;
        let member =
            launched.map_err(|why| unexpected(&format!("the member does not start: {why}")))?;
        *self.0.launched.lock() = Some(member.clone());
        Ok(member)
    }

    /// From now on this node is a member.
    pub(super) fn sit(&self, seat: Seat) -> Result<(), FleetError> {
        self.note(&Phase::Member {
            uid: seat.uid.clone(),
            name: seat.name.clone(),
            address: seat.address.clone(),
            id: seat.id.to_string(),
            members: Vec::new(),
        })?;
        let seat = Arc::new(seat);
        self.enter(Stage::Member(Arc::clone(&seat)));
        self.attend(seat);
        Ok(())
    }
}

/// Waits until clients are served.
pub(super) async fn ready(member: &RunningMember) -> Result<(), FleetError> {
    match member.leaves(|state| *state == MemberState::Starting).await {
        MemberState::Ready => Ok(()),
        MemberState::Removed => Err(unexpected("the member was removed from its cluster")),
        MemberState::Failed(why) => Err(unexpected(&format!("the member failed: {why}"))),
        MemberState::Ended(_) | MemberState::Starting => Err(FleetError::ShuttingDown),
    }
}

fn fleet(
    uid: &str,
    id: MemberId,
    name: &str,
    address: &str,
    authority: FleetAuthority,
    stored: &ClusterConfig,
    keys: Vec<(String, Vec<u8>)>,
) -> FleetBootstrap {
    let record = NodeRecord {
        name: name.to_owned(),
        address: address.to_owned(),
        role: ClusterRole::ControlPlane,
        status: Some(DatastoreRole::Voter),
        joined_at: now(),
    };
    let config = (CONFIG_KEY.to_owned(), stored.to_bytes());
    let key = |(key, value): (String, Vec<u8>)| KeyPair { key: key.into(), value: value.into() };
    FleetBootstrap {
        uid: uid.to_owned(),
        schema_version: SCHEMA_VERSION,
        node: Some(FleetNode {
            id: id.0,
            name: name.to_owned(),
            address: address.to_owned(),
            role: FleetRole::ControlPlane as i32,
            record: record.encode(),
            ..FleetNode::default()
        }),
        authority: Some(authority),
        keys: std::iter::once(config).chain(keys).map(key).collect(),
    }
}

/// RFC 3339, in whole seconds.
pub(super) fn now() -> String {
    rfc3339_seconds(unix_micros() / 1_000_000)
}
