//! Facts about leases, counted for the metrics page.

use std::sync::atomic::{AtomicU64, Ordering};

/// Plain counters, read at any time (etcd `server/lease/metrics.go`).
#[derive(Debug, Default)]
pub struct LeaseCounters {
    granted: AtomicU64,
    revoked: AtomicU64,
    renewed: AtomicU64,
    expired: AtomicU64,
}

impl LeaseCounters {
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

    pub(super) fn add_granted(&self) {
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
