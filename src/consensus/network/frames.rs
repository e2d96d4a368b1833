//! What members ask each other, to and from protobuf: openraft's own types never reach the wire.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use prost::Message as _;
use quorate_core::api::ids::{LogId, MemberId};
use quorate_core::api::pb::internal::{
    Blank, LogPosition, PeerAppend, PeerAppended, PeerBallot, PeerEntry, PeerHandedOver,
    PeerHandover, PeerNotLeader, PeerProposed, PeerReadIndex, PeerRequest, PeerResponse, PeerUpTo,
    PeerVote, PeerVoted, peer_appended, peer_proposed, peer_read_index, peer_request,
    peer_response,
};

use super::shipment::{Shipment, Taken};
use crate::consensus::convert;
use crate::consensus::error::{ProposeError, ReadIndexError};
use crate::consensus::types::{RaftLogId, RaftVote, TypeConfig};
use crate::storage::journal::{LogRecord, Vote};

/// A question to a member.
pub(crate) enum Ask {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    /// An encoded `LogPayload` for the leader's log.
    Propose(Bytes),
    ReadIndex,
    /// The leader asks its successor to campaign.
    Handover {
        round: u64,
        request: TransferLeaderRequest<TypeConfig>,
    },
    /// The successor asks back whether the handover of this round is still wanted.
    HandoverStands(u64),
    /// For the keyspace above; opaque here.
    Keyspace(Bytes),
    /// A step of sending a whole state.
    Snapshot(Shipment),
}

/// Its answer.
pub(crate) enum Answer {
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    Propose(Result<(), ProposeError>),
    ReadIndex(Result<u64, ReadIndexError>),
    Handover { taken: bool },
    Keyspace(Bytes),
    Snapshot(Taken),
}

/// A frame that no member of this software would send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a peer frame does not decode: {0}")]
pub struct BadFrame(pub(crate) String);

impl Ask {
    pub(crate) fn encode(self) -> Bytes {
        let ask = match self {
            Ask::Append(request) => peer_request::Ask::Append(append(request)),
            Ask::Vote(request) => peer_request::Ask::Vote(vote(&request)),
            Ask::PreVote(request) => peer_request::Ask::PreVote(vote(&request)),
            Ask::Propose(payload) => peer_request::Ask::Propose(payload),
            Ask::ReadIndex => peer_request::Ask::ReadIndex(Blank {}),
            Ask::Handover { round, request } => peer_request::Ask::Handover(PeerHandover {
                from: Some(ballot(request.from_leader())),
                last: position(request.last_log_id().copied()),
                round,
            }),
            Ask::HandoverStands(round) => peer_request::Ask::HandoverStands(round),
            Ask::Keyspace(request) => peer_request::Ask::Keyspace(request),
            Ask::Snapshot(shipment) => peer_request::Ask::Snapshot(shipment.to_wire()),
        };
        Bytes::from(PeerRequest { ask: Some(ask) }.encode_to_vec())
    }

    /// `to` is the member that reads this: a handover is to whom it reached.
    pub(crate) fn decode(frame: Bytes, to: MemberId) -> Result<Self, BadFrame> {
        let request = PeerRequest::decode(frame).map_err(bad)?;
        match request.ask {
            Some(peer_request::Ask::Append(from)) => Ok(Ask::Append(raft_append(from)?)),
            Some(peer_request::Ask::Vote(from)) => Ok(Ask::Vote(raft_vote(from)?)),
            Some(peer_request::Ask::PreVote(from)) => Ok(Ask::PreVote(raft_vote(from)?)),
            Some(peer_request::Ask::Propose(payload)) => {
                let checked = convert::check_proposal(&payload);
                checked.map_err(|why| BadFrame(format!("a proposal: {why}")))?;
                Ok(Ask::Propose(payload))
            }
            Some(peer_request::Ask::ReadIndex(Blank {})) => Ok(Ask::ReadIndex),
            Some(peer_request::Ask::Handover(from)) => {
                let vote = raft_ballot(from.from)?;
                let last = raft_position(from.last);
                let request = TransferLeaderRequest::new(vote, to.0, last);
                Ok(Ask::Handover { round: from.round, request })
            }
            Some(peer_request::Ask::HandoverStands(round)) => Ok(Ask::HandoverStands(round)),
            Some(peer_request::Ask::Keyspace(request)) => Ok(Ask::Keyspace(request)),
            Some(peer_request::Ask::Snapshot(from)) => {
                Ok(Ask::Snapshot(Shipment::from_wire(from)?))
            }
            None => Err(BadFrame("it asks nothing".to_owned())),
        }
    }
}

impl Answer {
    pub(crate) fn encode(self) -> Bytes {
        let answer = match self {
            Answer::Append(response) => {
                peer_response::Answer::Append(PeerAppended { outcome: Some(appended(response)) })
            }
            Answer::Vote(response) => peer_response::Answer::Vote(PeerVoted {
                vote: Some(ballot(&response.vote)),
                granted: response.vote_granted,
                last: position(response.last_log_id),
            }),
            Answer::Propose(outcome) => {
                peer_response::Answer::Propose(PeerProposed { outcome: proposed(&outcome) })
            }
            Answer::ReadIndex(outcome) => {
                peer_response::Answer::ReadIndex(PeerReadIndex { outcome: read_index(&outcome) })
            }
            Answer::Handover { taken } => peer_response::Answer::Handover(PeerHandedOver { taken }),
            Answer::Keyspace(response) => peer_response::Answer::Keyspace(response),
            Answer::Snapshot(taken) => peer_response::Answer::Snapshot(taken.to_wire()),
        };
        let response = PeerResponse { answer: Some(answer) };
        Bytes::from(response.encode_to_vec())
    }

    pub(crate) fn decode(frame: Bytes) -> Result<Self, BadFrame> {
        let response = PeerResponse::decode(frame).map_err(bad)?;
        match response.answer {
            Some(peer_response::Answer::Append(from)) => Ok(Answer::Append(raft_appended(from)?)),
            Some(peer_response::Answer::Vote(from)) => Ok(Answer::Vote(VoteResponse {
                vote: raft_ballot(from.vote)?,
                vote_granted: from.granted,
                last_log_id: raft_position(from.last),
            })),
            Some(peer_response::Answer::Propose(from)) => {
                Ok(Answer::Propose(raft_proposed(from.outcome)?))
            }
            Some(peer_response::Answer::ReadIndex(from)) => {
                Ok(Answer::ReadIndex(raft_read_index(from.outcome)?))
            }
            Some(peer_response::Answer::Handover(from)) => {
                Ok(Answer::Handover { taken: from.taken })
            }
            Some(peer_response::Answer::Keyspace(response)) => Ok(Answer::Keyspace(response)),
            Some(peer_response::Answer::Snapshot(from)) => {
                Ok(Answer::Snapshot(Taken::from_wire(from)?))
            }
            None => Err(BadFrame("it answers nothing".to_owned())),
        }
    }
}

fn bad(error: impl std::fmt::Display) -> BadFrame {
    BadFrame(error.to_string())
}

fn position(id: Option<RaftLogId>) -> Option<LogPosition> {
    id.map(|id| LogPosition { term: id.leader_id.term, index: id.index })
}

fn raft_position(at: Option<LogPosition>) -> Option<RaftLogId> {
    at.map(|at| convert::raft_log_id(LogId::new(at.term, at.index)))
}

pub(super) fn ballot(vote: &RaftVote) -> PeerBallot {
    PeerBallot {
        term: vote.leader_id.term,
        member_id: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(super) fn raft_ballot(from: Option<PeerBallot>) -> Result<RaftVote, BadFrame> {
    let from = from.ok_or_else(|| BadFrame("it carries no vote".to_owned()))?;
    convert::raft_vote(&Vote {
        term: from.term,
        voted_for: Some(MemberId(from.member_id)),
        committed: from.committed,
    })
    .map_err(bad)
}

fn vote(request: &VoteRequest<TypeConfig>) -> PeerVote {
    PeerVote {
        vote: Some(ballot(&request.vote)),
        last: position(request.last_log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

fn raft_vote(from: PeerVote) -> Result<VoteRequest<TypeConfig>, BadFrame> {
    Ok(VoteRequest {
        vote: raft_ballot(from.vote)?,
        last_log_id: raft_position(from.last),
        leadership_transfer: from.leadership_transfer,
    })
}

fn append(request: AppendEntriesRequest<TypeConfig>) -> PeerAppend {
    let entries = request.entries.into_iter().map(|entry| {
        let log_id = position(Some(entry.log_id));
        PeerEntry { log_id, payload: convert::log_record(entry).payload }
    });
    PeerAppend {
        vote: Some(ballot(&request.vote)),
        prev: position(request.prev_log_id),
        entries: entries.collect(),
        commit: position(request.leader_commit),
    }
}

fn raft_append(from: PeerAppend) -> Result<AppendEntriesRequest<TypeConfig>, BadFrame> {
    let entries = from.entries.into_iter().map(|entry| {
        let at = entry.log_id.ok_or_else(|| BadFrame("an entry has no place".to_owned()))?;
        convert::raft_entry(LogRecord { id: LogId::new(at.term, at.index), payload: entry.payload })
            .map_err(bad)
    });
    Ok(AppendEntriesRequest {
        vote: raft_ballot(from.vote)?,
        prev_log_id: raft_position(from.prev),
        entries: entries.collect::<Result<_, _>>()?,
        leader_commit: raft_position(from.commit),
    })
}

fn appended(response: AppendEntriesResponse<TypeConfig>) -> peer_appended::Outcome {
    match response {
        AppendEntriesResponse::Success => peer_appended::Outcome::Success(Blank {}),
        AppendEntriesResponse::PartialSuccess(up_to) => {
            peer_appended::Outcome::Partial(PeerUpTo { log_id: position(up_to) })
        }
        AppendEntriesResponse::Conflict => peer_appended::Outcome::Conflict(Blank {}),
        AppendEntriesResponse::HigherVote(vote) => {
            peer_appended::Outcome::HigherVote(ballot(&vote))
        }
    }
}

fn raft_appended(from: PeerAppended) -> Result<AppendEntriesResponse<TypeConfig>, BadFrame> {
    match from.outcome {
        Some(peer_appended::Outcome::Success(Blank {})) => Ok(AppendEntriesResponse::Success),
        Some(peer_appended::Outcome::Partial(up_to)) => {
            Ok(AppendEntriesResponse::PartialSuccess(raft_position(up_to.log_id)))
        }
        Some(peer_appended::Outcome::Conflict(Blank {})) => Ok(AppendEntriesResponse::Conflict),
        Some(peer_appended::Outcome::HigherVote(vote)) => {
            Ok(AppendEntriesResponse::HigherVote(raft_ballot(Some(vote))?))
        }
        None => Err(BadFrame("an append has no outcome".to_owned())),
    }
}

fn not_leader(leader: Option<MemberId>) -> PeerNotLeader {
    PeerNotLeader { leader_id: leader.map_or(0, |leader| leader.0) }
}

fn leader_of(from: PeerNotLeader) -> Option<MemberId> {
    (from.leader_id != 0).then_some(MemberId(from.leader_id))
}

/// `None` where there is nothing to answer: this member stopped, and breaking off says so.
fn proposed(outcome: &Result<(), ProposeError>) -> Option<peer_proposed::Outcome> {
    match outcome {
        Ok(()) => Some(peer_proposed::Outcome::Applied(Blank {})),
        Err(ProposeError::NotLeader { leader }) => {
            Some(peer_proposed::Outcome::NotLeader(not_leader(*leader)))
        }
        Err(ProposeError::Discarded) => Some(peer_proposed::Outcome::Discarded(Blank {})),
        Err(ProposeError::TooLarge) => Some(peer_proposed::Outcome::TooLarge(Blank {})),
        Err(ProposeError::Lost(_) | ProposeError::Stopped(_)) => None,
    }
}

fn raft_proposed(
    outcome: Option<peer_proposed::Outcome>,
) -> Result<Result<(), ProposeError>, BadFrame> {
    Ok(match outcome {
        Some(peer_proposed::Outcome::Applied(Blank {})) => Ok(()),
        Some(peer_proposed::Outcome::NotLeader(from)) => {
            Err(ProposeError::NotLeader { leader: leader_of(from) })
        }
        Some(peer_proposed::Outcome::Discarded(Blank {})) => Err(ProposeError::Discarded),
        Some(peer_proposed::Outcome::TooLarge(Blank {})) => Err(ProposeError::TooLarge),
        None => return Err(BadFrame("a proposal has no outcome".to_owned())),
    })
}

fn read_index(outcome: &Result<u64, ReadIndexError>) -> Option<peer_read_index::Outcome> {
    match outcome {
        Ok(index) => Some(peer_read_index::Outcome::Index(*index)),
        Err(ReadIndexError::NotLeader { leader }) => {
            Some(peer_read_index::Outcome::NotLeader(not_leader(*leader)))
        }
        Err(ReadIndexError::NoQuorum) => Some(peer_read_index::Outcome::NoQuorum(Blank {})),
        Err(ReadIndexError::TooMany) => Some(peer_read_index::Outcome::TooMany(Blank {})),
        Err(ReadIndexError::Stopped) => None,
    }
}

fn raft_read_index(
    outcome: Option<peer_read_index::Outcome>,
) -> Result<Result<u64, ReadIndexError>, BadFrame> {
    Ok(match outcome {
        Some(peer_read_index::Outcome::Index(index)) => Ok(index),
        Some(peer_read_index::Outcome::NotLeader(from)) => {
            Err(ReadIndexError::NotLeader { leader: leader_of(from) })
        }
        Some(peer_read_index::Outcome::NoQuorum(Blank {})) => Err(ReadIndexError::NoQuorum),
        Some(peer_read_index::Outcome::TooMany(Blank {})) => Err(ReadIndexError::TooMany),
        None => return Err(BadFrame("a read index has no outcome".to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::types::{Proposal, RaftEntry, RaftPayload};

    fn at(term: u64, index: u64) -> RaftLogId {
        convert::raft_log_id(LogId::new(term, index))
    }

    #[test]
    fn an_append_crosses_the_wire_unchanged() {
        let request = AppendEntriesRequest {
            vote: RaftVote::new_committed(3, 9),
            prev_log_id: Some(at(2, 4)),
            entries: vec![
                RaftEntry { log_id: at(3, 5), payload: RaftPayload::Blank },
                RaftEntry {
                    log_id: at(3, 6),
                    payload: RaftPayload::Normal(Proposal(Bytes::from_static(b"\x12\0"))),
                },
            ],
            leader_commit: None,
        };
        let before = format!("{request:?}");
        let Ok(Ask::Append(back)) = Ask::decode(Ask::Append(request).encode(), MemberId(2)) else {
            panic!("an append stays an append");
        };
        assert_eq!(format!("{back:?}"), before);
    }

    #[test]
    fn every_outcome_of_an_append_comes_back() {
        let outcomes = [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::PartialSuccess(Some(at(1, 2))),
            AppendEntriesResponse::PartialSuccess(None),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(RaftVote::new(8, 1)),
        ];
        for outcome in outcomes {
            let frame = Answer::Append(outcome.clone()).encode();
            let Ok(Answer::Append(back)) = Answer::decode(frame) else {
                panic!("an append's answer stays one");
            };
            assert_eq!(back, outcome);
        }
    }

    #[test]
    fn garbage_is_a_bad_frame() {
        assert!(Ask::decode(Bytes::from_static(b"\xff\xff"), MemberId(2)).is_err());
        let membership = Ask::Propose(Bytes::from_static(b"\x1a\0"));
        assert!(Ask::decode(membership.encode(), MemberId(2)).is_err(), "no packed entry");
        assert!(Answer::decode(Bytes::new()).is_err());
    }

    #[test]
    fn every_outcome_of_a_forwarded_call_comes_back() {
        let leader = Some(MemberId(7));
        let proposals = [
            Ok(()),
            Err(ProposeError::NotLeader { leader }),
            Err(ProposeError::NotLeader { leader: None }),
            Err(ProposeError::Discarded),
            Err(ProposeError::TooLarge),
        ];
        for outcome in proposals {
            let frame = Answer::Propose(outcome.clone()).encode();
            let Ok(Answer::Propose(back)) = Answer::decode(frame) else { panic!("{outcome:?}") };
            assert_eq!(back, outcome);
        }
        let reads = [
            Ok(9),
            Err(ReadIndexError::NotLeader { leader }),
            Err(ReadIndexError::NoQuorum),
            Err(ReadIndexError::TooMany),
        ];
        for outcome in reads {
            let frame = Answer::ReadIndex(outcome.clone()).encode();
            let Ok(Answer::ReadIndex(back)) = Answer::decode(frame) else { panic!("{outcome:?}") };
            assert_eq!(back, outcome);
        }
    }

    #[test]
    fn a_handover_is_to_whom_it_reached() {
        let request = TransferLeaderRequest::new(RaftVote::new_committed(3, 9), 2, Some(at(3, 8)));
        let frame = Ask::Handover { round: 5, request: request.clone() }.encode();
        let Ok(Ask::Handover { round, request: back }) = Ask::decode(frame, MemberId(2)) else {
            panic!("a handover stays one");
        };
        assert_eq!((round, back), (5, request));
        let frame = Ask::HandoverStands(7).encode();
        assert!(matches!(Ask::decode(frame, MemberId(2)), Ok(Ask::HandoverStands(7))));
    }
}
