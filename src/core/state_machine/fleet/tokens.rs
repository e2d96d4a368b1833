//! Tokens: for nodes that join, once each, and for users of the webhook, until they are revoked.
//!
//! Whoever asks for one that there is gets that one: the nonce lies here beside the hash, and with the fleet's key,
//! which does not, it makes the same secret again.

use bytes::Bytes;

use crate::api::pb::internal::{FleetAuthTokenIssue, FleetNode, FleetRole, FleetTokenIssue};
use crate::api::refusal::FleetRefusal;
use crate::api::reply::FleetReply;
use crate::state_machine::changes::Changes;

use super::{FleetState, is_hash, require};

/// So long a token that ran out is known as such, in milliseconds.
const KEPT_MS: i64 = 24 * 60 * 60 * 1000;

impl FleetState {
    pub(super) fn issue_token(
        &mut self,
        issue: &FleetTokenIssue,
        now_ms: i64,
        changes: &mut Changes,
    ) -> Result<FleetReply, FleetRefusal> {
        let role = FleetRole::try_from(issue.role).map_err(|_unknown| FleetRefusal::Malformed)?;
        match role {
            FleetRole::ControlPlane => require(!issue.name.is_empty())?,
            FleetRole::Worker => {}
            FleetRole::Unspecified => return Err(FleetRefusal::Malformed),
        }
        require(is_hash(&issue.hash) && !issue.nonce.is_empty())?;
        if issue.expires_ms <= now_ms {
            return Err(FleetRefusal::TokenExpired);
        }
        let alike = |token: &&FleetTokenIssue| token.name == issue.name && token.role == issue.role;
        let mut given = self.join_tokens.values().filter(alike);
        if let Some(token) = given.find(|token| token.expires_ms > now_ms) {
            let (nonce, expires_ms) = (token.nonce.clone(), token.expires_ms);
            return Ok(FleetReply::Token { nonce, expires_ms, fresh: false });
        }
        require(!self.join_tokens.contains_key(&issue.hash))?;
        self.forget_tokens(changes, |token| {
            token.expires_ms <= now_ms
                && (alike(&token) || token.expires_ms <= now_ms.saturating_sub(KEPT_MS))
        });
        self.join_tokens.insert(issue.hash.clone(), issue.clone());
        self.write_join_token(&issue.hash, changes);
        let (nonce, expires_ms) = (issue.nonce.clone(), issue.expires_ms);
        Ok(FleetReply::Token { nonce, expires_ms, fresh: true })
    }

    pub(super) fn revoke_token(
        &mut self,
        hash: &Bytes,
        changes: &mut Changes,
    ) -> Result<FleetReply, FleetRefusal> {
        self.join_tokens.remove(hash).ok_or(FleetRefusal::TokenUnknown)?;
        self.write_join_token(hash, changes);
        Ok(FleetReply::Done)
    }

    /// Whether `node` may come in by the token of this hash.
    pub(super) fn check_token(
        &self,
        hash: &[u8],
        node: &FleetNode,
        now_ms: i64,
    ) -> Result<(), FleetRefusal> {
        let token = self.join_tokens.get(hash).ok_or(FleetRefusal::TokenUnknown)?;
        if token.expires_ms <= now_ms {
            return Err(FleetRefusal::TokenExpired);
        }
        if token.role != node.role {
            return Err(FleetRefusal::TokenRole);
        }
        if !token.name.is_empty() && token.name != node.name {
            return Err(FleetRefusal::TokenName);
        }
        Ok(())
    }

    /// The token was shown by a node that is entered in this very step: nobody comes in by it again.
    pub(super) fn use_up(&mut self, hash: &Bytes, changes: &mut Changes) {
        self.join_tokens.remove(hash);
        self.write_join_token(hash, changes);
    }

    /// Takes away every join token of a node's name.
    pub(super) fn forget_tokens_of(&mut self, name: &str, changes: &mut Changes) {
        self.forget_tokens(changes, |token| token.name == name);
    }

    fn forget_tokens(&mut self, changes: &mut Changes, which: impl Fn(&FleetTokenIssue) -> bool) {
        let hashes: Vec<Bytes> = self
            .join_tokens
            .values()
            .filter(|token| which(token))
            .map(|token| token.hash.clone())
            .collect();
        for hash in hashes {
            self.use_up(&hash, changes);
        }
    }

    pub(super) fn issue_auth_token(
        &mut self,
        issue: &FleetAuthTokenIssue,
        changes: &mut Changes,
    ) -> Result<FleetReply, FleetRefusal> {
        require(!issue.username.is_empty() && issue.groups.iter().all(|group| !group.is_empty()))?;
        require(issue.groups.is_sorted_by(|one, next| one < next))?;
        require(is_hash(&issue.hash) && !issue.nonce.is_empty())?;
        let alike = |token: &&FleetAuthTokenIssue| {
            token.username == issue.username && token.groups == issue.groups
        };
        if let Some(token) = self.auth_tokens.values().find(alike) {
            return Ok(FleetReply::AuthToken { nonce: token.nonce.clone(), fresh: false });
        }
        require(!self.auth_tokens.contains_key(&issue.hash))?;
        self.auth_tokens.insert(issue.hash.clone(), issue.clone());
        self.write_auth_token(&issue.hash, changes);
        Ok(FleetReply::AuthToken { nonce: issue.nonce.clone(), fresh: true })
    }

    pub(super) fn revoke_auth_token(
        &mut self,
        hash: &Bytes,
        changes: &mut Changes,
    ) -> Result<FleetReply, FleetRefusal> {
        self.auth_tokens.remove(hash).ok_or(FleetRefusal::TokenUnknown)?;
        self.write_auth_token(hash, changes);
        Ok(FleetReply::Done)
    }
}
