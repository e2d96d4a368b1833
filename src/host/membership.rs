//! Streams follow the membership: to whoever joins, away from whoever leaves.
//!
//! ```text
//!   raft's membership, committed or not --> Peers::set_members   who leaves is hung up on a second later
//!   the applied roster                  --> Peers::set_removed   who comes back is told that it was removed
//!   nothing in the log yet              --> the introducers are asked for /members, again and again
//! ```

use std::time::Duration;

use quorate_core::api::ids::GroupId;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::instrument::WithSubscriber as _;

use super::peers::{Peers, remote_clusters};
use crate::consensus::Members;
use crate::keyspace::Keyspace;

const GROUP: GroupId = GroupId(0);

/// Raft knows the members as soon as it runs; should it not, the member serves without.
const MEMBERS_WITHIN: Duration = Duration::from_secs(1);

/// A member that leaves is spoken with for so long after: it may have to tell a client that it was removed.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long introducers are asked, and the rest between two times.
const ASK_FOR: Duration = Duration::from_secs(1);

/// Keeps streams with whoever is a member now. Returns once the first of them are known, so that none is a stranger
/// when it dials.
pub(super) async fn follow(keyspace: Keyspace, peers: Peers) -> JoinHandle<()> {
    let mut known = Members::new();
    let mut roster = keyspace.roster();
    let first = roster.borrow_and_update().clone();
    peers.set_removed(first.removed.clone());
    // Who has yet to be brought up knows nobody for a while.
    let joins = !keyspace.config().introducers.is_empty() && first.members.is_empty();
    if !joins && let Ok(first) = timeout(MEMBERS_WITHIN, keyspace.members_other_than(&known)).await
    {
        known = first;
        peers.set_members(GROUP, known.clone());
    }
    let follow = async move {
        if known.is_empty() {
            known = introduced(&keyspace, &peers).await;
            peers.set_members(GROUP, known.clone());
        }
        loop {
            tokio::select! {
                next = keyspace.members_other_than(&known) => {
                    part(&peers, &known, &next).await;
                    known = next;
                }
                Ok(()) = roster.changed() => {
                    peers.set_removed(roster.borrow_and_update().removed.clone());
                }
                else => return,
            }
        }
    };
    tokio::spawn(follow.with_current_subscriber())
}

/// Who is new is met at once, who leaves is left a little later.
async fn part(peers: &Peers, known: &Members, next: &Members) {
    let leave = known.keys().any(|id| !next.contains_key(id));
    if leave {
        let mut both = next.clone();
        for (id, urls) in known {
            both.entry(*id).or_insert_with(|| urls.clone());
        }
        peers.set_members(GROUP, both);
        sleep(FAREWELL).await;
    }
    peers.set_members(GROUP, next.clone());
}

/// The first members that this member's log knows; until then, streams are kept with those that the introducers name.
async fn introduced(keyspace: &Keyspace, peers: &Peers) -> Members {
    let none = Members::new();
    let config = keyspace.config();
    let ask = async {
        loop {
            let clusters = remote_clusters(&config.introducers, peers.tls(), ASK_FOR).await;
            let ours = clusters.into_iter().filter(|told| told.cluster == config.cluster_id);
            let members = ours.flat_map(|told| told.members);
            peers.introduce(members.map(|member| (member.id(), member.peer_urls)).collect());
            sleep(ASK_FOR).await;
        }
    };
    tokio::select! {
        members = keyspace.members_other_than(&none) => members,
        never = ask => never,
    }
}

/// Resolves once this member was removed: another one has refused it, or it has applied that itself and had the time to
/// answer those who asked it.
pub(super) async fn removed(keyspace: &Keyspace, peers: &Peers) {
    let applied = async {
        keyspace.removed().await;
        sleep(FAREWELL).await;
    };
    tokio::select! {
        () = applied => {}
        () = peers.removed() => {}
    }
}
