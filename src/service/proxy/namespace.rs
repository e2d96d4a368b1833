//! `--namespace`: a prefix before every key on its way to the members, and taken off on the way back (etcd
//! `client/v3/namespace`).

use bytes::{Bytes, BytesMut};
use quorate_core::api::pb::etcdserverpb::request_op::Request;
use quorate_core::api::pb::etcdserverpb::response_op::Response;
use quorate_core::api::pb::etcdserverpb::{
    DeleteRangeResponse, PutResponse, RangeResponse, RequestOp, ResponseOp, TxnRequest, TxnResponse,
};
use quorate_core::api::pb::mvccpb::{Event, KeyValue};

/// A prefix; the empty one changes nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespace(Bytes);

impl Namespace {
    pub(super) fn new(prefix: &str) -> Namespace {
        Namespace(Bytes::copy_from_slice(prefix.as_bytes()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a key and the end of its range below the prefix.
    pub(super) fn enter(&self, key: &mut Bytes, end: &mut Bytes) {
        if self.is_empty() {
            return;
        }
        *key = self.join(key);
        *end = match &end[..] {
            [] => Bytes::new(),
            // As far as keys go: as far as the prefix goes.
            [0] => self.successor(),
            _ => self.join(end),
        };
    }

    pub(super) fn join(&self, key: &[u8]) -> Bytes {
        let mut joined = BytesMut::with_capacity(self.0.len() + key.len());
        joined.extend_from_slice(&self.0);
        joined.extend_from_slice(key);
        joined.freeze()
    }

    /// The first key that does not begin with the prefix.
    fn successor(&self) -> Bytes {
        let Some(last) = self.0.iter().rposition(|byte| *byte != 0xff) else {
            return Bytes::from_static(&[0]);
        };
        let mut end = self.0.to_vec();
        end[last] += 1;
        // etcd counts up with carry: what stands behind turns to zero and stays.
        end[last + 1..].fill(0);
        end.into()
    }

    /// A key as clients know it; `None` for one of somebody else.
    pub(super) fn strip(&self, key: &Bytes) -> Option<Bytes> {
        key.starts_with(&self.0).then(|| key.slice(self.0.len()..))
    }

    fn leave(&self, pair: &mut KeyValue) {
        if let Some(key) = self.strip(&pair.key) {
            pair.key = key;
        }
    }

    fn leave_all<'a>(&self, pairs: impl IntoIterator<Item = &'a mut KeyValue>) {
        pairs.into_iter().for_each(|pair| self.leave(pair));
    }

    pub(super) fn leave_range(&self, response: &mut RangeResponse) {
        self.leave_all(&mut response.kvs);
    }

    pub(super) fn leave_put(&self, response: &mut PutResponse) {
        self.leave_all(&mut response.prev_kv);
    }

    pub(super) fn leave_delete(&self, response: &mut DeleteRangeResponse) {
        self.leave_all(&mut response.prev_kvs);
    }

    pub(super) fn leave_events(&self, events: &mut [Event]) {
        for event in events {
            self.leave_all(event.kv.iter_mut().chain(&mut event.prev_kv));
        }
    }

    pub(super) fn enter_txn(&self, request: &mut TxnRequest) {
        for compare in &mut request.compare {
            let alone = compare.range_end.is_empty();
            let mut end = compare.range_end.clone();
            self.enter(&mut compare.key, &mut end);
            if !alone {
                compare.range_end = end;
            }
        }
        request.success.iter_mut().chain(&mut request.failure).for_each(|op| self.enter_op(op));
    }

    fn enter_op(&self, op: &mut RequestOp) {
        let mut none = Bytes::new();
        match &mut op.request {
            Some(Request::RequestRange(range)) => self.enter(&mut range.key, &mut range.range_end),
            Some(Request::RequestPut(put)) => self.enter(&mut put.key, &mut none),
            Some(Request::RequestDeleteRange(delete)) => {
                self.enter(&mut delete.key, &mut delete.range_end);
            }
            Some(Request::RequestTxn(txn)) => self.enter_txn(txn),
            None => {}
        }
    }

    pub(super) fn leave_txn(&self, response: &mut TxnResponse) {
        for ResponseOp { response } in &mut response.responses {
            match response {
                Some(Response::ResponseRange(range)) => self.leave_range(range),
                Some(Response::ResponsePut(put)) => self.leave_put(put),
                Some(Response::ResponseDeleteRange(delete)) => self.leave_delete(delete),
                Some(Response::ResponseTxn(txn)) => self.leave_txn(txn),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::api::pb::etcdserverpb::compare::{CompareResult, CompareTarget};
    use quorate_core::api::pb::etcdserverpb::{Compare, DeleteRangeRequest};

    use super::*;

    fn entered(prefix: &str, key: &str, end: &[u8]) -> (Bytes, Bytes) {
        let (mut key, mut end) =
            (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(end));
        Namespace::new(prefix).enter(&mut key, &mut end);
        (key, end)
    }

    // etcd `client/v3/namespace/util_test.go`.
    #[test]
    fn ranges_stay_below_the_prefix() {
        assert_eq!(entered("pfx/", "a", b""), ("pfx/a".into(), "".into()));
        assert_eq!(entered("pfx/", "abc", b"def"), ("pfx/abc".into(), "pfx/def".into()));
        assert_eq!(entered("pfx/", "abc", b"\0"), ("pfx/abc".into(), "pfx0".into()));
        assert_eq!(entered("", "abc", b"\0"), ("abc".into(), Bytes::from_static(b"\0")));
        let all = Namespace(Bytes::from_static(&[0xff, 0xff]));
        assert_eq!(all.successor(), Bytes::from_static(&[0]));
        let carried = Namespace(Bytes::from_static(&[b'a', 0xff]));
        assert_eq!(carried.successor(), Bytes::from_static(&[b'b', 0]));
    }

    #[test]
    fn every_key_of_a_transaction_moves_and_comes_back() {
        let names = Namespace::new("n/");
        let delete = DeleteRangeRequest {
            key: "k".into(),
            range_end: Bytes::from_static(b"\0"),
            prev_kv: true,
        };
        let inner = TxnRequest {
            success: vec![RequestOp { request: Some(Request::RequestDeleteRange(delete)) }],
            ..TxnRequest::default()
        };
        let compare = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Version.into(),
            key: "c".into(),
            ..Compare::default()
        };
        let mut request = TxnRequest {
            compare: vec![compare],
            failure: vec![RequestOp { request: Some(Request::RequestTxn(inner)) }],
            ..TxnRequest::default()
        };
        names.enter_txn(&mut request);
        assert_eq!(
            (&request.compare[0].key[..], request.compare[0].range_end.len()),
            (&b"n/c"[..], 0)
        );
        let Some(Request::RequestTxn(inner)) = &request.failure[0].request else { panic!() };
        let Some(Request::RequestDeleteRange(delete)) = &inner.success[0].request else { panic!() };
        assert_eq!((&delete.key[..], &delete.range_end[..]), (&b"n/k"[..], &b"n0"[..]));
        let pair = |key: &'static str| KeyValue { key: key.into(), ..KeyValue::default() };
        let deleted = DeleteRangeResponse { prev_kvs: vec![pair("n/k")], ..Default::default() };
        let mut response = TxnResponse {
            responses: vec![ResponseOp { response: Some(Response::ResponseDeleteRange(deleted)) }],
            ..TxnResponse::default()
        };
        names.leave_txn(&mut response);
        let Some(Response::ResponseDeleteRange(deleted)) = &response.responses[0].response else {
            panic!()
        };
        assert_eq!(deleted.prev_kvs[0].key, "k");
    }
}
