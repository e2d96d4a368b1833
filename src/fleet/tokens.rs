//! Tokens: who may join, and who may speak to the fleet.
//!
//! ```text
//!   fleet key, uid, role, name, nonce ── HMAC ──> secret ── SHA-256 ──> hash ── replicated, with the nonce
//!                                                    └── with addresses and fingerprint ── base64 ──> join token
//! ```
//!
//! The nonce is replicated beside the hash, so that every control-plane node gives the same token again while it is
//! valid, and the state alone gives none (decision 16). The shapes are those that Kubernetes distributions with a
//! `/1.0/` API have, and a `cluster_uid`:
//!
//! | kind | what base64 holds | secret |
//! |---|---|---|
//! | control plane | `{secret, fingerprint, join_addresses, cluster_uid}` | 64 hex digits |
//! | worker | the same, `token` (the secret again) and `"_": "m!!"` | `worker::` and 40 hex digits |
//! | auth (a user's) | no base64, the secret alone | `token::` and 40 hex digits |
//!
//! **Invariant:** no error of this module has a part of what it refuses in it.

use std::collections::BTreeSet;

use aws_lc_rs::rand::fill;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::seal::FleetKey;
use super::secret::Secret;
use crate::support::tls::Fingerprint;

/// Longer ones are refused before they are read.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 16;
/// What tells a worker's token from the other kind.
const WORKER_MARK: &str = "m!!";
const WORKER_PREFIX: &str = "worker::";
const AUTH_PREFIX: &str = "token::";
/// Hexadecimal digits of the secrets with a prefix, and of those without one.
const SHORT_DIGITS: usize = 40;
const LONG_DIGITS: usize = 64;

/// With padding, read with and without: some issue worker tokens bare.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a join token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinRole {
    /// A node that holds a replica.
    ControlPlane,
    /// A node that passes on.
    Worker,
}

impl JoinRole {
    fn label(self) -> &'static str {
        match self {
            JoinRole::ControlPlane => "control-plane",
            JoinRole::Worker => "worker",
        }
    }
}

impl std::fmt::Display for JoinRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

/// Why a token is refused by its looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than any token.
    #[error("the token is too long")]
    TooLong,
    /// Not base64, as a token that was cut off when it was copied.
    #[error("the token is not whole: it is not base64")]
    NotBase64,
    /// Base64 of something else.
    #[error("the token is not whole: what it holds cannot be read")]
    NotReadable,
    /// It names no fleet: made by another program.
    #[error("the token names no cluster_uid: it was not made by this fleet")]
    NoFleet,
    /// Readable, and this field cannot be.
    #[error("the token's {0} is malformed")]
    Field(&'static str),
    /// For the other role.
    #[error("the token is for a {0} node")]
    Role(JoinRole),
    /// Of another fleet.
    #[error("the token is of another cluster")]
    OtherFleet,
}

/// What a node needs to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// As what it may join.
    pub role: JoinRole,
    /// What it shows.
    pub secret: Secret,
    /// The certificate of the fleet's authority, which whoever it speaks to must be signed by.
    pub fingerprint: Fingerprint,
    /// `host:port` of nodes that it may ask, in this order.
    pub addresses: Vec<String>,
    /// The fleet.
    pub uid: String,
}

#[derive(Serialize, Deserialize)]
struct Shape {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<Secret>,
    secret: Secret,
    fingerprint: String,
    join_addresses: Vec<String>,
    #[serde(default)]
    cluster_uid: Option<String>,
    #[serde(default, rename = "_", skip_serializing_if = "Option::is_none")]
    mark: Option<String>,
}

impl JoinToken {
    /// The text that is given to the node.
    pub fn encode(&self) -> Secret {
        let worker = self.role == JoinRole::Worker;
        let shape = Shape {
            token: worker.then(|| self.secret.clone()),
            secret: self.secret.clone(),
            fingerprint: self.fingerprint.to_string(),
            join_addresses: self.addresses.clone(),
            cluster_uid: Some(self.uid.clone()),
            mark: worker.then(|| WORKER_MARK.to_owned()),
        };
        let json = serde_json::to_vec(&shape).expect("a shape of strings is always JSON");
        Secret::from(BASE64.encode(Zeroizing::new(json)))
    }

    /// Reads a token of either kind. White space around it does not matter.
    pub fn decode(token: &Secret) -> Result<JoinToken, TokenError> {
        let text = token.reveal().trim();
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let json = Zeroizing::new(BASE64.decode(text).map_err(|_| TokenError::NotBase64)?);
        let shape: Shape = serde_json::from_slice(&json).map_err(|_| TokenError::NotReadable)?;
        let role = match shape.mark.as_deref() {
            None => JoinRole::ControlPlane,
            Some(WORKER_MARK) => JoinRole::Worker,
            Some(_) => return Err(TokenError::Field("kind")),
        };
        if shape.token.is_some_and(|again| again != shape.secret)
            || !is_join_secret(role, &shape.secret)
        {
            return Err(TokenError::Field("secret"));
        }
        let fingerprint =
            shape.fingerprint.parse().map_err(|_| TokenError::Field("fingerprint"))?;
        let named = |address: &String| {
            let parts = address.rsplit_once(':');
            parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if shape.join_addresses.is_empty() || !shape.join_addresses.iter().all(named) {
            return Err(TokenError::Field("join_addresses"));
        }
        let uid = shape.cluster_uid.ok_or(TokenError::NoFleet)?;
        if uuid::Uuid::parse_str(&uid).is_err() {
            return Err(TokenError::Field("cluster_uid"));
        }
        let (secret, addresses) = (shape.secret, shape.join_addresses);
        Ok(JoinToken { role, secret, fingerprint, addresses, uid })
    }

    /// Refuses a token that is for the other role.
    pub fn for_role(self, role: JoinRole) -> Result<JoinToken, TokenError> {
        match self.role == role {
            true => Ok(self),
            false => Err(TokenError::Role(self.role)),
        }
    }

    /// Refuses a token of another fleet than `uid`.
    pub fn of_fleet(self, uid: &str) -> Result<JoinToken, TokenError> {
        match self.uid == uid {
            true => Ok(self),
            false => Err(TokenError::OtherFleet),
        }
    }
}

/// Whether a secret looks as one for this role does.
pub fn is_join_secret(role: JoinRole, secret: &Secret) -> bool {
    let text = secret.reveal();
    match role {
        JoinRole::ControlPlane => is_hex(text, LONG_DIGITS),
        JoinRole::Worker => is_prefixed(text, WORKER_PREFIX),
    }
}

/// Whether a secret looks as a user's does.
pub fn is_auth_secret(secret: &Secret) -> bool {
    is_prefixed(secret.reveal(), AUTH_PREFIX)
}

fn is_prefixed(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|digits| is_hex(digits, SHORT_DIGITS))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What a token is drawn from beside the key; no secret.
pub fn nonce() -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    fill(&mut nonce).expect("the system gives random bytes");
    nonce
}

/// The secret of a join token of the fleet `uid`. `name` is empty for a worker of any name.
pub fn join_secret(key: &FleetKey, uid: &str, role: JoinRole, name: &str, nonce: &[u8]) -> Secret {
    let fields: [&[u8]; 4] = [uid.as_bytes(), role.label().as_bytes(), name.as_bytes(), nonce];
    let derived = key.derive("quorate join token 1", &fields);
    match role {
        JoinRole::ControlPlane => hex("", &derived[..], LONG_DIGITS),
        JoinRole::Worker => hex(WORKER_PREFIX, &derived[..], SHORT_DIGITS),
    }
}

/// The token of a user with these groups, which are [`canonical_groups`].
pub fn auth_secret(
    key: &FleetKey,
    uid: &str,
    user: &str,
    groups: &[String],
    nonce: &[u8],
) -> Secret {
    let mut fields: Vec<&[u8]> = vec![uid.as_bytes(), user.as_bytes(), nonce];
    fields.extend(groups.iter().map(|group| group.as_bytes()));
    hex(AUTH_PREFIX, &key.derive("quorate auth token 1", &fields)[..], SHORT_DIGITS)
}

/// A secret that follows from nothing, 40 hexadecimal digits: the `node-token` of one node's own file.
pub fn random_secret() -> Secret {
    let mut bytes = Zeroizing::new([0; SHORT_DIGITS / 2]);
    fill(bytes.as_mut_slice()).expect("the system gives random bytes");
    hex("", bytes.as_slice(), SHORT_DIGITS)
}

fn hex(prefix: &str, bytes: &[u8], digits: usize) -> Secret {
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + digits));
    text.push_str(prefix);
    for nibble in bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]).take(digits) {
        text.push(char::from_digit(u32::from(nibble), 16).expect("half a byte is a digit"));
    }
    Secret::from(text.as_str())
}

/// Groups as they are kept and compared: sorted, each once, none empty.
pub fn canonical_groups<S: AsRef<str>>(given: &[S]) -> Vec<String> {
    let groups: BTreeSet<&str> = given.iter().map(AsRef::as_ref).collect();
    groups.into_iter().filter(|group| !group.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
#[path = "tokens_test.rs"]
mod tokens_test;
