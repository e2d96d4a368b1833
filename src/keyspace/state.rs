//! What has been applied here: the state machine, the store below it, and how far both are.
//!
//! ```text
//!   pick rows from the index --+
//!                              +-- under one hold of the lock: both of one generation
//!   take a view of the store --+
//!   read values through the view                 without the lock, even after an install has replaced both
//! ```

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
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
/// **Invariant:** a view that revisions found in the index are read through is taken from the same [`Generation`],
/// under the same hold of the lock: another store may have dropped them, or not have them yet.
pub(crate) struct State {
    pub(crate) machine: RwLock<Generation>,
    /// The store of `machine`, for those who read nothing from it. Set under the lock of `machine`.
    store: RwLock<Arc<Store>>,
    pub(crate) blocking: Arc<Blocking>,
    applied: watch::Sender<Option<LogId>>,
}

/// A state machine and the store that has what its index names. An installed snapshot brings another.
pub(crate) struct Generation {
    machine: StateMachine,
    store: Arc<Store>,
}

impl Generation {
    pub(crate) fn new(machine: StateMachine, store: Arc<Store>) -> Self {
        Generation { machine, store }
    }

    /// Reads what the index names; also when this is no longer the present generation.
    pub(crate) fn view(&self) -> StoreView {
        self.store.view()
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(crate) fn into_parts(self) -> (StateMachine, Arc<Store>) {
        (self.machine, self.store)
    }

    /// Which generation of the group's this is: who lets go of the lock looks whether it is still the same one.
    pub(crate) fn number(&self) -> u64 {
        self.store.generation()
    }
}

impl Deref for Generation {
    type Target = StateMachine;

    fn deref(&self) -> &StateMachine {
        &self.machine
    }
}

impl DerefMut for Generation {
    fn deref_mut(&mut self) -> &mut StateMachine {
        &mut self.machine
    }
}

impl State {
    pub(crate) fn new(machine: StateMachine, store: Store, blocking: Arc<Blocking>) -> Self {
        let (applied, _) = watch::channel(machine.applied());
        let store = Arc::new(store);
        let machine = RwLock::new(Generation::new(machine, Arc::clone(&store)));
        State { machine, store: RwLock::new(store), blocking, applied }
    }

    /// The present store, for its figures and for orders to it. What the index names is read through
    /// [`Generation::view`].
    pub(crate) fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store.read())
    }

    /// Puts another generation in the place of the present one, which is returned. `now` is the lock of
    /// [`State::machine`], held alone.
    pub(crate) fn replace(&self, now: &mut Generation, next: Generation) -> Generation {
        *self.store.write() = Arc::clone(&next.store);
        std::mem::replace(now, next)
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
    ) -> Result<Fetched, Corrupt> {
        let read = move || {
            let mut values = HashMap::with_capacity(cold.len());
            for revision in cold {
                values.insert(revision, view.key_value(revision)?);
            }
            Ok(Fetched(values))
        };
        self.blocking.run(read).await
    }
}

/// Values by their revision. A revision never changes, in whichever generation it is read.
pub(crate) struct Fetched(HashMap<Revision, KeyValue>);

impl Fetched {
    /// A view that has these in memory, over the store of the generation that is about to be asked.
    pub(crate) fn over(self, view: StoreView) -> Prefetched {
        Prefetched { view, values: self.0 }
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
