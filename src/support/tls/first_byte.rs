//! A connection of which one byte was read ahead, and is read again.
//!
//! The first byte tells TLS from everything else: a handshake's first record begins with 22, which begins neither an
//! HTTP method nor an HTTP/2 preface. A socket cannot be asked without taking it, least of all a unix one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// The type of a record that carries a handshake.
const HANDSHAKE: u8 = 22;

/// The connection.
#[derive(Debug)]
pub struct FirstByte<S> {
    first: Option<u8>,
    inner: S,
}

impl<S> FirstByte<S> {
    /// Nothing was read yet.
    pub fn unread(inner: S) -> Self {
        FirstByte { first: None, inner }
    }

    /// The connection itself.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Whether what was read may be the beginning of TLS.
    pub fn is_handshake(&self) -> bool {
        self.first == Some(HANDSHAKE)
    }
}

impl<S: AsyncRead + Unpin> FirstByte<S> {
    /// Waits for the first byte; `None` if the other side went away without one.
    pub async fn read(mut inner: S) -> io::Result<Option<Self>> {
        let mut byte = [0];
        let count = inner.read(&mut byte).await?;
        Ok((count == 1).then(|| FirstByte { first: Some(byte[0]), inner }))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstByte<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buffer.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstByte<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_byte_that_was_looked_at_is_read_again() {
        let mut wire = FirstByte::read(&b"\x16abc"[..]).await.unwrap().unwrap();
        assert!(wire.is_handshake());
        let mut all = Vec::new();
        wire.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"\x16abc");
        assert!(FirstByte::read(&b""[..]).await.unwrap().is_none());
    }
}
