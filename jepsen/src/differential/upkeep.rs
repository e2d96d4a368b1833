//! Calls of the Maintenance service whose answers are mostly each server's own: that there is one is compared, and of
//! refusals everything.

use tonic::{Response, Status};

use super::answer::Answer;
use super::client::Client;
use super::members::Roll;
use super::told::{told, told_as};
use crate::pb::etcdserverpb as pb;

/// One such call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum UpkeepCall {
    Defragment,
    Hash,
    /// The beginning of a snapshot.
    Snapshot,
    /// To a member, as [`super::members`] names it.
    MoveLeader(u64),
    /// An action and a version.
    Downgrade(i32, &'static str),
}

pub(super) async fn make(client: &Client, roll: &Roll, call: UpkeepCall) -> Answer {
    let mut maintenance = client.maintenance.clone();
    match call {
        UpkeepCall::Defragment => {
            told("Defragment", maintenance.defragment(pb::DefragmentRequest {}).await)
        }
        UpkeepCall::Hash => told_as("Hash", maintenance.hash(pb::HashRequest {}).await, |hash| {
            hash.hash = u32::from(hash.hash != 0);
        }),
        UpkeepCall::Snapshot => match first_piece(client).await {
            Ok(text) => Answer::Text { name: "Snapshot", revision: 0, text },
            Err(status) => status.into(),
        },
        UpkeepCall::MoveLeader(target) => {
            let request = pb::MoveLeaderRequest { target_id: roll.id(target) };
            told("MoveLeader", maintenance.move_leader(request).await)
        }
        UpkeepCall::Downgrade(action, version) => {
            let request = pb::DowngradeRequest { action, version: version.to_owned() };
            told("Downgrade", maintenance.downgrade(request).await)
        }
    }
}

async fn first_piece(client: &Client) -> Result<String, Status> {
    let mut maintenance = client.maintenance.clone();
    let opened: Response<_> = maintenance.snapshot(pb::SnapshotRequest {}).await?;
    let first = opened.into_inner().message().await?;
    let version = first.map(|piece| piece.version);
    Ok(format!("{version:?}"))
}
