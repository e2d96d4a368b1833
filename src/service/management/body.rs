//! Bodies, read strictly: one JSON value of the row's shape, nothing before or after it, and not too long.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::fleet::error::FleetError;

/// Longer bodies are refused: no request needs it.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;

/// A body that does not come is not waited for.
const BODY_PATIENCE: Duration = Duration::from_secs(30);

/// Why a body was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// 413.
    TooLong,
    /// 400.
    Broken(String),
}

/// Reads the whole body.
pub(super) async fn read(body: Body) -> Result<Bytes, Unread> {
    let collecting = tokio::time::timeout(BODY_PATIENCE, collect(body));
    collecting.await.unwrap_or_else(|_| Err(Unread::Broken("it did not come in time".to_owned())))
}

async fn collect(mut body: Body) -> Result<Bytes, Unread> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|why| Unread::Broken(why.to_string()))?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > BODY_BYTES_MAX {
                return Err(Unread::TooLong);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

/// Reads the one value. An unknown field, a wrong type, nothing at all and anything after the value are
/// [`FleetError::Invalid`].
pub(super) fn parse<T: DeserializeOwned + Serialize>(body: &[u8]) -> Result<T, FleetError> {
    let invalid = |why: String| FleetError::Invalid(format!("failed to parse request: {why}"));
    let read: T = serde_json::from_slice(body).map_err(|why| invalid(why.to_string()))?;
    let given: Value = serde_json::from_slice(body).map_err(|why| invalid(why.to_string()))?;
    let understood = serde_json::to_value(&read).map_err(|why| invalid(why.to_string()))?;
    if has_list_for_object(&given, &understood) {
        return Err(invalid("a list stands where an object should".to_owned()));
    }
    Ok(read)
}

/// Serde takes a list of a struct's values for the struct. JSON's users do not.
fn has_list_for_object(given: &Value, understood: &Value) -> bool {
    match (given, understood) {
        (Value::Array(_), Value::Object(_)) => true,
        (Value::Object(given), Value::Object(understood)) => given.iter().any(|(name, given)| {
            understood.get(name).is_some_and(|understood| has_list_for_object(given, understood))
        }),
        (Value::Array(given), Value::Array(understood)) => {
            given.iter().zip(understood).any(|(given, read)| has_list_for_object(given, read))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::api::cluster::{BootstrapRequest, RemoveRequest};

    #[test]
    fn only_one_value_of_the_rows_shape_is_taken() {
        assert!(parse::<RemoveRequest>(br#" {"name":"n1","force":true} "#).is_ok());
        for bad in [
            "",
            "null",
            "[]",
            "{",
            r#"{"name":"n1"} {}"#,
            r#"{"name":"n1"}x"#,
            r#"{"nome":"n1"}"#,
            r#"{"name":1}"#,
            r#"{"name":"n1","name":"n2"}"#,
            r#"{"timeout":"90s"}"#,
            r#"{"timeout":1.5}"#,
            "{\"name\":\"\u{0}\"}",
        ] {
            let why = parse::<RemoveRequest>(bad.as_bytes()).expect_err(bad).to_string();
            assert!(why.starts_with("failed to parse request: "), "{bad}: {why}");
        }
        for bad in [r#"{"config":{"cluster-config":{"dns":[true]}}}"#, r#"{"config":[]}"#] {
            assert!(parse::<BootstrapRequest>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_not_read_to_its_end() {
        assert_eq!(
            read(Body::from(vec![b' '; BODY_BYTES_MAX])).await.unwrap().len(),
            BODY_BYTES_MAX
        );
        assert_eq!(read(Body::from(vec![b' '; BODY_BYTES_MAX + 1])).await, Err(Unread::TooLong));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let endless =
            Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        assert!(matches!(read(endless).await, Err(Unread::Broken(_))));
    }
}
