//! `/livez`, `/readyz`, `/health`, `/version` of the node: bare, for probes, and open.

use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use http::{Response, StatusCode};
use utoipa::openapi::path::OperationBuilder;

use super::super::Api;
use super::super::ask::named;
use super::super::envelope::json;
use super::super::rule::Verb;
use super::Book;
use crate::fleet::api::server::{Health, VersionAnswer};
use crate::fleet::management::{Condition, Phase};
use crate::service::version::{ETCD_VERSION, cluster_version};

pub(super) fn add(book: &mut Book) {
    book.route("/livez", get(|State(api): State<Api>| async move { told(api.node().not_alive()) }));
    book.route("/readyz", get(|State(api)| async move { told(ready(&api).await) }));
    book.route("/health", get(|State(api)| async move { told(healthy(&api).await) }));
    book.route("/version", get(version));
    let health = named::<Health>(book.document.schemas());
    for (path, name, summary) in [
        ("/livez", "livez", "Whether the daemon should be left running."),
        ("/readyz", "readyz", "Whether the daemon should be sent anything."),
        ("/health", "health", "Whether the member, if there is one, serves linearizable reads."),
    ] {
        let operation = OperationBuilder::new().operation_id(Some(name)).summary(Some(summary));
        book.document.bare(
            Verb::Get,
            path,
            operation,
            vec![
                (200, "application/json", health.clone()),
                (503, "application/json", health.clone()),
            ],
        );
    }
    let version = named::<VersionAnswer>(book.document.schemas());
    let operation = OperationBuilder::new()
        .operation_id(Some("version"))
        .summary(Some("The versions that clients of etcd ask for, and ours."));
    book.document.bare(Verb::Get, "/version", operation, vec![(200, "application/json", version)]);
}

async fn ready(api: &Api) -> Option<String> {
    if api.node().phase() == Phase::Stopping {
        return Some("the daemon is shutting down".to_owned());
    }
    api.node().condition().await.not_ready
}

async fn healthy(api: &Api) -> Option<String> {
    let Condition { not_ready, not_healthy } = api.node().condition().await;
    api.node().not_alive().or(not_ready).or(not_healthy)
}

fn told(why_not: Option<String>) -> Response<Body> {
    let (code, health) = match why_not {
        None => (StatusCode::OK, "true"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "false"),
    };
    json(code, &Health { health: health.to_owned(), reason: why_not.unwrap_or_default() })
}

async fn version(State(api): State<Api>) -> Response<Body> {
    let etcdcluster = match api.node().phase() {
        Phase::ControlPlane | Phase::Worker => cluster_version(),
        Phase::Uninitialized
        | Phase::Bootstrapping
        | Phase::Joining
        | Phase::Resetting
        | Phase::Removed
        | Phase::Stopping => "not_decided".to_owned(),
    };
    json(
        StatusCode::OK,
        &VersionAnswer {
            etcdserver: ETCD_VERSION.to_owned(),
            etcdcluster,
            quorate: env!("CARGO_PKG_VERSION").to_owned(),
        },
    )
}
