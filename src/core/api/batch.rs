//! What applying changed, as data: kept by storage in one atomic step, shown to watchers in revision order.

use std::sync::Arc;

use bytes::Bytes;

use super::ids::{LeaseId, LogId, Revision};
use super::pb::mvccpb::KeyValue;

/// One revision of one key, as it enters history and as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionRecord {
    /// Where it stands in history.
    pub revision: Revision,
    /// The key was deleted; then `kv` carries only `key` and `mod_revision`.
    pub tombstone: bool,
    /// The key-value, shared with the index and with every watcher.
    pub kv: Arc<KeyValue>,
    /// Where `prev_kv` of the event is read: the key's revision before this main revision, if it was alive then;
    /// never for a put that creates the key. Not stored: `None` in records that come from [`super::view::View::scan`].
    pub prev: Option<Revision>,
}

/// A kind of record beside the history; the prefix byte is its place on disk. One row each, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Space {
    /// Key: empty. Value: `MachineRecord`.
    Machine = 0x10,
    /// Key: lease id, 8 bytes big-endian. Value: `LeaseRecord`.
    Lease = 0x11,
    /// Key: member id, alarm type (8 + 4 bytes big-endian). Value: `AlarmRecord`.
    Alarm = 0x12,
    /// Key: member id, 8 bytes big-endian. Value: `ProposerRecord`.
    Proposer = 0x13,
    /// Key: empty. Value: `StoredMembership`.
    Membership = 0x14,
    /// Key: member id, 8 bytes big-endian. Value: `MemberAttributes`.
    MemberAttributes = 0x15,
    /// Key: member id, 8 bytes big-endian. Value: `RemovedMember`.
    RemovedMember = 0x1f,
    /// Key: empty. Value: `AuthRecord`.
    Auth = 0x60,
    /// Key: length of the name, 4 bytes big-endian, and the name. Value: `authpb.User`.
    User = 0x61,
    /// Key: length of the name, 4 bytes big-endian, and the name. Value: `authpb.Role`.
    Role = 0x62,
    /// Key: empty. Value: `FleetRecord`.
    Fleet = 0x70,
    /// Key: member id, 8 bytes big-endian. Value: `FleetNode`, its `record` empty.
    FleetNode = 0x71,
    /// Key: the SHA-256 of the secret, 32 bytes. Value: `FleetTokenIssue`.
    JoinToken = 0x72,
    /// Key: the SHA-256 of the secret, 32 bytes. Value: `FleetAuthTokenIssue`.
    AuthToken = 0x73,
}

impl Space {
    /// Every space, in prefix order.
    pub const ALL: [Space; 14] = [
        Space::Machine,
        Space::Lease,
        Space::Alarm,
        Space::Proposer,
        Space::Membership,
        Space::MemberAttributes,
        Space::RemovedMember,
        Space::Auth,
        Space::User,
        Space::Role,
        Space::Fleet,
        Space::FleetNode,
        Space::JoinToken,
        Space::AuthToken,
    ];

    /// The space of a prefix byte.
    pub fn from_prefix(prefix: u8) -> Option<Space> {
        Space::ALL.into_iter().find(|space| *space as u8 == prefix)
    }
}

/// One record written (`Some`) or removed (`None`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordChange {
    /// Which kind.
    pub space: Space,
    /// Its key within the space.
    pub key: Bytes,
    /// Its protobuf value, or `None` when removed.
    pub value: Option<Bytes>,
}

/// Everything one log entry changed. Kept whole or not at all, together with `applied`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// The entry's place in the log.
    pub applied: LogId,
    /// Revisions appended to history, ascending.
    pub revisions: Vec<RevisionRecord>,
    /// Records changed; at most one change a key. `Space::Machine` is always among them.
    pub records: Vec<RecordChange>,
    /// The keyspace's current revision after this batch.
    pub revision: i64,
    /// Set when this batch moved the compact revision: physical work may follow.
    pub compacted_to: Option<i64>,
}

/// What happened to a lease, for the lessor of whoever leads. In order of application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// A lease began.
    Granted {
        /// Which.
        id: LeaseId,
        /// Its time to live in seconds.
        ttl: i64,
    },
    /// A lease ended, by revoke or expiry.
    Ended {
        /// Which.
        id: LeaseId,
    },
    /// The leader told how much was left.
    Checkpointed {
        /// Which.
        id: LeaseId,
        /// Seconds left; 0 means full.
        remaining_ttl: i64,
    },
}
