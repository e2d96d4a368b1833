//! Rows `operations…`: what goes on while nobody waits for it.

use std::time::Duration;

use serde::Deserialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

use super::super::ask::{Ask, List, Nothing, Null, Schemas, in_query, read_query};
use super::super::caller::Access;
use super::super::rule::{Call, Kind, Rule, Verb, When};
use super::Book;
use crate::fleet::error::FleetError;

const LIST: Rule = Rule {
    name: "operations",
    summary: "The operations of this daemon, oldest first.",
    forms: &[(Verb::Get, "/1.0/operations")],
    access: Access::Trusted,
    when: When::Always,
    kind: Kind::Reads,
    also: &[],
};

const GET: Rule = Rule {
    name: "operation",
    summary: "One operation.",
    forms: &[(Verb::Get, "/1.0/operations/{id}")],
    also: &[404],
    ..LIST
};

const WAIT: Rule = Rule {
    name: "operation-wait",
    summary: "One operation, once it is over or the time is.",
    forms: &[(Verb::Get, "/1.0/operations/{id}/wait")],
    also: &[404],
    ..LIST
};

const FORGET: Rule = Rule {
    name: "operation-delete",
    summary: "Forget one operation that is over.",
    forms: &[(Verb::Delete, "/1.0/operations/{id}")],
    also: &[404, 409],
    ..LIST
};

/// Nobody waits longer.
const WAIT_MAX: i64 = 24 * 60 * 60;

pub(super) fn add(book: &mut Book) {
    book.row(LIST, |call, _: Nothing| async move { Ok(List(call.api.operations().list())) });
    book.row(GET, |call, _: Nothing| async move { call.api.operations().get(call.place("id")) });
    book.row(WAIT, |call, ask: WaitAsk| async move {
        let (mut draining, id) = (call.api.draining(), call.place("id"));
        tokio::select! {
            biased;
            over = call.api.operations().wait(id, ask.patience()) => over,
            () = draining.started() => call.api.operations().get(id),
        }
    });
    book.row(FORGET, |call, _: Nothing| async move {
        call.api.operations().forget(call.place("id")).map(|()| Null)
    });
}

/// How long, in seconds; -1 or nothing: as long as it takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitAsk {
    #[serde(default = "for_ever")]
    timeout: i64,
}

fn for_ever() -> i64 {
    -1
}

impl WaitAsk {
    fn patience(&self) -> Option<Duration> {
        u64::try_from(self.timeout).ok().map(Duration::from_secs)
    }
}

impl Ask for WaitAsk {
    fn read(call: &Call, _: &[u8]) -> Result<Self, FleetError> {
        let ask: WaitAsk = read_query(call)?;
        if !(-1..=WAIT_MAX).contains(&ask.timeout) {
            let why = format!("timeout is seconds up to {WAIT_MAX}, or -1");
            return Err(FleetError::Invalid(why));
        }
        Ok(ask)
    }

    fn body(_: &mut Schemas) -> Option<RefOr<Schema>> {
        None
    }

    fn query() -> Vec<Parameter> {
        let timeout = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(-1))
            .maximum(Some(WAIT_MAX));
        vec![in_query("timeout", "Seconds; -1 or not given: as long as it takes.", timeout)]
    }
}
