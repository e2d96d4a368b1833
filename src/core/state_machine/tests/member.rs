//! A member as tests drive it: a machine, its store, and a log that only grows.

use crate::api::batch::RevisionRecord;
use crate::api::ids::{LogId, Revision};
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::request_op::Request as Op;
use crate::api::pb::internal;
use crate::api::pb::internal::auth_request::Ask;
use crate::api::pb::internal::command::Request;
use crate::api::pb::internal::fleet_request::Ask as FleetAsk;
use crate::api::pb::internal::log_payload::Payload;
use crate::api::pb::mvccpb::KeyValue;
use crate::api::refusal::{Corrupt, Refusal};
use crate::api::reply::{Applied, Reply};
use crate::api::view::View;
use crate::state_machine::testing::MemoryView;
use crate::state_machine::{HashScope, KvHash, RangeWork, StateMachine};

/// The term of every entry unless a test says otherwise.
pub(crate) const TERM: u64 = 3;

/// Who proposes unless a test says otherwise.
pub(crate) const PROPOSER: u64 = 0xa;

pub(crate) struct Member {
    pub(crate) machine: StateMachine,
    pub(crate) view: MemoryView,
    pub(crate) next_index: u64,
    pub(crate) term: u64,
    pub(crate) next_seq: u64,
    /// How far its clock is beyond the first entry's.
    pub(crate) later_ms: i64,
}

impl Member {
    pub(crate) fn new(value_budget_bytes: usize) -> Member {
        Member {
            machine: StateMachine::new(value_budget_bytes),
            view: MemoryView::default(),
            next_index: 0,
            term: TERM,
            next_seq: 1,
            later_ms: 0,
        }
    }

    /// Applies a payload at the next position and commits what it changed.
    pub(crate) fn payload(&mut self, payload: Payload) -> Result<Applied, Corrupt> {
        let at = LogId::new(self.term, self.next_index);
        self.next_index += 1;
        let payload = internal::LogPayload { payload: Some(payload) };
        let ahead = ReadAhead {
            view: &self.view,
            cold: self.machine.cold_reads(&payload),
            is_one_step: is_one_step(&payload),
        };
        for revision in &ahead.cold {
            ahead.view.key_value(*revision).expect("what is to be read ahead is there");
        }
        let applied = self.machine.apply(&ahead, at, &payload)?;
        assert_eq!(applied.batch.applied, at);
        assert_eq!(applied.batch.revision, self.machine.revision());
        self.view.commit(&applied.batch);
        Ok(applied)
    }

    /// Applies requests of nobody packed in one entry.
    pub(crate) fn pack(&mut self, requests: Vec<Request>) -> Applied {
        self.pack_commands(requests.into_iter().map(command).collect())
    }

    /// The hour of the next entry.
    pub(crate) fn now_ms(&self) -> i64 {
        self.later_ms + entry(1, self.next_seq, Vec::new()).time_ms
    }

    /// Applies commands packed in one entry.
    pub(crate) fn pack_commands(&mut self, commands: Vec<internal::Command>) -> Applied {
        let time_ms = self.now_ms();
        let entry = internal::Entry { commands, time_ms, ..entry(1, self.next_seq, Vec::new()) };
        self.next_seq += 1;
        self.payload(Payload::Entry(entry)).expect("nothing is broken")
    }

    /// Applies an entry of another member.
    pub(crate) fn proposes(&mut self, member_id: u64) {
        let entry = internal::Entry { member_id, ..entry(1, 1, Vec::new()) };
        let applied = self.payload(Payload::Entry(entry)).expect("nothing is broken");
        assert!(!applied.duplicate);
    }

    /// Applies one request of `user`, admitted just now, in an entry of its own.
    pub(crate) fn one_as(&mut self, user: &str, request: Request) -> Result<Reply, Refusal> {
        let command = self.command(&Asked { user: user.to_owned(), age: Age::New, request });
        self.pack_commands(vec![command]).replies.remove(0)
    }

    /// A command as the member's proposer would make it now.
    pub(crate) fn command(&self, asked: &Asked) -> internal::Command {
        let revision = self.machine.auth().revision();
        let mut request = asked.request.clone();
        if let Request::Auth(auth) = &mut request
            && let Some(Ask::Login(login)) = &mut auth.ask
            && login.checked_revision == 0
        {
            login.checked_revision = revision;
        }
        let admitted = match asked.age {
            Age::New => revision,
            Age::Old => revision - 1,
        };
        let auth_revision = if asked.user.is_empty() { 0 } else { admitted };
        internal::Command { user: asked.user.clone(), auth_revision, request: Some(request) }
    }

    /// Applies one request in an entry of its own.
    pub(crate) fn one(&mut self, request: Request) -> Result<Reply, Refusal> {
        self.pack(vec![request]).replies.remove(0)
    }

    /// Answers a range in slices of `rows`.
    pub(crate) fn range(
        &self,
        request: &pb::RangeRequest,
        rows: usize,
    ) -> Result<pb::RangeResponse, Refusal> {
        let mut work = RangeWork::new(request.clone());
        while !work.step(&self.machine, rows)? {}
        Ok(work.finish(&self.view).expect("every listed revision is stored"))
    }

    /// Sweeps the index and drops what died.
    pub(crate) fn sweep(&mut self, max_keys: usize) {
        let mut cursor = self.machine.compaction_begin();
        while let Some(at) = cursor {
            let step = self.machine.compaction_step(at, max_keys);
            self.view.drop_revisions(&step.dead);
            cursor = step.next;
        }
    }

    pub(crate) fn hash(&self, revision: i64) -> Result<KvHash, Refusal> {
        Ok(self.finish_hash(self.machine.hash_begin(revision)?))
    }

    pub(crate) fn finish_hash(&self, mut scope: HashScope) -> KvHash {
        while !self.machine.hash_step(&mut scope, 2) {}
        let mut hash = scope.into_hash();
        for record in self.view.records() {
            if !hash.feed(record) {
                break;
            }
        }
        hash.finish()
    }
}

/// A request and who asks it. A login with a checked revision of 0 is one whose password was checked just now.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) user: String,
    pub(crate) age: Age,
    pub(crate) request: Request,
}

/// When the asker was admitted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Age {
    New,
    /// Before the last change of users or roles.
    Old,
}

pub(crate) fn entry(incarnation: u64, seq: u64, requests: Vec<Request>) -> internal::Entry {
    internal::Entry {
        level: 1,
        member_id: PROPOSER,
        incarnation,
        seq,
        time_ms: 1_000 + seq as i64,
        commands: requests.into_iter().map(command).collect(),
    }
}

pub(crate) fn command(request: Request) -> internal::Command {
    internal::Command { request: Some(request), ..internal::Command::default() }
}

/// A view that holds `cold_reads` to its word: an operation alone in its entry reads nothing else. Else an earlier one
/// may change what a later one reads.
struct ReadAhead<'v> {
    view: &'v MemoryView,
    cold: Vec<Revision>,
    is_one_step: bool,
}

fn is_one_step(payload: &internal::LogPayload) -> bool {
    let Some(Payload::Entry(entry)) = &payload.payload else {
        return true;
    };
    let is_one_step = |command: &internal::Command| match &command.request {
        Some(
            Request::Txn(txn)
            | Request::Fleet(internal::FleetRequest { ask: Some(FleetAsk::Txn(txn)), .. }),
        ) => steps(&txn.success) <= 1 && steps(&txn.failure) <= 1,
        _ => true,
    };
    entry.commands.len() <= 1 && entry.commands.iter().all(is_one_step)
}

fn steps(ops: &[pb::RequestOp]) -> usize {
    let steps = |op: &pb::RequestOp| match &op.request {
        Some(Op::RequestTxn(txn)) => steps(&txn.success) + steps(&txn.failure),
        _ => 1,
    };
    ops.iter().map(steps).sum()
}

impl View for ReadAhead<'_> {
    fn key_value(&self, revision: Revision) -> Result<KeyValue, Corrupt> {
        let named = !self.is_one_step || self.cold.contains(&revision);
        if named || self.view.key_value(revision).is_err() {
            return self.view.key_value(revision);
        }
        panic!("{revision} was read and not named");
    }

    fn scan(&self, from: Revision, max_bytes: usize) -> Result<Vec<RevisionRecord>, Corrupt> {
        self.view.scan(from, max_bytes)
    }
}
