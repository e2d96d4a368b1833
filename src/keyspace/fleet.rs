//! The fleet's records: changed and read by this member itself, never by one of its clients.
//!
//! What clients see of the fleet are keys; what is here beside them is for the floor above alone.

use quorate_core::api::ids::LeaseId;
use quorate_core::api::pb::internal::FleetRequest;
use quorate_core::api::pb::internal::command::Request;
use quorate_core::api::pb::internal::fleet_request::Ask;
use quorate_core::api::refusal::{AuthRefusal, Refusal};
use quorate_core::api::reply::{FleetReply, Reply};
use quorate_core::state_machine::check::check_txn;
use quorate_core::state_machine::fleet::FleetState;

use super::auth::Asker;
use super::calls::unexpected;
use super::{Keyspace, KeyspaceError};

impl Keyspace {
    /// Puts a change of the fleet's records into the log and waits for its answer. On a client's handle it is refused
    /// as not permitted. An error that is no refusal leaves open whether it is done.
    pub async fn fleet_change(&self, request: FleetRequest) -> Result<FleetReply, KeyspaceError> {
        self.require_member()?;
        if let Some(Ask::Txn(txn)) = &request.ask {
            check_txn(txn, self.limits())?;
        }
        match self.write(Request::Fleet(request)).await? {
            Reply::Fleet(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads the fleet's records after a read round: all that was answered before this was asked is in them. On a
    /// client's handle it is refused as not permitted.
    pub async fn fleet<T>(&self, read: impl FnOnce(&FleetState) -> T) -> Result<T, KeyspaceError> {
        self.require_member()?;
        self.0.reader.linearize().await?;
        Ok(read(self.0.state.machine.read().fleet()))
    }

    /// Reads the fleet's records as applied here. Not for a client's handle.
    pub fn fleet_now<T>(&self, read: impl FnOnce(&FleetState) -> T) -> T {
        debug_assert!(matches!(self.1, Asker::Member), "a client's handle tells nothing of this");
        read(self.0.state.machine.read().fleet())
    }

    fn require_member(&self) -> Result<(), KeyspaceError> {
        match self.1 {
            Asker::Member => Ok(()),
            Asker::Nobody | Asker::Client(_) => {
                Err(Refusal::Auth(AuthRefusal::PermissionDenied).into())
            }
        }
    }

    /// A client does not renew a lease that holds keys of the fleet's; the member itself may.
    pub(super) fn check_renewable(&self, id: LeaseId) -> Result<(), KeyspaceError> {
        match self.1 {
            Asker::Member => Ok(()),
            Asker::Nobody | Asker::Client(_) => {
                Ok(self.0.state.machine.read().check_lease_is_free(id)?)
            }
        }
    }
}
