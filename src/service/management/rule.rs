//! What a row of the API demands before its handler is called, and the order in which it is looked at.
//!
//! ```text
//!   phase (503, 520, 403 on a worker) ── who asks (401, 403) ── body (400, 413) ── was it asked before (409, 422)
//!     ── audit: asked (500) ── handler, in a task of its own where something changes ── audit: how it ended ── envelope
//! ```
//!
//! **Invariant:** what changes something goes on when its client leaves.

use std::collections::HashMap;
use std::future::Future;

use axum::body::Body;
use axum::extract::{FromRequestParts as _, RawPathParams, Request};
use http::header::HeaderValue;
use http::{HeaderMap, Response, Uri};
use serde::Serialize;
use serde_json::Value;
use tracing::instrument::WithSubscriber as _;
use uuid::Uuid;

use super::Api;
use super::ask::Ask;
use super::body::{self, BODY_BYTES_MAX, Unread};
use super::caller::{Access, Caller, Door};
use super::codes::code_of;
use super::envelope::{begun, done, error, refused, value_of};
use super::repeats::{self, Asked, Claim, KEY_BYTES_MAX, Kept, Known};
use crate::fleet::api::server::{AuditRecord, EventKind};
use crate::fleet::error::FleetError;
use crate::fleet::management::{Management, Phase};
use crate::support::clock::{rfc3339, unix_micros};
use crate::support::tls::PeerIdentity;

/// Methods of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verb {
    Get,
    Post,
    Put,
    Delete,
}

/// When a row is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// In every phase.
    Always,
    /// Unless the daemon is on its way out: forming and joining a fleet, and what the node itself judges.
    NotStopping,
    /// In a fleet.
    InFleet,
    /// In a fleet, and not on a worker.
    ControlPlane,
}

impl When {
    /// Refuses what is not answered in the node's phase.
    pub(super) fn admit(self, node: &dyn Management) -> Result<(), FleetError> {
        match (self, node.phase()) {
            (When::Always, _) => Ok(()),
            (_, Phase::Stopping) => Err(FleetError::ShuttingDown),
            (When::NotStopping, _) => Ok(()),
            (_, Phase::Uninitialized | Phase::Bootstrapping | Phase::Joining) => {
                Err(FleetError::NotInitialized)
            }
            (_, Phase::Resetting) => {
                Err(FleetError::Unavailable("this node is being reset".to_owned()))
            }
            (_, Phase::Removed) => Err(FleetError::NodeNotInFleet(node.identity().name)),
            (When::ControlPlane, Phase::Worker) => Err(FleetError::OnWorker),
            (When::InFleet | When::ControlPlane, Phase::ControlPlane)
            | (When::InFleet, Phase::Worker) => Ok(()),
        }
    }
}

/// What a row does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Looks.
    Reads,
    /// Changes something: noted in the audit log.
    Changes,
    /// The same, and may be asked for with `Prefer: respond-async`.
    Task,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// Its name: in the audit log, in operations, in the document.
    pub(super) name: &'static str,
    /// What it is for.
    pub(super) summary: &'static str,
    /// Method and path: the contract's, then older names of it.
    pub(super) forms: &'static [(Verb, &'static str)],
    /// Who may ask.
    pub(super) access: Access,
    /// When it is answered.
    pub(super) when: When,
    /// What it does.
    pub(super) kind: Kind,
    /// Statuses beyond those that follow from the rest.
    pub(super) also: &'static [u16],
}

/// What most rows that look have in common: they tell of the fleet, to who is trusted.
pub(super) const LOOKS: Rule = Rule {
    name: "",
    summary: "",
    forms: &[],
    access: Access::Trusted,
    when: When::ControlPlane,
    kind: Kind::Reads,
    also: &[500],
};

/// The same of rows that change something.
pub(super) const CHANGES: Rule = Rule { kind: Kind::Changes, also: &[], ..LOOKS };

impl Rule {
    /// Whether an `Idempotency-Key` counts. Not for a join token: it is good once, whoever shows it again.
    pub(super) fn takes_key(&self) -> bool {
        self.kind != Kind::Reads && self.access != Access::JoinToken
    }
}

/// A request that was let in.
pub(super) struct Call {
    pub(super) api: Api,
    pub(super) caller: Caller,
    pub(super) headers: HeaderMap,
    pub(super) uri: Uri,
    /// What stands in the path's places, by name.
    pub(super) places: HashMap<String, String>,
}

impl Call {
    /// Who answers.
    pub(super) fn node(&self) -> &dyn Management {
        self.api.node()
    }

    /// What stands in the path's place `name`.
    pub(super) fn place(&self, name: &str) -> &str {
        self.places.get(name).map_or("", String::as_str)
    }
}

/// Who asks, by what the connection's task noted on the request.
pub(super) fn caller_of(request: &Request) -> Caller {
    let door = request.extensions().get::<Door>().copied().unwrap_or(Door::Port);
    Caller::new(door, request.extensions().get::<PeerIdentity>())
}

/// Answers one request of a row.
pub(super) async fn perform<A, T, F, Fut>(
    api: Api,
    rule: Rule,
    is_alias: bool,
    request: Request,
    handler: F,
) -> Response<Body>
where
    A: Ask,
    T: Serialize + Send + 'static,
    F: FnOnce(Call, A) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, FleetError>> + Send + 'static,
{
    let id = Uuid::new_v4().to_string();
    let mut answer = match enter::<A>(&api, &rule, request).await {
        Ok(Entered { call, ask, actor, claim }) => {
            let note = Note { rule, actor, object: ask.object(), request_id: id.clone() };
            let wants_operation = rule.kind == Kind::Task && prefers_async(&call.headers);
            let work = async move { handler(call, ask).await.map(|told| value_of(&told)) };
            match rule.kind {
                Kind::Reads => finish(&note, work.await),
                Kind::Task if wants_operation => begin(api, note, claim, work),
                Kind::Changes | Kind::Task => {
                    finish(&note, in_a_task(&api, note.clone(), claim, work).await)
                }
            }
        }
        Err(answer) => answer,
    };
    let headers = answer.headers_mut();
    headers.insert("x-request-id", HeaderValue::from_str(&id).expect("a UUID is a header's text"));
    if is_alias {
        headers.insert("deprecation", HeaderValue::from_static("true"));
    }
    answer
}

/// A request that may be answered now.
struct Entered<A> {
    call: Call,
    ask: A,
    actor: String,
    /// On its `Idempotency-Key`, if it has one.
    claim: Option<Claim>,
}

async fn enter<A: Ask>(
    api: &Api,
    rule: &Rule,
    request: Request,
) -> Result<Entered<A>, Response<Body>> {
    let fail = |why: FleetError| refused(&why);
    let caller = caller_of(&request);
    let (mut parts, body) = request.into_parts();
    rule.when.admit(api.node()).map_err(fail)?;
    let actor = rule.access.admit(&caller, &parts.headers, api.node()).await.map_err(|why| {
        tracing::warn!(operation = rule.name, error = %why, "a management call was not let in");
        fail(why)
    })?;
    let places = RawPathParams::from_request_parts(&mut parts, &())
        .await
        .map_err(|_| error(400, "the path is no text"))?;
    let places = places.iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
    let body = body::read(body).await.map_err(|unread| match unread {
        Unread::TooLong => error(413, &format!("a body may have {BODY_BYTES_MAX} bytes")),
        Unread::Broken(why) => error(400, &format!("failed to read the request: {why}")),
    })?;
    let key = match rule.takes_key() {
        true => key(&parts.headers).map_err(|text| error(400, text))?,
        false => None,
    };
    let asked = key.as_ref().map(|_| Asked::of(&parts, &body));
    let call = Call { api: api.clone(), caller, headers: parts.headers, uri: parts.uri, places };
    let ask = A::read(&call, &body).map_err(fail)?;
    let claim = match key.zip(asked) {
        Some((key, asked)) => {
            Some(claim(api, &actor, key.as_bytes(), asked).map_err(|answer| *answer)?)
        }
        None => None,
    };
    Ok(Entered { call, ask, actor, claim })
}

/// The one `Idempotency-Key` of a request.
fn key(headers: &HeaderMap) -> Result<Option<HeaderValue>, &'static str> {
    let mut keys = headers.get_all(repeats::HEADER).iter();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) if (1..=KEY_BYTES_MAX).contains(&key.len()) => Ok(Some(key.clone())),
        (Some(_), _) => Err("Idempotency-Key is one key of 1 to 255 bytes"),
    }
}

/// The right to do what was asked under a key; or what was answered before.
fn claim(api: &Api, actor: &str, key: &[u8], asked: Asked) -> Result<Claim, Box<Response<Body>>> {
    let refuse = |answer| Err(Box::new(answer));
    let mut answer = match api.repeats().claim(actor, key, asked) {
        Known::New(claim) => return Ok(claim),
        Known::UnderWay => {
            return refuse(error(409, "the request of this Idempotency-Key is under way"));
        }
        Known::Another => {
            return refuse(error(422, "this Idempotency-Key was used for another request"));
        }
        Known::Full => {
            return refuse(refused(&FleetError::Unavailable(
                "too many calls are under way".into(),
            )));
        }
        Known::Answered(Kept::Ended(Ok(metadata))) => done(metadata),
        Known::Answered(Kept::Ended(Err(why))) => refused(&why),
        Known::Answered(Kept::Begun(operation)) => begun(&operation),
    };
    answer.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    refuse(answer)
}

/// RFC 7240.
fn prefers_async(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    preferences
        .flat_map(|value| value.split(','))
        .any(|one| one.trim().eq_ignore_ascii_case("respond-async"))
}

fn finish(note: &Note, outcome: Result<Value, FleetError>) -> Response<Body> {
    match outcome {
        Ok(metadata) => done(metadata),
        Err(why) => {
            if code_of(&why) >= 500 {
                let (operation, id) = (note.rule.name, &note.request_id);
                tracing::warn!(operation, "request-id" = id, error = %why, "a management call failed");
            }
            refused(&why)
        }
    }
}

/// What the audit log has of a call.
#[derive(Clone)]
struct Note {
    rule: Rule,
    actor: String,
    object: String,
    request_id: String,
}

impl Note {
    async fn write(
        &self,
        node: &dyn Management,
        code: u16,
        result: &str,
    ) -> Result<(), FleetError> {
        let record = AuditRecord {
            time: rfc3339(unix_micros()),
            actor: self.actor.clone(),
            operation: self.rule.name.to_owned(),
            object: self.object.clone(),
            result: result.to_owned(),
            code,
            request_id: self.request_id.clone(),
        };
        node.audit().append(&record).await.map_err(|why| {
            tracing::error!(error = %why, "the audit log cannot be written");
            FleetError::Internal(format!("the audit log cannot be written: {why}"))
        })?;
        if code != 0 {
            node.events().publish(EventKind::Audit, value_of(&record));
        }
        Ok(())
    }

    /// Keeps the answer for who asks again under the same key. Who has shown nothing and was refused gets none kept: they
    /// must not drive out others'.
    fn keep(&self, claim: Option<Claim>, outcome: &Result<Value, FleetError>) {
        if let Some(claim) = claim.filter(|_| outcome.is_ok() || !self.rule.access.is_unproven()) {
            claim.end(outcome);
        }
    }

    /// Does `work` between two lines. Who has shown nothing yet gets no line before the call, and none if it was
    /// refused: the log must not be filled by whoever comes by.
    async fn around(
        &self,
        node: &dyn Management,
        work: impl Future<Output = Result<Value, FleetError>>,
    ) -> Result<Value, FleetError> {
        let unproven = self.rule.access.is_unproven();
        if !unproven {
            self.write(node, 0, "asked").await?;
        }
        let outcome = work.await;
        let (code, result) = match &outcome {
            Ok(_) => (200, "done".to_owned()),
            Err(why) => (code_of(why), why.to_string()),
        };
        if !unproven || code == 200 || code >= 500 {
            self.write(node, code, &result).await?;
        }
        outcome
    }
}

/// Runs `work` to its end, also if nobody waits for it any more.
async fn in_a_task(
    api: &Api,
    note: Note,
    claim: Option<Claim>,
    work: impl Future<Output = Result<Value, FleetError>> + Send + 'static,
) -> Result<Value, FleetError> {
    // The clone keeps the daemon's drain waiting.
    let api = api.clone();
    let task = async move {
        let outcome = note.around(api.node(), work).await;
        note.keep(claim, &outcome);
        outcome
    };
    tokio::spawn(task.with_current_subscriber()).await.unwrap_or_else(|died| {
        tracing::error!(error = %died, "a management call died");
        Err(FleetError::Internal("the call died; the daemon's log has more".to_owned()))
    })
}

fn begin(
    api: Api,
    note: Note,
    claim: Option<Claim>,
    work: impl Future<Output = Result<Value, FleetError>> + Send + 'static,
) -> Response<Body> {
    let (operation, row) = match api.operations().begin(note.rule.name, &note.object) {
        Ok(begun) => begun,
        Err(why) => return refused(&why),
    };
    if let Some(claim) = claim {
        claim.begun(&operation);
    }
    let task = async move {
        let outcome = note.around(api.node(), work).await;
        row.end(&outcome);
    };
    drop(tokio::spawn(task.with_current_subscriber()));
    begun(&operation)
}
