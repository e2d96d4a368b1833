use quorate_core::api::refusal::Corrupt;

use super::*;

#[test]
fn each_refusal_to_change_members_has_etcds_code_and_text() {
    use Code::*;
    use MemberRefusal as M;
    let rows = [
        (M::BadUrls, InvalidArgument, "given member URLs are invalid"),
        (M::IdExists, FailedPrecondition, "member ID already exist"),
        (M::PeerUrlExists, FailedPrecondition, "Peer URLs already exists"),
        (M::NotFound, NotFound, "member not found"),
        (M::NotLearner, FailedPrecondition, "can only promote a learner member"),
        (
            M::LearnerNotReady,
            FailedPrecondition,
            "can only promote a learner member which is in sync with leader",
        ),
        (M::TooManyLearners, FailedPrecondition, "too many learner members in cluster"),
        (M::NotEnoughStarted, Unknown, "re-configuration failed due to not enough started members"),
        (M::Unhealthy, Unavailable, "unhealthy cluster"),
    ];
    for (refusal, code, text) in rows {
        let status = status(&KeyspaceError::Members(refusal));
        assert_eq!(status.code(), code, "{refusal:?}");
        assert_eq!(status.message(), format!("etcdserver: {text}"));
    }
    let learner = status(&KeyspaceError::NotForLearners);
    assert_eq!(learner.code(), FailedPrecondition);
    assert_eq!(learner.message(), "etcdserver: rpc not supported for learner");
}

#[test]
fn each_error_has_etcds_code_and_text() {
    use Code::*;
    use KeyspaceError as E;
    use Refusal as R;
    let rows: [(KeyspaceError, Code, &str); 38] = [
        (R::EmptyKey.into(), InvalidArgument, "etcdserver: key is not provided"),
        (R::KeyNotFound.into(), InvalidArgument, "etcdserver: key not found"),
        (R::ValueProvided.into(), InvalidArgument, "etcdserver: value is provided"),
        (R::LeaseProvided.into(), InvalidArgument, "etcdserver: lease is provided"),
        (R::TooManyOps.into(), InvalidArgument, "etcdserver: too many operations in txn request"),
        (R::DuplicateKey.into(), InvalidArgument, "etcdserver: duplicate key given in txn request"),
        (R::InvalidSortOption.into(), InvalidArgument, "etcdserver: invalid sort option"),
        (R::Compacted.into(), OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
        (
            R::FutureRevision.into(),
            OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (R::LeaseTtlTooLarge.into(), OutOfRange, "etcdserver: too large lease TTL"),
        (R::NoSpace.into(), ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        (R::LeaseNotFound.into(), NotFound, "etcdserver: requested lease not found"),
        (R::LeaseExists.into(), FailedPrecondition, "etcdserver: lease already exists"),
        (R::CorruptCluster.into(), DataLoss, "etcdserver: corrupt cluster"),
        (R::StaleLeaseExpiry.into(), Unknown, "lease expiry decided in another term"),
        (R::StreamSort.into(), Unimplemented, "RangeStream does not support custom sort orders"),
        (
            R::StreamRevisionFilter.into(),
            Unimplemented,
            "RangeStream does not support revision filters",
        ),
        (E::NoLeader, Unavailable, "etcdserver: no leader"),
        (E::LeaderChanged, Unavailable, "etcdserver: leader changed"),
        (E::Timeout(TimeoutKind::Plain), Unavailable, "etcdserver: request timed out"),
        (
            E::Timeout(TimeoutKind::LeaderFailure),
            Unavailable,
            "etcdserver: request timed out, possibly due to previous leader failure",
        ),
        (
            E::Timeout(TimeoutKind::ConnectionLost),
            Unavailable,
            "etcdserver: request timed out, possibly due to connection lost",
        ),
        (
            E::Timeout(TimeoutKind::AppliedIndex),
            Unavailable,
            "etcdserver: request timed out, waiting for the applied index took too long",
        ),
        (E::DeadlineExceeded, DeadlineExceeded, "context deadline exceeded"),
        (E::TooManyRequests, Unknown, "etcdserver: too many requests"),
        (E::RequestTooLarge, InvalidArgument, "etcdserver: request is too large"),
        (E::Stopped, Unavailable, "etcdserver: server stopped"),
        (E::MemberNotFound, NotFound, "etcdserver: member not found"),
        (E::NotLeader, FailedPrecondition, "etcdserver: not leader"),
        (E::BadLeaderTransferee, FailedPrecondition, "etcdserver: bad leader transferee"),
        (
            E::LeaderTransferTimeout,
            Unknown,
            "etcdserver: request timed out, leader transfer took too long",
        ),
        (E::Unimplemented("x"), Unimplemented, "x is not implemented"),
        (
            E::WrongDowngradeVersionFormat,
            InvalidArgument,
            "etcdserver: wrong downgrade target version format",
        ),
        (
            E::InvalidDowngradeTarget,
            InvalidArgument,
            "etcdserver: invalid downgrade target version",
        ),
        (E::UnknownMethod, Unknown, "etcdserver: unknown method"),
        (E::DefragmentFailed("disk".to_owned()), Unknown, "disk"),
        (E::Corrupt(Corrupt::Invariant("i".into())), DataLoss, "etcdserver: corrupt cluster"),
        (E::Refused(R::EmptyKey), InvalidArgument, "etcdserver: key is not provided"),
    ];
    for (error, code, text) in rows {
        let status = status(&error);
        assert_eq!((status.code(), status.message()), (code, text), "{error:?}");
    }
}

#[test]
fn each_auth_error_has_etcds_code_and_text() {
    use AuthRefusal as R;
    use Code::*;
    let rows = [
        (R::RootUserNotFound, FailedPrecondition, "etcdserver: root user does not exist"),
        (
            R::RootRoleNotGranted,
            FailedPrecondition,
            "etcdserver: root user does not have root role",
        ),
        (R::UserEmpty, InvalidArgument, "etcdserver: user name is empty"),
        (R::UserExists, FailedPrecondition, "etcdserver: user name already exists"),
        (R::UserNotFound, FailedPrecondition, "etcdserver: user name not found"),
        (R::RoleEmpty, InvalidArgument, "etcdserver: role name is empty"),
        (R::RoleExists, FailedPrecondition, "etcdserver: role name already exists"),
        (R::RoleNotFound, FailedPrecondition, "etcdserver: role name not found"),
        (R::RoleNotGranted, FailedPrecondition, "etcdserver: role is not granted to the user"),
        (R::PermissionNotGiven, InvalidArgument, "etcdserver: permission not given"),
        (
            R::PermissionNotGranted,
            FailedPrecondition,
            "etcdserver: permission is not granted to the role",
        ),
        (R::PermissionDenied, PermissionDenied, "etcdserver: permission denied"),
        (
            R::Failed,
            InvalidArgument,
            "etcdserver: authentication failed, invalid user ID or password",
        ),
        (R::NotEnabled, FailedPrecondition, "etcdserver: authentication is not enabled"),
        (R::InvalidToken, Unauthenticated, "etcdserver: invalid auth token"),
        (R::OldRevision, InvalidArgument, "etcdserver: revision of auth store is old"),
        (R::InvalidManagement, InvalidArgument, "etcdserver: invalid auth management"),
        (
            R::NoPasswordUser,
            Unknown,
            "auth: authentication failed, password was given for no password user",
        ),
        (R::PasswordTooLong, Unknown, "bcrypt: password length exceeds 72 bytes"),
        (R::VerifyOnly, Unknown, "auth: token signing attempted with verify-only key"),
    ];
    for (refusal, code, text) in rows {
        let status = status(&KeyspaceError::Refused(refusal.into()));
        assert_eq!((status.code(), status.message()), (code, text), "{refusal:?}");
    }
}

#[test]
fn the_transports_own_refusals_have_grpc_gos_words() {
    let status = message_too_large(3_000_000, 2_097_152);
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "grpc: received message larger than max (3000000 vs. 2097152)");
    assert_eq!(no_leader().code(), Code::Unavailable);
    assert_eq!(invalid_client_version().message(), "etcdserver: invalid client api version");
}

#[test]
fn bytes_that_are_no_message_are_refused_in_grpc_gos_words() {
    let error = <quorate_core::api::pb::etcdserverpb::RangeRequest as prost::Message>::decode(
        b"\x0a\x05a".as_slice(),
    )
    .unwrap_err();
    let refused = unreadable(&Status::internal(error.to_string())).unwrap();
    assert_eq!(refused.code(), Code::Internal);
    assert_eq!(
        refused.message(),
        "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data"
    );
    assert!(unreadable(&Status::internal("something else")).is_none());
    assert!(unreadable(&Status::unknown(error.to_string())).is_none());
}

/// Whoever is refused must hear which prefix it was, and that it is not about users and roles.
#[test]
fn a_reserved_prefix_is_named() {
    for (prefix, text) in [(ReservedPrefix::K8sd, "/k8sd/"), (ReservedPrefix::Kat, "/kat/")] {
        assert_eq!(prefix.as_str(), text);
        let status = status(&Refusal::ReservedPrefix(prefix).into());
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().contains(text), "{}", status.message());
    }
}

#[test]
fn each_refusal_of_the_fleets_has_a_code() {
    use Code::*;
    use FleetRefusal as F;
    for (refusal, code) in [
        (F::AlreadyBootstrapped, FailedPrecondition),
        (F::NotBootstrapped, FailedPrecondition),
        (F::PrefixInUse, FailedPrecondition),
        (F::TokenUnknown, Unauthenticated),
        (F::TokenExpired, Unauthenticated),
        (F::TokenName, Unauthenticated),
        (F::TokenRole, Unauthenticated),
        (F::NameTaken, AlreadyExists),
        (F::AddressTaken, AlreadyExists),
        (F::IdTaken, AlreadyExists),
        (F::NodeUnknown, NotFound),
        (F::FenceLost, FailedPrecondition),
        (F::GenerationMoved, FailedPrecondition),
        (F::Malformed, InvalidArgument),
    ] {
        let status = status(&Refusal::Fleet(refusal).into());
        assert_eq!(status.code(), code, "{refusal:?}");
        assert!(status.message().starts_with("fleet: "), "{}", status.message());
    }
}
