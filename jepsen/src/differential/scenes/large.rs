//! Answers and events of megabytes: fragments of watch responses, chunks of range streams, the limit of a request.

use anyhow::Result;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore};

use super::{Played, Stage};
use crate::differential::call::Call;
use crate::differential::run::Run;
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
};

/// A fragment stays below it, if it has several events: a request's limit of 1.5 MiB and 512 KiB.
const FRAGMENT_MAX: usize = 2 << 20;
const TXN_BYTES: usize = 1_450_000;
const KEYS: usize = 48;

fn key(number: usize) -> Bytes {
    format!("l{number:02}").into()
}

fn value(rng: &mut StdRng, length: usize) -> Bytes {
    let mut value = vec![0; length];
    rng.fill_bytes(&mut value);
    value.into()
}

fn all() -> RangeRequest {
    RangeRequest {
        key: Bytes::from_static(b"l"),
        range_end: Bytes::from_static(b"m"),
        ..RangeRequest::default()
    }
}

fn watcher(watch_id: i64, start_revision: i64, fragment: bool, prev_kv: bool) -> Call {
    Call::WatchCreate(
        0,
        WatchCreateRequest {
            key: all().key,
            range_end: all().range_end,
            watch_id,
            start_revision,
            fragment,
            prev_kv,
            ..WatchCreateRequest::default()
        },
    )
}

/// Puts of one revision that fit a request; with `prev_kv` twice as much is to be told.
fn txn(rng: &mut StdRng) -> Call {
    let keys = rng.random_range(2..16);
    let op = |number| {
        let length = rng.random_range(TXN_BYTES / keys / 2..TXN_BYTES / keys);
        let put =
            PutRequest { key: key(number), value: value(rng, length), ..PutRequest::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    };
    Call::Txn(TxnRequest { success: (0..keys).map(op).collect(), ..TxnRequest::default() })
}

pub(super) async fn play(run: &Run, mut rng: StdRng) -> Result<Played> {
    let mut stage = Stage::open("large", run, &[], &[]).await?;
    for (id, fragment, prev_kv) in [(1, true, true), (2, false, true), (3, true, false)] {
        stage.ask(watcher(id, 0, fragment, prev_kv)).await;
    }
    for _ in 0..4 {
        stage.ask(txn(&mut rng)).await;
    }
    let delete = DeleteRangeRequest { key: all().key, range_end: all().range_end, prev_kv: true };
    stage.ask(Call::DeleteRange(delete)).await;
    settle(&mut stage).await;
    same_cuts(&mut stage, &[1, 2, 3]);

    for number in 0..KEYS {
        let length = rng.random_range(1000..140_000);
        let put = PutRequest {
            key: key(number),
            value: value(&mut rng, length),
            ..PutRequest::default()
        };
        stage.ask(Call::Put(put)).await;
    }
    stage.ask(Call::Range(all())).await;
    for limit in [0, rng.random_range(1..KEYS as i64), KEYS as i64, -1] {
        stage.ask(Call::RangeStream(RangeRequest { limit, ..all() })).await;
    }
    stage.ask(Call::RangeStream(RangeRequest { keys_only: true, ..all() })).await;
    stage.ask(Call::RangeStream(RangeRequest { revision: 3, ..all() })).await;
    stage.ask(watcher(4, 2, true, true)).await;
    stage.ask(watcher(5, 3, false, true)).await;
    settle(&mut stage).await;
    stays_small(&mut stage, &[1, 3, 4]);
    limits(&mut stage, &mut rng).await;
    stage.close()
}

async fn settle(stage: &mut Stage<'_>) {
    let (ours, theirs) = tokio::join!(stage.ours.settle(), stage.theirs.settle());
    stage.compare(&Call::WatchSettle, ours.masked(), theirs.masked());
    stage.agree_on(0, |heard| heard).await;
}

/// Watchers that never fell behind get one response for each revision: how it is cut is told by its size alone.
fn same_cuts(stage: &mut Stage<'_>, ids: &[i64]) {
    for id in ids {
        let (ours, theirs) = (stage.ours.streams[0].cuts(*id), stage.theirs.streams[0].cuts(*id));
        let same = ours.len() == theirs.len()
            && ours
                .iter()
                .zip(&theirs)
                .all(|(a, b)| (a.events, a.fragment) == (b.events, b.fragment));
        if !same {
            stage.fault(format!("watcher {id}: responses ours {ours:?}\n   etcd {theirs:?}"));
        }
    }
}

fn stays_small(stage: &mut Stage<'_>, ids: &[i64]) {
    for id in ids {
        for cut in stage.ours.streams[0].cuts(*id) {
            if cut.events > 1 && cut.bytes >= FRAGMENT_MAX {
                stage.fault(format!("watcher {id}: {cut:?} is no fragment"));
            }
        }
    }
}

/// Requests around the limit of a request, which counts its envelope too, and of a message, to the byte.
async fn limits(stage: &mut Stage<'_>, rng: &mut StdRng) {
    let request_max = 3 << 19;
    for length in [request_max - 400, request_max - 64, request_max, request_max + 1] {
        let put = PutRequest { key: key(0), value: value(rng, length), ..PutRequest::default() };
        stage.ask(Call::Put(put)).await;
    }
    let empty = prost::Message::encoded_len(&PutRequest {
        key: key(0),
        value: vec![0; FRAGMENT_MAX - 100].into(),
        ..PutRequest::default()
    });
    let overhead = empty - (FRAGMENT_MAX - 100);
    for length in [FRAGMENT_MAX - overhead, FRAGMENT_MAX - overhead + 1] {
        let put =
            PutRequest { key: key(0), value: vec![1; length].into(), ..PutRequest::default() };
        stage.ask(Call::Put(put)).await;
    }
}
