//! A start goes on from where the node stood.
//!
//! ```text
//!   bootstrapping ── the fleet is in the log? ── yes: it is a member        no: undone
//!   joining ──────── admitted, and its member has run, or is listed, or nobody says? ── gone on with       else: undone
//!   member, worker ─ started                       resetting ── gone on with
//! ```

use std::sync::Arc;

use parking_lot::Mutex;
use quorate_core::api::ids::MemberId;

use super::bootstrap::ready;
use super::launcher::{Ending, MemberPlan, WorkerPlan};
use super::life::{Node, Turn, within};
use super::record::Phase;
use super::refusals::{of_keyspace, unexpected};
use super::stage::{Gate, Seat, Stage};
use crate::fleet::error::FleetError;
use crate::fleet::seal::FleetKey;

impl Node {
    /// Goes on from where the node stood when it was opened: since then it may have been asked for something already.
    /// Returns once what it runs was started; its member may have no leader yet.
    pub async fn resume(&self) -> Result<(), FleetError> {
        let phase = self.0.opened.clone();
        if let Phase::Uninitialised { .. } = phase {
            return Ok(());
        }
        let turn = self.take_turn()?;
        let node = self.clone();
        self.detached(async move { node.resume_here(phase, turn).await }).await
    }

    async fn resume_here(&self, phase: Phase, turn: Turn) -> Result<(), FleetError> {
        tracing::info!(phase = phase.word(), "going on from where this node stood");
        match phase {
            Phase::Uninitialised { .. } => {}
            Phase::Bootstrapping { uid, name, address } => {
                self.resume_bootstrap(uid, name, address).await?;
            }
            Phase::Joining(joining) => self.resume_join(joining, turn).await?,
            Phase::Member { uid, name, address, id, members } => {
                let key = self.load_key()?;
                let id = parse_id(&id)?;
                let plan = MemberPlan {
                    uid: uid.clone(),
                    name: name.clone(),
                    address: address.clone(),
                    joins: !members.is_empty(),
                    members,
                };
                let member = self.launch(plan).await?;
                self.take_seat(Seat { uid, name, address, id, member, key });
            }
            Phase::Worker { uid, name, address, id, apis, endpoints } => {
                let plan = WorkerPlan { name: name.clone(), address: address.clone(), endpoints };
                let worker = self.0.launcher.worker(plan).await;
                let worker = worker.map_err(|why| unexpected(&why.to_string()))?;
                let apis = Mutex::new(apis);
                let gate = Arc::new(Gate { uid, name, address, id, apis, worker });
                self.enter(Stage::Worker(Arc::clone(&gate)));
                self.attend_worker(gate);
            }
            Phase::Resetting { reason } => self.reset_here(&reason, None).await,
        }
        Ok(())
    }

    /// `node.json` says already that it is a member.
    pub(super) fn take_seat(&self, seat: Seat) {
        let seat = Arc::new(seat);
        self.enter(Stage::Member(Arc::clone(&seat)));
        self.attend(seat);
    }

    async fn resume_bootstrap(
        &self,
        uid: String,
        name: String,
        address: String,
    ) -> Result<(), FleetError> {
        let undone = "bootstrap was interrupted";
        let directory = &self.0.directory;
        let key = match FleetKey::load(&directory.fleet_key()) {
            Ok(key) if directory.member().exists() => Arc::new(key),
            Ok(_) | Err(_) => {
                self.reset_here(undone, None).await;
                return Ok(());
            }
        };
        let plan = MemberPlan {
            uid: uid.clone(),
            name: name.clone(),
            address: address.clone(),
            members: Vec::new(),
            joins: false,
        };
        let member = self.launch(plan).await?;
        let formed = async {
            ready(&member).await?;
            let found = member
                .keyspace()
                .fleet(|fleet| fleet.record().is_some_and(|record| record.uid == uid));
            found.await.map_err(of_keyspace)
        };
        let formed = within(self.0.settings.timers.call, "resuming a bootstrap", formed).await?;
        let id = member.keyspace().config().member_id;
        let seat = Seat { uid, name, address, id, member, key };
        match formed {
            true => self.sit(seat),
            false => {
                self.reset_here(undone, Some((&seat, Ending::Removed))).await;
                Ok(())
            }
        }
    }

    pub(super) fn load_key(&self) -> Result<Arc<FleetKey>, FleetError> {
        let key = FleetKey::load(&self.0.directory.fleet_key());
        key.map(Arc::new).map_err(|why| unexpected(&format!("fleet.key: {why}")))
    }
}

/// An id as etcdctl prints it.
pub(super) fn parse_id(text: &str) -> Result<MemberId, FleetError> {
    let id = u64::from_str_radix(text, 16);
    id.map(MemberId).map_err(|_| unexpected(&format!("{text:?} is no member id")))
}
