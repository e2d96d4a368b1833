//! Holders of leases: what hangs on a lease is there for as long as its holder was promised, and not for ever.

use std::time::Duration;

use quorate_core::api::ids::LeaseId;
use quorate_core::api::pb::etcdserverpb as pb;
use rand::Rng;
use tokio::time::{Instant, timeout};

use super::clients::{Client, Ended, get, get_prefix, put};
use super::nemesis::DRIFT_MAX_PPM;
use super::world::World;

/// Seconds; the shortest that an election timeout of 1 s allows, and longer ones.
const TTL: std::ops::Range<i64> = 3..8;
/// With nobody to keep them, leases have ended after this: the longest TTL, an election and its extension, a look.
const ENDED_AFTER: Duration = Duration::from_secs(20);

/// Until when a lease lives that was promised `ttl` seconds for a call that began then, on a fast member's clock.
fn promised(began: Instant, ttl: i64) -> Instant {
    let whole = Duration::from_secs(ttl.unsigned_abs());
    let fast = 1.0 + 2.0 * DRIFT_MAX_PPM as f64 / 1e6;
    began + whole.div_f64(fast)
}

impl Client {
    /// Holds leases with a key each, and looks that the key is there for as long as the lease was promised.
    pub async fn hold_leases(mut self) {
        // Keep-alives are short of time by nature.
        self.hurry = 0.5;
        while !self.world.is_over() {
            let lease = i64::try_from(self.world.unique()).unwrap_or(i64::MAX);
            let key = format!("lease/{lease}");
            let began = Instant::now();
            let grant = pb::LeaseGrantRequest { id: lease, ttl: self.rng.random_range(TTL) };
            let granted = self.ask(|keyspace| async move { keyspace.lease_grant(grant).await });
            let Ended::Told(granted) = granted.await else {
                self.think().await;
                continue;
            };
            let mut request = put(&key, 1);
            request.lease = lease;
            let bound = self.ask(|keyspace| async move { keyspace.put(request).await }).await;
            if matches!(bound, Ended::Told(_)) {
                self.hold(lease, &key, promised(began, granted.ttl)).await;
            }
        }
    }

    async fn hold(&mut self, lease: i64, key: &str, mut until: Instant) {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(100..1500))).await;
            let began = Instant::now();
            let member = self.member;
            let kept = self
                .ask(|keyspace| async move { keyspace.lease_keep_alive(LeaseId(lease)).await })
                .await;
            if let Ended::Told(ttl) = kept {
                let world = &self.world;
                world.told().operations += 1;
                world.line(|| format!("lease {lease} kept on member {member}: {ttl}"));
                if ttl > 0 {
                    until = until.max(promised(began, ttl));
                } else if Instant::now() < until {
                    world.violation(format!("lease {lease} was gone before its time"));
                }
            }
            if !self.is_there(key, until).await {
                return;
            }
            if self.rng.random_bool(0.4) {
                // As if its holder had died: nobody may lengthen what was promised.
                while Instant::now() < until && self.is_there(key, until).await {
                    let pause = Duration::from_millis(self.rng.random_range(50..400));
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Whether the key is there, as far as one knows; it has to be until then.
    async fn is_there(&mut self, key: &str, until: Instant) -> bool {
        let request = get(key);
        let found = self.ask(|keyspace| async move { keyspace.range(request).await }).await;
        let Ended::Told(found) = found else { return true };
        self.world.looked("leases looked at", 1);
        if found.kvs.is_empty() && Instant::now() < until {
            let left = until - Instant::now();
            self.world.violation(format!("{key} ended {left:?} before its time"));
        }
        !found.kvs.is_empty()
    }
}

/// With nobody to keep them, every lease ends.
pub async fn check_ended(world: &World) {
    let gone = async {
        loop {
            let mut left = 0;
            for id in world.fleet.cast() {
                let request = get_prefix("lease/");
                let found = world
                    .call(id, Duration::from_secs(20), false, |keyspace| async move {
                        keyspace.range(request).await
                    })
                    .await;
                left += match found {
                    super::world::Heard::Told(Ok(found)) => found.kvs.len(),
                    _ => 1,
                };
            }
            if left == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    if timeout(ENDED_AFTER, gone).await.is_err() {
        world.violation(format!("leases that nobody keeps are there after {ENDED_AFTER:?}"));
    }
}
