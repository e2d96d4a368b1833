//! What a member's refusal means to who uses a store.

use quorate_core::api::pb::etcdserverpb as pb;
use tonic::{Code, Status};

use crate::fleet::store::StoreError;

/// The token has run out, or the member has forgotten it; or none was shown, and one is needed by now.
pub(super) fn is_stale(why: &Status) -> bool {
    let words = ["etcdserver: invalid auth token", "etcdserver: user name is empty"];
    words.iter().any(|text| why.message().contains(text))
}

/// A watch that is refused for who asks is refused in its first response, by words.
pub(super) fn refused_watch(first: &pb::WatchResponse) -> Option<Status> {
    let why = Status::unauthenticated(first.cancel_reason.clone());
    (first.canceled && is_stale(&why)).then_some(why)
}

pub(super) fn failed(why: &Status) -> StoreError {
    let text = why.message().to_owned();
    match why.code() {
        Code::PermissionDenied | Code::Unauthenticated => StoreError::Denied(text),
        Code::NotFound if text == "etcdserver: requested lease not found" => StoreError::LeaseGone,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => {
            StoreError::Unavailable(text)
        }
        // etcd says so by these words, in a code that says nothing.
        Code::Unknown if text == "etcdserver: too many requests" => StoreError::Unavailable(text),
        // A connection that broke while it was in use, in tonic's code.
        Code::Internal | Code::Unknown if why.message().contains("error reading from server") => {
            StoreError::Unavailable(text)
        }
        Code::InvalidArgument if is_stale(why) => StoreError::Denied(text),
        Code::Ok
        | Code::NotFound
        | Code::Internal
        | Code::Unknown
        | Code::InvalidArgument
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss => StoreError::Refused(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_by_code_and_by_etcds_words() {
        let lease = "etcdserver: requested lease not found";
        assert_eq!(failed(&Status::not_found(lease)), StoreError::LeaseGone);
        for (status, transient) in [
            (Status::unavailable("etcdserver: no leader"), true),
            (Status::deadline_exceeded("context deadline exceeded"), true),
            (Status::unknown("etcdserver: too many requests"), true),
            (Status::unknown("etcdserver: unknown method"), false),
            (Status::invalid_argument("etcdserver: key is not provided"), false),
            (Status::permission_denied("etcdserver: permission denied"), false),
        ] {
            assert_eq!(failed(&status).is_transient(), transient, "{status:?}");
        }
        let denied = failed(&Status::permission_denied("/k8sd/ is reserved"));
        assert_eq!(denied, StoreError::Denied("/k8sd/ is reserved".to_owned()));
        assert!(is_stale(&Status::unauthenticated("etcdserver: invalid auth token")));
    }
}
