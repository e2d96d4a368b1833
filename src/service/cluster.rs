//! etcdserverpb.Cluster: who the members are. Changing them is not built yet.

use quorate_core::api::pb::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::credentials::admit;
use super::header::fill_without_revision;
use super::pb::etcdserverpb::cluster_server;
use super::status::status;
use crate::keyspace::KeyspaceError;
use crate::keyspace::auth::Gate;

/// The service.
pub(crate) struct Cluster {
    gate: Gate,
}

impl Cluster {
    pub(crate) fn new(gate: Gate) -> Self {
        Cluster { gate }
    }
}

#[tonic::async_trait]
impl cluster_server::Cluster for Cluster {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let linearizable = request.into_inner().linearizable;
        let mut response = keyspace.member_list(linearizable).await.map_err(|why| status(&why))?;
        fill_without_revision(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        keyspace.require_admin().await.map_err(|why| status(&why))?;
        Err(status(&KeyspaceError::Unimplemented("MemberAdd")))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        keyspace.require_admin().await.map_err(|why| status(&why))?;
        Err(status(&KeyspaceError::Unimplemented("MemberRemove")))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        keyspace.require_admin().await.map_err(|why| status(&why))?;
        Err(status(&KeyspaceError::Unimplemented("MemberUpdate")))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        keyspace.require_admin().await.map_err(|why| status(&why))?;
        Err(status(&KeyspaceError::Unimplemented("MemberPromote")))
    }
}
