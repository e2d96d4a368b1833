//! HashKV against what a real etcd answered.

use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::request_op::Request as Op;
use crate::api::pb::internal::command::Request;
use crate::api::refusal::Refusal;
use crate::state_machine::{HashCache, KvHash};

use super::member::Member;

/// Some of the commands are compacted away on our side only much later than on etcd's: it must not matter.
#[test]
fn hash_kv_is_what_etcd_3_7_1_answers() {
    for sweep_every in [1, 7, usize::MAX] {
        let (mut member, mut cache) = (Member::new(4096), HashCache::default());
        let mut compactions = 0;
        for (number, line) in
            include_str!("../../testdata/etcd_3_7_1/hashkv.txt").lines().enumerate()
        {
            if line.starts_with('#') {
                continue;
            }
            if let Some(asked) = line.strip_prefix("hash ") {
                let (revision, expected) = asked.split_once(" = ").unwrap();
                let answer = ask(&member, &cache, revision.parse().unwrap());
                assert_eq!(answer, expected, "line {}: {line}", number + 1);
            } else if let Some(revision) = line.strip_prefix("compact ") {
                compact(&mut member, &mut cache, revision.parse().unwrap());
                compactions += 1;
                if compactions % sweep_every == 0 {
                    member.sweep(3);
                }
            } else {
                member.one(parse(line)).unwrap();
            }
        }
    }
}

fn ask(member: &Member, cache: &HashCache, revision: i64) -> String {
    let cached: Result<KvHash, Refusal> = cache.get(revision).ok_or(Refusal::Compacted);
    match cached.or_else(|_| member.hash(revision)) {
        Ok(hash) => {
            format!("{} compact {} revision {}", hash.hash, hash.compact_revision, hash.revision)
        }
        Err(Refusal::Compacted) => {
            "etcdserver: mvcc: required revision has been compacted".to_owned()
        }
        Err(Refusal::FutureRevision) => {
            "etcdserver: mvcc: required revision is a future revision".to_owned()
        }
        Err(other) => panic!("{other}"),
    }
}

fn compact(member: &mut Member, cache: &mut HashCache, revision: i64) {
    let previous = member.machine.compact_revision();
    let _pin = member.machine.pin(previous);
    let request = Request::Compaction(pb::CompactionRequest { revision, physical: true });
    if member.one(request).is_ok() {
        cache.store(member.finish_hash(member.machine.hash_begin_compaction(previous, revision)));
    }
}

fn parse(line: &str) -> Request {
    if let Some(id) = line.strip_prefix("grant ") {
        return Request::LeaseGrant(pb::LeaseGrantRequest {
            ttl: 100_000,
            id: id.parse().unwrap(),
        });
    }
    if let Some(ops) = line.strip_prefix("txn ") {
        return Request::Txn(pb::TxnRequest {
            success: ops
                .split(" ; ")
                .map(|op| pb::RequestOp {
                    request: Some(match parse(op) {
                        Request::Put(put) => Op::RequestPut(put),
                        Request::DeleteRange(delete) => Op::RequestDeleteRange(delete),
                        other => panic!("{other:?}"),
                    }),
                })
                .collect(),
            ..pb::TxnRequest::default()
        });
    }
    let words: Vec<&str> = line.split(' ').collect();
    let text = |place: usize| -> bytes::Bytes {
        let quoted: &str = words[place];
        quoted.trim_matches('"').replace("\\u0000", "\0").into_bytes().into()
    };
    match words[0] {
        "put" => Request::Put(pb::PutRequest {
            key: text(1),
            value: text(2),
            lease: words[3].parse().unwrap(),
            ..pb::PutRequest::default()
        }),
        "delete" => Request::DeleteRange(pb::DeleteRangeRequest {
            key: text(1),
            range_end: text(2),
            prev_kv: false,
        }),
        other => panic!("{other}"),
    }
}
