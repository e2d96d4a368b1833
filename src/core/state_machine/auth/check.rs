//! May this caller do that? Asked of every command before it is applied, and of local reads.
//!
//! | asked | what it takes (while authentication is on) |
//! |---|---|
//! | Put | write on the key and on every key of its lease; read too for `prev_kv` |
//! | DeleteRange | write on the range; read too for `prev_kv` |
//! | Txn | read for every compare and Range, and the above for what it writes, of both branches and nested ones |
//! | LeaseGrant | somebody |
//! | LeaseRevoke | somebody, and write on every key of the lease |
//! | changes of users and roles | the role `root` |
//! | Compaction, Alarm but GET | the role `root`, if somebody asks: members ask these themselves |
//! | a login, what members tell each other, changes of the fleet's records | nothing |
//!
//! A lease's keys count because whoever may hang a key on a lease may also end the lease, and with it the keys of
//! others. Both branches of a txn count because which of them is taken tells something about the keys compared.

use crate::api::ids::LeaseId;
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::alarm_request::AlarmAction;
use crate::api::pb::etcdserverpb::request_op::Request as Op;
use crate::api::pb::internal::auth_request::Ask;
use crate::api::pb::internal::command::Request;
use crate::api::refusal::{AuthRefusal, Refusal};

use super::permitted::{Permitted, Ranges};
use super::{AuthState, Caller};
use crate::state_machine::lease::LeaseBook;
use crate::state_machine::{LEVEL_OF_UNNAMED_USERS, StateMachine};

impl AuthState {
    /// Reading `key`, or the range to `range_end` as a request means it: Range, compare, watch. A watch's empty key
    /// has to be `\0` by now.
    pub fn check_read(&self, caller: &Caller, key: &[u8], range_end: &[u8]) -> Result<(), Refusal> {
        self.check_keys(caller, key, range_end, |permitted| &permitted.read)
    }

    /// Writing or deleting them.
    pub fn check_write(
        &self,
        caller: &Caller,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), Refusal> {
        self.check_keys(caller, key, range_end, |permitted| &permitted.write)
    }

    /// What takes the role `root`. A caller that was admitted at an old auth revision passes, as in etcd: it is asked
    /// what it is now.
    pub fn check_admin(&self, caller: &Caller) -> Result<(), Refusal> {
        if !self.enabled {
            return Ok(());
        }
        if caller.user.is_empty() {
            return Err(AuthRefusal::UserEmpty.into());
        }
        let user = self.users.get(&caller.user).ok_or(AuthRefusal::UserNotFound)?;
        if user.is_root() { Ok(()) } else { Err(AuthRefusal::PermissionDenied.into()) }
    }

    /// What anybody may do who says who it is. A client's certificate without a common name says that it is a user whom
    /// nobody knows.
    pub fn check_somebody(&self, caller: &Caller) -> Result<(), Refusal> {
        if self.enabled && caller.is_nobody() {
            return Err(AuthRefusal::UserEmpty.into());
        }
        Ok(())
    }

    /// The same of a command that is applied at cluster level `level`: at a lower one members ask for a name.
    fn check_somebody_at(&self, level: u32, caller: &Caller) -> Result<(), Refusal> {
        if self.enabled && level < LEVEL_OF_UNNAMED_USERS && caller.user.is_empty() {
            return Err(AuthRefusal::UserEmpty.into());
        }
        self.check_somebody(caller)
    }

    /// After a read that took a while: refused if users or roles have changed since the caller was admitted. Nobody in
    /// particular reads only what nobody's permission was asked for.
    pub fn check_unchanged(&self, caller: &Caller) -> Result<(), Refusal> {
        if caller.auth_revision != 0 && caller.auth_revision != self.revision {
            return Err(AuthRefusal::OldRevision.into());
        }
        Ok(())
    }

    fn check_keys(
        &self,
        caller: &Caller,
        key: &[u8],
        range_end: &[u8],
        of: impl FnOnce(&Permitted) -> &Ranges,
    ) -> Result<(), Refusal> {
        if !self.enabled {
            return Ok(());
        }
        if caller.auth_revision == 0 {
            return Err(AuthRefusal::UserEmpty.into());
        }
        if caller.auth_revision < self.revision {
            return Err(AuthRefusal::OldRevision.into());
        }
        let user = self.users.get(&caller.user).ok_or(AuthRefusal::PermissionDenied)?;
        if user.is_root() || of(&user.permitted).cover(key, range_end) {
            Ok(())
        } else {
            Err(AuthRefusal::PermissionDenied.into())
        }
    }

    fn check_put(
        &self,
        caller: &Caller,
        put: &pb::PutRequest,
        leases: &LeaseBook,
    ) -> Result<(), Refusal> {
        self.check_write(caller, &put.key, b"")?;
        self.check_lease_write(caller, LeaseId(put.lease), leases)?;
        if put.prev_kv {
            self.check_read(caller, &put.key, b"")?;
        }
        Ok(())
    }

    fn check_delete(
        &self,
        caller: &Caller,
        delete: &pb::DeleteRangeRequest,
    ) -> Result<(), Refusal> {
        self.check_write(caller, &delete.key, &delete.range_end)?;
        if delete.prev_kv {
            self.check_read(caller, &delete.key, &delete.range_end)?;
        }
        Ok(())
    }

    fn check_txn(
        &self,
        caller: &Caller,
        txn: &pb::TxnRequest,
        leases: &LeaseBook,
    ) -> Result<(), Refusal> {
        for compare in &txn.compare {
            self.check_read(caller, &compare.key, &compare.range_end)?;
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match &op.request {
                Some(Op::RequestRange(range)) => {
                    self.check_read(caller, &range.key, &range.range_end)?;
                }
                Some(Op::RequestPut(put)) => self.check_put(caller, put, leases)?,
                Some(Op::RequestDeleteRange(delete)) => self.check_delete(caller, delete)?,
                Some(Op::RequestTxn(txn)) => self.check_txn(caller, txn, leases)?,
                None => {}
            }
        }
        Ok(())
    }

    /// What ending a lease takes, and hanging a key on it: write on every key that hangs on it. A lease that does not
    /// exist has none.
    fn check_lease_write(
        &self,
        caller: &Caller,
        id: LeaseId,
        leases: &LeaseBook,
    ) -> Result<(), Refusal> {
        if self.check_admin(caller).is_ok() {
            return Ok(());
        }
        leases.each_key(id).try_for_each(|key| self.check_write(caller, key, b""))
    }

    fn check_lease_read(
        &self,
        caller: &Caller,
        id: LeaseId,
        leases: &LeaseBook,
    ) -> Result<(), Refusal> {
        if self.check_admin(caller).is_ok() {
            return Ok(());
        }
        leases.each_key(id).try_for_each(|key| self.check_read(caller, key, b""))
    }

    /// Whether a command of the log may be applied at cluster level `level`.
    pub(crate) fn check_command(
        &self,
        caller: &Caller,
        request: &Request,
        leases: &LeaseBook,
        level: u32,
    ) -> Result<(), Refusal> {
        match request {
            Request::Put(put) => self.check_put(caller, put, leases),
            Request::DeleteRange(delete) => self.check_delete(caller, delete),
            Request::Txn(txn) => self.check_txn(caller, txn, leases),
            Request::LeaseGrant(_) => self.check_somebody_at(level, caller),
            Request::LeaseRevoke(revoke) => {
                self.check_somebody_at(level, caller)?;
                self.check_lease_write(caller, LeaseId(revoke.id), leases)
            }
            Request::Auth(auth) => match &auth.ask {
                Some(Ask::Login(_)) => Ok(()),
                Some(
                    Ask::Enable(_)
                    | Ask::Disable(_)
                    | Ask::UserAdd(_)
                    | Ask::UserDelete(_)
                    | Ask::UserChangePassword(_)
                    | Ask::UserGrantRole(_)
                    | Ask::UserRevokeRole(_)
                    | Ask::RoleAdd(_)
                    | Ask::RoleDelete(_)
                    | Ask::RoleGrantPermission(_)
                    | Ask::RoleRevokePermission(_),
                )
                | None => self.check_admin(caller),
            },
            Request::Alarm(alarm) if alarm.action == AlarmAction::Get as i32 => Ok(()),
            Request::Compaction(_) | Request::Alarm(_) if caller.user.is_empty() => Ok(()),
            Request::Compaction(_) | Request::Alarm(_) => self.check_admin(caller),
            Request::LeaseExpiry(_)
            | Request::LeaseCheckpoint(_)
            | Request::MemberAttributes(_)
            | Request::ClusterLevel(_)
            | Request::Fleet(_) => Ok(()),
        }
    }
}

/// What the floors above ask before they read without the log.
impl StateMachine {
    /// Whether a read-only txn may be answered.
    pub fn check_read_only(&self, caller: &Caller, txn: &pb::TxnRequest) -> Result<(), Refusal> {
        self.auth.check_txn(caller, txn, &self.leases)
    }

    /// Whether a lease may be renewed: who keeps it alive keeps its keys.
    pub fn check_lease_renew(&self, caller: &Caller, id: LeaseId) -> Result<(), Refusal> {
        self.auth.check_somebody(caller)?;
        self.auth.check_lease_write(caller, id, &self.leases)
    }

    /// Whether a lease's time to live may be told; `keys`: and what hangs on it.
    pub fn check_lease_time_to_live(
        &self,
        caller: &Caller,
        id: LeaseId,
        keys: bool,
    ) -> Result<(), Refusal> {
        self.auth.check_somebody(caller)?;
        if keys { self.auth.check_lease_read(caller, id, &self.leases) } else { Ok(()) }
    }

    /// Whether all leases may be listed: it takes read on every key that hangs on any.
    pub fn check_lease_leases(&self, caller: &Caller) -> Result<(), Refusal> {
        self.auth.check_somebody(caller)?;
        if self.auth.check_admin(caller).is_ok() {
            return Ok(());
        }
        self.leases.ids().try_for_each(|id| self.auth.check_lease_read(caller, id, &self.leases))
    }
}
