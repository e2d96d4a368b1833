//! Row `kubernetes/auth/webhook`: Kubernetes asks whose a token is. The one row without an envelope.
//!
//! ```text
//!   TokenReview ── known version and kind? ── token's? ──> 200 authenticated    else 401, and 400 if it is none at all
//! ```

use axum::body::Body;
use axum::extract::{Request, State};
use axum::routing::post;
use http::{Response, StatusCode};
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::{Content, Required};

use super::super::Api;
use super::super::ask::named;
use super::super::body::{self, BODY_BYTES_MAX, Unread};
use super::super::codes::{code_of, status_of};
use super::super::envelope::{json, refused};
use super::super::openapi::failure;
use super::super::rule::{Verb, When};
use super::Book;
use crate::fleet::api::auth::{TokenReview, TokenReviewStatus};
use crate::fleet::error::FleetError;

const PATH: &str = "/1.0/kubernetes/auth/webhook";

pub(super) fn add(book: &mut Book) {
    book.route(PATH, post(answer));
    let review = named::<TokenReview>(book.document.schemas());
    let body = RequestBodyBuilder::new()
        .content("application/json", Content::new(Some(review.clone())))
        .required(Some(Required::True))
        .build();
    let operation = OperationBuilder::new()
        .operation_id(Some("token-review"))
        .summary(Some("Whose a token is, as Kubernetes asks and hears it."))
        .request_body(Some(body));
    book.document.bare(
        Verb::Post,
        PATH,
        operation,
        vec![
            (200, "application/json", review.clone()),
            (400, "application/json", review.clone()),
            (401, "application/json", review.clone()),
            (500, "application/json", review),
            (403, "application/json", failure(403)),
            (503, "application/json", failure(503)),
            (520, "application/json", failure(520)),
        ],
    );
}

async fn answer(State(api): State<Api>, request: Request) -> Response<Body> {
    if let Err(why) = When::ControlPlane.admit(api.node()) {
        return refused(&why);
    }
    let read = body::read(request.into_body()).await;
    let parsed = read.map_err(|unread| match unread {
        Unread::TooLong => format!("a body may have {BODY_BYTES_MAX} bytes"),
        Unread::Broken(why) => why,
    });
    let parsed =
        parsed.and_then(|body| body::parse::<TokenReview>(&body).map_err(|why| why.to_string()));
    match parsed {
        Ok(asked) => review(&api, asked).await,
        Err(why) => tell(StatusCode::BAD_REQUEST, TokenReview::default(), failed(why)),
    }
}

async fn review(api: &Api, mut asked: TokenReview) -> Response<Body> {
    let mut faults = Vec::new();
    if ![TokenReview::V1, TokenReview::V1_BETA1].contains(&asked.api_version.as_str()) {
        faults.push(format!("unknown GroupVersion={}", asked.api_version));
        TokenReview::V1.clone_into(&mut asked.api_version);
    }
    if asked.kind != TokenReview::KIND {
        faults.push(format!("unknown Kind={}", asked.kind));
        TokenReview::KIND.clone_into(&mut asked.kind);
    }
    if !faults.is_empty() {
        let why = format!("invalid TokenReview: {}", faults.join("\n"));
        return tell(StatusCode::UNAUTHORIZED, asked, failed(why));
    }
    match api.node().review_token(&asked.spec.token).await {
        Ok(Some(user)) => {
            let status = TokenReviewStatus {
                audiences: asked.spec.audiences.clone(),
                authenticated: true,
                error: String::new(),
                user,
            };
            tell(StatusCode::OK, asked, status)
        }
        Ok(None) => tell(StatusCode::UNAUTHORIZED, asked, failed("invalid token".to_owned())),
        // Not an answer about the token: whoever asked should ask again.
        Err(why @ (FleetError::Unavailable(_) | FleetError::TimedOut(_))) => refused(&why),
        Err(why) => {
            tracing::warn!(error = %why, "a token could not be reviewed");
            tell(status_of(code_of(&why)), asked, failed(why.to_string()))
        }
    }
}

fn failed(why: String) -> TokenReviewStatus {
    TokenReviewStatus { error: why, ..TokenReviewStatus::default() }
}

fn tell(code: StatusCode, mut review: TokenReview, status: TokenReviewStatus) -> Response<Body> {
    review.status = status;
    json(code, &review)
}
