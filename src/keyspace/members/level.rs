//! Raising the cluster level: what is new in this software is used once every member understands it.
//!
//! ```text
//!   the leader, while the level is lower than its own:
//!     every member is asked what it understands --> all enough          --> ClusterLevel, an entry
//!                                               --> one answers less    --> asked again later: it is to be upgraded
//!                                               --> one does not answer --> asked again later, if it has ever run
//! ```
//!
//! etcd's leader decides the cluster's version so (`server/etcdserver/version/monitor.go`, `UpdateClusterVersionIfNeeded`).
//! Who has never run holds nobody up: it stops at its first start if it is too old, and nothing rests on it yet.
//!
//! **Invariant:** no entry needs a level that a member which has run is not known to understand.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::internal::command::Request;
use quorate_core::api::pb::internal::keyspace_request::Ask;
use quorate_core::api::pb::internal::keyspace_response::Answer;
use quorate_core::api::pb::internal::{Blank, ClusterLevel, KeyspaceRequest, KeyspaceResponse};
use quorate_core::state_machine::{CLUSTER_LEVEL, StateMachine, level_of};
use tokio::time::timeout;

use super::write;
use crate::consensus::Consensus;
use crate::keyspace::state::State;
use crate::keyspace::write::Writer;
use crate::keyspace::{Keyspace, KeyspaceError};

/// Between two times that all are asked (etcd: five seconds).
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A member that is there has answered by then.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// What every member understands.
const FIRST: u32 = 1;

/// What a member said when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Understands(u32),
    /// It runs, and knows no such question.
    Nothing,
    Silent,
}

/// A member, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    id: MemberId,
    /// It has told its name: it has run.
    has_run: bool,
}

impl Candidate {
    /// Whether it holds the others up at a lower level.
    fn is_too_old(self, said: Said) -> bool {
        match said {
            Said::Understands(level) => level < CLUSTER_LEVEL,
            Said::Nothing => true,
            Said::Silent => self.has_run,
        }
    }
}

/// Raises the level while this member leads, until it is what this software understands.
pub(crate) async fn raise_level(state: Arc<State>, writer: Arc<Writer>) {
    let mut leader = writer.consensus.leader_changes();
    let mut held_up = None;
    while state.machine.read().cluster_level() < CLUSTER_LEVEL {
        leader.mark_unchanged();
        if writer.consensus.leads() {
            let candidates = candidates(&state.machine.read(), writer.member);
            let too_old = first_too_old(&writer.consensus, &candidates).await;
            if too_old.is_none() {
                let raise = ClusterLevel { level: CLUSTER_LEVEL };
                if let Err(KeyspaceError::Stopped) =
                    write(&writer, Request::ClusterLevel(raise)).await
                {
                    return;
                }
            } else if held_up != too_old {
                tracing::info!(
                    member = ?too_old,
                    level = CLUSTER_LEVEL,
                    "the cluster level is raised once this member is upgraded or answers"
                );
                held_up = too_old;
            }
        }
        if let Ok(Err(_ended)) = timeout(ASK_AGAIN, leader.changed()).await {
            return;
        }
    }
}

/// All others: who has no vote applies the log, too.
fn candidates(machine: &StateMachine, own: MemberId) -> Vec<Candidate> {
    let membership = machine.membership().membership.as_ref();
    let nodes = membership.into_iter().flat_map(|membership| &membership.nodes);
    let others = nodes.map(|node| MemberId(node.member_id)).filter(|id| *id != own);
    let candidate = |id| Candidate { id, has_run: machine.member_attributes(id).is_some() };
    others.map(candidate).collect()
}

async fn first_too_old(consensus: &Consensus, candidates: &[Candidate]) -> Option<MemberId> {
    let asked = candidates.iter().map(|candidate| async {
        let said = ask(consensus, candidate.id).await;
        candidate.is_too_old(said).then_some(candidate.id)
    });
    futures::future::join_all(asked).await.into_iter().flatten().next()
}

async fn ask(consensus: &Consensus, member: MemberId) -> Said {
    let request = KeyspaceRequest { ask: Some(Ask::KnownLevel(Blank {})) };
    let asked = consensus.ask_keyspace(member, Bytes::from(request.encode_to_vec()));
    match timeout(ANSWER_WITHIN, asked).await {
        Ok(Ok(response)) => match KeyspaceResponse::decode(response) {
            Ok(KeyspaceResponse { answer: Some(Answer::KnownLevel(level)) }) => {
                Said::Understands(level)
            }
            Ok(_) | Err(_) => Said::Nothing,
        },
        Ok(Err(_)) | Err(_) => Said::Silent,
    }
}

impl Keyspace {
    /// Waits until the cluster level allows a request; refuses it if that takes longer than a request may.
    pub(in crate::keyspace) async fn until_understood(
        &self,
        request: &Request,
    ) -> Result<(), KeyspaceError> {
        let needed = level_of(request);
        if needed <= FIRST {
            return Ok(());
        }
        let raised = |machine: &StateMachine| machine.cluster_level() >= needed;
        match timeout(self.0.config.request_timeout(), self.0.state.wait_until(raised)).await {
            Ok(raised) => raised,
            Err(_elapsed) => Err(KeyspaceError::Unimplemented(
                "what members of an older version do not understand",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_be_too_old_holds_the_level_and_who_has_never_run_does_not() {
        for (said, has_run, too_old) in [
            (Said::Understands(CLUSTER_LEVEL), true, false),
            (Said::Understands(CLUSTER_LEVEL + 1), true, false),
            (Said::Understands(CLUSTER_LEVEL - 1), true, true),
            (Said::Understands(CLUSTER_LEVEL - 1), false, true),
            (Said::Nothing, true, true),
            (Said::Nothing, false, true),
            (Said::Silent, true, true),
            (Said::Silent, false, false),
        ] {
            let candidate = Candidate { id: MemberId(1), has_run };
            assert_eq!(candidate.is_too_old(said), too_old, "{said:?}, has run: {has_run}");
        }
    }
}
