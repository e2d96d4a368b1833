//! Once: the last entry applied of each proposer, so that one sent again after a broken stream is skipped.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use crate::api::batch::Space;
use crate::api::ids::MemberId;
use crate::api::pb::internal::{Entry, ProposerRecord};
use crate::api::refusal::Corrupt;

use super::changes::Changes;
use super::records::{decode, member_key};

/// The last (incarnation, seq) of each member.
#[derive(Debug, Default)]
pub(crate) struct ProposerBook {
    last: BTreeMap<MemberId, Last>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    incarnation: u64,
    seq: u64,
}

impl ProposerBook {
    /// Whether `entry` is new; if so it is remembered. Another incarnation of a member starts over: a process that
    /// started again sends nothing of its forerunner.
    pub(crate) fn admit(&mut self, entry: &Entry, changes: &mut Changes) -> bool {
        let id = MemberId(entry.member_id);
        let repeated = self
            .last
            .get(&id)
            .is_some_and(|last| last.incarnation == entry.incarnation && entry.seq <= last.seq);
        if repeated {
            return false;
        }
        let last = Last { incarnation: entry.incarnation, seq: entry.seq };
        self.last.insert(id, last);
        changes.record_unhashed(Space::Proposer, member_key(id.0), Some(last.encode(id)));
        true
    }

    /// The last (incarnation, seq) of `id`.
    pub(crate) fn last(&self, id: MemberId) -> Option<(u64, u64)> {
        self.last.get(&id).map(|last| (last.incarnation, last.seq))
    }

    /// Whoever has ever proposed anything: every member that has run, because it has told its name.
    pub(crate) fn ids(&self) -> impl Iterator<Item = MemberId> {
        self.last.keys().copied()
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = (Bytes, Bytes)> {
        self.last.iter().map(|(id, last)| (member_key(id.0), last.encode(*id)))
    }

    pub(crate) fn restore(&mut self, value: &[u8]) -> Result<(), Corrupt> {
        let record = decode::<ProposerRecord>("proposer record", value)?;
        self.last.insert(
            MemberId(record.member_id),
            Last { incarnation: record.incarnation, seq: record.seq },
        );
        Ok(())
    }
}

impl Last {
    fn encode(self, id: MemberId) -> Bytes {
        let record =
            ProposerRecord { member_id: id.0, incarnation: self.incarnation, seq: self.seq };
        record.encode_to_vec().into()
    }
}
