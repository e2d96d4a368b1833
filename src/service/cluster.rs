//! etcdserverpb.Cluster: who the members are. Changing them is not built yet.

use quorate_core::api::pb::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::header::fill_without_revision;
use super::pb::etcdserverpb::cluster_server;
use super::status::status;
use crate::keyspace::{Keyspace, KeyspaceError};

/// The service.
pub(crate) struct Cluster {
    keyspace: Keyspace,
}

impl Cluster {
    pub(crate) fn new(keyspace: Keyspace) -> Self {
        Cluster { keyspace }
    }
}

#[tonic::async_trait]
impl cluster_server::Cluster for Cluster {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let linearizable = request.into_inner().linearizable;
        let mut response =
            self.keyspace.member_list(linearizable).await.map_err(|why| status(&why))?;
        fill_without_revision(&mut response.header, &self.keyspace);
        Ok(Response::new(response))
    }

    async fn member_add(
        &self,
        _request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(status(&KeyspaceError::Unimplemented("MemberAdd")))
    }

    async fn member_remove(
        &self,
        _request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(status(&KeyspaceError::Unimplemented("MemberRemove")))
    }

    async fn member_update(
        &self,
        _request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(status(&KeyspaceError::Unimplemented("MemberUpdate")))
    }

    async fn member_promote(
        &self,
        _request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(status(&KeyspaceError::Unimplemented("MemberPromote")))
    }
}
