//! The table of rows: how each is reached, and what answers it.

mod auth;
mod certificates;
mod cluster;
mod events;
mod health;
mod internal;
mod operations;
mod server;
mod webhook;

use std::future::Future;

use axum::Router;
use axum::extract::{Request, State};
use axum::routing::{MethodFilter, MethodRouter, on};
use utoipa::openapi::OpenApi;

use super::Api;
use super::ask::{Ask, Tell};
use super::envelope::error;
use super::openapi::Document;
use super::rule::{Call, Rule, Verb, perform};
use crate::fleet::error::FleetError;

/// Rows of the origin that belong to Kubernetes, and why each is not here.
const NOT_OURS: [(Verb, &str, &str); 4] = [
    (Verb::Get, "/1.0/k8sd/kubeconfig", "this daemon runs no API server of Kubernetes"),
    (Verb::Post, "/1.0/snap/refresh", "this daemon is no snap"),
    (Verb::Post, "/1.0/snap/refresh-status", "this daemon is no snap"),
    (
        Verb::Post,
        "/1.0/x/capi/refresh-certs/approve",
        "certificates are signed by the fleet, not by Kubernetes",
    ),
];

/// Routes and document while rows are added: one cannot have a row that the other has not.
pub(super) struct Book {
    router: Router<Api>,
    document: Document,
}

impl Book {
    /// Adds a row.
    fn row<A, T, F, Fut>(&mut self, rule: Rule, handler: F)
    where
        A: Ask,
        T: Tell,
        F: Fn(Call, A) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<T, FleetError>> + Send + 'static,
    {
        self.document.row::<A, T>(&rule);
        for (number, (verb, path)) in rule.forms.iter().enumerate() {
            let handler = handler.clone();
            let answer = move |State(api): State<Api>, request: Request| {
                let handler = handler.clone();
                async move { perform(api, rule, number > 0, request, handler).await }
            };
            self.route(path, on(filter(*verb), answer));
        }
    }

    fn route(&mut self, path: &str, routes: MethodRouter<Api>) {
        self.router = std::mem::take(&mut self.router).route(path, routes);
    }
}

fn filter(verb: Verb) -> MethodFilter {
    match verb {
        Verb::Get => MethodFilter::GET,
        Verb::Post => MethodFilter::POST,
        Verb::Put => MethodFilter::PUT,
        Verb::Delete => MethodFilter::DELETE,
    }
}

/// Every route, and the document of all that are for others.
pub(super) fn all() -> (Router<Api>, OpenApi) {
    let mut book = Book { router: Router::new(), document: Document::default() };
    cluster::add(&mut book);
    certificates::add(&mut book);
    auth::add(&mut book);
    webhook::add(&mut book);
    server::add(&mut book);
    operations::add(&mut book);
    events::add(&mut book);
    health::add(&mut book);
    internal::add(&mut book);
    for (verb, path, why) in NOT_OURS {
        let answer = move || async move { error(404, &format!("not ours: {why}")) };
        book.route(path, on(filter(verb), answer));
    }
    let Book { router, document } = book;
    let router = router
        .fallback(|| async { error(404, "not found") })
        .method_not_allowed_fallback(|| async { error(405, "method not allowed") });
    (router, document.finish())
}
