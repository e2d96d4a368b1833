//! Which keys are the fleet's own once there is one, and which writes of clients touch them.
//!
//! ```text
//!   /k8sd/..                   config, features, nodes, what deciders hold
//!   /kat/..                    who the cluster is
//!   /kat/leader/..             not reserved: agents campaign there as clients
//! ```
//!
//! **Invariant:** a request is refused whole, before anything of it is done, if any part of it could touch such a key:
//! both branches of a txn and what is nested in it, a range that merely reaches over.

use std::ops::ControlFlow;

use crate::api::ids::LeaseId;
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::request_op::Request as Op;
use crate::api::pb::internal::command::Request;
use crate::api::refusal::{Refusal, ReservedPrefix};
use crate::state_machine::StateMachine;
use crate::state_machine::lease::LeaseBook;
use crate::state_machine::mvcc::index::Index;
use crate::state_machine::mvcc::span::Span;

use super::FleetState;

/// From each start up to its end, which is not in it.
const RESERVED: [(&[u8], &[u8], ReservedPrefix); 3] = [
    (b"/k8sd/", b"/k8sd0", ReservedPrefix::K8sd),
    (b"/kat/", b"/kat/leader/", ReservedPrefix::Kat),
    (b"/kat/leader0", b"/kat0", ReservedPrefix::Kat),
];

/// The reserved prefix that `key`, or the range to `range_end` as a request means it, touches.
pub fn reserved_prefix(key: &[u8], range_end: &[u8]) -> Option<ReservedPrefix> {
    let touches = |start: &[u8], end: &[u8]| match range_end {
        b"" => start <= key && key < end,
        b"\0" => key < end,
        _ => start.max(key) < end.min(range_end),
    };
    RESERVED.into_iter().find(|(start, end, _)| touches(start, end)).map(|(_, _, prefix)| prefix)
}

/// There is a key that would be the fleet's.
pub(super) fn in_use(index: &Index) -> bool {
    RESERVED.into_iter().any(|(start, end, _)| {
        let mut found = false;
        let span = Span::new(&start.into(), &end.into());
        index.visit(&span, None, |_, key| {
            found = key.is_alive();
            if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        found
    })
}

fn check_keys(key: &[u8], range_end: &[u8]) -> Result<(), Refusal> {
    reserved_prefix(key, range_end).map_or(Ok(()), |prefix| Err(Refusal::ReservedPrefix(prefix)))
}

fn check_txn(txn: &pb::TxnRequest) -> Result<(), Refusal> {
    txn.success.iter().chain(&txn.failure).try_for_each(|op| match &op.request {
        Some(Op::RequestPut(put)) => check_keys(&put.key, b""),
        Some(Op::RequestDeleteRange(delete)) => check_keys(&delete.key, &delete.range_end),
        Some(Op::RequestTxn(txn)) => check_txn(txn),
        Some(Op::RequestRange(_)) | None => Ok(()),
    })
}

fn check_lease(id: LeaseId, leases: &LeaseBook) -> Result<(), Refusal> {
    leases.each_key(id).try_for_each(|key| check_keys(key, b""))
}

impl FleetState {
    /// Whether a command may be applied as far as the fleet's keys are concerned. The fleet's own commands may, and so
    /// may the end of a lease that ran out: that is how whoever was elected and fell silent is replaced.
    pub(crate) fn check_reserved(
        &self,
        request: &Request,
        leases: &LeaseBook,
    ) -> Result<(), Refusal> {
        if self.record.is_none() {
            return Ok(());
        }
        match request {
            Request::Put(put) => check_keys(&put.key, b""),
            Request::DeleteRange(delete) => check_keys(&delete.key, &delete.range_end),
            Request::Txn(txn) => check_txn(txn),
            Request::LeaseRevoke(revoke) => check_lease(LeaseId(revoke.id), leases),
            Request::Compaction(_)
            | Request::LeaseGrant(_)
            | Request::LeaseExpiry(_)
            | Request::LeaseCheckpoint(_)
            | Request::Alarm(_)
            | Request::MemberAttributes(_)
            | Request::ClusterLevel(_)
            | Request::Auth(_)
            | Request::Fleet(_) => Ok(()),
        }
    }
}

impl StateMachine {
    /// Whether a client may renew a lease: not one that holds keys of the fleet's, or it would keep elected who is dead.
    pub fn check_lease_is_free(&self, id: LeaseId) -> Result<(), Refusal> {
        match self.fleet.record {
            Some(_) => check_lease(id, &self.leases),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_touches_a_reserved_prefix_is_found() {
        use ReservedPrefix::{K8sd, Kat};
        #[rustfmt::skip]
        let table = [
            // key, range_end                        touches
            ("/k8sd/",          "",                  Some(K8sd)),
            ("/k8sd/nodes/1",   "",                  Some(K8sd)),
            ("/k8sd",           "",                  None),
            ("/k8sd0",          "",                  None),
            ("/k8sd.",          "",                  None),
            ("/kat/config/x",   "",                  Some(Kat)),
            ("/kat/leader",     "",                  Some(Kat)),
            ("/kat/leader/",    "",                  None),
            ("/kat/leader/a/1", "",                  None),
            ("/kat/leader0",    "",                  Some(Kat)),
            ("/kat/z",          "",                  Some(Kat)),
            ("a",               "",                  None),
            // Ranges: up to the first, over it, into it, within it, from its end on.
            ("/k8s",            "/k8sd/",            None),
            ("/k8s",            "/k8sd/\0",          Some(K8sd)),
            ("/",               "/k8sd/a",           Some(K8sd)),
            ("/k8sd/b",         "/k8sd/c",           Some(K8sd)),
            ("/k8sd/b",         "/k8sd/a",           None),
            ("/k8sd0",          "/kat/",             None),
            ("/k8sd0",          "/kat/a",            Some(Kat)),
            ("/kat/leader/",    "/kat/leader0",      None),
            ("/kat/leader/",    "/kat/leader0\0",    Some(Kat)),
            ("/kat0",           "/z",                None),
            // To the end of all keys; `\0` alone is the first key.
            ("\0",              "\0",                Some(K8sd)),
            ("/k8sd0",          "\0",                Some(Kat)),
            ("/kat0",           "\0",                None),
            ("a",               "\0",                None),
        ];
        for (key, range_end, expected) in table {
            let touched = reserved_prefix(key.as_bytes(), range_end.as_bytes());
            assert_eq!(touched, expected, "{key} {range_end}");
        }
    }
}
