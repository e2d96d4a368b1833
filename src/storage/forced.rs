//! A member that is to go on alone with the data it has, because a quorum is lost for good: etcd's
//! `--force-new-cluster` (`server/etcdserver/bootstrap.go`, `bootstrapWALFromSnapshot`).
//!
//! ```text
//!   opened up to the commit index ──▶ this member alone, in force and in the log? ──yes──▶ nothing to do
//!        │ no
//!        ▼
//!   one frame, synced: [vote of a later term │ entry: this member's cluster level │ entry: this member alone
//!                       │ commit index: the last of these]
//!        ──▶ everything up to that entry is applied; raft, which starts later, finds a group of one
//! ```
//!
//! What lies above the commit index is kept, unlike in etcd: a follower hears of a commit later than the client, so
//! some of it may have been acknowledged, and a voter that is alone would commit its log anyway. What was not
//! acknowledged was in doubt. A membership without this member is kept like the rest and has no effect: what follows
//! puts it back. Only one that is in force, as far as this member knows, has removed it.
//!
//! The level comes before the membership: at a lower one nobody is noted as removed, and the others, if they were
//! started again, would be introduced, elect one of them and overwrite this member's log.
//!
//! **Invariant:** the vote, the entries and the commit stamp that covers it lie in one frame of the journal: after a
//! power cut the member is as it was, or alone. A vote by itself would bar it from the old members' leader of that
//! term.

use std::collections::BTreeSet;
use std::sync::mpsc;

use prost::Message as _;
use quorate_core::api::ids::{LogId, MemberId};
use quorate_core::api::pb::internal::{
    ClusterLevel, Command, Entry, LogPayload, MemberNode, Membership, VoterSet, command::Request,
    log_payload::Payload,
};
use quorate_core::state_machine::{CLUSTER_LEVEL, StateMachine, level_of};

use super::error::OpenError;
use super::journal::{Done, GroupLog, GroupState, JournalError, LogRecord, Vote};

/// Entries read at once while memberships are looked for, in bytes.
const READ_BYTES: usize = 4 << 20;

/// Makes `member` the only member, by an entry at the end of its log, which is durable and committed when this returns.
/// That entry's position; `None` if there is nothing to do, because it is alone already or has no log yet.
///
/// `machine` stands at the commit index; it is `now_ms` since 1970.
pub(crate) fn go_on_alone(
    log: &GroupLog,
    machine: &StateMachine,
    member: MemberId,
    now_ms: i64,
) -> Result<Option<LogId>, OpenError> {
    let state = log.state();
    let Some(last) = state.last else {
        tracing::warn!("no log to force a new cluster from: the flag has no effect");
        return Ok(None);
    };
    let in_force = machine.membership().membership.clone().unwrap_or_default();
    let mut known = vec![in_force];
    known.extend(memberships_above(log, machine.applied(), last)?);
    if known.iter().all(|membership| is_alone(membership, member)) {
        return Ok(None);
    }
    // Of the last that has it: one that has it not, and is not in force, does not count.
    let nodes = known.iter().rev().flat_map(|membership| &membership.nodes);
    let own = nodes.clone().find(|node| node.member_id == member.0);
    let own = own.ok_or(OpenError::NotAMember { member })?;
    let node = MemberNode { voter_when_caught_up: false, ..own.clone() };
    let alone =
        Membership { configs: vec![VoterSet { member_ids: vec![member.0] }], nodes: vec![node] };
    let others: BTreeSet<MemberId> =
        nodes.map(|node| MemberId(node.member_id)).filter(|id| *id != member).collect();
    let term = state.vote.map_or(0, |vote| vote.term).max(last.term.0) + 1;
    let mut records = Vec::new();
    let mut put = |payload| {
        let payload = LogPayload { payload: Some(payload) };
        let at = LogId::new(term, last.index + 1 + records.len() as u64);
        records.push(LogRecord { id: at, payload: payload.encode_to_vec().into() });
        at
    };
    if machine.cluster_level() < CLUSTER_LEVEL {
        put(Payload::Entry(own_level(member, last, now_ms)));
    }
    let at = put(Payload::Membership(alone));
    // As if it had been elected: raft finds entries of a term only behind a vote for that term's leader.
    let vote = Vote { term, voted_for: Some(member), committed: true };
    tell(member, &state, at, &others);
    synced(|done| log.decide_alone(vote, records, done))?;
    Ok(Some(at))
}

/// What this member understands is what every member understands now; from there on it is noted who leaves.
fn own_level(member: MemberId, last: LogId, now_ms: i64) -> Entry {
    let request = Request::ClusterLevel(ClusterLevel { level: CLUSTER_LEVEL });
    Entry {
        level: level_of(&request),
        member_id: member.0,
        // Of no process, which would draw another, and not sent again.
        incarnation: 0,
        seq: last.index + 1,
        time_ms: now_ms,
        commands: vec![Command { request: Some(request), ..Command::default() }],
    }
}

fn tell(member: MemberId, state: &GroupState, at: LogId, gone: &BTreeSet<MemberId>) {
    let gone: Vec<String> = gone.iter().map(MemberId::to_string).collect();
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

/// The memberships that the log has above `applied`, in order.
fn memberships_above(
    log: &GroupLog,
    applied: Option<LogId>,
    last: LogId,
) -> Result<Vec<Membership>, OpenError> {
    let mut next = applied.map_or(0, |applied| applied.index + 1);
    let mut memberships = Vec::new();
    while next <= last.index {
        let records = log.entries(next, last.index + 1, READ_BYTES)?;
        let Some(read_to) = records.last().map(|record| record.id.index) else {
            break;
        };
        for record in records {
            if let Some(Payload::Membership(found)) =
                super::open::decode(record.id, &record.payload)?.payload
            {
                memberships.push(found);
            }
        }
        next = read_to + 1;
    }
    Ok(memberships)
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
