//! Rows `k8sd/cluster…`, `k8sd/node`, `k8sd/worker/info`, and `x/capi`'s of the same kind.

use serde::Deserialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

use super::super::ask::{Ask, List, Nothing, Schemas, in_query, named, read_body, read_query};
use super::super::caller::{Access, header};
use super::super::rule::{CHANGES, Call, Kind, LOOKS, Rule, Verb, When};
use super::Book;
use crate::fleet::api::Nanos;
use crate::fleet::api::cluster::{
    BootstrapRequest, ClusterStatusAnswer, IssuedToken, JoinRequest, JoinTokenRequest,
    NothingToTell, RemoveRequest, TokenAnswer,
};
use crate::fleet::api::config::SetConfigRequest;
use crate::fleet::api::names::clean_name;
use crate::fleet::api::worker::WorkerInfoRequest;
use crate::fleet::error::FleetError;

const STATUS: Rule = Rule {
    name: "cluster-status",
    summary: "What the fleet looks like.",
    forms: &[(Verb::Get, "/1.0/k8sd/cluster")],
    ..LOOKS
};

const BOOTSTRAP: Rule = Rule {
    name: "bootstrap",
    summary: "Form a fleet of this node.",
    forms: &[(Verb::Post, "/1.0/k8sd/cluster"), (Verb::Post, "/1.0/k8sd/cluster/bootstrap")],
    when: When::NotStopping,
    kind: Kind::Task,
    ..CHANGES
};

const NODE: Rule = Rule {
    name: "node-status",
    summary: "What this node is.",
    forms: &[(Verb::Get, "/1.0/k8sd/node")],
    when: When::NotStopping,
    ..LOOKS
};

const TOKENS: Rule = Rule {
    name: "join-token",
    summary: "A token by which a node may join: the one that counts already, or a new one.",
    forms: &[(Verb::Post, "/1.0/k8sd/cluster/tokens"), (Verb::Get, "/1.0/k8sd/cluster/tokens")],
    ..CHANGES
};

const TOKEN_LIST: Rule = Rule {
    name: "join-tokens",
    summary: "The tokens by which nodes may join, without what makes them good.",
    forms: &[(Verb::Get, "/1.0/tokens")],
    ..LOOKS
};

const CAPI_TOKENS: Rule = Rule {
    name: "capi-join-token",
    summary: "The same, for a provider of cluster-api.",
    forms: &[(Verb::Post, "/1.0/x/capi/generate-join-token")],
    access: Access::Capi,
    ..TOKENS
};

const JOIN: Rule = Rule {
    name: "join",
    summary: "Join this node to a fleet.",
    forms: &[(Verb::Post, "/1.0/k8sd/cluster/join")],
    when: When::NotStopping,
    kind: Kind::Task,
    also: &[521],
    ..CHANGES
};

const REMOVE: Rule = Rule {
    name: "remove",
    summary: "Take a node out of the fleet.",
    forms: &[(Verb::Post, "/1.0/k8sd/cluster/remove"), (Verb::Delete, "/1.0/k8sd/cluster/remove")],
    kind: Kind::Task,
    ..CHANGES
};

const CAPI_REMOVE: Rule = Rule {
    name: "capi-remove",
    summary: "The same, for a provider of cluster-api.",
    forms: &[(Verb::Post, "/1.0/x/capi/remove-node")],
    access: Access::Capi,
    ..REMOVE
};

const CONFIG: Rule = Rule {
    name: "config",
    summary: "The fleet's config.",
    forms: &[(Verb::Get, "/1.0/k8sd/cluster/config")],
    ..LOOKS
};

const SET_CONFIG: Rule = Rule {
    name: "set-config",
    summary: "Change the fleet's config: what is absent stays as it is.",
    forms: &[(Verb::Put, "/1.0/k8sd/cluster/config"), (Verb::Post, "/1.0/k8sd/cluster/config")],
    ..CHANGES
};

const WORKER: Rule = Rule {
    name: "worker-info",
    summary: "What a worker needs, for its token.",
    forms: &[(Verb::Post, "/1.0/k8sd/worker/info")],
    access: Access::Worker,
    ..CHANGES
};

pub(super) fn add(book: &mut Book) {
    book.row(STATUS, |call, _: Nothing| async move {
        call.node().cluster_status().await.map(|status| ClusterStatusAnswer { status })
    });
    book.row(
        BOOTSTRAP,
        |call, ask: BootstrapRequest| async move { call.node().bootstrap(ask).await },
    );
    book.row(NODE, |call, _: Nothing| async move { call.node().node_status().await });
    book.row(TOKENS, join_token);
    book.row(TOKEN_LIST, |call, _: Nothing| async move {
        call.node().join_tokens().await.map(List::<IssuedToken>)
    });
    book.row(CAPI_TOKENS, join_token);
    book.row(JOIN, |call, ask: JoinRequest| async move {
        call.node().join(ask).await.map(|()| NothingToTell {})
    });
    book.row(REMOVE, remove);
    book.row(CAPI_REMOVE, remove);
    book.row(CONFIG, |call, _: Nothing| async move { call.node().config().await });
    book.row(SET_CONFIG, |call, ask: SetConfigRequest| async move {
        call.node().set_config(ask).await.map(|()| NothingToTell {})
    });
    book.row(WORKER, |call, ask: WorkerInfoRequest| async move {
        let name = clean_name(header(&call.headers, "worker-name")?.reveal())?;
        let token = header(&call.headers, "worker-token")?;
        call.node().worker_info(&name, &token, ask).await
    });
}

async fn join_token(call: Call, ask: JoinTokenRequest) -> Result<TokenAnswer, FleetError> {
    call.node().join_token(ask).await.map(|token| TokenAnswer { token })
}

async fn remove(call: Call, ask: RemoveRequest) -> Result<NothingToTell, FleetError> {
    call.node().remove(ask).await.map(|()| NothingToTell {})
}

/// A name, unless the daemon is to choose one.
fn clean_optional(name: &mut String) -> Result<(), FleetError> {
    if !name.is_empty() {
        *name = clean_name(name)?;
    }
    Ok(())
}

impl Ask for BootstrapRequest {
    fn read(_: &Call, body: &[u8]) -> Result<Self, FleetError> {
        read_body(body, |ask: &mut Self| clean_optional(&mut ask.name))
    }

    fn object(&self) -> String {
        self.name.clone()
    }

    fn body(schemas: &mut Schemas) -> Option<RefOr<Schema>> {
        Some(named::<Self>(schemas))
    }
}

impl Ask for JoinRequest {
    fn read(_: &Call, body: &[u8]) -> Result<Self, FleetError> {
        read_body(body, |ask: &mut Self| clean_optional(&mut ask.name))
    }

    fn object(&self) -> String {
        self.name.clone()
    }

    fn body(schemas: &mut Schemas) -> Option<RefOr<Schema>> {
        Some(named::<Self>(schemas))
    }
}

/// The query of the older form, which has no body.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TokenQuery {
    name: String,
    worker: bool,
    ttl: i64,
}

impl Ask for JoinTokenRequest {
    /// The older form is a `GET`: with a body as the others have it, or with a query.
    fn read(call: &Call, body: &[u8]) -> Result<Self, FleetError> {
        let mut ask = if body.is_empty() && call.uri.query().is_some() {
            let query: TokenQuery = read_query(call)?;
            let ttl = u64::try_from(query.ttl)
                .map_err(|_| FleetError::Invalid("ttl is below 0".to_owned()))?;
            let ttl = Nanos::from(std::time::Duration::from_nanos(ttl));
            JoinTokenRequest { name: query.name, worker: query.worker, ttl }
        } else {
            read_body(body, |_: &mut Self| Ok(()))?
        };
        if !(ask.worker && ask.name.is_empty()) {
            ask.name = clean_name(&ask.name)?;
        }
        Ok(ask)
    }

    fn object(&self) -> String {
        self.name.clone()
    }

    fn body(schemas: &mut Schemas) -> Option<RefOr<Schema>> {
        Some(named::<Self>(schemas))
    }

    fn query() -> Vec<Parameter> {
        let of = |kind| ObjectBuilder::new().schema_type(kind);
        let ttl = of(Type::Integer).minimum(Some(0)).maximum(Some(i64::MAX));
        vec![
            in_query("name", "The node; none: any, for workers only.", of(Type::String)),
            in_query("worker", "For a worker.", of(Type::Boolean)),
            in_query("ttl", "Nanoseconds; 0: 24 h.", ttl),
        ]
    }
}

impl Ask for RemoveRequest {
    fn read(_: &Call, body: &[u8]) -> Result<Self, FleetError> {
        read_body(body, |ask: &mut Self| {
            ask.name = clean_name(&ask.name)?;
            Ok(())
        })
    }

    fn object(&self) -> String {
        self.name.clone()
    }

    fn body(schemas: &mut Schemas) -> Option<RefOr<Schema>> {
        Some(named::<Self>(schemas))
    }
}

impl Ask for SetConfigRequest {
    fn read(_: &Call, body: &[u8]) -> Result<Self, FleetError> {
        read_body(body, |_: &mut Self| Ok(()))
    }

    fn object(&self) -> String {
        "config".to_owned()
    }

    fn body(schemas: &mut Schemas) -> Option<RefOr<Schema>> {
        Some(named::<Self>(schemas))
    }
}

impl Ask for WorkerInfoRequest {
    fn read(_: &Call, body: &[u8]) -> Result<Self, FleetError> {
        read_body(body, |ask: &mut Self| match ask.address.is_empty() {
            true => Err(FleetError::Invalid("address is empty".to_owned())),
            false => Ok(()),
        })
    }

    fn object(&self) -> String {
        self.address.clone()
    }

    fn body(schemas: &mut Schemas) -> Option<RefOr<Schema>> {
        Some(named::<Self>(schemas))
    }
}
