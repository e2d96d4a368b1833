//! A node that plays back answers, one a request, and notes what it was asked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use quorate::fleet::api::auth::{AuthTokenRequest, TokenRequest, TokenReview};
use quorate::fleet::api::certificates::{
    NothingAsked, RefreshPlanRequest, RefreshRunRequest, RefreshUpdateRequest,
};
use quorate::fleet::api::cluster::{
    BootstrapRequest, JoinRequest, JoinTokenRequest, RemoveRequest,
};
use quorate::fleet::api::config::SetConfigRequest;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Play {
    /// A status and a body.
    Body(u16, String),
    /// Nothing, ever.
    Hang,
    /// The connection's end.
    Close,
}

impl Play {
    /// Reads `sync METADATA`, `error CODE TEXT`, `raw CODE BODY`, `events TEXT`, `hang` or `close`.
    pub(crate) fn read(text: &str) -> Play {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let numbered = |rest: &str| {
            let (code, text) = rest.split_once(' ').expect("a code and a text");
            (code.parse::<u16>().expect("a code"), text.to_owned())
        };
        match word {
            "sync" => {
                let metadata: Value = serde_json::from_str(rest).expect("metadata is JSON");
                let envelope = json!({
                    "type": "sync", "status": "Success", "status_code": 200, "operation": "",
                    "error_code": 0, "error": "", "metadata": metadata,
                });
                Play::Body(200, envelope.to_string())
            }
            "error" => {
                let (code, text) = numbered(rest);
                let envelope = json!({
                    "type": "error", "status": "", "status_code": 0, "operation": "",
                    "error_code": code, "error": text, "metadata": null,
                });
                Play::Body(code, envelope.to_string())
            }
            "raw" => {
                let (code, text) = numbered(rest);
                Play::Body(code, text)
            }
            "events" => Play::Body(200, rest.replace("\\n", "\n")),
            "hang" => Play::Hang,
            "close" => Play::Close,
            other => panic!("a node does not play {other}"),
        }
    }
}

/// The node; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Node {
    requests: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Node {
    /// Listens in `state`, if there is anything to answer.
    pub(crate) fn play(state: &Path, answers: Vec<Play>) -> Node {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        if !answers.is_empty() {
            let listener = UnixListener::bind(state.join("api.sock")).expect("a socket");
            let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
            let noted = Arc::clone(&requests);
            tasks.spawn(async move { serve(listener, answers, noted).await });
        }
        Node { requests, _tasks: tasks }
    }

    /// What was asked so far, one line a request.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().clone()
    }
}

async fn serve(
    listener: UnixListener,
    answers: Arc<Mutex<VecDeque<Play>>>,
    noted: Arc<Mutex<Vec<String>>>,
) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (answers, noted) = (Arc::clone(&answers), Arc::clone(&noted));
        connections.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (answers, noted) = (Arc::clone(&answers), Arc::clone(&noted));
                async move {
                    let line = note(request).await;
                    noted.lock().push(line);
                    let play = answers.lock().pop_front();
                    answer(play.unwrap_or(Play::Body(500, "nothing left to play".to_owned()))).await
                }
            });
            let io = TokioIo::new(stream);
            // Clients go away when they like.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
        });
    }
}

/// What a `close` is for hyper: an error of the service ends the connection.
#[derive(Debug, thiserror::Error)]
#[error("closed")]
struct Closed;

async fn answer(play: Play) -> Result<Response<Full<Bytes>>, Closed> {
    match play {
        Play::Body(code, body) => {
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = StatusCode::from_u16(code).expect("a code of HTTP");
            Ok(response)
        }
        Play::Hang => match std::future::pending::<Infallible>().await {},
        Play::Close => Err(Closed),
    }
}

/// `METHOD path header: value BODY`; a body that the API would not take is noted as that.
async fn note(request: Request<Incoming>) -> String {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().expect("a path").to_string();
    let mut line = format!("{} {path}", head.method);
    for name in ["capi-auth-token", "node-token"] {
        if let Some(value) = head.headers.get(name) {
            line.push_str(&format!(" {name}: {}", value.to_str().expect("text")));
        }
    }
    let body = body.collect().await.expect("the body comes").to_bytes();
    if body.is_empty() {
        return line;
    }
    assert_eq!(head.headers["content-type"], "application/json");
    let value: Value = serde_json::from_slice(&body).expect("the body is JSON");
    line.push_str(&format!(" {value}"));
    if let Err(why) = strict(&head.method, &path, value) {
        line.push_str(&format!(" NOT TAKEN: {why}"));
    }
    line
}

fn strict(method: &Method, path: &str, body: Value) -> Result<(), serde_json::Error> {
    fn is<T: for<'a> Deserialize<'a>>(body: Value) -> Result<(), serde_json::Error> {
        serde_json::from_value::<T>(body).map(drop)
    }
    match (method.as_str(), path.strip_prefix("/1.0/").expect("the API's prefix")) {
        ("POST", "k8sd/cluster") => is::<BootstrapRequest>(body),
        ("POST", "k8sd/cluster/tokens" | "x/capi/generate-join-token") => {
            is::<JoinTokenRequest>(body)
        }
        ("POST", "k8sd/cluster/join") => is::<JoinRequest>(body),
        ("POST", "k8sd/cluster/remove" | "x/capi/remove-node") => is::<RemoveRequest>(body),
        ("PUT", "k8sd/cluster/config") => is::<SetConfigRequest>(body),
        ("POST", "k8sd/refresh-certs/plan") => is::<RefreshPlanRequest>(body),
        ("POST", "k8sd/refresh-certs/run") => is::<RefreshRunRequest>(body),
        ("POST", "k8sd/refresh-certs/update") => is::<RefreshUpdateRequest>(body),
        ("POST", "kubernetes/auth/tokens") => is::<AuthTokenRequest>(body),
        ("DELETE", "kubernetes/auth/tokens") | ("POST", "x/capi/set-auth-token") => {
            is::<TokenRequest>(body)
        }
        ("POST", "kubernetes/auth/webhook") => is::<TokenReview>(body),
        ("POST", "x/capi/certificates-expiry") => is::<NothingAsked>(body),
        (method, path) => panic!("{method} {path} takes no body"),
    }
}
