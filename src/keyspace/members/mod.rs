//! Who the members are: ids by etcd's formulas, the list, how it is changed, and what a member tells of itself.

mod change;
mod checks;
mod followed;
mod level;
mod promotions;
mod roll;

use std::sync::Arc;
use std::time::Duration;

use quorate_core::api::ids::{ClusterId, MemberId};
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::internal::command::Request;
use quorate_core::api::pb::internal::{Command, MemberAttributes};
use quorate_core::state_machine::StateMachine;
use sha1::{Digest as _, Sha1};

pub use self::followed::Followed;
pub(crate) use self::level::raise_level;
pub use self::promotions::Promotions;
pub(crate) use self::roll::Roll;
pub use self::roll::Roster;
use super::error::KeyspaceError;
use super::state::State;
use super::write::Writer;
use crate::support::failpoints::failpoint;

/// Between two tries to tell the others who this is.
const RETRY: Duration = Duration::from_millis(500);

/// A member's id: of its peer URLs and, when it is among the first, the cluster's token, else the decimal seconds since
/// 1970 at which it was added (etcd `server/etcdserver/api/membership/member.go`, `computeMemberID`).
pub fn member_id(peer_urls: &[String], token: &str) -> MemberId {
    let mut sorted: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    for url in sorted {
        hash.update(url);
    }
    hash.update(token);
    MemberId(first_eight(hash))
}

/// A cluster's id: of its first members' (etcd `server/etcdserver/api/membership/cluster.go`, `genID`).
pub fn cluster_id(members: &[MemberId]) -> ClusterId {
    let mut sorted = members.to_vec();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    for member in sorted {
        hash.update(member.0.to_be_bytes());
    }
    ClusterId(first_eight(hash))
}

fn first_eight(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

/// Every member, by id.
pub(crate) fn list(machine: &StateMachine) -> Vec<pb::Member> {
    let Some(membership) = &machine.membership().membership else {
        return Vec::new();
    };
    let votes = |id: u64| {
        let mut sets = membership.configs.iter();
        sets.any(|set| set.member_ids.contains(&id))
    };
    let mut members: Vec<pb::Member> = membership
        .nodes
        .iter()
        .map(|node| {
            let told = machine.member_attributes(MemberId(node.member_id));
            pb::Member {
                id: node.member_id,
                name: told.map(|told| told.name.clone()).unwrap_or_default(),
                peer_ur_ls: node.peer_urls.clone(),
                client_ur_ls: told.map(|told| told.client_urls.clone()).unwrap_or_default(),
                is_learner: !votes(node.member_id) && !node.voter_when_caught_up,
            }
        })
        .collect();
    members.sort_unstable_by_key(|member| member.id);
    members
}

/// Tells the others this member's name and client URLs. Tries until it is done: nobody can reach the member by what
/// they do not know.
pub(crate) async fn publish(state: Arc<State>, writer: Arc<Writer>, told: MemberAttributes) {
    let id = MemberId(told.member_id);
    failpoint!(wait beforePublishing);
    while state.machine.read().member_attributes(id) != Some(&told) {
        match write(&writer, Request::MemberAttributes(told.clone())).await {
            Ok(()) => {}
            Err(KeyspaceError::Stopped) => return,
            Err(error) => {
                tracing::debug!(%error, "publishing the member's attributes failed; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn write(writer: &Writer, request: Request) -> Result<(), KeyspaceError> {
    let command = Command { request: Some(request), ..Command::default() };
    writer.write_unbounded(&command).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(urls: &[&str]) -> Vec<String> {
        urls.iter().map(|url| (*url).to_owned()).collect()
    }

    // Ids that etcd 3.5 shows for the same flags.
    #[test]
    fn a_lone_default_member_has_the_ids_that_etcd_gives_it() {
        let member = member_id(&urls(&["http://localhost:2380"]), "etcd-cluster");
        assert_eq!(member.to_string(), "8e9e05c52164694d");
        assert_eq!(cluster_id(&[member]).to_string(), "cdf818194e3a8c32");
    }

    #[test]
    fn ids_do_not_depend_on_the_order_of_urls_or_members() {
        let one = member_id(&urls(&["http://a:1", "http://b:2"]), "t");
        let other = member_id(&urls(&["http://b:2", "http://a:1"]), "t");
        assert_eq!(one, other);
        let third = MemberId(7);
        assert_eq!(cluster_id(&[one, third]), cluster_id(&[third, one]));
    }
}
