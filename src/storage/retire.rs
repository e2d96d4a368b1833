//! An old generation, once another has taken its place: read by whoever still holds a view, then removed.
//!
//! ```text
//!   succeed(old) ──▶ its upkeep ends, unwritten ──▶ nobody holds the store ──▶ nobody holds a view ──▶ files go
//!                                     (looked at by the new generation's upkeep, round by round)
//! ```
//!
//! What is left when the process ends, the next start removes: no record of the journal names it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use quorate_core::state_machine::StateMachine;

use super::base::{is_base_of, temporary};
use super::folders::{parse_engine_folder, remove_folder};
use super::options::{EngineKind, StoreOptions};
use super::shared::Shared;
use super::store::{Hands, Store};

/// A generation that was replaced.
#[derive(Debug)]
pub(crate) struct Predecessor {
    /// Until nobody else holds it.
    store: Option<Arc<Store>>,
    /// The last one to hold it removes the files.
    shared: Arc<Shared>,
    /// Freed here, because that may take a while.
    machine: Option<StateMachine>,
}

impl Store {
    /// Takes charge of the store and machine that this one has taken the place of: they work no more, and are removed
    /// once nobody reads them.
    pub fn succeed(&self, old: Arc<Store>, machine: StateMachine) {
        old.retire();
        if let Err(error) = old.shared.forget_incoming() {
            tracing::warn!(%error, "what was received of a state stays until the next start");
        }
        let shared = Arc::clone(&old.shared);
        let old = Predecessor { store: Some(old), shared, machine: Some(machine) };
        self.shared.predecessors.lock().push(old);
        self.shared.wake.notify_all();
    }

    /// Ends its background work without waiting for it; views go on.
    fn retire(&self) {
        let shared = &self.shared;
        shared.retired.store(true, Ordering::Release);
        shared.orders.lock().closing = true;
        shared.wake.notify_all();
        shared.room.notify_waiters();
    }

    /// Whether joining its thread takes no time.
    fn has_ended(&self) -> bool {
        match &self.upkeep {
            Hands::Thread(thread) => thread.lock().as_ref().is_none_or(JoinHandle::is_finished),
            Hands::InPlace(_) => true,
        }
    }
}

impl Shared {
    /// Removes old generations that nobody reads any more.
    pub(crate) fn bury_predecessors(&self) {
        let all = std::mem::take(&mut *self.predecessors.lock());
        let read: Vec<_> = all.into_iter().flat_map(Predecessor::bury).collect();
        self.predecessors.lock().extend(read);
    }
}

impl Predecessor {
    /// Removes it, or gives it back while somebody holds it; and what it has not removed itself.
    fn bury(mut self) -> Vec<Self> {
        self.machine = None;
        if let Some(store) = self.store.take() {
            match Arc::try_unwrap(store) {
                Err(held) => return vec![Predecessor { store: Some(held), ..self }],
                Ok(store) if !store.has_ended() => {
                    return vec![Predecessor { store: Some(Arc::new(store)), ..self }];
                }
                Ok(ended) => drop(ended),
            }
        }
        let shared = match Arc::try_unwrap(self.shared) {
            Err(shared) => return vec![Predecessor { store: None, shared, machine: None }],
            Ok(shared) => shared,
        };
        let (options, generation) = (shared.options.clone(), shared.generation);
        let older = std::mem::take(&mut *shared.predecessors.lock());
        shared.clear_remains();
        // Its state store is closed before its folder goes.
        drop(shared);
        let group = options.group.0;
        match remove_generation(&options, generation) {
            Ok(()) => tracing::info!(group, generation, "the state before the snapshot is gone"),
            Err(error) => {
                tracing::warn!(group, generation, %error, "an old state stays until the next start");
            }
        }
        older
    }
}

/// Removes every file and folder of an old generation.
fn remove_generation(options: &StoreOptions, generation: u64) -> io::Result<()> {
    for name in options.device.list()? {
        let folder = parse_engine_folder(&name).is_some_and(|(of, _)| of == generation);
        if folder && options.engine == EngineKind::Sled {
            remove_folder(&options.folder.join(&name))?;
        }
        if is_base_of(generation, &name) || name == temporary(generation) {
            options.device.remove(&name)?;
        }
    }
    Ok(())
}
