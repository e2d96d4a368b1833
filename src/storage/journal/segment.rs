//! Segment files: names and the header.
//!
//! ```text
//!   0 magic 8 | 8 version u32 | 12 header length u32 | 16 journal id 16 | 32 segment u64 | 40 salt u64
//!   48 segment bytes u64 | 56 floor u64 | 64 previous segment u64 | 72 previous end u64
//!   80 previous last frame u64 | 88 its CRC u32 | 92 zero … | 4092 crc32c u32
//! ```

use bytes::{Buf, BufMut};

use super::error::JournalId;

/// Length of a segment's header; the first frame begins here.
pub(crate) const SEGMENT_HEADER: usize = 4096;
/// The format this version writes.
pub(crate) const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"QRJOURNL";
const CRC_AT: usize = SEGMENT_HEADER - 4;

/// A segment's header. What `previous_*` say ends the segment before this one, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) journal: JournalId,
    pub(crate) segment: u64,
    pub(crate) salt: u64,
    pub(crate) bytes: u64,
    pub(crate) floor: u64,
    /// 0 in the first segment of a journal; segments count from 1.
    pub(crate) previous: u64,
    pub(crate) previous_end: u64,
    pub(crate) previous_frame: u64,
    pub(crate) previous_crc: u32,
}

/// Why a header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    Damaged,
    Newer(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER);
        out.put_slice(MAGIC);
        out.put_u32_le(FORMAT);
        out.put_u32_le(SEGMENT_HEADER as u32);
        out.put_slice(&self.journal.0);
        out.put_u64_le(self.segment);
        out.put_u64_le(self.salt);
        out.put_u64_le(self.bytes);
        out.put_u64_le(self.floor);
        out.put_u64_le(self.previous);
        out.put_u64_le(self.previous_end);
        out.put_u64_le(self.previous_frame);
        out.put_u32_le(self.previous_crc);
        out.resize(CRC_AT, 0);
        let crc = crc32c::crc32c(&out);
        out.put_u32_le(crc);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, BadHeader> {
        let bytes = bytes.get(..SEGMENT_HEADER).ok_or(BadHeader::Damaged)?;
        let (mut head, mut crc) = bytes.split_at(CRC_AT);
        if crc32c::crc32c(head) != crc.get_u32_le() || &head[..8] != MAGIC {
            return Err(BadHeader::Damaged);
        }
        head.advance(8);
        let version = head.get_u32_le();
        if version > FORMAT {
            return Err(BadHeader::Newer(version));
        }
        if version == 0 || head.get_u32_le() as usize != SEGMENT_HEADER {
            return Err(BadHeader::Damaged);
        }
        let mut journal = [0; 16];
        head.copy_to_slice(&mut journal);
        Ok(SegmentHeader {
            journal: JournalId(journal),
            segment: head.get_u64_le(),
            salt: head.get_u64_le(),
            bytes: head.get_u64_le(),
            floor: head.get_u64_le(),
            previous: head.get_u64_le(),
            previous_end: head.get_u64_le(),
            previous_frame: head.get_u64_le(),
            previous_crc: head.get_u32_le(),
        })
    }
}

/// What a name in the journal's folder stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    /// A segment that counts.
    Live(u64),
    /// A zero-filled or used file that waits to become a segment. Its content never counts.
    Free,
    /// A file that was being made.
    Temporary,
    /// Not ours.
    Unknown,
}

impl FileName {
    pub(crate) fn parse(name: &str) -> FileName {
        if name.starts_with("free-") {
            return FileName::Free;
        }
        if name.starts_with("tmp-") {
            return FileName::Temporary;
        }
        let digits = name.strip_suffix(".seg").filter(|digits| {
            digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        });
        match digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
            Some(segment) if segment > 0 => FileName::Live(segment),
            Some(_) | None => FileName::Unknown,
        }
    }

    /// The name of a live segment.
    pub(crate) fn live(segment: u64) -> String {
        format!("{segment:016x}.seg")
    }

    /// The name of a file that waits; `number` is unique among them.
    pub(crate) fn free(number: u64) -> String {
        format!("free-{number:016x}")
    }
}
