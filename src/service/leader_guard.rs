//! `hasleader` in a request's metadata: the client would rather fail than be served by a member without a leader.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::api::pb::etcdserverpb::ResponseHeader;
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::status::no_leader;

/// What streams ask of the member they run on.
pub trait Seat: Send + Sync + 'static {
    /// Who answers, at which revision, in which term.
    fn header(&self) -> ResponseHeader;

    /// A leader is known and was heard of within the election timeout.
    fn has_leader(&self) -> bool;
}

/// Looks without a leader, an election timeout apart, after which a stream ends (etcd
/// `server/etcdserver/api/v3rpc/interceptor.go`, `maxNoLeaderCnt`).
const LOOKS: u32 = 3;

/// Watches over one stream that wants a leader; over others it does nothing.
pub(super) struct LeaderGuard {
    seat: Option<Arc<dyn Seat>>,
    interval: Duration,
    next: Instant,
    without: u32,
}

impl LeaderGuard {
    /// Fails at once when the client wants a leader and there is none.
    pub(super) fn admit(
        metadata: &MetadataMap,
        seat: &Arc<dyn Seat>,
        election_timeout: Duration,
    ) -> Result<LeaderGuard, Status> {
        let wanted = metadata.get("hasleader").is_some_and(|value| value == "true");
        if wanted && !seat.has_leader() {
            return Err(no_leader());
        }
        Ok(LeaderGuard {
            seat: wanted.then(|| Arc::clone(seat)),
            interval: election_timeout,
            next: Instant::now() + election_timeout,
            without: 0,
        })
    }

    /// Answers when the leader has been gone for three election timeouts. May be dropped and called again.
    pub(super) async fn lost(&mut self) -> Status {
        let Some(seat) = &self.seat else {
            return std::future::pending().await;
        };
        while self.without < LOOKS {
            tokio::time::sleep_until(self.next).await;
            self.next = Instant::now() + self.interval;
            self.without = if seat.has_leader() { 0 } else { self.without + 1 };
        }
        no_leader()
    }
}
