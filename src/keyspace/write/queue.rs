//! Requests that wait to be proposed, already encoded.

use std::collections::VecDeque;

use parking_lot::Mutex;
use quorate_core::api::ids::Term;
use quorate_core::api::pb::internal::Command;
use tokio::sync::{Notify, oneshot};

use super::batch::{Batch, HEADROOM};
use super::{Outcome, Waiter};
use crate::keyspace::error::KeyspaceError;

/// A batch takes no more requests once it is this long; one long request may exceed it alone.
const BATCH_BYTES: usize = 1 << 20;
/// Encoded requests that may wait; more are refused with `too many requests`. etcd bounds committed but unapplied
/// entries instead (5000), of which there are never more here than batches in flight.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// Filled by any task, emptied by the proposer.
///
/// **Invariant:** a batch, sealed, is no longer than the log's longest entry.
#[derive(Debug)]
pub(crate) struct Queue {
    /// The most that a batch's requests may come to.
    batch_bytes_max: usize,
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    bytes: usize,
    closed: bool,
    /// Requests that ever came.
    came: u64,
    /// Requests that ever left with a batch, in the order they came.
    left: u64,
}

/// A request in the queue.
#[derive(Debug)]
pub(super) struct Submitted {
    /// Hears its outcome.
    pub(super) told: oneshot::Receiver<Outcome>,
    /// Its place among all that ever came.
    pub(super) place: u64,
}

impl Queue {
    /// A queue for a log whose entries are at most `entry_bytes_max` long.
    pub(crate) fn new(entry_bytes_max: usize) -> Queue {
        Queue {
            batch_bytes_max: entry_bytes_max.saturating_sub(HEADROOM),
            waiting: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// Encodes a request behind those that wait. With `only_in` it enters the log by this member, as the leader of
    /// that term, or not at all.
    pub(super) fn submit(
        &self,
        command: &Command,
        only_in: Option<Term>,
    ) -> Result<Submitted, KeyspaceError> {
        let bytes = Batch::cost(command);
        if bytes > self.batch_bytes_max {
            return Err(KeyspaceError::RequestTooLarge);
        }
        let (tell, told) = oneshot::channel();
        let (first, place) = {
            let mut waiting = self.waiting.lock();
            if waiting.closed {
                return Err(KeyspaceError::Stopped);
            }
            if waiting.bytes > WAITING_BYTES_MAX {
                return Err(KeyspaceError::TooManyRequests);
            }
            let first = waiting.push(command, tell, only_in, self.batch_bytes_max - bytes);
            waiting.came += 1;
            (first, waiting.came)
        };
        if first {
            self.arrived.notify_one();
        }
        Ok(Submitted { told, place })
    }

    /// The request at `place` has left the queue.
    pub(super) fn has_left(&self, place: u64) -> bool {
        self.waiting.lock().left >= place
    }

    /// Returns when there is a batch to take, or the queue is closed. May be dropped and called again.
    pub(super) async fn ready(&self) {
        while !self.is_ready() {
            self.arrived.notified().await;
        }
    }

    fn is_ready(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.closed || !waiting.batches.is_empty()
    }

    /// The oldest batch, without requests that were given up meanwhile.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut batch = {
            let mut waiting = self.waiting.lock();
            let batch = waiting.batches.pop_front()?;
            waiting.bytes -= batch.len();
            waiting.left += batch.count() as u64;
            batch
        };
        batch.drop_abandoned();
        (!batch.is_empty()).then_some(batch)
    }

    /// Takes no more requests; those that wait may still be proposed.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Closed, and nothing waits any more.
    pub(super) fn is_finished(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.closed && waiting.batches.is_empty()
    }

    /// Closes, and answers everyone who waits with `error`.
    pub(super) fn fail(&self, error: &KeyspaceError) {
        let batches = {
            let mut waiting = self.waiting.lock();
            waiting.closed = true;
            waiting.bytes = 0;
            std::mem::take(&mut waiting.batches)
        };
        for waiter in batches.into_iter().flat_map(Batch::into_waiters) {
            drop(waiter.send(Err(error.clone())));
        }
    }
}

impl Waiting {
    /// Adds to the last batch unless that is full, longer than `beside_max`, or of another kind. Whether the queue was empty before.
    fn push(
        &mut self,
        command: &Command,
        waiter: Waiter,
        only_in: Option<Term>,
        beside_max: usize,
    ) -> bool {
        let first = self.batches.is_empty();
        let is_full = |last: &Batch| {
            last.len() >= BATCH_BYTES || last.len() > beside_max || last.only_in() != only_in
        };
        if self.batches.back().is_none_or(is_full) {
            self.batches.push_back(Batch::new(only_in));
        }
        let last = self.batches.back_mut().expect("one was pushed if there was none");
        let before = last.len();
        last.push(command, waiter);
        self.bytes += last.len() - before;
        first
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::api::pb::etcdserverpb::PutRequest;
    use quorate_core::api::pb::internal::command::Request;

    use super::super::batch::tests::widest_envelope;
    use super::*;

    fn put(bytes: usize) -> Command {
        Command {
            request: Some(Request::Put(PutRequest {
                key: vec![b'k'; bytes].into(),
                ..PutRequest::default()
            })),
            ..Command::default()
        }
    }

    #[test]
    fn a_full_batch_is_followed_by_another() {
        let queue = Queue::new(16 << 20);
        let told: Vec<_> = (0..5).map(|_| queue.submit(&put(400 << 10), None).unwrap()).collect();
        let sizes: Vec<_> =
            std::iter::from_fn(|| queue.take()).map(|batch| batch.into_waiters().count()).collect();
        assert_eq!(sizes, [3, 2]);
        drop(told);
    }

    #[test]
    fn a_sealed_batch_is_never_longer_than_the_longest_entry() {
        const ENTRY_MAX: usize = 15_360;
        let queue = Queue::new(ENTRY_MAX);
        let widest = widest_envelope();
        let mut told = Vec::new();
        let mut refused = 0;
        for bytes in (1..ENTRY_MAX + 100).step_by(37).chain(ENTRY_MAX - 100..ENTRY_MAX) {
            match queue.submit(&put(bytes), None) {
                Ok(one) => told.push(one),
                Err(error) => {
                    assert_eq!(error, KeyspaceError::RequestTooLarge);
                    assert!(bytes > ENTRY_MAX - 100, "{bytes} would fit");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0);
        let mut longest = 0;
        let mut waiters = 0;
        while let Some(batch) = queue.take() {
            let (payload, those) = batch.seal(widest.clone());
            longest = longest.max(payload.len());
            waiters += those.len();
        }
        assert_eq!(waiters, told.len());
        assert!(longest <= ENTRY_MAX && longest > ENTRY_MAX - 100, "{longest}");
    }

    #[test]
    fn too_much_waiting_is_refused_until_some_is_taken() {
        let queue = Queue::new(16 << 20);
        let mut told = Vec::new();
        let refused = loop {
            match queue.submit(&put(1 << 20), None) {
                Ok(one) => told.push(one),
                Err(error) => break error,
            }
        };
        assert_eq!(refused, KeyspaceError::TooManyRequests);
        assert!(told.len() >= WAITING_BYTES_MAX >> 20);
        queue.take().unwrap();
        queue.submit(&put(1 << 20), None).unwrap();
    }

    #[tokio::test]
    async fn failing_answers_those_who_wait_and_those_who_come() {
        let queue = Queue::new(16 << 20);
        let told = queue.submit(&put(1), None).unwrap();
        queue.fail(&KeyspaceError::Stopped);
        assert_eq!(told.told.await.unwrap(), Err(KeyspaceError::Stopped));
        assert_eq!(queue.submit(&put(1), None).unwrap_err(), KeyspaceError::Stopped);
    }

    #[test]
    fn what_only_the_leader_may_propose_has_a_batch_of_its_own() {
        let queue = Queue::new(16 << 20);
        let mut told = Vec::new();
        for only_in in [None, None, Some(Term(2)), Some(Term(2)), Some(Term(3)), None] {
            told.push(queue.submit(&put(1), only_in).unwrap());
        }
        assert!(!queue.has_left(told[0].place));
        let taken: Vec<_> = std::iter::from_fn(|| queue.take())
            .map(|batch| (batch.only_in(), batch.count()))
            .collect();
        assert_eq!(taken, [(None, 2), (Some(Term(2)), 2), (Some(Term(3)), 1), (None, 1)]);
        assert!(queue.has_left(told[5].place));
    }
}
