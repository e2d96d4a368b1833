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
//!
//! Appends are pipelined: up to [`WINDOW`] of them, and [`WINDOW_BYTES`], are under way on a lane, which keeps their
//! order, and the first that is not taken whole ends the stream.
//!
//! **Invariant:** openraft is not told that entries up to n were taken while a later append that ends at n, one with
//! nothing but a commit index, is under way. It takes the answer for one to all that end there, dates the quorum's
//! acknowledgement by the last of them (`InflightAppendQueue::drain_acked`), and a leader that was replaced while its
//! answers lay in a cut connection would confirm reads by them.

mod frames;
mod shipment;
mod transport;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, FuturesOrdered, StreamExt as _};
use futures::{FutureExt as _, Stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, VoteRequest,
    VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use quorate_core::api::ids::{GroupId, MemberId};

use super::leader::Answered;
use super::purge::Floor;
use super::snapshot_adapter::{Handle, HandleSnapshot};
use super::snapshots::{Broke, Outgoing};
use super::types::{PeerNode, RaftLogId, RaftVote, TypeConfig};
use crate::support::failpoints::failpoint;
pub use frames::BadFrame;
pub(crate) use frames::{Answer, Ask};
pub(crate) use shipment::{Shipment, Step, Taken};
pub use transport::{Lane, NoPeers, Purpose, Transport, TransportError};

/// Appends under way to one member: a few hide the round trip and the other's fsync.
const WINDOW: usize = 16;

/// Bytes under way beyond which no further append is sent; one carries a mebibyte, or one entry if that is longer.
pub const WINDOW_BYTES: usize = 8 << 20;

/// And when a stream begins: a member that was away is not handed all of that at once.
const FIRST_BYTES: usize = 1 << 20;

/// How often a member that cannot be reached is tried: each time up to a mebibyte of log is read for it.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// Makes a client for each member and purpose.
pub(crate) struct Network {
    group: GroupId,
    from: MemberId,
    transport: Arc<dyn Transport>,
    outgoing: Arc<Outgoing>,
    floor: Floor,
    answered: Arc<Answered>,
}

impl Network {
    pub(crate) fn new(
        group: GroupId,
        from: MemberId,
        transport: Arc<dyn Transport>,
        outgoing: Arc<Outgoing>,
        floor: Floor,
        answered: Arc<Answered>,
    ) -> Self {
        Network { group, from, transport, outgoing, floor, answered }
    }

    fn client(&self, to: u64, purpose: Purpose) -> Client {
        let lane = Lane { group: self.group, from: self.from, to: MemberId(to), purpose };
        Client {
            lane,
            transport: Arc::clone(&self.transport),
            outgoing: Arc::clone(&self.outgoing),
            floor: self.floor.clone(),
            answered: Arc::clone(&self.answered),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, _node: &PeerNode) -> Client {
        self.client(target, Purpose::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &PeerNode) -> Client {
        self.client(target, Purpose::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, _node: &PeerNode) -> Client {
        self.client(target, Purpose::Snapshot)
    }
}

/// Calls one member, for one purpose.
pub(crate) struct Client {
    lane: Lane,
    transport: Arc<dyn Transport>,
    outgoing: Arc<Outgoing>,
    floor: Floor,
    answered: Arc<Answered>,
}

impl Client {
    /// The question is queued by the call, not by the first poll.
    fn ask(&self, ask: Ask) -> impl Future<Output = Result<Answer, RPCError<TypeConfig>>> + Send {
        self.send(ask.encode())
    }

    fn send(
        &self,
        frame: Bytes,
    ) -> impl Future<Output = Result<Answer, RPCError<TypeConfig>>> + Send {
        self.transport.exchange(&self.lane, frame).map(|answered| {
            let answer = answered.map_err(rpc_error)?;
            self.answered.now(self.lane.to);
            Answer::decode(answer).map_err(|error| RPCError::Network(NetworkError::new(&error)))
        })
    }

    /// The member needs entries that go: openraft then turns to a whole state.
    fn too_far_behind(&self) -> RPCError<TypeConfig> {
        let to = self.lane.to;
        RPCError::Network(NetworkError::from_string(format!(
            "the log that member {to} needs is not kept any more"
        )))
    }

    fn out_of_step(&self) -> RPCError<TypeConfig> {
        let to = self.lane.to;
        RPCError::Network(NetworkError::from_string(format!(
            "member {to} answered another question than was asked"
        )))
    }
}

/// How an append of a stream went, whether the stream ends with it, and how long its frame was.
struct Appended {
    result: Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>,
    ends: bool,
    bytes: usize,
}

impl Appended {
    fn goes_on(&self) -> bool {
        self.result.is_ok() && !self.ends
    }
}

/// The appends of one stream that are under way, in order.
struct Window<'s, S> {
    client: &'s Client,
    input: S,
    more: bool,
    under_way: FuturesOrdered<BoxFuture<'s, Appended>>,
    /// Where each of them ends.
    lasts: VecDeque<Option<RaftLogId>>,
    bytes: usize,
    /// Bytes that may be under way: few at first, and more as they are answered.
    limit: usize,
}

impl<'s, S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin> Window<'s, S> {
    /// The next that is answered, while others are sent.
    async fn next(&mut self) -> Option<Appended> {
        loop {
            let wanted = self.more && self.under_way.len() < WINDOW && self.bytes < self.limit;
            tokio::select! {
                biased;
                rpc = self.input.next(), if wanted => match rpc {
                    Some(rpc) => {
                        failpoint!(wait raftBeforeSave);
                        self.send(rpc);
                    }
                    None => self.more = false,
                },
                appended = self.under_way.next(), if !self.under_way.is_empty() => {
                    let answered = appended.as_ref().map_or(0, |appended| appended.bytes);
                    self.bytes -= answered;
                    self.limit = WINDOW_BYTES.min(self.limit + answered);
                    let last = self.lasts.pop_front();
                    let whole = appended.as_ref().is_some_and(Appended::goes_on);
                    // A later one that ends where this one does: its answer says the same, and when.
                    if !whole || self.lasts.front() != last.as_ref() {
                        return appended;
                    }
                }
                else => return None,
            }
        }
    }

    fn send(&mut self, rpc: AppendEntriesRequest<TypeConfig>) {
        let client = self.client;
        let prev = rpc.prev_log_id;
        let last = rpc.entries.last().map_or(prev, |entry| Some(entry.log_id));
        self.lasts.push_back(last);
        if client.lane.purpose == Purpose::Log && client.floor.is_above(prev.map(|at| at.index)) {
            let result = Err(client.too_far_behind());
            self.under_way.push_back(Box::pin(async { Appended { result, ends: true, bytes: 0 } }));
            return;
        }
        let frame = Ask::Append(rpc).encode();
        let bytes = frame.len();
        let answered = client.send(frame);
        self.bytes += bytes;
        self.under_way.push_back(Box::pin(async move {
            let response = match answered.await.map(appended) {
                // Nothing can conflict with the empty log.
                Ok(Some(AppendEntriesResponse::Conflict)) if prev.is_none() => {
                    Err(client.out_of_step())
                }
                Ok(response) => response.ok_or_else(|| client.out_of_step()),
                Err(error) => Err(error),
            };
            let short = match &response {
                Ok(AppendEntriesResponse::PartialSuccess(up_to)) => *up_to != last,
                Ok(
                    AppendEntriesResponse::Success
                    | AppendEntriesResponse::Conflict
                    | AppendEntriesResponse::HigherVote(_),
                ) => false,
                Err(_) => true,
            };
            let result = response.map(|response| response.into_stream_result(prev, last));
            let ends = short || matches!(result, Ok(Err(_)));
            Appended { result, ends, bytes }
        }));
    }
}

/// `None`: another question was answered.
fn appended(answer: Answer) -> Option<AppendEntriesResponse<TypeConfig>> {
    let Answer::Append(response) = answer else { return None };
    Some(response)
}

fn voted(answer: Answer) -> Option<VoteResponse<TypeConfig>> {
    let Answer::Vote(response) = answer else { return None };
    Some(response)
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
        // etcd's loop that saves is the one that sends: while it stands still, so do heartbeats.
        failpoint!(wait raftBeforeSave);
        appended(self.ask(Ask::Append(rpc)).await?).ok_or_else(|| self.out_of_step())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let under_way = FuturesOrdered::new();
        let (bytes, limit) = (0, FIRST_BYTES);
        let (client, lasts, more) = (&*self, VecDeque::new(), true);
        let window = Window { client, input, more, under_way, lasts, bytes, limit };
        // Up to and with the first that ends the stream.
        let answers = stream::unfold(Some(window), |window| async move {
            let mut window = window?;
            let appended = window.next().await?;
            Some((appended.result, (!appended.ends).then_some(window)))
        });
        let answers: BoxStream<'s, _> = Box::pin(answers);
        Box::pin(async { Ok(answers) })
    }

    /// Between two tries of a member that cannot be reached. openraft's own policy grows to a second, and one that is
    /// back again would wait for it, once for the first append and once more for the second.
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(TRY_EVERY)))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        voted(self.ask(Ask::Vote(rpc)).await?).ok_or_else(|| self.out_of_step())
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        voted(self.ask(Ask::PreVote(rpc)).await?).ok_or_else(|| self.out_of_step())
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: HandleSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let Handle::Source(source) = snapshot.snapshot else {
            return Err(ReplicationClosed::new("a received state is none to be sent").into());
        };
        let client = &*self;
        let ship = |shipment| {
            let asked = client.ask(Ask::Snapshot(shipment));
            async move {
                let Answer::Snapshot(taken) = asked.await? else {
                    return Err(client.out_of_step());
                };
                Ok(taken)
            }
        };
        let sent = client.outgoing.send(client.lane.to, vote, source, ship);
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = tokio::time::timeout(option.hard_ttl(), sent) => match sent {
                Ok(answered) => answered.map(SnapshotResponse::new).map_err(Broke::into_error),
                Err(_elapsed) => {
                    let words = "a whole state took too long; it goes on where it stopped";
                    Err(NetworkError::from_string(words).into())
                }
            },
        }
    }
}

#[cfg(test)]
mod window_test;
