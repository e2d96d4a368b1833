//! A small quota, filled: what is refused, what is not, what brings the alarm back, and what HTTP says meanwhile.
//!
//! How many puts fit depends on each server's own sizes, so revisions are not compared here.

use anyhow::Result;
use bytes::Bytes;
use rand::RngCore;
use rand::rngs::StdRng;

use super::{Played, Stage, http, wire};
use crate::differential::answer::Answer;
use crate::differential::call::{Call, OWN_MEMBER};
use crate::differential::run::Run;
use crate::differential::target::Target;
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest,
};

const QUOTA: usize = 6 << 20;
const LARGEST: usize = 700_000;
/// Of one size; etcd fills pages it freed before it grows.
const PUTS_MAX: usize = 1000;
const GET: i32 = 0;
const ACTIVATE: i32 = 1;
const DEACTIVATE: i32 = 2;
const NOSPACE: i32 = 1;
const CORRUPT: i32 = 2;

fn alarm(action: i32, alarm: i32) -> Call {
    Call::Alarm(AlarmRequest { action, alarm, member_id: OWN_MEMBER })
}

fn put(key: &'static [u8]) -> PutRequest {
    PutRequest {
        key: Bytes::from_static(key),
        value: Bytes::from_static(b"v"),
        ..PutRequest::default()
    }
}

fn delete(key: &'static [u8]) -> DeleteRangeRequest {
    DeleteRangeRequest { key: Bytes::from_static(key), ..DeleteRangeRequest::default() }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Calls that grow the store or do not, well formed or not: which of two faults is told is part of the answer.
fn calls(counts_nested_puts: bool) -> Vec<Call> {
    let putting = op(Request::RequestPut(put(b"s")));
    let unkeyed = op(Request::RequestPut(put(b"")));
    let deleting = op(Request::RequestDeleteRange(delete(b"gone")));
    let nested = op(Request::RequestTxn(TxnRequest {
        failure: vec![putting.clone()],
        ..TxnRequest::default()
    }));
    let txn = |success: Vec<RequestOp>, failure: Vec<RequestOp>| {
        Call::Txn(TxnRequest { success, failure, ..TxnRequest::default() })
    };
    vec![
        alarm(GET, 0),
        alarm(GET, CORRUPT),
        Call::Put(put(b"s")),
        Call::Put(put(b"")),
        Call::Put(PutRequest { ignore_value: true, ..put(b"s") }),
        Call::Put(PutRequest { lease: 4242, ..put(b"s") }),
        txn(vec![deleting.clone()], vec![putting.clone()]),
        txn(vec![deleting.clone()], vec![]),
        txn(if counts_nested_puts { vec![nested] } else { vec![] }, vec![]),
        txn(vec![unkeyed], vec![]),
        txn(vec![putting.clone(); 129], vec![]),
        txn(vec![], vec![]),
        Call::Grant(LeaseGrantRequest { id: 8, ttl: 600 }),
        Call::Grant(LeaseGrantRequest { id: 7, ttl: 600 }),
        Call::Grant(LeaseGrantRequest { id: 9, ttl: i64::MAX }),
        Call::KeepAlive(7),
        Call::Leases,
        Call::Range(RangeRequest { key: Bytes::from_static(b"s"), ..RangeRequest::default() }),
        Call::DeleteRange(delete(b"gone")),
        Call::Compact(CompactionRequest { revision: 2, physical: true }),
        Call::Status,
        Call::MemberList(true),
    ]
}

pub(super) async fn play(run: &Run, mut rng: StdRng) -> Result<Played> {
    let flags = [format!("--quota-backend-bytes={QUOTA}")];
    let mut stage = Stage::open("space", run, &flags, &flags).await?;
    let counts_nested_puts = run.release.dialect().counts_nested_puts;
    http::compare(&mut stage, "at the start").await;
    wire::compare(&mut stage).await;
    stage.ask(Call::Put(put(b"s"))).await;
    stage.ask(Call::Grant(LeaseGrantRequest { id: 7, ttl: 600 })).await;
    let mut random = vec![0; LARGEST];
    rng.fill_bytes(&mut random);
    let random = Bytes::from(random);
    let (ours, theirs) =
        tokio::join!(fill(&mut stage.ours, &random), fill(&mut stage.theirs, &random));
    stage.compare(&Call::Put(put(b"filler")), ours, theirs);
    for call in calls(counts_nested_puts) {
        stage.ask_apart(call).await;
    }
    http::compare(&mut stage, "without space").await;
    // Nothing was given back: the next growth raises it again.
    stage.ask_apart(alarm(DEACTIVATE, NOSPACE)).await;
    http::compare(&mut stage, "with the alarm taken back").await;
    for call in [alarm(GET, 0), Call::Put(put(b"")), alarm(GET, 0)] {
        stage.ask_apart(call).await;
    }
    for call in [alarm(DEACTIVATE, NOSPACE), alarm(ACTIVATE, CORRUPT), alarm(ACTIVATE, CORRUPT)] {
        stage.ask_apart(call).await;
    }
    http::compare(&mut stage, "corrupt").await;
    if run.release.obeys_two_alarms() {
        for call in calls(counts_nested_puts) {
            stage.ask_apart(call).await;
        }
    }
    for call in [alarm(DEACTIVATE, CORRUPT), alarm(DEACTIVATE, NOSPACE), alarm(GET, 0)] {
        stage.ask_apart(call).await;
    }
    stage.close()
}

/// Puts ever less until not even an empty value fits, taking the alarm back in between; the last refusal.
async fn fill(target: &mut Target, random: &Bytes) -> Answer {
    let mut refused = Answer::Done;
    for length in [LARGEST, LARGEST / 8, LARGEST / 64, LARGEST / 512, 0] {
        target.call(alarm(DEACTIVATE, NOSPACE)).await;
        let filler = PutRequest { value: random.slice(..length), ..put(b"filler") };
        for _ in 0..PUTS_MAX {
            refused = target.call(Call::Put(filler.clone())).await;
            if !matches!(refused, Answer::Put(_)) {
                break;
            }
        }
    }
    refused
}
