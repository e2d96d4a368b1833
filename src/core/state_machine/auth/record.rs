//! Users and roles as records beside history: etcd's own messages, and one record for the rest.

use bytes::Bytes;
use prost::Message;

use crate::api::batch::Space;
use crate::api::pb::authpb;
use crate::api::pb::internal::AuthRecord;
use crate::api::refusal::Corrupt;
use crate::state_machine::records::decode;

use super::{AuthState, Changes, Role, User};

impl AuthState {
    pub(super) fn record(&self, changes: &mut Changes) {
        changes.record(Space::Auth, Bytes::new(), Some(self.encode()));
    }

    /// The user as it is now, or that it is gone.
    pub(super) fn record_user(&self, name: &str, changes: &mut Changes) {
        let value = self.users.get(name).map(|user| encode_user(name, user));
        changes.record(Space::User, key(name), value);
    }

    /// The role as it is now, or that it is gone.
    pub(super) fn record_role(&self, name: &str, changes: &mut Changes) {
        let value = self.roles.get(name).map(|role| encode_role(name, role));
        changes.record(Space::Role, key(name), value);
    }

    fn encode(&self) -> Bytes {
        AuthRecord { enabled: self.enabled, revision: self.revision }.encode_to_vec().into()
    }

    /// Every record; none as long as there never was a user or role.
    pub(crate) fn records(&self) -> impl Iterator<Item = (Space, Bytes, Bytes)> {
        let own = (self.revision > 1).then(|| (Space::Auth, Bytes::new(), self.encode()));
        let users = self.users.iter();
        let users = users.map(|(name, user)| (Space::User, key(name), encode_user(name, user)));
        let roles = self.roles.iter();
        let roles = roles.map(|(name, role)| (Space::Role, key(name), encode_role(name, role)));
        own.into_iter().chain(users).chain(roles)
    }

    pub(crate) fn restore(&mut self, value: &[u8]) -> Result<(), Corrupt> {
        let record = decode::<AuthRecord>("auth record", value)?;
        self.enabled = record.enabled;
        self.revision = record.revision;
        Ok(())
    }

    pub(crate) fn restore_user(&mut self, value: &[u8]) -> Result<(), Corrupt> {
        let record = decode::<authpb::User>("user record", value)?;
        let user = User {
            password_hash: text("user record", &record.password)?,
            no_password: record.options.is_some_and(|options| options.no_password),
            roles: record.roles.into_iter().collect(),
            ..User::default()
        };
        self.users.insert(text("user record", &record.name)?, user);
        Ok(())
    }

    pub(crate) fn restore_role(&mut self, value: &[u8]) -> Result<(), Corrupt> {
        let record = decode::<authpb::Role>("role record", value)?;
        let role = Role { permissions: record.key_permission };
        self.roles.insert(text("role record", &record.name)?, role);
        Ok(())
    }

    /// To be called when all records are in.
    pub(crate) fn restored(&mut self) {
        let names: Vec<String> = self.users.keys().cloned().collect();
        for name in names {
            self.merge_roles(&name);
        }
    }
}

/// Names vary in length, and a stored key is followed by a part number: with the length in front no name's parts stand
/// among another's.
fn key(name: &str) -> Bytes {
    let mut key = Vec::with_capacity(4 + name.len());
    key.extend_from_slice(&(name.len() as u32).to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key.into()
}

fn encode_user(name: &str, user: &User) -> Bytes {
    let record = authpb::User {
        name: Bytes::copy_from_slice(name.as_bytes()),
        password: Bytes::copy_from_slice(user.password_hash.as_bytes()),
        roles: user.roles.iter().cloned().collect(),
        options: Some(authpb::UserAddOptions { no_password: user.no_password }),
    };
    record.encode_to_vec().into()
}

fn encode_role(name: &str, role: &Role) -> Bytes {
    let record = authpb::Role {
        name: Bytes::copy_from_slice(name.as_bytes()),
        key_permission: role.permissions.clone(),
    };
    record.encode_to_vec().into()
}

fn text(what: &str, bytes: &[u8]) -> Result<String, Corrupt> {
    String::from_utf8(bytes.to_vec()).map_err(|reason| Corrupt::Undecodable {
        what: what.to_owned(),
        reason: reason.to_string(),
    })
}
