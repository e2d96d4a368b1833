//! A frame: one group commit, one write, one CRC.
//!
//! ```text
//!   0 magic u32 | 4 crc32c u32 | 8 length u32 | 12 chain u32 | 16 sequence u64 | 24 durable sequence u64
//!   32 record count u32 | 36 zero u32 | 40 records … | zeroes up to a multiple of 8
//! ```
//!
//! The CRC covers bytes 8.. and starts from the segment's salt and the frame's offset: leftovers of an earlier life
//! of the file, and frames at another place, never pass. The chain is the CRC of the frame before.

use bytes::{Buf, BufMut, Bytes};
use quorate_core::api::ids::GroupId;

use super::record::Record;

/// Bytes before the first record.
pub(crate) const FRAME_HEADER: usize = 40;
/// The longest frame.
pub(crate) const FRAME_MAX: usize = 16 << 20;
/// Frames begin and end at multiples of this.
pub(crate) const ALIGN: usize = 8;

const MAGIC: u32 = 0x4d52_4651; // "QFRM"

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) crc: u32,
    pub(crate) length: u32,
    pub(crate) chain: u32,
    pub(crate) sequence: u64,
    /// The newest frame known to be synced when this one was written.
    pub(crate) durable: u64,
    pub(crate) records: u32,
}

/// The CRC of a frame that lies at `offset` of a segment salted with `salt`.
fn crc(salt: u64, offset: u64, frame: &[u8]) -> u32 {
    let mut seed = [0; 16];
    seed[..8].copy_from_slice(&salt.to_le_bytes());
    seed[8..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&seed), &frame[8..])
}

/// Pads `frame`, whose first [`FRAME_HEADER`] bytes are left free, and fills in its header. Returns its CRC.
pub(crate) fn finish(
    frame: &mut Vec<u8>,
    salt: u64,
    offset: u64,
    chain: u32,
    sequence: u64,
    durable: u64,
    records: u32,
) -> u32 {
    frame.resize(frame.len().next_multiple_of(ALIGN), 0);
    let length = u32::try_from(frame.len()).expect("frames are at most 16 MiB");
    let mut head = &mut frame[..FRAME_HEADER];
    head.put_u32_le(MAGIC);
    head.put_u32_le(0);
    head.put_u32_le(length);
    head.put_u32_le(chain);
    head.put_u64_le(sequence);
    head.put_u64_le(durable);
    head.put_u32_le(records);
    head.put_u32_le(0);
    let crc = crc(salt, offset, frame);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// A frame's header if `bytes`, which begin at `offset` of the segment, begin with its magic and a length that fits.
/// Nothing is verified.
pub(crate) fn peek(bytes: &[u8]) -> Option<FrameHeader> {
    let mut head = bytes.get(..FRAME_HEADER)?;
    if head.get_u32_le() != MAGIC {
        return None;
    }
    let header = FrameHeader {
        crc: head.get_u32_le(),
        length: head.get_u32_le(),
        chain: head.get_u32_le(),
        sequence: head.get_u64_le(),
        durable: head.get_u64_le(),
        records: head.get_u32_le(),
    };
    let length = header.length as usize;
    let fits = (FRAME_HEADER..=FRAME_MAX).contains(&length) && length.is_multiple_of(ALIGN);
    fits.then_some(header)
}

/// The whole and good frame at the start of `bytes`, or `None`.
pub(crate) fn check(bytes: &[u8], salt: u64, offset: u64) -> Option<FrameHeader> {
    let header = peek(bytes)?;
    let frame = bytes.get(..header.length as usize)?;
    (crc(salt, offset, frame) == header.crc).then_some(header)
}

/// The records of a checked frame; `None` if they do not decode, which a good CRC leaves to a newer or broken writer.
pub(crate) fn records(header: &FrameHeader, frame: &Bytes) -> Option<Vec<(GroupId, Record)>> {
    let mut rest = frame.slice(FRAME_HEADER..header.length as usize);
    let mut records = Vec::new();
    for _ in 0..header.records {
        let (group, record, length) = Record::decode(&rest)?;
        rest.advance(length);
        records.push((group, record));
    }
    (rest.len() < ALIGN).then_some(records)
}
