//! openraft's own storage suite, on our adapters over a journal on the device double.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use openraft::storage::{EntryResponder, IOFlushed, LogState, RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{OptionalSend, RaftLogReader, StorageError};
use parking_lot::Mutex;
use quorate_core::api::ids::{GroupId, LogId};
use quorate_core::api::pb::internal::log_payload::Payload;
use quorate_core::api::pb::internal::{LogPayload, LogPosition, StoredMembership};
use tokio::sync::watch;

use super::convert;
use super::log_adapter::LogAdapter;
use super::machine_adapter::MachineAdapter;
use super::snapshot_adapter::{Handle, HandleSnapshot, Meta, SnapshotBuilder};
use super::snapshots::Outgoing;
use super::types::{
    AppliedSink, Fatal, PreparedSnapshot, RaftEntry, RaftLogId, RaftStoredMembership, RaftVote,
    SnapshotLabel, SnapshotSource, TypeConfig,
};
use super::{SnapshotFigures, SnapshotLimits};
use crate::storage::device::double::DoubleDevice;
use crate::storage::journal::{
    BaseMark, Done, GroupLog, InstallMark, Journal, JournalOptions, Runner,
};
use crate::support::spawn::Blocking;

/// Keeps what openraft asks back: where it stands, and under which membership; and behind which base, if the suite
/// purges what was never applied.
#[derive(Default)]
struct Standing(Mutex<(Option<LogId>, StoredMembership)>, Mutex<Option<LogId>>);

impl AppliedSink for Standing {
    fn apply(&self, entries: Vec<(LogId, LogPayload)>) -> BoxFuture<'_, Result<(), Fatal>> {
        let mut standing = self.0.lock();
        for (at, payload) in entries {
            standing.0 = Some(at);
            if let Some(Payload::Membership(membership)) = payload.payload {
                standing.1 = StoredMembership {
                    log_id: Some(LogPosition { term: at.term.0, index: at.index }),
                    membership: Some(membership),
                };
            }
        }
        Box::pin(async { Ok(()) })
    }

    fn applied(&self) -> (Option<LogId>, StoredMembership) {
        self.0.lock().clone()
    }

    /// The suite wants what it builds to be where it has applied to.
    fn snapshot(&self) -> Option<Arc<dyn SnapshotSource>> {
        let (applied, membership) = self.0.lock().clone();
        let at = applied.or(*self.1.lock())?;
        Some(Arc::new(Label(SnapshotLabel { at, membership, len: 0, hash: 0 })))
    }

    fn snapshots(&self) -> watch::Receiver<Option<LogId>> {
        watch::channel(self.0.lock().0).1
    }
}

/// A state of no bytes.
#[derive(Debug)]
struct Label(SnapshotLabel);

impl SnapshotSource for Label {
    fn label(&self) -> &SnapshotLabel {
        &self.0
    }

    fn read(&self, _offset: u64, _bytes_max: usize) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async { Ok(Bytes::new()) })
    }
}

/// The adapter, with the base or the snapshot that our journal wants to see before it lets entries go: the suite
/// purges at will.
struct BasedLog {
    adapter: LogAdapter,
    log: GroupLog,
    standing: Arc<Standing>,
    /// What the suite itself saved: a base says on top of it that its entry is committed, which the suite, purging
    /// what was never applied, cannot know.
    told_committed: bool,
}

impl RaftLogReader<TypeConfig> for BasedLog {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<RaftEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.adapter.try_get_log_entries(range).await
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.adapter.entries_stream(range).await
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        self.adapter.read_vote().await
    }
}

impl RaftLogStorage<TypeConfig> for BasedLog {
    type LogReader = LogAdapter;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.adapter.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> LogAdapter {
        self.adapter.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        self.adapter.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        self.told_committed = true;
        self.adapter.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        if !self.told_committed {
            return Ok(None);
        }
        self.adapter.read_committed().await
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
        self.adapter.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        self.adapter.truncate_after(last).await
    }

    async fn purge(&mut self, id: RaftLogId) -> Result<(), io::Error> {
        let at = convert::log_id(&id);
        let base = BaseMark { at, ..BaseMark::default() };
        *self.standing.1.lock() = Some(at);
        let done: Done = Box::new(|result| result.expect("the double is whole"));
        if self.log.state().last.is_none_or(|last| last.index < at.index) {
            // Nothing of the log stays: what an installed snapshot does.
            let mark = InstallMark { snapshot: at, base, ..InstallMark::default() };
            return self.log.install(mark, done).map_err(io::Error::other);
        }
        self.log.mark_base(base, done).map_err(io::Error::other)?;
        self.adapter.purge(id).await
    }
}

/// The adapter, with the way between two members that the suite leaves out: it installs what another has built.
struct CarriedMachine {
    adapter: MachineAdapter,
    standing: Arc<Standing>,
}

/// A state of no bytes that has arrived.
struct Arrived {
    standing: Arc<Standing>,
    label: SnapshotLabel,
}

impl Debug for Arrived {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Arrived({})", self.label.at)
    }
}

impl PreparedSnapshot for Arrived {
    fn label(&self) -> &SnapshotLabel {
        &self.label
    }

    fn install(self: Box<Self>) -> BoxFuture<'static, Result<(), Fatal>> {
        *self.standing.0.lock() = (Some(self.label.at), self.label.membership);
        Box::pin(async { Ok(()) })
    }
}

impl RaftStateMachine<TypeConfig> for CarriedMachine {
    type SnapshotData = Handle;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<RaftLogId>, RaftStoredMembership), io::Error> {
        self.adapter.applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        self.adapter.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        self.adapter.get_snapshot_builder().await
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: Handle) -> Result<(), io::Error> {
        let Handle::Source(source) = snapshot else { panic!("the suite has built it") };
        let arrived = Arrived { standing: self.standing.clone(), label: source.label().clone() };
        self.adapter.install_snapshot(meta, Handle::Prepared(Box::new(arrived))).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<HandleSnapshot>, io::Error> {
        self.adapter.get_current_snapshot().await
    }
}

struct OnDouble;

impl StoreBuilder<TypeConfig, BasedLog, CarriedMachine, Journal> for OnDouble {
    async fn build(&self) -> Result<(Journal, BasedLog, CarriedMachine), StorageError<TypeConfig>> {
        let options = JournalOptions { segment_bytes: 1 << 16, ..JournalOptions::default() };
        let device = Arc::new(DoubleDevice::default());
        let journal = Journal::open(device, options, Runner::Thread).expect("a new journal opens");
        let log = journal.group(GroupId(0));
        let blocking = Arc::new(Blocking::bounded(1));
        let standing = Arc::new(Standing::default());
        let based = BasedLog {
            adapter: LogAdapter::new(log.clone(), blocking),
            log,
            standing: Arc::clone(&standing),
            told_committed: false,
        };
        let outgoing = Outgoing::new(SnapshotLimits::default(), SnapshotFigures::default());
        let sink = Arc::clone(&standing) as Arc<dyn AppliedSink>;
        let adapter = MachineAdapter::new(sink, Arc::new(outgoing), Arc::default());
        let machine = CarriedMachine { adapter, standing };
        Ok((journal, based, machine))
    }
}

#[tokio::test]
async fn the_adapters_pass_openrafts_storage_suite() {
    Suite::test_all(OnDouble).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_adapters_pass_openrafts_storage_suite_on_many_threads() {
    Suite::test_all(OnDouble).await.unwrap();
}
