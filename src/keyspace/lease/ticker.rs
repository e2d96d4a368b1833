//! The lessor's own task: ten times a second, what is due.

use std::future::Future;
use std::time::Duration;

use quorate_core::api::ids::Term;
use quorate_core::api::pb::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest};
use quorate_core::api::pb::internal::LeaseExpiry;
use tokio::time::{Instant, MissedTickBehavior};

use super::lessor::Lessor;

/// Between two looks at the deadlines: what a lease may live on beyond its own (etcd: half a second).
const INTERVAL: Duration = Duration::from_millis(100);

/// Leases in one proposal.
const BATCH: usize = 1000;

/// Proposals of a kind in one look: with [`BATCH`] the most leases that end in a tenth of a second.
const BATCHES: usize = 2;

impl Lessor {
    /// Ends leases and checkpoints their rests, until `stop`. One task runs it as long as the keyspace is open.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) {
        tokio::pin!(stop);
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // A proposal that is cut off here is one whose answer nobody needs.
            let look = async {
                interval.tick().await;
                self.look().await;
            };
            tokio::select! {
                () = &mut stop => return,
                () = look => {}
            }
        }
    }

    /// One look: proposes what is due, after making sure that this member still leads.
    async fn look(&self) {
        let Some(term) = self.term() else { return };
        let due = self.holding(term, |held| {
            let now = Instant::now();
            held.any_expired(now) || held.any_checkpoint(now)
        });
        if due != Ok(true) {
            return;
        }
        if self.0.leadership.confirm(term).await.is_err() {
            tracing::debug!(%term, "leases are due, but leadership could not be confirmed");
            return;
        }
        self.expire(term).await;
        self.checkpoint(term).await;
    }

    async fn expire(&self, term: Term) {
        for _ in 0..BATCHES {
            let retry = self.0.options.expiry_retry;
            let take = self.holding(term, |held| held.take_expired(Instant::now(), BATCH, retry));
            let expired = take.unwrap_or_default();
            if expired.is_empty() {
                return;
            }
            let expiry =
                LeaseExpiry { term: term.0, lease_ids: expired.iter().map(|id| id.0).collect() };
            match self.0.leadership.propose_expiry(expiry).await {
                Ok(()) => self.0.counters.add_expired(expired.len()),
                Err(failed) => {
                    tracing::warn!(%term, leases = expired.len(), %failed, "expired leases were not ended yet");
                    return;
                }
            }
        }
    }

    async fn checkpoint(&self, term: Term) {
        for _ in 0..BATCHES {
            let take = self.holding(term, |held| held.take_checkpoints(Instant::now(), BATCH));
            let rests = take.unwrap_or_default();
            if rests.is_empty() {
                return;
            }
            let checkpoints = rests.iter().map(|(id, remaining_ttl)| LeaseCheckpoint {
                id: id.0,
                remaining_ttl: *remaining_ttl,
            });
            let checkpoint = LeaseCheckpointRequest { checkpoints: checkpoints.collect() };
            let outcome = self.0.leadership.propose_checkpoint(checkpoint).await;
            // Those that were seen to be applied are in doubt no more. A member that lost the term holds none.
            let _ = self.holding(term, |held| held.doubt_checkpoints(&rests));
            if let Err(failed) = outcome {
                tracing::debug!(%term, %failed, "lease checkpoints were not applied");
                return;
            }
        }
    }
}
