//! Transactions.

use bytes::Bytes;
use rand::Rng;

use super::Draw;
use crate::differential::call::{Call, relative};
use crate::pb::etcdserverpb::compare::TargetUnion;
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::{Compare, RangeRequest, RequestOp, TxnRequest};

impl Draw {
    pub(super) fn txn_call(&mut self) -> Call {
        if self.chance(20) {
            return Call::Txn(self.crowded_txn());
        }
        let mut txn = self.txn(0);
        if deletes_to_the_end(&txn) {
            keep_nothing(&mut txn);
        }
        Call::Txn(txn)
    }

    fn txn(&mut self, depth: usize) -> TxnRequest {
        let compares = self.rng.random_range(0..4);
        TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.ops(depth),
            failure: self.ops(depth),
        }
    }

    fn ops(&mut self, depth: usize) -> Vec<RequestOp> {
        let ops = self.rng.random_range(0..4);
        (0..ops).map(|_| self.op(depth)).collect()
    }

    fn op(&mut self, depth: usize) -> RequestOp {
        let request = match self.rng.random_range(0..100) {
            0..35 => Some(Request::RequestPut(self.put())),
            35..65 => Some(Request::RequestRange(self.range())),
            65..83 => Some(Request::RequestDeleteRange(self.delete_range())),
            83..98 if depth < 2 => Some(Request::RequestTxn(self.txn(depth + 1))),
            83..98 => Some(Request::RequestRange(self.range())),
            _ => None,
        };
        RequestOp { request }
    }

    /// At, and one over, the limit of operations: at the top level, one below it, and of compares.
    fn crowded_txn(&mut self) -> TxnRequest {
        let read = RequestOp {
            request: Some(Request::RequestRange(RangeRequest {
                key: Bytes::from_static(b"a"),
                ..RangeRequest::default()
            })),
        };
        let count = self.pick(&[127, 128, 129]);
        match self.rng.random_range(0..4) {
            0 => TxnRequest { success: vec![read; count], ..TxnRequest::default() },
            1 => TxnRequest { failure: vec![read; count], ..TxnRequest::default() },
            2 => {
                let compare = (0..count).map(|_| self.compare()).collect();
                TxnRequest { compare, success: vec![read.clone()], failure: vec![read] }
            }
            _ => {
                let inner =
                    TxnRequest { failure: vec![read.clone(); count - 2], ..TxnRequest::default() };
                let nested = RequestOp { request: Some(Request::RequestTxn(inner)) };
                TxnRequest { success: vec![nested, read], ..TxnRequest::default() }
            }
        }
    }

    fn compare(&mut self) -> Compare {
        let (key, range_end) =
            if self.chance(750) { (self.key(), Bytes::new()) } else { self.key_and_end() };
        let target =
            if self.chance(15) { self.pick(&[5, -1]) } else { self.rng.random_range(0..5) };
        let asked = if self.chance(100) { self.rng.random_range(0..5) } else { target };
        let target_union = match asked {
            0 => Some(TargetUnion::Version(self.rng.random_range(0..4))),
            1 => Some(TargetUnion::CreateRevision(self.compared_revision())),
            2 => Some(TargetUnion::ModRevision(self.compared_revision())),
            3 => Some(TargetUnion::Value(self.value())),
            4 => Some(TargetUnion::Lease(if self.chance(500) { 0 } else { self.lease() })),
            _ => None,
        };
        Compare {
            result: if self.chance(15) { self.pick(&[4, -1]) } else { self.rng.random_range(0..4) },
            target,
            key,
            range_end,
            target_union: if self.chance(40) { None } else { target_union },
        }
    }

    fn compared_revision(&mut self) -> i64 {
        match self.rng.random_range(0..10) {
            0..3 => 0,
            3..9 => relative(-self.rng.random_range(0..12)),
            _ => -1,
        }
    }
}

fn ops_of(txn: &TxnRequest) -> impl Iterator<Item = &Request> {
    let ops = txn.success.iter().chain(&txn.failure);
    ops.filter_map(|op| op.request.as_ref())
}

pub(super) fn is_nested(txn: &TxnRequest) -> bool {
    ops_of(txn).any(|request| matches!(request, Request::RequestTxn(_)))
}

fn deletes_to_the_end(txn: &TxnRequest) -> bool {
    ops_of(txn).any(|request| match request {
        Request::RequestDeleteRange(delete) => delete.range_end == b"\0".as_slice(),
        Request::RequestTxn(txn) => deletes_to_the_end(txn),
        Request::RequestRange(_) | Request::RequestPut(_) => false,
    })
}

/// Takes `ignore_value` and `ignore_lease` out of a txn that deletes up to the end of the key space.
///
/// The check for duplicate keys overlooks deletes with the `range_end` `\0`, so a put may find the key gone whose value
/// it is to keep: every etcd up to 3.7.1 then ends in a panic while applying (server/etcdserver/txn/put.go), and again
/// at every start. Nothing is to be compared with that.
fn keep_nothing(txn: &mut TxnRequest) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::RequestPut(put)) => {
                put.ignore_value = false;
                put.ignore_lease = false;
            }
            Some(Request::RequestTxn(txn)) => keep_nothing(txn),
            Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => {}
        }
    }
}
