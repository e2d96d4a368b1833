//! The calls of the Auth service, and who makes a call.

use crate::differential::answer::Answer;
use crate::differential::client::Client;
use crate::differential::told::{told, told_as};
use crate::pb::etcdserverpb as pb;

/// Go sorts up to twelve by insertion.
const STABLE_MAX: usize = 12;

/// Who makes a call.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::differential) enum Who {
    /// Without a token.
    Nobody,
    /// With the token that the user got last, or so many logins before that one; without any, if there is none.
    User(&'static str, usize),
    /// With a token that nobody gave out.
    Stranger(&'static str),
}

/// One call of the Auth service.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::differential) enum AuthCall {
    Enable,
    Disable,
    Status,
    Authenticate(pb::AuthenticateRequest),
    UserAdd(pb::AuthUserAddRequest),
    UserGet(pb::AuthUserGetRequest),
    UserList,
    UserDelete(pb::AuthUserDeleteRequest),
    UserChangePassword(pb::AuthUserChangePasswordRequest),
    UserGrantRole(pb::AuthUserGrantRoleRequest),
    UserRevokeRole(pb::AuthUserRevokeRoleRequest),
    RoleAdd(pb::AuthRoleAddRequest),
    RoleGet(pb::AuthRoleGetRequest),
    RoleList,
    RoleDelete(pb::AuthRoleDeleteRequest),
    RoleGrantPermission(pb::AuthRoleGrantPermissionRequest),
    RoleRevokePermission(pb::AuthRoleRevokePermissionRequest),
}

/// Logs in; the token that came with the answer.
pub(in crate::differential) async fn authenticate(
    client: &Client,
    request: pb::AuthenticateRequest,
) -> (Answer, Option<String>) {
    let result = client.auth.clone().authenticate(request).await;
    let token = result.as_ref().ok().map(|response| response.get_ref().token.clone());
    let answer = told_as("Authenticate", result, |response| {
        response.token = if response.token.is_empty() { "none" } else { "some" }.to_owned();
    });
    (answer, token)
}

/// Makes a call; a token it brings is dropped.
pub(in crate::differential) async fn make(client: &Client, call: AuthCall) -> Answer {
    let mut auth = client.auth.clone();
    match call {
        AuthCall::Enable => told("AuthEnable", auth.auth_enable(pb::AuthEnableRequest {}).await),
        AuthCall::Disable => {
            told("AuthDisable", auth.auth_disable(pb::AuthDisableRequest {}).await)
        }
        AuthCall::Status => told("AuthStatus", auth.auth_status(pb::AuthStatusRequest {}).await),
        AuthCall::Authenticate(r) => authenticate(client, r).await.0,
        AuthCall::UserAdd(r) => told("UserAdd", auth.user_add(r).await),
        AuthCall::UserGet(r) => told("UserGet", auth.user_get(r).await),
        AuthCall::UserList => told("UserList", auth.user_list(pb::AuthUserListRequest {}).await),
        AuthCall::UserDelete(r) => told("UserDelete", auth.user_delete(r).await),
        AuthCall::UserChangePassword(r) => {
            told("UserChangePassword", auth.user_change_password(r).await)
        }
        AuthCall::UserGrantRole(r) => told("UserGrantRole", auth.user_grant_role(r).await),
        AuthCall::UserRevokeRole(r) => told("UserRevokeRole", auth.user_revoke_role(r).await),
        AuthCall::RoleAdd(r) => told("RoleAdd", auth.role_add(r).await),
        AuthCall::RoleGet(r) => told_as("RoleGet", auth.role_get(r).await, |role| {
            // By key; those of one key in any order, once Go's sort is no longer stable.
            if role.perm.len() > STABLE_MAX {
                role.perm.sort_by(|a, b| (&a.key, &a.range_end).cmp(&(&b.key, &b.range_end)));
            }
        }),
        AuthCall::RoleList => told("RoleList", auth.role_list(pb::AuthRoleListRequest {}).await),
        AuthCall::RoleDelete(r) => told("RoleDelete", auth.role_delete(r).await),
        AuthCall::RoleGrantPermission(r) => {
            told("RoleGrantPermission", auth.role_grant_permission(r).await)
        }
        AuthCall::RoleRevokePermission(r) => {
            told("RoleRevokePermission", auth.role_revoke_permission(r).await)
        }
    }
}
