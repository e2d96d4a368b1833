//! A plain GET, and how long it took.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::task::spawn_blocking;

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The status line and the header fields.
    pub(crate) head: String,
    pub(crate) body: String,
    pub(crate) took: Duration,
}

impl Answer {
    /// The value of a header field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Asks `endpoint`, an `http://address:port`, on a connection of its own.
///
/// # Errors
/// When there is no whole answer within `patience`.
pub(crate) async fn get(endpoint: &str, path: &str, patience: Duration) -> Result<Answer> {
    let address = endpoint.trim_start_matches("http://").to_owned();
    let path = path.to_owned();
    spawn_blocking(move || ask(&address, &path, patience)).await?
}

fn ask(address: &str, path: &str, patience: Duration) -> Result<Answer> {
    let asked = Instant::now();
    let socket: SocketAddr = address.parse()?;
    let mut stream = TcpStream::connect_timeout(&socket, patience)?;
    stream.set_read_timeout(Some(patience))?;
    // 1.0: the answer comes whole, and the connection ends behind it.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    let status = head.split_whitespace().nth(1).context("an answer without a status")?.parse()?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned(), took: asked.elapsed() })
}
