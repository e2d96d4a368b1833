//! Frames of RFC 6455, section 5, as a server reads and writes them: no extensions, messages put together from their
//! fragments, control frames in between.

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Both sides are done.
pub(super) const NORMAL: Option<u16> = Some(1000);
const PROTOCOL_ERROR: u16 = 1002;
const TOO_BIG: u16 = 1009;

/// Payloads of control frames.
const CONTROL_BYTES_MAX: u64 = 125;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What the other side did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A whole message, text or not.
    Message(Bytes),
    /// It wants this back.
    Ping(Bytes),
    /// It leaves, with this code.
    Close(Option<u16>),
}

/// The conversation is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Gone {
    /// The connection broke, or was cut.
    #[error("the connection ended: {0}")]
    Cut(#[from] std::io::Error),
    /// What came was no WebSocket, or too long.
    #[error("{0}")]
    Wrong(&'static str),
}

/// A connection after its handshake.
pub(super) struct Socket<IO> {
    io: IO,
    buffer: BytesMut,
    /// The fragments so far of a message that is not whole.
    fragments: Option<Vec<u8>>,
    limit: usize,
}

/// A frame's head.
struct Head {
    last: bool,
    kind: u8,
    mask: [u8; 4],
    length: usize,
    head_bytes: usize,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Socket<IO> {
    /// Takes messages of at most `limit` bytes.
    pub(super) fn new(io: IO, limit: usize) -> Self {
        Socket { io, buffer: BytesMut::new(), fragments: None, limit }
    }

    /// The next event. May be dropped and called again; nothing is lost.
    pub(super) async fn read(&mut self) -> Result<Event, Gone> {
        loop {
            match self.parse() {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err((code, why)) => {
                    self.close(Some(code)).await?;
                    return Err(Gone::Wrong(why));
                }
            }
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return Err(Gone::Cut(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Sends a text message.
    pub(super) async fn send(&mut self, text: &[u8]) -> Result<(), Gone> {
        self.write(TEXT, text).await
    }

    pub(super) async fn pong(&mut self, payload: &[u8]) -> Result<(), Gone> {
        self.write(PONG, payload).await
    }

    /// Says goodbye, with a code or without.
    pub(super) async fn close(&mut self, code: Option<u16>) -> Result<(), Gone> {
        let payload = code.map(u16::to_be_bytes);
        self.write(CLOSE, payload.as_ref().map_or(&[][..], |code| &code[..])).await?;
        Ok(self.io.shutdown().await?)
    }

    async fn write(&mut self, kind: u8, payload: &[u8]) -> Result<(), Gone> {
        let mut frame = Vec::with_capacity(payload.len() + 10);
        frame.push(0x80 | kind);
        match payload.len() {
            length @ ..=125 => frame.push(length as u8),
            length @ 126..=0xffff => {
                frame.push(126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                frame.push(127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        self.io.write_all(&frame).await?;
        Ok(self.io.flush().await?)
    }

    /// Takes whole frames off the buffer, up to the next event.
    fn parse(&mut self) -> Result<Option<Event>, (u16, &'static str)> {
        while let Some(head) = self.head()? {
            if self.buffer.len() - head.head_bytes < head.length {
                self.buffer.reserve(head.head_bytes + head.length - self.buffer.len());
                return Ok(None);
            }
            self.buffer.advance(head.head_bytes);
            let mut payload = self.buffer.split_to(head.length);
            for (at, byte) in payload.iter_mut().enumerate() {
                *byte ^= head.mask[at & 3];
            }
            if let Some(event) = self.event(&head, payload.freeze())? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn event(&mut self, head: &Head, payload: Bytes) -> Result<Option<Event>, (u16, &'static str)> {
        match head.kind {
            PING => return Ok(Some(Event::Ping(payload))),
            PONG => return Ok(None),
            CLOSE => return close_code(&payload).map(|code| Some(Event::Close(code))),
            _ => {}
        }
        if head.last && self.fragments.is_none() {
            return Ok(Some(Event::Message(payload)));
        }
        let fragments = self.fragments.get_or_insert_default();
        fragments.extend_from_slice(&payload);
        if !head.last {
            return Ok(None);
        }
        Ok(self.fragments.take().map(|whole| Event::Message(whole.into())))
    }

    /// The head of the next frame, once it is there.
    fn head(&self) -> Result<Option<Head>, (u16, &'static str)> {
        let Some(&[first, second]) = self.buffer.first_chunk() else { return Ok(None) };
        let (last, kind) = (first & 0x80 != 0, first & 0x0f);
        let wrong = |why| Err((PROTOCOL_ERROR, why));
        if first & 0x70 != 0 {
            return wrong("a reserved bit is set");
        }
        let small = u64::from(second & 0x7f);
        match kind {
            CLOSE | PING | PONG if small > CONTROL_BYTES_MAX || !last => {
                return wrong("a control frame is long, or a fragment");
            }
            TEXT | BINARY if self.fragments.is_some() => return wrong("a message in a message"),
            CONTINUATION if self.fragments.is_none() => return wrong("nothing to continue"),
            CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG => {}
            _ => return wrong("an unknown kind of frame"),
        }
        if second & 0x80 == 0 {
            return wrong("a caller's frame is not masked");
        }
        let rest = &self.buffer[2..];
        let (length, length_bytes) = match small {
            126 => match rest.first_chunk() {
                Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(bytes) => (u64::from_be_bytes(*bytes), 8),
                None => return Ok(None),
            },
            small => (small, 0),
        };
        let so_far = self.fragments.as_ref().map_or(0, Vec::len);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length.saturating_add(so_far) > self.limit {
            return Err((TOO_BIG, "a message is too long"));
        }
        let Some(mask) = rest[length_bytes..].first_chunk() else { return Ok(None) };
        Ok(Some(Head { last, kind, mask: *mask, length, head_bytes: 2 + length_bytes + 4 }))
    }
}

/// Why the other side leaves (RFC 6455, section 7.4).
fn close_code(payload: &[u8]) -> Result<Option<u16>, (u16, &'static str)> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        let empty = payload.is_empty();
        return if empty { Ok(None) } else { Err((PROTOCOL_ERROR, "half a close code")) };
    };
    let code = u16::from_be_bytes(*code);
    let known = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    if !known || std::str::from_utf8(reason).is_err() {
        return Err((PROTOCOL_ERROR, "a close code that may not be sent"));
    }
    Ok(Some(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 70_000;

    /// A frame as a caller sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![first];
        match payload.len() {
            length @ ..=125 => frame.push(0x80 | length as u8),
            length @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at & 3]));
        frame
    }

    /// The events of `sent`, given in pieces of `size`, and why there are no more.
    async fn events(sent: &[u8], size: usize) -> (Vec<Event>, String) {
        let (mut theirs, ours) = tokio::io::duplex(1 << 20);
        let mut socket = Socket::new(ours, LIMIT);
        let sending = async {
            for piece in sent.chunks(size) {
                theirs.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            theirs.shutdown().await.unwrap();
        };
        let reading = async {
            let mut events = Vec::new();
            loop {
                match socket.read().await {
                    Ok(event) => events.push(event),
                    Err(why) => return (events, why.to_string()),
                }
            }
        };
        tokio::join!(reading, sending).0
    }

    #[tokio::test]
    async fn messages_are_put_together_with_pings_in_between() {
        let long = vec![b'x'; 66_000];
        let sent = [
            frame(0x81, b"one"),
            frame(0x01, b"tw"),
            frame(0x89, b"ping"),
            frame(0x8a, b"pong"),
            frame(0x80, b"o"),
            frame(0x82, &[7; 200]),
            frame(0x81, &long),
            frame(0x88, &[3, 232]),
        ]
        .concat();
        for size in [1, 3, 1000, 1 << 20] {
            let (events, _) = events(&sent, size).await;
            let want = [
                Event::Message(Bytes::from_static(b"one")),
                Event::Ping(Bytes::from_static(b"ping")),
                Event::Message(Bytes::from_static(b"two")),
                Event::Message(vec![7; 200].into()),
                Event::Message(long.clone().into()),
                Event::Close(Some(1000)),
            ];
            assert_eq!(events, want, "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn what_is_no_websocket_ends_it() {
        for (sent, why) in [
            (frame(0xc1, b"x"), "a reserved bit is set"),
            (frame(0x83, b"x"), "an unknown kind of frame"),
            (frame(0x80, b"x"), "nothing to continue"),
            ([frame(0x01, b"x"), frame(0x81, b"x")].concat(), "a message in a message"),
            (frame(0x09, b"x"), "a control frame is long, or a fragment"),
            (frame(0x89, &[0; 126]), "a control frame is long, or a fragment"),
            (vec![0x81, 1, b'x'], "a caller's frame is not masked"),
            (frame(0x88, &[1]), "half a close code"),
            (frame(0x88, &[0, 1]), "a close code that may not be sent"),
            (frame(0x81, &vec![0; LIMIT + 1]), "a message is too long"),
        ] {
            let (events, ended) = events(&sent, 1000).await;
            assert!(events.is_empty());
            assert_eq!(ended, why);
        }
    }
}
