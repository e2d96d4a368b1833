//! The node itself: what it holds, how it is opened, reset and shut down.
//!
//! ```text
//!   open: claim the directory, read node.json ── resume: go on from there ── .. ── shut_down: stop what runs
//!   a member that was removed ── reset: stop, note it, empty, note it
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{OwnedMutexGuard, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::instrument::WithSubscriber as _;

use super::certificates::Plans;
use super::directory::{DirectoryFault, StateDirectory};
use super::launcher::{Ending, Launcher, MemberState, RunningMember};
use super::record;
use super::refusals::unexpected;
use super::settings::NodeSettings;
use super::stage::{Seat, Stage};
use super::steps::Steps;
use crate::fleet::api::server::EventKind;
use crate::fleet::audit::AuditLog;
use crate::fleet::controllers::{Controllers, Timers};
use crate::fleet::error::FleetError;
use crate::fleet::events::EventLog;
use crate::fleet::management::Phase;
use crate::fleet::store::Store;
use crate::support::spawn::Blocking;

/// Why a node is none any more, in `node.json`, status and log.
pub(super) const REMOVED: &str = "removed";

/// The right to change what a node is, for as long as it is held.
pub(super) type Turn = OwnedMutexGuard<()>;

/// One managed node. Clones are the same node.
#[derive(Clone)]
pub struct Node(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) settings: NodeSettings,
    pub(super) directory: StateDirectory,
    pub(super) launcher: Arc<dyn Launcher>,
    pub(super) events: EventLog,
    pub(super) audit: AuditLog,
    /// Where it stood when it was opened.
    pub(super) opened: record::Phase,
    pub(super) stage: watch::Sender<Stage>,
    /// Held by whoever changes what this node is.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// Held while another node is let in here.
    pub(super) admissions: tokio::sync::Mutex<()>,
    pub(super) plans: Plans,
    /// The member that was started last, also while the node is on its way to a seat.
    pub(super) launched: Mutex<Option<RunningMember>>,
    /// Held by whoever works in the folder of certificates.
    pub(super) files: Arc<tokio::sync::Mutex<()>>,
    pub(super) disk: Blocking,
    /// While this node is a member.
    controllers: tokio::sync::Mutex<Option<Controllers>>,
    pub(super) steps: Steps,
    /// The process cannot go on, for this reason.
    failed: watch::Sender<Option<String>>,
    tasks: Mutex<JoinSet<()>>,
}

/// A node that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenFault {
    /// Its directory.
    #[error(transparent)]
    Directory(#[from] DirectoryFault),
    /// Its audit log.
    #[error("audit.log: {0}")]
    Audit(io::Error),
}

impl Node {
    /// Holds the state directory and reads where the node stands. Nothing runs yet: [`Node::resume`] goes on.
    pub fn open(settings: NodeSettings, launcher: Arc<dyn Launcher>) -> Result<Node, OpenFault> {
        let directory = StateDirectory::claim(&settings.state_dir)?;
        let audit = AuditLog::open(&directory.audit()).map_err(OpenFault::Audit)?;
        let opened = directory.load()?;
        let stage = match opened.clone() {
            record::Phase::Uninitialised { since } => Stage::Uninitialised { since },
            record::Phase::Bootstrapping { name, address, .. } => {
                Stage::Bootstrapping { name, address }
            }
            record::Phase::Joining(joining) => {
                Stage::Joining { name: joining.name, address: joining.address }
            }
            record::Phase::Member { name, address, .. }
            | record::Phase::Worker { name, address, .. } => Stage::Joining { name, address },
            record::Phase::Resetting { reason } => Stage::Resetting { reason },
        };
        Ok(Node(Arc::new(Inner {
            settings,
            directory,
            launcher,
            events: EventLog::default(),
            audit,
            opened,
            stage: watch::Sender::new(stage),
            turn: Arc::default(),
            admissions: tokio::sync::Mutex::default(),
            plans: Plans::default(),
            launched: Mutex::default(),
            files: Arc::default(),
            disk: Blocking::bounded(1),
            controllers: tokio::sync::Mutex::default(),
            steps: Steps::default(),
            failed: watch::Sender::new(None),
            tasks: Mutex::default(),
        })))
    }

    /// What it was told at the start.
    pub fn settings(&self) -> &NodeSettings {
        &self.0.settings
    }

    /// Resolves once the process cannot go on, with the cause. Never, while all is well.
    pub async fn failed(&self) -> String {
        let mut failed = self.0.failed.subscribe();
        let failed = failed.wait_for(Option::is_some).await.map(|why| why.clone());
        match failed {
            Ok(why) => why.unwrap_or_default(),
            Err(_gone) => std::future::pending().await,
        }
    }

    pub(super) fn fail(&self, why: String) {
        tracing::error!(error = why, "the node cannot go on");
        self.0.failed.send_replace(Some(why));
    }

    /// What the node is, to be told of changes; the phase, and whether its certificates are the fleet's.
    pub fn phases(&self) -> impl Future<Output = Phase> + Send + use<> {
        let mut stage = self.0.stage.subscribe();
        let before = stage.borrow_and_update().phase();
        async move {
            let changed = stage.wait_for(|stage| stage.phase() != before).await;
            match changed.map(|stage| stage.phase()) {
                Ok(phase) => phase,
                Err(_gone) => std::future::pending().await,
            }
        }
    }

    /// What it is now.
    pub(super) fn stage(&self) -> Stage {
        self.0.stage.borrow().clone()
    }

    pub(super) fn enter(&self, stage: Stage) {
        let phase = stage.phase();
        let changed = self.0.stage.send_replace(stage).phase() != phase;
        if changed {
            tracing::info!(?phase, "this node");
            self.0.events.publish(EventKind::Lifecycle, json!({ "phase": phase }));
        }
    }

    /// Tells whoever follows how far something is.
    pub(super) fn progress(&self, operation: &'static str, step: &'static str) {
        tracing::info!(operation, step, "on the way");
        self.0.events.publish(EventKind::Progress, json!({ "operation": operation, "step": step }));
    }

    /// The right to change what this node is; refused while another change is under way.
    pub(super) fn take_turn(&self) -> Result<Turn, FleetError> {
        Arc::clone(&self.0.turn).try_lock_owned().map_err(|_held| {
            FleetError::Conflict("another change of this node is under way".to_owned())
        })
    }

    /// Runs `work` in a task of the node's, so that it goes on if whoever waits goes away.
    pub(super) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, FleetError>> + Send + 'static,
    ) -> Result<T, FleetError> {
        let (tell, told) = oneshot::channel();
        self.spawn(async move {
            // Nobody waits any more: what was done is in the log.
            let _ = tell.send(work.await);
        });
        told.await.unwrap_or(Err(FleetError::ShuttingDown))
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let tasks = &mut *self.0.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work.with_current_subscriber());
    }

    pub(super) fn note(&self, phase: &record::Phase) -> Result<(), FleetError> {
        self.0.directory.store(phase).map_err(|why| unexpected(&why.to_string()))
    }

    /// Looks after a member as long as it runs.
    pub(super) fn attend(&self, seat: Arc<Seat>) {
        let node = self.clone();
        self.spawn(async move {
            seat.member.leaves(|state| *state == MemberState::Starting).await;
            node.decide(&seat).await;
            node.keep_certificates(Arc::clone(&seat));
            match seat.member.leaves(|state| *state == MemberState::Ready).await {
                MemberState::Removed => {
                    tracing::warn!(name = seat.name, "this node was removed from its cluster");
                    let _turn = node.0.turn.lock().await;
                    node.reset_here(REMOVED, Some((&seat, Ending::Removed))).await;
                }
                MemberState::Failed(why) => node.fail(why),
                // It was stopped by this node.
                MemberState::Ended(_) | MemberState::Starting | MemberState::Ready => {}
            }
        });
    }

    /// Lets this node stand for deciding what is to be done about the fleet.
    async fn decide(&self, seat: &Seat) {
        let keyspace = seat.keyspace().clone();
        let store = Arc::new(Store::of_the_fleet(keyspace.clone()));
        let mut controllers = self.0.controllers.lock().await;
        *controllers = Some(Controllers::start(
            keyspace,
            store,
            &seat.name,
            Some(Arc::clone(&seat.key)),
            Timers::default(),
        ));
    }

    async fn stop_deciding(&self) {
        let controllers = self.0.controllers.lock().await.take();
        if let Some(controllers) = controllers {
            controllers.stop().await;
        }
    }

    /// Stops what runs, and empties the directories; whoever calls holds the turn. A reset that cannot be finished ends
    /// the process: the next start goes on with it.
    pub(super) async fn reset_here(&self, reason: &str, member: Option<(&Seat, Ending)>) {
        self.enter(Stage::Resetting { reason: reason.to_owned() });
        self.stop_deciding().await;
        if let Some((seat, how)) = member {
            let stopped = timeout(self.0.settings.timers.stop, seat.member.stop(how)).await;
            match stopped {
                Ok(Ok(())) => {}
                Ok(Err(why)) => tracing::warn!(error = %why, "stopping the member failed"),
                Err(_elapsed) => {
                    // Its directory is still written to.
                    return self.fail("the member that is to be reset does not stop".to_owned());
                }
            }
        }
        drop(self.0.launched.lock().take());
        let _files = self.0.files.lock().await;
        let directory = &self.0.directory;
        let emptied = directory
            .store(&record::Phase::Resetting { reason: reason.to_owned() })
            .and_then(|()| directory.empty())
            .and_then(|()| {
                let since = Some(reason.to_owned());
                directory.store(&record::Phase::Uninitialised { since })
            });
        match emptied {
            Ok(()) => {
                tracing::info!(reason, "this node was reset");
                self.enter(Stage::Uninitialised { since: Some(reason.to_owned()) });
            }
            Err(why) => self.fail(format!("the node cannot be reset: {why}")),
        }
    }

    /// Stops what runs, in order: leadership goes, clients are drained. What was under way is gone on with at the next
    /// start.
    pub async fn shut_down(&self) -> Result<(), String> {
        let before = self.0.stage.send_replace(Stage::Stopping);
        let mut tasks = std::mem::take(&mut *self.0.tasks.lock());
        tasks.shutdown().await;
        self.stop_deciding().await;
        match before {
            Stage::Member(seat) => self.stop_in_order(&seat.member).await,
            Stage::Worker(gate) => {
                // What is carried is made again elsewhere.
                let _in_time = timeout(Duration::from_secs(2), gate.worker.stop()).await;
                Ok(())
            }
            Stage::Bootstrapping { .. } | Stage::Joining { .. } => {
                let on_its_way = self.0.launched.lock().take();
                match on_its_way {
                    Some(member) => self.stop_in_order(&member).await,
                    None => Ok(()),
                }
            }
            Stage::Uninitialised { .. } | Stage::Resetting { .. } | Stage::Stopping => Ok(()),
        }
    }

    async fn stop_in_order(&self, member: &RunningMember) -> Result<(), String> {
        match timeout(self.0.settings.timers.stop, member.stop(Ending::InOrder)).await {
            Ok(stopped) => stopped.map_err(|why| why.to_string()),
            Err(_elapsed) => Err("the member did not stop in time".to_owned()),
        }
    }

    #[cfg(test)]
    pub(crate) fn crash_at(&self, step: &'static str) {
        self.0.steps.crash_at(step);
    }

    /// Returns once it has ended there.
    #[cfg(test)]
    pub(crate) async fn crashed(&self) {
        self.0.steps.crashed().await;
    }

    /// What comes to `step` waits there while `meanwhile` is done.
    #[cfg(test)]
    pub(crate) async fn hold_at(&self, step: &'static str, meanwhile: impl Future<Output = ()>) {
        self.0.steps.hold_at(step);
        self.0.steps.held().await;
        meanwhile.await;
        self.0.steps.go_on();
    }

    /// Drops everything as it is.
    #[cfg(test)]
    pub(crate) async fn abandon(self) {
        let mut tasks = std::mem::take(&mut *self.0.tasks.lock());
        tasks.shutdown().await;
        drop(self.0.launched.lock().take());
    }
}

/// `work`, at most for `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    what: &'static str,
    work: impl Future<Output = Result<T, FleetError>>,
) -> Result<T, FleetError> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_elapsed) => Err(FleetError::TimedOut(what)),
    }
}
