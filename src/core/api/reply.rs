//! What applying an entry answers.

use bytes::Bytes;

use super::batch::{LeaseChange, WriteBatch};
use super::pb::etcdserverpb as pb;
use super::refusal::Refusal;

/// The answer to one command. Headers carry only `revision`; the service adds who and when.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the response message of the same name")]
pub enum Reply {
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compaction(pb::CompactionResponse),
    LeaseGrant(pb::LeaseGrantResponse),
    LeaseRevoke(pb::LeaseRevokeResponse),
    LeaseCheckpoint(pb::LeaseCheckpointResponse),
    Alarm(pb::AlarmResponse),
    Auth(AuthReply),
    Fleet(FleetReply),
    /// The command has no answer of its own.
    Done,
}

/// The answer to a change of users or roles, or to a login.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the response message of the same name")]
pub enum AuthReply {
    Enable(pb::AuthEnableResponse),
    Disable(pb::AuthDisableResponse),
    UserAdd(pb::AuthUserAddResponse),
    UserDelete(pb::AuthUserDeleteResponse),
    UserChangePassword(pb::AuthUserChangePasswordResponse),
    UserGrantRole(pb::AuthUserGrantRoleResponse),
    UserRevokeRole(pb::AuthUserRevokeRoleResponse),
    RoleAdd(pb::AuthRoleAddResponse),
    RoleDelete(pb::AuthRoleDeleteResponse),
    RoleGrantPermission(pb::AuthRoleGrantPermissionResponse),
    RoleRevokePermission(pb::AuthRoleRevokePermissionResponse),
    /// Without the token: only who drew it knows it.
    Login(pb::AuthenticateResponse),
}

/// The answer to a change of the fleet's records.
#[derive(Clone, Debug, PartialEq)]
pub enum FleetReply {
    /// It is done.
    Done,
    /// A join token: the one that was asked for, or one of the same name and role that had been given before.
    Token {
        /// What its secret is drawn from.
        nonce: Bytes,
        /// When it runs out, in milliseconds since 1970.
        expires_ms: i64,
        /// It is the one that was asked for.
        fresh: bool,
    },
    /// A user's token: the one that was asked for, or the one that this user with these groups had before.
    AuthToken {
        /// What its secret is drawn from.
        nonce: Bytes,
        /// It is the one that was asked for.
        fresh: bool,
    },
    /// What the txn came to.
    Txn(pb::TxnResponse),
}

/// What happened to tokens, for those who keep them in memory on every member. In order of application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenChange {
    /// A user logged in.
    Given {
        /// Who.
        user: String,
        /// What the token is filed under; not the token itself.
        token_id: String,
    },
    /// All tokens of a user are void: it is gone, or its password is another.
    UserDropped {
        /// Whose.
        user: String,
    },
    /// All tokens are void: authentication was turned off.
    AllDropped,
}

/// What one committed log entry came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// One answer a command, in their order; empty for entries without commands. A refusal is replicated too:
    /// every member refuses alike.
    pub replies: Vec<Result<Reply, Refusal>>,
    /// The entry was skipped: its (incarnation, seq) had been applied before.
    pub duplicate: bool,
    /// To be kept atomically; its `revisions` are what watchers see.
    pub batch: WriteBatch,
    /// For the lessor.
    pub leases: Vec<LeaseChange>,
    /// For the keeper of tokens.
    pub tokens: Vec<TokenChange>,
}
