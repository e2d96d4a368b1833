//! etcdserverpb.Cluster: who the members are, and changing them. Its headers carry no revision.

use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::credentials::admit;
use super::header::fill_without_revision;
use super::pb::etcdserverpb::cluster_server;
use super::status::status;
use crate::keyspace::Keyspace;
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

fn header(keyspace: &Keyspace) -> Option<pb::ResponseHeader> {
    let mut header = None;
    fill_without_revision(&mut header, keyspace);
    header
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
        let request = request.into_inner();
        let added = keyspace.member_add(&request.peer_ur_ls, request.is_learner).await;
        let (member, members) = added.map_err(|why| status(&why))?;
        let header = header(&keyspace);
        Ok(Response::new(pb::MemberAddResponse { header, member: Some(member), members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let id = MemberId(request.into_inner().id);
        let members = keyspace.member_remove(id).await.map_err(|why| status(&why))?;
        Ok(Response::new(pb::MemberRemoveResponse { header: header(&keyspace), members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let pb::MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let updated = keyspace.member_update(MemberId(id), peer_ur_ls).await;
        let members = updated.map_err(|why| status(&why))?;
        Ok(Response::new(pb::MemberUpdateResponse { header: header(&keyspace), members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let id = MemberId(request.into_inner().id);
        let members = keyspace.member_promote(id).await.map_err(|why| status(&why))?;
        Ok(Response::new(pb::MemberPromoteResponse { header: header(&keyspace), members }))
    }
}
