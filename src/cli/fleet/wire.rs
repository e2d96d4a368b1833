//! HTTP to the node's API, over its unix socket.
//!
//! ```text
//!   Ask ── connect ── one request ──> status and body, whole (send) or as it comes (open)
//! ```
//!
//! A connection carries one request: commands ask seldom, and a daemon that restarts meanwhile is met anew.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::failure::Failure;
use crate::fleet::api::Sensitive;
use crate::support::listen::words;

/// The longest answer that is read whole.
const LONGEST: usize = 16 << 20;

/// One request.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    /// With the leading slash and the query.
    pub(super) path: String,
    /// Beside those of HTTP itself; values are secrets.
    pub(super) headers: Vec<(&'static str, Sensitive)>,
    /// JSON.
    pub(super) body: Option<Sensitive>,
}

/// Where a node listens.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    socket: PathBuf,
}

/// An answer whose body is still coming; its connection ends with it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) status: StatusCode,
    pub(super) body: Incoming,
    _connection: JoinSet<()>,
}

impl Wire {
    pub(super) fn new(socket: PathBuf) -> Wire {
        Wire { socket }
    }

    /// Asks, and reads the whole answer.
    pub(super) async fn send(&self, ask: Ask) -> Result<(StatusCode, Bytes), Failure> {
        let Opened { status, body, _connection } = self.open(ask).await?;
        let read = Limited::new(body, LONGEST).collect().await;
        let bytes = read.map_err(|why| hung_up(&why.to_string()))?.to_bytes();
        Ok((status, bytes))
    }

    /// Asks, and leaves the answer's body to the caller.
    pub(super) async fn open(&self, ask: Ask) -> Result<Opened, Failure> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|why| self.unreachable(&why))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|why| hung_up(&why.to_string()))?;
        let mut owner = JoinSet::new();
        // What breaks a connection is told by the request on it.
        owner.spawn(async move { drop(connection.await) });
        let response =
            sender.send_request(request(ask)?).await.map_err(|why| hung_up(&why.to_string()))?;
        let (head, body) = response.into_parts();
        Ok(Opened { status: head.status, body, _connection: owner })
    }

    fn unreachable(&self, why: &io::Error) -> Failure {
        Failure::Unreachable { socket: self.socket.clone(), why: words(why) }
    }
}

fn request(ask: Ask) -> Result<Request<Full<Bytes>>, Failure> {
    let mut builder = Request::builder()
        .method(ask.method)
        .uri(ask.path)
        // The socket has no name of its own; HTTP wants one.
        .header(header::HOST, "localhost");
    for (name, value) in &ask.headers {
        let mut value = http::HeaderValue::from_str(value.reveal())
            .map_err(|_| Failure::usage(format!("the value for {name} does not fit a header")))?;
        value.set_sensitive(true);
        builder = builder.header(*name, value);
    }
    let body = match ask.body {
        Some(json) => {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
            Bytes::copy_from_slice(json.reveal().as_bytes())
        }
        None => Bytes::new(),
    };
    builder.body(Full::new(body)).map_err(|why| Failure::usage(format!("bad request: {why}")))
}

fn hung_up(why: &str) -> Failure {
    Failure::NotNow(format!("the daemon ended the connection before it answered: {why}"))
}
