//! Who is a member, and what members told about themselves.
//!
//! **Invariant:** raft's membership entry is the only truth for voters and peer URLs; names and client URLs are
//! told by each member through the log, and go when the membership drops it.
//! **Invariant:** who was a member once and is none any more is noted for ever, from cluster level 2 on: ids are
//! never used again, and whoever comes with one is told that it was removed. Who left before is noted when level 3 is
//! reached, if it has ever run: it has proposed something then.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;

use crate::api::batch::Space;
use crate::api::ids::{LogId, MemberId};
use crate::api::pb::internal::{MemberAttributes, Membership, RemovedMember, StoredMembership};
use crate::api::refusal::Corrupt;

use super::changes::Changes;
use super::records::{decode, member_key, position};
use super::{LEVEL_OF_REMOVED_MEMBERS, LEVEL_OF_RETURN};

/// The membership in force and the members' attributes.
#[derive(Debug, Default)]
pub(crate) struct MemberBook {
    stored: StoredMembership,
    attributes: BTreeMap<MemberId, MemberAttributes>,
    removed: BTreeSet<MemberId>,
}

impl MemberBook {
    /// Puts a membership in force, at cluster level `level`. Who leaves is noted where every member can: a member of
    /// an older level would not, and be another one by that. Nobody comes back but a member that goes on alone: it was
    /// to leave by an entry that it did not know to be committed.
    pub(crate) fn change(
        &mut self,
        at: LogId,
        membership: &Membership,
        level: u32,
        changes: &mut Changes,
    ) {
        let before: Vec<MemberId> = self.ids().collect();
        self.stored =
            StoredMembership { log_id: Some(position(at)), membership: Some(membership.clone()) };
        let value = self.stored.encode_to_vec().into();
        changes.record_unhashed(Space::Membership, Bytes::new(), Some(value));
        let hash = crc32c::crc32c(&membership.encode_to_vec());
        changes.roll_fact(Space::Membership as u64, u64::from(hash));
        let gone = self.attributes.keys().copied();
        let gone: Vec<MemberId> = gone.filter(|id| !self.admits(*id)).collect();
        for id in gone {
            self.attributes.remove(&id);
            changes.record(Space::MemberAttributes, member_key(id.0), None);
        }
        if level >= LEVEL_OF_REMOVED_MEMBERS {
            self.note_gone(before.into_iter(), changes);
        }
        if level >= LEVEL_OF_RETURN {
            let back: Vec<MemberId> = self.ids().filter(|id| self.removed.contains(id)).collect();
            for id in back {
                self.removed.remove(&id);
                changes.record(Space::RemovedMember, member_key(id.0), None);
            }
        }
    }

    /// Notes those of `ids` that are no members any more.
    pub(crate) fn note_gone(&mut self, ids: impl Iterator<Item = MemberId>, changes: &mut Changes) {
        for id in ids {
            if !self.admits(id) && self.removed.insert(id) {
                let value = RemovedMember { member_id: id.0 }.encode_to_vec().into();
                changes.record(Space::RemovedMember, member_key(id.0), Some(value));
            }
        }
    }

    /// Who is in the membership.
    pub(crate) fn ids(&self) -> impl Iterator<Item = MemberId> {
        let nodes = self.stored.membership.iter().flat_map(|membership| &membership.nodes);
        nodes.map(|node| MemberId(node.member_id))
    }

    /// Notes what a member told; not of one that is no member (any more).
    pub(crate) fn tell(&mut self, attributes: &MemberAttributes, changes: &mut Changes) {
        let id = MemberId(attributes.member_id);
        if !self.admits(id) || self.attributes.get(&id) == Some(attributes) {
            return;
        }
        let value = attributes.encode_to_vec().into();
        changes.record(Space::MemberAttributes, member_key(id.0), Some(value));
        self.attributes.insert(id, attributes.clone());
    }

    /// The member is in the membership, or no membership is known yet.
    fn admits(&self, id: MemberId) -> bool {
        self.stored.membership.as_ref().is_none_or(|membership| {
            membership.nodes.iter().any(|node| node.member_id == id.0)
                || membership.configs.iter().any(|config| config.member_ids.contains(&id.0))
        })
    }

    pub(crate) fn stored(&self) -> &StoredMembership {
        &self.stored
    }

    pub(crate) fn attributes(&self, id: MemberId) -> Option<&MemberAttributes> {
        self.attributes.get(&id)
    }

    pub(crate) fn all_attributes(&self) -> impl Iterator<Item = &MemberAttributes> {
        self.attributes.values()
    }

    /// Who was a member once.
    pub(crate) fn removed(&self) -> &BTreeSet<MemberId> {
        &self.removed
    }

    pub(crate) fn restore_removed(&mut self, value: &[u8]) -> Result<(), Corrupt> {
        let removed = decode::<RemovedMember>("removed member", value)?;
        self.removed.insert(MemberId(removed.member_id));
        Ok(())
    }

    pub(crate) fn restore_membership(&mut self, value: &[u8]) -> Result<(), Corrupt> {
        self.stored = decode("membership record", value)?;
        Ok(())
    }

    pub(crate) fn restore_attributes(&mut self, value: &[u8]) -> Result<(), Corrupt> {
        let attributes = decode::<MemberAttributes>("member attributes", value)?;
        self.attributes.insert(MemberId(attributes.member_id), attributes);
        Ok(())
    }
}
