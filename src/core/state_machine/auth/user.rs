//! Users: their password hashes, their roles, and what these come to.

use std::collections::BTreeSet;
use std::fmt;

use crate::api::pb::internal::{AuthUserAdd, AuthUserChangePassword};
use crate::api::refusal::AuthRefusal;
use crate::api::reply::TokenChange;

use super::permitted::Permitted;
use super::{AuthState, Changes, ROOT_ROLE, ROOT_USER};

/// A user.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct User {
    /// As bcrypt writes it, `$2a$..`; empty: no password fits.
    pub password_hash: String,
    /// The user logs in without a password or not at all.
    pub no_password: bool,
    /// The names of its roles.
    pub roles: BTreeSet<String>,
    /// What these roles permit together; kept up with every change of them.
    pub(super) permitted: Permitted,
}

/// Without the password's hash.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("no_password", &self.no_password)
            .field("roles", &self.roles)
            .field("permitted", &self.permitted)
            .finish_non_exhaustive()
    }
}

impl User {
    /// It may do everything.
    pub fn is_root(&self) -> bool {
        self.roles.contains(ROOT_ROLE)
    }
}

impl AuthState {
    pub(super) fn user_add(
        &mut self,
        add: &AuthUserAdd,
        changes: &mut Changes,
    ) -> Result<(), AuthRefusal> {
        if add.name.is_empty() {
            return Err(AuthRefusal::UserEmpty);
        }
        if self.users.contains_key(&add.name) {
            return Err(AuthRefusal::UserExists);
        }
        let user = User {
            password_hash: hash_kept(add.no_password, &add.password_hash),
            no_password: add.no_password,
            ..User::default()
        };
        self.users.insert(add.name.clone(), user);
        self.user_changed(&add.name, changes);
        Ok(())
    }

    pub(super) fn user_delete(
        &mut self,
        name: &str,
        changes: &mut Changes,
    ) -> Result<(), AuthRefusal> {
        if self.enabled && name == ROOT_USER {
            return Err(AuthRefusal::InvalidManagement);
        }
        self.users.remove(name).ok_or(AuthRefusal::UserNotFound)?;
        self.user_changed(name, changes);
        changes.tokens.push(TokenChange::UserDropped { user: name.to_owned() });
        Ok(())
    }

    pub(super) fn user_change_password(
        &mut self,
        change: &AuthUserChangePassword,
        changes: &mut Changes,
    ) -> Result<(), AuthRefusal> {
        let user = self.users.get_mut(&change.name).ok_or(AuthRefusal::UserNotFound)?;
        user.password_hash = hash_kept(user.no_password, &change.password_hash);
        self.user_changed(&change.name, changes);
        changes.tokens.push(TokenChange::UserDropped { user: change.name.clone() });
        Ok(())
    }

    /// Granting a role again changes nothing. The role `root` need not exist.
    pub(super) fn user_grant_role(
        &mut self,
        name: &str,
        role: &str,
        changes: &mut Changes,
    ) -> Result<(), AuthRefusal> {
        let user = self.users.get_mut(name).ok_or(AuthRefusal::UserNotFound)?;
        if role != ROOT_ROLE && !self.roles.contains_key(role) {
            return Err(AuthRefusal::RoleNotFound);
        }
        if user.roles.insert(role.to_owned()) {
            self.user_changed(name, changes);
        }
        Ok(())
    }

    pub(super) fn user_revoke_role(
        &mut self,
        name: &str,
        role: &str,
        changes: &mut Changes,
    ) -> Result<(), AuthRefusal> {
        if self.enabled && name == ROOT_USER && role == ROOT_ROLE {
            return Err(AuthRefusal::InvalidManagement);
        }
        let user = self.users.get_mut(name).ok_or(AuthRefusal::UserNotFound)?;
        if !user.roles.remove(role) {
            return Err(AuthRefusal::RoleNotGranted);
        }
        self.user_changed(name, changes);
        Ok(())
    }

    fn user_changed(&mut self, name: &str, changes: &mut Changes) {
        self.merge_roles(name);
        self.record_user(name, changes);
        self.changed(changes);
    }

    /// Works out anew what a user's roles permit together.
    pub(super) fn merge_roles(&mut self, name: &str) {
        if let Some(user) = self.users.get_mut(name) {
            let roles = user.roles.iter().filter_map(|role| self.roles.get(role));
            user.permitted = Permitted::merge(roles.flat_map(|role| &role.permissions));
        }
    }
}

/// A user without a password has no hash, whatever is given.
fn hash_kept(no_password: bool, hash: &str) -> String {
    if no_password { String::new() } else { hash.to_owned() }
}
