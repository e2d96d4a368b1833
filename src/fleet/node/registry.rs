//! The fleet's keys that clients see of nodes, config and features: how they are read and written from here.
//!
//! ```text
//!   read    linearizable range ──> value, mod revision
//!   write   fleet command `txn`: mod revision as it was read? ── yes: put      no: read again
//! ```

use bytes::Bytes;
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_core::api::pb::etcdserverpb::request_op::Request;
use quorate_core::api::pb::internal::FleetRequest;
use quorate_core::api::pb::internal::fleet_request::Ask;
use quorate_core::api::pb::mvccpb::KeyValue;
use quorate_core::api::reply::FleetReply;
use serde::{Deserialize, Serialize};

use super::refusals::unexpected;
use crate::fleet::api::cluster::{ClusterRole, DatastoreRole};
use crate::fleet::error::FleetError;
use crate::keyspace::{Keyspace, KeyspaceError};

/// Where the config that clients see is kept; the origin's name for its shape is part of it.
pub const CONFIG_KEY: &str = "/k8sd/config/v1alpha2";
/// In front of what is told of features.
pub const FEATURES_PREFIX: &str = "/k8sd/features/";
/// In front of what is told of nodes, whose ids are in lower hex.
pub const NODES_PREFIX: &str = "/k8sd/nodes/";
/// The shape of the fleet's keys.
pub const SCHEMA_VERSION: u32 = 1;

/// What `/k8sd/nodes/<id>` says of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeRecord {
    /// Unique in the fleet.
    pub name: String,
    /// `host:port` of its API; of a worker that gave no port, what it gave.
    pub address: String,
    /// What it is for.
    pub role: ClusterRole,
    /// What it is in raft; absent for workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<DatastoreRole>,
    /// RFC 3339: when it was admitted.
    pub joined_at: String,
}

impl NodeRecord {
    /// As it is kept.
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("texts and words become JSON").into()
    }
}

/// The key of a node.
pub fn node_key(id: MemberId) -> String {
    format!("{NODES_PREFIX}{id}")
}

/// A key as of now for every member, or, `serializable`, as this one has it; `None`: there is no such key.
pub(super) async fn get(
    keyspace: &Keyspace,
    key: &str,
    serializable: bool,
) -> Result<Option<KeyValue>, KeyspaceError> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let request = pb::RangeRequest { key, serializable, ..Default::default() };
    Ok(keyspace.range(request).await?.kvs.into_iter().next())
}

/// Every key that begins with `prefix`, which ends with a slash.
pub(super) async fn list(
    keyspace: &Keyspace,
    prefix: &str,
) -> Result<Vec<KeyValue>, KeyspaceError> {
    debug_assert!(prefix.ends_with('/'), "`a/` never matches `ab`");
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("a prefix is not empty") += 1;
    let request = pb::RangeRequest {
        key: Bytes::copy_from_slice(prefix.as_bytes()),
        range_end: end.into(),
        ..Default::default()
    };
    Ok(keyspace.range(request).await?.kvs)
}

/// Puts `value` if the key still was last changed at `mod_revision` (0: if it is not there). Whether it did.
pub(super) async fn put_over(
    keyspace: &Keyspace,
    key: &str,
    mod_revision: i64,
    value: Vec<u8>,
) -> Result<bool, KeyspaceError> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let unchanged = pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(mod_revision)),
        ..Default::default()
    };
    let put = pb::PutRequest { key, value: value.into(), ..Default::default() };
    let txn = pb::TxnRequest {
        compare: vec![unchanged],
        success: vec![pb::RequestOp { request: Some(Request::RequestPut(put)) }],
        failure: Vec::new(),
    };
    let request = FleetRequest { fence: None, ask: Some(Ask::Txn(txn)) };
    match keyspace.fleet_change(request).await? {
        FleetReply::Txn(response) => Ok(response.succeeded),
        FleetReply::Done | FleetReply::Token { .. } | FleetReply::AuthToken { .. } => {
            Err(KeyspaceError::Unimplemented("an answer of another kind to a txn"))
        }
    }
}

/// Asks for a change whose answer is that it is done.
pub(super) async fn change(keyspace: &Keyspace, ask: Ask) -> Result<(), KeyspaceError> {
    let request = FleetRequest { fence: None, ask: Some(ask) };
    keyspace.fleet_change(request).await.map(drop)
}

/// A record of ours that does not read.
pub(super) fn parse<T: serde::de::DeserializeOwned>(kv: &KeyValue) -> Result<T, FleetError> {
    serde_json::from_slice(&kv.value).map_err(|why| {
        let key = String::from_utf8_lossy(&kv.key);
        unexpected(&format!("{key} does not read: {why}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_record_has_name_address_role_status_and_time() {
        let record = NodeRecord {
            name: "n1".to_owned(),
            address: "h:6400".to_owned(),
            role: ClusterRole::ControlPlane,
            status: Some(DatastoreRole::Pending),
            joined_at: "2026-11-22T10:00:00Z".to_owned(),
        };
        let text = String::from_utf8(record.encode().to_vec()).unwrap();
        assert_eq!(
            text,
            r#"{"name":"n1","address":"h:6400","role":"control-plane","status":"PENDING","joined-at":"2026-11-22T10:00:00Z"}"#
        );
        assert_eq!(serde_json::from_str::<NodeRecord>(&text).unwrap(), record);
        assert_eq!(node_key(MemberId(0xab)), "/k8sd/nodes/ab");
    }
}
