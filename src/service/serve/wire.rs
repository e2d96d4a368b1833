//! What a connection is once it is open: plain, or TLS with who is there.
//!
//! ```text
//!   Plain: as it came        Tls: handshake        Both: first byte of a handshake? ── yes: Tls   no: plain
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use crate::support::listen::Connection;
use crate::support::tls::{Accepted, Acceptor, FirstByte, PeerIdentity};

/// What a listener's connections must speak.
#[derive(Clone, Debug)]
pub enum Security {
    /// No TLS.
    Plain,
    /// TLS alone.
    Tls(Acceptor),
    /// Either, told apart by the first byte: an `http` and an `https` URL name the same place.
    Both(Acceptor),
}

impl Security {
    /// Whether TLS is spoken at all.
    pub fn is_secure(&self) -> bool {
        match self {
            Security::Plain => false,
            Security::Tls(_) | Security::Both(_) => true,
        }
    }
}

/// Bytes in and out, of either kind.
pub(super) type Secure = tokio_rustls::server::TlsStream<FirstByte<Connection>>;

/// An open connection.
pub(super) enum Wire {
    Plain(FirstByte<Connection>),
    Secure(Box<Secure>),
}

/// An open connection, and how it came to be.
pub(super) struct Open {
    pub(super) wire: Wire,
    pub(super) encrypted: bool,
    pub(super) identity: Option<PeerIdentity>,
}

impl Open {
    fn plain(connection: FirstByte<Connection>) -> Open {
        Open { wire: Wire::Plain(connection), encrypted: false, identity: None }
    }
}

/// Opens a connection; `None` if it is not to be served, which has been told. A first byte may take `patience`.
pub(super) async fn open(
    connection: Connection,
    security: &Security,
    patience: Duration,
) -> Option<Open> {
    let acceptor = match security {
        Security::Plain => return Some(Open::plain(FirstByte::unread(connection))),
        Security::Tls(acceptor) | Security::Both(acceptor) => acceptor,
    };
    let connection = match timeout(patience, FirstByte::read(connection)).await {
        Ok(Ok(Some(connection))) => connection,
        Ok(Ok(None) | Err(_)) | Err(_) => {
            tracing::debug!("a connection ended before its first byte");
            return None;
        }
    };
    if matches!(security, Security::Both(_)) && !connection.is_handshake() {
        return Some(Open::plain(connection));
    }
    match acceptor.accept(connection).await {
        Ok(Accepted { stream, identity }) => {
            Some(Open { wire: Wire::Secure(Box::new(stream)), encrypted: true, identity })
        }
        Err(rejected) => {
            rejected.log(acceptor.endpoint());
            None
        }
    }
}

/// Calls the same method of whichever kind it is.
macro_rules! either {
    ($wire:expr, $stream:ident => $call:expr) => {
        match $wire {
            Wire::Plain($stream) => $call,
            Wire::Secure($stream) => $call,
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(context))
    }
}
