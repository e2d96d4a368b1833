//! One look at the fleet, from where this member stands.
//!
//! Members are looked at before the registry: who is let in is entered before it is added, so that no joiner is taken
//! for a stray.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::internal::{FleetAuthority, FleetNode, FleetRole};
use quorate_core::api::pb::mvccpb::KeyValue;
use quorate_core::state_machine::fleet::NODES_PREFIX;
use serde_json::{Map, Value};

use super::{View, authority};
use crate::fleet::plan::{Following, Listed, Replica, Seen, Standing, Vote};
use crate::keyspace::{Keyspace, KeyspaceError};

/// A look, and what it was made of where a step has to go on from there.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    pub(super) seen: Seen,
    /// What the keys of nodes say, by id.
    pub(super) shown: BTreeMap<MemberId, Shown>,
    /// The registry, by id.
    pub(super) nodes: BTreeMap<MemberId, FleetNode>,
    /// The fleet's authorities as they were then, and its UUID.
    pub(super) authority: Option<(FleetAuthority, String)>,
}

/// The key of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    /// When it was last put.
    pub(super) mod_revision: i64,
    /// What it says; empty if it does not read.
    pub(super) record: Map<String, Value>,
}

/// Looks; `None`: there is no fleet.
pub(super) async fn look(view: View<'_>) -> Result<Option<Look>, KeyspaceError> {
    let keyspace = view.keyspace;
    let members = replicas(keyspace);
    let removed: BTreeSet<MemberId> = keyspace.roster().borrow().removed.clone();
    let read = keyspace.fleet(|fleet| {
        let begun = fleet.record()?;
        let authority = begun.authority.clone().map(|authority| (authority, begun.uid.clone()));
        Some((authority, fleet.nodes().cloned().collect::<Vec<FleetNode>>()))
    });
    let Some((authority, nodes)) = read.await? else {
        return Ok(None);
    };
    let shown = shown(keyspace).await?;
    let listed = nodes.iter().map(|node| listed(node, shown.get(&MemberId(node.id))));
    let turn = authority.as_ref().zip(view.key).and_then(|((authority, uid), key)| {
        authority::turn(authority, key, uid, &nodes, &members, &shown)
    });
    let seen = Seen { nodes: listed.collect(), members, removed, authority: turn };
    let nodes = nodes.into_iter().map(|node| (MemberId(node.id), node)).collect();
    Ok(Some(Look { seen, shown, nodes, authority }))
}

/// Raft's members as applied here, and how they do if this member can know.
pub(super) fn replicas(keyspace: &Keyspace) -> Vec<Replica> {
    let voters = keyspace.voters();
    let replica = |member: pb::Member| {
        let id = MemberId(member.id);
        let vote = match (voters.contains(&id), member.is_learner) {
            (true, _) => Vote::Held,
            (false, false) => Vote::Promised,
            (false, true) => Vote::None,
        };
        let followed = keyspace.followed(id).map(|followed| Following {
            has_answered: followed.has_answered,
            is_in_sync: followed.is_in_sync,
        });
        Replica { id, name: member.name, vote, followed }
    };
    keyspace.members().into_iter().map(replica).collect()
}

fn listed(node: &FleetNode, shown: Option<&Shown>) -> Listed {
    let status = shown.and_then(|shown| shown.record.get("status")?.as_str());
    Listed {
        id: MemberId(node.id),
        name: node.name.clone(),
        address: node.address.clone(),
        is_worker: node.role == FleetRole::Worker as i32,
        shown: status.and_then(Standing::of_word),
    }
}

async fn shown(keyspace: &Keyspace) -> Result<BTreeMap<MemberId, Shown>, KeyspaceError> {
    let mut end = NODES_PREFIX.as_bytes().to_vec();
    // The prefix ends with a slash: the next byte ends its range.
    *end.last_mut().expect("a prefix is not empty") += 1;
    let request = pb::RangeRequest {
        key: Bytes::from_static(NODES_PREFIX.as_bytes()),
        range_end: end.into(),
        ..pb::RangeRequest::default()
    };
    let found = keyspace.range(request).await?;
    Ok(found.kvs.iter().filter_map(|kv| Some((id_of(kv)?, said(kv)))).collect())
}

/// The node that a key is of; `None`: it is not of our making.
fn id_of(kv: &KeyValue) -> Option<MemberId> {
    let id = kv.key.strip_prefix(NODES_PREFIX.as_bytes())?;
    u64::from_str_radix(std::str::from_utf8(id).ok()?, 16).ok().map(MemberId)
}

fn said(kv: &KeyValue) -> Shown {
    let record = serde_json::from_slice(&kv.value).unwrap_or_default();
    Shown { mod_revision: kv.mod_revision, record }
}
