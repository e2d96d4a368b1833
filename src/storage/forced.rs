//! A member that is to go on alone with the data it has, because a quorum is lost for good: etcd's
//! `--force-new-cluster` (`server/etcdserver/bootstrap.go`, `bootstrapWALFromSnapshot`).
//!
//! ```text
//!   opened up to the commit index ──▶ this member alone, in force and in the log? ──yes──▶ nothing to do
//!        │ no
//!        ▼
//!   one frame, synced: [vote of a later term │ entry: this member alone │ commit index: this entry]
//!        ──▶ everything up to that entry is applied; raft, which starts later, finds a group of one
//! ```
//!
//! What lies above the commit index is kept, unlike in etcd: a follower hears of a commit later than the client, so some
//! of it may have been acknowledged, and a voter that is alone would commit its log anyway. What was not acknowledged
//! was in doubt.
//!
//! **Invariant:** the vote, the entry and the commit stamp that covers it lie in one frame of the journal: after a power
//! cut the member is as it was, or alone. A vote by itself would bar it from the old members' leader of that term.

use std::sync::mpsc;

use prost::Message as _;
use quorate_core::api::ids::{LogId, MemberId, Term};
use quorate_core::api::pb::internal::{
    LogPayload, MemberNode, Membership, VoterSet, log_payload::Payload,
};
use quorate_core::state_machine::StateMachine;

use super::error::OpenError;
use super::journal::{Done, GroupLog, GroupState, JournalError, LogRecord, Vote};

/// Entries read at once while the newest membership is looked for, in bytes.
const READ_BYTES: usize = 4 << 20;

/// Makes `member` the only member, by an entry at the end of its log, which is durable and committed when this returns.
/// That entry's position; `None` if there is nothing to do, because it is alone already or has no log yet.
///
/// `machine` stands at the commit index.
pub(crate) fn go_on_alone(
    log: &GroupLog,
    machine: &StateMachine,
    member: MemberId,
) -> Result<Option<LogId>, OpenError> {
    let state = log.state();
    let Some(last) = state.last else {
        tracing::warn!("no log to force a new cluster from: the flag has no effect");
        return Ok(None);
    };
    let in_force = machine.membership().membership.clone().unwrap_or_default();
    let newest = newest_membership(log, machine.applied(), last)?;
    let newest = newest.as_ref().unwrap_or(&in_force);
    let known = newest.nodes.iter().find(|node| node.member_id == member.0);
    let known = known.ok_or(OpenError::NotAMember { member })?;
    let node = MemberNode { voter_when_caught_up: false, ..known.clone() };
    let alone =
        Membership { configs: vec![VoterSet { member_ids: vec![member.0] }], nodes: vec![node] };
    if is_alone(&in_force, member) && is_alone(newest, member) {
        return Ok(None);
    }
    let term = state.vote.map_or(0, |vote| vote.term).max(last.term.0) + 1;
    let at = LogId { term: Term(term), index: last.index + 1 };
    // As if it had been elected: raft finds entries of a term only behind a vote for that term's leader.
    let vote = Vote { term, voted_for: Some(member), committed: true };
    tell(member, &state, at, newest);
    let payload = LogPayload { payload: Some(Payload::Membership(alone)) };
    let record = LogRecord { id: at, payload: payload.encode_to_vec().into() };
    synced(|done| log.decide_alone(vote, vec![record], done))?;
    Ok(Some(at))
}

fn tell(member: MemberId, state: &GroupState, at: LogId, before: &Membership) {
    let gone = before.nodes.iter().map(|node| MemberId(node.member_id));
    let gone: Vec<String> = gone.filter(|id| *id != member).map(|id| id.to_string()).collect();
    tracing::info!(
        "local-member-id" = %member,
        "wal-commit-index" = state.committed.map(|id| id.index),
        "commit-index" = at.index,
        "removed-members" = ?gone,
        "forcing restart member"
    );
}

/// `member` is the only one, and votes.
fn is_alone(membership: &Membership, member: MemberId) -> bool {
    let votes = matches!(&membership.configs[..], [voters] if voters.member_ids == [member.0]);
    votes && matches!(&membership.nodes[..], [node] if node.member_id == member.0)
}

/// The last membership that the log has above `applied`.
fn newest_membership(
    log: &GroupLog,
    applied: Option<LogId>,
    last: LogId,
) -> Result<Option<Membership>, OpenError> {
    let mut next = applied.map_or(0, |applied| applied.index + 1);
    let mut newest = None;
    while next <= last.index {
        let records = log.entries(next, last.index + 1, READ_BYTES)?;
        let Some(read_to) = records.last().map(|record| record.id.index) else {
            break;
        };
        for record in records {
            if let Some(Payload::Membership(found)) =
                super::open::decode(record.id, &record.payload)?.payload
            {
                newest = Some(found);
            }
        }
        next = read_to + 1;
    }
    Ok(newest)
}

/// Waits until the journal has synced what `submit` hands it.
fn synced(submit: impl FnOnce(Done) -> Result<(), JournalError>) -> Result<(), OpenError> {
    let (tell, told) = mpsc::sync_channel(1);
    submit(Box::new(move |result| {
        // The one who waits is still there: it does nothing else.
        drop(tell.send(result));
    }))?;
    Ok(told.recv().unwrap_or(Err(JournalError::Closed))?)
}
