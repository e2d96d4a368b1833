//! The members as clients, network and nemesis see them: who runs, who stands still, whose disks lie idle.
//!
//! **Invariant:** a life that has ended says nothing any more: it is taken from here before anybody hears of its end,
//! and its runtime is dropped before any member runs again.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use quorate::keyspace::Keyspace;
use quorate::storage::journal::GroupLog;
use quorate_core::api::ids::{LogId, MemberId};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::life::Disks;

/// Who begins the cluster.
pub const MEMBERS: [u64; 3] = [1, 2, 3];

/// A process that serves.
#[derive(Clone)]
pub struct Running {
    pub life: u64,
    pub keyspace: Keyspace,
    pub log: GroupLog,
    pub disks: Disks,
    /// Its runtime.
    pub handle: Handle,
    /// Standing still (SIGSTOP). Told when it goes on.
    pub still: watch::Receiver<bool>,
}

impl Running {
    /// Runs a call in the member's own process: on its runtime, by its clock, standing still with it.
    pub fn spawn<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.handle.spawn(call)
    }

    pub fn stands_still(&self) -> bool {
        *self.still.borrow()
    }

    /// It has applied that `id` was removed.
    pub fn has_removed(&self, id: u64) -> bool {
        self.keyspace.roster().borrow().removed.contains(&MemberId(id))
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The machine loses power: what was not synced is lost in part, and its connections fall silent.
    Power,
    /// SIGKILL: what was written stays, and its connections are reset.
    Kill,
}

/// What the engine is to do before members run again.
pub enum Order {
    Start { id: u64, life: u64, disks: Disks },
    End { id: u64, end: End },
    Still { id: u64, still: bool },
}

/// What a member's disk does to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskMood {
    /// Writes and syncs do not return for so many milliseconds from when this is taken.
    pub freeze_ms: u64,
    /// Every sync takes up to so many milliseconds.
    pub slow_ms: u64,
    /// The sync so many from now fails.
    pub fail_in: Option<u64>,
    /// The power goes at the sync so many from now.
    pub power_in: Option<u64>,
    /// The sync of a base so many from now fails.
    pub base_fails_in: Option<u64>,
    /// The power goes at the sync of a base so many from now.
    pub base_power_in: Option<u64>,
}

/// What the nemesis sets and the engine reads, for one member; it outlives its processes.
#[derive(Debug, Default)]
pub struct Hardware {
    /// Added to the wall clock, in milliseconds.
    pub wall_offset_ms: Arc<AtomicI64>,
    /// How much faster than the world's its clock runs, in millionths.
    pub drift_ppm: AtomicI64,
    mood: Mutex<Option<DiskMood>>,
}

impl Hardware {
    pub fn set_mood(&self, mood: DiskMood) {
        *self.mood.lock().expect("nobody panics while holding it") = Some(mood);
    }

    pub fn take_mood(&self) -> Option<DiskMood> {
        self.mood.lock().expect("nobody panics while holding it").take()
    }

    pub fn drift(&self) -> i64 {
        self.drift_ppm.load(Ordering::Relaxed)
    }
}

/// A process that could not open its keyspace, or whose keyspace failed.
pub struct Failure {
    pub id: u64,
    pub life: u64,
    pub what: String,
}

/// A member whose process has ended.
pub struct Down {
    pub disks: Disks,
    /// The last entry that was on its disk.
    pub durable: Option<LogId>,
}

/// All members. Shared by everybody in the world; the engine alone runs what it orders.
pub struct Fleet {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// Who is a member, or is to become one, as far as is known.
    cast: Vec<u64>,
    /// Who was removed and has ended; they may be started again.
    retired: Vec<u64>,
    hardware: BTreeMap<u64, Arc<Hardware>>,
    /// Processes that have found that they are no members any more.
    leaving: Vec<(u64, u64)>,
    running: BTreeMap<u64, Running>,
    down: BTreeMap<u64, Down>,
    still: BTreeMap<u64, watch::Sender<bool>>,
    /// The last entry on the disk of each member that does not run.
    durable: BTreeMap<u64, Option<LogId>>,
    orders: Vec<Order>,
    failures: Vec<Failure>,
    /// Members whose present process is to fail, by a sync that did.
    doomed: BTreeMap<u64, u64>,
}

impl State {
    fn leave(&mut self, id: u64) -> bool {
        let Some(running) = self.running.remove(&id) else { return false };
        self.durable.insert(id, running.log.durable());
        true
    }
}

impl Fleet {
    pub fn new() -> Arc<Fleet> {
        let fleet = Fleet { state: Mutex::new(State::default()), changed: watch::Sender::new(0) };
        for id in MEMBERS {
            fleet.enlist(id);
        }
        Arc::new(fleet)
    }

    /// A member comes, with empty disks. It does not run yet.
    pub fn enlist(&self, id: u64) {
        let mut state = self.state();
        state.cast.push(id);
        state.hardware.insert(id, Arc::default());
        state.down.insert(id, Down { disks: Disks::default(), durable: None });
    }

    /// Who is a member, or is to become one.
    pub fn cast(&self) -> Vec<u64> {
        self.state().cast.clone()
    }

    /// Who was a member and is none any more.
    pub fn retired(&self) -> Vec<u64> {
        self.state().retired.clone()
    }

    /// Everybody who ever was in the cast.
    pub fn everyone(&self) -> Vec<u64> {
        let state = self.state();
        state.cast.iter().chain(&state.retired).copied().collect()
    }

    /// The member was removed and is to be started no more, but to see what it does.
    pub fn retire(&self, id: u64) {
        let mut state = self.state();
        let before = state.cast.len();
        state.cast.retain(|member| *member != id);
        if state.cast.len() < before {
            state.retired.push(id);
        }
    }

    /// This process has found that it is no member any more, and ends by itself.
    pub fn leave(&self, id: u64, life: u64) {
        self.state().leaving.push((id, life));
    }

    pub fn take_leaving(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.state().leaving)
    }

    pub fn hardware(&self, id: u64) -> Arc<Hardware> {
        Arc::clone(&self.state().hardware[&id])
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    /// Told whenever a member comes, goes, stands still or goes on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub fn member(&self, id: u64) -> Option<Running> {
        self.state().running.get(&id).cloned()
    }

    pub fn lives(&self, id: u64, life: u64) -> bool {
        self.state().running.get(&id).is_some_and(|running| running.life == life)
    }

    pub fn life(&self, id: u64) -> Option<u64> {
        self.state().running.get(&id).map(|running| running.life)
    }

    pub fn is_down(&self, id: u64) -> bool {
        self.state().down.contains_key(&id)
    }

    /// The last entry that is known to be on the member's disk, be it running or not.
    pub fn durable(&self, id: u64) -> Option<LogId> {
        let state = self.state();
        match state.running.get(&id) {
            Some(running) => running.log.durable(),
            None => state.durable.get(&id).copied().flatten(),
        }
    }

    /// Orders a member that is down to be started.
    pub fn start(&self, id: u64, life: u64) {
        let mut state = self.state();
        if let Some(down) = state.down.remove(&id) {
            state.orders.push(Order::Start { id, life, disks: down.disks });
        }
    }

    /// The process opened its keyspace and serves.
    pub fn attach(&self, id: u64, running: Running, still: watch::Sender<bool>) {
        let mut state = self.state();
        state.running.insert(id, running);
        state.still.insert(id, still);
        drop(state);
        self.tell();
    }

    /// The member's process ends now.
    pub fn end(&self, id: u64, end: End) -> bool {
        let mut state = self.state();
        let ran = state.leave(id);
        if ran {
            state.still.remove(&id);
            state.doomed.remove(&id);
            state.orders.push(Order::End { id, end });
        }
        drop(state);
        self.tell();
        ran
    }

    /// What the engine found to have ended by itself.
    pub fn gone(&self, id: u64) {
        let mut state = self.state();
        state.leave(id);
        state.still.remove(&id);
        drop(state);
        self.tell();
    }

    /// What is left of a member that ended.
    pub fn lay_down(&self, id: u64, down: Down) {
        let mut state = self.state();
        state.durable.insert(id, down.durable);
        state.down.insert(id, down);
        drop(state);
        self.tell();
    }

    /// The member stands still, or goes on.
    pub fn set_still(&self, id: u64, still: bool) {
        let mut state = self.state();
        let changes = state.still.get(&id).is_some_and(|now| *now.borrow() != still);
        if changes {
            state.orders.push(Order::Still { id, still });
        }
    }

    /// The engine has done so.
    pub fn stands_still(&self, id: u64, still: bool) {
        if let Some(told) = self.state().still.get(&id) {
            told.send_replace(still);
        }
        self.tell();
    }

    /// A sync of this process has failed: it has to stop.
    pub fn doom(&self, id: u64, life: u64) {
        self.state().doomed.insert(id, life);
    }

    pub fn is_doomed(&self, id: u64, life: u64) -> bool {
        self.state().doomed.get(&id) == Some(&life)
    }

    pub fn take_orders(&self) -> Vec<Order> {
        std::mem::take(&mut self.state().orders)
    }

    /// A process failed, by itself.
    pub fn report(&self, id: u64, life: u64, what: String) {
        self.state().failures.push(Failure { id, life, what });
    }

    /// Failures of processes that were not ended meanwhile.
    pub fn take_failures(&self) -> Vec<Failure> {
        let mut state = self.state();
        let failures = std::mem::take(&mut state.failures);
        let ended = |id| state.down.contains_key(&id);
        failures.into_iter().filter(|failure| failure.life == 0 || !ended(failure.id)).collect()
    }
}
