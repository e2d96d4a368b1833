//! Reading a base, front to back, checking everything that can be checked: see [`super`].

use std::hash::Hasher as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quorate_core::api::batch::Space;
use quorate_core::api::ids::Revision;
use twox_hash::XxHash3_64;

use super::{
    BLOCK, BaseError, END, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, PREAMBLE_BYTES, Part, Preamble,
    RECORDS, Written,
};
use crate::storage::device::LogFile;
use crate::storage::format::{ContentSum, Malformed, Reader, malformed, revision_of_key};
use crate::storage::history::{Block, Header, record_hash};

const READ_BYTES: usize = 1 << 20;

/// Decodes a block and checks each value against its header.
pub(crate) fn check_block(
    first: Revision,
    headers: &Bytes,
    values: &Bytes,
) -> Result<Vec<Header>, Malformed> {
    let decoded = Block::decode_headers(first, headers)?;
    let mut at = 0usize;
    for header in &decoded {
        let end = at.checked_add(header.value_len).ok_or(malformed("value block"))?;
        if end > values.len() {
            return Err(malformed("value block"));
        }
        header.check_value(&values[at..end])?;
        at = end;
    }
    if at != values.len() {
        return Err(malformed("value block"));
    }
    Ok(decoded)
}

/// Streams the parts of a base. Nothing it handed out may be used for good before [`BaseReader::finish`] agreed.
pub(crate) struct BaseReader {
    file: Arc<dyn LogFile>,
    len: u64,
    offset: u64,
    buffer: BytesMut,
    hasher: XxHash3_64,
    preamble: Preamble,
    content: ContentSum,
    ended: Option<ContentSum>,
}

impl BaseReader {
    /// Opens a base of `len` bytes and reads its preamble.
    pub(crate) fn begin(file: Arc<dyn LogFile>, len: u64) -> Result<Self, BaseError> {
        let size = file.size()?;
        if size != len || len < (PREAMBLE_BYTES + 8) as u64 {
            return Err(BaseError::Damaged(format!("it is {size} bytes long instead of {len}")));
        }
        let mut reader = BaseReader {
            file,
            len,
            offset: 0,
            buffer: BytesMut::new(),
            hasher: XxHash3_64::new(),
            preamble: Preamble {
                group: quorate_core::api::ids::GroupId(0),
                generation: 0,
                at: quorate_core::api::ids::LogId::default(),
                revision: 0,
            },
            content: ContentSum::default(),
            ended: None,
        };
        let preamble = reader.take(PREAMBLE_BYTES)?;
        reader.preamble = Preamble::decode(&preamble)?;
        Ok(reader)
    }

    pub(crate) fn preamble(&self) -> Preamble {
        self.preamble
    }

    /// How many bytes have been handed out.
    pub(crate) fn position(&self) -> u64 {
        self.offset - self.buffer.len() as u64
    }

    /// The next part; `None` after the end frame.
    pub(crate) fn next(&mut self) -> Result<Option<Part>, BaseError> {
        if self.ended.is_some() {
            return Ok(None);
        }
        let head = self.take(FRAME_HEADER_BYTES)?;
        let mut fields = Reader::new(&head, "frame");
        let (kind, len, crc) = (fields.u8()?, fields.u32()? as usize, fields.u32()?);
        if len > FRAME_BYTES_MAX {
            return Err(BaseError::Damaged("length of a frame".to_owned()));
        }
        let payload = self.take(len)?;
        if crc32c::crc32c_append(crc32c::crc32c(&head[..5]), &payload) != crc {
            let at = self.position() - len as u64;
            return Err(BaseError::Damaged(format!("checksum of the frame at byte {at}")));
        }
        match kind {
            RECORDS => Ok(Some(Part::Records(self.records(&payload)?))),
            BLOCK => Ok(Some(block(&payload)?)),
            END => {
                let mut fields = Reader::new(&payload, "end frame");
                self.ended = Some(ContentSum { count: fields.u64()?, sum: fields.u64()? });
                Ok(None)
            }
            _ => Err(BaseError::Damaged(format!("frame of unknown kind {kind}"))),
        }
    }

    /// Tells the reader what a block's headers came to, so that it can compare the sum.
    pub(crate) fn count(&mut self, headers: &[Header]) {
        for header in headers {
            self.content.add(header.content_hash());
        }
    }

    /// Checks the whole. To be called after [`BaseReader::next`] gave `None`.
    pub(crate) fn finish(mut self) -> Result<Written, BaseError> {
        let hash = self.hasher.finish();
        let stored = self.take(8)?;
        if stored[..] != hash.to_le_bytes() {
            return Err(BaseError::Damaged("hash of the whole".to_owned()));
        }
        if self.offset != self.len || !self.buffer.is_empty() {
            return Err(BaseError::Damaged("bytes behind its end".to_owned()));
        }
        if self.ended != Some(self.content) {
            return Err(BaseError::Damaged("content sum".to_owned()));
        }
        Ok(Written { len: self.len, hash, content: self.content })
    }

    fn records(&mut self, payload: &Bytes) -> Result<Vec<(Space, Bytes, Bytes)>, BaseError> {
        let mut reader = Reader::new(payload, "records frame");
        let mut records = Vec::new();
        while !reader.is_empty() {
            let prefix = reader.u8()?;
            let space = Space::from_prefix(prefix).ok_or_else(|| {
                let what = format!("record of unknown space {prefix:02x}; if a newer version wrote it: upgrade this member");
                BaseError::Damaged(what)
            })?;
            let key_len = reader.length()?;
            let key = payload.slice_ref(reader.bytes(key_len)?);
            let value_len = reader.length()?;
            let value = payload.slice_ref(reader.bytes(value_len)?);
            self.content.add(record_hash(space as u8, &key, &value));
            records.push((space, key, value));
        }
        Ok(records)
    }

    /// The next `len` bytes, hashed.
    fn take(&mut self, len: usize) -> Result<Bytes, BaseError> {
        while self.buffer.len() < len {
            let missing = len - self.buffer.len();
            let left = usize::try_from(self.len - self.offset).unwrap_or(usize::MAX);
            if missing > left {
                return Err(BaseError::Damaged("it ends too early".to_owned()));
            }
            let step = missing.max(READ_BYTES).min(left);
            let start = self.buffer.len();
            self.buffer.resize(start + step, 0);
            self.file.read_at(self.offset, &mut self.buffer[start..])?;
            self.offset += step as u64;
        }
        let taken = self.buffer.split_to(len).freeze();
        self.hasher.write(&taken);
        Ok(taken)
    }
}

fn block(payload: &Bytes) -> Result<Part, BaseError> {
    let mut reader = Reader::new(payload, "block frame");
    let first = revision_of_key(reader.bytes(16)?)?;
    let headers_len = reader.length()?;
    let headers = payload.slice_ref(reader.bytes(headers_len)?);
    let values = payload.slice(payload.len() - reader.remaining()..);
    Ok(Part::Block { first, headers, values })
}
