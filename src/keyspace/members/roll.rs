//! Who the members are, as applied here: told to whoever has to follow.
//!
//! ```text
//!   sink: a membership or level entry, a state --> Roll --> host: whom to speak with, whom to hang up on
//!                                                      --> service: is this member a learner?
//!                                                      --> embed: is it none any more?
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quorate_core::api::ids::{ClusterId, MemberId};
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::state_machine::StateMachine;
use tokio::sync::watch;

use super::promotions::Promotions;

/// The members at one moment. Names and client URLs are as they were told until then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roster {
    /// Every member, by id.
    pub members: Vec<pb::Member>,
    /// Who was a member once and is none any more.
    pub removed: BTreeSet<MemberId>,
}

impl Roster {
    fn of(machine: &StateMachine) -> Roster {
        Roster { members: super::list(machine), removed: machine.removed_members().clone() }
    }

    fn member(&self, id: u64) -> Option<&pb::Member> {
        self.members.iter().find(|member| member.id == id)
    }

    fn has_learner(&self, id: MemberId) -> bool {
        self.member(id.0).is_some_and(|member| member.is_learner)
    }
}

/// The newest roster, and what is asked of it often.
#[derive(Debug)]
pub(crate) struct Roll {
    own: MemberId,
    cluster: ClusterId,
    learner: AtomicBool,
    now: watch::Sender<Arc<Roster>>,
    pub(crate) promotions: Promotions,
}

impl Roll {
    pub(crate) fn new(own: MemberId, cluster: ClusterId, machine: &StateMachine) -> Roll {
        let roster = Roster::of(machine);
        Roll {
            own,
            cluster,
            learner: AtomicBool::new(roster.has_learner(own)),
            now: watch::Sender::new(Arc::new(roster)),
            promotions: Promotions::default(),
        }
    }

    /// A membership was applied, a higher cluster level, or a whole state.
    pub(crate) fn changed(&self, machine: &StateMachine) {
        let next = Arc::new(Roster::of(machine));
        self.learner.store(next.has_learner(self.own), Ordering::Relaxed);
        let before = self.now.send_replace(Arc::clone(&next));
        self.tell(&before, &next);
    }

    /// This member has no vote and is not to get one by itself.
    pub(crate) fn is_learner(&self) -> bool {
        self.learner.load(Ordering::Relaxed)
    }

    pub(crate) fn follow(&self) -> watch::Receiver<Arc<Roster>> {
        self.now.subscribe()
    }

    /// Logs what changed in etcd's words (etcd `server/etcdserver/api/membership/cluster.go`).
    fn tell(&self, before: &Roster, next: &Roster) {
        let (cluster, own) = (self.cluster, self.own);
        for member in &next.members {
            let id = MemberId(member.id);
            match before.member(member.id) {
                None => tracing::info!(
                    "cluster-id" = %cluster,
                    "local-member-id" = %own,
                    "added-peer-id" = %id,
                    "added-peer-peer-urls" = ?member.peer_ur_ls,
                    "added-peer-is-learner" = member.is_learner,
                    "added member"
                ),
                Some(last) if last.is_learner && !member.is_learner => tracing::info!(
                    "cluster-id" = %cluster,
                    "local-member-id" = %own,
                    "promoted-member-id" = %id,
                    "promote member"
                ),
                Some(last) if last.peer_ur_ls != member.peer_ur_ls => tracing::info!(
                    "cluster-id" = %cluster,
                    "local-member-id" = %own,
                    "updated-remote-peer-id" = %id,
                    "updated-remote-peer-urls" = ?member.peer_ur_ls,
                    "updated-remote-peer-is-learner" = member.is_learner,
                    "updated member"
                ),
                Some(_) => {}
            }
        }
        for gone in before.members.iter().filter(|member| next.member(member.id).is_none()) {
            tracing::info!(
                "cluster-id" = %cluster,
                "local-member-id" = %own,
                "removed-remote-peer-id" = %MemberId(gone.id),
                "removed-remote-peer-urls" = ?gone.peer_ur_ls,
                "removed-remote-peer-is-learner" = gone.is_learner,
                "removed member"
            );
        }
    }
}
