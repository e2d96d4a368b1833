//! What a request may add to the store, and how large the store counts as: arithmetic only.
//!
//! **Invariant:** nothing here is consulted by `apply` but [`grows`]: a byte quota is local to a member
//! (etcd `server/storage/quota.go`).

use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::request_op::Request as Op;
use crate::api::pb::internal::command::Request;

/// What every put counts beside its key and value, in bytes.
const PUT_OVERHEAD: u64 = 256;
/// What a lease counts, in bytes.
const LEASE_COST: u64 = 64;

/// The cost of a put, in bytes.
pub fn put_cost(put: &pb::PutRequest) -> u64 {
    PUT_OVERHEAD + put.key.len() as u64 + put.value.len() as u64
}

/// The cost of a txn, in bytes: of its dearer branch, nested txns included.
pub fn txn_cost(txn: &pb::TxnRequest) -> u64 {
    let branch = |ops: &[pb::RequestOp]| ops.iter().map(op_cost).sum::<u64>();
    branch(&txn.success).max(branch(&txn.failure))
}

fn op_cost(op: &pb::RequestOp) -> u64 {
    match &op.request {
        Some(Op::RequestPut(put)) => put_cost(put),
        Some(Op::RequestTxn(txn)) => txn_cost(txn),
        Some(Op::RequestRange(_) | Op::RequestDeleteRange(_)) | None => 0,
    }
}

/// The cost of a command, in bytes; 0 for those that the quota never stops.
pub fn cost(request: &Request) -> u64 {
    match request {
        Request::Put(put) => put_cost(put),
        Request::Txn(txn) => txn_cost(txn),
        Request::LeaseGrant(_) => LEASE_COST,
        Request::DeleteRange(_)
        | Request::Compaction(_)
        | Request::LeaseRevoke(_)
        | Request::LeaseExpiry(_)
        | Request::LeaseCheckpoint(_)
        | Request::Alarm(_)
        | Request::MemberAttributes(_)
        | Request::ClusterLevel(_) => 0,
    }
}

/// The NOSPACE alarm refuses it: a put, a lease grant, or a txn with a put in either branch.
pub fn grows(request: &Request) -> bool {
    cost(request) > 0
}

/// etcd's question before it proposes: does the store stay below the quota? A quota of 0 is the caller's default,
/// a negative one is no quota; both are settled before this.
pub fn fits(db_size: u64, cost: u64, quota: u64) -> bool {
    cost == 0 || db_size.saturating_add(cost) < quota
}

/// A page of etcd's file, in bytes.
const PAGE: u64 = 4096;
/// Pages an empty etcd 3.7.1 store has in use, and one that it keeps beside them.
const BASE_PAGES: u64 = 4;
const SPARE_PAGES: u64 = 1;
/// What a row takes beside key and value in a leaf page.
const ROW_OVERHEAD: u64 = 16;
/// etcd appends to history with pages filled to nine tenths.
const FILL_TENTHS: u64 = 9;

/// The size a store counts as, after etcd's file: it grows with every revision, keeps its size when compaction
/// frees pages, fills those first afterwards, and shrinks to what is in use at a defragmentation.
///
/// Seen on etcd 3.7.1: an empty store has 20,480 bytes (16,384 in use), and with three values of 4 KiB left
/// 45,056 after a defragmentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DbSize {
    /// Bytes of rows that share pages.
    small_bytes: u64,
    /// Pages of rows too large to share one.
    large_pages: u64,
    /// The most that was ever in use since the last defragmentation, in bytes.
    high_water: u64,
}

impl DbSize {
    /// A store that starts at the size it had before a restart.
    pub fn with_high_water(bytes: u64) -> DbSize {
        DbSize {
            high_water: bytes,
            ..DbSize::default()
        }
    }

    /// A row of `key_bytes` and `value_bytes` was added: for a revision, 17 or 18 and the marshalled key-value.
    pub fn add(&mut self, key_bytes: u64, value_bytes: u64) {
        let row = ROW_OVERHEAD + key_bytes + value_bytes;
        if row > PAGE {
            self.large_pages += row.div_ceil(PAGE);
        } else {
            self.small_bytes += row;
        }
        self.high_water = self.high_water.max(self.size_of_use());
    }

    /// Such a row was dropped.
    pub fn remove(&mut self, key_bytes: u64, value_bytes: u64) {
        let row = ROW_OVERHEAD + key_bytes + value_bytes;
        if row > PAGE {
            self.large_pages = self.large_pages.saturating_sub(row.div_ceil(PAGE));
        } else {
            self.small_bytes = self.small_bytes.saturating_sub(row);
        }
    }

    /// Bytes in use.
    pub fn in_use(&self) -> u64 {
        let small_pages = (self.small_bytes * 10).div_ceil(PAGE * FILL_TENTHS);
        (BASE_PAGES + small_pages + self.large_pages) * PAGE
    }

    /// Bytes the store counts as.
    pub fn size(&self) -> u64 {
        self.high_water.max(self.size_of_use())
    }

    fn size_of_use(&self) -> u64 {
        self.in_use() + SPARE_PAGES * PAGE
    }

    /// Gives back what is not in use.
    pub fn defragment(&mut self) {
        self.high_water = self.size_of_use();
    }
}
