//! The base: one immutable file per keyspace that is the whole state at one log id.
//!
//! ```text
//!   | preamble | records frame … | block frame … | end frame | xxh3 of all before |
//!
//!   preamble   "QRTBASE\0"  format u32  group u64  generation u64  term u64  index u64  revision u64  crc32c u32
//!   frame      kind u8  length u32  crc32c u32 (of kind, length, payload)  payload
//!     records  repeated: space u8, key and value each with a varint length
//!     block    first revision 16 bytes, headers with a varint length, values (the rest)
//!     end      count u64, content sum u64
//!
//!   writing:  tmp-base-<generation> ──128 KiB writes, each pushed out──▶ one fsync
//!             ──▶ read back past the page cache, verified ──▶ rename, directory fsync
//!             ──▶ named by a journal record ──▶ the journal behind it may go
//! ```
//!
//! A base is believed only when its frames, its whole and its content sum agree, when it is written and when it is
//! read. **Invariant:** what does not agree with the content sum told by the batches never becomes a base.

mod read;
mod write;

use std::io;

use bytes::Bytes;
use quorate_core::api::batch::Space;
use quorate_core::api::ids::{GroupId, LogId, Revision};

use super::format::{ContentSum, Malformed, Reader, malformed, put_log_id, read_log_id};

pub(crate) use read::{BaseReader, check_block};
pub(crate) use write::{BaseWriter, Pace};

/// The newest format of a base that this program knows.
pub const BASE_FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"QRTBASE\0";
const PREAMBLE_BYTES: usize = 8 + 4 + 8 + 8 + 16 + 8 + 4;
const FRAME_HEADER_BYTES: usize = 1 + 4 + 4;
/// A frame longer than this is damage: the longest value and key that any limit lets in are far below.
const FRAME_BYTES_MAX: usize = 1 << 30;

const RECORDS: u8 = 1;
const BLOCK: u8 = 2;
const END: u8 = 3;

/// Why a base was not written, or is not believed.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The disk refused; `source` may be "no space left".
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Written by a newer program.
    #[error("has format {0}, this program knows up to {BASE_FORMAT}")]
    Newer(u32),
    /// The state store it is made from is damaged.
    #[error("made from a damaged state store: {0}")]
    Source(String),
    /// The store is closing.
    #[error("cancelled")]
    Cancelled,
}

impl From<Malformed> for BaseError {
    fn from(malformed: Malformed) -> Self {
        BaseError::Damaged(malformed.to_string())
    }
}

/// What a base says of itself at its front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Preamble {
    pub(crate) group: GroupId,
    pub(crate) generation: u64,
    /// The last entry whose effects are in it.
    pub(crate) at: LogId,
    /// The keyspace's revision there.
    pub(crate) revision: i64,
}

impl Preamble {
    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&BASE_FORMAT.to_le_bytes());
        out.extend_from_slice(&self.group.0.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        put_log_id(&mut out, self.at);
        out.extend_from_slice(&self.revision.to_le_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Preamble, BaseError> {
        let mut reader = Reader::new(bytes, "preamble");
        if reader.array::<8>()? != MAGIC {
            return Err(BaseError::Damaged("it does not begin as a base".to_owned()));
        }
        let format = reader.u32()?;
        let crc_at = PREAMBLE_BYTES - 4;
        let crc = bytes.get(crc_at..PREAMBLE_BYTES).ok_or(malformed("preamble"))?;
        if crc != crc32c::crc32c(&bytes[..crc_at]).to_le_bytes() {
            return Err(BaseError::Damaged("checksum of the preamble".to_owned()));
        }
        if format != BASE_FORMAT {
            return Err(BaseError::Newer(format));
        }
        Ok(Preamble {
            group: GroupId(reader.u64()?),
            generation: reader.u64()?,
            at: read_log_id(&mut reader)?,
            revision: reader.u64()? as i64,
        })
    }
}

/// One piece of a base, as it is read.
#[derive(Debug)]
pub(crate) enum Part {
    /// Records beside the history: space, key, value.
    Records(Vec<(Space, Bytes, Bytes)>),
    /// One packed block.
    Block { first: Revision, headers: Bytes, values: Bytes },
}

/// What was found or written, to be compared with what ought to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Length of the file.
    pub(crate) len: u64,
    /// XXH3 of all bytes before the last eight, which are this.
    pub(crate) hash: u64,
    pub(crate) content: ContentSum,
}

/// The name of the base at `at`.
pub(crate) fn base_name(generation: u64, at: LogId) -> String {
    format!("base-{generation}-{}-{}.qb", at.term, at.index)
}

/// Whether a file is a base of `generation`, by its name.
pub(crate) fn is_base_of(generation: u64, name: &str) -> bool {
    name.starts_with(&format!("base-{generation}-"))
}

/// Where a base of `generation` is written until it is whole.
pub(crate) fn temporary(generation: u64) -> String {
    format!("tmp-base-{generation}")
}

#[cfg(test)]
#[path = "base/base_test.rs"]
mod base_test;
