//! Packed history: revisions in blocks, headers apart from values.
//!
//! ```text
//!   RevisionRecord --Header::of--> Header + value
//!                                     |        |
//!                     headers record (01)    values record (02)     both under the block's first revision
//!
//!   block 5.0:  headers  5.0 "a" | 6.0 "b" | 6.1 "a" tombstone | 7.0 "c"
//!               values   <value of 5.0><value of 6.0><value of 7.0>
//! ```
//!
//! Opening a store reads the headers of all blocks and no value. A header carries the hash of its value, and its own
//! content hash covers that, so that the content sum over headers vouches for values too: a value is checked
//! against its header at every read.
//!
//! **Invariant:** within a block and between blocks, revisions ascend; the key of a block is its first revision.

use std::sync::Arc;

use bytes::Bytes;
use quorate_core::api::batch::RevisionRecord;
use quorate_core::api::ids::Revision;
use quorate_core::api::pb::mvccpb::KeyValue;

use super::format::{Malformed, Reader, malformed, put_positive, put_varint, xxh3};

/// A block is closed when its values or its headers have reached this many bytes. Sixteen of them are a leaf of sled:
/// its cache keeps at least one leaf in each of its 256 shards, whatever its capacity, and a page above a quarter of a
/// segment would be moved to an unsynced file. Smaller blocks cost CPU: each is an insert into a leaf.
pub(crate) const BLOCK_BYTES: usize = 8 << 10;

const VERSION: u8 = 1;
const TOMBSTONE: u8 = 1;
const LEASED: u8 = 2;

/// Everything of one revision but its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) revision: Revision,
    pub(crate) tombstone: bool,
    pub(crate) key: Bytes,
    pub(crate) create_revision: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
    pub(crate) value_len: usize,
    pub(crate) value_hash: u64,
}

impl Header {
    pub(crate) fn of(record: &RevisionRecord) -> Header {
        let kv = &record.kv;
        let tombstone = record.tombstone;
        Header {
            revision: record.revision,
            tombstone,
            key: kv.key.clone(),
            create_revision: if tombstone { 0 } else { kv.create_revision },
            version: if tombstone { 0 } else { kv.version },
            lease: if tombstone { 0 } else { kv.lease },
            value_len: if tombstone { 0 } else { kv.value.len() },
            value_hash: if tombstone { 0 } else { xxh3(&kv.value) },
        }
    }

    /// The header of a record whose value need not be hashed.
    pub(crate) fn without_hash(record: &RevisionRecord) -> Header {
        let kv = &record.kv;
        Header {
            revision: record.revision,
            tombstone: record.tombstone,
            key: kv.key.clone(),
            create_revision: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
            value_len: kv.value.len(),
            value_hash: 0,
        }
    }

    /// The 64-bit hash of the revision's full content, value included (by its hash).
    pub(crate) fn content_hash(&self) -> u64 {
        let fields = [
            self.revision.main as u64,
            self.revision.sub as u64,
            u64::from(self.tombstone),
            self.create_revision as u64,
            self.version as u64,
            self.lease as u64,
            self.value_len as u64,
            self.value_hash,
            self.key.len() as u64,
            xxh3(&self.key),
        ];
        hash_fields(&fields)
    }

    /// Joins header and value, after checking that they belong together.
    pub(crate) fn key_value(&self, value: Bytes) -> Result<KeyValue, Malformed> {
        self.check_value(&value)?;
        Ok(KeyValue {
            key: self.key.clone(),
            create_revision: self.create_revision,
            mod_revision: self.revision.main,
            version: self.version,
            value,
            lease: self.lease,
        })
    }

    /// Whether `value` is the one this header was made for.
    pub(crate) fn check_value(&self, value: &[u8]) -> Result<(), Malformed> {
        let same =
            value.len() == self.value_len && (self.tombstone || xxh3(value) == self.value_hash);
        same.then_some(()).ok_or(malformed("value (its hash is not the header's)"))
    }

    fn encode(&self, previous: Revision, out: &mut Vec<u8>) {
        put_positive(out, self.revision.main - previous.main);
        put_positive(out, self.revision.sub);
        let leased = self.lease != 0;
        out.push(u8::from(self.tombstone) * TOMBSTONE + u8::from(leased) * LEASED);
        put_varint(out, self.key.len() as u64);
        out.extend_from_slice(&self.key);
        if self.tombstone {
            return;
        }
        put_positive(out, self.create_revision);
        put_positive(out, self.version);
        if leased {
            out.extend_from_slice(&self.lease.to_le_bytes());
        }
        put_varint(out, self.value_len as u64);
        out.extend_from_slice(&self.value_hash.to_le_bytes());
    }

    fn decode(
        reader: &mut Reader<'_>,
        previous: Revision,
        whole: &Bytes,
    ) -> Result<Header, Malformed> {
        let what = "revision header";
        let main = previous.main.checked_add(reader.positive()?).ok_or(malformed(what))?;
        let revision = Revision::new(main, reader.positive()?);
        let flags = reader.u8()?;
        if flags & !(TOMBSTONE | LEASED) != 0 || flags == TOMBSTONE | LEASED {
            return Err(malformed(what));
        }
        let key_len = reader.length()?;
        let key = whole.slice_ref(reader.bytes(key_len)?);
        let mut header = Header {
            revision,
            tombstone: flags & TOMBSTONE != 0,
            key,
            create_revision: 0,
            version: 0,
            lease: 0,
            value_len: 0,
            value_hash: 0,
        };
        if !header.tombstone {
            header.create_revision = reader.positive()?;
            header.version = reader.positive()?;
            if flags & LEASED != 0 {
                header.lease = i64::from_le_bytes(reader.array()?);
            }
            header.value_len = reader.length()?;
            header.value_hash = reader.u64()?;
        }
        Ok(header)
    }
}

/// The content hash of a record beside the history.
pub(crate) fn record_hash(prefix: u8, key: &[u8], value: &[u8]) -> u64 {
    let fields = [u64::from(prefix), key.len() as u64, xxh3(key), value.len() as u64, xxh3(value)];
    hash_fields(&fields)
}

fn hash_fields(fields: &[u64]) -> u64 {
    let mut bytes = [0u8; 80];
    for (slot, field) in bytes.chunks_exact_mut(8).zip(fields) {
        slot.copy_from_slice(&field.to_le_bytes());
    }
    xxh3(&bytes[..fields.len() * 8])
}

/// A block being filled: its two records, encoded as they will stand.
#[derive(Clone, Debug)]
pub(crate) struct BlockBuilder {
    first: Revision,
    last: Revision,
    headers: Vec<u8>,
    values: Vec<u8>,
}

impl BlockBuilder {
    /// A block that begins with `header`.
    pub(crate) fn begin(header: &Header, value: &[u8]) -> Self {
        let mut block = BlockBuilder {
            first: header.revision,
            last: Revision::new(header.revision.main, 0),
            headers: vec![VERSION],
            values: Vec::new(),
        };
        block.push(header, value);
        block
    }

    pub(crate) fn push(&mut self, header: &Header, value: &[u8]) {
        debug_assert_eq!(header.value_len, value.len(), "the header describes its value");
        debug_assert!(
            header.revision > self.last || header.revision == self.first,
            "revisions ascend"
        );
        header.encode(self.last, &mut self.headers);
        self.values.extend_from_slice(value);
        self.last = header.revision;
    }

    /// Whether the block should be closed before a revision of these sizes.
    pub(crate) fn is_full_for(&self, header: &Header) -> bool {
        self.values.len() + header.value_len > BLOCK_BYTES
            || self.headers.len() + header.key.len() + 32 > BLOCK_BYTES
    }

    pub(crate) fn first(&self) -> Revision {
        self.first
    }

    pub(crate) fn headers(&self) -> &[u8] {
        &self.headers
    }

    pub(crate) fn values(&self) -> &[u8] {
        &self.values
    }
}

/// A block as read: headers decoded, values sliced out on demand.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    headers: Vec<Header>,
    /// Where each header's value begins in `values`.
    offsets: Vec<usize>,
    values: Bytes,
    /// Memory it holds, roughly.
    weight: usize,
}

impl Block {
    /// Decodes a header record, which must begin at `first`.
    pub(crate) fn decode_headers(first: Revision, bytes: &Bytes) -> Result<Vec<Header>, Malformed> {
        let what = "header block";
        let mut reader = Reader::new(bytes, what);
        if reader.u8()? != VERSION {
            return Err(malformed(what));
        }
        let mut headers = Vec::with_capacity(reader.remaining() / 24);
        let mut previous = Revision::new(first.main, 0);
        while !reader.is_empty() {
            let header = Header::decode(&mut reader, previous, bytes)?;
            let ascends = if headers.is_empty() {
                header.revision == first
            } else {
                header.revision > previous
            };
            if !ascends {
                return Err(malformed(what));
            }
            previous = header.revision;
            headers.push(header);
        }
        if headers.is_empty() {
            return Err(malformed(what));
        }
        Ok(headers)
    }

    /// Joins decoded headers with their values; the lengths must agree, the hashes are checked as values are read.
    pub(crate) fn join(
        headers: Vec<Header>,
        values: Bytes,
        encoded_len: usize,
    ) -> Result<Block, Malformed> {
        let mut offsets = Vec::with_capacity(headers.len());
        let mut end = 0usize;
        for header in &headers {
            offsets.push(end);
            end = end.checked_add(header.value_len).ok_or(malformed("value block"))?;
        }
        // A longer one is what a reader finds who took the headers just before a batch extended the block.
        if end > values.len() {
            return Err(malformed("value block"));
        }
        let weight = values.len() + encoded_len + headers.len() * size_of::<Header>();
        Ok(Block { headers, offsets, values, weight })
    }

    pub(crate) fn headers(&self) -> &[Header] {
        &self.headers
    }

    pub(crate) fn first(&self) -> Revision {
        self.headers.first().map_or_else(Revision::default, |header| header.revision)
    }

    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// The value of the header at `position`, unchecked.
    pub(crate) fn value(&self, position: usize) -> Bytes {
        let start = self.offsets[position];
        self.values.slice(start..start + self.headers[position].value_len)
    }

    /// Where `revision` stands in the block.
    pub(crate) fn position(&self, revision: Revision) -> Option<usize> {
        self.headers.binary_search_by(|header| header.revision.cmp(&revision)).ok()
    }

    /// The key-value at `position`, checked against its hash. Copied out of the block, so that whoever keeps one
    /// value does not keep a block.
    pub(crate) fn key_value(&self, position: usize) -> Result<KeyValue, Malformed> {
        let mut kv = self.headers[position].key_value(self.value(position))?;
        kv.key = Bytes::copy_from_slice(&kv.key);
        kv.value = Bytes::copy_from_slice(&kv.value);
        Ok(kv)
    }

    /// The record at `position`, checked, as `View::scan` hands it out.
    pub(crate) fn record(&self, position: usize) -> Result<RevisionRecord, Malformed> {
        let header = &self.headers[position];
        Ok(RevisionRecord {
            revision: header.revision,
            tombstone: header.tombstone,
            kv: Arc::new(self.key_value(position)?),
            prev: None,
        })
    }
}

#[cfg(test)]
#[path = "history_test.rs"]
mod history_test;
