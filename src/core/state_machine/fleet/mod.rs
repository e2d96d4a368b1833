//! The fleet: which nodes belong together, who may join them, what they trust; decided by every member alike.
//!
//! ```text
//!   FleetRequest ── fence holds? ── bootstrapped? ──> bootstrap   the first records and keys, in one revision
//!                                                 ──> nodes       a token used up and a node entered; a node gone
//!                                                 ──> tokens      given, or given before; revoked
//!                                                 ──> txn         what may write under reserved prefixes
//!                                                 ──> lease       whoever was elected resigns
//!                          │                                │
//!                    FleetState, records beside history     keys that clients read: /k8sd/.., /kat/..
//!
//!   a client's write ── reserved ──> refused where it would touch such keys
//! ```
//!
//! Whoever asks is a member, never a client, and may name a fence: the key that it holds since it was elected. The
//! fence is looked at before anything else, in the entry itself, so that one who was elected once and stood still
//! changes nothing when it wakes.
//!
//! **Invariant:** no secret is here: of tokens the SHA-256 and what they are drawn from with a key that is not in
//! here, of signing keys what is sealed by that key.
//! **Invariant:** without a bootstrap nothing is reserved and no record is written: the keyspace is etcd's.

mod bootstrap;
mod nodes;
mod record;
mod reserved;
mod tokens;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::api::ids::{LeaseId, MemberId};
use crate::api::pb::etcdserverpb::{PutRequest, TxnRequest};
use crate::api::pb::internal::fleet_request::Ask;
use crate::api::pb::internal::{
    FleetAuthTokenIssue, FleetAuthority, FleetAuthorityChange, FleetFence, FleetNode, FleetRecord,
    FleetRequest, FleetTokenIssue,
};
use crate::api::refusal::{Corrupt, FleetRefusal, Refusal};
use crate::api::reply::FleetReply;
use crate::api::view::View;

use super::changes::Changes;
use super::mvcc::write::WriteTxn;
use super::{StateMachine, txn};

pub use self::reserved::reserved_prefix;

/// The key that says which shape the fleet's keys have: a decimal number.
pub const SCHEMA_VERSION_KEY: &str = "/k8sd/schema_version";
/// The key that has the fleet's UUID.
pub const CLUSTER_UID_KEY: &str = "/kat/config/cluster_uid";
/// In front of the nodes' own keys.
pub const NODES_PREFIX: &str = "/k8sd/nodes/";

/// The key of a node, its id as etcd prints ids.
pub fn node_key(id: MemberId) -> Bytes {
    format!("{NODES_PREFIX}{id}").into()
}

/// Everything that is known of the fleet beside what clients see.
#[derive(Debug, Default)]
pub struct FleetState {
    record: Option<FleetRecord>,
    /// By id; without what their keys say.
    nodes: BTreeMap<MemberId, FleetNode>,
    /// By the SHA-256 of the secret. Those that ran out are kept for a day, to be told apart from those made up.
    join_tokens: BTreeMap<Bytes, FleetTokenIssue>,
    /// By the SHA-256 of the secret.
    auth_tokens: BTreeMap<Bytes, FleetAuthTokenIssue>,
}

impl FleetState {
    /// The fleet's own record; `None`: it never was bootstrapped.
    pub fn record(&self) -> Option<&FleetRecord> {
        self.record.as_ref()
    }

    /// Every node, by id, without what its key says.
    pub fn nodes(&self) -> impl Iterator<Item = &FleetNode> {
        self.nodes.values()
    }

    /// The node of that id.
    pub fn node(&self, id: MemberId) -> Option<&FleetNode> {
        self.nodes.get(&id)
    }

    /// The node of that name.
    pub fn node_named(&self, name: &str) -> Option<&FleetNode> {
        self.nodes.values().find(|node| node.name == name)
    }

    /// The node that was let in by that very asking and may ask so again: its first answer may have been lost.
    pub fn node_that_asked(&self, asked: &[u8], now_ms: i64) -> Option<&FleetNode> {
        let may = |node: &&FleetNode| !asked.is_empty() && node.asked_until_ms > now_ms;
        self.nodes.values().filter(may).find(|node| node.asked == asked)
    }

    /// The join token of that SHA-256, also if it has run out.
    pub fn join_token(&self, hash: &[u8]) -> Option<&FleetTokenIssue> {
        self.join_tokens.get(hash)
    }

    /// Every join token that was not used up or revoked, by hash; also those that have run out within the last day.
    pub fn join_tokens(&self) -> impl Iterator<Item = &FleetTokenIssue> {
        self.join_tokens.values()
    }

    /// The user's token of that SHA-256.
    pub fn auth_token(&self, hash: &[u8]) -> Option<&FleetAuthTokenIssue> {
        self.auth_tokens.get(hash)
    }

    /// Every user's token, by hash.
    pub fn auth_tokens(&self) -> impl Iterator<Item = &FleetAuthTokenIssue> {
        self.auth_tokens.values()
    }

    fn record_mut(&mut self) -> Result<&mut FleetRecord, FleetRefusal> {
        self.record.as_mut().ok_or(FleetRefusal::NotBootstrapped)
    }

    fn change_authority(
        &mut self,
        change: &FleetAuthorityChange,
        changes: &mut Changes,
    ) -> Result<FleetReply, FleetRefusal> {
        let record = self.record_mut()?;
        let in_force = record.authority.as_ref().map_or(0, |authority| authority.generation);
        if change.over_generation != in_force {
            return Err(FleetRefusal::GenerationMoved);
        }
        let next = change.authority.as_ref().ok_or(FleetRefusal::Malformed)?;
        require(next.generation == in_force + 1 && is_authority(next))?;
        record.authority = Some(next.clone());
        self.write_record(changes);
        Ok(FleetReply::Done)
    }

    fn set_capi_token(
        &mut self,
        hash: &Bytes,
        changes: &mut Changes,
    ) -> Result<FleetReply, FleetRefusal> {
        let record = self.record_mut()?;
        require(hash.is_empty() || is_hash(hash))?;
        record.capi_token = hash.clone();
        self.write_record(changes);
        Ok(FleetReply::Done)
    }
}

impl StateMachine {
    /// Decides a change of the fleet's records. The outer error stops the member, the inner one is the answer.
    pub(super) fn steer(
        &mut self,
        view: &impl View,
        fence: Option<&FleetFence>,
        ask: &Ask,
        changes: &mut Changes,
    ) -> Result<Result<FleetReply, Refusal>, Corrupt> {
        if fence.is_some_and(|fence| !self.holds(fence)) {
            return Ok(Err(FleetRefusal::FenceLost.into()));
        }
        let begun = self.fleet.record.is_some();
        if !begun && !matches!(ask, Ask::Bootstrap(_)) {
            return Ok(Err(FleetRefusal::NotBootstrapped.into()));
        }
        let now_ms = self.last_time_ms;
        let decided = match ask {
            Ask::Bootstrap(bootstrap) => return self.bootstrap(view, bootstrap, changes),
            Ask::Admit(admit) => return self.admit_node(view, admit, fence.is_some(), changes),
            Ask::NodeRemove(id) => self.remove_node(view, MemberId(*id), changes),
            Ask::TokenIssue(issue) => self.fleet.issue_token(issue, now_ms, changes),
            Ask::TokenRevoke(hash) => self.fleet.revoke_token(hash, changes),
            Ask::AuthTokenIssue(issue) => self.fleet.issue_auth_token(issue, changes),
            Ask::AuthTokenRevoke(hash) => self.fleet.revoke_auth_token(hash, changes),
            Ask::CapiToken(hash) => self.fleet.set_capi_token(hash, changes),
            Ask::Authority(change) => self.fleet.change_authority(change, changes),
            Ask::LeaseRevoke(id) => {
                let ended = self.end_lease(view, LeaseId(*id), changes);
                return Ok(ended.map(|()| FleetReply::Done));
            }
            Ask::Txn(request) => {
                let answer = txn::apply(self.write(view, changes), request)?;
                return Ok(answer.map(FleetReply::Txn));
            }
        };
        Ok(decided.map_err(Refusal::Fleet))
    }

    /// The key that whoever asks was elected by is there, and is still that one.
    fn holds(&self, fence: &FleetFence) -> bool {
        let live = self.mvcc.index.newest(&fence.key);
        live.is_some_and(|live| live.at.create_revision == fence.create_revision)
    }
}

/// The txn within, if it is one.
pub(crate) fn txn_of(request: &FleetRequest) -> Option<&TxnRequest> {
    match &request.ask {
        Some(Ask::Txn(txn)) => Some(txn),
        Some(
            Ask::Bootstrap(_)
            | Ask::TokenIssue(_)
            | Ask::TokenRevoke(_)
            | Ask::Admit(_)
            | Ask::NodeRemove(_)
            | Ask::AuthTokenIssue(_)
            | Ask::AuthTokenRevoke(_)
            | Ask::CapiToken(_)
            | Ask::Authority(_)
            | Ask::LeaseRevoke(_),
        )
        | None => None,
    }
}

/// It only takes away: a node, a token. That is let through whatever is wrong with the data: a member whose data
/// differ is cured by removing it.
pub(crate) fn takes_away(request: &FleetRequest) -> bool {
    match &request.ask {
        Some(Ask::NodeRemove(_) | Ask::TokenRevoke(_) | Ask::AuthTokenRevoke(_)) => true,
        Some(
            Ask::Bootstrap(_)
            | Ask::TokenIssue(_)
            | Ask::Admit(_)
            | Ask::AuthTokenIssue(_)
            | Ask::CapiToken(_)
            | Ask::Authority(_)
            | Ask::LeaseRevoke(_)
            | Ask::Txn(_),
        )
        | None => false,
    }
}

fn require(holds: bool) -> Result<(), FleetRefusal> {
    if holds { Ok(()) } else { Err(FleetRefusal::Malformed) }
}

fn is_hash(bytes: &[u8]) -> bool {
    bytes.len() == 32
}

fn is_authority(authority: &FleetAuthority) -> bool {
    authority.generation > 0
        && !authority.certificates.is_empty()
        && authority.certificates.iter().all(|certificate| !certificate.is_empty())
}

/// Puts a key as part of a change of the fleet's.
fn put<V: View>(
    write: &mut WriteTxn<'_, V>,
    key: impl Into<Bytes>,
    value: impl Into<Bytes>,
) -> Result<(), Corrupt> {
    let put = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
    write.put(&put).map(drop)
}
