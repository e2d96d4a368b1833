//! The library: a key-value store with watches, transactions and elections, in the same process or far away.
//!
//! ```text
//!   StateStore ── Store ── put, get, delete, list, do_transaction
//!                  │   └── watch ── Watching: goes on where it stopped
//!                  └────── campaign ── Session (lease, keeper) ── Guard (Term by the clock, sentry at the key)
//!                              all of it over Calls: etcd's calls
//!                                  ├── in_process: a keyspace of this process
//!                                  └── service::remote: gRPC, to etcd or to us
//! ```
//!
//! Everything above [`Calls`] is written once: what holds in one process holds over the wire.
//!
//! **Invariant:** every call may be cancelled by dropping it; a place in an election is then given up.
//! **Invariant:** a [`Guard`] ends by the clock before the store can let another one win (see [`Guard`] for what it
//! cannot know).

mod calls;
mod campaign;
mod error;
mod guard;
pub mod in_process;
mod session;
mod term;
mod transaction;
mod value;
mod watching;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use quorate_core::api::pb::etcdserverpb as pb;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::instrument::WithSubscriber as _;

pub use self::calls::{Calls, WatchResponses};
pub use self::error::{Lost, StoreError};
pub use self::guard::Guard;
pub use self::value::{
    Compare, EventType, Expected, Kv, Op, OpType, Transacted, WatchEvent, Watched,
};
pub use self::watching::WatchEvents;

use self::calls::{below, one, revision};
use self::session::Revoked;
use self::term::Term;
use self::watching::Watching;

/// How long closing waits for leases to be given up.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// A replicated store. Every call may be cancelled by dropping it; a write that is dropped, or that ends with
/// [`StoreError::Unavailable`], may or may not have been done.
#[async_trait]
pub trait StateStore: Debug + Send + Sync {
    /// Puts `value` under `key`; the version it has by that.
    async fn put(&self, key: &[u8], value: &[u8]) -> Result<i64, StoreError>;

    /// What is kept under `key`, as of now for every member; [`StoreError::NotFound`] if nothing is.
    async fn get(&self, key: &[u8]) -> Result<Kv, StoreError>;

    /// Deletes `key`. Whether it was there; that it was not is no error.
    async fn delete(&self, key: &[u8]) -> Result<bool, StoreError>;

    /// All keys that begin with `prefix`, and exactly those, in the order of their bytes.
    async fn list(&self, prefix: &[u8]) -> Result<Vec<Kv>, StoreError>;

    /// What happens to a key, or below a prefix, from revision `start` on; 0: from the moment this returns.
    async fn watch(&self, watched: Watched<'_>, start: i64) -> Result<WatchEvents, StoreError>;

    /// If all `checks` hold, does `on_success`, else `on_failure`: all of it at once, or nothing.
    async fn do_transaction(
        &self,
        checks: &[Compare],
        on_success: &[Op],
        on_failure: &[Op],
    ) -> Result<Transacted, StoreError>;

    /// Stands for `election` as `leader_id`, and returns once it leads. `ttl`, in whole seconds, is how long the others
    /// wait for a leader that is not heard of; the store may raise it. Several may be under way at once.
    ///
    /// [`StoreError::Lost`] if the place in the line was lost meanwhile, [`StoreError::Unavailable`] if the store was not
    /// there to begin with: in both cases it may be tried again.
    async fn campaign(
        &self,
        election: &str,
        leader_id: &str,
        ttl: Duration,
    ) -> Result<Guard, StoreError>;

    /// Gives up what this store leads, or stands for, in `election`, and waits until the others can know.
    async fn resign(&self, election: &str) -> Result<(), StoreError>;

    /// Who leads `election`: the id that it campaigned with, or none.
    async fn get_leader(&self, election: &str) -> Result<Option<String>, StoreError>;

    /// Ends every watch, campaign and lead, gives leases up and frees what is held. Calls are refused from then on.
    async fn close(&self);
}

/// A [`StateStore`] over etcd's calls. Cheap to clone; dropping the last one is like closing it, but does not wait.
#[derive(Clone, Debug)]
pub struct Store(Arc<Hands>);

/// What the parts of a store share.
#[derive(Debug)]
struct Hands {
    calls: Arc<dyn Calls>,
    closed: watch::Sender<bool>,
    work: Mutex<Work>,
}

#[derive(Debug, Default)]
struct Work {
    tasks: JoinSet<()>,
    /// Who stands for what, or leads it.
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    election: String,
    term: Arc<Term>,
    revoked: Revoked,
}

impl Hands {
    fn closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    /// Ends with the store, unless it has ended before.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Result<(), StoreError> {
        self.take_task(&mut self.work.lock(), work)
    }

    fn take_task(
        &self,
        held: &mut Work,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), StoreError> {
        // Asked under the lock that closing takes: nothing is spawned behind its back.
        if *self.closed.borrow() {
            return Err(StoreError::Closed);
        }
        while held.tasks.try_join_next().is_some() {}
        held.tasks.spawn(work.with_current_subscriber());
        Ok(())
    }

    /// Keeps what is needed to end a place, and runs its keeper.
    fn take_in(
        &self,
        place: Place,
        keep: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), StoreError> {
        let held = &mut *self.work.lock();
        held.places.retain(|place| place.revoked.borrow().is_none());
        self.take_task(held, keep)?;
        held.places.push(place);
        Ok(())
    }

    fn refuse_if_closed(&self) -> Result<(), StoreError> {
        if *self.closed.borrow() { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Ends every place; what has still to be done by whoever keeps them is handed back.
    fn end_all(&self) -> JoinSet<()> {
        let held = &mut *self.work.lock();
        self.closed.send_replace(true);
        for place in held.places.drain(..) {
            place.term.end(Lost::Closed);
        }
        std::mem::take(&mut held.tasks)
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        // Keepers give their leases up and end by themselves, within a TTL at most.
        self.end_all().detach_all();
    }
}

impl Store {
    /// A store over `calls`.
    pub fn over(calls: Arc<dyn Calls>) -> Store {
        let (closed, work) = (watch::Sender::new(false), Mutex::default());
        Store(Arc::new(Hands { calls, closed, work }))
    }

    /// What it is written over, for another store with something in between.
    pub fn calls(&self) -> Arc<dyn Calls> {
        Arc::clone(&self.0.calls)
    }

    /// `work`, unless the store is closed before it ends.
    async fn unless_closed<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.0.refuse_if_closed()?;
        let mut closed = self.0.closed();
        tokio::select! {
            biased;
            done = work => done,
            _ = closed.wait_for(|closed| *closed) => Err(StoreError::Closed),
        }
    }
}

#[async_trait]
impl StateStore for Store {
    async fn put(&self, key: &[u8], value: &[u8]) -> Result<i64, StoreError> {
        let (key, value) = (key.to_vec().into(), value.to_vec().into());
        let request = pb::PutRequest { key, value, ..Default::default() };
        let response = self.unless_closed(self.0.calls.put(request)).await?;
        Ok(revision(response.header.as_ref()))
    }

    async fn get(&self, key: &[u8]) -> Result<Kv, StoreError> {
        let asked = self.0.calls.range(one(key.to_vec().into()));
        let found = self.unless_closed(asked).await?.kvs.into_iter().next();
        found.map(Kv::from).ok_or(StoreError::NotFound)
    }

    async fn delete(&self, key: &[u8]) -> Result<bool, StoreError> {
        let request = pb::DeleteRangeRequest { key: key.to_vec().into(), ..Default::default() };
        let response = self.unless_closed(self.0.calls.delete_range(request)).await?;
        Ok(response.deleted > 0)
    }

    async fn list(&self, prefix: &[u8]) -> Result<Vec<Kv>, StoreError> {
        let found = self.unless_closed(self.0.calls.range(below(prefix))).await?;
        Ok(found.kvs.into_iter().map(Kv::from).collect())
    }

    async fn watch(&self, watched: Watched<'_>, start: i64) -> Result<WatchEvents, StoreError> {
        let calls = Arc::clone(&self.0.calls);
        let open = Watching::open(calls, watched, start, self.0.closed());
        Ok(self.unless_closed(open).await?.events())
    }

    async fn do_transaction(
        &self,
        checks: &[Compare],
        on_success: &[Op],
        on_failure: &[Op],
    ) -> Result<Transacted, StoreError> {
        let request = transaction::request(checks, on_success, on_failure);
        let response = self.unless_closed(self.0.calls.txn(request)).await?;
        Ok(transaction::transacted(response))
    }

    async fn campaign(
        &self,
        election: &str,
        leader_id: &str,
        ttl: Duration,
    ) -> Result<Guard, StoreError> {
        self.unless_closed(campaign::campaign(&self.0, election, leader_id, ttl)).await
    }

    async fn resign(&self, election: &str) -> Result<(), StoreError> {
        self.0.refuse_if_closed()?;
        let resigned: Vec<Revoked> = {
            let held = self.0.work.lock();
            let these = held.places.iter().filter(|place| place.election == election);
            these
                .inspect(|place| place.term.end(Lost::Resigned))
                .map(|p| p.revoked.clone())
                .collect()
        };
        let all = futures::future::join_all(resigned.into_iter().map(session::until_revoked));
        let all = async { all.await.into_iter().collect() };
        self.unless_closed(all).await
    }

    async fn get_leader(&self, election: &str) -> Result<Option<String>, StoreError> {
        let found = self.unless_closed(campaign::first(&*self.0.calls, election)).await?;
        Ok(found.map(|kv| String::from_utf8_lossy(&kv.value).into_owned()))
    }

    async fn close(&self) {
        let mut tasks = self.0.end_all();
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(CLOSE_MAX, all).await.is_err() {
            tracing::warn!("leases were left to run out: the store did not answer");
        }
    }
}
