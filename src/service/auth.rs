//! etcdserverpb.Auth: users, roles, and logging in.

use quorate_core::api::pb::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::credentials::admit;
use super::header::fill;
use super::pb::etcdserverpb::auth_server;
use super::status::owned;
use crate::keyspace::auth::Gate;

/// The service.
pub(crate) struct Auth {
    gate: Gate,
}

impl Auth {
    pub(crate) fn new(gate: Gate) -> Self {
        Auth { gate }
    }
}

#[tonic::async_trait]
impl auth_server::Auth for Auth {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.auth_enable().await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.auth_disable().await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.auth_status().await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.authenticate(request.into_inner()).await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.user_add(request.into_inner()).await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.user_get(request.into_inner()).await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.user_list().await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.user_delete(request.into_inner()).await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response =
            keyspace.user_change_password(request.into_inner()).await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.user_grant_role(request.into_inner()).await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.user_revoke_role(request.into_inner()).await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.role_add(request.into_inner()).await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.role_get(request.into_inner()).await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.role_list().await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.role_delete(request.into_inner()).await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response =
            keyspace.role_grant_permission(request.into_inner()).await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response =
            keyspace.role_revoke_permission(request.into_inner()).await.map_err(owned)?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }
}
