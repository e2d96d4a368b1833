//! Every row in every form against `tests/testdata/management/*.json` (A0.4), and the document against what was seen:
//! a status that is documented and never answered, or the other way round, is a fault.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower_service::Service as _;

use self::golden::{Case, Needs, Row, Trust, differences, rows};
use super::body::BODY_BYTES_MAX;
use super::caller::Door;
use super::double::{Double, RIGHT, refusal};
use super::{ManagementDesk, openapi};
use crate::fleet::error::FleetError;
use crate::fleet::management::Phase;
use crate::support::shutdown::Drain;
use crate::support::tls::PeerIdentity;

#[path = "../../../tests/management/golden.rs"]
mod golden;

/// What came of one request.
struct Seen {
    status: u16,
    body: Value,
    calls: Vec<(&'static str, Value)>,
    headers: http::HeaderMap,
}

fn identity(organisation: &str) -> PeerIdentity {
    PeerIdentity {
        common_name: Some("who".to_owned()),
        organisations: vec![organisation.to_owned()],
    }
}

/// A node that does as the case says, and its API.
struct Asked {
    _folder: tempfile::TempDir,
    double: Arc<Double>,
    desk: ManagementDesk,
    _drain: Drain,
}

/// Asks a fresh node.
async fn ask(form: &str, case: &Case) -> Seen {
    fresh(case).send(form, case).await
}

fn fresh(case: &Case) -> Asked {
    let folder = tempfile::tempdir().unwrap();
    let phase = serde_json::from_value(json!(case.phase)).expect("a phase of the API");
    let double = Double::new(phase, folder.path());
    match &case.node {
        None => {}
        Some(node) if node.get("ill").is_some() => double.fall_ill(node["ill"].as_str().unwrap()),
        Some(node) => match node.get("error").and_then(Value::as_str) {
            Some(name) => {
                let text = node.get("text").and_then(Value::as_str).unwrap_or_default();
                double.answer_with(Err(refusal(name, text)));
            }
            None => double.answer_with(Ok(node["answer"].clone())),
        },
    }
    let drain = Drain::default();
    let desk = ManagementDesk::new(double.clone(), drain.join().unwrap());
    Asked { _folder: folder, double, desk, _drain: drain }
}

impl Asked {
    async fn send(&self, form: &str, case: &Case) -> Seen {
        let answer = self.desk.router.clone().call(request(form, case)).await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Seen { status, body, calls: self.double.calls(), headers }
    }
}

fn request(form: &str, case: &Case) -> Request<Body> {
    let (method, path) = form.split_once(' ').unwrap();
    let query = if case.query.is_empty() { String::new() } else { format!("?{}", case.query) };
    let mut request = Request::builder().method(method).uri(format!("{path}{query}"));
    for (name, text) in &case.headers {
        request = request.header(name, text);
    }
    let body = match (&case.raw, &case.body) {
        (Some(raw), _) => raw.clone(),
        (None, Some(body)) => body.to_string(),
        (None, None) => String::new(),
    };
    let mut request = request.body(Body::from(body)).unwrap();
    let (door, shown) = match case.door.as_str() {
        "socket" => (Door::Socket, None),
        "admin" => (Door::Port, Some("quorate:admin")),
        "node" => (Door::Port, Some("quorate:control-plane")),
        "worker" => (Door::Port, Some("quorate:worker")),
        "stranger" => (Door::Port, None),
        other => panic!("no door is called {other}"),
    };
    request.extensions_mut().insert(door);
    if let Some(organisation) = shown {
        request.extensions_mut().insert(identity(organisation));
    }
    request
}

/// Everything that was seen, and what was wrong with it.
#[derive(Default)]
struct Ledger {
    seen: BTreeSet<(String, u16)>,
    faults: Vec<String>,
    requests: usize,
}

impl Ledger {
    async fn check(&mut self, row: &Row, form: &str, case: &Case) {
        let seen = ask(form, case).await;
        self.requests += 1;
        let mut found = Vec::new();
        if seen.status != case.status {
            found.push(format!("status: wanted {}, got {}", case.status, seen.status));
        }
        differences(&case.answer, &seen.body, "answer", &mut found);
        match &case.asked {
            None => {}
            Some(Value::Null) if seen.calls.is_empty() => {}
            Some(want) => {
                let got: Vec<Value> =
                    seen.calls.iter().map(|(c, asked)| json!([c, asked])).collect();
                match got.as_slice() {
                    [got] => differences(want, got, "asked", &mut found),
                    more => found.push(format!("asked: wanted {want}, got {more:?}")),
                }
            }
        }
        let kind = seen.headers.get("content-type").and_then(|kind| kind.to_str().ok());
        if kind != Some("application/json") {
            found.push(format!("content-type: {kind:?}"));
        }
        if seen.status == 405 && !seen.headers.contains_key("allow") {
            found.push("405 without Allow".to_owned());
        }
        self.faults.extend(found.iter().map(|fault| format!("{form}: {}: {fault}", case.claim)));
        if row.documented {
            self.seen.insert((form.to_owned(), seen.status));
        }
    }
}

impl Ledger {
    /// What an `Idempotency-Key` does to a row that changes something.
    async fn check_key(&mut self, form: &str, plain: &Case) {
        let with = |key: &str, query: &str| {
            let mut case = plain.clone();
            case.headers.insert("Idempotency-Key".to_owned(), key.to_owned());
            query.clone_into(&mut case.query);
            case
        };
        let mut fault = |fault: &str| self.faults.push(format!("{form}: with a key: {fault}"));
        let node = fresh(plain);
        let first = node.send(form, &with("k", "")).await;
        let again = node.send(form, &with("k", "")).await;
        if (first.status, &first.body) != (again.status, &again.body) || again.calls.len() != 1 {
            fault("the same is asked twice, or answered otherwise");
        }
        let replayed = |seen: &Seen| seen.headers.contains_key("idempotent-replayed");
        if replayed(&first) || !replayed(&again) {
            fault("it is not told that an answer is an old one");
        }
        let another = node.send(form, &with("k", "another=1")).await;
        let own = node.send(form, &with("l", "another=1")).await;
        if another.status != 422 || another.calls.len() != 1 || own.calls.len() != 2 {
            fault("another request under the same key is not refused, or under its own is");
        }
        for bad in ["", &"k".repeat(256)] {
            if node.send(form, &with(bad, "")).await.status != 400 {
                fault("a key that is none is taken");
            }
        }
        let node = fresh(plain);
        let gate = node.double.hold_calls();
        let asked = with("k", "");
        let under_way = node.send(form, &asked);
        let meanwhile = async {
            while node.double.calls().is_empty() {
                tokio::task::yield_now().await;
            }
            let early = node.send(form, &asked).await;
            gate.notify_one();
            early
        };
        let (late, early) = tokio::join!(under_way, meanwhile);
        if (late.status, early.status) != (plain.status, 409) || late.calls.len() != 1 {
            fault("the same is asked while it is under way");
        }
        self.requests += 7;
        self.seen.extend([409, 422].map(|code| (form.to_owned(), code)));
    }
}

fn error_answer(code: u16, text: &str) -> Value {
    json!({
        "type": "error", "status": "", "status_code": 0, "operation": "", "error_code": code, "error": text,
        "metadata": null,
    })
}

/// What follows from the row's own fields, as cases made of its first one.
fn promised(row: &Row) -> Vec<Case> {
    let plain = &row.cases[0];
    let mut cases = Vec::new();
    let mut add = |claim: &str, status: u16, text: &str, change: &dyn Fn(&mut Case)| {
        let mut case = plain.clone();
        case.claim = claim.to_owned();
        case.status = status;
        case.answer = error_answer(status, text);
        case.asked = Some(Value::Null);
        change(&mut case);
        cases.push(case);
    };
    let phase = |phase: &'static str| move |case: &mut Case| phase.clone_into(&mut case.phase);
    if matches!(row.needs, Needs::ControlPlane | Needs::Fleet) {
        for early in ["uninitialized", "bootstrapping", "joining"] {
            add("before init it is not answered", 503, "daemon not yet initialized", &phase(early));
        }
        let text = "this node is being reset";
        add("while it is reset it is not answered", 503, text, &phase("resetting"));
        let text = "node \"n1\" is not part of the cluster";
        add("a removed node does not answer it", 520, text, &phase("removed"));
    }
    if row.needs == Needs::ControlPlane {
        let text = "this action is not allowed on worker nodes";
        add("a worker does not answer it", 403, text, &phase("worker"));
    }
    if row.needs != Needs::Always {
        let text = "daemon is shutting down";
        add("on the way out it is not answered", 503, text, &phase("stopping"));
    }
    match row.trust {
        Trust::Open => {}
        Trust::Trusted => {
            for door in ["stranger", "worker"] {
                add("who is not trusted is refused", 403, "not authorized", &|case| {
                    door.clone_into(&mut case.door);
                });
            }
        }
        Trust::Capi | Trust::Node | Trust::Worker => add_header_cases(row.trust, &mut add),
    }
    if plain.body.is_some() && row.envelope {
        add_body_cases(&mut add);
    }
    cases
}

type Add<'a> = dyn FnMut(&str, u16, &str, &dyn Fn(&mut Case)) + 'a;

fn add_header_cases(trust: Trust, add: &mut Add<'_>) {
    let name = match trust {
        Trust::Capi => "capi-auth-token",
        Trust::Node => "node-token",
        Trust::Worker => "Worker-Token",
        Trust::Trusted | Trust::Open => return,
    };
    let text = format!("missing header {}", name.to_lowercase());
    add("without the header it is refused, also on the socket", 401, &text, &|case| {
        case.headers.remove(name);
        "socket".clone_into(&mut case.door);
    });
    if trust != Trust::Worker {
        add("another token does not count", 401, &format!("invalid {name}"), &|case| {
            case.headers.insert(name.to_owned(), format!("{RIGHT}x"));
        });
    }
}

fn add_body_cases(add: &mut Add<'_>) {
    add("an unknown field is refused", 400, "*", &|case| {
        case.body.as_mut().unwrap()["unknown-field"] = json!(1);
    });
    add("bytes after the value are refused", 400, "*", &|case| {
        case.raw = Some(format!("{} x", case.body.as_ref().unwrap()));
    });
    add("what is no JSON is refused", 400, "*", &|case| case.raw = Some("{".to_owned()));
    add("a list is no request", 400, "*", &|case| case.raw = Some("[]".to_owned()));
    let text = format!("a body may have {BODY_BYTES_MAX} bytes");
    add("a body over the limit is refused", 413, &text, &|case| {
        case.raw = Some(" ".repeat(BODY_BYTES_MAX + 1));
    });
}

/// Faults of the node, for the rows that ask it.
fn failures(row: &Row) -> Vec<Case> {
    let plain = &row.cases[0];
    if !row.envelope || plain.asked.is_none() {
        return Vec::new();
    }
    let fail = |claim: &str, name: &str, status: u16| Case {
        claim: claim.to_owned(),
        node: Some(json!({ "error": name, "text": "why" })),
        status,
        answer: error_answer(status, "why"),
        ..plain.clone()
    };
    vec![
        fail("a fault of the node is told as one", "Internal", 500),
        fail("without a quorum it is refused", "Unavailable", 503),
    ]
}

/// `GET /1.0/operations/0000…` is a form of `GET /1.0/operations/{id}`.
fn documented_form(form: &str) -> String {
    form.replace("00000000-0000-4000-8000-000000000000", "{id}")
}

fn documented() -> BTreeSet<(String, u16)> {
    let document: Value = serde_json::from_str(openapi()).unwrap();
    let mut statuses = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            for code in operation["responses"].as_object().unwrap().keys() {
                let form = format!("{} {path}", method.to_uppercase());
                statuses.insert((form, code.parse().unwrap()));
            }
        }
    }
    statuses
}

#[tokio::test]
async fn a0_4_every_row_answers_as_the_contract_says_in_both_forms() {
    let mut ledger = Ledger::default();
    let rows = rows();
    assert!(rows.len() > 25, "the golden files were found");
    for (_, row) in &rows {
        let cases = row.cases.iter().cloned().chain(promised(row)).chain(failures(row));
        for case in cases.collect::<Vec<_>>() {
            for form in &row.forms {
                if case.only.is_empty() || case.only.contains(form) {
                    ledger.check(row, form, &case).await;
                }
            }
        }
    }
    let changing: BTreeSet<String> =
        documented().into_iter().filter(|it| it.1 == 422).map(|it| it.0).collect();
    assert!(changing.len() > 15, "{changing:?}");
    for (_, row) in &rows {
        for form in row.forms.iter().filter(|form| changing.contains(*form)) {
            ledger.check_key(form, &row.cases[0]).await;
        }
    }
    ledger.seen.extend(provoked_elsewhere());
    let seen: BTreeSet<(String, u16)> =
        ledger.seen.iter().map(|(form, code)| (documented_form(form), *code)).collect();
    let documented = documented();
    let faults = &mut ledger.faults;
    faults.extend(documented.difference(&seen).map(|it| format!("documented, never seen: {it:?}")));
    faults.extend(seen.difference(&documented).map(|it| format!("seen, not documented: {it:?}")));
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(ledger.requests > 300, "{} requests", ledger.requests);
}

/// Statuses that take more than one request: each is claimed by a test in `wire_test.rs`.
fn provoked_elsewhere() -> Vec<(String, u16)> {
    [
        ("GET /1.0/events", 200),
        ("GET /1.0/events", 400),
        ("GET /1.0/events", 403),
        ("GET /1.0/openapi.json", 200),
        ("GET /1.0/operations/{id}", 200),
        ("GET /1.0/operations/{id}/wait", 200),
        ("DELETE /1.0/operations/{id}", 200),
        ("DELETE /1.0/operations/{id}", 409),
        ("GET /1.0/audit", 500),
    ]
    .map(|(form, code)| (form.to_owned(), code))
    .to_vec()
}

#[tokio::test]
async fn older_forms_say_that_they_are_and_every_answer_has_its_number() {
    for (_, row) in rows().iter().filter(|(_, row)| row.documented && row.envelope) {
        for (number, form) in row.forms.iter().enumerate() {
            if form.contains("00000000") {
                continue;
            }
            let seen = ask(form, &row.cases[0]).await;
            assert_eq!(seen.headers.contains_key("deprecation"), number > 0, "{form}");
            assert_eq!(seen.headers["x-request-id"].len(), 36, "{form}");
        }
    }
}

#[tokio::test]
async fn certificates_of_administrators_and_nodes_are_trusted_on_the_port() {
    for (_, row) in rows().iter().filter(|(_, row)| row.trust == Trust::Trusted) {
        for door in ["admin", "node"] {
            let case = Case { door: door.to_owned(), ..row.cases[0].clone() };
            let seen = ask(&row.forms[0], &case).await;
            assert_eq!(seen.status, case.status, "{} by {door}", row.forms[0]);
        }
    }
}

#[test]
fn the_document_in_docs_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    if std::env::var_os("QUORATE_WRITE_DOCS").is_some() {
        std::fs::write(&path, openapi()).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == openapi(),
        "docs/openapi.json is old: write it with QUORATE_WRITE_DOCS=1 and read the difference"
    );
}

#[test]
fn methods_in_golden_files_are_methods() {
    for (name, row) in rows() {
        for form in row.forms {
            let (method, path) = form.split_once(' ').unwrap();
            assert!(method.parse::<Method>().is_ok() && path.starts_with('/'), "{name}: {form}");
        }
    }
}

/// Keeps the helper's names honest.
#[test]
fn a_refusal_is_found_by_its_name() {
    assert_eq!(refusal("AnotherJoins", ""), FleetError::AnotherJoins);
    let _: Arc<Double> = Double::new(Phase::Worker, tempfile::tempdir().unwrap().path());
}
