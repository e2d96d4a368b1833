//! The fleet begins: its records and the keys that clients are to see, in one revision, or nothing at all.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::api::ids::MemberId;
use crate::api::pb::internal::{FleetBootstrap, FleetNode, FleetRecord, FleetRole};
use crate::api::refusal::{Corrupt, FleetRefusal, Refusal};
use crate::api::reply::FleetReply;
use crate::api::view::View;
use crate::state_machine::StateMachine;
use crate::state_machine::changes::Changes;

use super::{
    CLUSTER_UID_KEY, SCHEMA_VERSION_KEY, is_authority, node_key, put, require, reserved,
    reserved_prefix,
};

impl StateMachine {
    pub(super) fn bootstrap(
        &mut self,
        view: &impl View,
        bootstrap: &FleetBootstrap,
        changes: &mut Changes,
    ) -> Result<Result<FleetReply, Refusal>, Corrupt> {
        let node = match self.may_begin(bootstrap) {
            Ok(node) => node,
            Err(refusal) => return Ok(Err(refusal.into())),
        };
        let id = MemberId(node.id);
        let mut write = self.write(view, changes);
        put(&mut write, SCHEMA_VERSION_KEY, bootstrap.schema_version.to_string())?;
        put(&mut write, node_key(id), node.record.clone())?;
        put(&mut write, CLUSTER_UID_KEY, bootstrap.uid.clone())?;
        for key in &bootstrap.keys {
            put(&mut write, key.key.clone(), key.value.clone())?;
        }
        write.end();
        self.fleet.record = Some(FleetRecord {
            uid: bootstrap.uid.clone(),
            schema_version: bootstrap.schema_version,
            authority: bootstrap.authority.clone(),
            capi_token: Bytes::new(),
        });
        self.fleet.write_record(changes);
        self.fleet.enter(node.clone(), changes);
        Ok(Ok(FleetReply::Done))
    }

    fn may_begin<'b>(&self, bootstrap: &'b FleetBootstrap) -> Result<&'b FleetNode, FleetRefusal> {
        if self.fleet.record.is_some() {
            return Err(FleetRefusal::AlreadyBootstrapped);
        }
        let node = check_shape(bootstrap)?;
        if reserved::in_use(&self.mvcc.index) {
            return Err(FleetRefusal::PrefixInUse);
        }
        Ok(node)
    }
}

/// All that a fleet begins with is there, and every key is the fleet's and is written once.
fn check_shape(bootstrap: &FleetBootstrap) -> Result<&FleetNode, FleetRefusal> {
    let node = bootstrap.node.as_ref().ok_or(FleetRefusal::Malformed)?;
    require(!bootstrap.uid.is_empty() && bootstrap.schema_version > 0)?;
    require(node.id != 0 && !node.name.is_empty() && !node.address.is_empty())?;
    require(node.role == FleetRole::ControlPlane as i32)?;
    require(bootstrap.authority.as_ref().is_some_and(is_authority))?;
    let mut written = BTreeSet::from([
        Bytes::from(SCHEMA_VERSION_KEY),
        Bytes::from(CLUSTER_UID_KEY),
        node_key(MemberId(node.id)),
    ]);
    let mut keys = bootstrap.keys.iter().map(|key| &key.key);
    require(keys.all(|key| reserved_prefix(key, b"").is_some() && written.insert(key.clone())))?;
    Ok(node)
}
