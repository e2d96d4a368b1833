//! Rows `k8sd/certs-status`, `k8sd/refresh-certs/…`, and `x/capi`'s of the same kind.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use super::super::ask::{Ask, Nothing, Schemas, named, read_body};
use super::super::caller::Access;
use super::super::rule::{Call, Kind, Rule, Verb, When};
use super::Book;
use crate::fleet::api::certificates::{
    NothingAsked, RefreshPlan, RefreshPlanRequest, RefreshRunAnswer, RefreshRunRequest,
    RefreshUpdateRequest,
};
use crate::fleet::api::cluster::NothingToTell;
use crate::fleet::error::FleetError;

const STATUS: Rule = Rule {
    name: "certs-status",
    summary: "This node's certificates, and what signed them.",
    forms: &[(Verb::Get, "/1.0/k8sd/certs-status")],
    access: Access::Trusted,
    when: When::InFleet,
    kind: Kind::Reads,
    also: &[500],
};

const PLAN: Rule = Rule {
    name: "refresh-certs-plan",
    summary: "What a refresh of this node's certificates would do.",
    forms: &[(Verb::Post, "/1.0/k8sd/refresh-certs/plan")],
    access: Access::Trusted,
    when: When::InFleet,
    kind: Kind::Changes,
    also: &[],
};

const RUN: Rule = Rule {
    name: "refresh-certs-run",
    summary: "Refresh this node's certificates as planned, or begin to change the fleet's authority.",
    forms: &[(Verb::Post, "/1.0/k8sd/refresh-certs/run")],
    access: Access::Trusted,
    when: When::InFleet,
    kind: Kind::Task,
    also: &[409],
};

const UPDATE: Rule = Rule {
    name: "refresh-certs-update",
    summary: "Put certificates of this node in place that somebody else signed.",
    forms: &[(Verb::Post, "/1.0/k8sd/refresh-certs/update")],
    access: Access::Trusted,
    when: When::InFleet,
    kind: Kind::Changes,
    also: &[],
};

const EXPIRY: Rule = Rule {
    name: "capi-certificates-expiry",
    summary: "When the first of this node's certificates ends.",
    forms: &[(Verb::Post, "/1.0/x/capi/certificates-expiry")],
    access: Access::Node,
    when: When::InFleet,
    kind: Kind::Reads,
    also: &[500],
};

const CAPI_PLAN: Rule = Rule {
    name: "capi-refresh-certs-plan",
    forms: &[(Verb::Post, "/1.0/x/capi/refresh-certs/plan")],
    access: Access::Node,
    ..PLAN
};

const CAPI_RUN: Rule = Rule {
    name: "capi-refresh-certs-run",
    forms: &[(Verb::Post, "/1.0/x/capi/refresh-certs/run")],
    access: Access::Node,
    ..RUN
};

pub(super) fn add(book: &mut Book) {
    book.row(STATUS, |call, _: Nothing| async move { call.node().certificates_status().await });
    book.row(PLAN, plan);
    book.row(CAPI_PLAN, plan);
    book.row(RUN, run);
    book.row(CAPI_RUN, run);
    book.row(UPDATE, |call, ask: RefreshUpdateRequest| async move {
        call.node().update_certificates(ask).await.map(|()| NothingToTell {})
    });
    book.row(
        EXPIRY,
        |call, _: NothingAsked| async move { call.node().certificates_expiry().await },
    );
}

async fn plan(call: Call, ask: RefreshPlanRequest) -> Result<RefreshPlan, FleetError> {
    call.node().plan_certificates(ask).await
}

async fn run(call: Call, ask: RefreshRunRequest) -> Result<RefreshRunAnswer, FleetError> {
    call.node().run_certificates(ask).await
}

impl Ask for RefreshPlanRequest {
    fn read(_: &Call, body: &[u8]) -> Result<Self, FleetError> {
        read_body(body, |_: &mut Self| Ok(()))
    }

    fn object(&self) -> String {
        self.certificates.join(",")
    }

    fn body(schemas: &mut Schemas) -> Option<RefOr<Schema>> {
        Some(named::<Self>(schemas))
    }
}

impl Ask for RefreshRunRequest {
    fn read(_: &Call, body: &[u8]) -> Result<Self, FleetError> {
        read_body(body, |ask: &mut Self| {
            if ask.expiration_seconds < 0 {
                return Err(FleetError::Invalid("expiration-seconds is below 0".to_owned()));
            }
            Ok(())
        })
    }

    fn object(&self) -> String {
        self.certificates.join(",")
    }

    fn body(schemas: &mut Schemas) -> Option<RefOr<Schema>> {
        Some(named::<Self>(schemas))
    }
}

impl Ask for RefreshUpdateRequest {
    fn read(_: &Call, body: &[u8]) -> Result<Self, FleetError> {
        read_body(body, |ask: &mut Self| {
            let not_ours = ask.not_ours();
            if not_ours.is_empty() {
                return Ok(());
            }
            Err(FleetError::Invalid(format!(
                "not ours: {}: this daemon runs no component of Kubernetes",
                not_ours.join(", ")
            )))
        })
    }

    fn object(&self) -> String {
        let names: Vec<String> = self.given().into_iter().map(|(name, _)| name).collect();
        names.join(",")
    }

    fn body(schemas: &mut Schemas) -> Option<RefOr<Schema>> {
        Some(named::<Self>(schemas))
    }
}

impl Ask for NothingAsked {
    /// The origin does not look at the body at all: none is as good as `{}`.
    fn read(_: &Call, body: &[u8]) -> Result<Self, FleetError> {
        if body.is_empty() {
            return Ok(NothingAsked {});
        }
        read_body(body, |_: &mut Self| Ok(()))
    }

    fn body(schemas: &mut Schemas) -> Option<RefOr<Schema>> {
        Some(named::<Self>(schemas))
    }

    fn body_is_required() -> bool {
        false
    }
}
