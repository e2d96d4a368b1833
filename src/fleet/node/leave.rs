//! A node takes itself out again: one that was let in and did not get going.

use quorate_core::api::ids::MemberId;

use super::life::Node;
use super::refusals::of_keyspace;
use super::remove::forget;
use super::resume::parse_id;
use crate::fleet::api::internal::{LeaveAsk, VERSION};
use crate::fleet::error::FleetError;

impl Node {
    /// Takes the node `who`, which asks for itself, out of raft's membership and out of the registry.
    pub(super) async fn let_go(&self, who: &str, ask: LeaveAsk) -> Result<(), FleetError> {
        let seat = self.stage().seat()?;
        if ask.version != VERSION {
            let text = format!("version {} of leaving is not known here", ask.version);
            return Err(FleetError::Invalid(text));
        }
        let id: MemberId = parse_id(&ask.id).map_err(|why| FleetError::Invalid(why.to_string()))?;
        let read = seat.keyspace().fleet(|fleet| fleet.node(id).cloned());
        let listed = read.await.map_err(of_keyspace)?;
        let is_member = seat.keyspace().members().iter().any(|member| member.id == id.0);
        let Some(node) = listed else {
            // The deciders enter it, or it has gone.
            return match is_member {
                true => Err(FleetError::Unavailable("it is not in the registry yet".to_owned())),
                false => Ok(()),
            };
        };
        if node.name != who {
            let text = format!("the node of this id is not {who}");
            return Err(FleetError::Forbidden(text));
        }
        tracing::info!(name = node.name, %id, reason = ask.reason, "a node leaves");
        let leaving = self.clone();
        self.detached(async move {
            let keyspace = seat.keyspace();
            if keyspace.members().iter().any(|member| member.id == id.0) {
                keyspace.member_remove_for_fleet(id).await.map_err(of_keyspace)?;
            }
            leaving.0.steps.reach("left raft").await?;
            forget(keyspace, id).await
        })
        .await
    }
}
