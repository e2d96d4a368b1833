//! Rows `kubernetes/auth/…` and `x/capi/set-auth-token`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Sensitive, null_is_default};

/// `POST kubernetes/auth/tokens`: a token for this user in these groups, the present one if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthTokenRequest {
    /// The user.
    #[serde(default)]
    pub username: String,
    /// Its groups; order and repetition do not matter.
    #[serde(default, deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<String>>)]
    pub groups: Vec<String>,
}

/// `DELETE kubernetes/auth/tokens`, `POST x/capi/set-auth-token`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// The token.
    #[serde(default)]
    pub token: Sensitive,
}

/// Kubernetes' question who a token belongs to, and the answer in the same shape.
///
/// Unknown fields are let pass, as Kubernetes adds some (`metadata`). Source: `authentication.k8s.io/v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenReview {
    /// `authentication.k8s.io/v1` or `…/v1beta1`.
    pub api_version: String,
    /// `TokenReview`.
    pub kind: String,
    /// The question.
    pub spec: TokenReviewSpec,
    /// The answer; what a client sends of it does not count.
    pub status: TokenReviewStatus,
}

impl TokenReview {
    /// The version that is answered with when a question has none that is known.
    pub const V1: &'static str = "authentication.k8s.io/v1";
    /// The older version that is understood.
    pub const V1_BETA1: &'static str = "authentication.k8s.io/v1beta1";
    /// The one kind.
    pub const KIND: &'static str = "TokenReview";
}

impl Default for TokenReview {
    fn default() -> Self {
        TokenReview {
            api_version: Self::V1.to_owned(),
            kind: Self::KIND.to_owned(),
            spec: TokenReviewSpec::default(),
            status: TokenReviewStatus::default(),
        }
    }
}

/// The question.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TokenReviewSpec {
    /// Whom the token is meant for.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<String>>)]
    pub audiences: Vec<String>,
    /// The token.
    pub token: Sensitive,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TokenReviewStatus {
    /// As asked.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<String>>)]
    pub audiences: Vec<String>,
    /// Whether the token counts.
    pub authenticated: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Whose it is.
    pub user: TokenUser,
}

/// Who a token belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TokenUser {
    /// Nothing of ours.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    #[schema(value_type = Option<BTreeMap<String, Vec<String>>>)]
    pub extra: BTreeMap<String, Vec<String>>,
    /// Sorted, each once.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    #[schema(value_type = Option<Vec<String>>)]
    pub groups: Vec<String>,
    /// The user.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// The user again.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl TokenUser {
    /// A user of these groups.
    pub fn new(username: &str, groups: Vec<String>) -> Self {
        TokenUser {
            extra: BTreeMap::new(),
            groups,
            username: username.to_owned(),
            uid: username.to_owned(),
        }
    }
}

/// Groups as they are kept: sorted, each once. An empty one is refused by its position from 0.
pub fn clean_groups(groups: &[String]) -> Result<Vec<String>, usize> {
    if let Some(at) = groups.iter().position(String::is_empty) {
        return Err(at);
    }
    let mut clean = groups.to_vec();
    clean.sort();
    clean.dedup();
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_sorted_each_once_and_none_empty() {
        let groups = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert_eq!(clean_groups(&groups(&["b", "a", "b"])), Ok(groups(&["a", "b"])));
        assert_eq!(clean_groups(&[]), Ok(Vec::new()));
        assert_eq!(clean_groups(&groups(&["a", ""])), Err(1));
    }
}
