//! What the keyspace and the state machine refuse, in the words of the API.

use quorate_core::api::refusal::{FleetRefusal, Refusal};

use crate::fleet::error::FleetError;
use crate::keyspace::{KeyspaceError, MemberRefusal};

/// Whoever would have to agree did not.
pub(super) const NO_QUORUM: &str = "no quorum of the members has answered in time";

/// A fault of ours, for the log and whoever asked.
pub(super) fn unexpected(why: &str) -> FleetError {
    FleetError::Internal(why.to_owned())
}

/// What a call of the keyspace came to.
pub(super) fn of_keyspace(why: KeyspaceError) -> FleetError {
    match why {
        KeyspaceError::Refused(Refusal::Fleet(refusal)) => of_fleet(refusal),
        KeyspaceError::Refused(other) => unexpected(&format!("refused: {other}")),
        KeyspaceError::Members(refusal) => of_members(refusal),
        KeyspaceError::MemberNotFound => FleetError::NotFound("member not found".to_owned()),
        KeyspaceError::Stopped => FleetError::ShuttingDown,
        KeyspaceError::NoLeader | KeyspaceError::Timeout(_) | KeyspaceError::DeadlineExceeded => {
            FleetError::Unavailable(NO_QUORUM.to_owned())
        }
        KeyspaceError::LeaderChanged
        | KeyspaceError::TooManyRequests
        | KeyspaceError::NotForLearners
        | KeyspaceError::NotLeader
        | KeyspaceError::LeaderTransferTimeout => FleetError::Unavailable(why.to_string()),
        KeyspaceError::RequestTooLarge
        | KeyspaceError::BadLeaderTransferee
        | KeyspaceError::WrongDowngradeVersionFormat
        | KeyspaceError::InvalidDowngradeTarget
        | KeyspaceError::UnknownMethod
        | KeyspaceError::DefragmentFailed(_)
        | KeyspaceError::Unimplemented(_)
        | KeyspaceError::Corrupt(_) => unexpected(&why.to_string()),
    }
}

fn of_fleet(refusal: FleetRefusal) -> FleetError {
    let invalid = |text: &str| FleetError::Invalid(text.to_owned());
    let unauthorized = |text: &str| FleetError::Unauthorized(text.to_owned());
    match refusal {
        FleetRefusal::AlreadyBootstrapped => FleetError::AlreadyBootstrapped,
        FleetRefusal::NotBootstrapped => FleetError::NotInitialized,
        FleetRefusal::PrefixInUse => {
            invalid("keys under /k8sd/ or /kat/ exist already: they would be the fleet's")
        }
        FleetRefusal::TokenUnknown => {
            unauthorized("the token is unknown, was used, or was revoked")
        }
        FleetRefusal::TokenExpired => unauthorized("the token has expired"),
        FleetRefusal::TokenName => unauthorized("the token is for a node of another name"),
        FleetRefusal::TokenRole => unauthorized("the token is for a node of another role"),
        FleetRefusal::NameTaken => {
            FleetError::NameTaken("a node of this name is part of the cluster".to_owned())
        }
        FleetRefusal::AddressTaken => {
            FleetError::NameTaken("a node of this address is part of the cluster".to_owned())
        }
        FleetRefusal::IdTaken => {
            FleetError::Conflict("a node of this id is or was part of the cluster".to_owned())
        }
        FleetRefusal::NodeUnknown => FleetError::NotFound("no node has this id".to_owned()),
        FleetRefusal::FenceLost => FleetError::Conflict("whoever asked leads no more".to_owned()),
        FleetRefusal::GenerationMoved => {
            FleetError::Conflict("the certificate authority was changed meanwhile".to_owned())
        }
        FleetRefusal::Malformed => unexpected("the state machine refused a malformed change"),
    }
}

fn of_members(refusal: MemberRefusal) -> FleetError {
    match refusal {
        MemberRefusal::BadUrls => FleetError::Invalid("given member URLs are invalid".to_owned()),
        MemberRefusal::IdExists => FleetError::Conflict("member ID already exists".to_owned()),
        MemberRefusal::PeerUrlExists => {
            FleetError::NameTaken("a member has one of these peer URLs already".to_owned())
        }
        MemberRefusal::NotFound => FleetError::NotFound("member not found".to_owned()),
        MemberRefusal::NotLearner => unexpected("can only promote a learner"),
        MemberRefusal::LearnerNotReady => {
            FleetError::Unavailable("the learner is not in sync with the leader".to_owned())
        }
        MemberRefusal::TooManyLearners => FleetError::Conflict("too many learners".to_owned()),
        MemberRefusal::NotEnoughStarted => {
            FleetError::Unavailable("not enough members are started for that".to_owned())
        }
        MemberRefusal::Unhealthy => {
            FleetError::Unavailable("not enough members are connected for that".to_owned())
        }
    }
}
