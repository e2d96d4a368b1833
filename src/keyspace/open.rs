//! Starting a keyspace in order, and stopping it in order.
//!
//! ```text
//!   open   store + machine (at the commit index) -> hub, lessor -> sink -> raft -> proposer, sweeper, ...
//!   stop   no more requests -> batches end -> tasks end -> raft ends -> store closes
//!          (the journal is the host's)
//! ```

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::internal::command::Request;
use quorate_core::api::pb::internal::{Command, MemberAttributes};
use quorate_core::api::refusal::Corrupt;
use quorate_core::state_machine::{Limits, StateMachine};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::apply_figures::ApplyFigures;
use super::auth::{Asker, Authority};
use super::config::{KeyspaceConfig, Seams};
use super::figures::KeyspaceFigures;
use super::install::Builder;
use super::lease::{Lessor, LessorOptions, last_promise};
use super::members::Roll;
use super::read::Reader;
use super::seat::{Leases, Past, Seat};
use super::sink::Sink;
use super::state::State;
use super::upkeep::{
    Checker, Compactable, Comparer, Hashes, QuotaWatch, Sweeper, check_compactions,
    check_periodically, compact_by_itself,
};
use super::watch::{WatchHub, WatchOptions};
use super::write::{InFlight, ProposalCounts, Proposer, Queue, Stamp, Writer};
use super::{Inner, Keyspace, KeyspaceError, members};
use crate::consensus::{Consensus, PurgeLimits, Settings, StartError, Timing};
use crate::storage::journal::GroupLog;
use crate::storage::{self, Store, StoreOptions};

/// Batches under way get this long to be answered when the keyspace stops.
const DRAIN: Duration = Duration::from_secs(1);

/// A larger quota is warned of, as by etcd.
const QUOTA_ADVISED_MAX: i64 = 8 << 30;

/// How often the store is asked whether it still works.
const STORE_LOOK: Duration = Duration::from_secs(1);

/// A keyspace was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its files were refused; the text says what to do.
    #[error(transparent)]
    Storage(#[from] storage::OpenError),
    /// Raft did not start over them.
    #[error(transparent)]
    Consensus(#[from] StartError),
}

/// Every task of the keyspace. Those that run for ever are dropped when `stop` is told.
pub(super) struct Tasks {
    stop: watch::Sender<bool>,
    endless: Mutex<Vec<JoinHandle<()>>>,
    proposer: Mutex<Option<JoinHandle<()>>>,
}

impl Tasks {
    fn new() -> Self {
        Tasks {
            stop: watch::Sender::new(false),
            endless: Mutex::default(),
            proposer: Mutex::default(),
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut stop = self.stop.subscribe();
        let handle = tokio::spawn(async move {
            tokio::select! {
                () = task => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        });
        self.endless.lock().push(handle);
    }

    async fn end(&self) {
        self.stop.send_replace(true);
        let endless = std::mem::take(&mut *self.endless.lock());
        for task in endless {
            report_panic(task.await);
        }
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a task of the keyspace panicked");
    }
}

/// The parts that exist before raft runs, because raft feeds them.
pub(super) struct Fed {
    pub(super) state: Arc<State>,
    pub(super) hub: WatchHub,
    pub(super) lessor: Lessor,
    pub(super) seat: Seat,
    pub(super) authority: Arc<Authority>,
    pub(super) sweeper: Arc<Sweeper>,
    pub(super) queue: Arc<Queue>,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) apply_figures: Arc<ApplyFigures>,
    pub(super) figures: Arc<KeyspaceFigures>,
    pub(super) quota: Arc<QuotaWatch>,
    pub(super) builder: Arc<Builder>,
    pub(super) roll: Arc<Roll>,
}

impl Fed {
    pub(super) fn new(
        config: &KeyspaceConfig,
        seams: &Seams,
        opened: storage::Opened,
        entry_bytes_max: usize,
    ) -> Fed {
        let storage::Opened { store, machine, .. } = opened;
        let (current, compacted) = (machine.revision(), machine.compact_revision());
        let patience = config.request_timeout();
        let authority = Authority::new(&config.auth, seams, patience);
        authority.follow(&machine);
        let figures = Arc::<KeyspaceFigures>::default();
        let swept = machine.swept_revision();
        let sweeper = Sweeper::new(swept, compacted, config.sweep_pace, Arc::clone(&figures));
        let roll = Roll::new(config.member_id, config.cluster_id, &machine);
        let blocking = Arc::clone(&seams.blocking);
        let state = Arc::new(State::new(machine, store, Arc::clone(&blocking)));
        let options = WatchOptions {
            progress_interval: config.watch_progress_interval,
            fragment_bytes: config.request_bytes_max + (512 << 10),
            ..WatchOptions::default()
        };
        let past = Arc::new(Past(Arc::clone(&state)));
        let seat = Seat::default();
        let lessor = Lessor::new(
            Arc::new(Leases(Arc::clone(&state))),
            Arc::new(seat.clone()),
            LessorOptions::for_election_timeout(config.election_timeout),
        );
        Fed {
            hub: WatchHub::new(past, blocking, options, current, compacted),
            state,
            lessor,
            seat,
            authority: Arc::new(authority),
            sweeper: Arc::new(sweeper),
            queue: Arc::new(Queue::new(entry_bytes_max)),
            in_flight: Arc::default(),
            apply_figures: Arc::new(ApplyFigures::new(config.slow_apply)),
            figures,
            quota: Arc::new(QuotaWatch::new(config.quota())),
            builder: Arc::default(),
            roll: Arc::new(roll),
        }
    }

    pub(super) fn sink(&self, config: &KeyspaceConfig, seams: &Seams) -> Sink {
        Sink {
            state: Arc::clone(&self.state),
            in_flight: Arc::clone(&self.in_flight),
            hub: self.hub.clone(),
            lessor: self.lessor.clone(),
            authority: Arc::clone(&self.authority),
            sweeper: Arc::clone(&self.sweeper),
            figures: Arc::clone(&self.apply_figures),
            quota: Arc::clone(&self.quota),
            builder: Arc::clone(&self.builder),
            roll: Arc::clone(&self.roll),
            member: config.member_id,
            incarnation: seams.incarnation,
        }
    }
}

impl Keyspace {
    /// Opens a keyspace over its group's log: brings the store to the commit index, then starts raft, then
    /// everything else. A group without a log begins with `config.initial_members`, or waits for a leader to bring
    /// it up where there are none.
    ///
    /// Returns before there is a leader; calls wait for one.
    pub async fn open(
        config: KeyspaceConfig,
        store: StoreOptions,
        log: GroupLog,
        seams: Seams,
    ) -> Result<Keyspace, OpenError> {
        // Both in proportion to the disk: see `DiskSizes::fit`.
        let purge = PurgeLimits {
            catch_up_requests: config.catch_up_requests,
            catch_up_bytes: store.base_after_bytes,
            held_bytes: 8 * store.base_after_bytes,
            ..PurgeLimits::default()
        };
        let opened = {
            let log = log.clone();
            let open = move || Store::open(store, log);
            seams.blocking.run(open).await?
        };
        let fed = Fed::new(&config, &seams, opened, log.entry_bytes_max());
        let consensus = start_raft(&config, purge, &seams, &fed, log).await?;
        let keyspace = Keyspace::assemble(config, &seams, &fed, consensus);
        keyspace.start_tasks(seams, fed);
        Ok(keyspace)
    }

    fn assemble(
        config: KeyspaceConfig,
        seams: &Seams,
        fed: &Fed,
        consensus: Consensus,
    ) -> Keyspace {
        let writer = Arc::new(Writer {
            queue: Arc::clone(&fed.queue),
            consensus: consensus.clone(),
            member: config.member_id,
            request_bytes_max: config.request_bytes_max,
            request_timeout: config.request_timeout(),
            election_timeout: config.election_timeout,
            counts: ProposalCounts::default(),
            figures: Arc::clone(&fed.figures),
        });
        let reader = Arc::new(Reader {
            state: Arc::clone(&fed.state),
            consensus: consensus.clone(),
            limits: Limits { max_txn_ops: config.txn_ops_max },
            request_timeout: config.request_timeout(),
            request_bytes_max: config.request_bytes_max,
            figures: Arc::clone(&fed.figures),
        });
        let seat = (Arc::clone(&writer), Arc::clone(&reader));
        fed.seat.take(config.member_id, seat.0, seat.1);
        let inner = Inner {
            config,
            state: Arc::clone(&fed.state),
            consensus,
            writer,
            reader,
            hub: fed.hub.clone(),
            lessor: fed.lessor.clone(),
            authority: Arc::clone(&fed.authority),
            sweeper: Arc::clone(&fed.sweeper),
            apply_figures: Arc::clone(&fed.apply_figures),
            figures: Arc::clone(&fed.figures),
            hash_desk: Arc::default(),
            builder: Arc::clone(&fed.builder),
            roll: Arc::clone(&fed.roll),
            clock: Arc::clone(&seams.clock),
            random: Mutex::new(StdRng::seed_from_u64(seams.incarnation)),
            failed: watch::Sender::new(None),
            tasks: Tasks::new(),
        };
        Keyspace(Arc::new(inner), Asker::Member)
    }

    fn start_tasks(&self, seams: Seams, fed: Fed) {
        let inner = &self.0;
        let tasks = &inner.tasks;
        let room = {
            let state = Arc::clone(&inner.state);
            move || {
                let state = Arc::clone(&state);
                async move { state.store().tail_room().await }
            }
        };
        let proposer = Proposer {
            queue: fed.queue,
            in_flight: fed.in_flight,
            consensus: inner.consensus.clone(),
            stamp: Stamp {
                member: inner.config.member_id,
                incarnation: seams.incarnation,
                clock: seams.clock,
            },
            room,
        };
        *tasks.proposer.lock() = Some(tokio::spawn(proposer.run()));
        tasks.spawn(note_end(inner.consensus.clone(), inner.failed.clone()));
        tasks.spawn(watch_store(Arc::clone(&inner.state), inner.failed.clone()));
        tasks.spawn(sweep(fed.sweeper, Arc::clone(&inner.state), inner.failed.clone()));
        tasks.spawn(inner.lessor.clone().run(std::future::pending()));
        tasks.spawn(follow_leadership(
            inner.consensus.clone(),
            inner.config.clone(),
            inner.lessor.clone(),
        ));
        tasks.spawn(members::publish(
            Arc::clone(&inner.state),
            Arc::clone(&inner.writer),
            self.attributes(),
        ));
        tasks.spawn(members::raise_level(Arc::clone(&inner.state), Arc::clone(&inner.writer)));
        self.start_checks(&fed.quota);
        if let Some(mode) = inner.config.auto_compaction {
            let compacts =
                Compacts { state: Arc::clone(&inner.state), writer: Arc::clone(&inner.writer) };
            tasks.spawn(compact_by_itself(mode, compacts));
        }
    }

    /// What looks after the members' data and this member's size.
    fn start_checks(&self, quota: &Arc<QuotaWatch>) {
        let (inner, tasks) = (&self.0, &self.0.tasks);
        tell_quota(inner.config.quota_bytes);
        let raise = Arc::clone(quota).run(Arc::clone(&inner.state), Arc::clone(&inner.writer));
        tasks.spawn(raise);
        tasks.spawn(Arc::clone(&inner.hash_desk).run(self.hashes()));
        if let Some(every) = inner.config.corrupt_check {
            tasks.spawn(check_periodically(self.comparer(), every));
        }
        if let Some(every) = inner.config.compact_hash_check {
            tasks.spawn(check_compactions(self.comparer(), every));
        }
    }

    pub(super) fn hashes(&self) -> Hashes {
        Hashes {
            state: Arc::clone(&self.0.state),
            sweeper: Arc::clone(&self.0.sweeper),
            figures: Arc::clone(&self.0.figures),
        }
    }

    fn comparer(&self) -> Comparer {
        Comparer {
            hashes: self.hashes(),
            writer: Arc::clone(&self.0.writer),
            reader: Arc::clone(&self.0.reader),
        }
    }

    /// Compares this member's data with the others', before it serves (etcd's gate `InitialCorruptCheck`). One that
    /// differs is not to serve: the keyspace fails.
    pub async fn check_before_serving(&self) -> Result<(), KeyspaceError> {
        match Checker::new(self.comparer()).initial().await? {
            Ok(()) => Ok(()),
            Err(inconsistent) => {
                tracing::error!(error = %inconsistent, "checkInitialHashKV failed");
                fail(&self.0.failed, Some(inconsistent.to_string()));
                Err(KeyspaceError::Stopped)
            }
        }
    }

    /// Resolves when the keyspace has failed, with the cause: the member must stop. Never, while all is well.
    pub async fn failed(&self) -> String {
        let mut failed = self.0.failed.subscribe();
        let cause = failed.wait_for(Option::is_some).await;
        match cause.map(|cause| cause.clone()) {
            Ok(Some(cause)) => cause,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Resolves once this member has heard of a leader, is as new as it, and its name and URLs are known to all: etcd
    /// serves clients from then on (etcdserver/server.go, `publishV3`, which goes through raft at each start).
    pub async fn ready(&self) -> Result<(), KeyspaceError> {
        let mut leader = self.0.consensus.leader_changes();
        let led = leader.wait_for(|view| view.leader().is_some()).await;
        led.map_err(|_ended| KeyspaceError::Stopped)?;
        self.0.reader.linearize().await?;
        let told = self.attributes();
        let id = self.0.config.member_id;
        let published = |machine: &StateMachine| machine.member_attributes(id) == Some(&told);
        self.0.state.wait_until(published).await
    }

    fn attributes(&self) -> MemberAttributes {
        MemberAttributes {
            member_id: self.0.config.member_id.0,
            name: self.0.config.name.clone(),
            client_urls: self.0.config.client_urls.clone(),
        }
    }

    /// Stops in order. Requests that wait are answered; calls made from now on answer `Stopped`. Leadership is left
    /// with [`Keyspace::leave_leadership`] before.
    pub async fn shutdown(&self) {
        let inner = &self.0;
        inner.hub.close();
        inner.writer.queue.close();
        let proposer = inner.tasks.proposer.lock().take();
        let proposer = match proposer {
            Some(mut proposer) => match tokio::time::timeout(DRAIN, &mut proposer).await {
                Ok(ended) => {
                    report_panic(ended);
                    None
                }
                Err(_elapsed) => Some(proposer),
            },
            None => None,
        };
        inner.tasks.end().await;
        inner.consensus.shutdown().await;
        if let Some(proposer) = proposer {
            report_panic(proposer.await);
        }
        let state = Arc::clone(&inner.state);
        let blocking = Arc::clone(&inner.state.blocking);
        let builder = Arc::clone(&inner.builder);
        let close = move || {
            state.store().close();
            builder.end();
        };
        blocking.run(close).await;
    }
}

async fn start_raft(
    config: &KeyspaceConfig,
    purge: PurgeLimits,
    seams: &Seams,
    fed: &Fed,
    log: GroupLog,
) -> Result<Consensus, OpenError> {
    let before = log.state();
    let first_start = before.last.is_none() && before.vote.is_none();
    let settings = Settings {
        group: config.group,
        member: config.member_id,
        timing: Timing { heartbeat: config.heartbeat, election_timeout: config.election_timeout },
        purge,
        snapshots: config.snapshots,
    };
    let sink = Arc::new(fed.sink(config, seams));
    let transport = Arc::clone(&seams.transport);
    let blocking = Arc::clone(&seams.blocking);
    let consensus = Consensus::start(settings, log, sink, transport, blocking).await?;
    if first_start && !config.initial_members.is_empty() {
        let members: Vec<_> = config
            .initial_members
            .iter()
            .map(|member| (member.id, member.peer_urls.clone()))
            .collect();
        consensus.initialize(&members).await?;
    }
    Ok(consensus)
}

/// Raft ended although nobody stopped it.
async fn note_end(consensus: Consensus, failed: watch::Sender<Option<String>>) {
    let cause = Some(consensus.wait_ended().await);
    fail(&failed, cause);
}

/// The store's background work failed, or a read found damage: with no write under way nobody else would notice.
async fn watch_store(state: Arc<State>, failed: watch::Sender<Option<String>>) {
    loop {
        tokio::time::sleep(STORE_LOOK).await;
        if let Some(cause) = state.store().stopped() {
            return fail(&failed, Some(cause));
        }
    }
}

async fn sweep(sweeper: Arc<Sweeper>, state: Arc<State>, failed: watch::Sender<Option<String>>) {
    let corrupt: Corrupt = sweeper.run(&state).await;
    fail(&failed, Some(corrupt.to_string()));
}

/// What `--quota-backend-bytes` comes to, in etcd's words (`server/storage/quota.go`).
fn tell_quota(bytes: i64) {
    match bytes {
        ..0 => tracing::info!("quota-size-bytes" = bytes, "disabled backend quota"),
        0 => {
            let bytes = 2_i64 << 30;
            tracing::info!("quota-size-bytes" = bytes, "enabled backend quota with default value");
        }
        _ => {
            if bytes > QUOTA_ADVISED_MAX {
                tracing::warn!(
                    "quota-size-bytes" = bytes,
                    "quota-maximum-size-bytes" = QUOTA_ADVISED_MAX,
                    "quota exceeds the maximum value"
                );
            }
            tracing::info!("quota-size-bytes" = bytes, "enabled backend quota");
        }
    }
}

fn fail(failed: &watch::Sender<Option<String>>, cause: Option<String>) {
    failed.send_if_modified(|now| {
        let first = now.is_none();
        if first {
            *now = cause;
        }
        first
    });
}

/// Tells the lessor which term this member leads, as long as it does.
async fn follow_leadership(consensus: Consensus, config: KeyspaceConfig, lessor: Lessor) {
    let mut leader = consensus.leader_changes();
    loop {
        let view = *leader.borrow_and_update();
        let own = config.member_id;
        let leads = view.leader() == Some(own);
        lessor.leads(leads.then_some(view.term));
        let ask_of_others = async {
            if leads && let Some(at) = last_promise(&consensus, own, view.term).await {
                lessor.last_heard(view.term, at);
            }
            std::future::pending::<()>().await;
        };
        let changed = tokio::select! {
            changed = leader.changed() => changed,
            () = ask_of_others => return,
        };
        if changed.is_err() {
            lessor.leads(None);
            return;
        }
    }
}

/// The keyspace as auto compaction sees it.
struct Compacts {
    state: Arc<State>,
    writer: Arc<Writer>,
}

impl Compactable for Compacts {
    fn revision(&self) -> i64 {
        self.state.machine.read().revision()
    }

    fn leads(&self) -> bool {
        self.writer.consensus.leader_view().leader() == Some(self.writer.member)
    }

    async fn compact(&self, revision: i64) -> Result<(), KeyspaceError> {
        let request = pb::CompactionRequest { revision, physical: false };
        let request = Some(Request::Compaction(request));
        self.writer.write(Command { request, ..Command::default() }).await.map(drop)
    }
}
