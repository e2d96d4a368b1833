//! What etcd answers to a change of the members that it does not make (etcd `api/v3rpc/rpctypes/error.go`).

use tonic::{Code, Response, Status};

/// A code and the text that goes with it.
pub(super) type Refusal = (Code, &'static str);

/// etcd's server hands out its client's error here, which has no code (`api/v3rpc/util.go`).
pub(super) const TOO_FEW_STARTED: Refusal =
    (Code::Unknown, "etcdserver: re-configuration failed due to not enough started members");
pub(super) const UNHEALTHY: Refusal = (Code::Unavailable, "etcdserver: unhealthy cluster");
pub(super) const URL_TAKEN: Refusal =
    (Code::FailedPrecondition, "etcdserver: Peer URLs already exists");
pub(super) const BAD_URLS: Refusal =
    (Code::InvalidArgument, "etcdserver: given member URLs are invalid");
pub(super) const UNKNOWN: Refusal = (Code::NotFound, "etcdserver: member not found");
pub(super) const NOT_A_LEARNER: Refusal =
    (Code::FailedPrecondition, "etcdserver: can only promote a learner member");
pub(super) const NOT_IN_SYNC: Refusal = (
    Code::FailedPrecondition,
    "etcdserver: can only promote a learner member which is in sync with leader",
);
pub(super) const TOO_MANY_LEARNERS: Refusal =
    (Code::FailedPrecondition, "etcdserver: too many learner members in cluster");

/// An answer is that refusal.
pub(super) fn is<T>(answer: &Result<Response<T>, Status>, refusal: Refusal) -> bool {
    answer.as_ref().is_err_and(|status| (status.code(), status.message()) == refusal)
}

/// An answer in a few words.
pub(super) fn words<T>(answer: &Result<Response<T>, Status>) -> String {
    match answer {
        Ok(_) => "done".to_owned(),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}
