//! Txn: compares choose a path, the path is checked, then it runs; nothing is refused once it runs.
//!
//! ```text
//!   choose   every compare of the path, nested ones too, against the state before the txn  -> Path
//!   check    leases exist, ignore_* finds its key, revisions can be read                   -> Refusal
//!   run      operations in order; later ones see the writes of earlier ones                -> TxnResponse
//! ```
//!
//! After etcd `server/etcdserver/txn/txn.go`. Ranges at compacted or future revisions are refused by `check`, that
//! is by every member alike.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use crate::api::ids::Revision;
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::api::pb::etcdserverpb::request_op::Request as Op;
use crate::api::pb::etcdserverpb::response_op::Response as OpResponse;
use crate::api::refusal::{Corrupt, Refusal};
use crate::api::view::View;

use super::StateMachine;
use super::lease::LeaseBook;
use super::mvcc::Mvcc;
use super::mvcc::key_index::KeyIndex;
use super::mvcc::range::header;
use super::mvcc::span::Span;
use super::mvcc::values::Values;
use super::mvcc::write::WriteTxn;

/// Every operation of both branches is a Range: the txn needs no log entry. A nested txn is none, whatever is in it.
pub fn is_read_only(txn: &pb::TxnRequest) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure);
    ops.all(|op| matches!(op.request, Some(Op::RequestRange(_))))
}

/// A read-only txn that any member may answer from its own state: all its ranges are serializable. A txn without
/// operations, compares or not, is one.
pub fn is_serializable(txn: &pb::TxnRequest) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure);
    ops.all(|op| matches!(&op.request, Some(Op::RequestRange(range)) if range.serializable))
}

/// Which branches a txn takes: its own, and those of the nested txns on it, in order.
#[derive(Debug)]
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

impl Path {
    fn branch<'r>(&self, txn: &'r pb::TxnRequest) -> &'r [pb::RequestOp] {
        if self.succeeded { &txn.success } else { &txn.failure }
    }
}

impl StateMachine {
    /// Answers a read-only txn at the current revision. The outer error stops the member, the inner one is the
    /// answer.
    pub fn read_only(
        &self,
        view: &impl View,
        txn: &pb::TxnRequest,
    ) -> Result<Result<pb::TxnResponse, Refusal>, Corrupt> {
        debug_assert!(is_read_only(txn));
        let values = Values::committed(view);
        let path = choose(&self.mvcc, &values, txn)?;
        if let Err(refusal) = check(&self.mvcc, &self.leases, txn, &path) {
            return Ok(Err(refusal));
        }
        let mut responses = Vec::new();
        for op in path.branch(txn) {
            if let Some(Op::RequestRange(range)) = &op.request {
                let range = self.mvcc.range_in_txn(range, self.mvcc.revision, &values)?;
                responses.push(OpResponse::ResponseRange(range));
            }
        }
        Ok(Ok(response(&path, responses, header(self.mvcc.revision))))
    }

    /// Revisions that [`StateMachine::read_only`] would read through the view, at most about `max`.
    pub fn read_only_cold(&self, txn: &pb::TxnRequest, max: usize) -> Vec<Revision> {
        let mut cold = Vec::new();
        cold_reads(&self.mvcc, txn, max, &mut cold);
        cold
    }
}

/// Decides a txn of the log.
pub(crate) fn apply<V: View>(
    mut write: WriteTxn<'_, V>,
    txn: &pb::TxnRequest,
) -> Result<Result<pb::TxnResponse, Refusal>, Corrupt> {
    let values = Values::applying(write.view, &write.changes.revisions);
    let path = choose(write.mvcc, &values, txn)?;
    if let Err(refusal) = check(write.mvcc, write.leases, txn, &path) {
        return Ok(Err(refusal));
    }
    let mut answer = run(&mut write, txn, &path)?;
    answer.header = header(write.end());
    Ok(Ok(answer))
}

fn choose<V: View>(
    mvcc: &Mvcc,
    values: &Values<'_, V>,
    txn: &pb::TxnRequest,
) -> Result<Path, Corrupt> {
    let mut path = Path { succeeded: true, nested: Vec::new() };
    for compare in &txn.compare {
        if !holds(mvcc, values, compare)? {
            path.succeeded = false;
            break;
        }
    }
    for op in path.branch(txn) {
        if let Some(Op::RequestTxn(nested)) = &op.request {
            path.nested.push(choose(mvcc, values, nested)?);
        }
    }
    Ok(path)
}

/// Whether a compare holds: for every key of its range, or, when there is none, for a key of zero values. A value
/// that does not exist compares as false, whatever the comparison.
fn holds<V: View>(
    mvcc: &Mvcc,
    values: &Values<'_, V>,
    compare: &pb::Compare,
) -> Result<bool, Corrupt> {
    let span = Span::new(&compare.key, &compare.range_end);
    let by_value = compare.target == CompareTarget::Value as i32;
    let mut empty = true;
    let mut result = Ok(true);
    mvcc.index.visit(&span, None, |key, index| {
        let verdict = match order_of(index, key, values, compare) {
            Ok(None) => return ControlFlow::Continue(()),
            Ok(Some(order)) => Ok(satisfies(compare, order)),
            Err(corrupt) => Err(corrupt),
        };
        empty = false;
        match verdict {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) | Err(_) => {
                result = verdict;
                ControlFlow::Break(())
            }
        }
    });
    if empty {
        return Ok(!by_value && satisfies(compare, 0.cmp(&wanted(compare))));
    }
    result
}

/// How a key stands to what is compared; `None` when the key is absent.
fn order_of<V: View>(
    index: &KeyIndex,
    key: &[u8],
    values: &Values<'_, V>,
    compare: &pb::Compare,
) -> Result<Option<Ordering>, Corrupt> {
    let Some(at) = index.get_newest() else {
        return Ok(None);
    };
    let order = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => at.version.cmp(&wanted(compare)),
        Ok(CompareTarget::Create) => at.create_revision.cmp(&wanted(compare)),
        Ok(CompareTarget::Mod) => at.revision.main.cmp(&wanted(compare)),
        Ok(CompareTarget::Lease) => index.lease().cmp(&wanted(compare)),
        Ok(CompareTarget::Value) => {
            let kv = values.read(key, at.revision, index.hot_at(at.revision))?;
            let wanted: &[u8] = match &compare.target_union {
                Some(TargetUnion::Value(value)) => value,
                Some(
                    TargetUnion::Version(_)
                    | TargetUnion::CreateRevision(_)
                    | TargetUnion::ModRevision(_)
                    | TargetUnion::Lease(_),
                )
                | None => &[],
            };
            kv.value.as_ref().cmp(wanted)
        }
        Err(_) => Ordering::Equal,
    };
    Ok(Some(order))
}

/// The number compared with; 0 when the field set is not the target's own.
fn wanted(compare: &pb::Compare) -> i64 {
    let (own, number) = match &compare.target_union {
        Some(TargetUnion::Version(version)) => (CompareTarget::Version, *version),
        Some(TargetUnion::CreateRevision(revision)) => (CompareTarget::Create, *revision),
        Some(TargetUnion::ModRevision(revision)) => (CompareTarget::Mod, *revision),
        Some(TargetUnion::Lease(lease)) => (CompareTarget::Lease, *lease),
        Some(TargetUnion::Value(_)) | None => return 0,
    };
    if own as i32 == compare.target { number } else { 0 }
}

/// An unknown comparison always holds.
fn satisfies(compare: &pb::Compare, order: Ordering) -> bool {
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        Err(_) => true,
    }
}

fn check(
    mvcc: &Mvcc,
    leases: &LeaseBook,
    txn: &pb::TxnRequest,
    path: &Path,
) -> Result<(), Refusal> {
    let mut nested = path.nested.iter();
    for op in path.branch(txn) {
        match &op.request {
            Some(Op::RequestRange(range)) => check_range_revision(mvcc, range)?,
            Some(Op::RequestPut(put)) => check_put(mvcc, leases, put)?,
            Some(Op::RequestTxn(txn)) => {
                let path = nested.next().expect("the path has every nested txn");
                check(mvcc, leases, txn, path)?;
            }
            Some(Op::RequestDeleteRange(_)) | None => {}
        }
    }
    Ok(())
}

/// Inside a txn only 0 is the newest; a negative revision may be compacted.
fn check_range_revision(mvcc: &Mvcc, range: &pb::RangeRequest) -> Result<(), Refusal> {
    if range.revision == 0 {
        Ok(())
    } else if range.revision > mvcc.revision {
        Err(Refusal::FutureRevision)
    } else if range.revision < mvcc.compact_revision {
        Err(Refusal::Compacted)
    } else {
        Ok(())
    }
}

/// What a put asks of the state: its lease, and a key to take the ignored part from.
pub(crate) fn check_put(
    mvcc: &Mvcc,
    leases: &LeaseBook,
    put: &pb::PutRequest,
) -> Result<(), Refusal> {
    leases.check(put.lease)?;
    if put.ignore_value || put.ignore_lease {
        let alive = mvcc.index.key(&put.key).is_some_and(KeyIndex::is_alive);
        if !alive {
            return Err(Refusal::KeyNotFound);
        }
    }
    Ok(())
}

fn run<V: View>(
    write: &mut WriteTxn<'_, V>,
    txn: &pb::TxnRequest,
    path: &Path,
) -> Result<pb::TxnResponse, Corrupt> {
    let mut nested = path.nested.iter();
    let mut responses = Vec::new();
    for op in path.branch(txn) {
        responses.push(match &op.request {
            Some(Op::RequestRange(range)) => {
                let values = Values::applying(write.view, &write.changes.revisions);
                let range = write.mvcc.range_in_txn(range, write.now(), &values)?;
                OpResponse::ResponseRange(range)
            }
            Some(Op::RequestPut(put)) => OpResponse::ResponsePut(write.put(put)?),
            Some(Op::RequestDeleteRange(delete)) => {
                OpResponse::ResponseDeleteRange(write.delete_range(delete)?)
            }
            Some(Op::RequestTxn(txn)) => {
                let path = nested.next().expect("the path has every nested txn");
                OpResponse::ResponseTxn(run(write, txn, path)?)
            }
            None => continue,
        });
    }
    Ok(response(path, responses, Some(pb::ResponseHeader::default())))
}

/// A nested txn's header is there but empty, as etcd sends it.
fn response(
    path: &Path,
    responses: Vec<OpResponse>,
    header: Option<pb::ResponseHeader>,
) -> pb::TxnResponse {
    pb::TxnResponse {
        header,
        succeeded: path.succeeded,
        responses: responses
            .into_iter()
            .map(|response| pb::ResponseOp { response: Some(response) })
            .collect(),
    }
}

/// Revisions that a txn may read through the view, whichever path it takes, until about `max` are found.
pub(crate) fn cold_reads(mvcc: &Mvcc, txn: &pb::TxnRequest, max: usize, cold: &mut Vec<Revision>) {
    for compare in &txn.compare {
        if compare.target == CompareTarget::Value as i32 {
            cold_in_span(mvcc, &Span::new(&compare.key, &compare.range_end), max, cold);
        }
    }
    for op in txn.success.iter().chain(&txn.failure) {
        if cold.len() >= max {
            return;
        }
        match &op.request {
            Some(Op::RequestRange(range)) => mvcc.cold_in_range(range, max, cold),
            Some(Op::RequestPut(put)) => cold_in_put(mvcc, put, cold),
            Some(Op::RequestDeleteRange(delete)) => cold_in_delete(mvcc, delete, max, cold),
            Some(Op::RequestTxn(txn)) => cold_reads(mvcc, txn, max, cold),
            None => {}
        }
    }
}

pub(crate) fn cold_in_put(mvcc: &Mvcc, put: &pb::PutRequest, cold: &mut Vec<Revision>) {
    if put.prev_kv || put.ignore_value {
        cold_in_span(mvcc, &Span::One(put.key.clone()), 1, cold);
    }
}

pub(crate) fn cold_in_delete(
    mvcc: &Mvcc,
    delete: &pb::DeleteRangeRequest,
    max: usize,
    cold: &mut Vec<Revision>,
) {
    if delete.prev_kv {
        cold_in_span(mvcc, &Span::new(&delete.key, &delete.range_end), max, cold);
    }
}

fn cold_in_span(mvcc: &Mvcc, span: &Span, max: usize, cold: &mut Vec<Revision>) {
    let mut left = max;
    mvcc.index.visit(span, None, |_, index| {
        if left == 0 {
            return ControlFlow::Break(());
        }
        left -= 1;
        if let Some(at) = index.get_newest()
            && index.hot_at(at.revision).is_none()
        {
            cold.push(at.revision);
        }
        ControlFlow::Continue(())
    });
}
