//! Is a request well formed? Asked by the API layer before raft, in etcd's order, and never of the state
//! (etcd `server/etcdserver/api/v3rpc/key.go`).

use std::collections::{BTreeMap, BTreeSet};

use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::api::pb::etcdserverpb::request_op::Request as Op;
use crate::api::refusal::Refusal;

use super::mvcc::range::{has_revision_filters, is_default_order};

/// What a request may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Compares, success operations and failure operations of a txn, each at most this many
    /// (etcd `--max-txn-ops`). A nested txn has what the largest of the three leaves.
    pub max_txn_ops: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_txn_ops: 128 }
    }
}

/// A Range: a key, and a sort that exists.
pub fn check_range(request: &pb::RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err()
        || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(Refusal::InvalidSortOption);
    }
    Ok(())
}

/// A RangeStream: a Range without sort or revision filters.
pub fn check_range_stream(request: &pb::RangeRequest) -> Result<(), Refusal> {
    check_range(request)?;
    if !is_default_order(request) {
        return Err(Refusal::StreamSort);
    }
    if has_revision_filters(request) {
        return Err(Refusal::StreamRevisionFilter);
    }
    Ok(())
}

/// A Put: a key, and nothing given that is also to be ignored.
pub fn check_put(request: &pb::PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

/// A DeleteRange: a key.
pub fn check_delete_range(request: &pb::DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    Ok(())
}

/// A Txn: its size, the shape of everything in it, then that no branch puts a key twice or puts and deletes it.
pub fn check_txn(request: &pb::TxnRequest, limits: Limits) -> Result<(), Refusal> {
    check_txn_shape(request, limits.max_txn_ops)?;
    check_overlap(&request.success)?;
    check_overlap(&request.failure)?;
    Ok(())
}

fn check_txn_shape(request: &pb::TxnRequest, max_ops: usize) -> Result<(), Refusal> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    if ops > max_ops {
        return Err(Refusal::TooManyOps);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        check_op_shape(op, max_ops - ops)?;
    }
    Ok(())
}

fn check_op_shape(op: &pb::RequestOp, max_ops: usize) -> Result<(), Refusal> {
    match &op.request {
        Some(Op::RequestRange(range)) => check_range(range),
        Some(Op::RequestPut(put)) => check_put(put),
        Some(Op::RequestDeleteRange(delete)) => check_delete_range(delete),
        Some(Op::RequestTxn(txn)) => check_txn_shape(txn, max_ops),
        None => Err(Refusal::KeyNotFound),
    }
}

/// What a branch writes, for the branch around it.
#[derive(Default)]
struct Writes<'r> {
    puts: BTreeSet<&'r [u8]>,
    deletes: Intervals<'r>,
}

/// Puts of a branch against its other puts and its deletes, in etcd's order: deletes of this level, then nested
/// txns one by one, each against the deletes collected so far, then puts of this level. The two branches of one
/// nested txn may put the same key. A delete to the end of all keys (`range_end` `\0`) overlaps nothing here: in
/// etcd, too, its end sorts below every key.
fn check_overlap(ops: &[pb::RequestOp]) -> Result<Writes<'_>, Refusal> {
    let mut writes = Writes::default();
    for op in ops {
        if let Some(Op::RequestDeleteRange(delete)) = &op.request {
            writes.deletes.insert(&delete.key, &delete.range_end);
        }
    }
    for op in ops {
        if let Some(Op::RequestTxn(txn)) = &op.request {
            let success = check_overlap(&txn.success)?;
            let failure = check_overlap(&txn.failure)?;
            for key in &success.puts {
                writes.put(key)?;
            }
            for key in &failure.puts {
                if success.puts.contains(key) {
                    continue;
                }
                writes.put(key)?;
            }
            writes.deletes.union(success.deletes);
            writes.deletes.union(failure.deletes);
        }
    }
    for op in ops {
        if let Some(Op::RequestPut(put)) = &op.request {
            writes.put(&put.key)?;
        }
    }
    Ok(writes)
}

impl<'r> Writes<'r> {
    fn put(&mut self, key: &'r [u8]) -> Result<(), Refusal> {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(Refusal::DuplicateKey);
        }
        Ok(())
    }
}

/// Disjoint half-open intervals by their start.
#[derive(Default)]
struct Intervals<'r> {
    /// Start to end; a single key is its own start with no end.
    ranges: BTreeMap<&'r [u8], &'r [u8]>,
    points: BTreeSet<&'r [u8]>,
}

impl<'r> Intervals<'r> {
    fn insert(&mut self, key: &'r [u8], range_end: &'r [u8]) {
        if range_end.is_empty() {
            self.points.insert(key);
        } else if key < range_end {
            self.insert_range(key, range_end);
        }
    }

    fn insert_range(&mut self, mut start: &'r [u8], mut end: &'r [u8]) {
        if let Some((before, before_end)) = self.ranges.range(..=start).next_back()
            && *before_end >= start
        {
            start = before;
            end = end.max(before_end);
        }
        while let Some((next, next_end)) =
            self.ranges.range(start..=end).next().map(|(next, next_end)| (*next, *next_end))
        {
            end = end.max(next_end);
            self.ranges.remove(next);
        }
        self.ranges.insert(start, end);
    }

    fn union(&mut self, other: Intervals<'r>) {
        self.points.extend(other.points);
        for (start, end) in other.ranges {
            self.insert_range(start, end);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.points.contains(key)
            || self.ranges.range(..=key).next_back().is_some_and(|(_, end)| key < *end)
    }
}
