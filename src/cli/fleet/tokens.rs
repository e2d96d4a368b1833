//! Tokens of nodes and users, and what a Cluster API provider asks for.

use std::io;
use std::path::Path;

use serde_json::Value;

use super::api::{Api, refused, typed};
use super::certificates::moment;
use super::entry::{bare_token, remove_request, token_request};
use super::failure::Failure;
use super::format::Answer;
use super::line::{AuthToken, Capi, TokenSource};
use super::status::cluster_role;
use super::table::table;
use super::words::token;
use crate::fleet::api::Sensitive;
use crate::fleet::api::auth::{AuthTokenRequest, TokenRequest, TokenReview, TokenReviewSpec};
use crate::fleet::api::certificates::{ExpiryAnswer, NothingAsked};
use crate::fleet::api::cluster::IssuedToken;

const TOKENS: &str = "/1.0/kubernetes/auth/tokens";

const OK: u16 = 200;
const UNAUTHORIZED: u16 = 401;

/// The header in which a provider shows its token.
const CAPI_TOKEN: &str = "capi-auth-token";
/// The header in which somebody shows that they may read the node's state directory.
const NODE_TOKEN: &str = "node-token";

/// `GET tokens`.
pub(super) async fn joining(api: &Api) -> Result<Answer, Failure> {
    let metadata = api.get("/1.0/tokens").await?;
    Ok(Answer::told(metadata, |metadata| {
        let tokens: Vec<IssuedToken> = typed(metadata)?;
        let rows = tokens.into_iter().map(|token| {
            let name = if token.name.is_empty() { "any".to_owned() } else { token.name };
            vec![name, cluster_role(Some(token.role)).to_owned(), moment(&token.expires_at)]
        });
        Ok(table(&["NAME", "ROLE", "EXPIRES"], rows))
    }))
}

/// `kubernetes/auth/...`.
pub(super) async fn auth(api: &Api, command: AuthToken) -> Result<Answer, Failure> {
    match command {
        AuthToken::Create { username, groups } => {
            let metadata = api.post(TOKENS, &AuthTokenRequest { username, groups }).await?;
            Ok(bare_token(metadata))
        }
        AuthToken::Revoke(source) => {
            let request = TokenRequest { token: read(source)? };
            let metadata = api.delete_with(TOKENS, &request).await?;
            Ok(Answer::said(metadata, "Token revoked.\n"))
        }
        AuthToken::Review(source) => review(api, read(source)?).await,
    }
}

/// `kubernetes/auth/webhook`, as a kube-apiserver asks it: bare, and 401 means that the token is nobody's.
async fn review(api: &Api, token: Sensitive) -> Result<Answer, Failure> {
    let spec = TokenReviewSpec { token, ..TokenReviewSpec::default() };
    let request = TokenReview { spec, ..TokenReview::default() };
    let (status, metadata) = api.bare("/1.0/kubernetes/auth/webhook", &request).await?;
    if status == OK {
        let review: TokenReview = typed(&metadata)?;
        let user = review.status.user;
        let plain = format!("user: {}\ngroups: {}\n", user.username, user.groups.join(", "));
        return Ok(Answer::said(metadata["status"].clone(), plain));
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // A review carries its reason in its status, an envelope in its error.
    let (reason, error) = (text(&metadata["status"]["error"]), text(&metadata["error"]));
    Err(match (status, reason.as_str(), error.as_str()) {
        (UNAUTHORIZED, "", "") => Failure::failed("the token is nobody's"),
        (UNAUTHORIZED, reason, "") => Failure::failed(format!("the token is nobody's: {reason}")),
        (status, "", error) => refused(status, error.to_owned()),
        (status, reason, _) => refused(status, reason.to_owned()),
    })
}

/// `x/capi/...`.
pub(super) async fn capi(api: &Api, state_dir: &Path, command: Capi) -> Result<Answer, Failure> {
    match command {
        Capi::SetToken(source) => {
            let request = TokenRequest { token: read(source)? };
            let metadata = api.post("/1.0/x/capi/set-auth-token", &request).await?;
            Ok(Answer::said(metadata, "The provider's token is set.\n"))
        }
        Capi::GenerateJoinToken { join, auth_token_file } => {
            let header = (CAPI_TOKEN, file(&auth_token_file)?);
            let path = "/1.0/x/capi/generate-join-token";
            Ok(bare_token(api.post_as(path, &token_request(join), header).await?))
        }
        Capi::RemoveNode { remove, auth_token_file } => {
            let header = (CAPI_TOKEN, file(&auth_token_file)?);
            let plain = format!("Removed {} from the fleet.\n", remove.name);
            let request = remove_request(api, remove);
            let metadata = api.post_as("/1.0/x/capi/remove-node", &request, header).await?;
            Ok(Answer::said(metadata, plain))
        }
        Capi::CertificatesExpiry => {
            let header = (NODE_TOKEN, file(&state_dir.join(NODE_TOKEN))?);
            let path = "/1.0/x/capi/certificates-expiry";
            let metadata = api.post_as(path, &NothingAsked {}, header).await?;
            Ok(Answer::told(metadata, |metadata| {
                Ok(format!("{}\n", moment(&typed::<ExpiryAnswer>(metadata)?.expiry_date)))
            }))
        }
    }
}

fn read(source: TokenSource) -> Result<Sensitive, Failure> {
    source.read(&mut io::stdin())
}

fn file(path: &Path) -> Result<Sensitive, Failure> {
    token(None, Some(path), &mut io::stdin())
}
