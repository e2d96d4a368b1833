//! What everybody in a run shares, and what clients were told.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quorate::keyspace::{Keyspace, KeyspaceError};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::checker::Operation;
use super::fleet::Fleet;
use super::net::Net;
use crate::trace::Trace;

/// No call takes longer by its member's own clock: etcd's request timeout, 5 s + 2 election timeouts.
const CALL_MAX: Duration = Duration::from_secs(7);
/// A call that is due to end may wait for other tasks.
const GRACE: Duration = Duration::from_secs(1);

/// What all share.
pub struct World {
    pub fleet: Arc<Fleet>,
    pub net: Arc<Net>,
    pub trace: Trace,
    pub start: Instant,
    /// Told once the faults are over.
    pub over: watch::Receiver<bool>,
    events: AtomicU64,
    values: AtomicU64,
    /// The highest revision that a client knows of.
    revision: AtomicI64,
    told: Mutex<Told>,
}

/// What clients were told.
#[derive(Debug, Default)]
pub struct Told {
    pub registers: BTreeMap<u64, Vec<Operation>>,
    /// Unique keys that were acknowledged.
    pub acknowledged: Vec<String>,
    /// Unique keys of which nobody knows.
    pub in_doubt: usize,
    pub operations: usize,
    pub violations: Vec<String>,
    /// How often something worth counting was looked at.
    pub looks: BTreeMap<&'static str, u64>,
}

/// How a call ended.
pub enum Heard<T> {
    Told(Result<T, KeyspaceError>),
    /// It was sent, and no answer came.
    Nothing,
    /// Nobody was there to be asked.
    NotSent,
}

impl World {
    pub fn new(
        fleet: Arc<Fleet>,
        net: Arc<Net>,
        trace: Trace,
        over: watch::Receiver<bool>,
    ) -> Arc<World> {
        Arc::new(World {
            fleet,
            net,
            trace,
            start: Instant::now(),
            over,
            events: AtomicU64::new(0),
            values: AtomicU64::new(0),
            revision: AtomicI64::new(0),
            told: Mutex::default(),
        })
    }

    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("nobody panics while holding it")
    }

    pub fn violation(&self, what: String) {
        self.line(|| format!("VIOLATION {what}"));
        self.told().violations.push(what);
    }

    pub fn line(&self, text: impl FnOnce() -> String) {
        self.trace.line(self.start.elapsed(), text);
    }

    pub fn looked(&self, at: &'static str, times: u64) {
        *self.told().looks.entry(at).or_default() += times;
    }

    pub fn event(&self) -> u64 {
        self.events.fetch_add(1, Ordering::Relaxed)
    }

    pub fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    pub fn unique(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A client was told of this revision.
    pub fn knows(&self, revision: i64) {
        self.revision.fetch_max(revision, Ordering::Relaxed);
    }

    /// No linearizable read that begins now may be older.
    pub fn known(&self) -> i64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// Has member `id` answer a call in its own process. A client waits for `patience`; then it goes away, and with
    /// `abandon` its call is dropped where it runs.
    pub async fn call<T, F>(
        &self,
        id: u64,
        patience: Duration,
        abandon: bool,
        call: impl FnOnce(Keyspace) -> F,
    ) -> Heard<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, KeyspaceError>> + Send + 'static,
    {
        let Some(member) = self.fleet.member(id) else {
            return Heard::NotSent;
        };
        let call = call(member.keyspace.clone());
        let mut task = member.spawn(async move {
            let mut call = std::pin::pin!(call);
            match timeout(CALL_MAX, &mut call).await {
                Ok(answer) => Ok(answer),
                Err(_elapsed) => timeout(GRACE, call).await,
            }
        });
        match timeout(patience, &mut task).await {
            Ok(Ok(Ok(answer))) => Heard::Told(answer),
            Ok(Ok(Err(_hangs))) => {
                self.violation(format!("a call on member {id} hangs"));
                Heard::Nothing
            }
            Ok(Err(ended)) if ended.is_panic() => {
                self.violation(format!("a call on member {id} panicked"));
                Heard::Nothing
            }
            Ok(Err(_ended)) => Heard::Nothing,
            Err(_elapsed) => {
                if abandon {
                    task.abort();
                }
                Heard::Nothing
            }
        }
    }
}
