//! Read index in rounds: one confirmation of leadership serves every read that was waiting when it began.
//!
//! ```text
//!   reads   a b      c d e            f
//!           |---1----|------2---------|--3--      a, b are served by round 1; c, d, e, which arrived while it
//!                                                 ran, only by round 2: a round serves nobody who came later
//! ```
//!
//! **Invariant:** a read is served by the first round that starts after it arrived. A round that was under way may
//! have fixed its index before a write that the reader has already seen acknowledged.
//! **Invariant:** one round at a time; raft's mailbox never sees a message per read.

use std::future::Future;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::error::ReadIndexError;

/// Reads that may wait for a round; more are refused.
const WAITING_MAX: usize = 1 << 17;

type Caller = oneshot::Sender<Result<u64, ReadIndexError>>;

/// The reads that wait, and the bell for the task that runs the rounds.
#[derive(Debug, Default)]
pub(crate) struct ReadRounds {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    callers: Vec<Caller>,
    closed: bool,
}

impl ReadRounds {
    /// Waits for the next round and returns its log index.
    pub(crate) async fn read_index(&self) -> Result<u64, ReadIndexError> {
        let (tell, told) = oneshot::channel();
        let first = {
            let mut waiting = self.waiting.lock();
            if waiting.closed {
                return Err(ReadIndexError::Stopped);
            }
            if waiting.callers.len() >= WAITING_MAX {
                return Err(ReadIndexError::TooMany);
            }
            waiting.callers.push(tell);
            waiting.callers.len() == 1
        };
        if first {
            self.arrived.notify_one();
        }
        told.await.unwrap_or(Err(ReadIndexError::Stopped))
    }

    /// Runs rounds for ever; the owner drops this to stop, then calls [`ReadRounds::close`].
    pub(crate) async fn run<F>(&self, round: impl Fn() -> F)
    where
        F: Future<Output = Result<u64, ReadIndexError>>,
    {
        loop {
            self.arrived.notified().await;
            let callers = std::mem::take(&mut self.waiting.lock().callers);
            if callers.is_empty() {
                continue;
            }
            let outcome = round().await;
            for caller in callers {
                // A reader that gave up has dropped its end.
                drop(caller.send(outcome.clone()));
            }
        }
    }

    /// Answers whoever waits, and whoever still comes, that the group stopped.
    pub(crate) fn close(&self) {
        let callers = {
            let mut waiting = self.waiting.lock();
            waiting.closed = true;
            std::mem::take(&mut waiting.callers)
        };
        for caller in callers {
            drop(caller.send(Err(ReadIndexError::Stopped)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Rounds that end when told, and return their own number.
    struct Stage {
        rounds: Arc<ReadRounds>,
        started: Arc<AtomicU64>,
        gate: Arc<Semaphore>,
        task: tokio::task::JoinHandle<()>,
    }

    fn stage() -> Stage {
        let rounds = Arc::new(ReadRounds::default());
        let started = Arc::new(AtomicU64::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let task = tokio::spawn({
            let (rounds, started, gate) = (rounds.clone(), started.clone(), gate.clone());
            async move {
                rounds
                    .run(|| {
                        let number = started.fetch_add(1, Ordering::SeqCst) + 1;
                        let gate = gate.clone();
                        async move {
                            gate.acquire().await.unwrap().forget();
                            Ok(number)
                        }
                    })
                    .await;
            }
        });
        Stage { rounds, started, gate, task }
    }

    async fn until(mut met: impl FnMut() -> bool) {
        while !met() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_read_that_arrives_during_a_round_is_served_by_the_next() {
        let stage = stage();
        let spawn = || {
            let rounds = stage.rounds.clone();
            tokio::spawn(async move { rounds.read_index().await })
        };

        let first = spawn();
        until(|| stage.started.load(Ordering::SeqCst) == 1).await;
        let late = [spawn(), spawn(), spawn()];
        until(|| stage.rounds.waiting.lock().callers.len() == 3).await;

        stage.gate.add_permits(1);
        assert_eq!(first.await.unwrap(), Ok(1));
        until(|| stage.started.load(Ordering::SeqCst) == 2).await;
        stage.gate.add_permits(1);
        for read in late {
            assert_eq!(read.await.unwrap(), Ok(2));
        }
        assert_eq!(stage.started.load(Ordering::SeqCst), 2);
        stage.task.abort();
    }

    #[tokio::test]
    async fn closing_answers_those_who_wait_and_those_who_come() {
        let rounds = Arc::new(ReadRounds::default());
        let waiting = tokio::spawn({
            let rounds = rounds.clone();
            async move { rounds.read_index().await }
        });
        until(|| rounds.waiting.lock().callers.len() == 1).await;
        rounds.close();
        assert_eq!(waiting.await.unwrap(), Err(ReadIndexError::Stopped));
        assert_eq!(rounds.read_index().await, Err(ReadIndexError::Stopped));
    }
}
