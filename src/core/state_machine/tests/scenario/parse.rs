//! Scenario lines as requests.

use bytes::Bytes;

use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::compare::TargetUnion;
use crate::api::pb::etcdserverpb::request_op::Request as Op;
use crate::api::pb::internal;
use crate::api::pb::internal::command::Request;

use super::{auth, fleet};

/// One line: words, options `name=number`, flags.
pub(super) struct Line<'t> {
    words: Vec<&'t str>,
}

const FLAGS: [&str; 7] = [
    "prev",
    "ignore-value",
    "ignore-lease",
    "keys-only",
    "count-only",
    "serializable",
    "no-password",
];

impl<'t> Line<'t> {
    pub(super) fn new(line: &'t str) -> Line<'t> {
        Line { words: line.split_whitespace().collect() }
    }

    pub(super) fn verb(&self) -> &'t str {
        self.words[0]
    }

    /// The words after the verb that are neither options nor flags.
    pub(super) fn args(&self) -> Vec<&'t str> {
        let plain = |word: &&&str| !word.contains('=') && !FLAGS.contains(word);
        self.words[1..].iter().filter(plain).copied().collect()
    }

    pub(super) fn option(&self, name: &str) -> Option<&'t str> {
        let options = self.words.iter().filter_map(|word| word.split_once('='));
        options.filter(|(option, _)| *option == name).map(|(_, value)| value).next()
    }

    pub(super) fn number(&self, name: &str) -> i64 {
        self.option(name).map_or(0, |value| value.parse().unwrap())
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.words.contains(&name)
    }

    pub(super) fn bytes(&self, place: usize) -> Bytes {
        self.args().get(place).map_or_else(Bytes::new, |word| unescape(word))
    }

    pub(super) fn arg<N: std::str::FromStr>(&self, place: usize) -> N {
        let args = self.args();
        args[place].parse().unwrap_or_else(|_| panic!("not a number: {}", args[place]))
    }
}

/// `''` is empty, `\0` and `\xff` are bytes.
pub(super) fn unescape(word: &str) -> Bytes {
    if word == "''" {
        return Bytes::new();
    }
    word.replace("\\0", "\0").into_bytes().into()
}

/// A command that goes through the log; `None` if the verb is none.
pub(super) fn request(lines: &[&str]) -> Option<Request> {
    let line = Line::new(lines[0]);
    Some(match line.verb() {
        "put" => Request::Put(put(&line)),
        "delete" => Request::DeleteRange(delete(&line)),
        "txn" => Request::Txn(txn(&lines[1..])),
        "compact" => {
            Request::Compaction(pb::CompactionRequest { revision: line.arg(0), physical: false })
        }
        "grant" => Request::LeaseGrant(pb::LeaseGrantRequest { id: line.arg(0), ttl: line.arg(1) }),
        "revoke" => Request::LeaseRevoke(pb::LeaseRevokeRequest { id: line.arg(0) }),
        "expire" => Request::LeaseExpiry(internal::LeaseExpiry {
            term: line.number("term") as u64,
            lease_ids: line.args().iter().map(|id| id.parse().unwrap()).collect(),
        }),
        "checkpoint" => Request::LeaseCheckpoint(pb::LeaseCheckpointRequest {
            checkpoints: vec![pb::LeaseCheckpoint { id: line.arg(0), remaining_ttl: line.arg(1) }],
        }),
        "alarm" => Request::Alarm(pb::AlarmRequest {
            action: place_of(line.args()[0], &["get", "activate", "deactivate"]),
            alarm: place_of(line.args()[1], &["none", "nospace", "corrupt"]),
            member_id: line.number("member") as u64,
        }),
        "attributes" => Request::MemberAttributes(internal::MemberAttributes {
            member_id: line.arg(0),
            name: line.args()[1].to_owned(),
            client_urls: Vec::new(),
        }),
        "level" => Request::ClusterLevel(internal::ClusterLevel { level: line.arg(0) }),
        _ => return auth::request(&line).or_else(|| fleet::request(lines)),
    })
}

pub(super) fn place_of(word: &str, words: &[&str]) -> i32 {
    let place = words.iter().position(|other| *other == word);
    place.unwrap_or_else(|| panic!("{word} is none of {words:?}")) as i32
}

fn put(line: &Line<'_>) -> pb::PutRequest {
    pb::PutRequest {
        key: line.bytes(0),
        value: line.bytes(1),
        lease: line.number("lease"),
        prev_kv: line.flag("prev"),
        ignore_value: line.flag("ignore-value"),
        ignore_lease: line.flag("ignore-lease"),
    }
}

fn delete(line: &Line<'_>) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: line.bytes(0),
        range_end: line.bytes(1),
        prev_kv: line.flag("prev"),
    }
}

pub(super) fn range(line: &Line<'_>) -> pb::RangeRequest {
    pb::RangeRequest {
        key: line.bytes(0),
        range_end: line.bytes(1),
        limit: line.number("limit"),
        revision: line.number("rev"),
        sort_order: place_of(
            line.option("order").unwrap_or("none"),
            &["none", "ascend", "descend"],
        ),
        sort_target: place_of(
            line.option("sort").unwrap_or("key"),
            &["key", "version", "create", "mod", "value"],
        ),
        serializable: line.flag("serializable"),
        keys_only: line.flag("keys-only"),
        count_only: line.flag("count-only"),
        min_mod_revision: line.number("min-mod"),
        max_mod_revision: line.number("max-mod"),
        min_create_revision: line.number("min-create"),
        max_create_revision: line.number("max-create"),
    }
}

/// The lines of a txn: `if TARGET KEY [END] OP VALUE`, `then COMMAND`, `else COMMAND`; what is nested is indented
/// deeper.
pub(super) fn txn(lines: &[&str]) -> pb::TxnRequest {
    let mut txn = pb::TxnRequest::default();
    for part in parts(lines) {
        let (word, rest) = part[0].trim().split_once(' ').unwrap();
        match word {
            "if" => txn.compare.push(compare(rest)),
            "then" => txn.success.push(op(rest, &part[1..])),
            "else" => txn.failure.push(op(rest, &part[1..])),
            other => panic!("{other} is no part of a txn"),
        }
    }
    txn
}

/// Splits lines before each that is indented as the first.
pub(super) fn parts<'l, 't>(lines: &'l [&'t str]) -> Vec<&'l [&'t str]> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let Some(first) = lines.first() else {
        return Vec::new();
    };
    let outer = indent(first);
    let mut starts: Vec<usize> =
        (0..lines.len()).filter(|place| indent(lines[*place]) == outer).collect();
    starts.push(lines.len());
    starts.windows(2).map(|pair| &lines[pair[0]..pair[1]]).collect()
}

fn op(first: &str, rest: &[&str]) -> pb::RequestOp {
    let line = Line::new(first);
    let request = match line.verb() {
        "put" => Some(Op::RequestPut(put(&line))),
        "delete" => Some(Op::RequestDeleteRange(delete(&line))),
        "range" => Some(Op::RequestRange(range(&line))),
        "txn" => Some(Op::RequestTxn(txn(rest))),
        "nothing" => None,
        other => panic!("{other} is no operation"),
    };
    pb::RequestOp { request }
}

fn compare(text: &str) -> pb::Compare {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let value = words.pop().unwrap();
    let result = place_of(words.pop().unwrap(), &["=", ">", "<", "!="]);
    let target = place_of(words[0], &["version", "create", "mod", "value", "lease"]);
    let number = || value.parse().unwrap();
    pb::Compare {
        result,
        target,
        key: unescape(words[1]),
        range_end: words.get(2).map_or_else(Bytes::new, |end| unescape(end)),
        target_union: Some(match target {
            0 => TargetUnion::Version(number()),
            1 => TargetUnion::CreateRevision(number()),
            2 => TargetUnion::ModRevision(number()),
            3 => TargetUnion::Value(unescape(value)),
            _ => TargetUnion::Lease(number()),
        }),
    }
}
