//! What members ask each other beside raft's own questions: asked here of the leader, and answered here for others.
//!
//! ```text
//!   forward ---- Propose, in order ----> the leader's propose --> its log --> applied everywhere
//!   read round - ReadIndex ------------> one of the leader's own rounds
//!   ask_keyspace  opaque bytes --------> the keyspace above the leader's raft
//!   transfer --- Handover -------------> the successor campaigns
//! ```
//!
//! **Invariant:** a proposal is answered only when it has been applied by the member asked, or with why it was not;
//! a broken way leaves it unknown, and only its proposer may send it again.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::RaftError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use quorate_core::api::ids::{GroupId, MemberId, Term};
use tokio::time::Instant;

use super::network::{Answer, Ask, BadFrame, Lane, Purpose, Transport, TransportError};
use super::types::TypeConfig;
use super::{Consensus, ProposeError, Raft, ReadIndexError};

/// A peer's frame had no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It does not decode.
    #[error(transparent)]
    BadFrame(#[from] BadFrame),
    /// Raft refused or stopped.
    #[error("raft: {0}")]
    Raft(String),
}

/// What is to be done with a frame of another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// This is the answer.
    Answer(Bytes),
    /// The keyspace above is asked this; its words go back by [`keyspace_answer`].
    Keyspace(Bytes),
}

/// The answer to [`Served::Keyspace`], as a frame.
pub fn keyspace_answer(response: Bytes) -> Bytes {
    Answer::Keyspace(response).encode()
}

/// A question to another member had no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The frame or its answer was lost; it may have been acted upon.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The answer makes no sense.
    #[error(transparent)]
    BadFrame(#[from] BadFrame),
}

/// The way to the other members of the group.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) group: GroupId,
    pub(crate) member: MemberId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) raft: Raft,
}

impl Peers {
    fn lane(&self, to: MemberId, purpose: Purpose) -> Lane {
        Lane { group: self.group, from: self.member, to, purpose }
    }

    /// Asks when first polled.
    pub(crate) fn ask(
        &self,
        to: MemberId,
        purpose: Purpose,
        ask: Ask,
    ) -> impl Future<Output = Result<Answer, AskError>> + Send + use<> {
        let lane = self.lane(to, purpose);
        let transport = Arc::clone(&self.transport);
        async move {
            let answer = transport.exchange(&lane, ask.encode()).await?;
            Ok(Answer::decode(answer)?)
        }
    }

    /// The read index of the leader `to`, from a round of its own that begins after this.
    pub(crate) async fn read_index(&self, to: MemberId) -> Result<u64, ReadIndexError> {
        match self.ask(to, Purpose::Heartbeat, Ask::ReadIndex).await {
            Ok(Answer::ReadIndex(outcome)) => outcome,
            Ok(_) | Err(_) => Err(ReadIndexError::NotLeader { leader: None }),
        }
    }
}

impl Consensus {
    /// Hands a proposal to the leader `to`, in order with other calls of one task, and waits until it was applied
    /// there or was not. The call itself does nothing: the first poll sends.
    pub fn forward(
        &self,
        to: MemberId,
        payload: Bytes,
    ) -> impl Future<Output = Result<(), ProposeError>> + Send + use<> {
        let asked = self.0.peers.ask(to, Purpose::Forward, Ask::Propose(payload));
        async move {
            match asked.await {
                Ok(Answer::Propose(outcome)) => outcome,
                Ok(_) => Err(ProposeError::Lost("another question was answered".to_owned())),
                Err(error) => Err(ProposeError::Lost(error.to_string())),
            }
        }
    }

    /// Asks the keyspace of another member; the bytes are its own words both ways.
    pub async fn ask_keyspace(&self, to: MemberId, request: Bytes) -> Result<Bytes, AskError> {
        let answer = self.0.peers.ask(to, Purpose::Keyspace, Ask::Keyspace(request)).await?;
        let Answer::Keyspace(response) = answer else {
            return Err(BadFrame("another question was answered".to_owned()).into());
        };
        Ok(response)
    }

    /// When a leader of a term before `term` was last heard here; `None` as long as this member's vote is of an earlier
    /// one, or if another term has begun since.
    pub fn heard_before(&self, term: Term) -> Option<Instant> {
        let vote = self.0.raft.server_metrics().borrow_watched().vote.leader_id.term;
        self.0.silence.told(Term(vote), term)
    }

    /// Answers one frame of another member, which the transport has identified. Frames of a lane are to be polled
    /// for the first time in the order of their arrival.
    pub async fn serve_peer(&self, frame: Bytes) -> Result<Served, PeerError> {
        let (raft, bytes) = (&self.0.raft, frame.len());
        let answer = match Ask::decode(frame, self.0.settings.member)? {
            Ask::Append(request) => {
                self.0.silence.heard(Term(request.vote.leader_id.term));
                let due = self.due(&request, bytes);
                let response = raft.append_entries(request).await.map_err(failed)?;
                match &response {
                    AppendEntriesResponse::Success
                    | AppendEntriesResponse::PartialSuccess(_)
                    | AppendEntriesResponse::Conflict => self.0.heard.now(),
                    AppendEntriesResponse::HigherVote(_) => {}
                }
                if let Some(due) = due {
                    tokio::time::sleep_until(due).await;
                }
                Answer::Append(response)
            }
            Ask::Vote(request) => Answer::Vote(raft.vote(request).await.map_err(failed)?),
            Ask::PreVote(request) => Answer::Vote(raft.pre_vote(request).await.map_err(failed)?),
            Ask::Propose(payload) => Answer::Propose(self.propose_for_another(payload).await?),
            Ask::ReadIndex => Answer::ReadIndex(self.read_index_for_another().await?),
            Ask::Handover { round, request } => {
                Answer::Handover { taken: self.take_over(round, request).await? }
            }
            Ask::HandoverStands(round) => {
                Answer::Handover { taken: self.0.handing_over.stands(round) }
            }
            Ask::Keyspace(request) => return Ok(Served::Keyspace(request)),
            Ask::Snapshot(shipment) => {
                self.0.silence.heard(Term(shipment.vote.leader_id.term));
                Answer::Snapshot(self.0.incoming.take(shipment).await)
            }
        };
        Ok(Served::Answer(answer.encode()))
    }

    /// When an append is to be answered: see [`CatchUp`](super::catch_up::CatchUp).
    fn due(&self, request: &AppendEntriesRequest<TypeConfig>, bytes: usize) -> Option<Instant> {
        let last = request.entries.last()?.log_id.index;
        let committed = request.leader_commit.map_or(0, |at| at.index);
        self.0.catch_up.due(last, committed, bytes)
    }

    async fn propose_for_another(
        &self,
        payload: Bytes,
    ) -> Result<Result<(), ProposeError>, PeerError> {
        let outcome = match self.propose(payload).await {
            Ok(ticket) => ticket.await,
            Err(error) => Err(error),
        };
        match outcome {
            Err(ProposeError::Stopped(cause) | ProposeError::Lost(cause)) => {
                Err(PeerError::Raft(cause))
            }
            outcome => Ok(outcome),
        }
    }

    /// Never asks a third member: the asker finds the leader by itself.
    async fn read_index_for_another(&self) -> Result<Result<u64, ReadIndexError>, PeerError> {
        let leader = self.leader_view().leader();
        if leader != Some(self.0.settings.member) {
            return Ok(Err(ReadIndexError::NotLeader { leader }));
        }
        match self.0.rounds.read_index().await {
            Err(ReadIndexError::Stopped) => Err(PeerError::Raft("stopped".to_owned())),
            outcome => Ok(outcome),
        }
    }
}

fn failed(error: RaftError<TypeConfig>) -> PeerError {
    PeerError::Raft(error.to_string())
}
