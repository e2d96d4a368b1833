//! Rows of the daemon itself: `/1.0`, its audit log, and the document of all of them.

use axum::routing::get;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::{OperationBuilder, Parameter};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

use super::super::ask::{Ask, List, Nothing, Schemas, in_query, read_query};
use super::super::caller::Access;
use super::super::openapi;
use super::super::rule::{Call, Kind, Rule, Verb, When};
use super::Book;
use crate::fleet::api::server::{AuditRecord, ServerInfo};
use crate::fleet::error::FleetError;
use crate::fleet::management::Phase;

const SERVER: Rule = Rule {
    name: "server",
    summary: "Who answers, and what it is at.",
    forms: &[(Verb::Get, "/1.0")],
    access: Access::Open,
    when: When::Always,
    kind: Kind::Reads,
    also: &[],
};

const AUDIT: Rule = Rule {
    name: "audit",
    summary: "The last calls that changed something on this node, oldest first.",
    forms: &[(Verb::Get, "/1.0/audit")],
    access: Access::Trusted,
    when: When::Always,
    kind: Kind::Reads,
    also: &[500],
};

const DOCUMENT_PATH: &str = "/1.0/openapi.json";

/// What is here beyond the origin's rows.
const EXTENSIONS: [&str; 8] = [
    "operations",
    "events",
    "audit",
    "membership_status",
    "worker_csr",
    "respond_async",
    "join_tokens",
    "idempotency_key",
];

/// Records of an answer, where nobody says how many.
const AUDIT_LIMIT: usize = 100;

/// And at most.
const AUDIT_LIMIT_MAX: usize = 10_000;

pub(super) fn add(book: &mut Book) {
    book.row(SERVER, |call, _: Nothing| async move { Ok(server(&call)) });
    book.row(AUDIT, |call, ask: AuditAsk| async move {
        let tail = call.node().audit().tail(ask.limit).await;
        tail.map(List::<AuditRecord>)
            .map_err(|why| FleetError::Internal(format!("the audit log cannot be read: {why}")))
    });
    book.route(DOCUMENT_PATH, get(document));
    let operation =
        OperationBuilder::new().operation_id(Some("openapi")).summary(Some("This document."));
    let anything = ObjectBuilder::new().schema_type(Type::Object).into();
    book.document.bare(
        Verb::Get,
        DOCUMENT_PATH,
        operation,
        vec![(200, "application/json", anything)],
    );
}

fn server(call: &Call) -> ServerInfo {
    let identity = call.node().identity();
    let trusted = call.caller.is_trusted();
    let phase = call.node().phase();
    let told = |text: String| if trusted { text } else { String::new() };
    ServerInfo {
        api_version: "1.0".to_owned(),
        api_status: "stable".to_owned(),
        auth: if trusted { "trusted" } else { "untrusted" }.to_owned(),
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        phase,
        name: told(identity.name),
        address: told(identity.address),
        ready: matches!(phase, Phase::ControlPlane | Phase::Worker),
        cluster_uid: told(identity.cluster_uid),
        api_extensions: EXTENSIONS.map(str::to_owned).to_vec(),
    }
}

async fn document() -> http::Response<axum::body::Body> {
    let mut answer = http::Response::new(axum::body::Body::from(openapi()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// How many records.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditAsk {
    #[serde(default = "audit_limit")]
    limit: usize,
}

fn audit_limit() -> usize {
    AUDIT_LIMIT
}

impl Ask for AuditAsk {
    fn read(call: &Call, _: &[u8]) -> Result<Self, FleetError> {
        let ask: AuditAsk = read_query(call)?;
        if ask.limit > AUDIT_LIMIT_MAX {
            return Err(FleetError::Invalid(format!("limit is over {AUDIT_LIMIT_MAX}")));
        }
        Ok(ask)
    }

    fn body(_: &mut Schemas) -> Option<RefOr<Schema>> {
        None
    }

    fn query() -> Vec<Parameter> {
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(0))
            .maximum(Some(AUDIT_LIMIT_MAX));
        vec![in_query("limit", "How many records; 100 if not given.", limit)]
    }
}
