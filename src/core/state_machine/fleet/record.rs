//! The fleet's records beside history, and back.

use bytes::Bytes;
use prost::Message;

use crate::api::batch::Space;
use crate::api::ids::MemberId;
use crate::api::pb::internal::{FleetAuthTokenIssue, FleetNode, FleetRecord, FleetTokenIssue};
use crate::api::refusal::Corrupt;
use crate::state_machine::changes::Changes;
use crate::state_machine::records::{decode, member_key};

use super::FleetState;

impl FleetState {
    pub(super) fn write_record(&self, changes: &mut Changes) {
        changes.record(Space::Fleet, Bytes::new(), self.record.as_ref().map(encode));
    }

    /// The node as it is now, or that it is gone.
    pub(super) fn write_node(&self, id: MemberId, changes: &mut Changes) {
        changes.record(Space::FleetNode, member_key(id.0), self.nodes.get(&id).map(encode));
    }

    /// The token as it is now, or that it is gone.
    pub(super) fn write_join_token(&self, hash: &Bytes, changes: &mut Changes) {
        changes.record(Space::JoinToken, hash.clone(), self.join_tokens.get(hash).map(encode));
    }

    /// The token as it is now, or that it is gone.
    pub(super) fn write_auth_token(&self, hash: &Bytes, changes: &mut Changes) {
        changes.record(Space::AuthToken, hash.clone(), self.auth_tokens.get(hash).map(encode));
    }

    /// Every record; none as long as there is no fleet.
    pub(crate) fn records(&self) -> impl Iterator<Item = (Space, Bytes, Bytes)> {
        let own = self.record.iter().map(|own| (Space::Fleet, Bytes::new(), encode(own)));
        let nodes = self.nodes.iter();
        let nodes = nodes.map(|(id, node)| (Space::FleetNode, member_key(id.0), encode(node)));
        let join = self.join_tokens.iter();
        let join = join.map(|(hash, token)| (Space::JoinToken, hash.clone(), encode(token)));
        let auth = self.auth_tokens.iter();
        let auth = auth.map(|(hash, token)| (Space::AuthToken, hash.clone(), encode(token)));
        own.chain(nodes).chain(join).chain(auth)
    }

    pub(crate) fn restore(&mut self, value: &[u8]) -> Result<(), Corrupt> {
        self.record = Some(decode::<FleetRecord>("fleet record", value)?);
        Ok(())
    }

    pub(crate) fn restore_node(&mut self, value: &[u8]) -> Result<(), Corrupt> {
        let node = decode::<FleetNode>("fleet node", value)?;
        self.nodes.insert(MemberId(node.id), node);
        Ok(())
    }

    pub(crate) fn restore_join_token(&mut self, value: &[u8]) -> Result<(), Corrupt> {
        let token = decode::<FleetTokenIssue>("join token", value)?;
        self.join_tokens.insert(token.hash.clone(), token);
        Ok(())
    }

    pub(crate) fn restore_auth_token(&mut self, value: &[u8]) -> Result<(), Corrupt> {
        let token = decode::<FleetAuthTokenIssue>("user's token", value)?;
        self.auth_tokens.insert(token.hash.clone(), token);
        Ok(())
    }
}

fn encode(record: &impl Message) -> Bytes {
    record.encode_to_vec().into()
}
