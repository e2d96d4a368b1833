//! One frame on a stream between two members, and the buffers it goes through.
//!
//! ```text
//!   0 kind u8 | 1 zero x3 | 4 length u32 | 8 group u64 | 16 number u64 | 24 crc32c u32 | 28 payload
//! ```
//!
//! Little-endian; the sum is over the 24 bytes before it and the payload. An ask is numbered from 1 on its stream;
//! what answers it bears its number.
//!
//! **Invariant:** no buffer grows beyond the longest frame plus one read.

use std::collections::VecDeque;
use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use quorate_core::api::ids::GroupId;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes before the payload.
pub(super) const HEADER: usize = 28;

/// Least room for one read.
const READ_BYTES: usize = 16 << 10;

/// Longer payloads are written from where they are, shorter ones are copied together.
const COPY_MAX: usize = 16 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A question.
    Ask,
    /// Its answer.
    Answer,
    /// It was looked at, and failed; the payload is a text.
    Failed,
    /// Nobody here looked at it; the payload is a text.
    NotServed,
    /// The sender of this lives, and has nothing to say.
    Alive,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Kind::Ask => 1,
            Kind::Answer => 2,
            Kind::Failed => 3,
            Kind::NotServed => 4,
            Kind::Alive => 5,
        }
    }

    fn parse(byte: u8) -> Option<Kind> {
        [Kind::Ask, Kind::Answer, Kind::Failed, Kind::NotServed, Kind::Alive]
            .into_iter()
            .find(|kind| kind.byte() == byte)
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) group: GroupId,
    pub(super) number: u64,
    pub(super) payload: Bytes,
}

impl Frame {
    /// A sign of life.
    pub(super) fn alive() -> Frame {
        Frame { kind: Kind::Alive, group: GroupId(0), number: 0, payload: Bytes::new() }
    }

    fn header(&self) -> [u8; HEADER] {
        let length = u32::try_from(self.payload.len()).expect("frames are bounded far below 4 GiB");
        let mut header = [0; HEADER];
        let mut rest = &mut header[..];
        rest.put_u8(self.kind.byte());
        rest.put_bytes(0, 3);
        rest.put_u32_le(length);
        rest.put_u64_le(self.group.0);
        rest.put_u64_le(self.number);
        let sum = sum(&header[..HEADER - 4], &self.payload);
        header[HEADER - 4..].copy_from_slice(&sum.to_le_bytes());
        header
    }
}

fn sum(header: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), payload)
}

/// Bytes that no member of this software would send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadFrame {
    #[error("a frame of {length} bytes is longer than {max}")]
    TooLong { length: usize, max: usize },
    #[error("a frame's sum does not fit")]
    BadSum,
    #[error("a frame is of unknown kind {0}")]
    UnknownKind(u8),
}

/// What has been read and not been taken yet.
#[derive(Debug)]
pub(super) struct Inbox {
    bytes: BytesMut,
    frame_bytes_max: usize,
}

impl Inbox {
    pub(super) fn new(frame_bytes_max: usize) -> Self {
        Inbox { bytes: BytesMut::new(), frame_bytes_max }
    }

    /// Reads once and tells how much; 0 is the end. Nothing is lost when it is dropped.
    pub(super) async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        let missing = match self.announced() {
            Some(whole) => {
                whole.min(HEADER + self.frame_bytes_max).saturating_sub(self.bytes.len())
            }
            None => 0,
        };
        if self.bytes.capacity() - self.bytes.len() < missing.max(1) {
            self.bytes.reserve(missing.max(READ_BYTES));
        }
        from.read_buf(&mut self.bytes).await
    }

    /// The length of the first frame, header included, if that much of it has been read.
    fn announced(&self) -> Option<usize> {
        let header = self.bytes.get(4..8)?;
        let length = u32::from_le_bytes(header.try_into().expect("four bytes were taken"));
        Some(HEADER.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)))
    }

    /// The next whole frame.
    pub(super) fn take(&mut self) -> Result<Option<Frame>, BadFrame> {
        let Some(whole) = self.announced() else { return Ok(None) };
        if whole - HEADER > self.frame_bytes_max {
            let (length, max) = (whole - HEADER, self.frame_bytes_max);
            return Err(BadFrame::TooLong { length, max });
        }
        if self.bytes.len() < whole {
            return Ok(None);
        }
        let mut frame = self.bytes.split_to(whole).freeze();
        let payload = frame.split_off(HEADER);
        let expected = sum(&frame[..HEADER - 4], &payload);
        let kind = frame.get_u8();
        frame.advance(3 + 4);
        let (group, number) = (GroupId(frame.get_u64_le()), frame.get_u64_le());
        if frame.get_u32_le() != expected {
            return Err(BadFrame::BadSum);
        }
        let kind = Kind::parse(kind).ok_or(BadFrame::UnknownKind(kind))?;
        Ok(Some(Frame { kind, group, number, payload }))
    }
}

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    bytes: usize,
}

impl Outbox {
    pub(super) fn put(&mut self, frame: Frame) {
        self.bytes += HEADER + frame.payload.len();
        self.tail.extend_from_slice(&frame.header());
        if frame.payload.len() <= COPY_MAX {
            self.tail.extend_from_slice(&frame.payload);
        } else {
            self.chunks.push_back(self.tail.split().freeze());
            self.chunks.push_back(frame.payload);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that wait to be written.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    /// Writes once. Nothing is lost or written twice when it is dropped.
    pub(super) async fn write(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<usize> {
        if self.chunks.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        let Some(first) = self.chunks.front_mut() else { return Ok(0) };
        let written = to.write(first).await?;
        if written == 0 && !first.is_empty() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes -= written;
        first.advance(written);
        if first.is_empty() {
            self.chunks.pop_front();
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(number: u64, payload: Vec<u8>) -> Frame {
        Frame { kind: Kind::Ask, group: GroupId(7), number, payload: payload.into() }
    }

    async fn wire(frames: &[Frame]) -> Vec<u8> {
        let mut outbox = Outbox::default();
        for frame in frames {
            outbox.put(frame.clone());
        }
        let mut wire = Vec::new();
        while !outbox.is_empty() {
            outbox.write(&mut wire).await.unwrap();
        }
        wire
    }

    #[tokio::test]
    async fn frames_cross_whole_whatever_the_pieces_they_come_in() {
        let frames =
            [ask(1, vec![3; 100]), Frame::alive(), ask(2, vec![4; 200_000]), ask(3, Vec::new())];
        let wire = wire(&frames).await;
        for piece in [1, 7, HEADER, 4096, wire.len()] {
            let mut inbox = Inbox::new(1 << 20);
            let mut found = Vec::new();
            for mut part in wire.chunks(piece) {
                while !part.is_empty() {
                    inbox.fill(&mut part).await.unwrap();
                    while let Some(frame) = inbox.take().unwrap() {
                        found.push(frame);
                    }
                }
            }
            assert_eq!(found, frames, "in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn golden_bytes_of_a_frame() {
        let wire = wire(&[ask(0x0102, b"abc".to_vec())]).await;
        let head = b"\x01\0\0\0\x03\0\0\0\x07\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0";
        assert_eq!(&wire[..24], head);
        assert_eq!(wire[24..28], sum(head, b"abc").to_le_bytes());
        assert_eq!(&wire[28..], b"abc");
    }

    #[tokio::test]
    async fn any_flipped_byte_is_refused_and_a_long_frame_before_it_is_read() {
        let whole = wire(&[ask(9, vec![1; 40])]).await;
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            let mut inbox = Inbox::new(1 << 10);
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                inbox.fill(&mut rest).await.unwrap();
            }
            // A length that grew makes it wait for more, which is refused when it comes.
            assert!(!matches!(inbox.take(), Ok(Some(_))), "byte {at}");
        }
        let mut inbox = Inbox::new(39);
        inbox.fill(&mut &whole[..HEADER]).await.unwrap();
        assert_eq!(inbox.take(), Err(BadFrame::TooLong { length: 40, max: 39 }));
    }
}
