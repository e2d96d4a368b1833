//! The rows of `/1.0/` as commands ask them: a request's type in, the answer's metadata out.
//!
//! ```text
//!   path and body ── wire ──> envelope ─┬─ sync   metadata
//!                                       ├─ async  the operation, waited for
//!                                       └─ error  Failure, with what to do where we know it
//! ```
//!
//! **Invariant:** an answer is only believed in its envelope; what is none is a failure that says so.

use std::time::Duration;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::failure::Failure;
use super::wire::{Ask, Opened, Wire};
use crate::fleet::api::server::AnswerKind;
use crate::fleet::api::{Nanos, Sensitive};
use crate::support::go::duration::GoDuration;

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
    wire: Wire,
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
    pub(super) fn new(wire: Wire, timeout: GoDuration) -> Api {
        Api { wire, timeout }
    }

    /// What the command may take, as a request says it.
    pub(super) fn timeout(&self) -> Nanos {
        Nanos::from(self.timeout.to_std())
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path, None, Vec::new()).await
    }

    pub(super) async fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, Failure> {
        self.ask(Method::POST, path, Some(json(body)?), Vec::new()).await
    }

    pub(super) async fn put(&self, path: &str, body: &impl Serialize) -> Result<Value, Failure> {
        self.ask(Method::PUT, path, Some(json(body)?), Vec::new()).await
    }

    pub(super) async fn delete(
        &self,
        path: &str,
        body: Option<Sensitive>,
    ) -> Result<Value, Failure> {
        self.ask(Method::DELETE, path, body, Vec::new()).await
    }

    /// A POST that carries somebody's token in a header.
    pub(super) async fn post_as(
        &self,
        path: &str,
        body: &impl Serialize,
        header: (&'static str, Sensitive),
    ) -> Result<Value, Failure> {
        self.ask(Method::POST, path, Some(json(body)?), vec![header]).await
    }

    /// A POST whose answer is no envelope: its status and body.
    pub(super) async fn bare(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(StatusCode, Value), Failure> {
        let ask = Ask {
            method: Method::POST,
            path: path.to_owned(),
            headers: Vec::new(),
            body: Some(json(body)?),
        };
        let (status, bytes) = self.wire.send(ask).await?;
        let value = serde_json::from_slice(&bytes).map_err(|_| not_an_answer(status))?;
        Ok((status, value))
    }

    /// An answer that goes on.
    pub(super) async fn open(
        &self,
        path: &str,
        headers: Vec<(&'static str, Sensitive)>,
    ) -> Result<Opened, Failure> {
        let ask = Ask { method: Method::GET, path: path.to_owned(), headers, body: None };
        self.wire.open(ask).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Sensitive>,
        headers: Vec<(&'static str, Sensitive)>,
    ) -> Result<Value, Failure> {
        let ask = Ask { method, path: path.to_owned(), headers, body };
        let (status, bytes) = self.wire.send(ask).await?;
        let envelope: Envelope =
            serde_json::from_slice(&bytes).map_err(|_| not_an_answer(status))?;
        match envelope.kind {
            AnswerKind::Sync => Ok(envelope.metadata),
            // Only who asks for it with a header is answered so.
            AnswerKind::Async => Err(Failure::failed(format!(
                "the daemon goes on with it: quorate operation wait {}",
                envelope.operation.rsplit('/').next().unwrap_or_default()
            ))),
            AnswerKind::Error => Err(refused(status, envelope.error)),
        }
    }
}

/// A request's JSON; it may hold a secret.
pub(super) fn json(body: &impl Serialize) -> Result<Sensitive, Failure> {
    serde_json::to_string(body)
        .map(Sensitive::new)
        .map_err(|why| Failure::failed(format!("cannot write the request: {why}")))
}

/// The metadata as the type that the API says it has.
pub(super) fn typed<T: for<'a> Deserialize<'a>>(metadata: &Value) -> Result<T, Failure> {
    T::deserialize(metadata)
        .map_err(|why| Failure::failed(format!("the daemon answers what is not understood: {why}")))
}

/// What an error of this HTTP status and text is to us.
pub(super) fn refused(status: StatusCode, text: String) -> Failure {
    let text =
        if text.is_empty() { format!("the daemon refuses with status {status}") } else { text };
    match status {
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => Failure::NodeTimedOut(text),
        StatusCode::SERVICE_UNAVAILABLE if text.ends_with(TOO_LATE) => Failure::NodeTimedOut(text),
        StatusCode::SERVICE_UNAVAILABLE if text.contains(NOT_YET) => {
            Failure::NotNow(format!("{text}\n{NOT_YET_HELP}"))
        }
        status if status.is_server_error() && status.as_u16() < NODE_NOT_IN_FLEET => {
            Failure::NotNow(text)
        }
        _ => Failure::failed(text),
    }
}

fn not_an_answer(status: StatusCode) -> Failure {
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
        let why = refused(StatusCode::SERVICE_UNAVAILABLE, text.clone());
        assert_eq!((why.code(), why.to_string()), (1, format!("{text}\n{NOT_YET_HELP}")));
        let busy = refused(StatusCode::SERVICE_UNAVAILABLE, "shutting down".to_owned());
        assert_eq!(busy.to_string(), "shutting down");
    }

    #[test]
    fn a_nodes_own_timeout_is_a_timeout() {
        assert_eq!(refused(StatusCode::GATEWAY_TIMEOUT, "too slow".to_owned()).code(), 3);
        let late = FleetError::TimedOut("join").to_string();
        assert_eq!(refused(StatusCode::SERVICE_UNAVAILABLE, late).code(), 3);
        assert_eq!(refused(StatusCode::INTERNAL_SERVER_ERROR, String::new()).code(), 1);
    }
}
