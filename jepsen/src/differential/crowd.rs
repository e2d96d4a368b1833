//! Several clients at once, each on keys and a lease of its own.
//!
//! How the clients' writes interleave is each server's own, so revisions differ. What must not differ: everything a client
//! is told about its own keys, once each revision is replaced by the number of the client's own write that made it; how
//! many revisions there were in all; and what a watcher of all clients' keys hears about each.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::answer::Answer;
use super::call::Call;
use super::finding::Finding;
use super::streams::{Stream, Told};
use super::target::{Target, unary};
use crate::pb::etcdserverpb::compare::TargetUnion;
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::response_op::Response;
use crate::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseTimeToLiveRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest, TxnResponse, WatchCreateRequest,
};
use crate::pb::mvccpb::KeyValue;

const CLIENTS: usize = 4;
const KEYS: usize = 4;

/// One script per client.
pub(super) fn scripts(seed: u64, calls: usize) -> Vec<Vec<Call>> {
    (0..CLIENTS)
        .map(|client| {
            let mut rng = StdRng::seed_from_u64(seed ^ (client as u64 + 1) << 32);
            (0..calls / CLIENTS).map(|_| call(&mut rng, client)).collect()
        })
        .collect()
}

fn prefix(client: usize) -> String {
    format!("c{client}/")
}

fn key(rng: &mut StdRng, client: usize) -> Bytes {
    format!("{}{}", prefix(client), rng.random_range(0..KEYS)).into()
}

fn everything(client: usize) -> (Bytes, Bytes) {
    (prefix(client).into(), format!("c{client}0").into())
}

/// The one lease of a client.
fn lease(client: usize) -> i64 {
    1000 + client as i64
}

fn put(rng: &mut StdRng, client: usize) -> PutRequest {
    PutRequest {
        key: key(rng, client),
        value: format!("v{}", rng.random_range(0..4)).into(),
        lease: if rng.random_bool(0.3) { lease(client) } else { 0 },
        prev_kv: rng.random_bool(0.5),
        ..PutRequest::default()
    }
}

fn range(rng: &mut StdRng, client: usize) -> RangeRequest {
    let (key, range_end) = everything(client);
    RangeRequest {
        key,
        range_end,
        limit: rng.random_range(0..3),
        sort_order: rng.random_range(0..3),
        sort_target: rng.random_range(0..5),
        ..RangeRequest::default()
    }
}

fn delete(rng: &mut StdRng, client: usize) -> DeleteRangeRequest {
    let (all, range_end) = everything(client);
    let one = rng.random_bool(0.8);
    DeleteRangeRequest {
        key: if one { key(rng, client) } else { all },
        range_end: if one { Bytes::new() } else { range_end },
        prev_kv: rng.random_bool(0.5),
    }
}

fn op(rng: &mut StdRng, client: usize) -> RequestOp {
    let request = match rng.random_range(0..3) {
        0 => Request::RequestPut(put(rng, client)),
        1 => Request::RequestRange(range(rng, client)),
        _ => Request::RequestDeleteRange(delete(rng, client)),
    };
    RequestOp { request: Some(request) }
}

fn call(rng: &mut StdRng, client: usize) -> Call {
    match rng.random_range(0..100) {
        0..34 => Call::Put(put(rng, client)),
        34..52 => Call::Range(range(rng, client)),
        52..62 => Call::DeleteRange(delete(rng, client)),
        62..69 => Call::Grant(LeaseGrantRequest { id: lease(client), ttl: 600 }),
        69..72 => Call::Revoke(lease(client)),
        72..75 => Call::TimeToLive(LeaseTimeToLiveRequest { id: lease(client), keys: true }),
        _ => Call::Txn(TxnRequest {
            compare: vec![Compare {
                result: rng.random_range(0..4),
                target: 0,
                key: key(rng, client),
                target_union: Some(TargetUnion::Version(rng.random_range(0..3))),
                ..Compare::default()
            }],
            success: (0..rng.random_range(0..3)).map(|_| op(rng, client)).collect(),
            failure: (0..rng.random_range(0..3)).map(|_| op(rng, client)).collect(),
        }),
    }
}

/// The client's own writes by revision, numbered in the order it made them.
#[derive(Debug, Default)]
struct Writes(BTreeMap<i64, i64>);

impl Writes {
    fn learn(&mut self, answer: &Answer) {
        let wrote = match answer {
            Answer::Put(_) => true,
            Answer::DeleteRange(response) => response.deleted > 0,
            Answer::Txn(response) => wrote(response),
            _ => false,
        };
        if let (true, Some(revision)) = (wrote, answer.revision()) {
            let number = self.0.len() as i64 + 1;
            self.0.insert(revision, number);
        }
    }

    fn number(&self, revision: &mut i64) {
        if *revision != 0 {
            *revision = self.0.get(revision).copied().unwrap_or(-1);
        }
    }

    fn number_kv(&self, kv: &mut KeyValue) {
        self.number(&mut kv.create_revision);
        self.number(&mut kv.mod_revision);
    }

    fn numbered(&self, mut answer: Answer) -> Answer {
        match &mut answer {
            Answer::Put(response) => {
                response.header = None;
                response.prev_kv.iter_mut().for_each(|kv| self.number_kv(kv));
            }
            Answer::DeleteRange(response) => {
                response.header = None;
                response.prev_kvs.iter_mut().for_each(|kv| self.number_kv(kv));
            }
            Answer::Range(response) => {
                response.header = None;
                response.kvs.iter_mut().for_each(|kv| self.number_kv(kv));
            }
            Answer::Txn(response) => self.number_txn(response),
            Answer::Grant(response) => response.header = None,
            // What it deleted is not told, so these deletions stay without a number.
            Answer::Revoke(response) => response.header = None,
            Answer::TimeToLive(response) => {
                response.header = None;
                response.keys.sort();
            }
            _ => {}
        }
        answer
    }

    fn number_txn(&self, txn: &mut TxnResponse) {
        txn.header = None;
        for op in &mut txn.responses {
            match &mut op.response {
                Some(Response::ResponsePut(r)) => {
                    r.header = None;
                    r.prev_kv.iter_mut().for_each(|kv| self.number_kv(kv));
                }
                Some(Response::ResponseDeleteRange(r)) => {
                    r.header = None;
                    r.prev_kvs.iter_mut().for_each(|kv| self.number_kv(kv));
                }
                Some(Response::ResponseRange(r)) => {
                    r.header = None;
                    r.kvs.iter_mut().for_each(|kv| self.number_kv(kv));
                }
                Some(Response::ResponseTxn(r)) => self.number_txn(r),
                None => {}
            }
        }
    }
}

fn wrote(txn: &TxnResponse) -> bool {
    txn.responses.iter().any(|op| match &op.response {
        Some(Response::ResponsePut(_)) => true,
        Some(Response::ResponseDeleteRange(response)) => response.deleted > 0,
        Some(Response::ResponseTxn(txn)) => wrote(txn),
        Some(Response::ResponseRange(_)) | None => false,
    })
}

/// What one server told the crowd.
struct Crowd {
    /// Per client, per call.
    answers: Vec<Vec<Answer>>,
    /// Per client, the events of its keys.
    events: Vec<Vec<String>>,
    revision: Option<i64>,
    violations: Vec<String>,
}

/// Plays the scripts at both servers and compares.
pub(super) async fn play(
    ours: &mut Target,
    theirs: &mut Target,
    scripts: &[Vec<Call>],
) -> Vec<Finding> {
    let begun = Instant::now();
    let (ours, theirs) = tokio::join!(crowd(ours, scripts), crowd(theirs, scripts));
    let behind = begun.elapsed();
    let mut findings = Vec::new();
    for violation in ours.violations {
        findings.push(Finding::fault(0, format!("crowd: {violation}")));
    }
    for (client, script) in scripts.iter().enumerate() {
        for (index, call) in script.iter().enumerate() {
            let (a, b) = (&ours.answers[client][index], &theirs.answers[client][index]);
            if !a.agrees_with(b, behind) {
                findings.push(Finding::answers(
                    index,
                    call,
                    a,
                    b,
                    Some(format!("client {client}")),
                ));
                break;
            }
        }
        let (a, b) = (&ours.events[client], &theirs.events[client]);
        if let Some(at) = (0..a.len().max(b.len())).find(|at| a.get(*at) != b.get(*at)) {
            let what = format!(
                "crowd: client {client}, event {at}: ours {:?} etcd {:?}",
                a.get(at),
                b.get(at)
            );
            findings.push(Finding::fault(at, what));
        }
    }
    if ours.revision != theirs.revision {
        let what = format!(
            "crowd: at the end ours is at {:?}, etcd at {:?}",
            ours.revision, theirs.revision
        );
        findings.push(Finding::fault(0, what));
    }
    findings
}

async fn crowd(target: &mut Target, scripts: &[Vec<Call>]) -> Crowd {
    let stream = watch_all(target).await;
    let clients = scripts.iter().map(|script| {
        let client = target.client.clone();
        async move {
            let mut writes = Writes::default();
            let mut answers = Vec::new();
            for call in script {
                let answer = unary(&client, call.clone()).await;
                writes.learn(&answer);
                answers.push(writes.numbered(answer));
            }
            (writes, answers)
        }
    });
    let (writes, answers): (Vec<_>, Vec<_>) = join_all(clients).await.into_iter().unzip();
    let settled = target.settle().await;
    let mut told = Crowd {
        answers,
        events: vec![Vec::new(); scripts.len()],
        revision: settled.revision(),
        violations: Vec::new(),
    };
    let heard = match stream {
        Ok(stream) => {
            let reached = stream.reached(settled.revision().unwrap_or(0)).await;
            told.violations.extend(reached.err().map(|e| e.to_string()));
            stream.heard()
        }
        Err(error) => {
            told.violations.push(error.to_string());
            return told;
        }
    };
    told.violations.extend(heard.violations);
    for event in heard.watchers.into_values().flatten() {
        let Told::Event(mut event) = event else { continue };
        let Some(kv) = &mut event.kv else { continue };
        let Some(client) = (0..scripts.len()).find(|c| kv.key.starts_with(prefix(*c).as_bytes()))
        else {
            continue;
        };
        writes[client].number_kv(kv);
        event.prev_kv.iter_mut().for_each(|kv| writes[client].number_kv(kv));
        told.events[client].push(format!("{event:?}"));
    }
    told
}

async fn watch_all(target: &Target) -> anyhow::Result<Stream> {
    let stream = Stream::open(&target.client).await?;
    let create = WatchCreateRequest {
        key: Bytes::from_static(b"c0"),
        range_end: Bytes::from_static(b"d"),
        prev_kv: true,
        ..WatchCreateRequest::default()
    };
    stream.create(create).await?;
    Ok(stream)
}
