//! Ranges that hold nothing, of which etcd's tree of permissions promises nothing.

use crate::differential::call::Call;
use crate::pb::etcdserverpb::TxnRequest;
use crate::pb::etcdserverpb::request_op::Request;

/// Whether a range ends where it begins or before.
pub(super) fn is_nothing(key: &[u8], range_end: &[u8]) -> bool {
    !matches!(range_end, b"" | b"\0") && range_end <= key
}

/// Whether a call asks for such a range: who may is a matter of chance, see [`crate::differential::allowed`].
pub(super) fn holds_nothing(call: &Call) -> bool {
    fn of_txn(txn: &TxnRequest) -> bool {
        let ops = txn.success.iter().chain(&txn.failure);
        txn.compare.iter().any(|compare| is_nothing(&compare.key, &compare.range_end))
            || ops.filter_map(|op| op.request.as_ref()).any(|request| match request {
                Request::RequestRange(r) => is_nothing(&r.key, &r.range_end),
                Request::RequestDeleteRange(r) => is_nothing(&r.key, &r.range_end),
                Request::RequestTxn(txn) => of_txn(txn),
                Request::RequestPut(_) => false,
            })
    }
    match call {
        Call::Range(r) | Call::RangeStream(r) => is_nothing(&r.key, &r.range_end),
        Call::DeleteRange(r) => is_nothing(&r.key, &r.range_end),
        Call::Txn(txn) => of_txn(txn),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ends_at_or_before_its_start_holds_nothing() {
        for (key, range_end, nothing) in [
            ("a", "", false),
            ("a", "\0", false),
            ("a", "b", false),
            ("a", "a", true),
            ("b", "a", true),
            ("", "a", false),
        ] {
            assert_eq!(
                is_nothing(key.as_bytes(), range_end.as_bytes()),
                nothing,
                "{key:?} {range_end:?}"
            );
        }
    }
}
