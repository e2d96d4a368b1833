//! `/internal/join`, `/internal/leave`, `/internal/trust`, `/internal/renew`: between nodes, in the envelope, and in no document: nobody else should ask.

use axum::extract::{Request, State};
use axum::routing::post;

use super::super::Api;
use super::super::ask::{Ask, Null, Schemas, read_body};
use super::super::caller::Access;
use super::super::rule::{Call, Kind, Rule, Verb, When, perform};
use super::Book;
use crate::fleet::api::internal::{JoinAsk, LeaveAsk, RenewAsk, TrustAsk, VERSION};
use crate::fleet::error::FleetError;

const JOIN: Rule = Rule {
    name: "internal-join",
    summary: "Let a node in by its token.",
    forms: &[(Verb::Post, "/internal/join")],
    access: Access::JoinToken,
    when: When::ControlPlane,
    kind: Kind::Changes,
    also: &[],
};

const LEAVE: Rule = Rule {
    name: "internal-leave",
    summary: "Take a node out that asks for it.",
    forms: &[(Verb::Post, "/internal/leave")],
    access: Access::Certificate,
    when: When::ControlPlane,
    kind: Kind::Changes,
    also: &[],
};

/// Asked every few seconds by every worker: not for the audit log.
const TRUST: Rule = Rule {
    name: "internal-trust",
    summary: "Hear what a worker reports of its certificates, and tell whom to trust.",
    forms: &[(Verb::Post, "/internal/trust")],
    access: Access::Certificate,
    when: When::ControlPlane,
    kind: Kind::Reads,
    also: &[],
};

const RENEW: Rule = Rule {
    name: "internal-renew",
    summary: "Sign for a worker in place of its certificate.",
    forms: &[(Verb::Post, "/internal/renew")],
    access: Access::Certificate,
    when: When::ControlPlane,
    kind: Kind::Changes,
    also: &[],
};

pub(super) fn add(book: &mut Book) {
    book.route("/internal/join", post(join));
    book.route("/internal/leave", post(leave));
    book.route("/internal/trust", post(trust));
    book.route("/internal/renew", post(renew));
}

async fn join(State(api): State<Api>, request: Request) -> axum::response::Response {
    perform(api, JOIN, false, request, |call: Call, ask: JoinAsk| async move {
        call.node().admit(ask).await
    })
    .await
}

async fn leave(State(api): State<Api>, request: Request) -> axum::response::Response {
    perform(api, LEAVE, false, request, |call: Call, ask: LeaveAsk| async move {
        let who = call.caller.certificate_name().unwrap_or_default().to_owned();
        call.node().leave(&who, ask).await.map(|()| Null)
    })
    .await
}

async fn trust(State(api): State<Api>, request: Request) -> axum::response::Response {
    perform(api, TRUST, false, request, |call: Call, ask: TrustAsk| async move {
        let who = call.caller.certificate_name().unwrap_or_default().to_owned();
        call.node().hear(&who, ask).await
    })
    .await
}

async fn renew(State(api): State<Api>, request: Request) -> axum::response::Response {
    perform(api, RENEW, false, request, |call: Call, ask: RenewAsk| async move {
        let who = call.caller.certificate_name().unwrap_or_default().to_owned();
        call.node().renew(&who, ask).await
    })
    .await
}

fn check_version(version: u32) -> Result<(), FleetError> {
    if version == VERSION {
        return Ok(());
    }
    Err(FleetError::Invalid(format!("version {version} is not known here; {VERSION} is")))
}

impl Ask for JoinAsk {
    fn read(_: &Call, body: &[u8]) -> Result<Self, FleetError> {
        read_body(body, |ask: &mut Self| check_version(ask.version))
    }

    fn object(&self) -> String {
        self.name.clone()
    }

    fn body(_: &mut Schemas) -> Option<utoipa::openapi::RefOr<utoipa::openapi::Schema>> {
        None
    }
}

macro_rules! ask_of_a_node {
    ($($ask:ty),*) => {$(
        impl Ask for $ask {
            fn read(_: &Call, body: &[u8]) -> Result<Self, FleetError> {
                read_body(body, |ask: &mut Self| check_version(ask.version))
            }

            fn object(&self) -> String {
                self.id.clone()
            }

            fn body(_: &mut Schemas) -> Option<utoipa::openapi::RefOr<utoipa::openapi::Schema>> {
                None
            }
        }
    )*};
}

ask_of_a_node!(LeaveAsk, TrustAsk, RenewAsk);
