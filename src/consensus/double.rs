//! A sink for tests: its state is the list of sequence numbers it was given, and its bases are made when told.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use prost::Message as _;
use quorate_core::api::ids::LogId;
use quorate_core::api::pb::internal::log_payload::Payload;
use quorate_core::api::pb::internal::{Entry, LogPayload, LogPosition, StoredMembership};
use tokio::sync::{oneshot, watch};

use super::types::{
    AppliedSink, Fatal, PreparedSnapshot, SnapshotLabel, SnapshotReceiver, SnapshotSource,
};
use crate::storage::journal::{BaseMark, GroupLog, InstallMark};

/// Bytes of one sequence number in a whole state.
const NUMBER: usize = 64;

pub(super) fn entry(seq: u64) -> Bytes {
    let entry = Entry { level: 1, seq, ..Entry::default() };
    Bytes::from(LogPayload { payload: Some(Payload::Entry(entry)) }.encode_to_vec())
}

pub(super) fn sum(bytes: &[u8]) -> u64 {
    crc32c::crc32c(bytes).into()
}

#[derive(Clone, Debug, Default)]
struct State {
    applied: Option<LogId>,
    membership: StoredMembership,
    seqs: Vec<u64>,
}

/// What happens to states that arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Every written piece has a bit flipped.
    pub(super) corrupts: bool,
    /// The disk is full.
    pub(super) full: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    base: Mutex<Option<Arc<Whole>>>,
    tell: watch::Sender<Option<LogId>>,
    /// What has arrived, by label: kept when a receiver is dropped.
    partial: Mutex<BTreeMap<(LogId, u64), Vec<u8>>>,
    trouble: Mutex<Trouble>,
    /// Preparing waits until it holds a permit.
    prepares: tokio::sync::Semaphore,
    installs: Mutex<usize>,
    log: Option<GroupLog>,
}

/// The double. Clones are the same sink.
#[derive(Clone, Debug)]
pub(super) struct Sink(Arc<Shared>);

impl Sink {
    /// Over this log, which takes part in bases and installs.
    pub(super) fn new(log: Option<GroupLog>) -> Sink {
        Sink(Arc::new(Shared {
            state: Mutex::default(),
            base: Mutex::default(),
            tell: watch::channel(None).0,
            partial: Mutex::default(),
            trouble: Mutex::default(),
            prepares: tokio::sync::Semaphore::new(1000),
            installs: Mutex::default(),
            log,
        }))
    }

    pub(super) fn seqs(&self) -> Vec<u64> {
        self.0.state.lock().seqs.clone()
    }

    pub(super) fn installs(&self) -> usize {
        *self.0.installs.lock()
    }

    pub(super) fn trouble(&self, trouble: Trouble) {
        *self.0.trouble.lock() = trouble;
    }

    /// Holds preparing back until [`Sink::let_prepare`].
    pub(super) fn hold_prepare(&self) {
        self.0.prepares.forget_permits(1000);
    }

    pub(super) fn let_prepare(&self) {
        self.0.prepares.add_permits(1000);
    }

    /// Bytes that are here of such a state.
    pub(super) fn partial(&self, label: &SnapshotLabel) -> usize {
        let partial = self.0.partial.lock();
        partial.get(&(label.at, label.hash)).map_or(0, Vec::len)
    }

    /// Makes a base of what is applied now, and names it in the journal.
    pub(super) async fn make_base(&self) -> LogId {
        let state = self.0.state.lock().clone();
        let whole = Whole::of(&state);
        let at = whole.label.at;
        if let Some(log) = &self.0.log {
            let (done, told) = done();
            log.mark_base(BaseMark { at, ..BaseMark::default() }, done).unwrap();
            told.await.unwrap();
        }
        self.publish(whole);
        at
    }

    fn publish(&self, whole: Whole) {
        let at = whole.label.at;
        *self.0.base.lock() = Some(Arc::new(whole));
        self.0.tell.send_replace(Some(at));
    }
}

fn done() -> (crate::storage::journal::Done, oneshot::Receiver<()>) {
    let (tell, told) = oneshot::channel();
    let done = Box::new(move |result: Result<(), _>| {
        result.unwrap();
        let _gone = tell.send(());
    });
    (done, told)
}

/// A whole state.
#[derive(Debug)]
pub(super) struct Whole {
    label: SnapshotLabel,
    content: Bytes,
}

impl Whole {
    fn of(state: &State) -> Whole {
        let number = |seq: &u64| {
            let mut bytes = [0; NUMBER];
            bytes[..8].copy_from_slice(&seq.to_le_bytes());
            bytes
        };
        let content: Bytes = state.seqs.iter().flat_map(number).collect();
        let label = SnapshotLabel {
            at: state.applied.expect("something was applied"),
            membership: state.membership.clone(),
            len: content.len() as u64,
            hash: sum(&content),
        };
        Whole { label, content }
    }

    /// A state at `at` of these numbers.
    pub(super) fn at(at: LogId, seqs: std::ops::Range<u64>) -> Whole {
        let membership = StoredMembership::default();
        Whole::of(&State { applied: Some(at), membership, seqs: seqs.collect() })
    }
}

impl SnapshotSource for Whole {
    fn label(&self) -> &SnapshotLabel {
        &self.label
    }

    fn read(&self, offset: u64, bytes_max: usize) -> BoxFuture<'_, Result<Bytes, String>> {
        let from = usize::try_from(offset).unwrap();
        let to = self.content.len().min(from + bytes_max);
        Box::pin(async move { Ok(self.content.slice(from..to)) })
    }
}

#[derive(Debug)]
struct Arriving {
    sink: Sink,
    label: SnapshotLabel,
}

impl Arriving {
    fn key(&self) -> (LogId, u64) {
        (self.label.at, self.label.hash)
    }
}

impl SnapshotReceiver for Arriving {
    fn received(&self) -> u64 {
        self.sink.partial(&self.label) as u64
    }

    fn write(&mut self, piece: Bytes) -> BoxFuture<'_, Result<(), String>> {
        let trouble = *self.sink.0.trouble.lock();
        Box::pin(async move {
            tokio::task::yield_now().await;
            if trouble.full {
                return Err("the disk is full".to_owned());
            }
            let mut partial = self.sink.0.partial.lock();
            let here = partial.entry(self.key()).or_default();
            here.extend_from_slice(&piece);
            if trouble.corrupts {
                *here.last_mut().unwrap() ^= 1;
            }
            Ok(())
        })
    }

    fn prepare(self: Box<Self>) -> BoxFuture<'static, Result<Box<dyn PreparedSnapshot>, String>> {
        Box::pin(async move {
            drop(self.sink.0.prepares.acquire().await.unwrap());
            let content = self.sink.0.partial.lock().remove(&self.key()).unwrap_or_default();
            if content.len() as u64 != self.label.len || sum(&content) != self.label.hash {
                return Err("the sum does not fit the label".to_owned());
            }
            let Arriving { sink, label } = *self;
            let whole = Whole { label, content: content.into() };
            Ok(Box::new(Prepared { sink, whole }) as Box<dyn PreparedSnapshot>)
        })
    }
}

#[derive(Debug)]
struct Prepared {
    sink: Sink,
    whole: Whole,
}

impl PreparedSnapshot for Prepared {
    fn label(&self) -> &SnapshotLabel {
        &self.whole.label
    }

    fn install(self: Box<Self>) -> BoxFuture<'static, Result<(), Fatal>> {
        Box::pin(async move {
            let Prepared { sink, whole } = *self;
            let at = whole.label.at;
            if let Some(log) = &sink.0.log {
                let (done, told) = done();
                let base = BaseMark { at, ..BaseMark::default() };
                let mark = InstallMark { snapshot: at, base, ..InstallMark::default() };
                log.install(mark, done).map_err(|error| Fatal(error.to_string()))?;
                told.await.unwrap();
            }
            let seqs = whole.content.chunks(NUMBER);
            *sink.0.state.lock() = State {
                applied: Some(at),
                membership: whole.label.membership.clone(),
                seqs: seqs.map(|n| u64::from_le_bytes(n[..8].try_into().unwrap())).collect(),
            };
            *sink.0.installs.lock() += 1;
            sink.publish(whole);
            Ok(())
        })
    }
}

impl AppliedSink for Sink {
    fn apply(&self, entries: Vec<(LogId, LogPayload)>) -> BoxFuture<'_, Result<(), Fatal>> {
        let mut state = self.0.state.lock();
        for (at, payload) in entries {
            assert!(state.applied.is_none_or(|before| before.index + 1 == at.index), "in order");
            state.applied = Some(at);
            match payload.payload {
                Some(Payload::Entry(entry)) => state.seqs.push(entry.seq),
                Some(Payload::Membership(membership)) => {
                    state.membership = StoredMembership {
                        log_id: Some(LogPosition { term: at.term.0, index: at.index }),
                        membership: Some(membership),
                    };
                }
                Some(Payload::Blank(_)) | None => {}
            }
        }
        Box::pin(async { Ok(()) })
    }

    fn applied(&self) -> (Option<LogId>, StoredMembership) {
        let state = self.0.state.lock();
        (state.applied, state.membership.clone())
    }

    fn snapshot(&self) -> Option<Arc<dyn SnapshotSource>> {
        let base = self.0.base.lock().clone();
        base.map(|base| base as Arc<dyn SnapshotSource>)
    }

    fn snapshots(&self) -> watch::Receiver<Option<LogId>> {
        self.0.tell.subscribe()
    }

    fn receive(
        &self,
        label: SnapshotLabel,
    ) -> BoxFuture<'_, Result<Box<dyn SnapshotReceiver>, String>> {
        let key = (label.at, label.hash);
        self.0.partial.lock().retain(|other, _| *other == key);
        let arriving = Arriving { sink: self.clone(), label };
        Box::pin(async { Ok(Box::new(arriving) as Box<dyn SnapshotReceiver>) })
    }
}
