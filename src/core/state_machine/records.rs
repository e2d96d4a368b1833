//! Records beside history: how their protobuf values are read back.

use bytes::Bytes;
use prost::Message;

use crate::api::ids::LogId;
use crate::api::pb::internal::LogPosition;
use crate::api::refusal::Corrupt;

/// Reads a record's value; `what` names it in the last words of a member that cannot.
pub(crate) fn decode<M: Message + Default>(what: &str, value: &[u8]) -> Result<M, Corrupt> {
    M::decode(value).map_err(|reason| Corrupt::Undecodable {
        what: what.to_owned(),
        reason: reason.to_string(),
    })
}

/// A member id as a record's key: 8 bytes big-endian.
pub(crate) fn member_key(member_id: u64) -> Bytes {
    Bytes::copy_from_slice(&member_id.to_be_bytes())
}

pub(crate) fn position(at: LogId) -> LogPosition {
    LogPosition { term: at.term.0, index: at.index }
}

pub(crate) fn log_id(position: LogPosition) -> LogId {
    LogId::new(position.term, position.index)
}
