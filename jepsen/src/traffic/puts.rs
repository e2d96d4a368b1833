//! The writing clients, and what each was told.

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};

use super::Arena;
use crate::client::Client;
use crate::pb::etcdserverpb::compare::TargetUnion;
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};

const PATIENCE: Duration = Duration::from_secs(4);
/// Keeps one machine's cores for the member.
const BREATH: Duration = Duration::from_millis(2);

pub(crate) const COUNTERS: usize = 4;

/// A write that was sent: when it was acknowledged, its revision.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    pub(crate) acknowledged: Option<i64>,
    pub(crate) invoked: Duration,
    pub(crate) returned: Duration,
}

/// Keys written once each.
#[derive(Debug, Default)]
pub(crate) struct Puts(pub(crate) Vec<Sent>);

/// Increments of shared counters: each leaves a marker key in the same transaction.
#[derive(Debug, Default)]
pub(crate) struct Increments(pub(crate) Vec<Sent>);

/// Unconditional writes of one key: its version counts them.
#[derive(Debug, Default)]
pub(crate) struct Rewrites {
    pub(crate) key: String,
    pub(crate) acknowledged: Vec<i64>,
    pub(crate) open: i64,
}

/// The revision of the acknowledgement; `None` when nobody knows.
async fn put(client: &mut Client, key: &str, value: Vec<u8>) -> Option<i64> {
    let request = PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into(),
        ..PutRequest::default()
    };
    let answer = timeout(PATIENCE, client.kv.put(request)).await.ok()?.ok()?;
    answer.into_inner().header.map(|h| h.revision)
}

pub(crate) async fn puts(arena: Arena, seed: u64, worker: u64) -> Puts {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1000) + worker);
    let mut told = Puts::default();
    while let Some(mut client) = arena.client().await {
        loop {
            let key = format!("put/{worker}/{:06}", told.0.len());
            let length = if rng.random_bool(0.02) { 20_000 } else { rng.random_range(0..300) };
            let value: Vec<u8> = (0..length).map(|_| rng.random()).collect();
            let invoked = arena.now();
            let acknowledged = put(&mut client, &key, value.clone()).await;
            let (lost, returned) = (acknowledged.is_none(), arena.now());
            told.0.push(Sent { key, value, acknowledged, invoked, returned });
            if lost || arena.over() {
                break;
            }
            sleep(BREATH).await;
        }
    }
    told
}

pub(crate) async fn rewrites(arena: Arena, worker: usize) -> Rewrites {
    let mut told = Rewrites { key: format!("rewrite/{worker}"), ..Rewrites::default() };
    while let Some(mut client) = arena.client().await {
        while !arena.over() {
            match put(&mut client, &told.key, b"x".to_vec()).await {
                Some(revision) => told.acknowledged.push(revision),
                None => {
                    told.open += 1;
                    break;
                }
            }
            sleep(BREATH).await;
        }
    }
    told
}

pub(crate) fn counter_key(counter: usize) -> String {
    format!("counter/{counter}")
}

pub(crate) async fn increments(arena: Arena, seed: u64, worker: u64) -> Increments {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(2000) + worker);
    let mut told = Increments::default();
    while let Some(mut client) = arena.client().await {
        while !arena.over() {
            let counter = rng.random_range(0..COUNTERS);
            let marker = format!("marker/{counter}/{worker}/{:06}", told.0.len());
            let mut sent = Sent { key: marker, invoked: arena.now(), ..Sent::default() };
            match increment(&mut client, counter, &sent.key).await {
                Increment::Done(revision) => {
                    (sent.acknowledged, sent.returned) = (Some(revision), arena.now());
                    told.0.push(sent);
                }
                Increment::Raced => {}
                Increment::NotSent => break,
                Increment::Lost => {
                    told.0.push(sent);
                    break;
                }
            }
            sleep(BREATH).await;
        }
    }
    told
}

enum Increment {
    Done(i64),
    /// Another client was faster: nothing was written.
    Raced,
    /// The read failed: nothing was sent.
    NotSent,
    Lost,
}

async fn increment(client: &mut Client, counter: usize, marker: &str) -> Increment {
    let key = Bytes::from(counter_key(counter));
    let read = RangeRequest { key: key.clone(), ..RangeRequest::default() };
    let Ok(Ok(read)) = timeout(PATIENCE, client.kv.range(read)).await else {
        return Increment::NotSent;
    };
    let current = read.into_inner().kvs.into_iter().next();
    let (value, revision) = current.map_or((0, 0), |kv| {
        let text = String::from_utf8_lossy(&kv.value).into_owned();
        (text.parse::<u64>().unwrap_or(0), kv.mod_revision)
    });
    let write = |key: Bytes, value: Bytes| RequestOp {
        request: Some(Request::RequestPut(PutRequest { key, value, ..PutRequest::default() })),
    };
    let txn = TxnRequest {
        compare: vec![Compare {
            target: 2,
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(revision)),
            ..Compare::default()
        }],
        success: vec![
            write(key, (value + 1).to_string().into()),
            write(Bytes::copy_from_slice(marker.as_bytes()), Bytes::new()),
        ],
        failure: vec![],
    };
    match timeout(PATIENCE, client.kv.txn(txn)).await {
        Ok(Ok(answer)) if answer.get_ref().succeeded => {
            Increment::Done(answer.get_ref().header.map_or(0, |h| h.revision))
        }
        Ok(Ok(_)) => Increment::Raced,
        Ok(Err(_)) | Err(_) => Increment::Lost,
    }
}
