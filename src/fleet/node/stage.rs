//! What a node is at this moment, in memory: what `node.json` says, and what runs.

use std::sync::Arc;

use parking_lot::Mutex;
use quorate_core::api::ids::MemberId;

use super::launcher::{MemberState, RunningMember, RunningWorker};
use super::life::REMOVED;
use crate::fleet::error::FleetError;
use crate::fleet::management::Phase;
use crate::fleet::seal::FleetKey;
use crate::keyspace::Keyspace;

/// A node that runs a member.
#[derive(Clone)]
pub(super) struct Seat {
    pub(super) uid: String,
    pub(super) name: String,
    /// `host:port` of its API.
    pub(super) address: String,
    pub(super) id: MemberId,
    pub(super) member: RunningMember,
    pub(super) key: Arc<FleetKey>,
}

/// A node that passes on what clients ask.
pub(super) struct Gate {
    pub(super) uid: String,
    pub(super) name: String,
    pub(super) address: String,
    /// Its id in the registry, in lower hex.
    pub(super) id: String,
    /// `host:port` of the APIs of nodes that hold replicas.
    pub(super) apis: Mutex<Vec<String>>,
    pub(super) worker: RunningWorker,
}

/// What a node is.
#[derive(Clone)]
pub(super) enum Stage {
    /// Part of nothing, since it was removed or a start was undone, if it ever was.
    Uninitialised {
        since: Option<String>,
    },
    /// On its way; the words are for people.
    Bootstrapping {
        name: String,
        address: String,
    },
    Joining {
        name: String,
        address: String,
    },
    Member(Arc<Seat>),
    Worker(Arc<Gate>),
    Resetting {
        reason: String,
    },
    Stopping,
}

impl Seat {
    pub(super) fn keyspace(&self) -> &Keyspace {
        self.member.keyspace()
    }

    /// The member serves; until then nothing can be asked of it.
    pub(super) fn is_ready(&self) -> bool {
        self.member.state() == MemberState::Ready
    }
}

impl Stage {
    /// In the API's words.
    pub(super) fn phase(&self) -> Phase {
        match self {
            Stage::Uninitialised { since: Some(why) } if why == REMOVED => Phase::Removed,
            Stage::Uninitialised { .. } => Phase::Uninitialized,
            Stage::Bootstrapping { .. } => Phase::Bootstrapping,
            Stage::Joining { .. } => Phase::Joining,
            Stage::Member(_) => Phase::ControlPlane,
            Stage::Worker(_) => Phase::Worker,
            Stage::Resetting { .. } => Phase::Resetting,
            Stage::Stopping => Phase::Stopping,
        }
    }

    /// The seat of a node that runs a member.
    pub(super) fn seat(&self) -> Result<Arc<Seat>, FleetError> {
        match self {
            Stage::Member(seat) => Ok(Arc::clone(seat)),
            Stage::Worker(_) => Err(FleetError::OnWorker),
            Stage::Stopping => Err(FleetError::ShuttingDown),
            Stage::Uninitialised { .. }
            | Stage::Bootstrapping { .. }
            | Stage::Joining { .. }
            | Stage::Resetting { .. } => Err(FleetError::NotInitialized),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_removed_and_is_clean_again_says_so() {
        let text = |text: &str| text.to_owned();
        for (stage, phase) in [
            (Stage::Uninitialised { since: Some(text(REMOVED)) }, Phase::Removed),
            (Stage::Uninitialised { since: Some(text("join failed: x")) }, Phase::Uninitialized),
            (Stage::Uninitialised { since: None }, Phase::Uninitialized),
            (Stage::Resetting { reason: text(REMOVED) }, Phase::Resetting),
            (Stage::Resetting { reason: text("join failed: x") }, Phase::Resetting),
        ] {
            assert_eq!(stage.phase(), phase);
        }
    }
}
