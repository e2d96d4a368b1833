//! What is told of users and roles, and to whom. Headers are the caller's to fill.

use crate::api::pb::authpb::Permission;
use crate::api::pb::authpb::permission::Type;
use crate::api::pb::etcdserverpb as pb;
use crate::api::refusal::{AuthRefusal, Refusal};

use super::{AuthState, Caller, ROOT_ROLE};

impl AuthState {
    /// AuthStatus: anybody may ask.
    pub fn status(&self) -> pb::AuthStatusResponse {
        pb::AuthStatusResponse { header: None, enabled: self.enabled, auth_revision: self.revision }
    }

    /// UserGet: everybody may ask about itself.
    pub fn user_get(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<pb::AuthUserGetResponse, Refusal> {
        if name != caller.user {
            self.check_admin(caller)?;
        }
        let user = self.users.get(name).ok_or(AuthRefusal::UserNotFound)?;
        Ok(pb::AuthUserGetResponse { header: None, roles: user.roles.iter().cloned().collect() })
    }

    /// UserList: takes the role `root`.
    pub fn user_list(&self, caller: &Caller) -> Result<pb::AuthUserListResponse, Refusal> {
        self.check_admin(caller)?;
        Ok(pb::AuthUserListResponse { header: None, users: self.users.keys().cloned().collect() })
    }

    /// RoleGet: everybody may ask about its own roles. The role `root`, if it was ever added, shows what it comes to.
    pub fn role_get(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<pb::AuthRoleGetResponse, Refusal> {
        if !self.users.get(&caller.user).is_some_and(|user| user.roles.contains(name)) {
            self.check_admin(caller)?;
        }
        let role = self.roles.get(name).ok_or(AuthRefusal::RoleNotFound)?;
        let perm = if name == ROOT_ROLE { vec![everything()] } else { role.permissions.clone() };
        Ok(pb::AuthRoleGetResponse { header: None, perm })
    }

    /// RoleList: takes the role `root`.
    pub fn role_list(&self, caller: &Caller) -> Result<pb::AuthRoleListResponse, Refusal> {
        self.check_admin(caller)?;
        Ok(pb::AuthRoleListResponse { header: None, roles: self.roles.keys().cloned().collect() })
    }
}

fn everything() -> Permission {
    Permission {
        perm_type: Type::Readwrite as i32,
        key: bytes::Bytes::new(),
        range_end: bytes::Bytes::from_static(b"\0"),
    }
}
