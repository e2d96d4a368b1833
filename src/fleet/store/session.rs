//! A lease that is kept alive by a task of its own, for as long as somebody wants it.
//!
//! ```text
//!   grant ──> keeper: keep-alive every TTL/3, again soon if nobody answers ──> Term::renew
//!               └── the term is over (expired, gone, given up, dropped, closed) ──> revoke ──> the end
//! ```
//!
//! **Invariant:** whoever holds the session hears that it is over before the lease is revoked.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::calls::Calls;
use super::error::{Lost, StoreError};
use super::term::Term;
use super::{Hands, Place};

/// The rest after a keep-alive or a revocation that nobody answered.
pub(super) const REST: Duration = Duration::from_millis(100);

/// A lease, and whoever keeps it alive. Dropped, it is given up.
#[derive(Debug)]
pub(super) struct Session {
    lease: i64,
    term: Arc<Term>,
    revoked: Revoked,
}

/// What became of a lease, once its keeper has ended.
pub(super) type Revoked = watch::Receiver<Option<Result<(), StoreError>>>;

/// Returns once the store has heard that the lease is given up.
pub(super) async fn until_revoked(mut revoked: Revoked) -> Result<(), StoreError> {
    match revoked.wait_for(Option::is_some).await {
        Ok(done) => done.clone().unwrap_or(Ok(())),
        Err(_) => Err(StoreError::Closed),
    }
}

impl Session {
    /// Asks for a lease of `ttl`, rounded up to seconds, at least one; the store may make it longer.
    pub(super) async fn open(
        hands: &Hands,
        election: &str,
        ttl: Duration,
    ) -> Result<Session, StoreError> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds.max(1)).unwrap_or(i64::MAX);
        let sent = Instant::now();
        let granted = hands.calls.lease_grant(seconds).await?;
        let ttl = Duration::from_secs(granted.ttl.unsigned_abs());
        let term = Arc::new(Term::new(sent, ttl));
        let (tell, revoked) = watch::channel(None);
        let keeper = Keeper {
            calls: Arc::clone(&hands.calls),
            lease: granted.id,
            ttl,
            term: Arc::clone(&term),
        };
        let keep = async move {
            let done = keeper.run().await;
            tell.send_replace(Some(done));
        };
        let place = Place {
            election: election.to_owned(),
            term: Arc::clone(&term),
            revoked: revoked.clone(),
        };
        hands.take_in(place, keep)?;
        Ok(Session { lease: granted.id, term, revoked })
    }

    pub(super) fn lease(&self) -> i64 {
        self.lease
    }

    pub(super) fn term(&self) -> &Arc<Term> {
        &self.term
    }

    /// Gives the lease up, with what hangs on it, and waits until the store has heard of it.
    pub(super) async fn give_up(&self) -> Result<(), StoreError> {
        self.term.end(Lost::Resigned);
        until_revoked(self.revoked.clone()).await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.term.end(Lost::Resigned);
    }
}

struct Keeper {
    calls: Arc<dyn Calls>,
    lease: i64,
    ttl: Duration,
    term: Arc<Term>,
}

impl Keeper {
    async fn run(&self) -> Result<(), StoreError> {
        let why = tokio::select! {
            why = self.term.ended() => why,
            () = self.keep() => Lost::LeaseGone,
        };
        tracing::debug!(lease = format!("{:x}", self.lease), %why, "a lease is given up");
        self.revoke().await
    }

    /// Returns once the store says that there is no such lease.
    async fn keep(&self) {
        // Slow answers are not waited for: the next one may come from another member.
        let patience = (self.ttl / 3).max(REST);
        let mut next = Instant::now() + self.ttl / 3;
        loop {
            sleep_until(next).await;
            let sent = Instant::now();
            let answered = timeout(patience, self.calls.lease_keep_alive(self.lease)).await;
            next = match answered {
                Ok(Ok(ttl)) if ttl > 0 => {
                    let ttl = Duration::from_secs(ttl.unsigned_abs());
                    self.term.renew(sent, ttl);
                    sent + ttl / 3
                }
                Ok(Ok(_) | Err(StoreError::LeaseGone)) => {
                    self.term.end(Lost::LeaseGone);
                    return;
                }
                Ok(Err(why)) => {
                    tracing::debug!(error = %why, "a keep-alive was not answered");
                    Instant::now() + REST
                }
                Err(_elapsed) => Instant::now() + REST,
            };
        }
    }

    /// Tries for as long as the lease may last.
    async fn revoke(&self) -> Result<(), StoreError> {
        let began = Instant::now();
        loop {
            match self.calls.lease_revoke(self.lease).await {
                Ok(()) | Err(StoreError::LeaseGone) => return Ok(()),
                Err(why) if why.is_transient() && began.elapsed() < self.ttl => sleep(REST).await,
                Err(why) => return Err(why),
            }
        }
    }
}
