//! The row that a revision would take in etcd's file, for the accounted database size
//! ([`quorate_core::state_machine::quota::DbSize`]).

use prost::encoding::encoded_len_varint;

use super::history::Header;

/// Key and value bytes of the row: etcd keys it by revision (17 bytes, 18 for a tombstone) and stores the marshalled
/// `mvccpb.KeyValue` (etcd `server/storage/mvcc/kvstore_txn.go`).
pub(crate) fn row(header: &Header) -> (u64, u64) {
    let bytes_field = |len: u64| {
        if len == 0 { 0 } else { 1 + encoded_len_varint(len) as u64 + len }
    };
    let number_field = |number: i64| {
        if number == 0 { 0 } else { 1 + encoded_len_varint(number as u64) as u64 }
    };
    if header.tombstone {
        return (18, bytes_field(header.key.len() as u64));
    }
    let value = bytes_field(header.key.len() as u64)
        + number_field(header.create_revision)
        + number_field(header.revision.main)
        + number_field(header.version)
        + bytes_field(header.value_len as u64)
        + number_field(header.lease);
    (17, value)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;
    use quorate_core::api::ids::Revision;
    use quorate_core::api::pb::mvccpb::KeyValue;

    use super::*;

    #[test]
    fn a_row_is_as_long_as_the_message_it_stands_for() {
        for (create, main, version, lease, value) in
            [(2, 300, 1, 0, 0), (1, 2, 200, -1, 300), (9, 9, 1, 77, 1)]
        {
            let kv = KeyValue {
                key: Bytes::from_static(b"some key"),
                create_revision: create,
                mod_revision: main,
                version,
                value: Bytes::from(vec![7; value]),
                lease,
            };
            let header = Header {
                revision: Revision::new(main, 0),
                tombstone: false,
                key: kv.key.clone(),
                create_revision: create,
                version,
                lease,
                value_len: value,
                value_hash: 0,
            };
            assert_eq!(row(&header), (17, kv.encoded_len() as u64));
        }
    }
}
