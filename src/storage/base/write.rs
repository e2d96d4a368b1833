//! Writing a base: see [`super`].

use std::hash::Hasher as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use quorate_core::api::batch::Space;
use quorate_core::api::ids::Revision;
use twox_hash::XxHash3_64;

use super::{BLOCK, BaseError, END, FRAME_HEADER_BYTES, Preamble, RECORDS, Written};
use crate::storage::device::LogFile;
use crate::storage::format::{ContentSum, put_varint, revision_key};
use crate::storage::history::record_hash;

/// Bytes of one write. A sync of the journal that comes just behind one waits for it: so they are small, and many.
const WRITE_BYTES: usize = 128 << 10;

/// Asked after each write of so many bytes: may wait, may call the whole thing off.
pub(crate) type Pace<'a> = dyn FnMut(u64) -> ControlFlow<()> + 'a;

/// Writes frames in order; sums the content as it passes.
pub(crate) struct BaseWriter<'a> {
    file: Arc<dyn LogFile>,
    pace: &'a mut Pace<'a>,
    buffer: Vec<u8>,
    offset: u64,
    hasher: XxHash3_64,
    content: ContentSum,
}

impl<'a> BaseWriter<'a> {
    pub(crate) fn begin(
        file: Arc<dyn LogFile>,
        preamble: &Preamble,
        pace: &'a mut Pace<'a>,
    ) -> Result<Self, BaseError> {
        let mut writer = BaseWriter {
            file,
            pace,
            buffer: Vec::with_capacity(WRITE_BYTES + (128 << 10)),
            offset: 0,
            hasher: XxHash3_64::new(),
            content: ContentSum::default(),
        };
        writer.buffer.extend_from_slice(&preamble.encode());
        Ok(writer)
    }

    /// Records beside the history.
    pub(crate) fn records(&mut self, records: &[(Space, Bytes, Bytes)]) -> Result<(), BaseError> {
        let mut payload = Vec::new();
        for (space, key, value) in records {
            self.content.add(record_hash(*space as u8, key, value));
            payload.push(*space as u8);
            put_varint(&mut payload, key.len() as u64);
            payload.extend_from_slice(key);
            put_varint(&mut payload, value.len() as u64);
            payload.extend_from_slice(value);
            if payload.len() > WRITE_BYTES {
                self.frame(RECORDS, &[&payload])?;
                payload.clear();
            }
        }
        if !payload.is_empty() {
            self.frame(RECORDS, &[&payload])?;
        }
        Ok(())
    }

    /// One block; `hashes` are the content hashes of its headers, which the caller has checked against the values.
    pub(crate) fn block(
        &mut self,
        first: Revision,
        headers: &[u8],
        values: &[u8],
        hashes: impl Iterator<Item = u64>,
    ) -> Result<(), BaseError> {
        hashes.for_each(|hash| self.content.add(hash));
        let mut lengths = Vec::new();
        put_varint(&mut lengths, headers.len() as u64);
        self.frame(BLOCK, &[&revision_key(first), &lengths, headers, values])
    }

    /// What has been written so far.
    pub(crate) fn content(&self) -> ContentSum {
        self.content
    }

    /// Ends the file and syncs it.
    pub(crate) fn finish(mut self) -> Result<Written, BaseError> {
        let content = self.content;
        self.frame(END, &[&content.count.to_le_bytes(), &content.sum.to_le_bytes()])?;
        self.hasher.write(&self.buffer);
        let hash = self.hasher.finish();
        self.buffer.extend_from_slice(&hash.to_le_bytes());
        self.write_out()?;
        self.file.sync_data()?;
        Ok(Written { len: self.offset, hash, content })
    }

    fn frame(&mut self, kind: u8, pieces: &[&[u8]]) -> Result<(), BaseError> {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        let len = u32::try_from(len)
            .map_err(|_| BaseError::Source("a block longer than 4 GiB".to_owned()))?;
        let mut head = [0u8; FRAME_HEADER_BYTES];
        head[0] = kind;
        head[1..5].copy_from_slice(&len.to_le_bytes());
        let mut crc = crc32c::crc32c(&head[..5]);
        for piece in pieces {
            crc = crc32c::crc32c_append(crc, piece);
        }
        head[5..].copy_from_slice(&crc.to_le_bytes());
        self.buffer.extend_from_slice(&head);
        for piece in pieces {
            self.buffer.extend_from_slice(piece);
        }
        if self.buffer.len() >= WRITE_BYTES {
            self.hasher.write(&self.buffer);
            self.write_out()?;
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), BaseError> {
        let len = self.buffer.len() as u64;
        self.file.write_at(self.offset, &self.buffer)?;
        self.file.push_out(self.offset, len)?;
        self.offset += len;
        self.buffer.clear();
        match (self.pace)(len) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(BaseError::Cancelled),
        }
    }
}
