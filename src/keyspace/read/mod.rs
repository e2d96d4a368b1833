//! Reads: which state they may see, then rows in slices.
//!
//! ```text
//!   linearizable: read index (a round that begins after the call) --> wait until applied here --\
//!   serializable: --------------------------------------------------------------------------------> may the caller?
//!                                                    rows in slices (shared lock, bounded) --> values without it
//! ```
//!
//! **Invariant:** a linearizable read never looks at the state before the index its round named has been applied,
//! even on the leader: a follower may have answered a write that this member has yet to apply.

mod stream;

use std::sync::Arc;
use std::time::Duration;

use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::request_op::Request as Op;
use quorate_core::api::refusal::Refusal;
use quorate_core::state_machine::{Limits, RangeWork};
use tokio::time::{Instant, timeout, timeout_at};

use super::RangeChunks;
use super::error::{KeyspaceError, TimeoutKind};
use super::figures::KeyspaceFigures;
use super::state::State;
use crate::consensus::{Consensus, ReadIndexError};

/// Rows picked under the machine's lock at once. On one thread this is also what other tasks wait for.
const SLICE_ROWS: usize = 1024;
/// Revisions a read-only txn fetches ahead at most.
const PREFETCH_MAX: usize = 10_000;
/// etcd asks again this often while no read index comes (etcdserver/v3_server.go, `readIndexRetryTime`).
const RETRY: Duration = Duration::from_millis(500);
/// Before whoever has just said that it does not lead, or is out of reach, is asked again.
const REFUSED: Duration = Duration::from_millis(50);

/// Serves reads of one keyspace.
pub(crate) struct Reader {
    pub(crate) state: Arc<State>,
    pub(crate) consensus: Consensus,
    pub(crate) limits: Limits,
    pub(crate) request_timeout: Duration,
    pub(crate) request_bytes_max: usize,
    pub(crate) figures: Arc<KeyspaceFigures>,
}

impl Reader {
    /// Returns once this member's state is at least as new as any write acknowledged before the call.
    pub(crate) async fn linearize(&self) -> Result<(), KeyspaceError> {
        let deadline = Instant::now() + self.request_timeout;
        let reached = async {
            let index = self.read_index().await?;
            self.state.wait_applied(index).await
        };
        match timeout_at(deadline, reached).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                self.figures.slow_read_indexes.inc();
                Err(KeyspaceError::Timeout(TimeoutKind::Plain))
            }
        }
    }

    async fn read_index(&self) -> Result<u64, KeyspaceError> {
        let mut leader = self.consensus.leader_changes();
        loop {
            // As it was before anybody was asked: what changes meanwhile is news, and not waited for.
            let asked = *leader.borrow_and_update();
            let rest = match self.consensus.read_index().await {
                Ok(index) => return Ok(index),
                Err(ReadIndexError::NotLeader { .. }) if asked.leader().is_some() => REFUSED,
                Err(ReadIndexError::NotLeader { .. } | ReadIndexError::NoQuorum) => RETRY,
                Err(ReadIndexError::TooMany) => return Err(KeyspaceError::TooManyRequests),
                Err(ReadIndexError::Stopped) => return Err(KeyspaceError::Stopped),
            };
            self.figures.failed_read_indexes.inc();
            let another = leader.wait_for(|now| {
                now.leader().is_some() && (now.leader(), now.term) != (asked.leader(), asked.term)
            });
            match timeout(rest, another).await {
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(_ended)) => return Err(KeyspaceError::Stopped),
            }
        }
    }

    /// Range over what is applied here, whatever that is.
    pub(crate) async fn range(
        &self,
        request: pb::RangeRequest,
    ) -> Result<pb::RangeResponse, KeyspaceError> {
        let began = Instant::now();
        let answered = self.pick_and_fetch(request).await;
        self.figures.ranged(answered.is_ok(), began.elapsed());
        answered
    }

    async fn pick_and_fetch(
        &self,
        request: pb::RangeRequest,
    ) -> Result<pb::RangeResponse, KeyspaceError> {
        let newest = request.revision <= 0;
        let mut work = RangeWork::new(request.clone());
        let mut long = false;
        let mut began = None;
        // Rows of earlier slices may have been picked in an older generation. The last slice saw that the revision
        // they are read at is not compacted in this one, so it has their values too.
        let view = loop {
            {
                let now = self.state.machine.read();
                let same = *began.get_or_insert(now.number()) == now.number();
                match work.step(&now, SLICE_ROWS) {
                    Ok(true) => break now.view(),
                    Ok(false) => {}
                    // It asked for no revision, so it is not told that one is compacted.
                    Err(Refusal::Compacted) if newest && !same => {
                        work = RangeWork::new(request.clone());
                        began = None;
                    }
                    Err(refusal) => return Err(refusal.into()),
                }
            }
            long = true;
            tokio::task::yield_now().await;
        };
        if long || work.is_cold() {
            let finish = move || work.finish(&view);
            return Ok(self.state.blocking.run(finish).await?);
        }
        Ok(work.finish(&view)?)
    }

    /// A txn that only reads, over the same.
    pub(crate) async fn read_only_txn(
        &self,
        request: pb::TxnRequest,
    ) -> Result<pb::TxnResponse, KeyspaceError> {
        let (view, cold) = {
            let now = self.state.machine.read();
            let cold = now.read_only_cold(&request, PREFETCH_MAX);
            if !is_long(&request) && cold.is_empty() {
                return Ok(now.read_only(&now.view(), &request)??);
            }
            (now.view(), cold)
        };
        let fetched = self.state.prefetch(view, cold).await?;
        let state = Arc::clone(&self.state);
        let answer = move || {
            let now = state.machine.read();
            now.read_only(&fetched.over(now.view()), &request)
        };
        Ok(self.state.blocking.run(answer).await??)
    }

    /// RangeStream over the same. What is not in the order of its keys is sorted as a whole before it is cut.
    pub(crate) async fn range_stream(
        &self,
        request: pb::RangeRequest,
    ) -> Result<RangeChunks, KeyspaceError> {
        if request.count_only {
            let counted = self.range(request).await?;
            return Ok(stream::counted(counted));
        }
        if request.sort_target() != pb::range_request::SortTarget::Key {
            let sorted = self.range(request).await?;
            return Ok(stream::cut(sorted, self.request_bytes_max));
        }
        let chunks = stream::Chunks::new(Arc::clone(&self.state), request, self.request_bytes_max);
        chunks.into_stream().await
    }
}

/// Its ranges may visit many keys under one lock: then rather not on the runtime's thread.
fn is_long(request: &pb::TxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.any(|op| match &op.request {
        Some(Op::RequestRange(range)) => !range.range_end.is_empty(),
        Some(Op::RequestPut(_) | Op::RequestDeleteRange(_) | Op::RequestTxn(_)) | None => false,
    }) || request.compare.iter().any(|compare| !compare.range_end.is_empty())
}
