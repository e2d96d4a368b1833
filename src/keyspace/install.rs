//! The state of another member takes the place of this one's.
//!
//! ```text
//!   here:   newest base --> Source --> read, read ..                       (storage/source.rs)
//!   there:  receive(label) --> Receiver: write, write ..                   blocking threads, at a pace
//!             prepare: checked, loaded beside the present state            a thread of its own
//!             install: one journal record, then under the machine's lock   machine, store, hub, sweeper
//!                      then: lessor, applied index, waiters                the old state goes when nobody reads it
//! ```
//!
//! **Invariant:** machine and store are replaced under one hold of the machine's lock, and the watch hub knows the
//! new revision and compact revision before it is let go.
//! **Invariant:** a waiter whose batch the installed state may hold hears that its outcome is unknown: what it was
//! answered with elsewhere is not in the state.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use quorate_core::api::ids::LogId;
use quorate_core::state_machine::StateMachine;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::sink::{Sink, fatal};
use super::state::Generation;
use crate::consensus::{Fatal, PreparedSnapshot, SnapshotLabel, SnapshotReceiver, SnapshotSource};
use crate::storage::{BACKGROUND_PACE, BaseSource, Prepared, Receiving, Store};
use crate::support::failpoints::failpoint;
use crate::support::spawn::{Blocking, background_thread};

/// A base that is sent.
pub(crate) struct Source {
    base: Arc<BaseSource>,
    blocking: Arc<Blocking>,
}

impl Source {
    pub(crate) fn new(base: Arc<BaseSource>, blocking: Arc<Blocking>) -> Self {
        Source { base, blocking }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = self.base.label();
        write!(f, "Source({}, {} bytes)", label.at, label.len)
    }
}

impl SnapshotSource for Source {
    fn label(&self) -> &SnapshotLabel {
        self.base.label()
    }

    fn read(&self, offset: u64, bytes_max: usize) -> BoxFuture<'_, Result<Bytes, String>> {
        let base = Arc::clone(&self.base);
        let read = move || base.read(offset, bytes_max).map_err(|error| error.to_string());
        Box::pin(self.blocking.run(read))
    }
}

/// A base that arrives.
pub(crate) struct Receiver {
    receiving: Arc<Receiving>,
    sink: Sink,
    /// When the next piece may be written.
    free_at: Instant,
}

impl Receiver {
    /// Begins to take a state into the present store, or goes on with it.
    pub(crate) async fn begin(sink: Sink, label: SnapshotLabel) -> Result<Self, String> {
        let store = sink.state.store();
        let receive = move || store.receive(label);
        let receiving = sink.state.blocking.run(receive).await.map_err(words)?;
        Ok(Receiver { receiving: Arc::new(receiving), sink, free_at: Instant::now() })
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = self.receiving.label();
        write!(f, "Receiver({}, {} of {} bytes)", label.at, self.received(), label.len)
    }
}

impl SnapshotReceiver for Receiver {
    fn received(&self) -> u64 {
        self.receiving.received()
    }

    fn write(&mut self, piece: Bytes) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let takes = Duration::from_secs_f64(piece.len() as f64 / BACKGROUND_PACE);
            tokio::time::sleep_until(self.free_at).await;
            self.free_at = Instant::now() + takes;
            let receiving = Arc::clone(&self.receiving);
            let write = move || receiving.write(&piece);
            self.sink.state.blocking.run(write).await.map_err(words)
        })
    }

    fn prepare(self: Box<Self>) -> BoxFuture<'static, Result<Box<dyn PreparedSnapshot>, String>> {
        Box::pin(async move {
            let Receiver { receiving, sink, .. } = *self;
            let prepared = sink.builder.build(&sink, receiving).await?;
            let label = prepared.label().clone();
            let ready: Box<dyn PreparedSnapshot> = Box::new(Ready { label, prepared, sink });
            Ok(ready)
        })
    }
}

/// Builds received states, one at a time, on a thread of its own: it takes as long as loading the state does.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Calls a build off when its future is dropped.
struct CallOff(Arc<AtomicBool>);

impl Drop for CallOff {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Builder {
    async fn build(&self, sink: &Sink, receiving: Arc<Receiving>) -> Result<Prepared, String> {
        if !sink.state.store().has_threads() {
            return receiving.prepare(&|| false).map_err(words);
        }
        let before = self.thread.lock().take();
        sink.state.blocking.run(move || join(before)).await;
        let called_off = Arc::new(AtomicBool::new(false));
        let _call_off = CallOff(Arc::clone(&called_off));
        let (tell, told) = oneshot::channel();
        let build = move || {
            let built = receiving.prepare(&|| called_off.load(Ordering::Acquire));
            // Nobody waits any more: dropped, it is removed.
            drop(tell.send(built));
        };
        let thread = background_thread("install", build).map_err(words)?;
        *self.thread.lock() = Some(thread);
        match told.await {
            Ok(built) => built.map_err(words),
            Err(_panicked) => Err("the thread that built the state panicked".to_owned()),
        }
    }

    /// Waits for a build that was called off, by its future or by the closing store.
    pub(crate) fn end(&self) {
        let thread = self.thread.lock().take();
        join(thread);
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread {
        let _panicked = thread.join();
    }
}

/// A built state that waits to be put in force.
struct Ready {
    label: SnapshotLabel,
    prepared: Prepared,
    sink: Sink,
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ready({})", self.label.at)
    }
}

impl PreparedSnapshot for Ready {
    fn label(&self) -> &SnapshotLabel {
        &self.label
    }

    fn install(self: Box<Self>) -> BoxFuture<'static, Result<(), Fatal>> {
        Box::pin(async move {
            let Ready { label, mut prepared, sink } = *self;
            if sink.state.applied().is_some_and(|applied| applied.index >= label.at.index) {
                tracing::info!(at = %label.at, "a received state is not newer than what is here");
                return Ok(());
            }
            let (tell, told) = oneshot::channel();
            prepared.record(Box::new(move |synced| drop(tell.send(synced)))).map_err(fatal)?;
            match told.await {
                Ok(synced) => synced.map_err(fatal)?,
                Err(_dropped) => return Err(Fatal("the journal is closed".to_owned())),
            }
            failpoint!(wait applyBeforeOpenSnapshot);
            let (store, machine) = prepared.start().map_err(fatal)?;
            tracing::info!(at = %label.at, "applySnapshot: opened snapshot backend");
            failpoint!(wait applyAfterOpenSnapshot);
            sink.switch(label.at, store, machine);
            tracing::info!(at = %label.at, bytes = label.len, "applied snapshot");
            Ok(())
        })
    }
}

impl Sink {
    /// Puts a generation in force that the journal has recorded.
    fn switch(&self, at: LogId, store: Store, machine: StateMachine) {
        let store = Arc::new(store);
        let covered = machine.last_proposal(self.member);
        let old = {
            let mut now = self.state.machine.write();
            let next = Generation::new(machine, Arc::clone(&store));
            let old = self.state.replace(&mut now, next);
            self.hub.restored(now.revision(), now.compact_revision());
            self.sweeper.restored(now.swept_revision(), now.compact_revision());
            self.authority.restored(&now);
            old
        };
        self.sweeper.wake();
        self.roll.changed(&self.state.machine.read());
        self.lessor.restored(at);
        self.state.advance(at);
        if let Some((incarnation, seq)) = covered
            && incarnation == self.incarnation
        {
            self.in_flight.covered(seq);
        }
        let (old_machine, old_store) = old.into_parts();
        store.succeed(old_store, old_machine);
    }
}

fn words(error: impl fmt::Display) -> String {
    error.to_string()
}
