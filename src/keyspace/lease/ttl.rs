//! What a grant may ask for. Decided before the log, so that every member stores the same lease.

use std::time::Duration;

use quorate_core::api::ids::LeaseId;
use quorate_core::api::pb::etcdserverpb::LeaseGrantRequest;

/// The shortest TTL: one and a half election timeouts, in whole seconds upward (etcd `server/etcdserver/server.go`).
pub fn min_ttl_seconds(election_timeout: Duration) -> i64 {
    let millis = election_timeout.as_millis() * 3 / 2;
    i64::try_from(millis.div_ceil(1000)).unwrap_or(i64::MAX)
}

/// The grant as it goes into the log: an id of 0 becomes a positive one from `draw`, a short TTL becomes the shortest
/// allowed. One that is too long is refused behind the log, where an alarm speaks first.
pub fn admit_grant(
    request: LeaseGrantRequest,
    election_timeout: Duration,
    mut draw: impl FnMut() -> u64,
) -> LeaseGrantRequest {
    let mut id = request.id;
    while id == LeaseId::NONE.0 {
        id = (draw() >> 1) as i64;
    }
    let ttl = request.ttl.max(min_ttl_seconds(election_timeout));
    LeaseGrantRequest { id, ttl }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_ttl_follows_the_election_timeout() {
        for (millis, seconds) in [(1000, 2), (100, 1), (2000, 3), (5000, 8), (1333, 2), (1334, 3)] {
            assert_eq!(min_ttl_seconds(Duration::from_millis(millis)), seconds, "{millis} ms");
        }
    }

    #[test]
    fn a_grant_is_completed_before_the_log() {
        let timeout = Duration::from_secs(1);
        let admit = |id, ttl| {
            let mut drawn = [0, 1, u64::MAX].into_iter();
            let request = LeaseGrantRequest { id, ttl };
            let grant = admit_grant(request, timeout, || drawn.next().unwrap());
            (grant.id, grant.ttl)
        };

        assert_eq!(admit(7, 60), (7, 60));
        assert_eq!(admit(-7, 0), (-7, 2));
        assert_eq!(admit(7, -5), (7, 2));
        assert_eq!(admit(0, 1), (i64::MAX, 2), "0 is drawn again");
        assert_eq!(admit(7, i64::MAX), (7, i64::MAX), "too long is not for here to refuse");
    }
}
