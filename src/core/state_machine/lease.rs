//! Leases as replicated facts: which exist, how long each lasts, which keys hang on it.
//!
//! **Invariant:** no deadline lives here. The leader's lessor watches the clock and proposes an expiry; applying
//! that entry deletes the keys, on every member alike (etcd `server/lease/lessor.go`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;

use crate::api::batch::{LeaseChange, Space};
use crate::api::ids::LeaseId;
use crate::api::pb::internal::LeaseRecord;
use crate::api::refusal::{Corrupt, Refusal};

use super::changes::Changes;

/// The longest TTL that is granted, in seconds (etcd `server/lease/lessor.go`, `MaxLeaseTTL`).
pub const MAX_TTL_SECONDS: i64 = 9_000_000_000;

/// Every lease, in id order, so that all members list them alike.
#[derive(Debug, Default)]
pub(crate) struct LeaseBook {
    leases: BTreeMap<LeaseId, Lease>,
}

#[derive(Debug)]
struct Lease {
    granted_ttl: i64,
    /// 0: full.
    remaining_ttl: i64,
    keys: BTreeSet<Box<[u8]>>,
}

/// A lease as told to whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// The TTL it was granted, in seconds.
    pub granted_ttl: i64,
    /// What was left at the last checkpoint, in seconds; 0 when none was made since it was granted or renewed.
    pub remaining_ttl: i64,
    /// How many keys hang on it.
    pub keys: usize,
}

impl LeaseBook {
    /// Records a grant. The proposer chose `id` and raised the TTL to its minimum.
    pub(crate) fn grant(
        &mut self,
        id: LeaseId,
        ttl: i64,
        changes: &mut Changes,
    ) -> Result<(), Refusal> {
        if id == LeaseId::NONE {
            return Err(Refusal::LeaseNotFound);
        }
        if ttl > MAX_TTL_SECONDS {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        let lease = Lease { granted_ttl: ttl, remaining_ttl: 0, keys: BTreeSet::new() };
        changes.record(Space::Lease, record_key(id), Some(lease.encode(id)));
        changes.leases.push(LeaseChange::Granted { id, ttl });
        self.leases.insert(id, lease);
        Ok(())
    }

    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// A put may name this lease: it exists, or none is named.
    pub(crate) fn check(&self, id: i64) -> Result<(), Refusal> {
        if id == 0 || self.contains(LeaseId(id)) { Ok(()) } else { Err(Refusal::LeaseNotFound) }
    }

    /// Hangs `key` on the lease; the key dies when the lease does. "No lease" takes no keys.
    pub(crate) fn attach(&mut self, id: LeaseId, key: &[u8]) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.insert(key.into());
        }
    }

    /// Takes `key` off the lease.
    pub(crate) fn detach(&mut self, id: LeaseId, key: &[u8]) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// Forgets the lease and hands back its keys in order, for the caller to delete in one revision.
    pub(crate) fn end(
        &mut self,
        id: LeaseId,
        changes: &mut Changes,
    ) -> Result<BTreeSet<Box<[u8]>>, Refusal> {
        let lease = self.leases.remove(&id).ok_or(Refusal::LeaseNotFound)?;
        changes.record(Space::Lease, record_key(id), None);
        changes.leases.push(LeaseChange::Ended { id });
        Ok(lease.keys)
    }

    /// Notes what is left of a lease; one that has ended meanwhile is passed over.
    pub(crate) fn checkpoint(&mut self, id: LeaseId, remaining_ttl: i64, changes: &mut Changes) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        lease.remaining_ttl = remaining_ttl;
        changes.record(Space::Lease, record_key(id), Some(lease.encode(id)));
        changes.leases.push(LeaseChange::Checkpointed { id, remaining_ttl });
    }

    pub(crate) fn view(&self, id: LeaseId) -> Option<LeaseView> {
        self.leases.get(&id).map(|lease| LeaseView {
            granted_ttl: lease.granted_ttl,
            remaining_ttl: lease.remaining_ttl,
            keys: lease.keys.len(),
        })
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = LeaseId> {
        self.leases.keys().copied()
    }

    pub(crate) fn keys(&self, id: LeaseId) -> Vec<Bytes> {
        self.leases.get(&id).map_or_else(Vec::new, |lease| {
            lease.keys.iter().map(|key| Bytes::copy_from_slice(key)).collect()
        })
    }

    /// The keys that hang on a lease, in order; none on one that does not exist.
    pub(crate) fn each_key(&self, id: LeaseId) -> impl Iterator<Item = &[u8]> {
        self.leases.get(&id).into_iter().flat_map(|lease| lease.keys.iter().map(|key| &**key))
    }

    /// Every lease as its record.
    pub(crate) fn records(&self) -> impl Iterator<Item = (Bytes, Bytes)> {
        self.leases.iter().map(|(id, lease)| (record_key(*id), lease.encode(*id)))
    }

    /// Takes over a record that was written by [`LeaseBook::records`] or a grant.
    pub(crate) fn restore(&mut self, value: &[u8]) -> Result<(), Corrupt> {
        let record = super::records::decode::<LeaseRecord>("lease record", value)?;
        self.leases.insert(
            LeaseId(record.id),
            Lease {
                granted_ttl: record.granted_ttl,
                remaining_ttl: record.remaining_ttl,
                keys: BTreeSet::new(),
            },
        );
        Ok(())
    }
}

impl Lease {
    fn encode(&self, id: LeaseId) -> Bytes {
        let record = LeaseRecord {
            id: id.0,
            granted_ttl: self.granted_ttl,
            remaining_ttl: self.remaining_ttl,
        };
        record.encode_to_vec().into()
    }
}

fn record_key(id: LeaseId) -> Bytes {
    Bytes::copy_from_slice(&id.0.to_be_bytes())
}
