//! One keyspace's store, as the floors above use it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use quorate_core::api::batch::WriteBatch;
use quorate_core::api::ids::{LogId, Revision};
use tokio::sync::watch;

use super::error::{DefragError, StoreError};
use super::figures::StoreSeconds;
use super::journal::BaseMark;
use super::options::{Meter, StoreFigures, UpkeepRunner};
use super::shared::Shared;
use super::source::BaseSource;
use super::tail::TailBatch;
use super::upkeep::{Upkeep, count_size};
use super::view::StoreView;

/// One keyspace's state on this member. Shared by reference; closed once, by its owner.
///
/// **Invariant:** failed once, failed until reopened: after an error of [`Store::commit`] or of the background work
/// nothing is taken any more, and the member stops.
#[derive(Debug)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    pub(crate) upkeep: Hands,
}

/// Who holds the upkeep.
pub(crate) enum Hands {
    Thread(Mutex<Option<JoinHandle<()>>>),
    InPlace(Box<Mutex<Upkeep>>),
}

impl std::fmt::Debug for Hands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Hands::Thread(_) => "thread",
            Hands::InPlace(_) => "in place",
        })
    }
}

impl Store {
    /// Takes what one log entry changed: readers see it at return. It goes to the state store later, once the
    /// journal's frame of the entry is synced. Batches come in log order; O(size of the batch), and no disk.
    pub fn commit(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let shared = &self.shared;
        shared.refuse_if_stopped()?;
        count_size(shared, &batch);
        let batch = TailBatch::new(batch);
        Meter::add(&shared.meter.committed, batch.bytes as u64);
        let weight = {
            let mut tail = shared.tail.write();
            tail.push(batch);
            tail.weight()
        };
        if weight >= shared.options.flush_bytes {
            match &self.upkeep {
                Hands::Thread(_) => {
                    shared.wake.notify_all();
                }
                Hands::InPlace(_) => self.run_upkeep()?,
            }
        }
        Ok(())
    }

    /// Reads what was committed.
    pub fn view(&self) -> StoreView {
        StoreView { shared: Arc::clone(&self.shared) }
    }

    /// The group's generation that this store is: one more with every installed snapshot.
    pub fn generation(&self) -> u64 {
        self.shared.generation
    }

    /// Whether the tail is full: propose nothing until [`Store::tail_room`].
    pub fn tail_pressure(&self) -> bool {
        self.shared.tail.read().weight() >= self.shared.options.tail_bytes
    }

    /// Waits until the tail has room, or the store has stopped.
    pub async fn tail_room(&self) {
        loop {
            let mut room = std::pin::pin!(self.shared.room.notified());
            room.as_mut().enable();
            let ended = self.shared.stopped.load(Ordering::Acquire)
                || self.shared.retired.load(Ordering::Acquire);
            if !self.tail_pressure() || ended {
                return;
            }
            room.await;
        }
    }

    /// Why growth is refused just now, if it is: the disk is nearly full. Deletes and compactions may go on.
    pub fn growth_refused(&self) -> Option<String> {
        self.shared.growth_refused.lock().clone()
    }

    /// Why the store has stopped, if it has.
    pub fn stopped(&self) -> Option<String> {
        self.shared.stop_reason.lock().clone()
    }

    /// Revisions that the core's sweep has dropped from the index; they are dropped here in the background, once the
    /// sweep pauses. Lost by a restart: then the next sweep names them again.
    pub fn drop_revisions(&self, dead: Vec<Revision>) {
        if dead.is_empty() {
            return;
        }
        let mut orders = self.shared.orders.lock();
        orders.dead.extend(dead);
        orders.dead_grew = true;
    }

    /// Asks for a base soon, whatever the journal's size.
    pub fn request_base(&self) {
        self.shared.orders.lock().base_wanted = true;
        self.shared.wake.notify_all();
    }

    /// Asks for a defragmentation: a fresh state store in place of the present one, which gives back what sled holds
    /// for nothing, and a database that counts as no larger than what is in use. What it returns is for
    /// [`Store::defragmented`]. Everything goes on meanwhile; it is done even if nobody waits for it.
    pub fn request_defragment(&self) -> u64 {
        let asked = {
            let mut orders = self.shared.orders.lock();
            orders.defrag_asked += 1;
            orders.defrag_asked
        };
        self.shared.wake.notify_all();
        asked
    }

    /// Waits for a defragmentation that began after `asked` was drawn.
    pub async fn defragmented(&self, asked: u64) -> Result<(), DefragError> {
        let mut served = self.shared.defragmented.subscribe();
        match served.wait_for(|served| served.ticket >= asked).await {
            Ok(served) => match &served.failed {
                None => Ok(()),
                Some(reason) => Err(DefragError(reason.clone())),
            },
            Err(_closed) => Err(DefragError("the store is closed".to_owned())),
        }
    }

    /// The times that its background work takes, for metrics.
    pub fn seconds(&self) -> StoreSeconds {
        self.shared.meter.seconds.clone()
    }

    /// The base that the journal names, if there is one.
    pub fn base(&self) -> Option<BaseMark> {
        self.shared.base.lock().clone()
    }

    /// The same base, open to be sent; it can be read as long as this lives, whatever newer one is made meanwhile.
    pub fn newest_base(&self) -> Option<Arc<BaseSource>> {
        self.shared.source.lock().clone()
    }

    /// Where [`Store::newest_base`] is, whenever it is another; goes on over installs.
    pub fn bases(&self) -> watch::Receiver<Option<LogId>> {
        self.shared.marked.subscribe()
    }

    /// The last log entry whose batch is in the state store.
    pub fn stored_revision(&self) -> i64 {
        self.shared.tail.read().stored()
    }

    /// The last log entry whose batch was taken.
    pub fn applied(&self) -> Option<LogId> {
        self.shared.tail.read().applied()
    }

    /// Bytes the database counts as, by etcd's rules: what quota and status go by.
    pub fn db_size(&self) -> u64 {
        self.shared.size.lock().size()
    }

    /// Bytes of it in use.
    pub fn db_size_in_use(&self) -> u64 {
        self.shared.size.lock().in_use()
    }

    /// What was moved so far.
    pub fn figures(&self) -> StoreFigures {
        let meter = &self.shared.meter;
        StoreFigures {
            state_store_bytes: meter.state_store.load(Ordering::Relaxed),
            base_bytes: meter.base.load(Ordering::Relaxed),
            bases: meter.bases.load(Ordering::Relaxed),
            base_in_progress: meter.base_in_progress.load(Ordering::Acquire),
            base_size_bytes: self.shared.base.lock().as_ref().map_or(0, |base| base.len),
            since_base_bytes: meter.since_base.load(Ordering::Relaxed),
            since_base_requests: meter.requests_since_base.load(Ordering::Relaxed),
            received_bytes: meter.received.load(Ordering::Relaxed),
            installs: meter.installs.load(Ordering::Relaxed),
            committed_bytes: meter.committed.load(Ordering::Relaxed),
            tail_bytes: self.shared.tail.read().weight() as u64,
            state_store_files_bytes: self.shared.engine().size_on_disk(),
            defragmenting: meter.defragmenting.load(Ordering::Acquire),
            readers: self.readers(),
        }
    }

    /// Views that somebody holds; the store itself, its upkeep and a base under way are none.
    fn readers(&self) -> u64 {
        let base = usize::from(self.shared.meter.base_in_progress.load(Ordering::Acquire));
        (Arc::strong_count(&self.shared) as u64).saturating_sub(2 + base as u64)
    }

    /// With [`UpkeepRunner::InPlace`], does the background work there is; with threads it only wakes them.
    pub fn run_upkeep(&self) -> Result<(), StoreError> {
        match &self.upkeep {
            Hands::Thread(_) => {
                self.shared.wake.notify_all();
                self.shared.refuse_if_stopped()
            }
            Hands::InPlace(upkeep) => {
                let worked = upkeep.lock().work(false);
                worked.inspect_err(|error| self.shared.stop(error))
            }
        }
    }

    /// Writes what is durable to the state store and stops the background work. The journal is closed after it.
    pub fn close(&self) {
        self.shared.orders.lock().closing = true;
        self.shared.wake.notify_all();
        match &self.upkeep {
            Hands::Thread(thread) => {
                if let Some(thread) = thread.lock().take() {
                    let _panicked = thread.join();
                }
            }
            Hands::InPlace(upkeep) => {
                let mut upkeep = upkeep.lock();
                if let Err(error) = upkeep.work(true) {
                    self.shared.stop(&error);
                }
                upkeep.end();
            }
        }
    }

    /// With [`UpkeepRunner::InPlace`], one step of the background work; whether there may be more.
    #[cfg(test)]
    pub(crate) fn step_upkeep(&self) -> Result<bool, StoreError> {
        match &self.upkeep {
            Hands::Thread(_) => Ok(false),
            Hands::InPlace(upkeep) => Ok(upkeep.lock().step(false)? == super::upkeep::Step::Worked),
        }
    }

    /// Whether the background work is done by its own threads.
    pub fn has_threads(&self) -> bool {
        self.shared.options.runner == UpkeepRunner::Threads
    }
}

impl Drop for Store {
    /// A store dropped without [`Store::close`] is what a crash leaves, but for the threads, which end.
    fn drop(&mut self) {
        {
            let mut reason = self.shared.stop_reason.lock();
            reason.get_or_insert_with(|| "closed".to_owned());
        }
        self.shared.stopped.store(true, Ordering::Release);
        self.shared.orders.lock().closing = true;
        self.shared.wake.notify_all();
        self.shared.room.notify_waiters();
        if let Hands::Thread(thread) = &self.upkeep
            && let Some(thread) = thread.lock().take()
        {
            let _panicked = thread.join();
        }
    }
}
