//! The JSON gateway: every path of `proto/`, with bodies drawn from the messages, compared to the byte.
//!
//! ```text
//! proto/ ─▶ paths, fields ─▶ body ─▶ POST to both ─▶ status, heads, JSON ─▶ masked ─▶ equal? finding
//! ```
//!
//! First without authentication, then with it, as root, as a user with one role, and as nobody.

mod bodies;
mod mask;
mod proto;

use std::collections::BTreeSet;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::bodies::Bodies;
use self::mask::masked;
use self::proto::{Route, Schema};
use super::allowed::SNAPSHOTS;
use super::run::Run;
use super::scenes::http::{Request, Response, ask, send};
use super::scenes::{Played, Stage};

/// Never drawn: they would change who may ask what follows.
const ENABLE: &str = "/v3/auth/enable";
const DISABLE: &str = "/v3/auth/disable";
const WATCH: &str = "/v3/watch";
const OBSERVE: &str = "/v3/election/observe";
const SNAPSHOT: &str = "/v3/maintenance/snapshot";
const ALARM: &str = "/v3/maintenance/alarm";

/// What a watch stream is asked last, and what tells that it was answered.
const LAST_WATCH: &str = r#"{"create_request":{"key":"eg==","watch_id":"77"}}"#;
const LAST_WATCHED: &str = r#""watch_id":"77""#;

/// Of `/debug/vars`, see [`super::allowed`].
const NOT_OURS: [&str; 2] = ["memstats", "cmdline"];

/// Paths that are none, or not quite.
const ODD_PATHS: [&str; 12] = [
    "/v3",
    "/v3/",
    "/v3/nothing",
    "/v3/kv",
    "/v3/kv/range/",
    "/v3//kv/range",
    "/v3/kv/range?key=YQ==",
    "/v3/KV/range",
    "/v3/kv/%72ange",
    "/v3beta/kv/range",
    "/v3alpha/kv/range",
    "/v3/kv/range:x",
];

const PREFLIGHT: [(&str, &str); 3] = [
    ("Origin", "http://a.example"),
    ("Access-Control-Request-Method", "POST"),
    ("Access-Control-Request-Headers", "authorization, content-type"),
];

/// Heads that a request may have besides.
const HEADS: [&[(&str, &str)]; 12] = [
    &[],
    &[],
    &[],
    &[],
    &[("Content-Type", "application/json")],
    &[("Content-Type", "application/x-www-form-urlencoded")],
    &[("Content-Type", "text/plain"), ("Accept", "text/html")],
    &[("Origin", "http://a.example")],
    &[("Grpc-Timeout", "20S")],
    &[("Grpc-Timeout", "soon")],
    &[("Grpc-Metadata-Hasleader", "true")],
    &[("Content-Type", "application/x-www-form-urlencoded"), ("X-HTTP-Method-Override", "GET")],
];

/// Who asks, as each server knows it.
#[derive(Debug, Clone, Copy)]
enum Caller {
    Nobody,
    Root,
    RootBearer,
    User,
    Stranger,
}

/// The tokens of one server.
#[derive(Debug, Default)]
struct Tokens {
    root: String,
    user: String,
}

impl Tokens {
    fn of(&self, caller: Caller) -> Option<String> {
        match caller {
            Caller::Nobody => None,
            Caller::Root => Some(self.root.clone()),
            Caller::RootBearer => Some(format!("Bearer {}", self.root)),
            Caller::User => Some(self.user.clone()),
            Caller::Stranger => Some("nobody.1".to_owned()),
        }
    }
}

struct Play<'a> {
    stage: Stage<'a>,
    schema: &'a Schema,
    rng: StdRng,
    ours: Tokens,
    theirs: Tokens,
}

/// Plays a seed's requests; against another release than ours nothing.
pub(super) async fn play(run: &Run, seed: u64, calls: usize) -> Result<Played> {
    if !run.release.speaks_our_http() {
        return Ok(Played::nothing());
    }
    let schema = Schema::read();
    let flags = ["--bcrypt-cost=4".to_owned()];
    let mut play = Play {
        stage: Stage::open_quiet("gateway", run, &flags).await?,
        schema: &schema,
        rng: StdRng::seed_from_u64(seed ^ 0x6a73_6f6e),
        ours: Tokens::default(),
        theirs: Tokens::default(),
    };
    play.methods().await;
    play.vars().await?;
    play.drawn(calls * 2 / 3, &[Caller::Nobody]).await;
    play.log_in().await;
    let callers =
        [Caller::Root, Caller::RootBearer, Caller::User, Caller::Nobody, Caller::Stranger];
    play.drawn(calls / 3, &callers).await;
    for caller in callers.into_iter().rev() {
        for path in [ENABLE, DISABLE, ENABLE] {
            let request = Request { method: "POST", path, heads: &[], body: b"", ends_with: None };
            play.ask(request, caller).await;
        }
    }
    play.stage.close()
}

impl Play<'_> {
    /// Sends the request to both, and compares; both answers as they came.
    async fn ask(&mut self, request: Request<'_>, caller: Caller) -> Option<(Response, Response)> {
        self.stage.asked += 1;
        let ports = (self.stage.ours.port(), self.stage.theirs.port());
        let tokens = (self.ours.of(caller), self.theirs.of(caller));
        let answers = tokio::try_join!(
            as_caller(ports.0, request, tokens.0.as_deref()),
            as_caller(ports.1, request, tokens.1.as_deref())
        );
        let Request { method, path, heads, body, .. } = request;
        let body = String::from_utf8_lossy(body);
        let asked = format!("{method} {path} by {caller:?} {heads:?} {body:?}");
        match answers {
            Err(error) => {
                self.stage.fault(format!("{asked}: {error:#}"));
                None
            }
            Ok((ours, theirs)) => {
                self.stage.count(format!("JSON gateway: {}", theirs.status));
                let (a, b) = (masked(path, ours.clone()), masked(path, theirs.clone()));
                if a != b && is_no_snapshot(path, &a, &b) {
                    self.stage.explain(SNAPSHOTS);
                } else if a != b {
                    self.stage.fault(format!("{asked}:\n   ours {a:?}\n   etcd {b:?}"));
                }
                Some((ours, theirs))
            }
        }
    }

    async fn post(&mut self, path: &str, body: &str) -> Option<(Response, Response)> {
        let request =
            Request { method: "POST", path, heads: &[], body: body.as_bytes(), ends_with: None };
        self.ask(request, Caller::Root).await
    }

    /// Every path by other methods, and what is no path by every method.
    async fn methods(&mut self) {
        let schema = self.schema;
        let paths = schema.routes.iter().map(|route| route.path.as_str());
        for path in paths.chain(ODD_PATHS) {
            for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH"] {
                let request = Request { method, path, heads: &[], body: b"", ends_with: None };
                self.ask(request, Caller::Nobody).await;
            }
            for heads in [&PREFLIGHT[..], &[]] {
                let request =
                    Request { method: "OPTIONS", path, heads, body: b"", ends_with: None };
                self.ask(request, Caller::Nobody).await;
            }
        }
        for path in ODD_PATHS {
            let request =
                Request { method: "POST", path, heads: &[], body: b"{}", ends_with: None };
            self.ask(request, Caller::Nobody).await;
        }
    }

    /// What a process tells of itself: which names, not which values.
    async fn vars(&mut self) -> Result<()> {
        let names = |response: &Response| -> BTreeSet<String> {
            let lines = response.body.lines().filter_map(|line| line.split_once("\": "));
            let names = lines.map(|(name, _)| name.trim_start_matches('"').to_owned());
            names.filter(|name| !NOT_OURS.contains(&name.as_str())).collect()
        };
        let path = "/debug/vars";
        let (ours, theirs) = tokio::try_join!(
            ask(self.stage.ours.port(), "GET", path),
            ask(self.stage.theirs.port(), "GET", path)
        )?;
        self.stage.asked += 1;
        let shown = |response: Response| {
            let names = names(&response);
            let Response { status, headers, .. } = masked(path, response);
            (status, headers, names)
        };
        let (ours, theirs) = (shown(ours), shown(theirs));
        if ours != theirs {
            self.stage.fault(format!("GET {path}:\n   ours {ours:?}\n   etcd {theirs:?}"));
        }
        Ok(())
    }

    /// Requests of every path in turn.
    async fn drawn(&mut self, calls: usize, callers: &[Caller]) {
        let schema = self.schema;
        // A lease for what is locked or led.
        self.post("/v3/lease/grant", r#"{"ID":1,"TTL":600}"#).await;
        let routes: Vec<&Route> = schema
            .routes
            .iter()
            .filter(|r| ![ENABLE, DISABLE].contains(&r.path.as_str()))
            .collect();
        for at in 0..calls {
            if self.stage.is_over() {
                return;
            }
            let route = routes[at % routes.len()];
            let caller = callers[self.rng.random_range(0..callers.len())];
            self.draw(route, caller).await;
        }
    }

    async fn draw(&mut self, route: &Route, caller: Caller) {
        let wrong = if self.rng.random_bool(0.6) { 0 } else { 120 };
        let mut bodies = Bodies { schema: self.schema, rng: &mut self.rng, wrong };
        let mut body = bodies.body(&route.input);
        if route.streams_in && route.path != WATCH {
            body.extend(bodies.body(&route.input));
        }
        let heads = HEADS[self.rng.random_range(0..HEADS.len())];
        let path = route.path.as_str();
        let mut request = Request { method: "POST", path, heads, body: &[], ends_with: None };
        match path {
            WATCH => {
                body.extend_from_slice(LAST_WATCH.as_bytes());
                request.ends_with = Some(LAST_WATCHED);
            }
            OBSERVE => request.heads = &[("Grpc-Timeout", "1S")],
            SNAPSHOT => request.ends_with = Some("\"blob\""),
            _ => {}
        }
        self.ask(Request { body: &body, ..request }, caller).await;
        if path == ALARM {
            self.clear_alarms().await;
        }
    }

    /// Takes back what a drawn request has raised.
    async fn clear_alarms(&mut self) {
        let Some((_, theirs)) = self.post(ALARM, "{}").await else { return };
        if !theirs.body.contains("\"alarms\"") {
            return;
        }
        for member in [0, 1, 2, 3, 7] {
            for alarm in [1, 2, 99] {
                let body =
                    format!(r#"{{"action":"DEACTIVATE","memberID":{member},"alarm":{alarm}}}"#);
                self.post(ALARM, &body).await;
            }
        }
        self.post(ALARM, "{}").await;
    }

    /// Makes root and a user that may read and write some keys, and turns authentication on.
    async fn log_in(&mut self) {
        for (path, body) in [
            ("/v3/auth/user/delete", r#"{"name":"root"}"#),
            ("/v3/auth/user/delete", r#"{"name":"user"}"#),
            ("/v3/auth/user/add", r#"{"name":"root","password":"one"}"#),
            ("/v3/auth/user/add", r#"{"name":"user","password":"two"}"#),
            ("/v3/auth/role/add", r#"{"name":"some"}"#),
            (
                "/v3/auth/role/grant",
                r#"{"name":"some","perm":{"permType":"READWRITE","key":"YQ==","range_end":"Yg=="}}"#,
            ),
            ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
            ("/v3/auth/user/grant", r#"{"user":"user","role":"some"}"#),
            ("/v3/auth/role/get", r#"{"role":"some"}"#),
            ("/v3/auth/user/get", r#"{"name":"user"}"#),
            (ENABLE, "{}"),
        ] {
            self.post(path, body).await;
        }
        let path = "/v3/auth/authenticate";
        self.post(path, r#"{"name":"root","password":"wrong"}"#).await;
        if let Some((ours, theirs)) = self.post(path, r#"{"name":"root","password":"one"}"#).await {
            (self.ours.root, self.theirs.root) = (token(&ours), token(&theirs));
        }
        if let Some((ours, theirs)) = self.post(path, r#"{"name":"user","password":"two"}"#).await {
            (self.ours.user, self.theirs.user) = (token(&ours), token(&theirs));
        }
    }
}

/// Ours has no snapshots yet, see [`super::allowed`].
fn is_no_snapshot(path: &str, ours: &Response, theirs: &Response) -> bool {
    path == SNAPSHOT && ours.status.contains(" 501 ") && theirs.status.contains(" 200 ")
}

async fn as_caller(port: u16, request: Request<'_>, token: Option<&str>) -> Result<Response> {
    let mut heads = request.heads.to_vec();
    heads.extend(token.map(|token| ("Authorization", token)));
    send(port, &Request { heads: &heads, ..request }).await
}

fn token(response: &Response) -> String {
    let token = response.body.split_once("\"token\":\"").and_then(|(_, rest)| rest.split_once('"'));
    token.map(|(token, _)| token.to_owned()).unwrap_or_default()
}
