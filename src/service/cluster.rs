//! etcdserverpb.Cluster: who the members are, and changing them. Its headers carry no revision.

use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::header::fill_without_revision;
use super::pb::etcdserverpb::cluster_server;
use super::status::status;
use crate::keyspace::Keyspace;

/// The service.
pub(crate) struct Cluster {
    keyspace: Keyspace,
}

impl Cluster {
    pub(crate) fn new(keyspace: Keyspace) -> Self {
        Cluster { keyspace }
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        let mut header = None;
        fill_without_revision(&mut header, &self.keyspace);
        header
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
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let request = request.into_inner();
        let added = self.keyspace.member_add(&request.peer_ur_ls, request.is_learner).await;
        let (member, members) = added.map_err(|why| status(&why))?;
        let header = self.header();
        Ok(Response::new(pb::MemberAddResponse { header, member: Some(member), members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let id = MemberId(request.into_inner().id);
        let members = self.keyspace.member_remove(id).await.map_err(|why| status(&why))?;
        Ok(Response::new(pb::MemberRemoveResponse { header: self.header(), members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let pb::MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let updated = self.keyspace.member_update(MemberId(id), peer_ur_ls).await;
        let members = updated.map_err(|why| status(&why))?;
        Ok(Response::new(pb::MemberUpdateResponse { header: self.header(), members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let id = MemberId(request.into_inner().id);
        let members = self.keyspace.member_promote(id).await.map_err(|why| status(&why))?;
        Ok(Response::new(pb::MemberPromoteResponse { header: self.header(), members }))
    }
}
