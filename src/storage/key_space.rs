//! The one table of what stands under which prefix in the state store (sled). A new prefix is one row here, one
//! row in `docs/DATA_FORMAT.md` and one golden test; a prefix is never used again for something else.
//!
//! | prefix | name | key after the prefix | value | since |
//! |---|---|---|---|---|
//! | `00` | state mark | – | [`StateMark`](super::mark::StateMark) | 1 |
//! | `01` | headers | first revision of the block, 16 bytes | [`block`](super::history) headers | 1 |
//! | `02` | values | first revision of the block, 16 bytes | the block's values, one after the other | 1 |
//! | `10`–`15`, `1f` | records | the record's key in its [`Space`] | version byte 1, protobuf | 1 |
//! | `60`–`62` | records of auth | the same | the same | 1, cluster level 2 |
//! | `70`–`73` | records of the fleet | the same | the same | 1, cluster level 4 |

use quorate_core::api::batch::Space;
use quorate_core::api::ids::Revision;

use super::format::{Malformed, malformed, revision_key, revision_of_key};

/// Prefix of the state mark; the whole key.
pub(crate) const STATE_MARK: [u8; 1] = [0x00];
/// Prefix of header blocks.
pub(crate) const HEADERS: u8 = 0x01;
/// Prefix of value blocks.
pub(crate) const VALUES: u8 = 0x02;
/// Version byte in front of every record's value.
pub(crate) const RECORD_VERSION: u8 = 1;

/// Key of the header block that begins at `first`.
pub(crate) fn headers_key(first: Revision) -> Vec<u8> {
    prefixed(HEADERS, &revision_key(first))
}

/// Key of the value block that begins at `first`.
pub(crate) fn values_key(first: Revision) -> Vec<u8> {
    prefixed(VALUES, &revision_key(first))
}

/// Key of a record.
pub(crate) fn record_key(space: Space, key: &[u8]) -> Vec<u8> {
    prefixed(space as u8, key)
}

/// The first revision of the header block under `key`.
pub(crate) fn headers_key_revision(key: &[u8]) -> Result<Revision, Malformed> {
    match key.split_first() {
        Some((&HEADERS, revision)) => revision_of_key(revision),
        Some(_) | None => Err(malformed("header block key")),
    }
}

/// A record's stored value: version byte and protobuf.
pub(crate) fn record_value(value: &[u8]) -> Vec<u8> {
    prefixed(RECORD_VERSION, value)
}

/// The protobuf within a record's stored value.
pub(crate) fn record_payload(stored: &[u8]) -> Result<&[u8], Malformed> {
    match stored.split_first() {
        Some((&RECORD_VERSION, value)) => Ok(value),
        Some(_) | None => Err(malformed("record")),
    }
}

fn prefixed(prefix: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(prefix);
    key.extend_from_slice(rest);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_where_the_table_says() {
        assert_eq!(
            headers_key(Revision::new(2, 3)),
            [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]
        );
        assert_eq!(values_key(Revision::new(2, 3))[0], 2);
        let prefixes: Vec<u8> = Space::ALL.map(|space| record_key(space, b"")[0]).to_vec();
        assert_eq!(
            prefixes,
            [0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x1f, 0x60, 0x61, 0x62, 0x70, 0x71, 0x72, 0x73]
        );
        assert_eq!(record_value(b"x"), [1, b'x']);
        assert_eq!(record_payload(&[1, b'x']).unwrap(), b"x");
        assert!(record_payload(&[2, b'x']).is_err());
    }
}
