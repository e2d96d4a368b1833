//! Users, roles, permissions: who may do what, decided by every member alike.
//!
//! ```text
//!   AuthRequest ──> user, role      changes; each raises the auth revision
//!                      │
//!                   AuthState ────> record      User, Role, AuthRecord beside history
//!                      │
//!                   permitted       per user: the ranges of all its roles, merged
//!                      │
//!   Command ──> Caller ──> check    before it is applied, and before a local read
//! ```
//!
//! A role holds permissions on ranges of keys; a user holds roles; the role `root` may do everything. Who asks is in
//! the command, together with the auth revision at which it was admitted: if users or roles have changed since, what
//! it was admitted to do may no longer be right, and it has to be admitted again. After etcd
//! `server/auth/{store,range_perm_cache}.go` and `server/etcdserver/apply/auth.go`.
//!
//! **Invariant:** no password and no token is here, only bcrypt hashes and what tokens are filed under.
//! **Invariant:** what a user may do is derived from users and roles alone, so that a restored member decides alike.

mod answer;
mod check;
mod permitted;
mod record;
mod role;
mod user;

use std::collections::BTreeMap;

use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::internal::auth_request::Ask;
use crate::api::pb::internal::{AuthLogin, AuthRequest, Command};
use crate::api::refusal::{AuthRefusal, Refusal};
use crate::api::reply::{AuthReply, TokenChange};

use super::changes::Changes;

pub use self::role::Role;
pub use self::user::User;

/// The administrator's name.
pub const ROOT_USER: &str = "root";
/// The role that may do everything.
pub const ROOT_ROLE: &str = "root";

/// Who asks, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user's name; empty: nobody said, or a certificate has none.
    pub user: String,
    /// The auth revision at which the caller was admitted; 0: it never was.
    pub auth_revision: u64,
}

impl Caller {
    pub(crate) fn of(command: &Command) -> Caller {
        Caller { user: command.user.clone(), auth_revision: command.auth_revision }
    }

    /// No one has said who it is.
    fn is_nobody(&self) -> bool {
        self.user.is_empty() && self.auth_revision == 0
    }
}

/// Every user and role, and whether anybody asks for them.
#[derive(Debug)]
pub struct AuthState {
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, User>,
    roles: BTreeMap<String, Role>,
}

impl Default for AuthState {
    fn default() -> Self {
        AuthState { enabled: false, revision: 1, users: BTreeMap::new(), roles: BTreeMap::new() }
    }
}

impl AuthState {
    /// Whether callers have to say who they are.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// 1 at first; raised by every change of users or roles, and when authentication is turned off.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The user of that name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// The role of that name.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name)
    }

    /// Every user, by name.
    pub fn users(&self) -> impl Iterator<Item = (&str, &User)> {
        self.users.iter().map(|(name, user)| (name.as_str(), user))
    }

    /// Every role, by name.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &Role)> {
        self.roles.iter().map(|(name, role)| (name.as_str(), role))
    }

    /// Decides a request of the log; whether its caller may ask it has been checked. `header` is what it answers with.
    pub(crate) fn apply(
        &mut self,
        request: &AuthRequest,
        header: Option<pb::ResponseHeader>,
        changes: &mut Changes,
    ) -> Option<Result<AuthReply, Refusal>> {
        let ask = request.ask.as_ref()?;
        Some(self.answer(ask, header, changes).map_err(Refusal::Auth))
    }

    fn answer(
        &mut self,
        ask: &Ask,
        header: Option<pb::ResponseHeader>,
        changes: &mut Changes,
    ) -> Result<AuthReply, AuthRefusal> {
        Ok(match ask {
            Ask::Enable(_) => {
                self.enable(changes)?;
                AuthReply::Enable(pb::AuthEnableResponse { header })
            }
            Ask::Disable(_) => {
                self.disable(changes);
                AuthReply::Disable(pb::AuthDisableResponse { header })
            }
            Ask::UserAdd(add) => {
                self.user_add(add, changes)?;
                AuthReply::UserAdd(pb::AuthUserAddResponse { header })
            }
            Ask::UserDelete(delete) => {
                self.user_delete(&delete.name, changes)?;
                AuthReply::UserDelete(pb::AuthUserDeleteResponse { header })
            }
            Ask::UserChangePassword(change) => {
                self.user_change_password(change, changes)?;
                AuthReply::UserChangePassword(pb::AuthUserChangePasswordResponse { header })
            }
            Ask::UserGrantRole(grant) => {
                self.user_grant_role(&grant.user, &grant.role, changes)?;
                AuthReply::UserGrantRole(pb::AuthUserGrantRoleResponse { header })
            }
            Ask::UserRevokeRole(revoke) => {
                self.user_revoke_role(&revoke.name, &revoke.role, changes)?;
                AuthReply::UserRevokeRole(pb::AuthUserRevokeRoleResponse { header })
            }
            Ask::RoleAdd(add) => {
                self.role_add(&add.name, changes)?;
                AuthReply::RoleAdd(pb::AuthRoleAddResponse { header })
            }
            Ask::RoleDelete(delete) => {
                self.role_delete(&delete.role, changes)?;
                AuthReply::RoleDelete(pb::AuthRoleDeleteResponse { header })
            }
            Ask::RoleGrantPermission(grant) => {
                self.role_grant_permission(grant, changes)?;
                AuthReply::RoleGrantPermission(pb::AuthRoleGrantPermissionResponse { header })
            }
            Ask::RoleRevokePermission(revoke) => {
                self.role_revoke_permission(revoke, changes)?;
                AuthReply::RoleRevokePermission(pb::AuthRoleRevokePermissionResponse { header })
            }
            Ask::Login(login) => {
                self.login(login, changes)?;
                AuthReply::Login(pb::AuthenticateResponse { header, token: String::new() })
            }
        })
    }

    /// Turns authentication on, which takes an administrator. Does not raise the revision.
    fn enable(&mut self, changes: &mut Changes) -> Result<(), AuthRefusal> {
        if self.enabled {
            return Ok(());
        }
        let root = self.users.get(ROOT_USER).ok_or(AuthRefusal::RootUserNotFound)?;
        if !root.is_root() {
            return Err(AuthRefusal::RootRoleNotGranted);
        }
        self.enabled = true;
        self.record(changes);
        Ok(())
    }

    fn disable(&mut self, changes: &mut Changes) {
        if !self.enabled {
            return;
        }
        self.enabled = false;
        self.changed(changes);
        changes.tokens.push(TokenChange::AllDropped);
    }

    /// Files a token under a user whose password was found right at the present auth revision. At another it may have
    /// been changed since: the proposer has to look again.
    fn login(&self, login: &AuthLogin, changes: &mut Changes) -> Result<(), AuthRefusal> {
        if !self.enabled {
            return Err(AuthRefusal::NotEnabled);
        }
        let user = self.users.get(&login.name).ok_or(AuthRefusal::Failed)?;
        if user.no_password {
            return Err(AuthRefusal::Failed);
        }
        if login.checked_revision != self.revision {
            return Err(AuthRefusal::OldRevision);
        }
        let (user, token_id) = (login.name.clone(), login.token_id.clone());
        changes.tokens.push(TokenChange::Given { user, token_id });
        Ok(())
    }

    /// Users or roles have changed.
    fn changed(&mut self, changes: &mut Changes) {
        self.revision += 1;
        self.record(changes);
    }
}
