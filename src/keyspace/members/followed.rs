//! What the leader knows of those that follow it, for whoever decides about members.

use quorate_core::api::ids::MemberId;

use super::checks;
use crate::keyspace::Keyspace;

/// How a member does, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// It is connected, or has taken entries of this leader's: it is there, or was a moment ago.
    pub has_answered: bool,
    /// It has nearly all of the leader's log: it may get a vote.
    pub is_in_sync: bool,
}

impl Keyspace {
    /// This member leads, and may be believed.
    pub fn leads(&self) -> bool {
        self.0.consensus.leads()
    }

    /// Whether this member is connected to `id`, or is it.
    pub fn reaches(&self, id: MemberId) -> bool {
        id == self.0.config.member_id || self.0.consensus.connected_for(id).is_some()
    }

    /// How `id` does. `None`: this member does not lead, or knows no such member, and so can say nothing of it.
    pub fn followed(&self, id: MemberId) -> Option<Followed> {
        if !self.leads() {
            return None;
        }
        let progress = self.0.consensus.progress(id)?;
        let has_answered = progress.entries > 0 || self.0.consensus.connected_for(id).is_some();
        Some(Followed { has_answered, is_in_sync: checks::is_in_sync(progress) })
    }
}
