//! What has been applied here: the state machine, the store below it, and how far both are.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use quorate_core::api::batch::RevisionRecord;
use quorate_core::api::ids::{LogId, Revision};
use quorate_core::api::pb::mvccpb::KeyValue;
use quorate_core::api::refusal::Corrupt;
use quorate_core::api::view::View;
use quorate_core::state_machine::StateMachine;
use tokio::sync::watch;

use super::error::KeyspaceError;
use crate::storage::{Store, StoreView};
use crate::support::spawn::Blocking;

/// Shared by the sink, which alone changes the machine's answers, and by all who read.
///
/// **Invariant:** whoever holds the machine's lock does no io that can be awaited elsewhere, and holds it for a
/// bounded number of keys.
pub(crate) struct State {
    pub(crate) machine: RwLock<StateMachine>,
    pub(crate) store: Store,
    pub(crate) blocking: Arc<Blocking>,
    applied: watch::Sender<Option<LogId>>,
}

impl State {
    pub(crate) fn new(machine: StateMachine, store: Store, blocking: Arc<Blocking>) -> Self {
        let (applied, _) = watch::channel(machine.applied());
        State { machine: RwLock::new(machine), store, blocking, applied }
    }

    /// The last applied entry.
    pub(crate) fn applied(&self) -> Option<LogId> {
        *self.applied.borrow()
    }

    /// Tells those who wait that `at` has been applied and committed.
    pub(crate) fn advance(&self, at: LogId) {
        self.applied.send_replace(Some(at));
    }

    /// Waits until the entry at `index` has been applied here. The caller sets the deadline.
    pub(crate) async fn wait_applied(&self, index: u64) -> Result<(), KeyspaceError> {
        let reached = |at: &Option<LogId>| at.is_some_and(|at| at.index >= index);
        if reached(&self.applied.borrow()) {
            return Ok(());
        }
        let mut applied = self.applied.subscribe();
        match applied.wait_for(reached).await {
            Ok(_) => Ok(()),
            Err(_closed) => Err(KeyspaceError::Stopped),
        }
    }

    /// Waits until the applied state is as `holds` wants it. The caller sets the deadline.
    pub(crate) async fn wait_until(
        &self,
        holds: impl Fn(&StateMachine) -> bool,
    ) -> Result<(), KeyspaceError> {
        let mut applied = self.applied.subscribe();
        loop {
            applied.mark_unchanged();
            if holds(&self.machine.read()) {
                return Ok(());
            }
            if applied.changed().await.is_err() {
                return Err(KeyspaceError::Stopped);
            }
        }
    }

    /// Reads revisions off the runtime's thread, for a decision that must not wait for a disk.
    pub(crate) async fn prefetch(
        &self,
        view: StoreView,
        cold: Vec<Revision>,
    ) -> Result<Prefetched, Corrupt> {
        let read = move || {
            let mut values = HashMap::with_capacity(cold.len());
            for revision in cold {
                values.insert(revision, view.key_value(revision)?);
            }
            Ok(Prefetched { view, values })
        };
        self.blocking.run(read).await
    }
}

/// A view whose likely reads are in memory already. What is not still comes from the store.
pub(crate) struct Prefetched {
    view: StoreView,
    values: HashMap<Revision, KeyValue>,
}

impl View for Prefetched {
    fn key_value(&self, revision: Revision) -> Result<KeyValue, Corrupt> {
        match self.values.get(&revision) {
            Some(value) => Ok(value.clone()),
            None => self.view.key_value(revision),
        }
    }

    fn scan(&self, from: Revision, max_bytes: usize) -> Result<Vec<RevisionRecord>, Corrupt> {
        self.view.scan(from, max_bytes)
    }
}
