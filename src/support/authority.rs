//! Lets in HTTP/2 clients whose `:authority` is none.
//!
//! etcd's clients before 3.5.1 send `http://10.0.0.1:2379` or `#initially=[…]` there
//! (clientv3/balancer/resolver/endpoint), which Go's server takes as any text and h2 answers with PROTOCOL_ERROR. So
//! the front of a connection is read here first: where the first request's authority does not parse, it and all later
//! ones are replaced by a valid one before h2 sees them. Any other connection is let through untouched from then on.
//!
//! ```text
//!   preface, frames … first HEADERS ── authority valid, or none ──▶ through, for good
//!                                   └─ not valid ──▶ replaced here and in every later HEADERS
//! ```
//!
//! **Invariant:** a replacement is never longer than what it stands for, so that whatever the client's HPACK table
//! (RFC 7541, 4.1) still holds is held by ours too, at the same index.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, BytesMut};
use http::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// What a client may send in one frame before it is told of more; h2 tells none.
const FRAME_MAX: usize = 16_384;
/// `:authority` in HPACK's static table.
const AUTHORITY_INDEX: usize = 1;
/// Stands for an authority that does not parse.
const REPLACEMENT: &[u8] = b"-";

/// RFC 7541's Huffman code (appendix B) is canonical: the characters of each length in order tell it all. No
/// authority has any of the longer ones.
const HUFFMAN: [(u32, &str); 8] = [
    (5, "012aceiost"),
    (6, " %-./3456789=A_bdfghlmnpru"),
    (7, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, "&*,;XZ"),
    (10, "!\"()?"),
    (11, "'+|"),
    (12, "#>"),
    (13, "\0$@[]~"),
];

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Preface,
    /// Frames are looked at; whether an authority has been replaced.
    Frames {
        replaced: bool,
    },
    /// Nothing is looked at any more.
    Through,
}

/// A connection whose authorities are valid.
#[derive(Debug)]
pub struct Mended<S> {
    inner: S,
    stage: Stage,
    /// Read, and not looked at yet.
    raw: BytesMut,
    /// To be given to the reader.
    ready: BytesMut,
}

impl<S> Mended<S> {
    /// Reads `inner` from its first byte on.
    pub fn new(inner: S) -> Self {
        Mended { inner, stage: Stage::Preface, raw: BytesMut::new(), ready: BytesMut::new() }
    }

    /// Looks at what has been read, as far as it goes.
    fn look(&mut self) {
        if self.stage == Stage::Preface {
            let seen = self.raw.len().min(PREFACE.len());
            if self.raw[..seen] != PREFACE[..seen] {
                self.stage = Stage::Through;
            } else if seen == PREFACE.len() {
                self.ready.put(self.raw.split_to(seen));
                self.stage = Stage::Frames { replaced: false };
            }
        }
        while let Stage::Frames { replaced } = self.stage {
            let Some(frame) = next_frame(&mut self.raw) else { break };
            match frame {
                Frame::Other(frame) => self.ready.put(frame),
                Frame::Headers(frame) => match mend(&frame) {
                    Some(mended) => {
                        self.ready.put(mended);
                        self.stage = Stage::Frames { replaced: true };
                    }
                    None => {
                        self.ready.put(frame);
                        if !replaced {
                            self.stage = Stage::Through;
                        }
                    }
                },
                Frame::TooLong => self.stage = Stage::Through,
            }
        }
        if self.stage == Stage::Through {
            self.ready.put(self.raw.split());
        }
    }
}

enum Frame {
    Headers(BytesMut),
    Other(BytesMut),
    /// h2 will end the connection over it.
    TooLong,
}

/// The next whole frame.
fn next_frame(raw: &mut BytesMut) -> Option<Frame> {
    let head = raw.first_chunk::<FRAME_HEAD>()?;
    let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let kind = head[3];
    if len > FRAME_MAX {
        return Some(Frame::TooLong);
    }
    if raw.len() < FRAME_HEAD + len {
        return None;
    }
    let frame = raw.split_to(FRAME_HEAD + len);
    Some(if kind == HEADERS { Frame::Headers(frame) } else { Frame::Other(frame) })
}

/// The HEADERS frame with another authority, if its own is not valid. What is malformed in another way is h2's.
fn mend(frame: &[u8]) -> Option<BytesMut> {
    let flags = frame[4];
    if flags & END_HEADERS == 0 {
        return None;
    }
    let mut at = FRAME_HEAD;
    let mut end = frame.len();
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*frame.get(at)?))?;
        at += 1;
    }
    if flags & PRIORITY != 0 {
        at += 5;
    }
    let block = frame.get(at..end)?;
    let value = find_authority(block)?;
    if is_valid(value.text, value.huffman) {
        return None;
    }
    let mut mended = BytesMut::with_capacity(frame.len());
    mended.put(&frame[..at + value.from]);
    mended.put_u8(REPLACEMENT.len() as u8);
    mended.put(REPLACEMENT);
    mended.put(&frame[at + value.to..]);
    let len = (mended.len() - FRAME_HEAD) as u32;
    mended[..3].copy_from_slice(&len.to_be_bytes()[1..]);
    Some(mended)
}

/// A string of a header block: what stands from `from` to `to`, its length before it included.
struct Text<'a> {
    from: usize,
    to: usize,
    huffman: bool,
    text: &'a [u8],
}

/// The value of the first literal `:authority` that is not empty.
fn find_authority(block: &[u8]) -> Option<Text<'_>> {
    let mut at = 0;
    while at < block.len() {
        let first = block[at];
        // RFC 7541, 6: indexed field; literal to be indexed; size update; literals not to be indexed.
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40..0x80 => (6, true),
            0x20..0x40 => (5, false),
            0x00..0x20 => (4, true),
        };
        let (name, next) = integer(block, at, prefix)?;
        at = next;
        if !literal {
            continue;
        }
        if name == 0 {
            at = string(block, at)?.to;
        }
        let value = string(block, at)?;
        if name == AUTHORITY_INDEX && !value.text.is_empty() {
            return Some(value);
        }
        at = value.to;
    }
    None
}

/// An integer with a prefix of so many bits (RFC 7541, 5.1), and where the next thing begins.
fn integer(block: &[u8], at: usize, prefix: u32) -> Option<(usize, usize)> {
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(*block.get(at)?) & mask;
    let mut at = at + 1;
    if value < mask {
        return Some((value, at));
    }
    for shift in (0..28).step_by(7) {
        let byte = *block.get(at)?;
        at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

fn string(block: &[u8], from: usize) -> Option<Text<'_>> {
    let huffman = block.get(from)? & 0x80 != 0;
    let (len, at) = integer(block, from, 7)?;
    let to = at.checked_add(len)?;
    Some(Text { from, to, huffman, text: block.get(at..to)? })
}

fn is_valid(text: &[u8], huffman: bool) -> bool {
    let plain = if huffman { unpack(text) } else { Some(text.to_vec()) };
    plain.is_some_and(|plain| Authority::try_from(plain.as_slice()).is_ok())
}

/// Huffman-coded text that has no other characters than those of [`HUFFMAN`].
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(packed.len() * 8 / 5);
    let bits = packed.len() * 8;
    let bit = |at: usize| u32::from(packed[at / 8] >> (7 - at % 8) & 1);
    let mut at = 0;
    while at < bits {
        let rest = bits - at;
        if rest < 8 && (at..bits).all(|at| bit(at) == 1) {
            // Padding: the front of the end mark.
            break;
        }
        let (mut code, mut taken, mut first) = (0, 0, 0);
        let found = HUFFMAN.iter().find_map(|(len, characters)| {
            while taken < *len && at + (taken as usize) < bits {
                code = code << 1 | bit(at + taken as usize);
                first <<= 1;
                taken += 1;
            }
            let place = code.checked_sub(first)? as usize;
            let found = (taken == *len).then(|| characters.as_bytes().get(place)).flatten();
            first += characters.len() as u32;
            found
        });
        plain.push(*found?);
        at += taken as usize;
    }
    Some(plain)
}

impl<S: AsyncRead + Unpin> AsyncRead for Mended<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.ready.is_empty() {
                let take = this.ready.len().min(buffer.remaining());
                buffer.put_slice(&this.ready[..take]);
                this.ready.advance(take);
                return Poll::Ready(Ok(()));
            }
            if this.stage == Stage::Through {
                return Pin::new(&mut this.inner).poll_read(context, buffer);
            }
            let mut room = [0; 4096];
            let mut more = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut more))?;
            if more.filled().is_empty() {
                // The client ended in the middle of something: that is for h2 to say.
                this.stage = Stage::Through;
            }
            this.raw.put(more.filled());
            this.look();
            if this.ready.is_empty() && this.stage == Stage::Through {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Mended<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// `:method POST`, a literal authority, an indexed path.
    fn headers(authority: &[u8], huffman: bool) -> Vec<u8> {
        let mut block = vec![0x83, 0x41];
        block.push(u8::from(huffman) << 7 | authority.len() as u8);
        block.extend_from_slice(authority);
        block.push(0x84);
        let mut frame = vec![0, 0, block.len() as u8, HEADERS, END_HEADERS, 0, 0, 0, 1];
        frame.extend_from_slice(&block);
        frame
    }

    /// As a client packs it.
    fn packed(text: &str) -> Vec<u8> {
        let mut bits = Vec::new();
        for character in text.chars() {
            let (mut first, mut before) = (0_u32, 0);
            for (len, characters) in HUFFMAN {
                first <<= len - before;
                before = len;
                if let Some(place) = characters.find(character) {
                    let code = first + place as u32;
                    bits.extend((0..len).rev().map(|shift| (code >> shift & 1) as u8));
                }
                first += characters.len() as u32;
            }
        }
        bits.resize(bits.len().next_multiple_of(8), 1);
        bits.chunks(8).map(|byte| byte.iter().fold(0, |whole, bit| whole << 1 | bit)).collect()
    }

    /// Gives so many bytes at a time.
    struct Pieces<'a>(std::slice::Chunks<'a, u8>);

    impl AsyncRead for Pieces<'_> {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            buffer.put_slice(self.0.next().unwrap_or_default());
            Poll::Ready(Ok(()))
        }
    }

    async fn read(sent: &[u8], piece: usize) -> Vec<u8> {
        let mut got = Vec::new();
        Mended::new(Pieces(sent.chunks(piece))).read_to_end(&mut got).await.unwrap();
        got
    }

    #[test]
    fn the_rfcs_own_example_unpacks() {
        // RFC 7541, C.4.1.
        let packed_host = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(unpack(&packed_host).unwrap(), b"www.example.com");
        assert_eq!(packed("www.example.com"), packed_host);
        assert_eq!(unpack(&packed("http://127.0.0.1:2379")).unwrap(), b"http://127.0.0.1:2379");
    }

    #[tokio::test]
    async fn an_authority_that_is_none_is_replaced_in_every_request() {
        let wrong: [(Vec<u8>, bool); 6] = [
            (b"http://127.0.0.1:2379".to_vec(), false),
            (packed("http://127.0.0.1:2379"), true),
            (b"#initially=[127.0.0.1:2379;127.0.0.1:2479]".to_vec(), false),
            // With characters that the table does not have.
            (vec![0xff, 0xff, 0xff, 0x3f], true),
            (b"/run/etcd.sock".to_vec(), false),
            (packed("#initially=[127.0.0.1:2379]"), true),
        ];
        for (authority, huffman) in wrong {
            let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
            let data = [0, 0, 2, 0, 1, 0, 0, 0, 1, 7, 7];
            let sent = [
                PREFACE,
                &settings,
                &headers(&authority, huffman),
                &data,
                &headers(&authority, huffman),
            ]
            .concat();
            let mended = headers(REPLACEMENT, false);
            let want = [PREFACE, &settings, &mended, &data, &mended].concat();
            for piece in [1, 7, 4096] {
                assert_eq!(read(&sent, piece).await, want, "{authority:?} in pieces of {piece}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_valid_or_not_http2_is_let_through_as_it_came() {
        let valid = [PREFACE, &headers(b"127.0.0.1:2379", false), b"whatever follows"].concat();
        let packed = [PREFACE, &headers(&packed("[::1]:2379"), true), &[0xff; 100]].concat();
        let torn = valid[..40].to_vec();
        let long = [PREFACE, &[0xff, 0xff, 0xff, 1, 4, 0, 0, 0, 1], b"etc"].concat();
        let rubbish = [PREFACE, &[0, 0, 3, 1, 4, 0, 0, 0, 1, 0x7f, 0xff, 0xff], b"etc"].concat();
        let http1 = b"GET /health HTTP/1.1\r\n\r\n".to_vec();
        for sent in [valid, packed, torn, long, rubbish, http1, b"PRI".to_vec(), Vec::new()] {
            for piece in [1, 4096] {
                assert_eq!(read(&sent, piece).await, sent);
            }
        }
    }

    #[tokio::test]
    async fn no_bytes_make_it_fail() {
        use rand::{Rng, SeedableRng, rngs::StdRng};
        for seed in 0..3000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut sent = [PREFACE, &headers(b"http://a", false)].concat();
            for _ in 0..rng.random_range(0..6) {
                let at = rng.random_range(PREFACE.len()..sent.len());
                sent[at] = rng.random();
            }
            sent.extend((0..rng.random_range(0..60)).map(|_| rng.random::<u8>()));
            let got = read(&sent, rng.random_range(1..40)).await;
            assert!(got.starts_with(PREFACE), "seed {seed}");
        }
    }
}
