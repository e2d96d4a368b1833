//! A client for JSON over HTTP/1.1: on a unix socket, or over TLS.
//!
//! ```text
//!   Target ── connect ── (TLS) ── one request ── answer: 2xx ──> Answer ── json
//!      └────────── within the deadline ──────────┘   └─ else ──> HttpError::Status, with what was said
//!                                                     └─ lines ──> Lines, one after the other, without an end
//! ```
//!
//! One connection a request: requests are seldom, and each is made with certificates as they are then.
//!
//! **Invariant:** over TLS nothing is sent before the other side has been verified, as the [`Connector`] demands.
//! **Invariant:** values of headers and bodies, which may be secret, are in no error and no log line; but for what the
//! other side answers with a refusal.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::listen::words;
use super::tls::{Connector, tls_cause};
use super::urls::split_host_port;

mod error;
mod lines;

#[cfg(test)]
mod http_client_test;

pub use self::error::HttpError;
pub use self::lines::Lines;

/// A longer answer is refused, in bytes. Of lines, a longer one.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Whom to ask.
#[derive(Clone, Debug)]
pub enum Target {
    /// Whoever answers on the socket file: who may open it is trusted, and is not verified.
    Unix(PathBuf),
    /// Whoever answers at `address` (`host:port`), if `connector` is content with it.
    Tls {
        /// Where.
        address: String,
        /// Whom to accept, and what to show.
        connector: Connector,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
            Target::Tls { address, .. } => write!(f, "https://{address}"),
        }
    }
}

/// Asks one target. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpClient {
    target: Target,
}

/// A request that is being put together.
#[derive(Debug)]
#[must_use = "nothing is asked before it is sent"]
pub struct Asking<'a> {
    client: &'a HttpClient,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Body,
    wrong: Option<&'static str>,
}

/// Debug does not show it.
#[derive(Default)]
struct Body(Bytes);

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What was answered, with a status of 200 to 299.
#[derive(Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// What was said.
    pub body: Bytes,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {} bytes)", self.status, self.body.len())
    }
}

impl Answer {
    /// What was said, as JSON. The error does not quote it.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        serde_json::from_slice(&self.body)
            .map_err(|why| HttpError::NotJson { line: why.line(), column: why.column() })
    }
}

impl HttpClient {
    /// One that asks `target`.
    pub fn new(target: Target) -> HttpClient {
        HttpClient { target }
    }

    /// Whom it asks.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// A request for `path`, which begins with a slash and may have a query.
    pub fn ask(&self, method: Method, path: &str) -> Asking<'_> {
        Asking {
            client: self,
            method,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Body::default(),
            wrong: None,
        }
    }

    /// `GET`.
    pub fn get(&self, path: &str) -> Asking<'_> {
        self.ask(Method::GET, path)
    }

    /// `POST`.
    pub fn post(&self, path: &str) -> Asking<'_> {
        self.ask(Method::POST, path)
    }

    /// `PUT`.
    pub fn put(&self, path: &str) -> Asking<'_> {
        self.ask(Method::PUT, path)
    }

    /// `DELETE`.
    pub fn delete(&self, path: &str) -> Asking<'_> {
        self.ask(Method::DELETE, path)
    }

    fn host(&self) -> &str {
        match &self.target {
            Target::Unix(_) => "localhost",
            Target::Tls { address, .. } => address,
        }
    }

    fn unreachable(&self, why: String) -> HttpError {
        HttpError::Unreachable { target: self.target.to_string(), why }
    }

    /// The answer's head, and the task that reads the rest.
    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, JoinSet<()>), HttpError> {
        match &self.target {
            Target::Unix(path) => {
                let wire = UnixStream::connect(path).await;
                let wire = wire.map_err(|why| self.unreachable(words(&why)))?;
                self.over(wire, request).await
            }
            Target::Tls { address, connector } => {
                let (host, _) = split_host_port(address).map_err(|why| self.unreachable(why))?;
                let wire = TcpStream::connect(address.as_str()).await;
                let wire = wire.map_err(|why| self.unreachable(words(&why)))?;
                let wire = connector.connect(&host, wire).await.map_err(|why| HttpError::Tls {
                    target: self.target.to_string(),
                    why: why.to_string(),
                })?;
                self.over(wire, request).await
            }
        }
    }

    async fn over<W>(
        &self,
        wire: W,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, JoinSet<()>), HttpError>
    where
        W: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let broken = |why: hyper::Error| self.broken(&why);
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(wire)).await.map_err(broken)?;
        let mut driver = JoinSet::new();
        let (tell, told) = oneshot::channel();
        driver.spawn(async move {
            // Whoever waits for the answer hears how it ended; later nobody asks.
            let _ = tell.send(connection.await);
        });
        let asked = sender.send_request(request);
        // What is handed over in the moment in which the connection ends is let go with the last who could hand over
        // more: whoever kept that would wait for ever.
        drop(sender);
        match asked.await {
            Ok(response) => Ok((response, driver)),
            // It ended before anything was asked: why, its task alone knows.
            Err(why) if why.is_canceled() => match told.await {
                Ok(Err(cause)) => Err(self.broken(&cause)),
                Ok(Ok(())) | Err(_) => Err(self.broken(&why)),
            },
            Err(why) => Err(self.broken(&why)),
        }
    }

    /// The other side's verdict on a certificate comes with the first read.
    fn broken(&self, why: &(dyn std::error::Error + 'static)) -> HttpError {
        let target = self.target.to_string();
        match tls_cause(why) {
            Some(why) => HttpError::Tls { target, why },
            None => HttpError::Broken { target, why: innermost(why) },
        }
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

impl<'a> Asking<'a> {
    /// With this header; its value is shown nowhere.
    pub fn header(mut self, name: &'static str, value: &str) -> Asking<'a> {
        match HeaderValue::from_str(value) {
            Ok(mut value) => {
                value.set_sensitive(true);
                self.headers.insert(HeaderName::from_static(name), value);
            }
            Err(_) => self.wrong = Some(name),
        }
        self
    }

    /// With this body.
    pub fn json<T: Serialize>(mut self, body: &T) -> Asking<'a> {
        match serde_json::to_vec(body) {
            Ok(json) => self.body = Body(json.into()),
            Err(_) => self.wrong = Some("body"),
        }
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self
    }

    fn request(self) -> Result<(&'a HttpClient, Request<Full<Bytes>>), HttpError> {
        if let Some(wrong) = self.wrong {
            return Err(HttpError::Request(format!("the {wrong} cannot be sent")));
        }
        let request = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header(HOST, self.client.host())
            .body(Full::new(self.body.0));
        let mut request = request.map_err(|why| HttpError::Request(why.to_string()))?;
        request.headers_mut().extend(self.headers);
        Ok((self.client, request))
    }

    /// Asks, and waits for all of the answer until `deadline` has passed. A status other than 200 to 299 is an error.
    pub async fn send(mut self, deadline: Duration) -> Result<Answer, HttpError> {
        self.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let (client, request) = self.request()?;
        let late = || HttpError::Deadline { target: client.target.to_string() };
        let asked = async {
            let (response, driver) = client.exchange(request).await?;
            let answer = client.whole(response).await;
            drop(driver);
            answer
        };
        timeout_at(Instant::now() + deadline, asked).await.unwrap_or_else(|_elapsed| Err(late()))
    }

    /// Asks for an answer that goes on, line by line; waits for its beginning until `deadline` has passed.
    pub async fn lines(mut self, deadline: Duration) -> Result<Lines, HttpError> {
        self.headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        let (client, request) = self.request()?;
        let late = || HttpError::Deadline { target: client.target.to_string() };
        let asked = async {
            let (response, driver) = client.exchange(request).await?;
            match response.status().is_success() {
                true => Ok(Lines::of(client.clone(), response.into_body(), driver)),
                false => Err(client.whole(response).await.err().unwrap_or_else(late)),
            }
        };
        timeout_at(Instant::now() + deadline, asked).await.unwrap_or_else(|_elapsed| Err(late()))
    }
}

impl HttpClient {
    async fn whole(&self, response: Response<Incoming>) -> Result<Answer, HttpError> {
        let status: StatusCode = response.status();
        let read = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = read.map_err(|why| match why.is::<LengthLimitError>() {
            true => HttpError::TooLong { target: self.target.to_string() },
            false => self.broken(why.as_ref()),
        })?;
        let (status, body) = (status.as_u16(), body.to_bytes());
        match (200..300).contains(&status) {
            true => Ok(Answer { status, body }),
            false => Err(HttpError::Status { target: self.target.to_string(), status, body }),
        }
    }
}
