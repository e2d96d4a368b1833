//! Facts about leases, counted for the metrics page.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::Histogram;

use crate::support::metrics::histogram;

/// Plain counters, read at any time (etcd `server/lease/metrics.go`).
#[derive(Debug)]
pub struct LeaseCounters {
    ttl: Histogram,
    granted: AtomicU64,
    revoked: AtomicU64,
    renewed: AtomicU64,
    expired: AtomicU64,
}

impl Default for LeaseCounters {
    fn default() -> Self {
        LeaseCounters {
            ttl: histogram(
                "etcd_debugging_lease_ttl_total",
                "Bucketed histogram of lease TTLs.",
                (1.0, 2.0, 24),
            ),
            granted: AtomicU64::default(),
            revoked: AtomicU64::default(),
            renewed: AtomicU64::default(),
            expired: AtomicU64::default(),
        }
    }
}

impl LeaseCounters {
    /// Times to live that leases were granted with, in seconds, for the registry.
    pub fn ttl(&self) -> Histogram {
        self.ttl.clone()
    }

    /// Leases granted, as applied on this member.
    pub fn granted(&self) -> u64 {
        self.granted.load(Ordering::Relaxed)
    }

    /// Leases ended, by revoke or expiry, as applied on this member.
    pub fn revoked(&self) -> u64 {
        self.revoked.load(Ordering::Relaxed)
    }

    /// Keep-alives that found their lease here.
    pub fn renewed(&self) -> u64 {
        self.renewed.load(Ordering::Relaxed)
    }

    /// Leases that this member, leading, proposed to end, and whose proposal was applied.
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    #[expect(clippy::cast_precision_loss, reason = "no lease lives so long")]
    pub(super) fn add_granted(&self, ttl: i64) {
        self.ttl.observe(ttl as f64);
        self.granted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_revoked(&self) {
        self.revoked.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_renewed(&self) {
        self.renewed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_expired(&self, leases: usize) {
        self.expired.fetch_add(leases as u64, Ordering::Relaxed);
    }
}
