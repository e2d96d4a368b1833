//! Lines about users, roles and who asks.
//!
//! ```text
//!   as u             who asks from here on, admitted anew before each request; `nobody` is nobody
//!   as u rev=3       the same, admitted at auth revision 3
//! ```

use std::fmt::Write as _;

use crate::api::ids::LeaseId;
use crate::api::pb::authpb::Permission;
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::internal::auth_request::Ask;
use crate::api::pb::internal::command::Request;
use crate::api::pb::internal::{AuthLogin, AuthRequest, AuthUserAdd, AuthUserChangePassword};
use crate::api::refusal::Refusal;
use crate::state_machine::StateMachine;
use crate::state_machine::auth::Caller;

use super::parse::{Line, place_of};
use super::print;

/// Who asks.
#[derive(Clone, Default)]
pub(super) struct Asker {
    user: String,
    revision: Option<u64>,
}

impl Asker {
    pub(super) fn new(line: &Line<'_>) -> Asker {
        let name = line.args()[0];
        let user = if name == "nobody" { String::new() } else { name.to_owned() };
        Asker { user, revision: line.option("rev").map(|revision| revision.parse().unwrap()) }
    }

    /// As it is admitted now.
    pub(super) fn caller(&self, machine: &StateMachine) -> Caller {
        let admitted = self.revision.unwrap_or(machine.auth().revision());
        let auth_revision = if self.user.is_empty() { 0 } else { admitted };
        Caller { user: self.user.clone(), auth_revision }
    }
}

/// A change of users or roles, or a login; `None` if the verb is none.
pub(super) fn request(line: &Line<'_>) -> Option<Request> {
    let word =
        |place: usize| line.args().get(place).map_or("", |word| word.trim_matches('\'')).to_owned();
    let ask = match line.verb() {
        "auth-enable" => Ask::Enable(pb::AuthEnableRequest {}),
        "auth-disable" => Ask::Disable(pb::AuthDisableRequest {}),
        "user-add" => Ask::UserAdd(AuthUserAdd {
            name: word(0),
            no_password: line.flag("no-password"),
            password_hash: word(1),
        }),
        "user-delete" => Ask::UserDelete(pb::AuthUserDeleteRequest { name: word(0) }),
        "passwd" => Ask::UserChangePassword(AuthUserChangePassword {
            name: word(0),
            password_hash: word(1),
        }),
        "grant-role" => {
            Ask::UserGrantRole(pb::AuthUserGrantRoleRequest { user: word(0), role: word(1) })
        }
        "revoke-role" => {
            Ask::UserRevokeRole(pb::AuthUserRevokeRoleRequest { name: word(0), role: word(1) })
        }
        "role-add" => Ask::RoleAdd(pb::AuthRoleAddRequest { name: word(0) }),
        "role-delete" => Ask::RoleDelete(pb::AuthRoleDeleteRequest { role: word(0) }),
        "permit" => Ask::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest {
            name: word(0),
            perm: (word(1) != "nothing").then(|| Permission {
                perm_type: place_of(&word(1), &["read", "write", "readwrite"]),
                key: line.bytes(2),
                range_end: line.bytes(3),
            }),
        }),
        "forbid" => Ask::RoleRevokePermission(pb::AuthRoleRevokePermissionRequest {
            role: word(0),
            key: line.bytes(1),
            range_end: line.bytes(2),
        }),
        "login" => Ask::Login(AuthLogin {
            name: word(0),
            checked_revision: line.number("checked") as u64,
            token_id: word(1),
        }),
        _ => return None,
    };
    Some(Request::Auth(AuthRequest { ask: Some(ask) }))
}

/// What is answered without the log; `None` if the verb is nothing of that kind.
pub(super) fn read(machine: &StateMachine, caller: &Caller, line: &Line<'_>) -> Option<String> {
    let auth = machine.auth();
    let name = || line.args().first().map_or("", |word| word.trim_matches('\''));
    let answer = match line.verb() {
        "auth-status" => {
            let status = auth.status();
            let word = if status.enabled { "on" } else { "off" };
            Ok(format!("authentication is {word}, auth revision {}\n", status.auth_revision))
        }
        "user-get" => auth.user_get(caller, name()).map(|user| listed("roles", &user.roles)),
        "user-list" => auth.user_list(caller).map(|list| listed("users", &list.users)),
        "role-get" => auth.role_get(caller, name()).map(|role| permissions(&role.perm)),
        "role-list" => auth.role_list(caller).map(|list| listed("roles", &list.roles)),
        "may-read" => told(auth.check_read(caller, &line.bytes(0), &line.bytes(1))),
        "may-write" => told(auth.check_write(caller, &line.bytes(0), &line.bytes(1))),
        "may-renew" => told(machine.check_lease_renew(caller, LeaseId(line.arg(0)))),
        "may-list-leases" => told(machine.check_lease_leases(caller)),
        "may-ask-ttl" => {
            told(machine.check_lease_time_to_live(caller, LeaseId(line.arg(0)), false))
        }
        "may-ask-keys" => {
            told(machine.check_lease_time_to_live(caller, LeaseId(line.arg(0)), true))
        }
        _ => return None,
    };
    Some(answer.unwrap_or_else(|refusal| print::refused(&refusal)))
}

fn told(checked: Result<(), Refusal>) -> Result<String, Refusal> {
    checked.map(|()| "yes\n".to_owned())
}

fn listed(what: &str, names: &[String]) -> String {
    let names: String = names.iter().map(|name| format!(" {name}")).collect();
    format!("{what}:{names}\n")
}

fn permissions(permissions: &[Permission]) -> String {
    let mut out = "permissions:\n".to_owned();
    for permission in permissions {
        let kind = permission.perm_type().as_str_name().to_lowercase();
        let (key, end) = (&permission.key, &permission.range_end);
        let line = format!("  {kind} {} {}", key.escape_ascii(), end.escape_ascii());
        writeln!(out, "{}", line.trim_end()).unwrap();
    }
    out
}
