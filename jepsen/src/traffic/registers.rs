//! Clients that read, write, compare and swap a few shared registers, alone and several at once.
//!
//! Each value is written once in a run. A comparison that fails reads all registers of its object instead.

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};

use super::Arena;
use super::linear::{CELLS, Step};
use crate::client::Client;
use crate::pb::etcdserverpb::compare::TargetUnion;
use crate::pb::etcdserverpb::request_op::Request;
use crate::pb::etcdserverpb::response_op::Response;
use crate::pb::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};
use crate::pb::mvccpb::KeyValue;

const PATIENCE: Duration = Duration::from_secs(4);
const BREATH: Duration = Duration::from_millis(8);

/// Objects of [`CELLS`] registers each.
pub(crate) const OBJECTS: usize = 4;

const COMPARE_MOD: i32 = 2;
const COMPARE_VALUE: i32 = 3;

pub(crate) fn register_key(object: usize, cell: usize) -> String {
    format!("reg/{object}/{cell}")
}

/// What a cell was found to hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) value: Option<u64>,
    /// 0 with no value.
    pub(crate) mod_revision: i64,
}

/// One operation on one object.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    pub(crate) object: usize,
    pub(crate) step: Step,
    /// The store's revision in the answer.
    pub(crate) revision: Option<i64>,
    /// Mod revisions of what it was answered, by cell.
    pub(crate) at: Vec<(usize, Held)>,
    /// May be as old as it likes.
    pub(crate) serializable: bool,
}

/// Everything one client did.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    pub(crate) moves: Vec<Move>,
    pub(crate) faults: Vec<String>,
}

pub(crate) async fn move_registers(arena: Arena, seed: u64, worker: u64) -> Moves {
    let mut mover = Mover {
        rng: StdRng::seed_from_u64(seed.wrapping_mul(3000) + worker),
        worker,
        written: 0,
        known: Default::default(),
        told: Moves::default(),
    };
    while let Some(mut client) = arena.client().await {
        while !arena.over() {
            if !mover.one(&arena, &mut client).await {
                break;
            }
            sleep(BREATH).await;
        }
    }
    mover.told
}

struct Mover {
    rng: StdRng,
    worker: u64,
    written: u64,
    /// What it found last, which may be long gone.
    known: [[Held; CELLS]; OBJECTS],
    told: Moves,
}

impl Mover {
    fn fresh_value(&mut self) -> u64 {
        self.written += 1;
        (self.worker + 1) << 32 | self.written
    }

    /// Whether there was an answer.
    async fn one(&mut self, arena: &Arena, client: &mut Client) -> bool {
        let object = self.rng.random_range(0..OBJECTS);
        let cell = self.rng.random_range(0..CELLS);
        match self.rng.random_range(0..100) {
            0..30 => self.read(arena, client, object, false).await,
            30..40 => self.read(arena, client, object, true).await,
            40..60 => self.put(arena, client, object, cell).await,
            60..90 => self.swap(arena, client, object, &[cell]).await,
            _ => self.swap(arena, client, object, &[cell, (cell + 1) % CELLS]).await,
        }
    }

    async fn read(
        &mut self,
        arena: &Arena,
        client: &mut Client,
        object: usize,
        serializable: bool,
    ) -> bool {
        let invoked = arena.now();
        let request = RangeRequest { serializable, ..all_cells(object) };
        let Ok(Ok(answer)) = timeout(PATIENCE, client.kv.range(request)).await else {
            return false;
        };
        let answer = answer.into_inner();
        let found = cells_of(&answer.kvs);
        if !serializable {
            self.known[object] = found;
        }
        let step = Step { invoked, returned: Some(arena.now()), ..found_all(&found) };
        let revision = answer.header.map(|header| header.revision);
        let at = found.into_iter().enumerate().collect();
        self.told.moves.push(Move { object, step, revision, at, serializable });
        true
    }

    async fn put(
        &mut self,
        arena: &Arena,
        client: &mut Client,
        object: usize,
        cell: usize,
    ) -> bool {
        let value = self.fresh_value();
        let mut step = Step { invoked: arena.now(), wrote: vec![(cell, value)], ..Step::default() };
        let prev_kv = self.rng.random_bool(0.5);
        let request = PutRequest { prev_kv, ..put_request(object, cell, value) };
        let answer = timeout(PATIENCE, client.kv.put(request)).await;
        let answer = answer.ok().and_then(Result::ok).map(tonic::Response::into_inner);
        let (mut revision, mut at) = (None, Vec::new());
        if let Some(answer) = &answer {
            step.returned = Some(arena.now());
            revision = answer.header.as_ref().map(|header| header.revision);
            if prev_kv {
                let before = answer.prev_kv.as_ref().map(held).unwrap_or_default();
                step.found.push((cell, before.value));
                at.push((cell, before));
            }
            let mod_revision = revision.unwrap_or_default();
            self.known[object][cell] = Held { value: Some(value), mod_revision };
        }
        self.told.moves.push(Move { object, step, revision, at, serializable: false });
        answer.is_some()
    }

    /// Writes each cell if all hold what they held when this client last looked.
    async fn swap(
        &mut self,
        arena: &Arena,
        client: &mut Client,
        object: usize,
        cells: &[usize],
    ) -> bool {
        let known = self.known[object];
        let wrote: Vec<_> = cells.iter().map(|cell| (*cell, self.fresh_value())).collect();
        let by_value = self.rng.random_bool(0.5);
        let request = TxnRequest {
            compare: cells
                .iter()
                .map(|cell| compare(object, *cell, known[*cell], by_value))
                .collect(),
            success: wrote
                .iter()
                .map(|(cell, value)| {
                    operation(Request::RequestPut(put_request(object, *cell, *value)))
                })
                .collect(),
            failure: vec![operation(Request::RequestRange(all_cells(object)))],
        };
        let expected: Vec<_> = cells.iter().map(|cell| (*cell, known[*cell].value)).collect();
        let mut step = Step { invoked: arena.now(), returned: None, found: expected, wrote };
        let answer = timeout(PATIENCE, client.kv.txn(request)).await;
        let Some(answer) = answer.ok().and_then(Result::ok).map(tonic::Response::into_inner) else {
            let at = Vec::new();
            self.told.moves.push(Move { object, step, revision: None, at, serializable: false });
            return false;
        };
        let revision = answer.header.map(|header| header.revision);
        let mut at: Vec<_> = cells.iter().map(|cell| (*cell, known[*cell])).collect();
        if answer.succeeded {
            step.returned = Some(arena.now());
            for (cell, value) in &step.wrote {
                let mod_revision = revision.unwrap_or_default();
                self.known[object][*cell] = Held { value: Some(*value), mod_revision };
            }
        } else {
            let found = match answer.responses.into_iter().next().and_then(|r| r.response) {
                Some(Response::ResponseRange(range)) => cells_of(&range.kvs),
                _ => {
                    self.told.faults.push("a failed txn without its range's answer".to_owned());
                    return false;
                }
            };
            if cells.iter().all(|cell| found[*cell].value == known[*cell].value) {
                let told = format!("txn refused, yet {cells:?} of object {object} hold {found:?}");
                self.told.faults.push(told);
            }
            let invoked = step.invoked;
            step = Step { invoked, returned: Some(arena.now()), ..found_all(&found) };
            self.known[object] = found;
            at = found.into_iter().enumerate().collect();
        }
        self.told.moves.push(Move { object, step, revision, at, serializable: false });
        true
    }
}

fn found_all(found: &[Held; CELLS]) -> Step {
    let found = found.iter().enumerate().map(|(cell, held)| (cell, held.value)).collect();
    Step { found, ..Step::default() }
}

fn all_cells(object: usize) -> RangeRequest {
    RangeRequest {
        key: format!("reg/{object}/").into(),
        range_end: format!("reg/{object}0").into(),
        ..RangeRequest::default()
    }
}

fn put_request(object: usize, cell: usize, value: u64) -> PutRequest {
    PutRequest {
        key: register_key(object, cell).into(),
        value: value.to_string().into(),
        ..PutRequest::default()
    }
}

fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// By its value where there is one and `by_value`, else by its mod revision.
fn compare(object: usize, cell: usize, known: Held, by_value: bool) -> Compare {
    let key: Bytes = register_key(object, cell).into();
    let (target, union) = match known.value {
        Some(value) if by_value => (COMPARE_VALUE, TargetUnion::Value(value.to_string().into())),
        Some(_) | None => (COMPARE_MOD, TargetUnion::ModRevision(known.mod_revision)),
    };
    Compare { target, key, target_union: Some(union), ..Compare::default() }
}

fn held(kv: &KeyValue) -> Held {
    let value = String::from_utf8_lossy(&kv.value).parse().unwrap_or(u64::MAX);
    Held { value: Some(value), mod_revision: kv.mod_revision }
}

/// Cells by the last part of their keys.
fn cells_of(kvs: &[KeyValue]) -> [Held; CELLS] {
    let mut cells = [Held::default(); CELLS];
    for kv in kvs {
        let last = kv.key.last().map_or(0, |digit| usize::from(digit.wrapping_sub(b'0')));
        if let Some(cell) = cells.get_mut(last) {
            *cell = held(kv);
        }
    }
    cells
}
