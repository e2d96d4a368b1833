//! What was answered to whom under an `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), so that who did not
//! hear the answer may ask again and nothing is done twice.
//!
//! ```text
//!   actor and key ── never seen: claimed ──> the call ── final ──> its answer is kept
//!                 │                             └─ may be tried again (5xx, died) ──> forgotten
//!                 ├─ the same request, over: the same answer     under way: 409
//!                 └─ another request: 422
//! ```
//!
//! Answers are kept in this daemon's memory: for a day, the last ones, and not over a restart.
//!
//! **Invariant:** who asks again shows the same proofs as before, tokens in headers among them, or hears nothing.
//! **Invariant:** requests are kept as hashes alone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use http::request::Parts;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::codes::code_of;
use crate::fleet::api::server::Operation;
use crate::fleet::error::FleetError;

/// The header.
pub(super) const HEADER: &str = "idempotency-key";

/// A longer key is refused.
pub(super) const KEY_BYTES_MAX: usize = 255;

/// How many answers are kept.
const KEPT: usize = 1024;

/// And how long.
const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Headers that are part of what is asked: proofs, and how the answer is wanted.
const PART_OF_IT: [&str; 5] =
    ["capi-auth-token", "node-token", "worker-name", "worker-token", "prefer"];

/// The answers of one daemon. Clones are the same table.
#[derive(Clone, Debug, Default)]
pub(super) struct Repeats(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    rows: VecDeque<Row>,
    next: u64,
}

#[derive(Debug)]
struct Row {
    number: u64,
    actor: String,
    key: Vec<u8>,
    asked: Asked,
    since: Instant,
    /// `None` while it is under way.
    kept: Option<Kept>,
}

/// What was asked, as its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked([u8; 32]);

/// What was answered.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    /// Done or refused.
    Ended(Result<Value, FleetError>),
    /// Goes on as an operation.
    Begun(Operation),
}

/// What is known of a request with a key.
#[derive(Debug)]
pub(super) enum Known {
    /// Nothing: it is this one's turn.
    New(Claim),
    /// It was answered.
    Answered(Kept),
    /// It is under way.
    UnderWay,
    /// The key was for another request.
    Another,
    /// So many are under way that no more can be remembered.
    Full,
}

/// A key that is taken until it is told what was answered. Dropped before: as if it had never been.
#[derive(Debug)]
pub(super) struct Claim {
    table: Repeats,
    number: u64,
    ended: bool,
}

impl Asked {
    pub(super) fn of(parts: &Parts, body: &[u8]) -> Asked {
        let mut hash = Context::new(&SHA256);
        let mut field = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        field(parts.method.as_str().as_bytes());
        field(parts.uri.to_string().as_bytes());
        for name in PART_OF_IT {
            field(name.as_bytes());
            for value in parts.headers.get_all(name) {
                field(value.as_bytes());
            }
        }
        field(body);
        let mut asked = [0; 32];
        asked.copy_from_slice(hash.finish().as_ref());
        Asked(asked)
    }
}

impl Repeats {
    /// Looks for what `actor` asked under `key`, and takes the key if that is nothing.
    pub(super) fn claim(&self, actor: &str, key: &[u8], asked: Asked) -> Known {
        let now = Instant::now();
        let mut table = self.0.lock();
        table.rows.retain(|row| row.kept.is_none() || now - row.since < KEPT_FOR);
        if let Some(row) = table.rows.iter().find(|row| row.key == key && row.actor == actor) {
            return match &row.kept {
                _ if row.asked != asked => Known::Another,
                None => Known::UnderWay,
                Some(kept) => Known::Answered(kept.clone()),
            };
        }
        if table.rows.len() == KEPT {
            let Some(oldest) = table.rows.iter().position(|row| row.kept.is_some()) else {
                return Known::Full;
            };
            table.rows.remove(oldest);
        }
        let number = table.next;
        table.next += 1;
        let (actor, key) = (actor.to_owned(), key.to_vec());
        table.rows.push_back(Row { number, actor, key, asked, since: now, kept: None });
        Known::New(Claim { table: self.clone(), number, ended: false })
    }
}

impl Claim {
    /// Keeps how the call ended, unless it may be tried again.
    pub(super) fn end(self, outcome: &Result<Value, FleetError>) {
        if !matches!(outcome, Err(why) if code_of(why) >= 500) {
            self.keep(Kept::Ended(outcome.clone()));
        }
    }

    /// Keeps that it goes on.
    pub(super) fn begun(self, operation: &Operation) {
        self.keep(Kept::Begun(operation.clone()));
    }

    fn keep(mut self, kept: Kept) {
        self.ended = true;
        let mut table = self.table.0.lock();
        if let Some(row) = table.rows.iter_mut().find(|row| row.number == self.number) {
            row.kept = Some(kept);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.ended {
            let number = self.number;
            self.table.0.lock().rows.retain(|row| row.number != number);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use serde_json::json;

    use super::*;

    fn asked(path: &str, token: &str, body: &str) -> Asked {
        let request = Request::builder().uri(path).header("capi-auth-token", token);
        Asked::of(&request.body(()).unwrap().into_parts().0, body.as_bytes())
    }

    fn taken(repeats: &Repeats, actor: &str, key: &str) -> Claim {
        match repeats.claim(actor, key.as_bytes(), asked("/", "t", "{}")) {
            Known::New(claim) => claim,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn path_proof_and_body_are_what_is_asked() {
        let plain = asked("/a", "t", "{}");
        assert_eq!(asked("/a", "t", "{}"), plain);
        for other in [asked("/b", "t", "{}"), asked("/a", "u", "{}"), asked("/a", "t", "{} ")] {
            assert_ne!(other, plain);
        }
    }

    #[test]
    fn a_key_is_one_actors_and_one_requests() {
        let repeats = Repeats::default();
        let claim = taken(&repeats, "unix", "k");
        let again = |body| repeats.claim("unix", b"k", asked("/", "t", body));
        assert!(matches!(again("{}"), Known::UnderWay));
        claim.end(&Ok(json!({ "a": 1 })));
        let Known::Answered(Kept::Ended(Ok(told))) = again("{}") else { panic!("it is kept") };
        assert_eq!(told, json!({ "a": 1 }));
        assert!(matches!(again("{ }"), Known::Another));
        drop(taken(&repeats, "capi", "k"));
    }

    #[test]
    fn what_may_be_tried_again_is_not_kept() {
        let repeats = Repeats::default();
        drop(taken(&repeats, "unix", "k"));
        taken(&repeats, "unix", "k").end(&Err(FleetError::NotInitialized));
        taken(&repeats, "unix", "k").end(&Err(FleetError::Immutable("x")));
        let known = repeats.claim("unix", b"k", asked("/", "t", "{}"));
        assert!(matches!(known, Known::Answered(Kept::Ended(Err(FleetError::Immutable("x"))))));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_that_is_over_makes_room_and_after_a_day_all_are_forgotten() {
        let repeats = Repeats::default();
        let under_way = taken(&repeats, "unix", "0");
        for number in 1..=KEPT {
            taken(&repeats, "unix", &number.to_string()).end(&Ok(Value::Null));
        }
        let known = |key: &str| repeats.claim("unix", key.as_bytes(), asked("/", "t", "{}"));
        assert!(matches!(known("0"), Known::UnderWay));
        drop(taken(&repeats, "unix", "1"));
        assert!(matches!(known("3"), Known::Answered(_)));
        tokio::time::advance(KEPT_FOR).await;
        drop(taken(&repeats, "unix", "3"));
        let held: Vec<Claim> =
            (1..KEPT).map(|number| taken(&repeats, "b", &number.to_string())).collect();
        assert!(matches!(known("4"), Known::Full));
        drop((held, under_way));
    }
}
