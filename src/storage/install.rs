//! A received base becomes the next generation of the group's state, beside the present one.
//!
//! ```text
//!   tmp-install-…  ──sync──▶ read past the page cache, every check ──▶ state-<g+1>, StateMachine     prepare
//!                  ──rename──▶ base-<g+1>-… ──directory sync──▶ Prepared
//!   the present store marks and purges no more ──▶ one synced record in the journal                  record
//!   a Store of generation g+1, whose upkeep runs                                                      start
//!   whoever holds the old store swaps, and hands it over: it goes when its last view is gone          retire.rs
//! ```
//!
//! A crash before the record is synced leaves files that no record names, and the next start removes them; one after
//! it finds the base of the new generation named, and the old files go.
//!
//! **Invariant:** before the record nothing of the present state is touched, and a failure removes all that was made.
//! **Invariant:** once the record was handed to the journal, nothing of the new generation is removed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use prost::Message as _;
use quorate_core::api::ids::LogId;
use quorate_core::state_machine::StateMachine;

use super::base::{BaseError, base_name};
use super::base_maker::Pacer;
use super::error::{OpenError, StoreError};
use super::folders::{engine_folder, open_engine, remove_folder};
use super::incoming::{InstallError, Receiving, remove_if_there};
use super::journal::{BaseMark, Done, InstallMark};
use super::load;
use super::open::{self, Begun, Carried, Loaded};
use super::options::{EngineKind, Meter};
use super::shared::Shared;
use super::source::{BaseLabel, BaseSource};
use super::store::Store;

/// The next generation, whole on the disk and in memory, and not in force. Dropped, it is removed by the present
/// store's upkeep.
#[derive(Debug)]
pub struct Prepared {
    label: BaseLabel,
    shared: Arc<Shared>,
    mark: BaseMark,
    serial: u32,
    loaded: Option<Loaded>,
    recorded: bool,
}

/// What a generation that never came into force leaves.
#[derive(Debug)]
pub(crate) struct Remains {
    generation: u64,
    serial: u32,
    file_name: String,
    loaded: Option<Loaded>,
}

/// A state store is built at this share of the pace at which bases are written: it writes each byte some three times.
pub(crate) const BUILD_SPEED: f64 = 0.4;

impl Receiving {
    /// Checks what was received and builds its state. Takes long; `cancelled` is asked now and then. What was
    /// received is gone if it fails.
    pub fn prepare(&self, cancelled: &dyn Fn() -> bool) -> Result<Prepared, InstallError> {
        let shared = Arc::clone(&self.shared);
        let generation = shared.generation + 1;
        let label = self.label().clone();
        let mut remains = Remains {
            generation,
            serial: shared.begun.fetch_add(1, Ordering::Relaxed),
            file_name: self.incoming.name.clone(),
            loaded: None,
        };
        let built = || self.build(&mut remains, cancelled);
        match shared.timed(&shared.meter.seconds.received, built) {
            Ok(mark) => Ok(Prepared {
                label,
                mark,
                serial: remains.serial,
                loaded: remains.loaded.take(),
                recorded: false,
                shared,
            }),
            Err(error) => {
                remains.remove(&shared);
                Err(error)
            }
        }
    }

    fn build(
        &self,
        remains: &mut Remains,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<BaseMark, InstallError> {
        let (shared, incoming) = (&self.shared, &self.incoming);
        // One that was given up may have had the name that this one gets.
        shared.clear_remains();
        self.close()?;
        let label = &incoming.label;
        shared.refuse_without_room(label.len, label.len)?;
        shared.timed(&shared.meter.seconds.received_sync, || incoming.file.sync_data())?;
        incoming.file.forget_cached()?;
        let engine = open_engine(&shared.options, remains.generation, remains.serial)?;
        let mut pacer = Pacer::new(shared, BUILD_SPEED);
        let mut pace = |bytes| {
            if cancelled() || self.store_ends() || pacer.pace(bytes).is_break() {
                return Err(BaseError::Cancelled);
            }
            match shared.options.state_store_has_room() {
                true => Ok(()),
                false => Err(BaseError::Io(std::io::ErrorKind::StorageFull.into())),
            }
        };
        let mut mark = BaseMark {
            at: label.at,
            generation: remains.generation,
            file_name: incoming.name.clone(),
            len: label.len,
            content_hash: label.hash,
        };
        let loaded = load::from_base(&shared.options, &mark, engine, &mut pace);
        let loaded = loaded.map_err(InstallError::of)?;
        let agrees = *loaded.machine.membership() == label.membership;
        remains.loaded = Some(loaded);
        if !agrees {
            let words = "its membership is not the one that was announced";
            return Err(BaseError::Damaged(words.to_owned()).into());
        }
        mark.file_name = base_name(mark.generation, mark.at);
        shared.options.device.rename(&incoming.name, &mark.file_name)?;
        remains.file_name = mark.file_name.clone();
        shared.options.device.sync_dir()?;
        Ok(mark)
    }
}

impl InstallError {
    fn of(error: StoreError) -> Self {
        match error {
            StoreError::Base(error) => InstallError::Base(error),
            StoreError::Engine(error) => InstallError::Engine(error),
            other @ (StoreError::Stopped(_) | StoreError::Damaged(_) | StoreError::Journal(_)) => {
                InstallError::Store(other)
            }
        }
    }
}

impl Prepared {
    /// What it is.
    pub fn label(&self) -> &BaseLabel {
        &self.label
    }

    /// Hands the journal the record that makes this the group's state: it is when `done` is told so. From now on the
    /// present store marks no base. After an error nothing was recorded.
    pub fn record(&mut self, done: Done) -> Result<(), StoreError> {
        let install = InstallMark {
            snapshot: self.label.at,
            generation: self.mark.generation,
            base: self.mark.clone(),
            membership: self.label.membership.encode_to_vec().into(),
        };
        let shared = &self.shared;
        let mut may_mark = shared.may_mark.lock();
        shared.refuse_if_stopped()?;
        shared.log.install(install, done)?;
        *may_mark = false;
        self.recorded = true;
        Ok(())
    }

    /// The store of the new generation. To be called once [`Prepared::record`]'s `done` was told of success; the
    /// caller then swaps, and hands the old one to [`Store::succeed`].
    pub fn start(mut self) -> Result<(Store, StateMachine), OpenError> {
        debug_assert!(self.recorded, "the journal is told first");
        let old = &self.shared;
        let Some(loaded) = self.loaded.take() else {
            return Err(OpenError::Store(StoreError::Stopped("it was started before".to_owned())));
        };
        let source = BaseSource::of(&old.options, &self.mark, self.label.membership.clone())
            .map_err(StoreError::Base)?;
        Meter::add(&old.meter.installs, 1);
        old.meter.since_base.store(0, Ordering::Relaxed);
        old.meter.requests_since_base.store(0, Ordering::Relaxed);
        let carried = Carried {
            source: Some(Arc::new(source)),
            marked: Arc::clone(&old.marked),
            growth_refused: Mutex::new(old.growth_refused.lock().clone()),
            meter: Arc::clone(&old.meter),
        };
        let begun = Begun {
            serial: self.serial,
            applied: loaded.applied,
            content: loaded.content,
            size: loaded.size,
        };
        let (log, state) = (old.log.clone(), old.log.state());
        let revision = loaded.machine.revision();
        let store =
            open::start(old.options.clone(), log, &state, loaded.engine, revision, begun, carried)?;
        store.shared.marked.send_replace(Some(self.mark.at));
        Ok((store, loaded.machine))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if self.recorded {
            return;
        }
        let remains = Remains {
            generation: self.mark.generation,
            serial: self.serial,
            file_name: std::mem::take(&mut self.mark.file_name),
            loaded: self.loaded.take(),
        };
        self.shared.remains.lock().push(remains);
        self.shared.wake.notify_all();
    }
}

impl Shared {
    /// Removes what was given up. Whoever is about to make files of the same names calls it first.
    pub(crate) fn clear_remains(&self) {
        let mut remains = self.remains.lock();
        for one in remains.drain(..) {
            one.remove(self);
        }
    }

    /// Another base is the newest: `at` is where it stands.
    pub(crate) fn tell_marked(&self, at: LogId) {
        if *self.may_mark.lock() {
            self.marked.send_replace(Some(at));
        }
    }
}

impl Remains {
    /// Best effort: the next start removes what is left.
    fn remove(mut self, shared: &Shared) {
        let options = &shared.options;
        // Its files are in use as long as it is open.
        self.loaded = None;
        let removed = remove_if_there(&*options.device, &self.file_name);
        let removed = removed.and_then(|()| match options.engine {
            EngineKind::Memory => Ok(()),
            EngineKind::Sled => {
                remove_folder(&engine_folder(options, self.generation, self.serial))
            }
        });
        if let Err(error) = removed {
            let group = options.group.0;
            tracing::warn!(group, %error, "what a state was built from stays until the next start");
        }
    }
}
