//! What the gateway answers: messages and refusals as JSON, with the HTTP status of their gRPC code (grpc-gateway
//! `runtime/errors.go`, `runtime/handler.go`).

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use tonic::body::Body;
use tonic::{Code, Status};

use super::schema::Message;
use super::write::{Escapes, write, write_string};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The one head of metadata that a call with an answer has; one that only ends has none.
const INNER_KIND: HeaderName = HeaderName::from_static("grpc-metadata-content-type");

/// The HTTP status of a gRPC code.
fn http_status(code: Code) -> StatusCode {
    let number = match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::Aborted | Code::AlreadyExists => 409,
        Code::ResourceExhausted => 429,
        Code::Cancelled => 499,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
    };
    StatusCode::from_u16(number).expect("these are statuses")
}

/// `google.rpc.Status` as JSON; etcd's carry no details.
fn error_text(status: &Status, escapes: Escapes) -> String {
    let mut text = format!("{{\"code\":{}", status.code() as i32);
    if !status.message().is_empty() {
        text.push_str(",\"message\":");
        write_string(status.message(), escapes, &mut text);
    }
    text.push('}');
    text
}

fn answer(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    if status == StatusCode::OK {
        let kind = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(INNER_KIND, kind);
    }
    response
}

/// A refused call.
pub(super) fn refusal(status: &Status) -> Response<Body> {
    let text = error_text(status, Escapes::Needed);
    let mut response = answer(http_status(status.code()), Body::new(Full::from(text)));
    if status.code() == Code::Unauthenticated
        && let Ok(why) = HeaderValue::try_from(status.message())
    {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, why);
    }
    response
}

/// One answered message.
pub(super) fn message(shape: &Message, bytes: &[u8]) -> Response<Body> {
    let mut text = String::with_capacity(bytes.len() * 2);
    match write(shape, bytes, Escapes::Needed, &mut text) {
        Ok(()) => answer(StatusCode::OK, Body::new(Full::from(text))),
        Err(why) => refusal(&Status::internal(why.to_string())),
    }
}

/// One line of a stream: a message, or how it ended.
pub(super) fn line(shape: &Message, item: Result<Bytes, Status>) -> Line {
    let written = item.and_then(|bytes| {
        let mut text = String::with_capacity(bytes.len() * 2 + 16);
        text.push_str("{\"result\":");
        let result = write(shape, &bytes, Escapes::Html, &mut text);
        result.map_err(|why| Status::internal(why.to_string()))?;
        text.push_str("}\n");
        Ok(text)
    });
    match written {
        Ok(text) => Line { text: text.into(), status: StatusCode::OK, last: false },
        Err(status) => {
            let mut text = String::new();
            writeln!(text, "{{\"error\":{}}}", error_text(&status, Escapes::Html))
                .expect("writing to a string");
            Line { text: text.into(), status: http_status(status.code()), last: true }
        }
    }
}

/// A line, and what it makes of the answer if it is the first.
pub(super) struct Line {
    pub(super) text: Bytes,
    pub(super) status: StatusCode,
    /// The stream has failed.
    pub(super) last: bool,
}

/// An answer whose lines are still to come; `first` is the status of the first.
pub(super) fn stream(first: StatusCode, body: Body) -> Response<Body> {
    answer(first, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_statuses_in_json() {
        let why = Status::new(Code::InvalidArgument, "a \"b\" <c>");
        assert_eq!(error_text(&why, Escapes::Needed), r#"{"code":3,"message":"a \"b\" <c>"}"#);
        let escaped = r#"{"code":3,"message":"a \"b\" \u003cc\u003e"}"#;
        assert_eq!(error_text(&why, Escapes::Html), escaped);
        assert_eq!(error_text(&Status::new(Code::Unknown, ""), Escapes::Html), r#"{"code":2}"#);
        let status = refusal(&Status::unauthenticated("etcdserver: invalid auth token"));
        assert_eq!(status.status(), 401);
        assert_eq!(status.headers()["www-authenticate"], "etcdserver: invalid auth token");
    }
}
