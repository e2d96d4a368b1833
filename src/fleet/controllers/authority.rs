//! The fleet's authorities: which step is next, by what every node has reported, and how it is taken.
//!
//! ```text
//!   record, and what the nodes' keys say ── turn ──> wait for these nodes, or promote, or retire
//!   advance ── ONE fenced change over the generation that was looked at ──> nodes follow, and report again
//! ```
//!
//! **Invariant:** who has reported nothing that reads has not done it: a member that the registry does not list yet, too.

use std::collections::BTreeMap;

use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::internal::fleet_request::Ask;
use quorate_core::api::pb::internal::{FleetAuthority, FleetAuthorityChange, FleetNode};

use super::View;
use super::act::{Outcome, change, outcome};
use super::lead::Lead;
use super::observe::{Look, Shown};
use crate::fleet::pki::{Authorities, NodeTrust, PkiError, Trusted, Turn};
use crate::fleet::plan::Replica;
use crate::fleet::seal::FleetKey;

/// What is next; `None`: the authorities cannot be opened here.
pub(super) fn turn(
    authority: &FleetAuthority,
    key: &FleetKey,
    uid: &str,
    nodes: &[FleetNode],
    members: &[Replica],
    shown: &BTreeMap<MemberId, Shown>,
) -> Option<Turn> {
    if authority.certificates.len() < 2 {
        return Some(Turn::Rest);
    }
    let fleet = match Authorities::open(authority, key, uid) {
        Ok(fleet) => fleet,
        Err(why) => {
            tracing::warn!(error = %why, "the fleet's authorities cannot be opened");
            return None;
        }
    };
    let reported = |id| shown.get(&id).and_then(|shown| Trusted::of_record(&shown.record));
    let (turn, why) = fleet.turn(&asked(nodes, members.iter().map(|member| member.id), reported));
    tracing::debug!(?turn, why, "the authorities of the fleet");
    Some(turn)
}

/// Everybody whose report counts: the registry, and members that it does not list yet.
pub(in crate::fleet) fn asked(
    nodes: &[FleetNode],
    members: impl Iterator<Item = MemberId>,
    reported: impl Fn(MemberId) -> Option<Trusted>,
) -> Vec<NodeTrust> {
    let listed = nodes
        .iter()
        .map(|node| NodeTrust { name: node.name.clone(), reported: reported(MemberId(node.id)) });
    let unlisted = members
        .filter(|id| nodes.iter().all(|node| node.id != id.0))
        .map(|id| NodeTrust { name: id.to_string(), reported: None });
    listed.chain(unlisted).collect()
}

/// Takes the step that was planned from `look`, unless the authorities have changed since.
pub(super) async fn advance(
    view: View<'_>,
    lead: &dyn Lead,
    look: &Look,
    step: fn(Authorities) -> Result<Authorities, PkiError>,
) -> Outcome {
    let (Some(key), Some((before, uid))) = (view.key, &look.authority) else {
        return Outcome::Moot("the fleet's authorities are not known here".to_owned());
    };
    let next = match Authorities::open(before, key, uid).and_then(step) {
        Ok(next) => next,
        Err(why) => return Outcome::Failed(why.to_string()),
    };
    let ask = Ask::Authority(FleetAuthorityChange {
        over_generation: before.generation,
        authority: Some(next.seal(key, uid)),
    });
    change(view.keyspace, lead, ask).await.map_or_else(outcome, |()| Outcome::Done)
}

#[cfg(test)]
#[path = "authority_test.rs"]
mod tests;
