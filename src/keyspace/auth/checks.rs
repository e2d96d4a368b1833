//! What a caller may do that never enters the log: local reads, leases' lives, members and maintenance.

use quorate_core::api::pb::internal::Command;
use quorate_core::api::pb::internal::command::Request;
use quorate_core::api::refusal::{AuthRefusal, Refusal};
use quorate_core::state_machine::StateMachine;
use quorate_core::state_machine::auth::Caller;

use super::authority::refused;
use super::gate::Asker;
use crate::keyspace::write::Outcome;
use crate::keyspace::{Keyspace, KeyspaceError};

/// A check that was passed. What was read under it may be told if it [still holds](Keyspace::still_permitted).
#[derive(Debug)]
#[must_use = "what is read may only be told if the permit still holds"]
pub(crate) struct Permit(Option<Passed>);

#[derive(Debug)]
struct Passed {
    caller: Caller,
    /// The auth revision that the check was made at. A signed token's own may be older: not every check looks at it.
    checked_at: u64,
}

impl Permit {
    /// Nothing was asked: there is nothing that could cease to hold.
    pub(in crate::keyspace) fn is_free(&self) -> bool {
        self.0.is_none()
    }
}

impl Keyspace {
    /// The same keyspace for somebody else.
    pub(super) fn speaking_for(&self, asker: Asker) -> Keyspace {
        Keyspace(self.0.clone(), asker)
    }

    /// Who asks, as of now; nobody while auth is off.
    pub(super) async fn caller(&self) -> Result<Caller, KeyspaceError> {
        let caller = self.0.authority.caller(&self.0.state, &self.1).await?;
        Ok(caller.unwrap_or_default())
    }

    /// Puts a request into the log, with who asks for it.
    pub(in crate::keyspace) async fn write(&self, request: Request) -> Outcome {
        self.until_understood(&request).await?;
        let Caller { user, auth_revision } = self.caller().await?;
        self.0.writer.write(Command { user, auth_revision, request: Some(request) }).await
    }

    /// Asks the state as applied here. Passes at once while auth is off, and for this member itself.
    pub(in crate::keyspace) async fn permit(
        &self,
        check: impl FnOnce(&StateMachine, &Caller) -> Result<(), Refusal>,
    ) -> Result<Permit, KeyspaceError> {
        if matches!(self.1, Asker::Member) || !self.0.authority.is_on() {
            return Ok(Permit(None));
        }
        let caller = self.caller().await?;
        let machine = self.0.state.machine.read();
        check(&machine, &caller)?;
        let checked_at = machine.auth().revision();
        Ok(Permit(Some(Passed { caller, checked_at })))
    }

    /// Users and roles are those that the caller was admitted under: what was read meanwhile may be told.
    pub(in crate::keyspace) fn still_permitted(
        &self,
        permit: &Permit,
    ) -> Result<(), KeyspaceError> {
        if let Permit(Some(Passed { caller, .. })) = permit {
            self.0.state.machine.read().auth().check_unchanged(caller)?;
        }
        Ok(())
    }

    /// Users and roles are those that the check saw, however old the caller's token: what etcd asks where it reads
    /// leases (`server/etcdserver/v3_server.go`).
    pub(in crate::keyspace) fn unchanged_since(
        &self,
        permit: &Permit,
    ) -> Result<(), KeyspaceError> {
        match permit {
            Permit(Some(passed))
                if self.0.state.machine.read().auth().revision() != passed.checked_at =>
            {
                Err(refused(AuthRefusal::OldRevision))
            }
            Permit(_) => Ok(()),
        }
    }

    /// Passes administrators: who has the role `root`.
    pub async fn require_admin(&self) -> Result<(), KeyspaceError> {
        let _seen = self.permit(|machine, caller| machine.auth().check_admin(caller)).await?;
        Ok(())
    }

    /// Passes whoever says who it is.
    pub async fn require_user(&self) -> Result<(), KeyspaceError> {
        let _seen = self.permit(|machine, caller| machine.auth().check_somebody(caller)).await?;
        Ok(())
    }

    /// Passes who may read what a watch asks for: `key` to `range_end` as the request has them. Asked once, when the
    /// watch begins, as in etcd.
    pub async fn require_watchable(
        &self,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), KeyspaceError> {
        // An empty key is the first one.
        let key: &[u8] = if key.is_empty() { b"\0" } else { key };
        let read = |machine: &StateMachine, caller: &Caller| {
            machine.auth().check_read(caller, key, range_end)
        };
        let _seen = self.permit(read).await?;
        Ok(())
    }
}
