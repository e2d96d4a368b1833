//! Rows `kubernetes/auth/tokens` and `x/capi/set-auth-token`.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use super::super::ask::{Ask, Null, Schemas, named, read_body};
use super::super::rule::{CHANGES, Call, Rule, Verb};
use super::Book;
use crate::fleet::api::auth::{AuthTokenRequest, TokenRequest, clean_groups};
use crate::fleet::api::cluster::{NothingToTell, TokenAnswer};
use crate::fleet::error::FleetError;

const ISSUE: Rule = Rule {
    name: "auth-token",
    summary: "A token for a user in groups: the one that there is, or a new one.",
    forms: &[(Verb::Post, "/1.0/kubernetes/auth/tokens")],
    ..CHANGES
};

const REVOKE: Rule = Rule {
    name: "auth-token-revoke",
    summary: "Let a token count no more.",
    forms: &[(Verb::Delete, "/1.0/kubernetes/auth/tokens")],
    ..CHANGES
};

const SET_CAPI: Rule = Rule {
    name: "capi-set-auth-token",
    summary: "The one token that providers of cluster-api show from now on.",
    forms: &[(Verb::Post, "/1.0/x/capi/set-auth-token")],
    ..CHANGES
};

pub(super) fn add(book: &mut Book) {
    book.row(ISSUE, |call, ask: AuthTokenRequest| async move {
        call.node().issue_auth_token(ask).await.map(|token| TokenAnswer { token })
    });
    book.row(REVOKE, |call, ask: TokenRequest| async move {
        call.node().revoke_auth_token(&ask.token).await.map(|()| Null)
    });
    book.row(SET_CAPI, |call, ask: TokenRequest| async move {
        call.node().set_capi_token(&ask.token).await.map(|()| NothingToTell {})
    });
}

impl Ask for AuthTokenRequest {
    fn read(_: &Call, body: &[u8]) -> Result<Self, FleetError> {
        read_body(body, |ask: &mut Self| {
            if ask.username.is_empty() {
                return Err(FleetError::Invalid("username is empty".to_owned()));
            }
            ask.groups = clean_groups(&ask.groups)
                .map_err(|at| FleetError::Invalid(format!("group {at} is empty")))?;
            Ok(())
        })
    }

    fn object(&self) -> String {
        self.username.clone()
    }

    fn body(schemas: &mut Schemas) -> Option<RefOr<Schema>> {
        Some(named::<Self>(schemas))
    }
}

impl Ask for TokenRequest {
    fn read(_: &Call, body: &[u8]) -> Result<Self, FleetError> {
        read_body(body, |ask: &mut Self| {
            if ask.token.is_empty() {
                return Err(FleetError::Invalid("token is empty".to_owned()));
            }
            Ok(())
        })
    }

    fn body(schemas: &mut Schemas) -> Option<RefOr<Schema>> {
        Some(named::<Self>(schemas))
    }
}
