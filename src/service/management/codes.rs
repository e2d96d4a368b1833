//! The HTTP status of each refusal: one row each, and no other place knows one.

use http::StatusCode;

use crate::fleet::error::FleetError;

/// 520: the node is not in the cluster.
pub(super) const NODE_NOT_IN_FLEET: u16 = 520;

/// 521: the node is in a cluster already.
pub(super) const NODE_IN_USE: u16 = 521;

/// The status of a refusal.
pub(super) fn code_of(why: &FleetError) -> u16 {
    match why {
        FleetError::AlreadyBootstrapped
        | FleetError::Invalid(_)
        | FleetError::Immutable(_)
        | FleetError::NameTaken(_) => 400,
        FleetError::Unauthorized(_) => 401,
        FleetError::Forbidden(_) | FleetError::OnWorker => 403,
        FleetError::NotFound(_) => 404,
        FleetError::Conflict(_) | FleetError::AnotherJoins => 409,
        FleetError::JoinFailed(_) | FleetError::Internal(_) => 500,
        FleetError::NotInitialized
        | FleetError::ShuttingDown
        | FleetError::Unavailable(_)
        | FleetError::TimedOut(_) => 503,
        FleetError::NodeNotInFleet(_) => NODE_NOT_IN_FLEET,
        FleetError::NodeInUse(_) => NODE_IN_USE,
    }
}

/// The same, as HTTP has it.
pub(super) fn status_of(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("every code of the table is between 100 and 999")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_the_code_that_the_contract_gives_it() {
        let text = || "x".to_owned();
        for (why, code) in [
            (FleetError::AlreadyBootstrapped, 400),
            (FleetError::Invalid(text()), 400),
            (FleetError::Immutable("x"), 400),
            (FleetError::NameTaken(text()), 400),
            (FleetError::Unauthorized(text()), 401),
            (FleetError::Forbidden(text()), 403),
            (FleetError::OnWorker, 403),
            (FleetError::NotFound(text()), 404),
            (FleetError::Conflict(text()), 409),
            (FleetError::AnotherJoins, 409),
            (FleetError::JoinFailed(text()), 500),
            (FleetError::Internal(text()), 500),
            (FleetError::NotInitialized, 503),
            (FleetError::ShuttingDown, 503),
            (FleetError::Unavailable(text()), 503),
            (FleetError::TimedOut("x"), 503),
            (FleetError::NodeNotInFleet(text()), 520),
            (FleetError::NodeInUse(text()), 521),
        ] {
            assert_eq!(code_of(&why), code, "{why}");
            assert_eq!(status_of(code).as_u16(), code);
        }
    }
}
