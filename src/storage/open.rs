//! Opening a store: the state store if it is to be believed, else the base; then the journal.
//!
//! ```text
//!   journal replayed (GroupLog) ──▶ invariants ──▶ tidy up: what no record names goes
//!       ──▶ sled: mark, records, headers ──▶ sum equal? ──yes──────────────┐
//!                     │ no: folder deleted                                 ▼
//!                     └──▶ base ──checked──▶ fresh sled ──▶ StateMachine, Store
//!       ──▶ the journal's entries above it, up to the commit index, through StateMachine::apply
//! ```
//!
//! All of it runs before consensus is created, which then finds `applied` = `committed`.
//! **Invariant:** purged ≤ base ≤ applied = commit ≤ last.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use prost::Message;
use quorate_core::api::ids::{LogId, MemberId};
use quorate_core::api::pb::internal::{LogPayload, Membership, log_payload};
use quorate_core::api::refusal::Corrupt;
use quorate_core::state_machine::StateMachine;
use quorate_core::state_machine::quota::DbSize;
use tokio::sync::{Notify, watch};

use super::base::{BaseError, base_name};
use super::cache::BlockCache;
use super::defrag::Served;
use super::engine::Engine;
use super::error::{OpenError, StoreError};
use super::folders::{
    engine_folder, folder_bytes, open_engine, parse_engine_folder, remove_engine, remove_folder,
    serials,
};
use super::forced;
use super::format::ContentSum;
use super::journal::{BaseMark, GroupLog, GroupState};
use super::load::{self, Distrust};
use super::options::{EngineKind, Meter, StoreOptions, UpkeepRunner};
use super::shared::{DISTRUST, Orders, Shared};
use super::source::BaseSource;
use super::store::{Hands, Store};
use super::tail::Tail;
use super::upkeep::Upkeep;
use crate::support::spawn::thread;

/// Bytes of log entries read at once while the journal is applied.
const REPLAY_BYTES: usize = 4 << 20;
/// A small state store is not worth being made anew.
const BLOAT_SLACK: u64 = 8 << 20;
/// The tail's size at which a replay waits: nobody is served yet, so that memory is better spent otherwise.
const REPLAY_TAIL_BYTES: usize = 16 << 20;

/// An open store and the state machine that stands where it stands.
#[derive(Debug)]
pub struct Opened {
    /// Takes batches, gives views.
    pub store: Store,
    /// At the commit index.
    pub machine: StateMachine,
    /// The state store was not believed, and was built anew.
    pub rebuilt: Option<RebuildReport>,
    /// Log entries that were applied, of which the state store knew nothing.
    pub replayed: u64,
}

/// Why and how the state store was built anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuildReport {
    /// Why it was not believed.
    pub reason: String,
    /// How long it took, from finding out until the journal was applied.
    pub took: Duration,
}

/// A state store's content, loaded.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) machine: StateMachine,
    pub(crate) applied: Option<LogId>,
    pub(crate) content: ContentSum,
    pub(crate) size: DbSize,
}

impl Store {
    /// Opens the store of `log`'s group, whose journal has been replayed, and applies the journal up to the commit
    /// index (to its end for a single voter). Entries that the state store holds but no commit stamp covers yet are
    /// told to the log as committed.
    pub fn open(options: StoreOptions, log: GroupLog) -> Result<Opened, OpenError> {
        let state = log.state();
        let group = options.group.0;
        check_log(group, &state)?;
        tidy_up(&options, &state)?;
        let started = options.clock.monotonic();
        let (loaded, serial, distrust) = match load_newest(&options, &log, &state)? {
            Ok((loaded, serial)) => (loaded, serial, None),
            Err(distrust) => (rebuild(&options, &state)?, 0, Some(distrust)),
        };
        tell_of_install(&state, loaded.applied);
        let carried = Carried::at_start(&options, &state)?;
        let target = replay_target(&options, &state, loaded.applied);
        let mut machine = loaded.machine;
        let store = start(
            options,
            log.clone(),
            &state,
            loaded.engine,
            machine.revision(),
            Begun { serial, applied: loaded.applied, content: loaded.content, size: loaded.size },
            carried,
        )?;
        let replayed = replay(&store, &log, &mut machine, loaded.applied, target)?
            + replay_forced(&store, &log, &mut machine)?;
        if let Some(applied) = machine.applied() {
            log.set_committed(applied);
        }
        check_opened(group, &log.state(), machine.applied())?;
        let took = store.shared.options.clock.monotonic().saturating_sub(started);
        let rebuilt = distrust
            .filter(|_| state.last.is_some())
            .map(|distrust| RebuildReport { reason: distrust.to_string(), took });
        if let Some(report) = &rebuilt {
            let took_ms = took.as_millis() as u64;
            tracing::info!(
                group,
                reason = report.reason,
                took_ms,
                "state store rebuilt from base and journal"
            );
        }
        Ok(Opened { store, machine, rebuilt, replayed })
    }
}

/// Says, in etcd's words, that the state is another member's and nothing was applied to it yet: this member stopped when
/// the journal had just recorded it.
fn tell_of_install(state: &GroupState, applied: Option<LogId>) {
    let base = state.base.as_ref().map(|base| base.at);
    if state.generation == 0 || base.is_none() || base != applied || base != state.purged {
        return;
    }
    let index = |id: Option<LogId>| id.map(|id| id.index);
    tracing::info!(
        "consistent-index" = index(applied),
        "snapshot-index" = index(base),
        "Recovering from snapshot backend"
    );
}

/// Where a store begins.
pub(crate) struct Begun {
    pub(crate) serial: u32,
    pub(crate) applied: Option<LogId>,
    pub(crate) content: ContentSum,
    pub(crate) size: DbSize,
}

/// What one generation leaves to the next.
pub(crate) struct Carried {
    pub(crate) source: Option<Arc<BaseSource>>,
    pub(crate) marked: Arc<watch::Sender<Option<LogId>>>,
    pub(crate) growth_refused: Mutex<Option<String>>,
    pub(crate) meter: Arc<Meter>,
}

impl Carried {
    /// Of a group that is opened. A base that does not read is refused although the state store would do for now: the
    /// log before it is gone, and raft has to have what it can send in place of that.
    fn at_start(options: &StoreOptions, state: &GroupState) -> Result<Self, OpenError> {
        let open = |mark| {
            let opened = BaseSource::open(options, mark);
            opened.map(Arc::new).map_err(|error| damaged_base(options, mark, error.into()))
        };
        let source = state.base.as_ref().map(open).transpose()?;
        Ok(Carried {
            marked: Arc::new(watch::Sender::new(source.as_ref().map(|source| source.label().at))),
            source,
            growth_refused: Mutex::default(),
            meter: Arc::default(),
        })
    }
}

pub(crate) fn start(
    options: StoreOptions,
    log: GroupLog,
    state: &GroupState,
    engine: Arc<dyn Engine>,
    revision: i64,
    begun: Begun,
    carried: Carried,
) -> Result<Store, OpenError> {
    let runner = options.runner;
    let (bytes, entries) = unbased(&log, state, begun.applied);
    Meter::add(&carried.meter.since_base, bytes);
    // Of the requests that they packed nobody has kept count.
    Meter::add(&carried.meter.requests_since_base, entries);
    let shared = Arc::new(Shared {
        log,
        generation: state.generation,
        engine: RwLock::new(engine),
        layout: RwLock::new(()),
        tail: RwLock::new(Tail::new(revision, begun.applied)),
        cache: Mutex::new(BlockCache::new(options.block_cache_bytes)),
        size: Mutex::new(begun.size),
        orders: Mutex::new(Orders::default()),
        wake: Condvar::new(),
        stopped: AtomicBool::new(false),
        stop_reason: Mutex::new(None),
        growth_refused: carried.growth_refused,
        room: Notify::new(),
        base: Mutex::new(state.base.clone()),
        source: Mutex::new(carried.source),
        marked: carried.marked,
        may_mark: Mutex::new(true),
        retired: AtomicBool::new(false),
        incoming: Mutex::default(),
        begun: AtomicU32::new(0),
        remains: Mutex::default(),
        predecessors: Mutex::default(),
        meter: carried.meter,
        defragmented: watch::Sender::new(Served::default()),
        options,
    });
    let upkeep = Upkeep {
        shared: Arc::clone(&shared),
        serial: begun.serial,
        applied: begun.applied,
        content: begun.content,
        open_block: None,
        pass: None,
        base_task: None,
        base_rest: 0,
        dropped: false,
        serials: begun.serial,
        defrag: None,
        owes_defrag: false,
        stale: Vec::new(),
        flushed_at: Duration::ZERO,
    };
    let upkeep = match runner {
        UpkeepRunner::InPlace => Hands::InPlace(Box::new(Mutex::new(upkeep))),
        UpkeepRunner::Threads => {
            let running = thread("store", move || upkeep.run());
            let running = running.map_err(|source| io_error("start the store's thread", source))?;
            Hands::Thread(Mutex::new(Some(running)))
        }
    };
    Ok(Store { shared, upkeep })
}

/// Bytes and number of the journal's entries above the base that the state store has already; what is applied later
/// counts itself.
fn unbased(log: &GroupLog, state: &GroupState, applied: Option<LogId>) -> (u64, u64) {
    let next = |id: Option<LogId>| id.map_or(0, |id| id.index + 1);
    let (first, last) = (next(state.purged), next(state.last));
    let (base, applied) = (next(state.base.as_ref().map(|base| base.at)), next(applied));
    let share = applied.saturating_sub(base.max(first));
    let bytes = u128::from(log.retained_bytes()) * u128::from(share);
    let entries = u128::from(last.saturating_sub(first).max(1));
    (u64::try_from(bytes / entries).unwrap_or(u64::MAX), share)
}

fn replay_target(
    options: &StoreOptions,
    state: &GroupState,
    applied: Option<LogId>,
) -> Option<u64> {
    let known = if options.single_voter { state.last } else { state.committed };
    known.max(applied).map(|id| id.index)
}

/// Applies entries above `applied` up to index `target`, and on to the journal's end while this member votes alone:
/// what a lone voter has written is committed.
fn replay(
    store: &Store,
    log: &GroupLog,
    machine: &mut StateMachine,
    applied: Option<LogId>,
    target: Option<u64>,
) -> Result<u64, OpenError> {
    let known = match target {
        Some(target) => replay_to(store, log, machine, applied, target, |_, _| true)?,
        None => 0,
    };
    let last = log.state().last;
    let (Some(voter), Some(last)) = (store.shared.options.lone_voter, last) else {
        return Ok(known);
    };
    let applied = machine.applied();
    let alone = |machine: &StateMachine, entry: &LogPayload| votes_alone(voter, machine, entry);
    Ok(known + replay_to(store, log, machine, applied, last.index, alone)?)
}

/// Goes on alone if that is asked for: applies the log to its end, which makes this member the only one.
fn replay_forced(
    store: &Store,
    log: &GroupLog,
    machine: &mut StateMachine,
) -> Result<u64, OpenError> {
    let Some(member) = store.shared.options.forced_voter else {
        return Ok(0);
    };
    let applied = machine.applied();
    let now_ms = store.shared.options.clock.unix_ms();
    match forced::go_on_alone(log, machine, member, now_ms)? {
        Some(end) => replay_to(store, log, machine, applied, end.index, |_, _| true),
        None => Ok(0),
    }
}

/// `voter` decided `entry` with nobody's consent but its own. A membership entry counts for itself, but not before
/// one that was still shared has been replaced.
fn votes_alone(voter: MemberId, machine: &StateMachine, entry: &LogPayload) -> bool {
    let alone = |membership: &Membership| matches!(&membership.configs[..], [voters] if voters.member_ids == [voter.0]);
    let before = machine.membership().membership.as_ref().map(alone);
    match &entry.payload {
        Some(log_payload::Payload::Membership(next)) => before.unwrap_or(true) && alone(next),
        Some(log_payload::Payload::Blank(_) | log_payload::Payload::Entry(_)) | None => {
            before.unwrap_or(false)
        }
    }
}

/// Applies entries above `applied` up to index `target`, or up to the first that is not wanted.
fn replay_to(
    store: &Store,
    log: &GroupLog,
    machine: &mut StateMachine,
    applied: Option<LogId>,
    target: u64,
    wanted: impl Fn(&StateMachine, &LogPayload) -> bool,
) -> Result<u64, OpenError> {
    let first = log.state().purged.map_or(0, |purged| purged.index + 1);
    let mut next = applied.map_or(first, |applied| applied.index + 1);
    let mut count = 0;
    while next <= target {
        let records = log.entries(next, target + 1, REPLAY_BYTES)?;
        let last = records.last().map(|record| record.id.index);
        for record in records {
            let entry = decode(record.id, &record.payload)?;
            if !wanted(machine, &entry) {
                return Ok(count);
            }
            apply(store, machine, record.id, &entry)?;
            count += 1;
        }
        match last {
            Some(last) => next = last + 1,
            None => break,
        }
    }
    Ok(count)
}

pub(super) fn decode(at: LogId, payload: &[u8]) -> Result<LogPayload, OpenError> {
    LogPayload::decode(payload).map_err(|reason| OpenError::Entry {
        at,
        source: Corrupt::Undecodable { what: "log entry".to_owned(), reason: reason.to_string() },
    })
}

fn apply(
    store: &Store,
    machine: &mut StateMachine,
    at: LogId,
    entry: &LogPayload,
) -> Result<(), OpenError> {
    let applied = machine
        .apply(&store.view(), at, entry)
        .map_err(|source| OpenError::Entry { at, source })?;
    store.commit(applied.batch)?;
    let full = REPLAY_TAIL_BYTES.min(store.shared.options.tail_bytes);
    while store.has_threads() && store.shared.tail.read().weight() >= full {
        // The entries are durable: the upkeep thread makes room as fast as the state store takes it.
        store.shared.refuse_if_stopped()?;
        if !store.shared.options.state_store_has_room() {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(io_error("make room in the state store: free some of the disk", full));
        }
        let mut orders = store.shared.orders.lock();
        store.shared.wake.notify_all();
        store.shared.wake.wait_for(&mut orders, Duration::from_millis(2));
    }
    Ok(())
}

/// The newest state store of the generation that is to be believed, and its serial; the others go. Else why the last
/// one is not.
fn load_newest(
    options: &StoreOptions,
    log: &GroupLog,
    state: &GroupState,
) -> Result<Result<(Loaded, u32), Distrust>, OpenError> {
    let mut reason = Distrust::Absent;
    let mut serials = serials(options, state.generation)?;
    while let Some(serial) = serials.pop() {
        match load_trusted(options, log, state, serial) {
            Ok(loaded) => {
                for older in serials {
                    remove_engine(options, state.generation, older)?;
                }
                return Ok(Ok((loaded, serial)));
            }
            Err(distrust) => {
                reason = distrust;
                // The last is removed by whoever builds a new one.
                if !serials.is_empty() {
                    remove_engine(options, state.generation, serial)?;
                }
            }
        }
    }
    Ok(Err(reason))
}

/// The state store `serial`, if everything about it is as it must be.
fn load_trusted(
    options: &StoreOptions,
    log: &GroupLog,
    state: &GroupState,
    serial: u32,
) -> Result<Loaded, Distrust> {
    let folder = engine_folder(options, state.generation, serial);
    if let Ok(note) = options.device.open(DISTRUST) {
        return Err(Distrust::Noted(load::text(&*note)));
    }
    check_size(options, log, state, &folder)?;
    let engine = open_engine(options, state.generation, serial)?;
    let loaded = load::from_engine(engine, state.generation, options.value_budget_bytes)?;
    check_place(log, state, loaded.applied)?;
    Ok(loaded)
}

/// Last resort of a full disk: sled gives nothing back, so one that takes far more than what it was made from is made
/// anew at its live size, before growth would be refused for want of it.
fn check_size(
    options: &StoreOptions,
    log: &GroupLog,
    state: &GroupState,
    folder: &Path,
) -> Result<(), Distrust> {
    let base = state.base.as_ref().map_or(0, |base| base.len);
    if !log.growth_refused(options.reserve_for(base)) {
        return Ok(());
    }
    let live = base + log.retained_bytes();
    let bytes = folder_bytes(folder);
    if bytes > 2 * live + BLOAT_SLACK {
        return Err(Distrust::Bloated { bytes, live });
    }
    Ok(())
}

/// Whether the log still has everything that the state store lacks.
fn check_place(log: &GroupLog, state: &GroupState, applied: Option<LogId>) -> Result<(), Distrust> {
    let base = state.base.as_ref().map(|base| base.at);
    let Some(applied) = applied else {
        return Err(Distrust::NoMark);
    };
    if base.is_some_and(|base| applied.index < base.index) {
        return Err(Distrust::OlderThanBase);
    }
    if state.last.is_none_or(|last| applied.index > last.index) {
        return Err(Distrust::BeyondJournal);
    }
    if log.term_at(applied.index) != Some(applied.term.0) {
        return Err(Distrust::OtherLog);
    }
    Ok(())
}

/// A fresh state store, from the base if there is one.
fn rebuild(options: &StoreOptions, state: &GroupState) -> Result<Loaded, OpenError> {
    for serial in serials(options, state.generation)? {
        remove_engine(options, state.generation, serial)?;
    }
    let engine = open_engine(options, state.generation, 0).map_err(StoreError::Engine)?;
    let loaded = match &state.base {
        None => Loaded {
            engine,
            machine: StateMachine::new(options.value_budget_bytes),
            applied: None,
            content: ContentSum::default(),
            size: DbSize::default(),
        },
        Some(mark) => {
            let mut unpaced = |_| Ok(());
            let loaded = load::from_base(options, mark, engine, &mut unpaced);
            loaded.map_err(|error| damaged_base(options, mark, error))?
        }
    };
    remove_note(options)?;
    Ok(loaded)
}

/// The base that the journal names is needed, and is not what it must be.
fn damaged_base(options: &StoreOptions, mark: &BaseMark, error: StoreError) -> OpenError {
    let (file, group) = (mark.file_name.clone(), options.group.0);
    match error {
        StoreError::Base(BaseError::Newer(found)) => OpenError::NewerBase { file, found },
        StoreError::Base(source) => OpenError::Base { file, group, source },
        other => OpenError::Store(other),
    }
}

fn remove_note(options: &StoreOptions) -> Result<(), OpenError> {
    match options.device.remove(DISTRUST) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(io_error("remove a note", source)),
    }
    Ok(())
}

/// Removes what no record of the journal names: half-written and half-received bases, older bases, other generations.
fn tidy_up(options: &StoreOptions, state: &GroupState) -> Result<(), OpenError> {
    let named = state.base.as_ref().map(|base| base.file_name.as_str());
    let names =
        options.device.list().map_err(|source| io_error("list the group's folder", source))?;
    let mut removed = false;
    for name in names {
        let stale_base =
            name.starts_with("tmp-") || (name.starts_with("base-") && Some(name.as_str()) != named);
        if stale_base {
            options
                .device
                .remove(&name)
                .map_err(|source| io_error("remove a stale base", source))?;
            removed = true;
        }
        let other = name.starts_with("state-")
            && parse_engine_folder(&name).is_none_or(|(of, _)| of != state.generation);
        if other && options.engine == EngineKind::Sled {
            remove_folder(&options.folder.join(&name))
                .map_err(|source| io_error("remove an old state store", source))?;
        }
    }
    if removed {
        options.device.sync_dir().map_err(|source| io_error("sync the group's folder", source))?;
    }
    debug_assert!(
        state
            .base
            .as_ref()
            .is_none_or(|base| base.file_name == base_name(base.generation, base.at))
    );
    Ok(())
}

fn check_log(group: u64, state: &GroupState) -> Result<(), OpenError> {
    let base = state.base.as_ref().map(|base| base.at.index);
    let index = |id: Option<LogId>| id.map(|id| id.index);
    let (purged, committed, last) =
        (index(state.purged), index(state.committed), index(state.last));
    let holds = purged <= base && base <= last && committed <= last;
    holds.then_some(()).ok_or_else(|| OpenError::Invariant {
        group,
        broken: format!("purged {purged:?} <= base {base:?} <= last {last:?} and commit {committed:?} <= last do not hold"),
    })
}

fn check_opened(group: u64, state: &GroupState, applied: Option<LogId>) -> Result<(), OpenError> {
    let holds =
        state.committed.map(|id| id.index) == applied.map(|id| id.index) && applied <= state.last;
    check_log(group, state)?;
    holds.then_some(()).ok_or_else(|| OpenError::Invariant {
        group,
        broken: format!(
            "applied {applied:?} = commit {:?} <= last {:?} does not hold",
            state.committed, state.last
        ),
    })
}

pub(crate) fn io_error(doing: &str, source: io::Error) -> OpenError {
    OpenError::Io { doing: doing.to_owned(), source }
}
