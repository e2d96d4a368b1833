//! Row `events`: what happens on this node, as server-sent events.
//!
//! ```text
//!   id: 17                    Last-Event-ID: 16 (or ?after=16) goes on after it;
//!   event: progress           neither: from now on;  ?after=0: everything that is kept
//!   data: {"sequence":17,..}
//! ```

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures::stream;
use serde::Deserialize;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::super::Api;
use super::super::ask::{in_query, named};
use super::super::caller::Access;
use super::super::envelope::{refused, value_of};
use super::super::openapi::failure;
use super::super::rule::{Verb, caller_of};
use super::Book;
use crate::fleet::api::server::Event;
use crate::fleet::error::FleetError;
use crate::fleet::events::Follower;
use crate::support::shutdown::Draining;

const PATH: &str = "/1.0/events";

/// A comment is sent this often, so that neither side takes the other for gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn add(book: &mut Book) {
    book.route(PATH, get(answer));
    named::<Event>(book.document.schemas());
    let number =
        || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(i64::MAX));
    let operation = OperationBuilder::new()
        .operation_id(Some("events"))
        .summary(Some("What happens on this node, as server-sent events with an `Event` each."))
        .parameter(in_query(
            "after",
            "Go on after this number; 0: everything that is kept.",
            number(),
        ))
        .parameter(in_query(
            "wait",
            "Whether to wait for more when all is told; true if not given.",
            ObjectBuilder::new().schema_type(Type::Boolean),
        ))
        .parameter(
            ParameterBuilder::new()
                .name("Last-Event-ID")
                .parameter_in(ParameterIn::Header)
                .required(utoipa::openapi::Required::False)
                .description(Some("The same, as a browser says it; `after` goes first."))
                .schema(Some(number()))
                .build(),
        );
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let event = ObjectBuilder::new()
        .property("id", text())
        .property("event", text())
        .property("data", text().description(Some("An `Event`, as JSON.")))
        .required("id")
        .required("event")
        .required("data")
        .into();
    book.document.bare(
        Verb::Get,
        PATH,
        operation,
        vec![
            (200, "text/event-stream", event),
            (400, "application/json", failure(400)),
            (403, "application/json", failure(403)),
        ],
    );
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    after: Option<i64>,
    #[serde(default = "yes")]
    wait: bool,
}

fn yes() -> bool {
    true
}

async fn answer(State(api): State<Api>, request: Request) -> Response {
    let caller = caller_of(&request);
    if let Err(why) = Access::Trusted.admit(&caller, request.headers(), api.node()).await {
        return refused(&why);
    }
    let (after, wait) = match place(&api, &request) {
        Ok(place) => place,
        Err(why) => return refused(&FleetError::Invalid(why)),
    };
    let newest = api.node().events().newest();
    let teller = Teller {
        follower: api.node().events().follow(after),
        draining: api.draining(),
        until: (!wait).then_some(newest),
        last: after,
    };
    let events = stream::unfold(teller, |teller| teller.next());
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// After which number, and whether to wait for more.
fn place(api: &Api, request: &Request) -> Result<(u64, bool), String> {
    let ask = Query::<Ask>::try_from_uri(request.uri())
        .map_err(|why| format!("failed to parse the query: {}", why.body_text()))?
        .0;
    let header = request.headers().get("last-event-id");
    let heard = match header {
        Some(text) => {
            let number = text.to_str().ok().and_then(|text| text.parse::<i64>().ok());
            let number = number.filter(|number| *number >= 0);
            Some(number.ok_or("Last-Event-ID is the number of an event")?)
        }
        None => None,
    };
    match ask.after.or(heard) {
        None => Ok((api.node().events().newest(), ask.wait)),
        Some(after) => {
            let after = u64::try_from(after).map_err(|_| "a number of an event is not below 0")?;
            Ok((after, ask.wait))
        }
    }
}

/// One who follows, until the daemon is on its way out or all was told that was asked for.
struct Teller {
    follower: Follower,
    draining: Draining,
    until: Option<u64>,
    last: u64,
}

impl Teller {
    async fn next(mut self) -> Option<(Result<axum::response::sse::Event, Infallible>, Self)> {
        if self.until.is_some_and(|until| self.last >= until) {
            return None;
        }
        let event = tokio::select! {
            event = self.follower.next() => event,
            () = self.draining.started() => return None,
        };
        self.last = event.sequence;
        let told = axum::response::sse::Event::default()
            .id(event.sequence.to_string())
            .event(event.kind.word())
            .data(value_of(&event).to_string());
        Some((Ok(told), self))
    }
}
