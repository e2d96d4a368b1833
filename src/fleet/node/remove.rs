//! A node is taken out of the fleet.
//!
//! ```text
//!   asked of the node itself ── another one is asked to do it, if there is one
//!   else: a replica's ── is it not the last voter? ── does it answer, or is it forced? ── out of raft ── out of the registry
//!         a worker's  ── out of the registry
//!   the node itself hears of it by its member (or, a worker, by its key), and resets itself ── done, or waited enough
//! ```
//!
//! Raft's membership goes first: it alone can refuse. A registry that is behind is mended by the reconciler.

use std::time::Duration;

use http::Method;
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::internal::fleet_request::Ask;
use quorate_core::api::pb::internal::{FleetNode, FleetRole};
use quorate_core::api::refusal::{FleetRefusal, Refusal};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::life::Node;
use super::refusals::of_keyspace;
use super::registry::change;
use super::stage::{Seat, Stage};
use super::wire;
use crate::fleet::api::Nanos;
use crate::fleet::api::cluster::RemoveRequest;
use crate::fleet::api::names::clean_name;
use crate::fleet::api::server::EventKind;
use crate::fleet::error::FleetError;
use crate::keyspace::{Keyspace, KeyspaceError, MemberRefusal};

/// How long a node may take to show that it is there.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// How long one that is not forced is waited for until it has reset itself.
const RESETS_WITHIN: Duration = Duration::from_secs(10);

/// How long it may take to answer then, before it is left to itself.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// Between two tries while too few members are connected for the change.
const AGAIN: Duration = Duration::from_millis(200);

impl Node {
    pub(super) async fn remove_node(&self, request: RemoveRequest) -> Result<(), FleetError> {
        let seat = self.stage().seat()?;
        let name = clean_name(&request.name)?;
        let limit = request.timeout.or(self.0.settings.timers.call);
        let deadline = Instant::now() + limit;
        let read = seat.keyspace().fleet(|fleet| {
            (fleet.node_named(&name).cloned(), fleet.nodes().cloned().collect::<Vec<_>>())
        });
        let (found, nodes) = read.await.map_err(of_keyspace)?;
        let Some(leaving) = found else {
            return Err(FleetError::NodeNotInFleet(name));
        };
        if leaving.role != FleetRole::Worker as i32 {
            refuse_last_voter(&seat, MemberId(leaving.id))?;
        }
        if leaving.id == seat.id.0 {
            return self.have_removed(&nodes, &seat, request, deadline).await;
        }
        let node = self.clone();
        self.detached(
            async move { node.remove_other(&seat, &leaving, request.force, deadline).await },
        )
        .await
    }

    async fn remove_other(
        &self,
        seat: &Seat,
        leaving: &FleetNode,
        force: bool,
        deadline: Instant,
    ) -> Result<(), FleetError> {
        let id = MemberId(leaving.id);
        let is_worker = leaving.role == FleetRole::Worker as i32;
        tracing::info!(name = leaving.name, %id, force, "removing a node");
        if !is_worker {
            if !force && !self.answers(leaving).await {
                return Err(FleetError::Unavailable(format!(
                    "node {:?} does not answer at {}: if it will not come back, remove it with force",
                    leaving.name, leaving.address
                )));
            }
            out_of_raft(seat, id, deadline).await?;
            self.0.steps.reach("out of raft").await?;
        }
        forget(seat.keyspace(), id).await?;
        let told = json!({ "node": leaving.name, "change": "removed" });
        self.0.events.publish(EventKind::Lifecycle, told);
        if !force {
            let until = deadline.min(Instant::now() + RESETS_WITHIN);
            // It was removed all the same.
            let _in_time = timeout_at(until, self.until_it_is_reset(leaving)).await;
        }
        Ok(())
    }

    /// Returns once a node that was removed has nothing of the fleet any more, so that whoever asked finds it as it will
    /// be; at once if it does not answer.
    async fn until_it_is_reset(&self, node: &FleetNode) {
        loop {
            match timeout(HEARD_WITHIN, self.hear_of_itself(node)).await {
                Ok(Ok(_still_ours)) => sleep(AGAIN / 4).await,
                // Its certificates have gone.
                Ok(Err(why)) => {
                    return tracing::debug!(name = node.name, error = %why, "it is ours no more");
                }
                Err(_elapsed) => return,
            }
        }
    }

    /// Whoever is still a member afterwards does it.
    async fn have_removed(
        &self,
        nodes: &[FleetNode],
        seat: &Seat,
        request: RemoveRequest,
        deadline: Instant,
    ) -> Result<(), FleetError> {
        let others = nodes
            .iter()
            .filter(|node| node.id != seat.id.0 && node.role == FleetRole::ControlPlane as i32);
        let mut last = "there is no other node of the control plane".to_owned();
        for other in others {
            let rest = deadline.saturating_duration_since(Instant::now());
            let request = RemoveRequest { timeout: Nanos::from(rest), ..request.clone() };
            let asked = wire::ask_node::<serde_json::Value>(
                &self.0.directory,
                &other.address,
                Method::POST,
                "/1.0/k8sd/cluster/remove",
                Some(&request),
            );
            let answered = tokio::select! {
                answered = timeout(rest, asked) => answered,
                // Whoever does it waits for this, and its answer may come too late for whoever asked here.
                () = self.until_apart() => return Ok(()),
            };
            match answered {
                Ok(Ok(_done)) => return Ok(()),
                Ok(Err(why)) => last = format!("{}: {why}", other.name),
                Err(_elapsed) => return Err(FleetError::TimedOut("removing this node")),
            }
        }
        Err(FleetError::Unavailable(format!("this node cannot be removed by another one: {last}")))
    }

    async fn until_apart(&self) {
        let mut stage = self.0.stage.subscribe();
        // The sender is this node's own.
        let _apart = stage.wait_for(|stage| matches!(stage, Stage::Uninitialised { .. })).await;
    }

    /// One that has just joined binds its port anew, and refuses whoever comes in between.
    async fn answers(&self, node: &FleetNode) -> bool {
        let answered = async {
            loop {
                match self.hear_of_itself(node).await {
                    Ok(_) => return,
                    Err(why) => tracing::debug!(name = node.name, error = %why, "no answer"),
                }
                sleep(AGAIN).await;
            }
        };
        timeout(ANSWERS_WITHIN, answered).await.is_ok()
    }

    /// What a node says of itself to others of the fleet, as long as it is one of them.
    async fn hear_of_itself(
        &self,
        node: &FleetNode,
    ) -> Result<serde_json::Value, wire::Unanswered> {
        let path = "/1.0/k8sd/node";
        wire::ask_node(&self.0.directory, &node.address, Method::GET, path, None::<&()>).await
    }
}

/// Out of the registry; the deciders may have done it already.
pub(super) async fn forget(keyspace: &Keyspace, id: MemberId) -> Result<(), FleetError> {
    match change(keyspace, Ask::NodeRemove(id.0)).await {
        Ok(()) | Err(KeyspaceError::Refused(Refusal::Fleet(FleetRefusal::NodeUnknown))) => Ok(()),
        Err(why) => Err(of_keyspace(why)),
    }
}

/// Nobody could ever undo it.
fn refuse_last_voter(seat: &Seat, id: MemberId) -> Result<(), FleetError> {
    let keyspace = seat.keyspace();
    let members = keyspace.members();
    let mut voters =
        members.iter().filter(|member| keyspace.voters().contains(&MemberId(member.id)));
    match voters.all(|member| member.id == id.0) && keyspace.voters().contains(&id) {
        true => Err(FleetError::Invalid(
            "the last voter cannot be removed: its data would be lost".to_owned(),
        )),
        false => Ok(()),
    }
}

/// Out of raft's membership, leadership moved first; once it is not in there, it is done.
async fn out_of_raft(seat: &Seat, id: MemberId, deadline: Instant) -> Result<(), FleetError> {
    let keyspace = seat.keyspace();
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        match timeout(rest, keyspace.member_remove_for_fleet(id)).await {
            Ok(Ok(_members)) => return Ok(()),
            Ok(Err(
                KeyspaceError::MemberNotFound | KeyspaceError::Members(MemberRefusal::NotFound),
            )) => return Ok(()),
            // Whoever has just come or gone is not counted as connected for a while.
            Ok(Err(KeyspaceError::Members(MemberRefusal::Unhealthy)))
                if Instant::now() + AGAIN < deadline =>
            {
                sleep(AGAIN).await;
            }
            Ok(Err(why)) => return Err(of_keyspace(why)),
            Err(_elapsed) => return Err(FleetError::TimedOut("removing the member")),
        }
    }
}
