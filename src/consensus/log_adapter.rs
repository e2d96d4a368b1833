//! openraft's log, kept by the journal.
//!
//! ```text
//!   openraft core -- append --> GroupLog: readable at once ... journal thread syncs ... IOFlushed
//!                 -- save_vote, truncate_after --> await the sync
//!                 -- save_committed --> memory, stamped into a later frame
//!   replication, apply <-- entries -- GroupLog: memory tail, or disk off the runtime's thread
//! ```
//!
//! **Invariant:** votes, appends and truncations reach the journal in the order openraft gives them; the journal's
//! queue is the only one. A failed sync reaches openraft's callback, which stops the member.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures::Stream;
use futures::stream;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use super::convert;
use super::types::{RaftEntry, RaftLogId, RaftVote, TypeConfig};
use crate::storage::journal::{Done, GroupLog, JournalError};
use crate::support::failpoints::failpoint;
use crate::support::spawn::Blocking;

/// Entries read from the journal in one step, in bytes.
const READ_BYTES: usize = 1 << 20;

/// One group's log as openraft sees it.
#[derive(Clone)]
pub(crate) struct LogAdapter {
    log: GroupLog,
    blocking: Arc<Blocking>,
}

impl LogAdapter {
    pub(crate) fn new(log: GroupLog, blocking: Arc<Blocking>) -> Self {
        LogAdapter { log, blocking }
    }

    /// Entries from `from` on that exist: openraft may ask below what was purged, and gets what there is.
    async fn read(
        &self,
        from: u64,
        to: u64,
        bytes_max: usize,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let Some(from) = self.first_at_or_above(from, to) else {
            return Ok(Vec::new());
        };
        let log = self.log.clone();
        let work = move || {
            let records = log.entries(from, to, bytes_max).map_err(io_error)?;
            records.into_iter().map(convert::raft_entry).collect()
        };
        if self.log.is_in_memory(from) { work() } else { self.blocking.run(work).await }
    }

    fn first_at_or_above(&self, from: u64, to: u64) -> Option<u64> {
        let state = self.log.state();
        let last = state.last?;
        let to = to.min(last.index.saturating_add(1));
        match state.purged {
            Some(purged) => Some(from.max(purged.index.saturating_add(1))).filter(|at| *at < to),
            // A log that was never purged may begin at any index; ours at 0.
            None => (from..to).find(|at| self.log.term_at(*at).is_some()),
        }
    }
}

fn io_error(error: JournalError) -> io::Error {
    io::Error::other(error)
}

/// Half-open bounds of a range over log indexes.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(at) => *at,
        Bound::Excluded(at) => at.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(at) => at.saturating_add(1),
        Bound::Excluded(at) => *at,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

/// A callback for the journal, and the future that it wakes.
fn durable() -> (Done, oneshot::Receiver<Result<(), JournalError>>) {
    let (tell, told) = oneshot::channel();
    let done: Done = Box::new(move |result| {
        // The waiter may be gone when the member is stopping; nobody is owed the answer then.
        drop(tell.send(result));
    });
    (done, told)
}

async fn wait(told: oneshot::Receiver<Result<(), JournalError>>) -> Result<(), io::Error> {
    match told.await {
        Ok(result) => result.map_err(io_error),
        Err(_dropped) => Err(io::Error::other("the journal closed before the write was durable")),
    }
}

impl RaftLogReader<TypeConfig> for LogAdapter {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<RaftEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        self.read(from, to, usize::MAX).await
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        Box::pin(stream::unfold(
            Steps { log: self.clone(), ready: Vec::new().into_iter(), next: from, to },
            |mut steps| async move { steps.step().await.map(|entry| (entry, steps)) },
        ))
    }

    async fn limited_get_log_entries(
        &mut self,
        from: u64,
        to: u64,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        if self.log.state().purged.is_some_and(|purged| from <= purged.index) {
            // Let go while its reader was on its way: entries further on would not follow what the other has.
            return Ok(Vec::new());
        }
        self.read(from, to, READ_BYTES).await
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        self.log.state().vote.as_ref().map(convert::raft_vote).transpose()
    }
}

/// Entries read a mebibyte at a time, so that a long apply does not hold the whole log in memory.
struct Steps {
    log: LogAdapter,
    ready: std::vec::IntoIter<RaftEntry>,
    next: u64,
    to: u64,
}

impl Steps {
    async fn step(&mut self) -> Option<Result<RaftEntry, io::Error>> {
        if let Some(entry) = self.ready.next() {
            return Some(Ok(entry));
        }
        match self.log.read(self.next, self.to, READ_BYTES).await {
            Ok(entries) => {
                self.next = entries.last().map_or(self.to, |last| last.log_id.index + 1);
                self.ready = entries.into_iter();
                self.ready.next().map(Ok)
            }
            Err(error) => {
                self.next = self.to;
                Some(Err(error))
            }
        }
    }
}

impl RaftLogStorage<TypeConfig> for LogAdapter {
    type LogReader = LogAdapter;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.log.state();
        let purged = state.purged.map(convert::raft_log_id);
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: state.last.map(convert::raft_log_id).or(purged),
        })
    }

    async fn get_log_reader(&mut self) -> LogAdapter {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        failpoint!(wait raftBeforeSave);
        let (done, told) = durable();
        self.log.save_vote(convert::vote(vote), done).map_err(io_error)?;
        wait(told).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.log.set_committed(convert::log_id(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        Ok(self.log.state().committed.map(convert::raft_log_id))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records: Vec<_> = entries.into_iter().map(convert::log_record).collect();
        if records.is_empty() {
            callback.io_completed(Ok(()));
            return Ok(());
        }
        failpoint!(wait raftBeforeSave);
        let done: Done = Box::new(move |result| callback.io_completed(result.map_err(io_error)));
        self.log.append(records, done).map_err(io_error)?;
        failpoint!(wait raftAfterSave);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index + 1);
        let (done, told) = durable();
        self.log.truncate_from(from, done).map_err(io_error)?;
        wait(told).await
    }

    async fn purge(&mut self, id: RaftLogId) -> Result<(), io::Error> {
        self.log.purge_to(convert::log_id(&id)).map_err(io_error)
    }
}
