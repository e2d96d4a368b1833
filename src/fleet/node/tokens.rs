//! Tokens, as the API asks for them: for nodes that join, for users of the webhook, for cluster-api, for this node alone.
//!
//! ```text
//!   get or create:  nonce ── hash of what it and the fleet's key give ──> command ──> the nonce that counts ──> token
//! ```
//!
//! **Invariant:** what is compared is a hash under which a token is filed, or the token itself in constant time.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::api::pb::internal::fleet_request::Ask;
use quorate_core::api::pb::internal::{
    FleetAuthTokenIssue, FleetRequest, FleetRole, FleetTokenIssue,
};
use quorate_core::api::refusal::{FleetRefusal, Refusal};
use quorate_core::api::reply::FleetReply;
use quorate_core::state_machine::fleet::FleetState;

use super::certificates;
use super::life::Node;
use super::refusals::{of_keyspace, unexpected};
use super::registry::change;
use super::stage::Seat;
use crate::fleet::api::Sensitive;
use crate::fleet::api::auth::{AuthTokenRequest, TokenUser};
use crate::fleet::api::cluster::{ClusterRole, IssuedToken, JoinTokenRequest};
use crate::fleet::api::names::clean_name;
use crate::fleet::error::FleetError;
use crate::fleet::secret::Secret;
use crate::fleet::tokens::{
    JoinRole, JoinToken, auth_secret, canonical_groups, join_secret, nonce, random_secret,
};
use crate::keyspace::KeyspaceError;
use crate::support::clock::{rfc3339_seconds, unix_micros};
use crate::support::durable;

/// How long a join token counts if nobody says.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

impl Node {
    pub(super) async fn make_join_token(
        &self,
        request: JoinTokenRequest,
    ) -> Result<Sensitive, FleetError> {
        let seat = self.stage().seat()?;
        let role = if request.worker { JoinRole::Worker } else { JoinRole::ControlPlane };
        let name = match (request.worker, request.name.as_str()) {
            (true, "") => String::new(),
            (_, name) => clean_name(name)?,
        };
        let (uid, nonce) = (seat.uid.clone(), nonce());
        let secret = join_secret(&seat.key, &uid, role, &name, &nonce);
        let ttl = i64::try_from(request.ttl.or(TTL).as_millis()).unwrap_or(i64::MAX);
        let issue = FleetTokenIssue {
            name: name.clone(),
            role: fleet_role(role) as i32,
            hash: Bytes::copy_from_slice(&secret.hash()),
            nonce: Bytes::copy_from_slice(&nonce),
            expires_ms: unix_ms().saturating_add(ttl),
        };
        let issued = issue_one(&seat, Ask::TokenIssue(issue)).await.map_err(|why| match why {
            KeyspaceError::Refused(Refusal::Fleet(FleetRefusal::TokenExpired)) => {
                FleetError::Invalid("ttl is too short: the token has expired already".to_owned())
            }
            other => of_keyspace(other),
        });
        let reply = issued?;
        let FleetReply::Token { nonce, .. } = reply else {
            return Err(unexpected("an answer of another kind to a token's issue"));
        };
        let secret = join_secret(&seat.key, &uid, role, &name, &nonce);
        let read = seat.keyspace().fleet(|fleet| {
            let authority = fleet.record().and_then(|record| record.authority.clone());
            (authority, addresses(fleet, &seat.address))
        });
        let (authority, addresses) = read.await.map_err(of_keyspace)?;
        let authority = authority.ok_or(FleetError::NotInitialized)?;
        let fingerprint = certificates::fingerprint(&authority)?;
        let token = JoinToken { role, secret, fingerprint, addresses, uid };
        Ok(Sensitive::new(token.encode().reveal()))
    }

    pub(super) async fn list_join_tokens(&self) -> Result<Vec<IssuedToken>, FleetError> {
        let seat = self.stage().seat()?;
        let read = seat.keyspace().fleet(|fleet| {
            let now = unix_ms();
            let counting = fleet.join_tokens().filter(|issue| issue.expires_ms > now);
            counting.map(listed).collect::<Vec<_>>()
        });
        let mut tokens = read.await.map_err(of_keyspace)?;
        tokens.sort_by(|one, other| (&one.name, one.role).cmp(&(&other.name, other.role)));
        Ok(tokens)
    }

    pub(super) async fn make_auth_token(
        &self,
        request: AuthTokenRequest,
    ) -> Result<Sensitive, FleetError> {
        let seat = self.stage().seat()?;
        if request.username.is_empty() {
            return Err(FleetError::Invalid("username must not be empty".to_owned()));
        }
        let (user, groups) = (request.username, canonical_groups(&request.groups));
        let nonce = nonce();
        let secret = auth_secret(&seat.key, &seat.uid, &user, &groups, &nonce);
        let issue = FleetAuthTokenIssue {
            username: user.clone(),
            groups: groups.clone(),
            hash: Bytes::copy_from_slice(&secret.hash()),
            nonce: Bytes::copy_from_slice(&nonce),
        };
        let reply = issue_one(&seat, Ask::AuthTokenIssue(issue)).await.map_err(of_keyspace)?;
        let FleetReply::AuthToken { nonce, .. } = reply else {
            return Err(unexpected("an answer of another kind to a token's issue"));
        };
        let secret = auth_secret(&seat.key, &seat.uid, &user, &groups, &nonce);
        Ok(Sensitive::new(secret.reveal()))
    }

    pub(super) async fn forget_auth_token(&self, token: &Sensitive) -> Result<(), FleetError> {
        let seat = self.stage().seat()?;
        let hash = Bytes::copy_from_slice(&secret(token).hash());
        match change(seat.keyspace(), Ask::AuthTokenRevoke(hash)).await {
            // Gone is what was asked for.
            Ok(()) | Err(KeyspaceError::Refused(Refusal::Fleet(FleetRefusal::TokenUnknown))) => {
                Ok(())
            }
            Err(why) => Err(of_keyspace(why)),
        }
    }

    /// Whose the token is, as of now: one that was revoked anywhere counts nowhere.
    pub(super) async fn owner_of(
        &self,
        token: &Sensitive,
    ) -> Result<Option<TokenUser>, FleetError> {
        let seat = self.stage().seat()?;
        let shown = secret(token);
        let hash = shown.hash();
        let found = seat.keyspace().fleet(|fleet| fleet.auth_token(&hash).cloned());
        let found = found.await.map_err(of_keyspace)?;
        let known = found.filter(|issue| shown.has_hash(&issue.hash));
        Ok(known.map(|issue| TokenUser::new(&issue.username, issue.groups)))
    }

    pub(super) async fn put_capi_token(&self, token: &Sensitive) -> Result<(), FleetError> {
        let seat = self.stage().seat()?;
        if token.is_empty() {
            return Err(FleetError::Invalid("token must not be empty".to_owned()));
        }
        let hash = Bytes::copy_from_slice(&secret(token).hash());
        change(seat.keyspace(), Ask::CapiToken(hash)).await.map_err(of_keyspace)
    }

    pub(super) async fn is_capi_token(&self, token: &Sensitive) -> Result<bool, FleetError> {
        let seat = self.stage().seat()?;
        let kept = seat.keyspace().fleet(|fleet| {
            fleet.record().map(|record| record.capi_token.clone()).unwrap_or_default()
        });
        let kept = kept.await.map_err(of_keyspace)?;
        Ok(!kept.is_empty() && secret(token).has_hash(&kept))
    }

    /// Whether it is what this node's own file says.
    pub(super) fn is_node_token(&self, token: &Sensitive) -> Result<bool, FleetError> {
        let path = self.0.directory.node_token();
        let kept = std::fs::read_to_string(&path);
        let kept = kept.map_err(|why| unexpected(&format!("node-token: {why}")))?;
        let kept = Secret::from(kept.trim());
        Ok(!kept.reveal().is_empty() && kept == secret(token))
    }

    /// Makes this node's own token, if it has none.
    pub(super) fn make_node_token(&self) -> Result<(), FleetError> {
        let path = self.0.directory.node_token();
        if path.exists() {
            return Ok(());
        }
        let made = durable::replace(&path, durable::SECRET, random_secret().reveal().as_bytes());
        made.map_err(|why| unexpected(&format!("node-token: {why}")))
    }
}

async fn issue_one(seat: &Seat, ask: Ask) -> Result<FleetReply, KeyspaceError> {
    let request = FleetRequest { fence: None, ask: Some(ask) };
    seat.keyspace().fleet_change(request).await
}

fn listed(issue: &FleetTokenIssue) -> IssuedToken {
    let expires = u64::try_from(issue.expires_ms / 1000).unwrap_or_default();
    IssuedToken {
        name: issue.name.clone(),
        role: match issue.role == FleetRole::Worker as i32 {
            true => ClusterRole::Worker,
            false => ClusterRole::ControlPlane,
        },
        expires_at: rfc3339_seconds(expires),
    }
}

/// APIs of the nodes that let others in; `own` first.
fn addresses(fleet: &FleetState, own: &str) -> Vec<String> {
    let others = fleet
        .nodes()
        .filter(|node| node.role == FleetRole::ControlPlane as i32 && node.address != own)
        .map(|node| node.address.clone());
    std::iter::once(own.to_owned()).chain(others).collect()
}

pub(super) fn fleet_role(role: JoinRole) -> FleetRole {
    match role {
        JoinRole::ControlPlane => FleetRole::ControlPlane,
        JoinRole::Worker => FleetRole::Worker,
    }
}

pub(super) fn secret(text: &Sensitive) -> Secret {
    Secret::from(text.reveal())
}

/// The clock of this machine, in milliseconds since 1970.
pub(super) fn unix_ms() -> i64 {
    i64::try_from(unix_micros() / 1000).unwrap_or(i64::MAX)
}
