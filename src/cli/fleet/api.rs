//! The rows of `/1.0/` as commands ask them: a request's type in, the answer's metadata out.
//!
//! ```text
//!   path and body ── HTTP ──> envelope ─┬─ sync   metadata
//!                                       ├─ async  the operation, waited for
//!                                       └─ error  Failure, with what to do where we know it
//! ```
//!
//! **Invariant:** an answer is only believed in its envelope; what is none is a failure that says so.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::failure::Failure;
use crate::fleet::api::server::AnswerKind;
use crate::fleet::api::{Nanos, Sensitive};
use crate::support::go::duration::GoDuration;
use crate::support::http_client::{Asking, HttpClient, HttpError, Lines, Target};

/// What a node that is in no fleet says (S0.7), and what helps.
const NOT_YET: &str = "not yet initialized";
const NOT_YET_HELP: &str =
    "form a fleet with: quorate bootstrap\nor join one with: quorate join-cluster TOKEN";

/// What a node says whose time was up.
const TOO_LATE: &str = "did not finish in time";

/// The first of the statuses beyond HTTP's own that say something for good (520, 521).
const NODE_NOT_IN_FLEET: u16 = 520;

/// The node keeps to the `timeout` of a request; this much later nobody waits for its word any more.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// Asks one node.
#[derive(Clone, Debug)]
pub(super) struct Api {
    client: HttpClient,
    socket: PathBuf,
    timeout: GoDuration,
}

/// The envelope's fields that tell anything; what else a daemon puts there is let pass.
#[derive(Debug, Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: AnswerKind,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    metadata: Value,
}

impl Api {
    /// Of the node that listens on `socket`; a command may take `timeout`.
    pub(super) fn new(socket: PathBuf, timeout: GoDuration) -> Api {
        let client = HttpClient::new(Target::Unix(socket.clone()));
        Api { client, socket, timeout }
    }

    /// What the command may take, as a request says it.
    pub(super) fn timeout(&self) -> Nanos {
        Nanos::from(self.timeout.to_std())
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.answer(self.client.get(path)).await
    }

    pub(super) async fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, Failure> {
        self.answer(self.client.post(path).json(body)).await
    }

    pub(super) async fn put(&self, path: &str, body: &impl Serialize) -> Result<Value, Failure> {
        self.answer(self.client.put(path).json(body)).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.answer(self.client.delete(path)).await
    }

    pub(super) async fn delete_with(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Value, Failure> {
        self.answer(self.client.delete(path).json(body)).await
    }

    /// A POST that carries somebody's token in a header.
    pub(super) async fn post_as(
        &self,
        path: &str,
        body: &impl Serialize,
        header: (&'static str, Sensitive),
    ) -> Result<Value, Failure> {
        let (name, token) = header;
        self.answer(self.client.post(path).json(body).header(name, token.reveal())).await
    }

    /// A POST whose answer is no envelope: its status and body.
    pub(super) async fn bare(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(u16, Value), Failure> {
        let (status, bytes) = match self.client.post(path).json(body).send(self.patience()).await {
            Ok(answer) => (answer.status, answer.body),
            Err(HttpError::Status { status, body, .. }) => (status, body),
            Err(why) => return Err(self.failure(why)),
        };
        let value = serde_json::from_slice(&bytes).map_err(|_| not_an_answer(status))?;
        Ok((status, value))
    }

    /// An answer that goes on, line by line.
    pub(super) async fn lines(&self, path: &str) -> Result<Lines, Failure> {
        let patience = self.timeout.to_std();
        self.client.get(path).lines(patience).await.map_err(|why| self.failure(why))
    }

    async fn answer(&self, asking: Asking<'_>) -> Result<Value, Failure> {
        let answer = asking.send(self.patience()).await.map_err(|why| self.failure(why))?;
        let envelope: Envelope =
            serde_json::from_slice(&answer.body).map_err(|_| not_an_answer(answer.status))?;
        match envelope.kind {
            AnswerKind::Sync => Ok(envelope.metadata),
            // Only who asks for it with a header is answered so.
            AnswerKind::Async => Err(Failure::failed(format!(
                "the daemon goes on with it: quorate operation wait {}",
                envelope.operation.rsplit('/').next().unwrap_or_default()
            ))),
            AnswerKind::Error => Err(refused(answer.status, envelope.error)),
        }
    }

    /// A command's own patience ends before.
    fn patience(&self) -> Duration {
        self.timeout.to_std() + 2 * GRACE
    }

    /// What went wrong, in words for whoever runs the command.
    pub(super) fn failure(&self, why: HttpError) -> Failure {
        match why {
            HttpError::Unreachable { why, .. } => {
                Failure::Unreachable { socket: self.socket.clone(), why }
            }
            HttpError::Deadline { .. } => {
                Failure::TimedOut { doing: "the request".to_owned(), after: self.timeout }
            }
            HttpError::Status { status, body, .. } => {
                match serde_json::from_slice::<Envelope>(&body) {
                    Ok(envelope) => refused(status, envelope.error),
                    Err(_) => not_an_answer(status),
                }
            }
            HttpError::Broken { why, .. } => Failure::NotNow(format!(
                "the daemon ended the connection before it answered: {why}"
            )),
            why @ (HttpError::Tls { .. }
            | HttpError::TooLong { .. }
            | HttpError::NotJson { .. }
            | HttpError::Request(_)) => Failure::failed(why.to_string()),
        }
    }
}

/// The metadata as the type that the API says it has.
pub(super) fn typed<T: for<'a> Deserialize<'a>>(metadata: &Value) -> Result<T, Failure> {
    T::deserialize(metadata)
        .map_err(|why| Failure::failed(format!("the daemon answers what is not understood: {why}")))
}

/// What an error of this HTTP status and text is to us.
pub(super) fn refused(status: u16, text: String) -> Failure {
    let text =
        if text.is_empty() { format!("the daemon refuses with status {status}") } else { text };
    match status {
        408 | 504 => Failure::NodeTimedOut(text),
        503 if text.ends_with(TOO_LATE) => Failure::NodeTimedOut(text),
        503 if text.contains(NOT_YET) => Failure::NotNow(format!("{text}\n{NOT_YET_HELP}")),
        500..NODE_NOT_IN_FLEET => Failure::NotNow(text),
        _ => Failure::failed(text),
    }
}

fn not_an_answer(status: u16) -> Failure {
    Failure::failed(format!(
        "what listens there is no Quorate daemon: it answers {status} without an envelope"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::error::FleetError;

    #[test]
    fn who_is_in_no_fleet_is_told_how_to_come_into_one() {
        let text = "daemon not yet initialized".to_owned();
        let why = refused(503, text.clone());
        assert_eq!((why.code(), why.to_string()), (1, format!("{text}\n{NOT_YET_HELP}")));
        let busy = refused(503, "shutting down".to_owned());
        assert_eq!(busy.to_string(), "shutting down");
    }

    #[test]
    fn a_nodes_own_timeout_is_a_timeout() {
        assert_eq!(refused(504, "too slow".to_owned()).code(), 3);
        let late = FleetError::TimedOut("join").to_string();
        assert_eq!(refused(503, late).code(), 3);
        assert_eq!(refused(500, String::new()).code(), 1);
    }
}
