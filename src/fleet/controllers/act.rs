//! A step is done: by a fenced command of the log where the registry is concerned, by raft's leader where its members are.
//!
//! Raft's membership knows no fence. So whoever is about to change it asks the log first whether it is still elected, and
//! looks again: what is left to chance is a moment, and a change that any decider would make from the same look.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_core::api::pb::etcdserverpb::request_op::Request as Op;
use quorate_core::api::pb::internal::fleet_request::Ask;
use quorate_core::api::pb::internal::{FleetAdmit, FleetNode, FleetRequest, FleetRole};
use quorate_core::api::refusal::{FleetRefusal, Refusal};
use quorate_core::api::reply::FleetReply;
use quorate_core::state_machine::fleet::node_key;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::View;
use super::authority;
use super::lead::Lead;
use super::observe::{Look, replicas};
use crate::fleet::pki::Authorities;
use crate::fleet::plan::{Standing, Step};
use crate::keyspace::{Keyspace, KeyspaceError, MemberRefusal};
use crate::support::clock::{rfc3339_seconds, unix_micros};

/// A change of the members that takes longer is tried again at another look.
const CHANGED_WITHIN: Duration = Duration::from_secs(10);

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// Things have moved on, so that it is not to be done any more, or not yet.
    Moot(String),
    /// It was not done, or nobody knows; it is planned again if it is still right then.
    Failed(String),
    /// Whoever asked is not elected any more.
    Deposed,
}

/// Does a step that was planned from `look`.
pub(super) async fn act(view: View<'_>, lead: &dyn Lead, look: &Look, step: &Step) -> Outcome {
    let keyspace = view.keyspace;
    if !lead.is_held() {
        return Outcome::Deposed;
    }
    let done = match step {
        Step::Forget(id) => change(keyspace, lead, Ask::NodeRemove(id.0)).await,
        Step::Adopt { id, name, standing } => {
            change(keyspace, lead, adoption(*id, name, *standing)).await
        }
        Step::Show(id, standing) => show(keyspace, lead, look, *id, *standing).await,
        Step::Promote(id) => promote(keyspace, lead, *id).await,
        Step::Expel(id) => return expel(keyspace, lead, *id).await,
        Step::Succeed => return authority::advance(view, lead, look, Authorities::promote).await,
        Step::Retire => return authority::advance(view, lead, look, Authorities::retire).await,
    };
    done.map_or_else(outcome, |()| Outcome::Done)
}

pub(super) fn outcome(error: KeyspaceError) -> Outcome {
    match error {
        KeyspaceError::Refused(Refusal::Fleet(FleetRefusal::FenceLost)) => Outcome::Deposed,
        KeyspaceError::Refused(Refusal::Fleet(
            why @ (FleetRefusal::NodeUnknown
            | FleetRefusal::GenerationMoved
            | FleetRefusal::IdTaken
            | FleetRefusal::NameTaken
            | FleetRefusal::AddressTaken),
        )) => Outcome::Moot(format!("{why:?}")),
        KeyspaceError::Members(
            why @ (MemberRefusal::LearnerNotReady
            | MemberRefusal::NotLearner
            | MemberRefusal::NotFound),
        ) => Outcome::Moot(format!("{why:?}")),
        other => Outcome::Failed(other.to_string()),
    }
}

pub(super) async fn change(
    keyspace: &Keyspace,
    lead: &dyn Lead,
    ask: Ask,
) -> Result<(), KeyspaceError> {
    let request = FleetRequest { fence: Some(lead.fence()), ask: Some(ask) };
    keyspace.fleet_change(request).await.map(drop)
}

/// A member that came another way than by a token.
fn adoption(id: MemberId, name: &str, standing: Standing) -> Ask {
    let node = FleetNode {
        id: id.0,
        name: name.to_owned(),
        address: String::new(),
        role: FleetRole::ControlPlane as i32,
        record: encode(&record(name, "", standing)),
        ..FleetNode::default()
    };
    Ask::Admit(FleetAdmit { token_hash: Bytes::new(), node: Some(node) })
}

/// What the key of a node says that has said nothing.
fn record(name: &str, address: &str, standing: Standing) -> Map<String, Value> {
    let joined_at = rfc3339_seconds(unix_micros() / 1_000_000);
    let record = json!({
        "name": name,
        "address": address,
        "role": "control-plane",
        "status": standing.as_str(),
        "joined-at": joined_at,
    });
    match record {
        Value::Object(record) => record,
        other => Map::from_iter([("record".to_owned(), other)]),
    }
}

fn encode(record: &Map<String, Value>) -> Bytes {
    serde_json::to_vec(record).expect("texts become JSON").into()
}

/// Puts the node's key with another status, everything else as it was, if nobody has changed it since it was seen.
async fn show(
    keyspace: &Keyspace,
    lead: &dyn Lead,
    look: &Look,
    id: MemberId,
    standing: Standing,
) -> Result<(), KeyspaceError> {
    let Some(node) = look.nodes.get(&id) else {
        return Err(Refusal::Fleet(FleetRefusal::NodeUnknown).into());
    };
    let shown = look.shown.get(&id).cloned().unwrap_or_default();
    let record = if shown.record.is_empty() {
        record(&node.name, &node.address, standing)
    } else {
        let mut record = shown.record;
        record.insert("status".to_owned(), standing.as_str().into());
        record
    };
    let key = node_key(id);
    let unchanged = pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::ModRevision(shown.mod_revision)),
        ..pb::Compare::default()
    };
    let put = pb::PutRequest { key, value: encode(&record), ..pb::PutRequest::default() };
    let txn = pb::TxnRequest {
        compare: vec![unchanged],
        success: vec![pb::RequestOp { request: Some(Op::RequestPut(put)) }],
        failure: Vec::new(),
    };
    let request = FleetRequest { fence: Some(lead.fence()), ask: Some(Ask::Txn(txn)) };
    match keyspace.fleet_change(request).await? {
        FleetReply::Txn(response) if response.succeeded => Ok(()),
        // The key has moved, or the node has gone with it: the next look tells.
        FleetReply::Txn(_)
        | FleetReply::Done
        | FleetReply::Token { .. }
        | FleetReply::AuthToken { .. } => Err(Refusal::Fleet(FleetRefusal::NodeUnknown).into()),
    }
}

/// Whether the lead is still held, by an entry of the log that changes nothing.
async fn confirm(keyspace: &Keyspace, lead: &dyn Lead) -> Result<(), KeyspaceError> {
    change(keyspace, lead, Ask::Txn(pb::TxnRequest::default())).await
}

async fn promote(keyspace: &Keyspace, lead: &dyn Lead, id: MemberId) -> Result<(), KeyspaceError> {
    confirm(keyspace, lead).await?;
    keyspace.member_promote(id).await.map(drop)
}

/// Takes a member out of raft, and its node out of the registry. Looked at again right before: it may have come.
async fn expel(keyspace: &Keyspace, lead: &dyn Lead, id: MemberId) -> Outcome {
    if let Err(why) = confirm(keyspace, lead).await {
        return outcome(why);
    }
    let now = replicas(keyspace).into_iter().find(|member| member.id == id);
    let is_silent = now.is_some_and(|member| {
        let has_answered = member.followed.is_none_or(|followed| followed.has_answered);
        member.name.is_empty() && !has_answered
    });
    if !is_silent {
        return Outcome::Moot("it may have come".to_owned());
    }
    match timeout(CHANGED_WITHIN, keyspace.member_remove_for_fleet(id)).await {
        Ok(Ok(_members)) => {}
        Ok(Err(why)) => return outcome(why),
        Err(_elapsed) => return Outcome::Failed("the members were not changed in time".to_owned()),
    }
    change(keyspace, lead, Ask::NodeRemove(id.0)).await.map_or_else(outcome, |()| Outcome::Done)
}
