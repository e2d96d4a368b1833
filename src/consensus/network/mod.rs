//! openraft's network over a [`Transport`].
//!
//! ```text
//!   replication --> Client(Log) -------\
//!   heartbeat   --> Client(Heartbeat) --+--> frame --> Transport::exchange --> the member's Consensus::serve_peer
//!   snapshot    --> Client(Snapshot) --/
//! ```
//!
//! Each purpose has a lane of its own, and the transport keeps a lane's connection: openraft calls the heartbeat
//! client with a one-element stream each time, which must not dial each time.

mod frames;
mod transport;

use std::future::Future;
use std::sync::Arc;

use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2, Snapshot};
use quorate_core::api::ids::{GroupId, MemberId};

use super::snapshot_adapter::Handle;
use super::types::{CommittedLeader, PeerNode, RaftVote, TypeConfig};
pub use frames::BadFrame;
pub(crate) use frames::{Answer, Ask};
pub use transport::{Lane, NoPeers, Purpose, Transport, TransportError};

/// Makes a client for each member and purpose.
pub(crate) struct Network {
    group: GroupId,
    from: MemberId,
    transport: Arc<dyn Transport>,
}

impl Network {
    pub(crate) fn new(group: GroupId, from: MemberId, transport: Arc<dyn Transport>) -> Self {
        Network { group, from, transport }
    }

    fn client(&self, to: u64, node: &PeerNode, purpose: Purpose) -> Client {
        Client {
            lane: Lane {
                group: self.group,
                from: self.from,
                to: MemberId(to),
                peer_urls: node.peer_urls.clone(),
                purpose,
            },
            transport: Arc::clone(&self.transport),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Client {
        self.client(target, node, Purpose::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerNode) -> Client {
        self.client(target, node, Purpose::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &PeerNode) -> Client {
        self.client(target, node, Purpose::Snapshot)
    }
}

/// Calls one member, for one purpose.
pub(crate) struct Client {
    lane: Lane,
    transport: Arc<dyn Transport>,
}

impl Client {
    async fn ask(&self, ask: Ask) -> Result<Answer, RPCError<TypeConfig>> {
        let frame = ask.encode();
        let answer = self.transport.exchange(&self.lane, frame).await.map_err(rpc_error)?;
        Answer::decode(answer).map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }

    fn out_of_step(&self) -> RPCError<TypeConfig> {
        let to = self.lane.to;
        RPCError::Network(NetworkError::from_string(format!(
            "member {to} answered another question than was asked"
        )))
    }
}

fn rpc_error(error: TransportError) -> RPCError<TypeConfig> {
    match error {
        TransportError::Unreachable(..) => RPCError::Unreachable(Unreachable::new(&error)),
        TransportError::Broken(..) => RPCError::Network(NetworkError::new(&error)),
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = Handle;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.ask(Ask::Append(rpc)).await? {
            Answer::Append(response) => Ok(response),
            Answer::Vote(_)
            | Answer::Propose(_)
            | Answer::ReadIndex(_)
            | Answer::Handover { .. }
            | Answer::Keyspace(_) => Err(self.out_of_step()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.ask(Ask::Vote(rpc)).await? {
            Answer::Vote(response) => Ok(response),
            Answer::Append(_)
            | Answer::Propose(_)
            | Answer::ReadIndex(_)
            | Answer::Handover { .. }
            | Answer::Keyspace(_) => Err(self.out_of_step()),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.ask(Ask::PreVote(rpc)).await? {
            Answer::Vote(response) => Ok(response),
            Answer::Append(_)
            | Answer::Propose(_)
            | Answer::ReadIndex(_)
            | Answer::Handover { .. }
            | Answer::Keyspace(_) => Err(self.out_of_step()),
        }
    }

    async fn full_snapshot(
        &mut self,
        _vote: RaftVote,
        _snapshot: Snapshot<CommittedLeader, u64, PeerNode, Handle>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(StreamingError::Unreachable(Unreachable::from_string(
            "sending a whole state to a member is not implemented",
        )))
    }
}
