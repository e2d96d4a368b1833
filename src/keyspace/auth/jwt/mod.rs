//! JSON web tokens (RFC 7519), as etcd signs and believes them (etcd `server/auth/jwt.go`).
//!
//! ```text
//!   login          ──> {"alg","typ"} . {"username","revision","exp"} . signature
//!   token of a call ──> three parts? ── alg is ours? ── signature? ── exp, nbf ── username, revision
//! ```
//!
//! **Invariant:** the algorithm is this member's own setting; what a token says of itself may only agree with it.
//! **Invariant:** nothing of a token's claims is looked at before its signature has been verified.

mod der;
mod keys;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use self::keys::Key;
pub use self::keys::KeyError;
use crate::support::go::duration::GoDuration;

/// How long a token is good if the options do not say.
const TTL_DEFAULT: GoDuration = GoDuration::from_secs(300);

/// Signs and verifies tokens with one key and one algorithm.
pub(crate) struct Jwt {
    method: &'static str,
    key: Key,
    ttl: GoDuration,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("method", &self.method).finish_non_exhaustive()
    }
}

/// There is only a public key: tokens can be verified and not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VerifyOnly;

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) user: String,
    pub(crate) revision: u64,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

impl Jwt {
    /// `method` is an `alg` of RFC 7518; the keys are the contents of PEM files, or for HS methods the secret itself as
    /// the private key. No `ttl` means five minutes.
    pub(crate) fn new(
        method: &str,
        public: Option<&[u8]>,
        private: Option<&[u8]>,
        ttl: Option<GoDuration>,
    ) -> Result<Jwt, KeyError> {
        let (method, key) = Key::load(method, public, private)?;
        Ok(Jwt { method, key, ttl: ttl.unwrap_or(TTL_DEFAULT) })
    }

    /// A token for `user` that is good from `now_ms` (wall clock, milliseconds since 1970) on.
    pub(crate) fn sign(
        &self,
        user: &str,
        revision: u64,
        now_ms: i64,
    ) -> Result<String, VerifyOnly> {
        let ends_s = now_ms.saturating_add(self.ttl.0 / 1_000_000).div_euclid(1000);
        let header = json!({ "alg": self.method, "typ": "JWT" });
        let claims = json!({ "exp": ends_s, "revision": revision, "username": user });
        let mut token = encode(header.to_string().as_bytes());
        token.push('.');
        token.push_str(&encode(claims.to_string().as_bytes()));
        let signature = self.key.sign(token.as_bytes()).ok_or(VerifyOnly)?;
        token.push('.');
        token.push_str(&encode(&signature));
        Ok(token)
    }

    /// What `token` says, if it is signed with this key and good at `now_ms`.
    pub(crate) fn verify(&self, token: &str, now_ms: i64) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        if claims.contains('.') {
            return None;
        }
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        if header.alg != self.method || !self.key.verify(signed.as_bytes(), &decode(signature)?) {
            return None;
        }
        let claims: Map<String, Value> = serde_json::from_slice(&decode(claims)?).ok()?;
        let now_s = now_ms as f64 / 1000.0;
        let good = date(&claims, "exp")?.is_none_or(|ends| now_s < ends)
            && date(&claims, "nbf")?.is_none_or(|begins| now_s >= begins);
        if !good {
            return None;
        }
        let user = claims.get("username")?.as_str()?.to_owned();
        // A number of JSON, as Go reads it; a cast keeps it within bounds.
        let revision = claims.get("revision")?.as_f64()? as u64;
        Some(Claims { user, revision })
    }
}

/// A date in whole seconds since 1970: `Some(None)` if the claim is missing or 0, `None` if it is no date.
fn date(claims: &Map<String, Value>, name: &str) -> Option<Option<f64>> {
    match claims.get(name) {
        None => Some(None),
        Some(value) => {
            let seconds = value.as_f64()?.trunc();
            Some((seconds != 0.0).then_some(seconds))
        }
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
#[path = "jwt_test.rs"]
mod tests;
