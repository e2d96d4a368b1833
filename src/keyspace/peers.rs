//! What the other members ask of this one, and what this one asks of the leader: leases live in its memory, and it
//! alone changes the members. A hash is asked of every member, which cluster level it understands, and since when
//! earlier leaders are silent.
//!
//! ```text
//!   keep-alive, time to live --> this member leads: the lessor
//!   change of the members    --> another leads:     KeyspaceRequest -- Purpose::Keyspace -> its lessor
//!                            --> nobody, or in vain: again, until the request has run out of time
//! ```
//!
//! etcd does the same over HTTP on the peer port (`server/lease/leasehttp`, etcdserver/v3_server.go `LeaseRenew`).

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use quorate_core::api::ids::{LeaseId, MemberId, Term};
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::internal::keyspace_request::Ask;
use quorate_core::api::pb::internal::keyspace_response::Answer;
use quorate_core::api::pb::internal::{Blank, KeyspaceRequest, KeyspaceResponse};
use quorate_core::state_machine::CLUSTER_LEVEL;
use tokio::time::{Instant, timeout, timeout_at};

use super::lease::{NotLeader, RenewError, tell};
use super::{Keyspace, KeyspaceError, TimeoutKind};
use crate::consensus::{Consensus, PeerError, Served, keyspace_answer};

/// Between two tries to have the leader answer.
const RETRY: Duration = Duration::from_millis(50);
/// How long another member's call may take here; it asks again. Longer calls would hold up those behind them.
const SERVE: Duration = Duration::from_secs(1);

/// Asks the member `to` once.
pub(super) async fn ask_member(consensus: &Consensus, to: MemberId, ask: Ask) -> Answer {
    let request = Bytes::from(KeyspaceRequest { ask: Some(ask) }.encode_to_vec());
    let Ok(Ok(response)) = timeout(2 * SERVE, consensus.ask_keyspace(to, request)).await else {
        return Answer::Failed(Blank {});
    };
    let response = KeyspaceResponse::decode(response).unwrap_or_default();
    response.answer.unwrap_or(Answer::Failed(Blank {}))
}

impl Keyspace {
    /// Answers one frame of another member, which the transport has identified. Frames of a lane are to be polled
    /// for the first time in the order of their arrival.
    pub async fn serve_peer(&self, frame: Bytes) -> Result<Bytes, PeerError> {
        let request = match self.0.consensus.serve_peer(frame).await? {
            Served::Answer(answer) => return Ok(answer),
            Served::Keyspace(request) => request,
        };
        let answer = match KeyspaceRequest::decode(request) {
            Ok(KeyspaceRequest { ask: Some(ask) }) => {
                let answered = timeout(SERVE, self.answer(&ask)).await;
                answered.unwrap_or(Answer::Failed(Blank {}))
            }
            // Of a later version of this software: nothing that was promised.
            Ok(KeyspaceRequest { ask: None }) | Err(_) => Answer::Failed(Blank {}),
        };
        let response = KeyspaceResponse { answer: Some(answer) };
        Ok(keyspace_answer(Bytes::from(response.encode_to_vec())))
    }

    /// Has the leader answer, be it this member or another.
    pub(super) async fn ask_leader(&self, ask: Ask) -> Result<Answer, KeyspaceError> {
        let deadline = Instant::now() + self.0.config.request_timeout();
        let answered = async {
            loop {
                match self.ask_once(&ask).await {
                    Answer::NotLeader(Blank {}) | Answer::Failed(Blank {}) => {}
                    answer @ (Answer::LeaseRenewed(_)
                    | Answer::LeaseTimeToLive(_)
                    | Answer::MemberChanged(_)
                    | Answer::HashKv(_)
                    | Answer::Compacted(_)
                    | Answer::FutureRevision(_)
                    | Answer::Pending(_)
                    | Answer::SilentForMs(_)
                    | Answer::KnownLevel(_)) => return answer,
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        let ended = self.0.consensus.wait_ended();
        let answered = async {
            tokio::select! {
                answer = answered => Ok(answer),
                _cause = ended => Err(KeyspaceError::Stopped),
            }
        };
        match timeout_at(deadline, answered).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(match self.leader_view().leader() {
                Some(_) => KeyspaceError::Timeout(TimeoutKind::Plain),
                None => KeyspaceError::NoLeader,
            }),
        }
    }

    pub(super) async fn ask_once(&self, ask: &Ask) -> Answer {
        match self.leader_view().leader() {
            Some(leader) if leader != self.0.config.member_id => {
                ask_member(&self.0.consensus, leader, ask.clone()).await
            }
            Some(_) => self.answer(ask).await,
            None => Answer::NotLeader(Blank {}),
        }
    }

    /// Leases and members as the leader; the rest as any member.
    async fn answer(&self, ask: &Ask) -> Answer {
        match ask {
            Ask::LeaseRenew(id) => match self.0.lessor.renew(LeaseId(*id)).await {
                Ok(ttl) => Answer::LeaseRenewed(ttl),
                Err(RenewError::NotFound) => Answer::LeaseRenewed(0),
                Err(RenewError::NotLeader(NotLeader)) => Answer::NotLeader(Blank {}),
                Err(RenewError::Failed(_)) => Answer::Failed(Blank {}),
            },
            Ask::MemberChange(change) => self.change_as_leader(change).await,
            Ask::HashKv(revision) => self.0.hash_desk.ask(*revision),
            Ask::KnownLevel(Blank {}) => Answer::KnownLevel(CLUSTER_LEVEL),
            Ask::HeardBefore(term) => tell(self.0.consensus.heard_before(Term(*term))),
            Ask::LeaseTimeToLive(request) => {
                let found = self.0.lessor.time_to_live(LeaseId(request.id), request.keys);
                let Ok(live) = found.await else {
                    return Answer::NotLeader(Blank {});
                };
                let mut response = pb::LeaseTimeToLiveResponse {
                    id: request.id,
                    ttl: -1,
                    ..pb::LeaseTimeToLiveResponse::default()
                };
                if let Some(live) = live {
                    response.ttl = live.ttl;
                    response.granted_ttl = live.granted_ttl;
                    response.keys = live.keys;
                }
                Answer::LeaseTimeToLive(response)
            }
        }
    }
}
