//! What members ask each other, to and from protobuf: openraft's own types never reach the wire.

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use prost::Message as _;
use quorate_core::api::ids::{LogId, MemberId};
use quorate_core::api::pb::internal::{
    Blank, LogPosition, PeerAppend, PeerAppended, PeerBallot, PeerEntry, PeerRequest, PeerResponse,
    PeerUpTo, PeerVote, PeerVoted, peer_appended, peer_request, peer_response,
};

use crate::consensus::convert;
use crate::consensus::types::{RaftLogId, RaftVote, TypeConfig};
use crate::storage::journal::{LogRecord, Vote};

/// A question to a member.
pub(crate) enum Ask {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
}

/// Its answer.
pub(crate) enum Answer {
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
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
        };
        Bytes::from(PeerRequest { ask: Some(ask) }.encode_to_vec())
    }

    pub(crate) fn decode(frame: Bytes) -> Result<Self, BadFrame> {
        let request = PeerRequest::decode(frame).map_err(bad)?;
        match request.ask {
            Some(peer_request::Ask::Append(from)) => Ok(Ask::Append(raft_append(from)?)),
            Some(peer_request::Ask::Vote(from)) => Ok(Ask::Vote(raft_vote(from)?)),
            Some(peer_request::Ask::PreVote(from)) => Ok(Ask::PreVote(raft_vote(from)?)),
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

fn ballot(vote: &RaftVote) -> PeerBallot {
    PeerBallot {
        term: vote.leader_id.term,
        member_id: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

fn raft_ballot(from: Option<PeerBallot>) -> Result<RaftVote, BadFrame> {
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
        let Ok(Ask::Append(back)) = Ask::decode(Ask::Append(request).encode()) else {
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
        assert!(Ask::decode(Bytes::from_static(b"\xff\xff")).is_err());
        assert!(Answer::decode(Bytes::new()).is_err());
    }
}
