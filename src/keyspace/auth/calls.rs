//! The calls of etcd's Auth service. Changes go through the log; what is only told is read here, after a read round.
//!
//! ```text
//!   login    read round ──> password fits, at revision r? ──> log: login at r ──> refused, r has passed? again
//!                                                                            └──> the token
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::internal::auth_request::Ask;
use quorate_core::api::pb::internal::command::Request;
use quorate_core::api::pb::internal::{
    AuthLogin, AuthRequest, AuthUserAdd, AuthUserChangePassword, Command,
};
use quorate_core::api::refusal::{AuthRefusal, Refusal};
use quorate_core::api::reply::{AuthReply, Reply};
use quorate_core::state_machine::auth::{AuthState, Caller};

use super::authority::refused;
use crate::keyspace::calls::unexpected;
use crate::keyspace::{Keyspace, KeyspaceError};

/// The response in a reply of the kind that was asked for.
macro_rules! answer {
    ($reply:expr, $kind:ident) => {
        match $reply {
            AuthReply::$kind(response) => Ok(response),
            other => Err(unexpected(&other)),
        }
    };
}

impl Keyspace {
    async fn change(&self, ask: Ask) -> Result<AuthReply, KeyspaceError> {
        match self.write(Request::Auth(AuthRequest { ask: Some(ask) })).await? {
            Reply::Auth(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads users and roles as they are now. A bad token is refused, whatever is read.
    async fn tell<T>(
        &self,
        read: impl FnOnce(&AuthState, &Caller) -> Result<T, Refusal>,
    ) -> Result<T, KeyspaceError> {
        self.0.reader.linearize().await?;
        let caller = self.caller().await?;
        Ok(read(self.0.state.machine.read().auth(), &caller)?)
    }

    /// AuthEnable.
    pub async fn auth_enable(&self) -> Result<pb::AuthEnableResponse, KeyspaceError> {
        answer!(self.change(Ask::Enable(pb::AuthEnableRequest {})).await?, Enable)
    }

    /// AuthDisable: tokens are void from then on.
    pub async fn auth_disable(&self) -> Result<pb::AuthDisableResponse, KeyspaceError> {
        answer!(self.change(Ask::Disable(pb::AuthDisableRequest {})).await?, Disable)
    }

    /// AuthStatus: open to all.
    pub async fn auth_status(&self) -> Result<pb::AuthStatusResponse, KeyspaceError> {
        self.tell(|auth, _caller| Ok(auth.status())).await
    }

    /// Authenticate: a token for who knows the password.
    pub async fn authenticate(
        &self,
        request: pb::AuthenticateRequest,
    ) -> Result<pb::AuthenticateResponse, KeyspaceError> {
        let pb::AuthenticateRequest { name, password } = request;
        self.0.reader.linearize().await?;
        loop {
            let checked_revision = self.check_password(&name, &password).await?;
            let drawn = self.0.authority.draw();
            let token_id = drawn.id.clone();
            let login = AuthLogin { name: name.clone(), checked_revision, token_id };
            let ask = Request::Auth(AuthRequest { ask: Some(Ask::Login(login)) });
            // Nobody asks for a login but who has shown the password: no credentials go with it.
            let command = Command { request: Some(ask), ..Command::default() };
            let mut response = match self.0.writer.write(command).await {
                Ok(Reply::Auth(reply)) => answer!(reply, Login)?,
                Ok(other) => return Err(unexpected(&other)),
                // Users or roles changed while the password was being checked, maybe this very password.
                Err(KeyspaceError::Refused(Refusal::Auth(AuthRefusal::OldRevision))) => continue,
                Err(error) => return Err(error),
            };
            let token = self.0.authority.complete(&drawn, &name, checked_revision);
            // Taken away again since it was given: then the user has gone, or has another password.
            let Some(token) = token.map_err(refused)? else { continue };
            response.token = token;
            return Ok(response);
        }
    }

    /// The auth revision at which the password fits the user.
    async fn check_password(&self, name: &str, password: &str) -> Result<u64, KeyspaceError> {
        let (revision, hash) = {
            let machine = self.0.state.machine.read();
            let auth = machine.auth();
            if !auth.is_enabled() {
                return Err(refused(AuthRefusal::NotEnabled));
            }
            match auth.user(name) {
                None => (auth.revision(), Err(AuthRefusal::Failed)),
                Some(user) if user.no_password => {
                    (auth.revision(), Err(AuthRefusal::NoPasswordUser))
                }
                Some(user) => (auth.revision(), Ok(user.password_hash.clone())),
            }
        };
        let refusal = match hash {
            Ok(hash) => {
                if self.0.authority.passwords.fits(password.to_owned(), hash).await {
                    return Ok(revision);
                }
                AuthRefusal::Failed
            }
            Err(refusal) => refusal,
        };
        tracing::warn!(user = name, "invalid authentication was requested");
        Err(refused(refusal))
    }

    /// UserAdd. A hash in the request is not looked at: the password is hashed here.
    pub async fn user_add(
        &self,
        request: pb::AuthUserAddRequest,
    ) -> Result<pb::AuthUserAddResponse, KeyspaceError> {
        let no_password = request.options.is_some_and(|options| options.no_password);
        let password_hash =
            if no_password { String::new() } else { self.hash_password(request.password).await? };
        let add = AuthUserAdd { name: request.name, no_password, password_hash };
        answer!(self.change(Ask::UserAdd(add)).await?, UserAdd)
    }

    /// UserGet: administrators, and users about themselves.
    pub async fn user_get(
        &self,
        request: pb::AuthUserGetRequest,
    ) -> Result<pb::AuthUserGetResponse, KeyspaceError> {
        self.tell(|auth, caller| auth.user_get(caller, &request.name)).await
    }

    /// UserList.
    pub async fn user_list(&self) -> Result<pb::AuthUserListResponse, KeyspaceError> {
        self.tell(AuthState::user_list).await
    }

    /// UserDelete: its tokens are void from then on.
    pub async fn user_delete(
        &self,
        request: pb::AuthUserDeleteRequest,
    ) -> Result<pb::AuthUserDeleteResponse, KeyspaceError> {
        answer!(self.change(Ask::UserDelete(request)).await?, UserDelete)
    }

    /// UserChangePassword: the user's tokens are void from then on. Without a password the hash in the request is
    /// taken as it is; an empty one fits nothing.
    pub async fn user_change_password(
        &self,
        request: pb::AuthUserChangePasswordRequest,
    ) -> Result<pb::AuthUserChangePasswordResponse, KeyspaceError> {
        let pb::AuthUserChangePasswordRequest { name, password, hashed_password } = request;
        let password_hash = if !password.is_empty() {
            self.hash_password(password).await?
        } else if let Ok(hash) = STANDARD.decode(&hashed_password) {
            String::from_utf8_lossy(&hash).into_owned()
        } else {
            self.refuse_hash(&name).await?;
            String::new()
        };
        let change = AuthUserChangePassword { name, password_hash };
        answer!(self.change(Ask::UserChangePassword(change)).await?, UserChangePassword)
    }

    /// The hash in a request is not base64. That is no matter for a user without a password.
    async fn refuse_hash(&self, name: &str) -> Result<(), KeyspaceError> {
        let check = |auth: &AuthState, caller: &Caller| -> Result<(), Refusal> {
            auth.check_admin(caller)?;
            match auth.user(name) {
                None => Err(AuthRefusal::UserNotFound.into()),
                Some(user) if user.no_password => Ok(()),
                Some(_) => Err(AuthRefusal::NoPasswordUser.into()),
            }
        };
        self.tell(check).await
    }

    async fn hash_password(&self, password: String) -> Result<String, KeyspaceError> {
        self.0.authority.passwords.hash(password).await.map_err(refused)
    }

    /// UserGrantRole.
    pub async fn user_grant_role(
        &self,
        request: pb::AuthUserGrantRoleRequest,
    ) -> Result<pb::AuthUserGrantRoleResponse, KeyspaceError> {
        answer!(self.change(Ask::UserGrantRole(request)).await?, UserGrantRole)
    }

    /// UserRevokeRole.
    pub async fn user_revoke_role(
        &self,
        request: pb::AuthUserRevokeRoleRequest,
    ) -> Result<pb::AuthUserRevokeRoleResponse, KeyspaceError> {
        answer!(self.change(Ask::UserRevokeRole(request)).await?, UserRevokeRole)
    }

    /// RoleAdd.
    pub async fn role_add(
        &self,
        request: pb::AuthRoleAddRequest,
    ) -> Result<pb::AuthRoleAddResponse, KeyspaceError> {
        answer!(self.change(Ask::RoleAdd(request)).await?, RoleAdd)
    }

    /// RoleGet: administrators, and users about their own roles.
    pub async fn role_get(
        &self,
        request: pb::AuthRoleGetRequest,
    ) -> Result<pb::AuthRoleGetResponse, KeyspaceError> {
        self.tell(|auth, caller| auth.role_get(caller, &request.role)).await
    }

    /// RoleList.
    pub async fn role_list(&self) -> Result<pb::AuthRoleListResponse, KeyspaceError> {
        self.tell(AuthState::role_list).await
    }

    /// RoleDelete: every user loses it.
    pub async fn role_delete(
        &self,
        request: pb::AuthRoleDeleteRequest,
    ) -> Result<pb::AuthRoleDeleteResponse, KeyspaceError> {
        answer!(self.change(Ask::RoleDelete(request)).await?, RoleDelete)
    }

    /// RoleGrantPermission.
    pub async fn role_grant_permission(
        &self,
        request: pb::AuthRoleGrantPermissionRequest,
    ) -> Result<pb::AuthRoleGrantPermissionResponse, KeyspaceError> {
        answer!(self.change(Ask::RoleGrantPermission(request)).await?, RoleGrantPermission)
    }

    /// RoleRevokePermission.
    pub async fn role_revoke_permission(
        &self,
        request: pb::AuthRoleRevokePermissionRequest,
    ) -> Result<pb::AuthRoleRevokePermissionResponse, KeyspaceError> {
        answer!(self.change(Ask::RoleRevokePermission(request)).await?, RoleRevokePermission)
    }

    /// The auth revision of this member's state, for metrics.
    pub fn auth_revision(&self) -> u64 {
        self.0.state.machine.read().auth().revision()
    }
}
