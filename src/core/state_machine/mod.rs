//! Floor 1, the decisions: a log entry in, replies, changes and lease news out.
//!
//! ```text
//!   log entry ──> StateMachine::apply ──> Applied { replies, batch, leases, tokens }
//!                   │         ▲
//!                   │         └── View: values that memory does not hold
//!                   ├─ mvcc        keys, revisions, values
//!                   ├─ txn         compares, branches
//!                   ├─ lease       which exist, which keys hang on them
//!                   ├─ alarm       which stand, what they refuse
//!                   ├─ auth        users, roles, who may do what
//!                   ├─ membership  who is a member
//!                   ├─ fleet       which nodes belong together, who may join them
//!                   └─ once        which entries were seen
//!   request ────> check            before the log: is it well formed
//!   range ──────> mvcc::range      after the log: rows in slices
//! ```
//!
//! **Invariant:** same state, same entry: same replies, same changes, same rolling hash, on every member and however
//! commands are packed into entries.

mod alarm;
mod apply;
pub mod auth;
mod changes;
pub mod check;
pub mod fleet;
pub mod lease;
mod membership;
pub mod mvcc;
mod once;
pub mod quota;
mod records;
pub mod snapshot;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod txn;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::api::ids::{LeaseId, LogId, MemberId, Revision};
use crate::api::pb::etcdserverpb::{AlarmMember, AlarmType};
use crate::api::pb::internal::command::Request;
use crate::api::pb::internal::{MemberAttributes, StoredMembership};
use crate::api::pb::mvccpb::KeyValue;

pub use self::check::Limits;
pub use self::lease::LeaseView;
pub use self::mvcc::compaction::{CompactionCursor, CompactionStep};
pub use self::mvcc::hash::{HashCache, HashKv, HashScope, KvHash};
pub use self::mvcc::pins::Pin;
pub use self::mvcc::range::{Cursor, RangeWork, Row, Slice, show_rows};
pub use self::snapshot::{FrozenMachine, Restorer, RevisionHeader};

use self::alarm::AlarmBook;
use self::auth::AuthState;
use self::fleet::FleetState;
use self::lease::LeaseBook;
use self::membership::MemberBook;
use self::mvcc::Mvcc;
use self::once::ProposerBook;

/// The newest cluster level this code understands. An entry that needs more stops the member.
pub const CLUSTER_LEVEL: u32 = if cfg!(feature = "next-level") { 5 } else { 4 };

/// Since this cluster level it is noted who was removed.
const LEVEL_OF_REMOVED_MEMBERS: u32 = 2;

/// When this cluster level is reached, it is noted who has left before.
const LEVEL_OF_EARLIER_MEMBERS: u32 = 3;

/// Since this cluster level who is a member again is not noted as removed.
const LEVEL_OF_RETURN: u32 = 3;

/// Since this cluster level a user without a name is somebody, if it was admitted.
const LEVEL_OF_UNNAMED_USERS: u32 = 3;

/// The lowest cluster level that understands a request: that of the entry it is packed in must be no lower.
pub fn level_of(request: &Request) -> u32 {
    match request {
        Request::Put(_)
        | Request::DeleteRange(_)
        | Request::Txn(_)
        | Request::Compaction(_)
        | Request::LeaseGrant(_)
        | Request::LeaseRevoke(_)
        | Request::LeaseExpiry(_)
        | Request::LeaseCheckpoint(_)
        | Request::Alarm(_)
        | Request::MemberAttributes(_)
        | Request::ClusterLevel(_) => 1,
        Request::Auth(_) => 2,
        Request::Fleet(_) => 4,
    }
}

/// One keyspace's replicated state.
#[derive(Debug)]
pub struct StateMachine {
    mvcc: Mvcc,
    leases: LeaseBook,
    alarms: AlarmBook,
    auth: AuthState,
    members: MemberBook,
    fleet: FleetState,
    proposers: ProposerBook,
    applied: Option<LogId>,
    rolling_hash: u64,
    cluster_level: u32,
    last_time_ms: i64,
}

impl StateMachine {
    /// An empty store: revision 1, nothing compacted. The newest values of live keys are kept in memory up to
    /// `value_budget_bytes`, their overhead included.
    pub fn new(value_budget_bytes: usize) -> Self {
        StateMachine {
            mvcc: Mvcc::new(value_budget_bytes),
            leases: LeaseBook::default(),
            alarms: AlarmBook::default(),
            auth: AuthState::default(),
            members: MemberBook::default(),
            fleet: FleetState::default(),
            proposers: ProposerBook::default(),
            applied: None,
            rolling_hash: 0,
            cluster_level: 0,
            last_time_ms: 0,
        }
    }

    /// The current revision: of the last change, 1 when there was none.
    pub fn revision(&self) -> i64 {
        self.mvcc.revision
    }

    /// Below it nothing can be read; -1 before the first compaction.
    pub fn compact_revision(&self) -> i64 {
        self.mvcc.compact_revision
    }

    /// The last entry applied.
    pub fn applied(&self) -> Option<LogId> {
        self.applied
    }

    /// A hash over every change so far, in order: equal on members at the same entry.
    pub fn rolling_hash(&self) -> u64 {
        self.rolling_hash
    }

    /// The level that all members have agreed on.
    pub fn cluster_level(&self) -> u32 {
        self.cluster_level
    }

    /// The proposer's clock in the last entry applied, in milliseconds since 1970.
    pub fn last_time_ms(&self) -> i64 {
        self.last_time_ms
    }

    /// Keys in the index, dead ones that compaction has not dropped yet included.
    pub fn key_count(&self) -> usize {
        self.mvcc.index.len()
    }

    /// Keys that are there now.
    pub fn live_key_count(&self) -> usize {
        self.mvcc.index.alive()
    }

    /// Keeps `kv`, the value written at `revision`, in memory if it is the newest of its key and the budget has room
    /// for it: after a restart, or when a read had to fetch it. Changes no answer. Hand in a value of its own, not a
    /// slice of a larger buffer, which it would keep in memory.
    pub fn warm(&mut self, revision: Revision, kv: &Arc<KeyValue>) -> bool {
        self.mvcc.index.warm(revision, kv)
    }

    /// Bytes of values kept in memory, their overhead included.
    pub fn hot_bytes(&self) -> usize {
        self.mvcc.index.hot_bytes()
    }

    /// The lease, if it exists.
    pub fn lease(&self, id: LeaseId) -> Option<LeaseView> {
        self.leases.view(id)
    }

    /// Every lease, by id.
    pub fn leases(&self) -> impl Iterator<Item = LeaseId> {
        self.leases.ids()
    }

    /// The keys that hang on a lease, in order.
    pub fn lease_keys(&self, id: LeaseId) -> Vec<Bytes> {
        self.leases.keys(id)
    }

    /// The alarms that stand, by type and member; with a type, those of it.
    pub fn alarms(&self, alarm: AlarmType) -> Vec<AlarmMember> {
        self.alarms.list(alarm as i32)
    }

    /// Users, roles, and who may do what.
    pub fn auth(&self) -> &AuthState {
        &self.auth
    }

    /// The nodes that belong together, and who may join them.
    pub fn fleet(&self) -> &FleetState {
        &self.fleet
    }

    /// The membership in force.
    pub fn membership(&self) -> &StoredMembership {
        self.members.stored()
    }

    /// What a member told about itself.
    pub fn member_attributes(&self, id: MemberId) -> Option<&MemberAttributes> {
        self.members.attributes(id)
    }

    /// Who was a member once and is none any more.
    pub fn removed_members(&self) -> &BTreeSet<MemberId> {
        self.members.removed()
    }

    /// The (incarnation, seq) of the last entry applied that `id` proposed.
    pub fn last_proposal(&self, id: MemberId) -> Option<(u64, u64)> {
        self.proposers.last(id)
    }
}
