//! The smallest pieces of every format of this floor: bounded reading, varints, checksums, the content sum.
//!
//! All fixed-width integers on disk are little-endian, except inside keys, where they are big-endian so that
//! byte order is number order.

use quorate_core::api::ids::{LogId, Revision};
use twox_hash::XxHash3_64;

/// Bytes that are not what the format says. Carries what was being read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} does not decode")]
pub(crate) struct Malformed {
    pub(crate) what: &'static str,
}

pub(crate) fn malformed(what: &'static str) -> Malformed {
    Malformed { what }
}

/// Reads from a byte string, never past its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Reader { rest: bytes, what }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(malformed(self.what))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let what = self.what;
        self.bytes(N)?.try_into().map_err(|_| malformed(what))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// An unsigned LEB128 number of at most 64 bits.
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(malformed(self.what));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed(self.what))
    }

    /// A varint that must fit a length in memory.
    pub(crate) fn length(&mut self) -> Result<usize, Malformed> {
        let what = self.what;
        usize::try_from(self.varint()?).map_err(|_| malformed(what))
    }

    /// A non-negative varint as a signed number.
    pub(crate) fn positive(&mut self) -> Result<i64, Malformed> {
        let what = self.what;
        i64::try_from(self.varint()?).map_err(|_| malformed(what))
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Non-negative by contract of the caller; a negative number would encode as a huge one and fail to decode.
pub(crate) fn put_positive(out: &mut Vec<u8>, value: i64) {
    debug_assert!(value >= 0, "revisions and versions are never negative");
    put_varint(out, value as u64);
}

/// A revision inside a key: 16 bytes whose order is revision order.
pub(crate) fn revision_key(revision: Revision) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&revision.main.to_be_bytes());
    key[8..].copy_from_slice(&revision.sub.to_be_bytes());
    key
}

/// The revision of [`revision_key`].
pub(crate) fn revision_of_key(key: &[u8]) -> Result<Revision, Malformed> {
    let (main, sub) = key.split_first_chunk::<8>().ok_or(malformed("revision key"))?;
    let sub: [u8; 8] = sub.try_into().map_err(|_| malformed("revision key"))?;
    let revision = Revision::new(i64::from_be_bytes(*main), i64::from_be_bytes(sub));
    if revision.main < 0 || revision.sub < 0 {
        return Err(malformed("revision key"));
    }
    Ok(revision)
}

pub(crate) fn put_log_id(out: &mut Vec<u8>, id: LogId) {
    out.extend_from_slice(&id.term.0.to_le_bytes());
    out.extend_from_slice(&id.index.to_le_bytes());
}

pub(crate) fn read_log_id(from: &mut Reader<'_>) -> Result<LogId, Malformed> {
    let term = from.u64()?;
    let index = from.u64()?;
    Ok(LogId::new(term, index))
}

/// XXH3, 64 bits: the content hash of values, headers and records.
pub(crate) fn xxh3(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// The wrapping sum and the count of the content hashes of everything stored: equal exactly when the same things
/// are there, in whatever order they came (up to 64-bit chance).
///
/// ```text
///   put a, put b       count 2  sum h(a) + h(b)
///   replace b by c     count 2  sum h(a) + h(c)
///   compact a          count 1  sum h(c)
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentSum {
    /// How many headers and records.
    pub count: u64,
    /// The wrapping sum of their hashes.
    pub sum: u64,
}

impl ContentSum {
    pub(crate) fn add(&mut self, hash: u64) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash);
    }

    pub(crate) fn remove(&mut self, hash: u64) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_read_back_and_end_within_ten_bytes() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut reader = Reader::new(&out, "test");
            assert_eq!(reader.varint(), Ok(value));
            assert!(reader.is_empty());
        }
        assert!(Reader::new(&[0xff; 10], "test").varint().is_err());
        assert!(Reader::new(&[0x80], "test").varint().is_err());
    }

    #[test]
    fn revision_keys_sort_as_revisions() {
        let mut last = Vec::new();
        for (main, sub) in [(1, 0), (1, 255), (1, 256), (2, 0), (300, 1)] {
            let key = revision_key(Revision::new(main, sub));
            assert!(key.as_slice() > last.as_slice());
            assert_eq!(revision_of_key(&key), Ok(Revision::new(main, sub)));
            last = key.to_vec();
        }
        assert!(revision_of_key(&[0; 15]).is_err());
        assert!(revision_of_key(&[0xff; 16]).is_err());
    }
}
