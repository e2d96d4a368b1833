//! Listeners on TCP ports and unix sockets, behind one face.
//!
//! Errors are in the words of Go's `net` package, which operators of etcd search for:
//! `listen tcp 127.0.0.1:2379: bind: address already in use`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use super::urls::Url;

const BACKLOG: u32 = 4096;

/// Socket options of `--socket-reuse-port` and `--socket-reuse-address`. As in Go, an address whose connections
/// linger may be bound again in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// Several listeners may share the port.
    pub reuse_port: bool,
}

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// On a port.
    Tcp(TcpListener),
    /// On a socket file, which goes when the listener does.
    Unix(UnixListener, SocketFile),
}

/// Removes the file of a unix socket.
#[derive(Debug)]
pub struct SocketFile(String);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listen {network} {address}: {reason}")]
pub struct ListenError {
    network: &'static str,
    address: String,
    reason: String,
}

/// Binds the address of `url`; port 0 picks a free one.
pub fn bind(url: &Url, options: SocketOptions) -> Result<Listener, ListenError> {
    if url.is_unix() {
        return bind_unix(&url.socket_path());
    }
    let failed = |reason: String| ListenError { network: "tcp", address: url.host.clone(), reason };
    let (host, port) = url.host_port().map_err(failed)?;
    let port: u16 =
        port.parse().map_err(|_| failed("address ".to_owned() + &port + ": invalid port"))?;
    let address =
        SocketAddr::new(resolve(&host).ok_or_else(|| failed("no such host".to_owned()))?, port);
    bind_everywhere(address, options).map_err(|(call, why)| ListenError {
        network: "tcp",
        address: address.to_string(),
        reason: format!("{call}: {}", words(&why)),
    })
}

/// `localhost` is the loopback address, as etcd's listeners take it; all else must be an address.
fn resolve(host: &str) -> Option<IpAddr> {
    match host {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        "" => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        _ => host.parse().ok(),
    }
}

/// As in Go, `0.0.0.0` takes IPv6 as well where the machine has it.
fn bind_everywhere(
    address: SocketAddr,
    options: SocketOptions,
) -> Result<Listener, (&'static str, io::Error)> {
    if address.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        let both = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), address.port());
        match bind_tcp(both, options) {
            Err((_, why)) if why.kind() != io::ErrorKind::AddrInUse => {}
            decided => return decided,
        }
    }
    bind_tcp(address, options)
}

fn bind_tcp(
    address: SocketAddr,
    options: SocketOptions,
) -> Result<Listener, (&'static str, io::Error)> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
    .map_err(|why| ("socket", why))?;
    socket.set_reuseaddr(true).map_err(|why| ("setsockopt", why))?;
    if options.reuse_port {
        socket.set_reuseport(true).map_err(|why| ("setsockopt", why))?;
    }
    socket.bind(address).map_err(|why| ("bind", why))?;
    socket.listen(BACKLOG).map(Listener::Tcp).map_err(|why| ("listen", why))
}

/// A socket file that nobody answers on is left over from a killed process and is replaced.
fn bind_unix(path: &str) -> Result<Listener, ListenError> {
    let failed = |why: &io::Error| ListenError {
        network: "unix",
        address: path.to_owned(),
        reason: format!("bind: {}", words(why)),
    };
    let bound = match UnixListener::bind(path) {
        Err(why) if why.kind() == io::ErrorKind::AddrInUse => {
            match std::os::unix::net::UnixStream::connect(path) {
                Err(dead) if dead.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(|why| failed(&why))?;
                    UnixListener::bind(path)
                }
                _ => Err(why),
            }
        }
        other => other,
    };
    bound
        .map(|listener| Listener::Unix(listener, SocketFile(path.to_owned())))
        .map_err(|why| failed(&why))
}

/// The system's words for an error, as Go prints them: lower case, without the number.
pub fn words(why: &io::Error) -> String {
    let text = why.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

impl Listener {
    /// The next connection.
    pub async fn accept(&self) -> io::Result<Connection> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Connection::Tcp(stream))
            }
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok(Connection::Unix(stream))
            }
        }
    }

    /// The port it got, if it has one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok().map(|a| a.port()),
            Listener::Unix(..) => None,
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listener::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "{address}"),
                Err(_) => f.write_str("closed"),
            },
            Listener::Unix(_, file) => f.write_str(&file.0),
        }
    }
}

/// One accepted connection.
#[derive(Debug)]
pub enum Connection {
    /// Over TCP, without delay.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

impl Connection {
    /// Our own address and that of the other side; `None` on a unix socket.
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        let plain =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        match self {
            Connection::Tcp(stream) => {
                Some((plain(stream.local_addr().ok()?), plain(stream.peer_addr().ok()?)))
            }
            Connection::Unix(_) => None,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Connection::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Connection::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Connection::Unix(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Connection::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Connection::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::urls::parse_list;

    fn url(text: &str) -> Url {
        parse_list(text).unwrap().remove(0)
    }

    #[tokio::test]
    async fn a_port_in_use_is_refused_in_gos_words() {
        let first = bind(&url("http://127.0.0.1:0"), SocketOptions::default()).unwrap();
        let port = first.port().unwrap();
        let again = url(&format!("http://127.0.0.1:{port}"));
        let refused = bind(&again, SocketOptions::default()).unwrap_err();
        let want = format!("listen tcp 127.0.0.1:{port}: bind: address already in use");
        assert_eq!(refused.to_string(), want);
        drop(first);
        bind(&again, SocketOptions::default()).unwrap();
    }

    #[tokio::test]
    async fn a_listener_on_every_address_is_reached_over_ipv4() {
        let all = bind(&url("http://0.0.0.0:0"), SocketOptions::default()).unwrap();
        let port = all.port().unwrap();
        let (client, served) = tokio::join!(TcpStream::connect(("127.0.0.1", port)), all.accept());
        assert!(client.is_ok() && served.is_ok());
    }

    #[tokio::test]
    async fn a_dead_socket_file_is_replaced_and_a_live_one_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.sock");
        let url = url(&format!("unix://{}", path.display()));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = bind(&url, SocketOptions::default()).unwrap();
        let refused = bind(&url, SocketOptions::default()).unwrap_err();
        assert!(refused.to_string().ends_with("bind: address already in use"), "{refused}");
        drop(live);
        assert!(!path.exists());
    }
}
