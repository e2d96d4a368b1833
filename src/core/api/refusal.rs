//! The two kinds of no, which never share an enum: a [`Refusal`] is an answer, a [`Corrupt`] stops the member.

/// A request was understood and refused. The wire code and text of each stand in `service/status.rs`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{self:?}")]
pub enum Refusal {
    /// The key is empty.
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on a key that does not exist, or a txn operation with nothing in it.
    KeyNotFound,
    /// `ignore_value` together with a value.
    ValueProvided,
    /// `ignore_lease` together with a lease.
    LeaseProvided,
    /// More compares or operations than the limit allows.
    TooManyOps,
    /// One branch of a txn would put a key twice, or put and delete it.
    DuplicateKey,
    /// The requested revision is below the compact revision.
    Compacted,
    /// The requested revision has not been written yet.
    FutureRevision,
    /// An unknown sort order or target.
    InvalidSortOption,
    /// The lease does not exist, or has ended.
    LeaseNotFound,
    /// A lease of that id exists.
    LeaseExists,
    /// The TTL is above 9,000,000,000 s.
    LeaseTtlTooLarge,
    /// The NOSPACE alarm stands.
    NoSpace,
    /// The CORRUPT alarm stands.
    CorruptCluster,
    /// The expiry was decided in another term than the one it was committed in. No client asks for one.
    StaleLeaseExpiry,
    /// `RangeStream` with a sort order, which it does not support.
    StreamSort,
    /// `RangeStream` with a min or max revision filter, which it does not support.
    StreamRevisionFilter,
    /// Something about users, roles, permissions or tokens.
    Auth(AuthRefusal),
    /// A client would write keys under a prefix that belongs to the fleet, or end or renew a lease that holds such
    /// keys. Only on a keyspace that was bootstrapped.
    ReservedPrefix(ReservedPrefix),
    /// Something about the fleet's own records.
    Fleet(FleetRefusal),
}

impl From<FleetRefusal> for Refusal {
    fn from(refusal: FleetRefusal) -> Self {
        Refusal::Fleet(refusal)
    }
}

impl From<AuthRefusal> for Refusal {
    fn from(refusal: AuthRefusal) -> Self {
        Refusal::Auth(refusal)
    }
}

/// What authentication and permissions refuse with: etcd's errors, one each (etcd `server/auth/store.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthRefusal {
    /// Authentication cannot be enabled without a user `root`.
    RootUserNotFound,
    /// Authentication cannot be enabled unless the user `root` has the role `root`.
    RootRoleNotGranted,
    /// Authentication is enabled and the caller did not say who it is; or a user is to be added without a name.
    UserEmpty,
    /// A user of that name exists.
    UserExists,
    /// There is no user of that name.
    UserNotFound,
    /// A role is to be added without a name.
    RoleEmpty,
    /// A role of that name exists.
    RoleExists,
    /// There is no role of that name.
    RoleNotFound,
    /// The user does not have the role that is to be revoked.
    RoleNotGranted,
    /// A permission is to be granted, and none is given.
    PermissionNotGiven,
    /// The role does not have the permission that is to be revoked.
    PermissionNotGranted,
    /// The caller may not do this.
    PermissionDenied,
    /// The name or the password is wrong; which of them is not told.
    Failed,
    /// A password was given for a user that has none by choice, or it is no password hash.
    NoPasswordUser,
    /// The password is longer than the 72 bytes that bcrypt looks at.
    PasswordTooLong,
    /// Authentication is not enabled.
    NotEnabled,
    /// The token is unknown or has run out.
    InvalidToken,
    /// Users or roles have changed since the caller was admitted.
    OldRevision,
    /// It would take the administrator away, or it grants a range that is none.
    InvalidManagement,
    /// This member can check tokens, and has no key to sign any.
    VerifyOnly,
}

/// Where the keys that the fleet alone writes stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservedPrefix {
    /// `/k8sd/`
    K8sd,
    /// `/kat/`, but for `/kat/leader/`, where agents campaign as clients.
    Kat,
}

impl ReservedPrefix {
    /// The prefix as it stands in front of keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            ReservedPrefix::K8sd => "/k8sd/",
            ReservedPrefix::Kat => "/kat/",
        }
    }
}

/// What a change of the fleet's records is refused with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FleetRefusal {
    /// There is a fleet already.
    AlreadyBootstrapped,
    /// There is no fleet.
    NotBootstrapped,
    /// The fleet cannot begin: there are keys under a prefix that would be its own.
    PrefixInUse,
    /// Nobody was given that token, or it was used up or revoked.
    TokenUnknown,
    /// The token has run out.
    TokenExpired,
    /// The token is for a node of another name.
    TokenName,
    /// The token is for a node of another role.
    TokenRole,
    /// A node of that name is in the fleet.
    NameTaken,
    /// A node of that address is in the fleet.
    AddressTaken,
    /// A node of that id is in the fleet, or was once a member.
    IdTaken,
    /// No node has that id.
    NodeUnknown,
    /// Whoever asked was elected once, and is no longer.
    FenceLost,
    /// The fleet's authority was changed meanwhile.
    GenerationMoved,
    /// It asks for something that cannot be: of the one who asks, never of a user.
    Malformed,
}

/// Something that cannot be unless memory, disk or code is broken. The member stops with this as its last words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// The entry asks for a newer member than this one.
    #[error(
        "log entry {index} needs cluster level {needed}, this member knows {known}: upgrade this member"
    )]
    LevelTooNew {
        /// Where it stands in the log.
        index: u64,
        /// What it asks for.
        needed: u32,
        /// What this member knows.
        known: u32,
    },
    /// A log entry or record does not decode.
    #[error("{what} does not decode: {reason}")]
    Undecodable {
        /// What was read.
        what: String,
        /// Why it cannot be.
        reason: String,
    },
    /// The index lists a revision that the store does not have, or has with other content.
    #[error("revision {revision} of the store: {reason}")]
    BadRevision {
        /// Which revision, as `main.sub`.
        revision: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An invariant of the state does not hold.
    #[error("invariant broken: {0}")]
    Invariant(String),
    /// The store below failed while reading; its own words.
    #[error("reading the store failed: {0}")]
    Store(String),
}
