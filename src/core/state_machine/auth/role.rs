//! Roles: permissions on ranges of keys, under a name.

use crate::api::pb::authpb::Permission;
use crate::api::pb::etcdserverpb as pb;
use crate::api::refusal::AuthRefusal;

use super::{AuthState, Changes, ROOT_ROLE};

/// A role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// By key; those of one key in the order in which they were granted. One for each key and end.
    pub permissions: Vec<Permission>,
}

impl AuthState {
    pub(super) fn role_add(
        &mut self,
        name: &str,
        changes: &mut Changes,
    ) -> Result<(), AuthRefusal> {
        if name.is_empty() {
            return Err(AuthRefusal::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(AuthRefusal::RoleExists);
        }
        self.roles.insert(name.to_owned(), Role::default());
        self.role_changed(name, changes);
        Ok(())
    }

    /// Takes the role from every user that has it, too.
    pub(super) fn role_delete(
        &mut self,
        name: &str,
        changes: &mut Changes,
    ) -> Result<(), AuthRefusal> {
        if self.enabled && name == ROOT_ROLE {
            return Err(AuthRefusal::InvalidManagement);
        }
        self.roles.remove(name).ok_or(AuthRefusal::RoleNotFound)?;
        for holder in self.holders(name) {
            if let Some(user) = self.users.get_mut(&holder) {
                user.roles.remove(name);
            }
            self.merge_roles(&holder);
            self.record_user(&holder, changes);
        }
        self.record_role(name, changes);
        self.changed(changes);
        Ok(())
    }

    /// Grants a permission; one on the same range changes its kind.
    pub(super) fn role_grant_permission(
        &mut self,
        grant: &pb::AuthRoleGrantPermissionRequest,
        changes: &mut Changes,
    ) -> Result<(), AuthRefusal> {
        let given = grant.perm.as_ref().ok_or(AuthRefusal::PermissionNotGiven)?;
        if !is_range(&given.key, &given.range_end) {
            return Err(AuthRefusal::InvalidManagement);
        }
        let role = self.roles.get_mut(&grant.name).ok_or(AuthRefusal::RoleNotFound)?;
        let is_same = |one: &&mut Permission| is_on(one, &given.key, &given.range_end);
        match role.permissions.iter_mut().find(is_same) {
            Some(same) => same.perm_type = given.perm_type,
            None => {
                let place = role.permissions.partition_point(|one| one.key <= given.key);
                role.permissions.insert(place, given.clone());
            }
        }
        self.role_changed(&grant.name, changes);
        Ok(())
    }

    pub(super) fn role_revoke_permission(
        &mut self,
        revoke: &pb::AuthRoleRevokePermissionRequest,
        changes: &mut Changes,
    ) -> Result<(), AuthRefusal> {
        let role = self.roles.get_mut(&revoke.role).ok_or(AuthRefusal::RoleNotFound)?;
        let before = role.permissions.len();
        role.permissions.retain(|one| !is_on(one, &revoke.key, &revoke.range_end));
        if role.permissions.len() == before {
            return Err(AuthRefusal::PermissionNotGranted);
        }
        self.role_changed(&revoke.role, changes);
        Ok(())
    }

    fn role_changed(&mut self, name: &str, changes: &mut Changes) {
        for holder in self.holders(name) {
            self.merge_roles(&holder);
        }
        self.record_role(name, changes);
        self.changed(changes);
    }

    fn holders(&self, role: &str) -> Vec<String> {
        let holders = self.users.iter().filter(|(_, user)| user.roles.contains(role));
        holders.map(|(name, _)| name.clone()).collect()
    }
}

fn is_on(permission: &Permission, key: &[u8], range_end: &[u8]) -> bool {
    permission.key == key && permission.range_end == range_end
}

/// A key, or keys from one to a higher one, or to the end of all keys.
fn is_range(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (matches!(range_end, b"" | b"\0") || key < range_end)
}
