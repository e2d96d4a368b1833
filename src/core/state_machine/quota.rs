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
        | Request::ClusterLevel(_)
        | Request::Auth(_)
        | Request::Fleet(_) => 0,
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
/// What a page keeps for itself.
const PAGE_HEADER: u64 = 16;
/// Pages an empty etcd 3.7.1 store has in use.
const BASE_PAGES: u64 = 4;
/// Pages that are free beside them: after a defragmentation, and while the store is written to, which copies a page
/// before it changes it.
const SPARE_PAGES: u64 = 1;
const SPARE_PAGES_WRITTEN: u64 = 2;
/// What a row takes beside key and value in a leaf page.
const ROW_OVERHEAD: u64 = 16;
/// etcd appends to history with pages filled to nine tenths.
const FILLED: u64 = PAGE * 9 / 10 - PAGE_HEADER;

/// The size a store counts as, after etcd's file: it grows with every revision, keeps its size when compaction
/// frees pages, fills those first afterwards, and shrinks to what is in use at a defragmentation.
///
/// A row takes its share of a page filled with rows like it. bbolt puts at least two rows on a page and lets it run
/// over into the next ones, so large rows take half of the pages that two need. Against etcd 3.7.1 with 300 to 3000
/// rows of 100 bytes to 10 KB this came out within 8 in 100 (see the tests).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DbSize {
    /// Bytes of pages that rows take, each row's share rounded up.
    rows: u64,
    /// The most that it ever counted as since the last defragmentation, in bytes.
    high_water: u64,
}

impl DbSize {
    /// A store that starts at the size it had before a restart.
    pub fn with_high_water(bytes: u64) -> DbSize {
        DbSize { rows: 0, high_water: bytes }
    }

    /// A row of `key_bytes` and `value_bytes` was added: for a revision, 17 or 18 and the marshalled key-value.
    pub fn add(&mut self, key_bytes: u64, value_bytes: u64) {
        self.rows += share(key_bytes + value_bytes);
        let written = self.in_use() + SPARE_PAGES_WRITTEN * PAGE;
        self.high_water = self.high_water.max(written);
    }

    /// Such a row was found at a start: nothing is written, so no page is spent on writing it.
    pub fn find(&mut self, key_bytes: u64, value_bytes: u64) {
        self.rows += share(key_bytes + value_bytes);
    }

    /// Such a row was dropped.
    pub fn remove(&mut self, key_bytes: u64, value_bytes: u64) {
        self.rows = self.rows.saturating_sub(share(key_bytes + value_bytes));
    }

    /// Bytes in use.
    pub fn in_use(&self) -> u64 {
        (BASE_PAGES + self.rows.div_ceil(PAGE)) * PAGE
    }

    /// Bytes the store counts as.
    pub fn size(&self) -> u64 {
        self.high_water.max(self.in_use() + SPARE_PAGES * PAGE)
    }

    /// Gives back what is not in use.
    pub fn defragment(&mut self) {
        self.high_water = 0;
    }
}

/// What a row of so many bytes of key and value takes of the file's pages, in bytes.
fn share(bytes: u64) -> u64 {
    let row = ROW_OVERHEAD + bytes;
    match FILLED / row {
        0 | 1 => (PAGE_HEADER + 2 * row).div_ceil(PAGE) * PAGE / 2,
        rows => PAGE.div_ceil(rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    /// As seen on etcd 3.7.1 with `--quota-backend-bytes` 53248, the quota of its own tests.
    #[test]
    fn an_empty_store_and_a_few_puts_fit_thirteen_pages() {
        let quota = 13 * PAGE;
        let mut size = DbSize::default();
        assert_eq!((size.size(), size.in_use()), (20 * KIB, 16 * KIB));
        let mut taken = 0;
        while fits(size.size(), PUT_OVERHEAD + 1 + 4 * KIB, quota) {
            size.add(17, 4 * KIB + 20);
            taken += 1;
        }
        assert_eq!(taken, 4);
    }

    #[test]
    fn compaction_frees_pages_and_defragmentation_gives_them_back() {
        let mut size = DbSize::default();
        for _ in 0..6 {
            size.add(17, 4 * KIB + 20);
        }
        let grown = size.size();
        for _ in 0..2 {
            size.remove(17, 4 * KIB + 20);
        }
        assert_eq!((size.size(), size.in_use()), (grown, 40 * KIB));
        size.add(17, 4 * KIB + 20);
        assert_eq!(size.size(), grown, "freed pages are filled first");
        size.remove(17, 4 * KIB + 20);
        size.defragment();
        assert_eq!((size.size(), size.in_use()), (44 * KIB, 40 * KIB));
        let mut again = DbSize::with_high_water(size.size());
        for _ in 0..4 {
            again.find(17, 4 * KIB + 20);
        }
        assert_eq!(
            (again.size(), again.in_use()),
            (44 * KIB, 40 * KIB),
            "a restart writes nothing"
        );
    }

    /// Values of one size under keys of nine bytes, put one by one; etcd's bytes in use after a defragmentation.
    #[test]
    fn the_model_is_near_what_etcd_3_7_1_had_in_use() {
        #[rustfmt::skip]
        let table = [
            // puts, value bytes, in use
            (2000,   100,           372_736),
            (3000,   1000,          4_149_248),
            (500,    3000,          2_072_576),
            (300,    10_000,        3_096_576),
        ];
        for (puts, value_bytes, etcd) in table {
            let mut size = DbSize::default();
            for number in 0..puts {
                let revision = if number < 126 { 2 } else { 3 };
                let length = if value_bytes < 128 { 2 } else { 3 };
                size.add(17, 11 + 2 * revision + 2 + length + value_bytes);
            }
            let ratio = size.in_use() * 100 / etcd;
            assert!(
                (92..=108).contains(&ratio),
                "{puts} x {value_bytes}: {} for {etcd}",
                size.in_use()
            );
        }
    }

    #[test]
    fn what_costs_nothing_always_fits() {
        assert!(fits(u64::MAX, 0, 1));
        assert!(!fits(u64::MAX, 1, u64::MAX));
        assert!(!fits(10, 5, 15), "the quota itself is too much");
        assert!(fits(10, 4, 15));
    }
}
