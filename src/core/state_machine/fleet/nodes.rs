//! Who belongs to the fleet: a token used up and a node entered in one step, and a node that leaves.

use bytes::Bytes;

use crate::api::ids::MemberId;
use crate::api::pb::internal::{FleetAdmit, FleetNode, FleetRole};
use crate::api::refusal::{Corrupt, FleetRefusal, Refusal};
use crate::api::reply::FleetReply;
use crate::api::view::View;
use crate::state_machine::StateMachine;
use crate::state_machine::changes::Changes;

use super::{FleetState, is_hash, node_key, put, require};

impl StateMachine {
    pub(super) fn admit_node(
        &mut self,
        view: &impl View,
        admit: &FleetAdmit,
        is_fenced: bool,
        changes: &mut Changes,
    ) -> Result<Result<FleetReply, Refusal>, Corrupt> {
        let node = match self.may_admit(admit, is_fenced) {
            Ok(node) => node,
            Err(refusal) => return Ok(Err(refusal.into())),
        };
        let mut write = self.write(view, changes);
        put(&mut write, node_key(MemberId(node.id)), node.record.clone())?;
        write.end();
        if !admit.token_hash.is_empty() {
            self.fleet.use_up(&admit.token_hash, changes);
        }
        self.fleet.enter(node.clone(), changes);
        Ok(Ok(FleetReply::Done))
    }

    fn may_admit<'a>(
        &self,
        admit: &'a FleetAdmit,
        is_fenced: bool,
    ) -> Result<&'a FleetNode, FleetRefusal> {
        let node = admit.node.as_ref().ok_or(FleetRefusal::Malformed)?;
        require(node.id != 0 && !node.name.is_empty())?;
        require(node.asked.is_empty() || is_hash(&node.asked) && !admit.token_hash.is_empty())?;
        let role = FleetRole::try_from(node.role).map_err(|_unknown| FleetRefusal::Malformed)?;
        let id = MemberId(node.id);
        if admit.token_hash.is_empty() {
            // A member that came by another way than a token: entered by whoever was elected, and by nobody else.
            require(is_fenced && role == FleetRole::ControlPlane)?;
            if !self.members.ids().any(|member| member == id) {
                return Err(FleetRefusal::NodeUnknown);
            }
        } else {
            match role {
                FleetRole::ControlPlane => require(!node.address.is_empty())?,
                FleetRole::Worker => {}
                FleetRole::Unspecified => return Err(FleetRefusal::Malformed),
            }
            self.fleet.check_token(&admit.token_hash, node, self.last_time_ms)?;
        }
        if self.members.removed().contains(&id) {
            return Err(FleetRefusal::IdTaken);
        }
        self.fleet.check_is_new(node)?;
        Ok(node)
    }

    /// Takes a node's record and key away, and every join token of its name. Whether it is still a member is not asked:
    /// who was admitted and never came is undone like this, too.
    pub(super) fn remove_node(
        &mut self,
        view: &impl View,
        id: MemberId,
        changes: &mut Changes,
    ) -> Result<FleetReply, FleetRefusal> {
        let node = self.fleet.nodes.remove(&id).ok_or(FleetRefusal::NodeUnknown)?;
        let mut write = self.write(view, changes);
        write.delete(node_key(id));
        write.end();
        self.fleet.write_node(id, changes);
        self.fleet.forget_tokens_of(&node.name, changes);
        Ok(FleetReply::Done)
    }
}

impl FleetState {
    /// Enters a node, without what its key says.
    pub(super) fn enter(&mut self, node: FleetNode, changes: &mut Changes) {
        let id = MemberId(node.id);
        self.nodes.insert(id, FleetNode { record: Bytes::new(), ..node });
        self.write_node(id, changes);
    }

    fn check_is_new(&self, node: &FleetNode) -> Result<(), FleetRefusal> {
        if self.nodes.contains_key(&MemberId(node.id)) {
            return Err(FleetRefusal::IdTaken);
        }
        if self.node_named(&node.name).is_some() {
            return Err(FleetRefusal::NameTaken);
        }
        let shares = |other: &FleetNode| other.address == node.address;
        if !node.address.is_empty() && self.nodes.values().any(shares) {
            return Err(FleetRefusal::AddressTaken);
        }
        Ok(())
    }
}
