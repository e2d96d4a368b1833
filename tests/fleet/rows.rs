//! A0.4 on real nodes: every row of the golden files, in the contract's form and in the older ones. What they refuse is
//! compared field by field; what they answer has the golden answer's fields, and fits the document that the node serves.

use std::collections::{BTreeMap, BTreeSet};

use quorate::support::http_client::HttpClient;
use serde_json::{Value, json};

use super::asking::ask;
use super::daemon::{Daemon, eventually, secret_in};
use super::golden::{Case, Needs, Row, Trust, differences, rows};
use super::schema::Document;

const CAPI_TOKEN: &str = "capi-of-the-rows";

/// Files that hold no plain success, and those whose success is a chapter of the story.
const OTHERWISE: [&str; 8] = [
    "cluster-bootstrap",
    "join",
    "remove",
    "not-ours",
    "not-this-method",
    "nowhere",
    "operation-unknown",
    "operation-wait-bad",
];

/// What is the same in every answer of a kind.
const ENVELOPE: [&str; 4] = ["type", "status", "status_code", "error_code"];

type Headers = Vec<(&'static str, String)>;

/// A request that a real node answers with a plain success.
struct Plain {
    headers: Headers,
    body: Option<Value>,
}

/// What was asked, and what was wrong with the answers.
struct Ledger {
    rows: BTreeMap<String, Row>,
    document: Document,
    answered: BTreeSet<String>,
    faults: Vec<String>,
}

impl Ledger {
    async fn new(node: &Daemon) -> Ledger {
        let (code, document) = node.get("/1.0/openapi.json").await;
        assert_eq!(code, 200);
        Ledger {
            rows: rows().into_iter().collect(),
            document: Document::new(document),
            answered: BTreeSet::new(),
            faults: Vec::new(),
        }
    }

    fn fault(&mut self, form: &str, claim: &str, found: Vec<String>) {
        self.faults.extend(found.into_iter().map(|fault| format!("{form}: {claim}: {fault}")));
    }

    /// An answer that is to look like the one of a file's case, by its claim; without one, of the first.
    fn looks_like(&mut self, file: &str, form: &str, claim: Option<&str>, told: &(u16, Value)) {
        let row = &self.rows[file];
        let is_meant = |case: &&Case| claim.is_none_or(|claim| case.claim.starts_with(claim));
        let case = row.cases.iter().find(is_meant).expect("the file has the case");
        let mut found = self.document.faults(form, told.0, &told.1);
        if told.0 != case.status {
            found.push(format!("status: wanted {}, got {}", case.status, told.0));
        }
        shape(&case.answer, &told.1, "answer", &mut found);
        for constant in ENVELOPE.iter().filter(|_| row.envelope) {
            let (want, got) = (&case.answer[constant], &told.1[constant]);
            differences(want, got, &format!("answer.{constant}"), &mut found);
        }
        let claim = case.claim.clone();
        self.fault(form, &claim, found);
        self.answered.insert(form.to_owned());
    }

    /// An answer that is to be this error.
    fn is_refusal(&mut self, form: &str, claim: &str, code: u16, text: &str, told: &(u16, Value)) {
        let want = json!({
            "type": "error", "status": "", "status_code": 0, "operation": "", "error_code": code,
            "error": text, "metadata": null,
        });
        let mut found = Vec::new();
        if told.0 != code {
            found.push(format!("status: wanted {code}, got {}", told.0));
        }
        differences(&want, &told.1, "answer", &mut found);
        self.fault(form, claim, found);
    }

    /// Every documented form of every row that `wanted` picks, with its plain request as the file has it.
    fn forms(&self, wanted: impl Fn(&Row) -> bool) -> Vec<(String, String, Option<Value>)> {
        let mut forms = Vec::new();
        for (file, row) in self.rows.iter().filter(|(_, row)| row.documented && wanted(row)) {
            for form in &row.forms {
                forms.push((file.clone(), form.clone(), row.cases[0].body.clone()));
            }
        }
        forms
    }

    /// Rows of a fleet refuse with this while the node is in none, or is a worker.
    async fn all_refuse(&mut self, node: &Daemon, needs: &[Needs], code: u16, text: &str) {
        let forms = self.forms(|row| needs.contains(&row.needs));
        assert!(forms.len() > 10, "they were found");
        for (_, form, body) in forms {
            let told = ask(&node.socket(), &form, &[], body.as_ref()).await;
            self.is_refusal(&form, &format!("on {}", node.name), code, text, &told);
        }
    }
}

/// Whether `got` has what `want` has, with the same types.
fn shape(want: &Value, got: &Value, place: &str, found: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => {
            for (name, want) in want {
                let place = format!("{place}.{name}");
                match got.get(name) {
                    Some(got) => shape(want, got, &place, found),
                    None => found.push(format!("{place} is missing")),
                }
            }
        }
        (Value::Array(want), Value::Array(got)) => {
            if got.is_empty() && !want.is_empty() {
                found.push(format!("{place} is empty"));
            }
            let like = |want: &Value, got: &Value| {
                let mut faults = Vec::new();
                shape(want, got, place, &mut faults);
                faults.is_empty()
            };
            // Each is like one that the file has: workers have no role in raft.
            for got in got.iter().filter(|_| !want.is_empty()) {
                if !want.iter().any(|want| like(want, got)) {
                    found.push(format!("{place}: {got} is like none of {want:?}"));
                }
            }
        }
        (Value::String(_), Value::String(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_)) => {}
        // Whether it is there at all is the config's business.
        (Value::Null, _) => {}
        (want, got) => found.push(format!("{place}: wanted {want}, got {got}")),
    }
}

/// The nodes of the story.
struct Cast {
    /// Formed the fleet by the contract's form.
    first: Daemon,
    /// Joined it.
    second: Daemon,
    worker: Daemon,
    /// Is in no fleet.
    apart: Daemon,
}

impl Cast {
    async fn asked(&self, form: &str, body: Value) -> (u16, Value) {
        ask(&self.first.socket(), form, &[], Some(&body)).await
    }

    async fn taken(&self, form: &str, body: Value, place: &str) -> Value {
        let (code, told) = self.asked(form, body).await;
        assert_eq!(code, 200, "{form}: {told}");
        told["metadata"][place].clone()
    }

    /// Who shows nothing, where a header or nothing at all is to be enough.
    fn client(&self, row: &Row) -> HttpClient {
        match row.cases[0].door.as_str() {
            "stranger" => self.first.stranger(),
            _ => self.first.socket(),
        }
    }

    fn headers(&self, trust: Trust) -> Headers {
        match trust {
            Trust::Trusted | Trust::Open | Trust::Worker => Headers::new(),
            Trust::Capi => vec![("capi-auth-token", CAPI_TOKEN.to_owned())],
            Trust::Node => {
                let token = std::fs::read_to_string(self.first.state("node-token"));
                vec![("node-token", token.expect("it has one").trim().to_owned())]
            }
        }
    }

    /// What a real node is to be asked for a plain success of a file's row.
    async fn plain(&self, file: &str, row: &Row) -> Plain {
        let seed = "POST /1.0/k8sd/refresh-certs/plan";
        let server = json!({"certificates": ["server"]});
        let mut headers = self.headers(row.trust);
        let body = match file {
            "audit" | "certs-status" | "cluster-status" | "config" | "health" | "node"
            | "operations" | "server" | "token-list" | "version" => None,
            "auth-tokens" => Some(json!({"username": "ada", "groups": ["ops", "dev"]})),
            "auth-tokens-revoke" => {
                let user = json!({"username": "eve", "groups": []});
                let token = self.taken("POST /1.0/kubernetes/auth/tokens", user, "token").await;
                Some(json!({ "token": token }))
            }
            "webhook" => {
                let user = json!({"username": "ada", "groups": ["dev", "ops"]});
                let token = self.taken("POST /1.0/kubernetes/auth/tokens", user, "token").await;
                let mut body = row.cases[0].body.clone().expect("a review");
                body["spec"]["token"] = token;
                Some(body)
            }
            "capi-certificates-expiry" => Some(json!({})),
            "capi-generate-join-token" => Some(json!({"name": "w5", "worker": true, "ttl": 0})),
            "capi-refresh-certs-plan" | "refresh-certs-plan" => Some(server),
            "capi-refresh-certs-run" | "refresh-certs-run" => {
                let seed = self.taken(seed, server, "seconds").await;
                Some(json!({
                    "certificates": ["server"], "seed": seed, "expiration-seconds": 7200,
                    "extra-sans": ["rows.example"],
                }))
            }
            "refresh-certs-update" => {
                let read =
                    |name: &str| std::fs::read_to_string(self.first.state(name)).expect("PEM");
                Some(json!({
                    "server-crt": read("pki/server.crt"), "server-key": read("pki/server.key"),
                }))
            }
            "capi-remove-node" => {
                self.worker_enters("w7").await;
                Some(json!({"name": "w7", "force": true, "timeout": 0}))
            }
            "capi-set-auth-token" => Some(json!({"token": CAPI_TOKEN})),
            "set-config" => Some(row.cases[0].body.clone().expect("a change")),
            "tokens" => Some(json!({"name": "N9", "worker": false, "ttl": 3_600_000_000_000_u64})),
            "worker-info" => {
                headers.extend(self.worker_headers("w6").await);
                Some(json!({"address": "10.0.0.6"}))
            }
            other => panic!("nothing is known to ask of a real node for {other}.json"),
        };
        Plain { headers, body }
    }

    async fn worker_headers(&self, name: &str) -> Headers {
        let ask = json!({"name": name, "worker": true});
        let token = self.taken("POST /1.0/k8sd/cluster/tokens", ask, "token").await;
        let secret = secret_in(token.as_str().expect("a token"));
        vec![("worker-name", name.to_owned()), ("worker-token", secret)]
    }

    /// A worker is in the registry that nobody runs.
    async fn worker_enters(&self, name: &str) {
        let headers = self.worker_headers(name).await;
        let body = json!({"address": format!("{name}.example:6400")});
        let form = "POST /1.0/k8sd/worker/info";
        let (code, told) = ask(&self.first.stranger(), form, &headers, Some(&body)).await;
        assert_eq!(code, 200, "{told}");
    }
}

#[tokio::test]
async fn a0_4_every_row_in_every_form_is_answered_by_real_nodes_as_the_golden_files_have_it() {
    let cast = Cast {
        first: Daemon::start("n1"),
        second: Daemon::start("n2"),
        worker: Daemon::start("w1"),
        apart: Daemon::start("n3"),
    };
    let Cast { first, second, worker, apart } = &cast;
    let mut ledger = Ledger::new(first).await;
    let fleets = [Needs::ControlPlane, Needs::Fleet];
    ledger.all_refuse(first, &fleets, 503, "daemon not yet initialized").await;

    // A fleet is formed, in both forms: of two nodes that have nothing to do with each other.
    let other = Daemon::start("m1");
    for (node, form) in
        [(first, "POST /1.0/k8sd/cluster"), (&other, "POST /1.0/k8sd/cluster/bootstrap")]
    {
        let config = json!({
            "pod-cidr": "10.2.0.0/16", "extra-sans": ["n1.example"],
            "control-plane-taints": ["a=b:NoSchedule"],
        });
        let body = json!({"name": node.name.to_uppercase(), "config": config});
        let told = ask(&node.socket(), form, &[], Some(&body)).await;
        ledger.looks_like("cluster-bootstrap", form, None, &told);
        let told = ask(&node.socket(), form, &[], Some(&body)).await;
        ledger.looks_like("cluster-bootstrap", form, Some("a second bootstrap"), &told);
    }
    let form = "POST /1.0/k8sd/cluster/join";
    let ask_token = |name: &str, worker: bool| json!({"name": name, "worker": worker});
    for (node, is_worker) in [(second, false), (worker, true)] {
        let asked = ask_token(&node.name, is_worker);
        let token = cast.taken("POST /1.0/k8sd/cluster/tokens", asked, "token").await;
        let body = json!({"name": node.name, "token": token, "config": "", "timeout": 0});
        let told = ask(&node.socket(), form, &[], Some(&body)).await;
        ledger.looks_like("join", form, None, &told);
        let told = ask(&node.socket(), form, &[], Some(&body)).await;
        ledger.looks_like("join", form, Some("a node that is in a fleet"), &told);
    }
    let told = ask(&apart.socket(), form, &[], Some(&json!({"token": "x"}))).await;
    ledger.looks_like("join", form, Some("a bad token"), &told);
    let config = json!({
        "network": {"enabled": true, "kube-proxy-enabled": true}, "annotations": {"a": "1"},
        "dns": {"enabled": true, "service-ip": "10.152.183.10"}, "cloud-provider": "external",
    });
    cast.asked("PUT /1.0/k8sd/cluster/config", json!({ "config": config })).await;
    let capi = json!({"token": CAPI_TOKEN});
    cast.asked("POST /1.0/x/capi/set-auth-token", capi).await;

    every_row_succeeds(&cast, &mut ledger).await;
    what_is_refused_is_refused(&cast, &mut ledger).await;
    both_doors_tell_the_same(&cast).await;

    // A worker answers for itself alone.
    let text = "this action is not allowed on worker nodes";
    ledger.all_refuse(worker, &[Needs::ControlPlane], 403, text).await;
    for file in ["certs-status", "refresh-certs-plan", "capi-refresh-certs-plan"] {
        let row = &ledger.rows[file];
        let (form, body) = (row.forms[0].clone(), row.cases[0].body.clone());
        let token = std::fs::read_to_string(worker.state("node-token")).expect("it has one");
        let headers = [("node-token", token.trim().to_owned())];
        let told = ask(&worker.socket(), &form, &headers, body.as_ref()).await;
        ledger.looks_like(file, &form, None, &told);
    }

    // Nodes go, in both forms; once begun and waited for.
    let gone = json!({"name": "n2", "force": false, "timeout": 0});
    let told = cast.asked("POST /1.0/k8sd/cluster/remove", gone).await;
    ledger.looks_like("remove", "POST /1.0/k8sd/cluster/remove", None, &told);
    let form = "DELETE /1.0/k8sd/cluster/remove";
    let gone = json!({"name": "w1", "force": false, "timeout": 0});
    // Who did not hear that it is done asks again under the same key.
    let key = [("idempotency-key", "w1 goes".to_owned())];
    for _ in 0..2 {
        let told = ask(&first.socket(), form, &key, Some(&gone)).await;
        ledger.looks_like("remove", form, None, &told);
    }
    let told = cast.asked(form, gone.clone()).await;
    ledger.looks_like("remove", form, Some("a node that is not"), &told);
    let last = json!({"name": "n1", "force": true, "timeout": 0});
    let told = cast.asked(form, last).await;
    ledger.looks_like("remove", form, Some("the last voter"), &told);
    let prefer = [("prefer", "respond-async".to_owned())];
    let told = ask(&first.socket(), form, &prefer, Some(&gone)).await;
    ledger.looks_like("remove", form, Some("asked for asynchronously"), &told);
    let operation = told.1["operation"].as_str().expect("a path").to_owned();
    let over = ask(&first.socket(), &format!("GET {operation}/wait"), &[], None).await;
    let wait = "GET /1.0/operations/{id}/wait";
    let found = ledger.document.faults(wait, over.0, &over.1);
    ledger.fault(wait, "it is over", found);
    assert_eq!((over.0, &over.1["metadata"]["err_code"]), (200, &json!(520)));

    // Who was removed says so.
    eventually("it is reset", async || second.is_reset()).await;
    let text = "node \"n2\" is not part of the cluster";
    ledger.all_refuse(second, &fleets, 520, text).await;

    let every = ledger.forms(|row| row.cases[0].status == 200);
    let missing: Vec<_> = every.iter().filter(|it| !ledger.answered.contains(&it.1)).collect();
    assert!(missing.is_empty(), "never answered: {missing:?}");
    assert!(ledger.faults.is_empty(), "{}", ledger.faults.join("\n"));
}

/// The plain success of every row that is asked of a node in a fleet, and the same with a field that is not known.
async fn every_row_succeeds(cast: &Cast, ledger: &mut Ledger) {
    for (file, form, _) in ledger.forms(|_| true) {
        if OTHERWISE.contains(&file.as_str()) {
            continue;
        }
        let row = &ledger.rows[&file];
        let (client, envelope) = (cast.client(row), row.envelope);
        let Plain { headers, body } = cast.plain(&file, row).await;
        if envelope && let Some(mut body) = body.clone() {
            body["unknown-field"] = json!(1);
            let told = ask(&client, &form, &headers, Some(&body)).await;
            ledger.is_refusal(&form, "an unknown field is refused", 400, "*", &told);
        }
        let told = ask(&client, &form, &headers, body.as_ref()).await;
        ledger.looks_like(&file, &form, None, &told);
    }
}

/// What the files have refused without asking the node behind, who is not trusted, and what a real node refuses itself.
async fn what_is_refused_is_refused(cast: &Cast, ledger: &mut Ledger) {
    let mut asked = Vec::new();
    for (file, row) in &ledger.rows {
        let asks_nobody =
            |case: &Case| case.node.is_none() && case.asked.as_ref().is_none_or(Value::is_null);
        let is_plain = |case: &&Case| {
            case.status >= 400
                && asks_nobody(case)
                && case.raw.is_none()
                && ["socket", "stranger"].contains(&case.door.as_str())
        };
        for case in row.cases.iter().filter(is_plain) {
            let forms = row.forms.iter();
            let forms = forms.filter(|form| case.only.is_empty() || case.only.contains(form));
            asked.extend(forms.map(|form| (file.clone(), form.clone(), case.clone())));
        }
    }
    assert!(asked.len() > 30, "{} cases", asked.len());
    for (file, form, case) in asked {
        let node = if case.phase == "uninitialized" { &cast.apart } else { &cast.first };
        let client = if case.door == "stranger" { node.stranger() } else { node.socket() };
        let mut headers = cast.headers(ledger.rows[&file].trust);
        for (name, value) in &case.headers {
            let name: &str = name.to_lowercase().leak();
            headers.retain(|(there, _)| *there != name);
            headers.push((name, value.clone()));
        }
        let query = if case.query.is_empty() { String::new() } else { format!("?{}", case.query) };
        let told = ask(&client, &format!("{form}{query}"), &headers, case.body.as_ref()).await;
        let mut found = Vec::new();
        if told.0 != case.status {
            found.push(format!("status: wanted {}, got {}", case.status, told.0));
        }
        differences(&case.answer, &told.1, "answer", &mut found);
        ledger.fault(&form, &case.claim, found);
    }
    for (_, form, body) in ledger.forms(|row| row.trust == Trust::Trusted) {
        let told = ask(&cast.first.stranger(), &form, &[], body.as_ref()).await;
        ledger.is_refusal(&form, "who is not trusted is refused", 403, "not authorized", &told);
    }
    for (trust, name) in [(Trust::Capi, "capi-auth-token"), (Trust::Node, "node-token")] {
        for (_, form, body) in ledger.forms(|row| row.trust == trust) {
            let wrong = [(name, format!("{CAPI_TOKEN}x"))];
            let told = ask(&cast.first.socket(), &form, &wrong, body.as_ref()).await;
            let text = format!("invalid {name}");
            ledger.is_refusal(&form, "another token does not count", 401, &text, &told);
        }
    }
    for (file, claim, body) in [
        ("set-config", "what is for ever", json!({"datastore": {"type": "external"}})),
        ("refresh-certs-run", "a seed that no plan gave", json!({"seed": 1})),
    ] {
        for form in ledger.rows[file].forms.clone() {
            let told = cast.asked(&form, body.clone()).await;
            ledger.looks_like(file, &form, Some(claim), &told);
        }
    }
    let info = "POST /1.0/k8sd/worker/info";
    let body = json!({"address": "10.0.0.8"});
    let mut taken = cast.worker_headers("w1").await;
    let told = ask(&cast.first.stranger(), info, &taken, Some(&body)).await;
    ledger.looks_like("worker-info", info, Some("a name that the fleet has"), &told);
    taken[1].1.replace_range(8..9, "x");
    let told = ask(&cast.first.stranger(), info, &taken, Some(&body)).await;
    ledger.looks_like("worker-info", info, Some("a token that does not count"), &told);
}

/// S0.3: the socket and the port say the same.
async fn both_doors_tell_the_same(cast: &Cast) {
    for path in ["cluster", "node", "cluster/config", "certs-status"] {
        let form = format!("GET /1.0/k8sd/{path}");
        let by_socket = ask(&cast.first.socket(), &form, &[], None).await;
        assert_eq!(ask(&cast.first.insider(), &form, &[], None).await, by_socket, "{form}");
    }
}
