//! The lead, in the hands of whoever won it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Hands;
use super::calls::{Calls, one, revision};
use super::error::{Lost, StoreError};
use super::session::{REST, Session};
use super::term::Term;
use super::value::{Compare, EventType, Watched};
use super::watching::Watching;

/// Whoever holds it leads, until it says otherwise. Dropped, the lead is given up.
///
/// ```text
///   if guard.is_held() { act }                                          good for what nobody else sees
///   store.do_transaction(&[guard.fence(), ..], ops, ..)                 good for whatever is kept in the store
/// ```
///
/// By the clock it ends a tenth of its TTL, a second at most, before the store may let another one win: also in a
/// process that stood still past the TTL, because the clock is read when the question is asked. It is not warned when
/// somebody deletes its key or revokes its lease: it hears of that when the store tells it, and another one may have won
/// by then. Writes that must not come late carry [`Guard::fence`], which the store itself judges.
#[derive(Debug)]
pub struct Guard {
    session: Session,
    /// What keeps its lease alive must not go before it.
    _hands: Arc<Hands>,
    election: String,
    leader_id: String,
    key: Bytes,
    created: i64,
}

impl Guard {
    pub(super) fn new(
        hands: &Arc<Hands>,
        session: Session,
        election: &str,
        leader_id: &str,
        key: Bytes,
        created: i64,
    ) -> Result<Guard, StoreError> {
        let sentry = Sentry {
            calls: Arc::clone(&hands.calls),
            closed: hands.closed(),
            term: Arc::clone(session.term()),
            key: key.clone(),
            created,
        };
        hands.spawn(async move { sentry.run().await })?;
        let (election, leader_id) = (election.to_owned(), leader_id.to_owned());
        Ok(Guard { session, _hands: Arc::clone(hands), election, leader_id, key, created })
    }

    /// Whether the lead is held at this moment. Once it is not, it never is again.
    pub fn is_held(&self) -> bool {
        self.lost().is_none()
    }

    /// Why it is lost, if it is, at this moment.
    pub fn lost(&self) -> Option<Lost> {
        self.session.term().lost()
    }

    /// Returns once the lead is lost, and says why.
    pub async fn until_lost(&self) -> Lost {
        self.session.term().ended().await
    }

    /// Gives the lead up, and waits until the store has heard of it: the next one is told at once. From the call on it is
    /// not held any more. An error says that the store was not reached: then the lease runs out by itself.
    pub async fn resign(&self) -> Result<(), StoreError> {
        self.session.give_up().await
    }

    /// What every write of a leader asks for: that its key is the very one with which it won. A deposed leader's is
    /// refused, however late it comes.
    pub fn fence(&self) -> Compare {
        Compare::created(self.key.clone(), self.created)
    }

    /// The fencing revision: at which the key came to be. Higher than that of every leader before.
    pub fn revision(&self) -> i64 {
        self.created
    }

    /// `<election>/<lease in hex>`.
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// What is led.
    pub fn election(&self) -> &str {
        &self.election
    }

    /// Who leads.
    pub fn leader_id(&self) -> &str {
        &self.leader_id
    }
}

/// Watches the key of a leader, and ends its term if that goes.
struct Sentry {
    calls: Arc<dyn Calls>,
    closed: watch::Receiver<bool>,
    term: Arc<Term>,
    key: Bytes,
    created: i64,
}

impl Sentry {
    async fn run(&self) {
        tokio::select! {
            _ = self.term.ended() => {}
            () = self.until_deleted() => self.term.end(Lost::KeyGone),
        }
    }

    async fn until_deleted(&self) {
        let mut next = self.created + 1;
        loop {
            let why = match self.watch(next).await {
                Ok(()) => return,
                Err(why) => why,
            };
            tracing::debug!(error = %why, "a leader's key was not watched");
            match self.calls.range(one(self.key.clone())).await {
                Ok(found) => {
                    let created = found.kvs.first().map(|kv| kv.create_revision);
                    if created != Some(self.created) {
                        return;
                    }
                    next = revision(found.header.as_ref()) + 1;
                }
                Err(error) => tracing::debug!(%error, "a leader's key was not read"),
            }
            sleep(REST).await;
        }
    }

    async fn watch(&self, next: i64) -> Result<(), StoreError> {
        let (calls, closed) = (Arc::clone(&self.calls), self.closed.clone());
        let mut watching = Watching::open(calls, Watched::Key(&self.key), next, closed).await?;
        while watching.next().await?.kind != EventType::Delete {}
        Ok(())
    }
}
