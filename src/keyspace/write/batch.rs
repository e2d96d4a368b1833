//! Requests encoded side by side into what becomes one log entry, without being copied again.
//!
//! ```text
//!   | headroom, 64 bytes                            | 0x32 len command | 0x32 len command | ...
//!   | unused | 0x12 len | level, member, .. time_ms |   field 6 of internal.Entry, again and again
//!            ^ written right-aligned when the batch is sealed: an encoded internal.LogPayload starts here
//! ```

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{encode_varint, encoded_len_varint};
use quorate_core::api::ids::Term;
use quorate_core::api::pb::internal::{Command, Entry};
use quorate_core::state_machine::level_of;

use super::Waiter;
use crate::consensus::ENTRY_TAG;

/// Room for the arm of `LogPayload` and the fields of `Entry` beside its commands: at most 6 + 46 bytes.
pub(super) const HEADROOM: usize = 64;
/// Field 6 of `internal.Entry`, length-delimited.
const COMMANDS_TAG: u8 = 0x32;

/// A batch that is still being filled.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    requests: Vec<Queued>,
    /// The lowest cluster level that understands all of them; 0 without any.
    level: u32,
    /// Only this member may propose it, as the leader of this term.
    only_in: Option<Term>,
}

#[derive(Debug)]
struct Queued {
    waiter: Waiter,
    /// Where its bytes end.
    end: usize,
}

impl Batch {
    pub(super) fn new(only_in: Option<Term>) -> Self {
        let mut bytes = Vec::with_capacity(1024);
        bytes.resize(HEADROOM, 0);
        Batch { bytes, requests: Vec::new(), level: 0, only_in }
    }

    /// The term outside which it may not enter the log, if there is one.
    pub(super) fn only_in(&self) -> Option<Term> {
        self.only_in
    }

    /// How many requests it has.
    pub(super) fn count(&self) -> usize {
        self.requests.len()
    }

    /// Encoded bytes of the requests.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - HEADROOM
    }

    /// What a request adds to [`Batch::len`].
    pub(super) fn cost(command: &Command) -> usize {
        let bytes = command.encoded_len();
        1 + encoded_len_varint(bytes as u64) + bytes
    }

    pub(super) fn push(&mut self, command: &Command, waiter: Waiter) {
        self.bytes.push(COMMANDS_TAG);
        command.encode_length_delimited(&mut self.bytes).expect("a vector grows as needed");
        let end = self.bytes.len();
        self.requests.push(Queued { waiter, end });
        self.level = self.level.max(command.request.as_ref().map_or(0, level_of));
    }

    /// Takes out requests that nobody waits for any more; they have not been proposed and never will be.
    pub(super) fn drop_abandoned(&mut self) {
        if !self.requests.iter().any(|one| one.waiter.is_closed()) {
            return;
        }
        let mut kept = Batch::new(self.only_in);
        kept.level = self.level;
        let mut start = HEADROOM;
        for one in std::mem::take(&mut self.requests) {
            let end = one.end;
            if !one.waiter.is_closed() {
                kept.bytes.extend_from_slice(&self.bytes[start..end]);
                let end = kept.bytes.len();
                kept.requests.push(Queued { waiter: one.waiter, end });
            }
            start = end;
        }
        *self = kept;
    }

    /// Whether it has no requests.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The encoded `LogPayload` and, in the order of the commands, who waits. Its level is the envelope's, raised to
    /// that of the commands.
    pub(super) fn seal(mut self, mut envelope: Entry) -> (Bytes, Vec<Waiter>) {
        debug_assert!(envelope.commands.is_empty(), "the commands are in the batch");
        envelope.level = envelope.level.max(self.level);
        let fields = envelope.encode_to_vec();
        let mut head = Vec::with_capacity(HEADROOM);
        head.push(ENTRY_TAG);
        let entry_len = (fields.len() + self.len()) as u64;
        encode_varint(entry_len, &mut head);
        head.extend_from_slice(&fields);

        debug_assert!(head.len() <= HEADROOM, "headroom holds any envelope");
        let start = HEADROOM - head.len();
        self.bytes[start..HEADROOM].copy_from_slice(&head);
        // The journal keeps its newest payloads in memory, and counts their bytes: not those a vector has grown by.
        self.bytes.shrink_to_fit();
        let payload = Bytes::from(self.bytes).slice(start..);
        let waiters = self.requests.into_iter().map(|one| one.waiter).collect();
        (payload, waiters)
    }

    pub(super) fn into_waiters(self) -> impl Iterator<Item = Waiter> {
        self.requests.into_iter().map(|one| one.waiter)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use quorate_core::api::pb::etcdserverpb::PutRequest;
    use quorate_core::api::pb::internal::LogPayload;
    use quorate_core::api::pb::internal::command::Request;
    use quorate_core::api::pb::internal::log_payload::Payload;
    use tokio::sync::oneshot;

    use super::*;

    fn put(key: &str) -> Command {
        Command {
            request: Some(Request::Put(PutRequest {
                key: Bytes::copy_from_slice(key.as_bytes()),
                ..PutRequest::default()
            })),
            ..Command::default()
        }
    }

    /// The envelope that takes the most bytes.
    pub(in super::super) fn widest_envelope() -> Entry {
        Entry {
            level: u32::MAX,
            member_id: u64::MAX,
            incarnation: u64::MAX,
            seq: u64::MAX,
            time_ms: -1,
            commands: Vec::new(),
        }
    }

    #[test]
    fn a_sealed_batch_is_the_entry_that_protobuf_would_write() {
        let mut batch = Batch::new(None);
        let commands: Vec<_> = (0..300).map(|n| put(&format!("key{n}"))).collect();
        let mut receivers = Vec::new();
        for command in &commands {
            let (tell, told) = oneshot::channel();
            batch.push(command, tell);
            receivers.push(told);
        }
        let (payload, waiters) = batch.seal(widest_envelope());
        assert_eq!(waiters.len(), commands.len());

        let whole =
            LogPayload { payload: Some(Payload::Entry(Entry { commands, ..widest_envelope() })) };
        assert_eq!(payload, whole.encode_to_vec());
    }

    #[test]
    fn an_entry_needs_the_level_of_what_is_in_it() {
        let login =
            Command { request: Some(Request::Auth(Default::default())), ..Command::default() };
        let level_of = |commands: &[Command]| {
            let mut batch = Batch::new(None);
            for command in commands {
                batch.push(command, oneshot::channel().0);
            }
            let (payload, _) = batch.seal(Entry { level: 1, ..Entry::default() });
            let Some(Payload::Entry(entry)) = LogPayload::decode(payload).unwrap().payload else {
                panic!("it stays an entry");
            };
            entry.level
        };
        assert_eq!(level_of(&[put("a")]), 1);
        assert_eq!(level_of(&[put("a"), login, put("b")]), 2);
    }

    #[test]
    fn abandoned_requests_leave_the_batch_with_their_bytes() {
        let mut batch = Batch::new(None);
        let mut kept = Vec::new();
        for n in 0..6 {
            let (tell, told) = oneshot::channel();
            batch.push(&put(&format!("key{n}")), tell);
            if n % 2 == 1 {
                kept.push(told);
            }
        }
        batch.drop_abandoned();
        let (payload, waiters) = batch.seal(widest_envelope());
        assert_eq!(waiters.len(), 3);
        let Some(Payload::Entry(entry)) = LogPayload::decode(payload).unwrap().payload else {
            panic!("it stays an entry");
        };
        assert_eq!(entry.commands, [put("key1"), put("key3"), put("key5")]);
    }
}
