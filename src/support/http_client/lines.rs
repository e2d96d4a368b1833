//! An answer that goes on, line by line: events, as `text/event-stream` has them.

use std::fmt;

use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::task::JoinSet;

use super::{ANSWER_BYTES_MAX, HttpClient, HttpError};

/// The lines. Dropping them ends the connection.
pub struct Lines {
    client: HttpClient,
    body: Incoming,
    read: BytesMut,
    /// No line ends before this place.
    searched: usize,
    _driver: JoinSet<()>,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lines({})", self.client.target())
    }
}

impl Lines {
    pub(super) fn of(client: HttpClient, body: Incoming, driver: JoinSet<()>) -> Lines {
        Lines { client, body, read: BytesMut::new(), searched: 0, _driver: driver }
    }

    /// The next line, without its end; `None` once the other side has ended the answer. May be dropped and called
    /// again: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<String>, HttpError> {
        loop {
            if let Some(at) = self.read[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(self.searched + at);
                self.read.advance(1);
                self.searched = 0;
                return Ok(Some(text(&line)));
            }
            self.searched = self.read.len();
            if self.searched > ANSWER_BYTES_MAX {
                return Err(HttpError::TooLong { target: self.client.target().to_string() });
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.read.extend_from_slice(data);
                    }
                }
                Some(Err(why)) => return Err(self.client.broken(&why)),
                None if self.read.is_empty() => return Ok(None),
                None => {
                    self.searched = 0;
                    return Ok(Some(text(&self.read.split())));
                }
            }
        }
    }
}

fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}
