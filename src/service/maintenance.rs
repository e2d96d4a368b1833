//! etcdserverpb.Maintenance: status, alarms, hashes, defragmentation, the move of leadership, and the refusal of
//! downgrades. Snapshot is not built yet.

use std::pin::Pin;

use futures::Stream;
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::etcdserverpb as pb;
use tokio::sync::watch as signal;
use tonic::{Request, Response, Status};

use super::credentials::admit;
use super::header::fill;
use super::pb::etcdserverpb::maintenance_server;
use super::status::{no_leader, status};
use super::version::{ETCD_VERSION, cluster_minor, cluster_version};
use crate::keyspace::auth::Gate;
use crate::keyspace::{KeyspaceError, StatusFacts};

/// The service.
pub(crate) struct Maintenance {
    gate: Gate,
    /// Told while a defragmentation goes on, with the gate `StopGRPCServiceOnDefrag`.
    defragmenting: Option<signal::Sender<bool>>,
}

/// Says that a defragmentation is over, however it ends.
struct Over<'a>(&'a signal::Sender<bool>);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

impl Maintenance {
    pub(crate) fn new(gate: Gate, defragmenting: Option<signal::Sender<bool>>) -> Self {
        Maintenance { gate, defragmenting }
    }
}

/// The facts as Status tells them.
fn told(facts: StatusFacts) -> pb::StatusResponse {
    let mut errors = Vec::new();
    if facts.leader.is_none() {
        errors.push(no_leader().message().to_owned());
    }
    errors.extend(facts.alarms.iter().map(prototext));
    pb::StatusResponse {
        header: None,
        version: ETCD_VERSION.to_owned(),
        db_size: signed(facts.db_size),
        leader: facts.leader.map_or(0, |leader| leader.0),
        raft_index: facts.committed_index,
        raft_term: facts.applied_term,
        raft_applied_index: facts.applied_index,
        errors,
        db_size_in_use: signed(facts.db_size_in_use),
        is_learner: facts.learner,
        storage_version: cluster_version(),
        db_size_quota: facts.db_size_quota,
        downgrade_info: Some(pb::DowngradeInfo::default()),
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// An alarm as Go prints the message: fields at their default left out, an unknown type as its number.
fn prototext(alarm: &pb::AlarmMember) -> String {
    let mut fields = Vec::new();
    if alarm.member_id != 0 {
        fields.push(format!("memberID:{}", alarm.member_id));
    }
    if alarm.alarm != 0 {
        let kind = pb::AlarmType::try_from(alarm.alarm);
        let name = kind.map_or_else(|_| alarm.alarm.to_string(), |kind| kind.as_str_name().into());
        fields.push(format!("alarm:{name}"));
    }
    fields.join(" ")
}

type Blobs = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

#[tonic::async_trait]
impl maintenance_server::Maintenance for Maintenance {
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response =
            keyspace.alarm(request.into_inner()).await.map_err(|why| status(&why))?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        keyspace.require_user().await.map_err(|why| status(&why))?;
        let mut response = told(keyspace.status());
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn hash(
        &self,
        request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let mut response = keyspace.hash().await.map_err(|why| status(&why))?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let revision = request.into_inner().revision;
        let mut response = keyspace.hash_kv(revision).await.map_err(|why| status(&why))?;
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        keyspace.require_admin().await.map_err(|why| status(&why))?;
        tracing::info!("starting defragment");
        let _over = self.defragmenting.as_ref().map(|told| {
            told.send_replace(true);
            Over(told)
        });
        keyspace.defragment().await.map_err(|why| {
            tracing::warn!(error = %why, "failed to defragment");
            status(&why)
        })?;
        tracing::info!("finished defragment");
        // Without a header, as etcd's.
        Ok(Response::new(pb::DefragmentResponse::default()))
    }

    type SnapshotStream = Blobs;

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Blobs>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        keyspace.require_admin().await.map_err(|why| status(&why))?;
        Err(status(&KeyspaceError::Unimplemented("Snapshot")))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        let target = MemberId(request.into_inner().target_id);
        keyspace.move_leader(target).await.map_err(|why| status(&why))?;
        // Without a header, as etcd's.
        Ok(Response::new(pb::MoveLeaderResponse::default()))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        let keyspace = admit(&self.gate, &request)?;
        keyspace.require_admin().await.map_err(|why| status(&why))?;
        keyspace.downgrade(request.get_ref()).await.map_err(|why| status(&why))?;
        let mut response = pb::DowngradeResponse { header: None, version: cluster_minor() };
        fill(&mut response.header, &keyspace);
        Ok(Response::new(response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_of_an_unknown_type_is_told_by_its_number() {
        let alarm = pb::AlarmMember { member_id: 7, alarm: 5 };
        assert_eq!(prototext(&alarm), "memberID:7 alarm:5");
    }

    #[test]
    fn status_names_what_is_wrong() {
        let facts = StatusFacts {
            db_size: 20480,
            db_size_in_use: 16384,
            db_size_quota: 2 << 30,
            leader: None,
            committed_index: 5,
            applied_index: 4,
            applied_term: 2,
            alarms: vec![pb::AlarmMember { member_id: 7, alarm: pb::AlarmType::Nospace.into() }],
            learner: false,
        };
        let told = told(facts);
        assert_eq!(told.errors, ["etcdserver: no leader", "memberID:7 alarm:NOSPACE"]);
        assert_eq!((told.raft_index, told.raft_applied_index, told.raft_term), (5, 4, 2));
        assert_eq!((told.version.as_str(), told.storage_version.as_str()), ("3.7.1", "3.7.0"));
        assert!(told.downgrade_info.is_some());
    }
}
