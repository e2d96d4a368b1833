//! Checks and operations as etcd's Txn takes them, and its answer as a [`Transacted`].

use bytes::Bytes;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_core::api::pb::etcdserverpb::request_op::Request as Operation;
use quorate_core::api::pb::etcdserverpb::response_op::Response as Outcome;

use super::calls::{one, revision};
use super::error::StoreError;
use super::value::{Compare, Expected, Kv, Op, OpType, Transacted};

/// The store answered something that it was not asked.
pub(super) fn expect(what: &str) -> StoreError {
    StoreError::Refused(format!("the answer does not have {what}"))
}

pub(super) fn compare(check: &Compare) -> pb::Compare {
    let (target, union) = match check.expected {
        // A key that is not there has revision 0 by every count, and version 0; etcd compares that last one alike.
        Expected::Version(revision) => (CompareTarget::Mod, TargetUnion::ModRevision(revision)),
        Expected::Created(revision) => {
            (CompareTarget::Create, TargetUnion::CreateRevision(revision))
        }
    };
    pb::Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: check.key.clone(),
        target_union: Some(union),
        range_end: Bytes::new(),
    }
}

fn operation(op: &Op) -> pb::RequestOp {
    let key = op.key.clone();
    let request = match op.kind {
        OpType::Put => {
            let value = op.value.clone();
            Operation::RequestPut(pb::PutRequest { key, value, ..Default::default() })
        }
        OpType::Delete => {
            Operation::RequestDeleteRange(pb::DeleteRangeRequest { key, ..Default::default() })
        }
        OpType::Get => Operation::RequestRange(one(key)),
    };
    pb::RequestOp { request: Some(request) }
}

pub(super) fn request(checks: &[Compare], on_success: &[Op], on_failure: &[Op]) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: checks.iter().map(compare).collect(),
        success: on_success.iter().map(operation).collect(),
        failure: on_failure.iter().map(operation).collect(),
    }
}

pub(super) fn transacted(response: pb::TxnResponse) -> Transacted {
    let read = response.responses.into_iter().filter_map(|op| match op.response? {
        Outcome::ResponseRange(range) => Some(range.kvs.into_iter().next().map(Kv::from)),
        Outcome::ResponsePut(_) | Outcome::ResponseDeleteRange(_) | Outcome::ResponseTxn(_) => None,
    });
    Transacted {
        committed: response.succeeded,
        revision: revision(response.header.as_ref()),
        read: read.collect(),
    }
}
