//! Runs the commands of one scenario against one member.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::api::batch::RevisionRecord;
use crate::api::ids::{LeaseId, MemberId};
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::internal;
use crate::api::pb::internal::command::Request;
use crate::api::pb::internal::log_payload::Payload;
use crate::api::refusal::Refusal;
use crate::api::reply::Applied;
use crate::api::view::View;
use crate::state_machine::auth::Caller;
use crate::state_machine::{Cursor, Limits, Pin, check, quota, show_rows, txn};

use super::super::member::{Age, Asked, Member, entry};
use super::auth::{self, Asker};
use super::parse::{self, Line};
use super::{fleet, print};

pub(super) struct Runner {
    member: Member,
    pins: BTreeMap<String, Pin>,
    /// Events of requests that were asked.
    told: Vec<RevisionRecord>,
    asker: Asker,
}

impl Runner {
    pub(super) fn new() -> Runner {
        Runner {
            member: Member::new(1 << 20),
            pins: BTreeMap::new(),
            told: Vec::new(),
            asker: Asker::default(),
        }
    }

    /// Runs one command; its answer ends with a newline, or is empty.
    pub(super) fn run(&mut self, lines: &[&str]) -> String {
        if let Some(request) = parse::request(lines) {
            return self.log(vec![request]);
        }
        let line = Line::new(lines[0]);
        if let Some(answer) = self.about_auth(&line) {
            return answer;
        }
        match line.verb() {
            "pack" => self.log(requests(&lines[1..])),
            "entry" => self.entry(&line, &lines[1..]),
            "range" => self.range(&line),
            "slices" => self.slices(&line),
            "read" => self.read(&lines[1..]),
            "check" => self.check(&lines[1..]),
            "cost" => requests(&lines[1..])
                .iter()
                .map(|request| format!("{}\n", quota::cost(request)))
                .collect(),
            "sweep" => self.sweep(&line),
            "pin" => {
                let revision = line.args()[1].parse().unwrap();
                let pin = self.member.machine.pin(revision);
                self.pins.insert(line.args()[0].to_owned(), pin);
                String::new()
            }
            "unpin" => {
                self.pins.remove(line.args()[0]).expect("it is pinned");
                String::new()
            }
            "index" => self.index(line.args()[0]),
            "hash" => self.hash(line.args()[0].parse().unwrap()),
            "leases" => self.leases(),
            "membership" => self.membership(&line),
            "members" => self.members(),
            "fleet" => fleet::state(self.member.machine.fleet()),
            "may-renew-as-client" => fleet::may_renew(&self.member.machine, line.arg(0)),
            "hours" => {
                self.member.later_ms += line.arg::<i64>(0) * 3_600_000;
                String::new()
            }
            "blank" => self.payload(Payload::Blank(internal::Blank {})),
            "term" => {
                self.member.term = line.args()[0].parse().unwrap();
                String::new()
            }
            other => panic!("no such command: {other}"),
        }
    }

    /// Does what the floors above do with a client's request: check it, read what is read-only, log the rest. Only
    /// the answer is told.
    pub(super) fn ask(&mut self, lines: &[&str]) -> String {
        let line = Line::new(lines[0]);
        if let Some(answer) = self.about_auth(&line) {
            return answer;
        }
        match line.verb() {
            "events" => return self.events(),
            "range" => {
                let request = parse::range(&line);
                return match check::check_range(&request).and_then(|()| self.may_range(&request)) {
                    Ok(()) => self.range(&line),
                    Err(refusal) => print::refused(&refusal),
                };
            }
            _ => {}
        }
        let request = parse::request(lines).expect("a client's request");
        if let Err(refusal) = check_shape(&request) {
            return print::refused(&refusal);
        }
        match &request {
            Request::Txn(txn) if txn::is_read_only(txn) => {
                match self.member.machine.check_read_only(&self.caller(), txn) {
                    Ok(()) => self.read(&lines[1..]),
                    Err(refusal) => print::refused(&refusal),
                }
            }
            _ => {
                let mut applied = self.pack(vec![request]);
                self.member.sweep(3);
                self.told.append(&mut applied.batch.revisions);
                applied.leases.clear();
                applied.tokens.clear();
                print::applied(&applied)
            }
        }
    }

    fn caller(&self) -> Caller {
        self.asker.caller(&self.member.machine)
    }

    fn may_range(&self, request: &pb::RangeRequest) -> Result<(), Refusal> {
        self.member.machine.auth().check_read(&self.caller(), &request.key, &request.range_end)
    }

    fn about_auth(&mut self, line: &Line<'_>) -> Option<String> {
        if line.verb() == "as" {
            self.asker = Asker::new(line);
            return Some(String::new());
        }
        auth::read(&self.member.machine, &self.caller(), line)
    }

    /// Packs requests of who asks now. A login whose checked revision is not given was checked just now.
    fn pack(&mut self, requests: Vec<Request>) -> Applied {
        let caller = self.caller();
        let commands = requests.into_iter().map(|request| {
            let (user, age) = (caller.user.clone(), Age::New);
            let command = self.member.command(&Asked { user, age, request });
            internal::Command { auth_revision: caller.auth_revision, ..command }
        });
        let commands = commands.collect();
        self.member.pack_commands(commands)
    }

    /// Every event so far, with the previous key-value read where its record says.
    fn events(&self) -> String {
        let mut out = String::new();
        for record in &self.told {
            let main = record.revision.main;
            let event = if record.tombstone {
                format!("{main} delete {}", record.kv.key.escape_ascii())
            } else {
                format!("{main} put {}", print::key_value(&record.kv))
            };
            let prev = record.prev.map(|prev| self.member.view.key_value(prev).unwrap());
            let prev =
                prev.map_or_else(String::new, |prev| format!(", prev {}", print::key_value(&prev)));
            writeln!(out, "{event}{prev}").unwrap();
        }
        out
    }

    fn log(&mut self, requests: Vec<Request>) -> String {
        print::applied(&self.pack(requests))
    }

    fn payload(&mut self, payload: Payload) -> String {
        match self.member.payload(payload) {
            Ok(applied) => print::applied(&applied),
            Err(corrupt) => format!("corrupt: {corrupt}\n"),
        }
    }

    fn entry(&mut self, line: &Line<'_>, lines: &[&str]) -> String {
        let seq = line.number("seq") as u64;
        let mut entry = entry(line.number("incarnation") as u64, seq, requests(lines));
        entry.member_id = line.number("member") as u64;
        entry.level = line.number("level") as u32;
        self.payload(Payload::Entry(entry))
    }

    fn range(&self, line: &Line<'_>) -> String {
        let request = parse::range(line);
        let whole = self.member.range(&request, usize::MAX);
        assert_eq!(whole, self.member.range(&request, 1), "slices make no difference");
        match whole {
            Ok(range) => print::range_reply(&range, ""),
            Err(refusal) => print::refused(&refusal),
        }
    }

    fn slices(&self, line: &Line<'_>) -> String {
        let request = parse::range(line);
        let rows = line.number("rows") as usize;
        let mut out = String::new();
        let mut cursor: Option<Cursor> = None;
        loop {
            let slice = match self.member.machine.select(&request, cursor.as_ref(), rows) {
                Ok(slice) => slice,
                Err(refusal) => return print::refused(&refusal),
            };
            let done = if slice.rows_done { ", no more rows" } else { "" };
            writeln!(out, "counted {}{done}, revision {}", slice.count, slice.revision).unwrap();
            for kv in show_rows(&request, &slice.rows, &self.member.view).unwrap() {
                writeln!(out, "  {}", print::key_value(&kv)).unwrap();
            }
            match slice.next {
                Some(next) => cursor = Some(next),
                None => return out,
            }
        }
    }

    fn read(&self, lines: &[&str]) -> String {
        match self.member.machine.read_only(&self.member.view, &parse::txn(lines)).unwrap() {
            Ok(txn) => print::txn_reply(&txn, ""),
            Err(refusal) => print::refused(&refusal),
        }
    }

    fn check(&self, lines: &[&str]) -> String {
        let checked = requests(lines).iter().try_for_each(check_shape);
        checked.map_or_else(|refusal| print::refused(&refusal), |()| "fine\n".to_owned())
    }

    fn sweep(&mut self, line: &Line<'_>) -> String {
        let max_keys = line.option("keys").map_or(usize::MAX, |keys| keys.parse().unwrap());
        let mut out = String::new();
        let mut cursor = self.member.machine.compaction_begin();
        if cursor.is_none() {
            out.push_str("nothing to sweep\n");
        }
        while let Some(at) = cursor {
            let to = at.compacts_to();
            let step = self.member.machine.compaction_step(at, max_keys);
            self.member.view.drop_revisions(&step.dead);
            let dead: Vec<String> = step.dead.iter().map(ToString::to_string).collect();
            writeln!(out, "to {to}, dead: {}", dead.join(" ")).unwrap();
            cursor = step.next;
        }
        out
    }

    fn index(&self, key: &str) -> String {
        let stored = self.member.view.records().filter(|record| record.kv.key == key.as_bytes());
        let chain: Vec<String> = stored
            .map(|record| format!("{}{}", record.revision, if record.tombstone { "t" } else { "" }))
            .collect();
        let mut out = format!("stored {}\n", chain.join(" "));
        let request = |revision| pb::RangeRequest {
            key: key.to_owned().into(),
            revision,
            ..pb::RangeRequest::default()
        };
        for revision in 1..=self.member.machine.revision() {
            let answer = match self.member.range(&request(revision), 1) {
                Ok(range) => {
                    range.kvs.first().map_or_else(|| "absent".to_owned(), print::key_value)
                }
                Err(refusal) => format!("{refusal:?}"),
            };
            writeln!(out, "at {revision}: {answer}").unwrap();
        }
        out
    }

    fn hash(&self, revision: i64) -> String {
        match self.member.hash(revision) {
            Ok(hash) => format!(
                "{} at {}, compact revision {}\n",
                hash.hash, hash.revision, hash.compact_revision
            ),
            Err(refusal) => print::refused(&refusal),
        }
    }

    fn leases(&self) -> String {
        let machine = &self.member.machine;
        let mut out = String::new();
        for id in machine.leases() {
            let lease = machine.lease(id).expect("it was listed");
            let keys: Vec<String> = machine
                .lease_keys(LeaseId(id.0))
                .iter()
                .map(|key| key.escape_ascii().to_string())
                .collect();
            writeln!(
                out,
                "{id}: granted {} s, {} s left, keys: {}",
                lease.granted_ttl,
                lease.remaining_ttl,
                keys.join(" ")
            )
            .unwrap();
        }
        out
    }

    fn membership(&mut self, line: &Line<'_>) -> String {
        let ids: Vec<u64> = line.args().iter().map(|id| id.parse().unwrap()).collect();
        let nodes = ids
            .iter()
            .map(|id| internal::MemberNode { member_id: *id, ..internal::MemberNode::default() });
        self.payload(Payload::Membership(internal::Membership {
            nodes: nodes.collect(),
            configs: vec![internal::VoterSet { member_ids: ids }],
        }))
    }

    fn members(&self) -> String {
        let stored = self.member.machine.membership();
        let mut out = String::new();
        for node in stored.membership.iter().flat_map(|membership| &membership.nodes) {
            let attributes = self.member.machine.member_attributes(MemberId(node.member_id));
            let name = attributes.map_or("unnamed", |attributes| &attributes.name);
            writeln!(out, "{:x}: {name}", node.member_id).unwrap();
        }
        out
    }
}

fn check_shape(request: &Request) -> Result<(), Refusal> {
    match request {
        Request::Put(put) => check::check_put(put),
        Request::DeleteRange(delete) => check::check_delete_range(delete),
        Request::Txn(txn) => check::check_txn(txn, Limits::default()),
        _ => Ok(()),
    }
}

fn requests(lines: &[&str]) -> Vec<Request> {
    parse::parts(lines)
        .into_iter()
        .map(|part| {
            let outdented: Vec<&str> = part.iter().map(|line| &line[2..]).collect();
            parse::request(&outdented).expect("a pack holds commands of the log")
        })
        .collect()
}
