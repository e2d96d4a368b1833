//! LXD's envelope around answers (`shared/api/response.go`).
//!
//! ```text
//!   done:    200 {type: sync,  status: Success,           status_code: 200, metadata}
//!   begun:   202 {type: async, status: Operation created, status_code: 100, operation: /1.0/operations/<uuid>, metadata}
//!   refused: xxx {type: error, error_code: xxx, error}
//! ```

use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

use super::codes::{code_of, status_of};
use crate::fleet::api::server::{AnswerKind, Envelope, Operation};
use crate::fleet::error::FleetError;

/// Where an operation is asked for.
pub(super) fn operation_url(id: &str) -> String {
    format!("/1.0/operations/{id}")
}

/// Done.
pub(super) fn done(metadata: Value) -> Response<Body> {
    json(
        StatusCode::OK,
        &Envelope {
            kind: AnswerKind::Sync,
            status: "Success".to_owned(),
            status_code: 200,
            operation: String::new(),
            error_code: 0,
            error: String::new(),
            metadata,
        },
    )
}

/// Begun.
pub(super) fn begun(operation: &Operation) -> Response<Body> {
    let url = operation_url(&operation.id);
    let mut answer = json(
        StatusCode::ACCEPTED,
        &Envelope {
            kind: AnswerKind::Async,
            status: "Operation created".to_owned(),
            status_code: 100,
            operation: url.clone(),
            error_code: 0,
            error: String::new(),
            metadata: value_of(operation),
        },
    );
    let place = HeaderValue::from_str(&url).expect("a path of letters and digits");
    answer.headers_mut().insert(LOCATION, place);
    answer
}

/// Refused or failed.
pub(super) fn refused(why: &FleetError) -> Response<Body> {
    error(code_of(why), &why.to_string())
}

/// Refused with a status of HTTP's own.
pub(super) fn error(code: u16, text: &str) -> Response<Body> {
    json(
        status_of(code),
        &Envelope {
            kind: AnswerKind::Error,
            status: String::new(),
            status_code: 0,
            operation: String::new(),
            error_code: code,
            error: text.to_owned(),
            metadata: Value::Null,
        },
    )
}

/// A bare answer.
pub(super) fn json<T: Serialize>(status: StatusCode, body: &T) -> Response<Body> {
    let text = serde_json::to_vec(body).expect("maps with text keys and plain values");
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// As a JSON value.
pub(super) fn value_of<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("maps with text keys and plain values")
}
