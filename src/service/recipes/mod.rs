//! The Election and Lock services: etcd's recipes of its client library, run by the server over the local keyspace
//! (etcd `server/etcdserver/api/{v3election,v3lock}`, `client/v3/concurrency`).
//!
//! ```text
//!   caller ── puts <name>/<lease in hex>, hanging on its lease ── first by create revision? ── yes: answered
//!                                                                   └ no: waits for the one before it to go, again
//!   caller gone while it waits ── its key is deleted by a task of its own
//! ```
//!
//! **Invariant:** whoever is answered after a wait still has the very key it waited with: a lease that ran out
//! meanwhile, or a key made anew, is told and not taken for the lock.

mod election;
mod line;
mod lock;
mod observe;

use bytes::Bytes;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::request_op::Request as Operation;
use tonic::{Code, Request, Status};

pub(crate) use self::election::ElectionService;
use self::line::Leavers;
pub(crate) use self::lock::LockService;
use super::credentials::admit;
use super::header::fill;
use super::metrics::KvCounts;
use super::status::status;
use crate::keyspace::auth::Gate;
use crate::keyspace::{Keyspace, KeyspaceError};

/// The lease of a caller that brings none: a minute, which nobody prolongs.
const SESSION_TTL_SECONDS: i64 = 60;

/// What both services are made of.
#[derive(Clone)]
pub(crate) struct Recipes {
    gate: Gate,
    counts: KvCounts,
    leavers: Leavers,
}

impl Recipes {
    pub(crate) fn new(gate: Gate, counts: KvCounts) -> Self {
        Recipes { gate, counts, leavers: Leavers::default() }
    }

    /// The keyspace for one call, with the rights of its client.
    fn store<T>(&self, request: &Request<T>) -> Result<Store, Status> {
        let keyspace = admit(&self.gate, request)?;
        Ok(Store { keyspace, counts: self.counts.clone(), leavers: self.leavers.clone() })
    }
}

/// The keyspace as the recipes use it: errors in the shape in which etcd's inner client hands them on, headers filled.
#[derive(Clone)]
struct Store {
    keyspace: Keyspace,
    counts: KvCounts,
    leavers: Leavers,
}

/// etcd's inner client keeps the text of what etcd refuses and loses the code.
fn passed_on(error: &KeyspaceError) -> Status {
    let told = status(error);
    if told.message().starts_with("etcdserver: ") {
        Status::new(Code::Unknown, told.message())
    } else {
        told
    }
}

impl Store {
    /// The lease of a session: the caller's, or a new one.
    async fn session(&self, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let request = pb::LeaseGrantRequest { ttl: SESSION_TTL_SECONDS, id: 0 };
        let granted = self.keyspace.lease_grant(request).await;
        Ok(granted.map_err(|why| passed_on(&why))?.id)
    }

    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        let mut response = self.keyspace.range(request).await.map_err(|why| passed_on(&why))?;
        self.counts.ranges.inc();
        fill(&mut response.header, &self.keyspace);
        Ok(response)
    }

    async fn delete(&self, key: Bytes) -> Result<pb::DeleteRangeResponse, Status> {
        let request = pb::DeleteRangeRequest { key, ..Default::default() };
        let deleted = self.keyspace.delete_range(request).await;
        let mut response = deleted.map_err(|why| passed_on(&why))?;
        self.counts.deletes.inc();
        fill(&mut response.header, &self.keyspace);
        Ok(response)
    }

    /// If `key` was made at `create_revision` (0: does not exist), `then`, else `otherwise`.
    async fn if_created_at(
        &self,
        key: &Bytes,
        create_revision: i64,
        then: Vec<Operation>,
        otherwise: Vec<Operation>,
    ) -> Result<pb::TxnResponse, Status> {
        let compare = pb::Compare {
            result: pb::compare::CompareResult::Equal.into(),
            target: pb::compare::CompareTarget::Create.into(),
            key: key.clone(),
            target_union: Some(pb::compare::TargetUnion::CreateRevision(create_revision)),
            range_end: Bytes::new(),
        };
        let all = |operations: Vec<Operation>| {
            operations.into_iter().map(|op| pb::RequestOp { request: Some(op) }).collect()
        };
        let request =
            pb::TxnRequest { compare: vec![compare], success: all(then), failure: all(otherwise) };
        let done = self.keyspace.txn(request).await;
        let mut response = done.map_err(|why| passed_on(&why))?;
        self.counts.txn(&response);
        fill(&mut response.header, &self.keyspace);
        Ok(response)
    }
}

/// `<name>/`: below it stand the keys of all who wait.
fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The key of a session: its lease as Go's `%x` prints a signed number.
fn key_of(prefix: &[u8], lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    [prefix, format!("{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat().into()
}

/// One put of `key`, hanging on `lease`.
fn put(key: &Bytes, value: Bytes, lease: i64) -> Operation {
    Operation::RequestPut(pb::PutRequest { key: key.clone(), value, lease, ..Default::default() })
}

/// One read of `key`.
fn get(key: &Bytes) -> Operation {
    Operation::RequestRange(pb::RangeRequest { key: key.clone(), ..Default::default() })
}

/// Everything below `prefix`, which ends in `/`.
fn below(prefix: &Bytes) -> pb::RangeRequest {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    pb::RangeRequest { key: prefix.clone(), range_end: end.into(), ..Default::default() }
}

/// The oldest key below `prefix`: whoever made it leads, or holds the lock.
fn oldest(prefix: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest {
        limit: 1,
        sort_order: pb::range_request::SortOrder::Ascend.into(),
        sort_target: pb::range_request::SortTarget::Create.into(),
        ..below(prefix)
    }
}

/// The keys that operation `at` of a txn read.
fn read_by(response: &pb::TxnResponse, at: usize) -> &[quorate_core::api::pb::mvccpb::KeyValue] {
    match response.responses.get(at).and_then(|op| op.response.as_ref()) {
        Some(pb::response_op::Response::ResponseRange(range)) => &range.kvs,
        _ => &[],
    }
}

fn revision(header: Option<&pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_in_the_lease_as_go_prints_it() {
        for (lease, key) in
            [(0x1234_abcd, "n/1234abcd"), (-16, "n/-10"), (i64::MIN, "n/-8000000000000000")]
        {
            assert_eq!(key_of(&prefix(b"n"), lease), key);
        }
        assert_eq!(below(&prefix(b"n")).range_end, "n0");
    }

    #[test]
    fn what_etcd_refuses_loses_its_code() {
        let why = passed_on(&quorate_core::api::refusal::Refusal::LeaseNotFound.into());
        let text = "etcdserver: requested lease not found";
        assert_eq!((why.code(), why.message()), (Code::Unknown, text));
        let why = passed_on(&KeyspaceError::DeadlineExceeded);
        assert_eq!(why.code(), Code::DeadlineExceeded);
    }
}
