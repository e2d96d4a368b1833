//! etcd's users, roles and permissions once more, kept as lists and asked from their start each time.
//!
//! Whether a range is permitted is found here without merging anything: the union of half-open ranges covers
//! `[k, e)` if it holds `k` and every granted end between `k` and `e`.

use crate::api::pb::authpb::Permission;
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::request_op::Request as Op;
use crate::api::pb::internal::auth_request::Ask;
use crate::api::pb::internal::command::Request;
use crate::api::refusal::AuthRefusal as R;
use crate::api::reply::AuthReply;

/// Users and roles by name.
#[derive(Clone, Debug, Default)]
pub(super) struct AuthModel {
    enabled: bool,
    changes: u64,
    users: Vec<User>,
    roles: Vec<Role>,
}

#[derive(Clone, Debug)]
struct User {
    name: String,
    no_password: bool,
    roles: Vec<String>,
}

#[derive(Clone, Debug)]
struct Role {
    name: String,
    permissions: Vec<Permission>,
}

/// Something that a request takes.
enum Need<'r> {
    Somebody,
    Admin,
    Read(&'r [u8], &'r [u8]),
    Write(&'r [u8], &'r [u8]),
    LeaseKeys(i64),
}

/// Who asks: a name and the auth revision at which it was admitted.
pub(super) type Asker<'r> = (&'r str, u64);

impl AuthModel {
    pub(super) fn revision(&self) -> u64 {
        1 + self.changes
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether `asker` may have `request` applied; `keys_of` lists what hangs on a lease.
    pub(super) fn permit(
        &self,
        asker: Asker<'_>,
        request: &Request,
        keys_of: &dyn Fn(i64) -> Vec<Vec<u8>>,
    ) -> Result<(), R> {
        let mut needs = Vec::new();
        match request {
            Request::Put(put) => put_needs(put, &mut needs),
            Request::DeleteRange(delete) => delete_needs(delete, &mut needs),
            Request::Txn(txn) => txn_needs(txn, &mut needs),
            Request::LeaseGrant(_) => needs.push(Need::Somebody),
            Request::LeaseRevoke(revoke) => {
                needs.extend([Need::Somebody, Need::LeaseKeys(revoke.id)]);
            }
            Request::Auth(auth) if matches!(auth.ask, Some(Ask::Login(_))) => {}
            Request::Auth(_) => needs.push(Need::Admin),
            Request::Compaction(_) if !asker.0.is_empty() => needs.push(Need::Admin),
            Request::Alarm(alarm) if !asker.0.is_empty() && alarm.action != 0 => {
                needs.push(Need::Admin);
            }
            Request::Compaction(_)
            | Request::Alarm(_)
            | Request::LeaseExpiry(_)
            | Request::LeaseCheckpoint(_)
            | Request::MemberAttributes(_)
            | Request::ClusterLevel(_)
            | Request::Fleet(_) => {}
        }
        needs.iter().try_for_each(|need| self.has(asker, need, keys_of))
    }

    fn has(
        &self,
        asker: Asker<'_>,
        need: &Need<'_>,
        keys_of: &dyn Fn(i64) -> Vec<Vec<u8>>,
    ) -> Result<(), R> {
        if !self.enabled {
            return Ok(());
        }
        let user = self.users.iter().find(|user| user.name == asker.0);
        let is_root = user.is_some_and(|user| user.roles.iter().any(|role| role == "root"));
        match need {
            Need::Somebody if asker == ("", 0) => Err(R::UserEmpty),
            Need::Somebody => Ok(()),
            Need::Admin if asker.0.is_empty() => Err(R::UserEmpty),
            Need::Admin if user.is_none() => Err(R::UserNotFound),
            Need::Admin if is_root => Ok(()),
            Need::Admin => Err(R::PermissionDenied),
            Need::LeaseKeys(_) if is_root => Ok(()),
            Need::LeaseKeys(id) => keys_of(*id)
                .iter()
                .try_for_each(|key| self.has(asker, &Need::Write(key, b""), keys_of)),
            Need::Read(..) | Need::Write(..) if asker.1 == 0 => Err(R::UserEmpty),
            Need::Read(..) | Need::Write(..) if asker.1 < self.revision() => Err(R::OldRevision),
            Need::Read(..) | Need::Write(..) if is_root => Ok(()),
            Need::Read(key, end) if self.covers(user, key, end, &[0, 2]) => Ok(()),
            Need::Write(key, end) if self.covers(user, key, end, &[1, 2]) => Ok(()),
            Need::Read(..) | Need::Write(..) => Err(R::PermissionDenied),
        }
    }

    fn covers(&self, user: Option<&User>, key: &[u8], end: &[u8], kinds: &[i32]) -> bool {
        let Some(user) = user else {
            return false;
        };
        let roles = self.roles.iter().filter(|role| user.roles.contains(&role.name));
        let granted: Vec<&Permission> = roles
            .flat_map(|role| &role.permissions)
            .filter(|permission| kinds.contains(&permission.perm_type))
            .collect();
        let holds = |point: &[u8]| {
            granted.iter().any(|permission| match permission.range_end.as_ref() {
                b"" => permission.key == point,
                b"\0" => permission.key <= point,
                end => permission.key <= point && point < end,
            })
        };
        let mut ends =
            granted.iter().filter_map(|permission| match permission.range_end.as_ref() {
                b"" => Some([&permission.key[..], b"\0"].concat()),
                b"\0" => None,
                end => Some(end.to_vec()),
            });
        let within = |point: &[u8]| point > key && (end == b"\0" || point < end);
        holds(key) && (end.is_empty() || ends.all(|point| !within(&point) || holds(&point)))
    }

    fn user(&mut self, name: &str) -> Result<&mut User, R> {
        self.users.iter_mut().find(|user| user.name == name).ok_or(R::UserNotFound)
    }

    fn role(&mut self, name: &str) -> Result<&mut Role, R> {
        self.roles.iter_mut().find(|role| role.name == name).ok_or(R::RoleNotFound)
    }

    /// Decides a change or a login, as etcd's auth store would.
    pub(super) fn apply(
        &mut self,
        ask: &Ask,
        header: Option<pb::ResponseHeader>,
    ) -> Result<AuthReply, R> {
        let before = self.clone();
        match self.change(ask, header) {
            Ok(reply) => Ok(reply),
            Err(refusal) => {
                *self = before;
                Err(refusal)
            }
        }
    }

    fn change(&mut self, ask: &Ask, header: Option<pb::ResponseHeader>) -> Result<AuthReply, R> {
        let enabled = self.enabled;
        self.changes += 1;
        Ok(match ask {
            Ask::Enable(_) => {
                self.changes -= 1;
                if !enabled {
                    let root = self.user("root").map_err(|_| R::RootUserNotFound)?;
                    refuse(!root.roles.contains(&"root".to_owned()), R::RootRoleNotGranted)?;
                }
                self.enabled = true;
                AuthReply::Enable(pb::AuthEnableResponse { header })
            }
            Ask::Disable(_) => {
                self.changes -= u64::from(!enabled);
                self.enabled = false;
                AuthReply::Disable(pb::AuthDisableResponse { header })
            }
            Ask::UserAdd(add) => {
                self.user_add(&add.name, add.no_password)?;
                AuthReply::UserAdd(pb::AuthUserAddResponse { header })
            }
            Ask::UserDelete(delete) => {
                refuse(enabled && delete.name == "root", R::InvalidManagement)?;
                self.user(&delete.name)?;
                self.users.retain(|user| user.name != delete.name);
                AuthReply::UserDelete(pb::AuthUserDeleteResponse { header })
            }
            Ask::UserChangePassword(change) => {
                self.user(&change.name)?;
                AuthReply::UserChangePassword(pb::AuthUserChangePasswordResponse { header })
            }
            Ask::UserGrantRole(grant) => {
                self.grant_role(&grant.user, &grant.role)?;
                AuthReply::UserGrantRole(pb::AuthUserGrantRoleResponse { header })
            }
            Ask::UserRevokeRole(revoke) => {
                let is_root = revoke.name == "root" && revoke.role == "root";
                refuse(enabled && is_root, R::InvalidManagement)?;
                let user = self.user(&revoke.name)?;
                refuse(!user.roles.contains(&revoke.role), R::RoleNotGranted)?;
                user.roles.retain(|role| *role != revoke.role);
                AuthReply::UserRevokeRole(pb::AuthUserRevokeRoleResponse { header })
            }
            Ask::RoleAdd(add) => {
                self.role_add(&add.name)?;
                AuthReply::RoleAdd(pb::AuthRoleAddResponse { header })
            }
            Ask::RoleDelete(delete) => {
                self.role_delete(&delete.role)?;
                AuthReply::RoleDelete(pb::AuthRoleDeleteResponse { header })
            }
            Ask::RoleGrantPermission(grant) => {
                self.grant(grant)?;
                AuthReply::RoleGrantPermission(pb::AuthRoleGrantPermissionResponse { header })
            }
            Ask::RoleRevokePermission(revoke) => {
                self.revoke(revoke)?;
                AuthReply::RoleRevokePermission(pb::AuthRoleRevokePermissionResponse { header })
            }
            Ask::Login(login) => {
                self.changes -= 1;
                refuse(!enabled, R::NotEnabled)?;
                let user = self.user(&login.name).map_err(|_| R::Failed)?;
                refuse(user.no_password, R::Failed)?;
                refuse(login.checked_revision != self.revision(), R::OldRevision)?;
                AuthReply::Login(pb::AuthenticateResponse { header, token: String::new() })
            }
        })
    }

    fn user_add(&mut self, name: &str, no_password: bool) -> Result<(), R> {
        refuse(name.is_empty(), R::UserEmpty)?;
        refuse(self.user(name).is_ok(), R::UserExists)?;
        self.users.push(User { name: name.to_owned(), no_password, roles: Vec::new() });
        Ok(())
    }

    fn grant_role(&mut self, name: &str, role: &str) -> Result<(), R> {
        self.user(name)?;
        refuse(role != "root" && self.role(role).is_err(), R::RoleNotFound)?;
        let user = self.user(name)?;
        if user.roles.iter().any(|one| one == role) {
            self.changes -= 1;
        } else {
            user.roles.push(role.to_owned());
        }
        Ok(())
    }

    fn role_add(&mut self, name: &str) -> Result<(), R> {
        refuse(name.is_empty(), R::RoleEmpty)?;
        refuse(self.role(name).is_ok(), R::RoleExists)?;
        self.roles.push(Role { name: name.to_owned(), permissions: Vec::new() });
        Ok(())
    }

    fn role_delete(&mut self, name: &str) -> Result<(), R> {
        refuse(self.enabled && name == "root", R::InvalidManagement)?;
        self.role(name)?;
        self.roles.retain(|role| role.name != name);
        for user in &mut self.users {
            user.roles.retain(|role| role != name);
        }
        Ok(())
    }

    fn grant(&mut self, grant: &pb::AuthRoleGrantPermissionRequest) -> Result<(), R> {
        let given = grant.perm.clone().ok_or(R::PermissionNotGiven)?;
        let (key, end) = (&given.key, &given.range_end);
        let open = end.is_empty() || end.as_ref() == b"\0";
        refuse(key.is_empty() || !open && end <= key, R::InvalidManagement)?;
        let role = self.role(&grant.name)?;
        role.permissions.retain(|one| (&one.key, &one.range_end) != (key, end));
        role.permissions.push(given);
        Ok(())
    }

    fn revoke(&mut self, revoke: &pb::AuthRoleRevokePermissionRequest) -> Result<(), R> {
        let role = self.role(&revoke.role)?;
        let before = role.permissions.len();
        let range = (&revoke.key, &revoke.range_end);
        role.permissions.retain(|one| (&one.key, &one.range_end) != range);
        refuse(role.permissions.len() == before, R::PermissionNotGranted)
    }
}

fn refuse(when: bool, refusal: R) -> Result<(), R> {
    if when { Err(refusal) } else { Ok(()) }
}

fn put_needs<'r>(put: &'r pb::PutRequest, needs: &mut Vec<Need<'r>>) {
    needs.extend([Need::Write(&put.key, b""), Need::LeaseKeys(put.lease)]);
    if put.prev_kv {
        needs.push(Need::Read(&put.key, b""));
    }
}

fn delete_needs<'r>(delete: &'r pb::DeleteRangeRequest, needs: &mut Vec<Need<'r>>) {
    needs.push(Need::Write(&delete.key, &delete.range_end));
    if delete.prev_kv {
        needs.push(Need::Read(&delete.key, &delete.range_end));
    }
}

fn txn_needs<'r>(txn: &'r pb::TxnRequest, needs: &mut Vec<Need<'r>>) {
    let compares = txn.compare.iter();
    needs.extend(compares.map(|compare| Need::Read(&compare.key, &compare.range_end)));
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Op::RequestRange(range)) => needs.push(Need::Read(&range.key, &range.range_end)),
            Some(Op::RequestPut(put)) => put_needs(put, needs),
            Some(Op::RequestDeleteRange(delete)) => delete_needs(delete, needs),
            Some(Op::RequestTxn(txn)) => txn_needs(txn, needs),
            None => {}
        }
    }
}
