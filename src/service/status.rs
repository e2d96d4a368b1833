//! The one table from errors to the wire: gRPC code and etcd's exact text (etcd `api/v3rpc/rpctypes/error.go`,
//! `server/etcdserver/api/v3rpc/util.go`). Clients match on the text.
//!
//! **Invariant:** no catch-all: an error without a row does not compile.

use quorate_core::api::refusal::{AuthRefusal, FleetRefusal, Refusal, ReservedPrefix};
use tonic::{Code, Status};

use crate::keyspace::{KeyspaceError, MemberRefusal, TimeoutKind};

/// What a client is told instead of a reply.
pub(crate) fn status(error: &KeyspaceError) -> Status {
    let (code, text) = match error {
        KeyspaceError::Refused(refusal) => refused(refusal),
        KeyspaceError::NoLeader => (Code::Unavailable, "etcdserver: no leader"),
        KeyspaceError::LeaderChanged => (Code::Unavailable, "etcdserver: leader changed"),
        KeyspaceError::Timeout(kind) => (Code::Unavailable, timeout(*kind)),
        KeyspaceError::DeadlineExceeded => (Code::DeadlineExceeded, "context deadline exceeded"),
        // etcd maps these two to values of its client library, which reach the wire as Unknown.
        KeyspaceError::TooManyRequests => (Code::Unknown, "etcdserver: too many requests"),
        KeyspaceError::RequestTooLarge => {
            (Code::InvalidArgument, "etcdserver: request is too large")
        }
        KeyspaceError::Stopped => (Code::Unavailable, "etcdserver: server stopped"),
        KeyspaceError::MemberNotFound => (Code::NotFound, "etcdserver: member not found"),
        KeyspaceError::Members(refusal) => members(*refusal),
        KeyspaceError::NotForLearners => {
            (Code::FailedPrecondition, "etcdserver: rpc not supported for learner")
        }
        KeyspaceError::NotLeader => (Code::FailedPrecondition, "etcdserver: not leader"),
        KeyspaceError::BadLeaderTransferee => {
            (Code::FailedPrecondition, "etcdserver: bad leader transferee")
        }
        // Not in etcd's map of errors: it goes out as it is.
        KeyspaceError::LeaderTransferTimeout => {
            (Code::Unknown, "etcdserver: request timed out, leader transfer took too long")
        }
        KeyspaceError::WrongDowngradeVersionFormat => {
            (Code::InvalidArgument, "etcdserver: wrong downgrade target version format")
        }
        KeyspaceError::InvalidDowngradeTarget => {
            (Code::InvalidArgument, "etcdserver: invalid downgrade target version")
        }
        KeyspaceError::UnknownMethod => (Code::Unknown, "etcdserver: unknown method"),
        // A file system's words go out as they are, too.
        KeyspaceError::DefragmentFailed(why) => return Status::unknown(why.clone()),
        KeyspaceError::Unimplemented(what) => {
            return Status::unimplemented(format!("{what} is not implemented"));
        }
        KeyspaceError::Corrupt(_) => (Code::DataLoss, "etcdserver: corrupt cluster"),
    };
    Status::new(code, text)
}

/// The same for whoever owns the error.
pub(crate) fn owned(error: KeyspaceError) -> Status {
    status(&error)
}

fn members(refusal: MemberRefusal) -> (Code, &'static str) {
    match refusal {
        MemberRefusal::BadUrls => {
            (Code::InvalidArgument, "etcdserver: given member URLs are invalid")
        }
        MemberRefusal::IdExists => {
            (Code::FailedPrecondition, "etcdserver: member ID already exist")
        }
        MemberRefusal::PeerUrlExists => {
            (Code::FailedPrecondition, "etcdserver: Peer URLs already exists")
        }
        MemberRefusal::NotFound => (Code::NotFound, "etcdserver: member not found"),
        MemberRefusal::NotLearner => {
            (Code::FailedPrecondition, "etcdserver: can only promote a learner member")
        }
        MemberRefusal::LearnerNotReady => (
            Code::FailedPrecondition,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        MemberRefusal::TooManyLearners => {
            (Code::FailedPrecondition, "etcdserver: too many learner members in cluster")
        }
        // Mapped to a value of etcd's client library, which reaches the wire as Unknown.
        MemberRefusal::NotEnoughStarted => {
            (Code::Unknown, "etcdserver: re-configuration failed due to not enough started members")
        }
        MemberRefusal::Unhealthy => (Code::Unavailable, "etcdserver: unhealthy cluster"),
    }
}

fn timeout(kind: TimeoutKind) -> &'static str {
    match kind {
        TimeoutKind::Plain => "etcdserver: request timed out",
        TimeoutKind::LeaderFailure => {
            "etcdserver: request timed out, possibly due to previous leader failure"
        }
        TimeoutKind::ConnectionLost => {
            "etcdserver: request timed out, possibly due to connection lost"
        }
        TimeoutKind::AppliedIndex => {
            "etcdserver: request timed out, waiting for the applied index took too long"
        }
    }
}

fn refused(refusal: &Refusal) -> (Code, &'static str) {
    match refusal {
        Refusal::EmptyKey => (Code::InvalidArgument, "etcdserver: key is not provided"),
        Refusal::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
        Refusal::ValueProvided => (Code::InvalidArgument, "etcdserver: value is provided"),
        Refusal::LeaseProvided => (Code::InvalidArgument, "etcdserver: lease is provided"),
        Refusal::TooManyOps => {
            (Code::InvalidArgument, "etcdserver: too many operations in txn request")
        }
        Refusal::DuplicateKey => {
            (Code::InvalidArgument, "etcdserver: duplicate key given in txn request")
        }
        Refusal::InvalidSortOption => (Code::InvalidArgument, "etcdserver: invalid sort option"),
        Refusal::Compacted => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
        }
        Refusal::FutureRevision => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
        }
        Refusal::LeaseTtlTooLarge => (Code::OutOfRange, "etcdserver: too large lease TTL"),
        Refusal::NoSpace => (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        Refusal::LeaseNotFound => (Code::NotFound, "etcdserver: requested lease not found"),
        Refusal::LeaseExists => (Code::FailedPrecondition, "etcdserver: lease already exists"),
        Refusal::CorruptCluster => (Code::DataLoss, "etcdserver: corrupt cluster"),
        // Only the lessor proposes an expiry, and it has no client to tell.
        Refusal::StaleLeaseExpiry => (Code::Unknown, "lease expiry decided in another term"),
        Refusal::StreamSort => {
            (Code::Unimplemented, "RangeStream does not support custom sort orders")
        }
        Refusal::StreamRevisionFilter => {
            (Code::Unimplemented, "RangeStream does not support revision filters")
        }
        Refusal::Auth(refusal) => auth_refused(*refusal),
        Refusal::ReservedPrefix(prefix) => (Code::PermissionDenied, reserved(*prefix)),
        Refusal::Fleet(refusal) => fleet_refused(*refusal),
    }
}

fn reserved(prefix: ReservedPrefix) -> &'static str {
    match prefix {
        ReservedPrefix::K8sd => "etcdserver: permission denied: keys under /k8sd/ are the fleet's",
        ReservedPrefix::Kat => "etcdserver: permission denied: keys under /kat/ are the fleet's",
    }
}

/// Of the management API, which has its own codes for them: a client of etcd's API never asks what these refuse.
fn fleet_refused(refusal: FleetRefusal) -> (Code, &'static str) {
    use Code::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unauthenticated};
    use FleetRefusal as R;
    match refusal {
        R::AlreadyBootstrapped => (FailedPrecondition, "fleet: already bootstrapped"),
        R::NotBootstrapped => (FailedPrecondition, "fleet: not bootstrapped"),
        R::PrefixInUse => (FailedPrecondition, "fleet: there are keys under a reserved prefix"),
        R::TokenUnknown => (Unauthenticated, "fleet: unknown token"),
        R::TokenExpired => (Unauthenticated, "fleet: the token has run out"),
        R::TokenName => (Unauthenticated, "fleet: the token is for another name"),
        R::TokenRole => (Unauthenticated, "fleet: the token is for another role"),
        R::NameTaken => (AlreadyExists, "fleet: a node of that name exists"),
        R::AddressTaken => (AlreadyExists, "fleet: a node of that address exists"),
        R::IdTaken => (AlreadyExists, "fleet: a node of that id exists, or did once"),
        R::NodeUnknown => (NotFound, "fleet: no such node"),
        R::FenceLost => (FailedPrecondition, "fleet: elected no longer"),
        R::GenerationMoved => (FailedPrecondition, "fleet: the authority was changed meanwhile"),
        R::Malformed => (InvalidArgument, "fleet: malformed request"),
    }
}

fn auth_refused(refusal: AuthRefusal) -> (Code, &'static str) {
    use AuthRefusal as R;
    use Code::{FailedPrecondition, InvalidArgument, PermissionDenied, Unauthenticated, Unknown};
    match refusal {
        R::RootUserNotFound => (FailedPrecondition, "etcdserver: root user does not exist"),
        R::RootRoleNotGranted => {
            (FailedPrecondition, "etcdserver: root user does not have root role")
        }
        R::UserEmpty => (InvalidArgument, "etcdserver: user name is empty"),
        R::UserExists => (FailedPrecondition, "etcdserver: user name already exists"),
        R::UserNotFound => (FailedPrecondition, "etcdserver: user name not found"),
        R::RoleEmpty => (InvalidArgument, "etcdserver: role name is empty"),
        R::RoleExists => (FailedPrecondition, "etcdserver: role name already exists"),
        R::RoleNotFound => (FailedPrecondition, "etcdserver: role name not found"),
        R::RoleNotGranted => (FailedPrecondition, "etcdserver: role is not granted to the user"),
        R::PermissionNotGiven => (InvalidArgument, "etcdserver: permission not given"),
        R::PermissionNotGranted => {
            (FailedPrecondition, "etcdserver: permission is not granted to the role")
        }
        R::PermissionDenied => (PermissionDenied, "etcdserver: permission denied"),
        R::Failed => {
            (InvalidArgument, "etcdserver: authentication failed, invalid user ID or password")
        }
        R::NotEnabled => (FailedPrecondition, "etcdserver: authentication is not enabled"),
        R::InvalidToken => (Unauthenticated, "etcdserver: invalid auth token"),
        R::OldRevision => (InvalidArgument, "etcdserver: revision of auth store is old"),
        R::InvalidManagement => (InvalidArgument, "etcdserver: invalid auth management"),
        // Not in etcd's map of errors: they go out as they are.
        R::NoPasswordUser => {
            (Unknown, "auth: authentication failed, password was given for no password user")
        }
        R::PasswordTooLong => (Unknown, "bcrypt: password length exceeds 72 bytes"),
        R::VerifyOnly => (Unknown, "auth: token signing attempted with verify-only key"),
    }
}

/// `etcdserver: no leader`, for requests that ask for one by metadata.
pub(crate) fn no_leader() -> Status {
    status(&KeyspaceError::NoLeader)
}

/// `etcdserver: server stopped`, for streams that end because the server does.
pub(crate) fn stopped() -> Status {
    status(&KeyspaceError::Stopped)
}

/// A client ended its side of a watch stream.
pub(crate) fn watch_cancelled() -> Status {
    Status::cancelled("etcdserver: watch canceled")
}

/// The metadata `client-api-version` is not text.
pub(crate) fn invalid_client_version() -> Status {
    Status::invalid_argument("etcdserver: invalid client api version")
}

/// The transport's refusal of a message over the limit, in the words of grpc-go.
pub(crate) fn message_too_large(bytes: usize, limit: usize) -> Status {
    let text = format!("grpc: received message larger than max ({bytes} vs. {limit})");
    Status::resource_exhausted(text)
}

/// The transport's refusal to send on what is over the limit, in the words of grpc-go.
pub(crate) fn sending_too_large(bytes: usize, limit: usize) -> Status {
    let text = format!("trying to send message larger than max ({bytes} vs. {limit})");
    Status::resource_exhausted(text)
}

/// The transport's refusal of bytes that are no message, in the words of grpc-go and protobuf-go; `told` is tonic's,
/// which names the field.
pub(crate) fn unreadable(told: &Status) -> Option<Status> {
    let tonics = told.code() == Code::Internal
        && told.message().starts_with("failed to decode Protobuf message");
    tonics.then(no_message)
}

/// The same, for who reads messages without tonic.
pub(crate) fn no_message() -> Status {
    let text = "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data";
    Status::internal(text)
}

/// What a proxy does not serve (etcd `server/proxy/grpcproxy/kv.go`).
pub(crate) fn no_range_stream() -> Status {
    Status::unimplemented("RangeStream is not supported by the gRPC proxy")
}

#[cfg(test)]
#[path = "status_test.rs"]
mod tests;
