//! Clients of all members, and what they were told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use quorate::keyspace::{Keyspace, KeyspaceError};
use quorate_core::api::ids::LeaseId;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::request_op::Request as Op;
use quorate_core::api::pb::etcdserverpb::response_op::Response;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::time::Instant;

use super::checker::{Call, Operation};
use super::member::MEMBERS;
use super::net::Net;
use crate::trace::Trace;

pub const REGISTERS: u64 = 4;
/// Seconds; the shortest that an election timeout of 1 s allows.
const LEASE_TTL: i64 = 3;

/// What all clients share.
pub struct World {
    pub net: Arc<Net>,
    pub trace: Trace,
    pub start: Instant,
    /// Told once the faults are over.
    pub over: watch::Receiver<bool>,
    events: AtomicU64,
    values: AtomicU64,
    told: Mutex<Told>,
}

/// What clients were told.
#[derive(Debug, Default)]
pub struct Told {
    pub registers: BTreeMap<u64, Vec<Operation>>,
    /// Unique keys that were acknowledged.
    pub acknowledged: Vec<String>,
    /// Unique keys of which nobody knows.
    pub in_doubt: usize,
    pub operations: usize,
    pub violations: Vec<String>,
}

impl World {
    pub fn new(net: Arc<Net>, trace: Trace, over: watch::Receiver<bool>) -> Arc<World> {
        Arc::new(World {
            net,
            trace,
            start: Instant::now(),
            over,
            events: AtomicU64::new(0),
            values: AtomicU64::new(0),
            told: Mutex::default(),
        })
    }

    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("nobody panics while holding it")
    }

    pub fn violation(&self, what: String) {
        self.line(&format!("VIOLATION {what}"));
        self.told().violations.push(what);
    }

    pub fn line(&self, text: &str) {
        self.trace.line(self.start.elapsed(), text);
    }

    fn event(&self) -> u64 {
        self.events.fetch_add(1, Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    fn unique(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// How a call ended, as far as a client may conclude.
enum Ended<T> {
    Told(T),
    /// It did not take effect and never will.
    Refused,
    InDoubt,
}

/// One client: asks one member, and another one after a call that was not answered well.
pub struct Client {
    pub world: Arc<World>,
    pub id: u64,
    pub rng: StdRng,
    member: u64,
}

impl Client {
    pub fn new(world: &Arc<World>, id: u64, seed: u64) -> Client {
        let rng = StdRng::seed_from_u64(seed);
        Client { world: Arc::clone(world), id, rng, member: 1 + id % 3 }
    }

    fn move_on(&mut self) {
        self.member = MEMBERS[self.rng.random_range(0..MEMBERS.len())];
    }

    async fn think(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(10..250))).await;
    }

    /// Has the member answer; what a member said after its power was gone was never heard.
    async fn ask<T, F>(&mut self, call: impl FnOnce(Keyspace) -> F) -> Ended<T>
    where
        F: Future<Output = Result<T, KeyspaceError>>,
    {
        let Some((life, keyspace)) = self.world.net.member(self.member) else {
            self.move_on();
            return Ended::Refused;
        };
        let member = self.member;
        let answer = call(keyspace).await;
        if answer.is_err() {
            self.move_on();
        }
        if !self.world.net.lives(member, life) {
            return Ended::InDoubt;
        }
        match answer {
            Ok(answer) => Ended::Told(answer),
            Err(
                KeyspaceError::Refused(_)
                | KeyspaceError::DeadlineExceeded
                | KeyspaceError::TooManyRequests
                | KeyspaceError::RequestTooLarge,
            ) => Ended::Refused,
            Err(_) => Ended::InDoubt,
        }
    }

    /// Reads, writes and swaps registers, and puts keys of its own, until the faults are over.
    pub async fn run(mut self) {
        while !self.world.is_over() {
            self.think().await;
            match self.rng.random_range(0..10) {
                0..3 => self.read().await,
                3..5 => self.write().await,
                5..7 => self.swap().await,
                _ => self.put_unique().await,
            }
            self.world.told().operations += 1;
        }
    }

    fn record(&self, register: u64, call: Call, invoked: u64, completed: Option<u64>) {
        let at = completed.map_or("in doubt".to_owned(), |at| format!("done at {at}"));
        let line = format!("client {} r{register} {call:?} from {invoked} {at}", self.id);
        self.world.line(&line);
        let operation = Operation { client: self.id, call, invoked, completed };
        self.world.told().registers.entry(register).or_default().push(operation);
    }

    async fn read(&mut self) {
        let register = self.rng.random_range(0..REGISTERS);
        let invoked = self.world.event();
        let request = get(&register_key(register));
        let ended = self.ask(|keyspace| async move { keyspace.range(request).await }).await;
        if let Ended::Told(found) = ended {
            let seen = found.kvs.first().map_or(0, |kv| number(&kv.value));
            let completed = Some(self.world.event());
            self.record(register, Call::Read(seen), invoked, completed);
        }
    }

    async fn write(&mut self) {
        let register = self.rng.random_range(0..REGISTERS);
        let new = self.world.unique();
        let invoked = self.world.event();
        let request = put(&register_key(register), new);
        let ended = self.ask(|keyspace| async move { keyspace.put(request).await }).await;
        let completed = match ended {
            Ended::Told(_) => Some(self.world.event()),
            Ended::InDoubt => None,
            Ended::Refused => return,
        };
        self.record(register, Call::Write(new), invoked, completed);
    }

    /// Compare and swap; one that fails reads what was there instead.
    async fn swap(&mut self) {
        let register = self.rng.random_range(0..REGISTERS);
        let key = register_key(register);
        let request = get(&key);
        let found = self.ask(|keyspace| async move { keyspace.range(request).await }).await;
        let Ended::Told(found) = found else { return };
        let expected = found.kvs.first().map_or(0, |kv| number(&kv.value));
        let new = self.world.unique();
        let invoked = self.world.event();
        let request = swap(&key, expected, new);
        let ended = self.ask(|keyspace| async move { keyspace.txn(request).await }).await;
        let (call, completed) = match ended {
            Ended::Told(answer) if answer.succeeded => {
                (Call::Swap(expected, new, true), Some(self.world.event()))
            }
            Ended::Told(answer) => {
                let seen = match answer.responses.first().and_then(|one| one.response.as_ref()) {
                    Some(Response::ResponseRange(found)) => {
                        found.kvs.first().map_or(0, |kv| number(&kv.value))
                    }
                    _ => 0,
                };
                if seen == expected {
                    self.world.violation(format!("a swap of {seen} failed and saw {seen}"));
                }
                (Call::Read(seen), Some(self.world.event()))
            }
            Ended::InDoubt => (Call::Swap(expected, new, true), None),
            Ended::Refused => return,
        };
        self.record(register, call, invoked, completed);
    }

    async fn put_unique(&mut self) {
        let key = format!("unique/{}", self.world.unique());
        let request = put(&key, 1);
        let ended = self.ask(|keyspace| async move { keyspace.put(request).await }).await;
        let mut told = self.world.told();
        match ended {
            Ended::Told(_) => told.acknowledged.push(key),
            Ended::InDoubt => told.in_doubt += 1,
            Ended::Refused => {}
        }
    }

    /// Holds leases with a key each, and looks that the key is there for as long as the lease was promised.
    pub async fn hold_leases(mut self) {
        while !self.world.is_over() {
            let lease = i64::try_from(self.world.unique()).unwrap_or(i64::MAX);
            let key = format!("lease/{lease}");
            let began = Instant::now();
            let grant = pb::LeaseGrantRequest { id: lease, ttl: LEASE_TTL };
            let granted = self.ask(|keyspace| async move { keyspace.lease_grant(grant).await });
            let Ended::Told(granted) = granted.await else {
                self.think().await;
                continue;
            };
            let mut request = put(&key, 1);
            request.lease = lease;
            let bound = self.ask(|keyspace| async move { keyspace.put(request).await }).await;
            let promised = began + Duration::from_secs(granted.ttl.unsigned_abs());
            if matches!(bound, Ended::Told(_)) {
                self.hold(lease, &key, promised).await;
            }
        }
    }

    async fn hold(&mut self, lease: i64, key: &str, mut promised: Instant) {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(100..1200))).await;
            let began = Instant::now();
            let kept = self
                .ask(|keyspace| async move { keyspace.lease_keep_alive(LeaseId(lease)).await })
                .await;
            let early = began < promised;
            if let Ended::Told(ttl) = kept {
                self.world.told().operations += 1;
                if ttl > 0 {
                    promised = promised.max(began + Duration::from_secs(ttl.unsigned_abs()));
                } else if early && Instant::now() < promised {
                    self.world.violation(format!("lease {lease} was gone before its time"));
                }
            }
            let request = get(key);
            let found = self.ask(|keyspace| async move { keyspace.range(request).await }).await;
            let Ended::Told(found) = found else { continue };
            if found.kvs.is_empty() {
                if Instant::now() < promised {
                    let left = promised - Instant::now();
                    self.world.violation(format!("{key} ended {left:?} before its time"));
                }
                return;
            }
        }
    }
}

pub fn register_key(register: u64) -> String {
    format!("register/{register}")
}

fn put(key: &str, value: u64) -> pb::PutRequest {
    pb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.to_string().into_bytes().into(),
        ..pb::PutRequest::default()
    }
}

pub fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..pb::RangeRequest::default() }
}

fn swap(key: &str, expected: u64, new: u64) -> pb::TxnRequest {
    let (target, union) = if expected == 0 {
        (pb::compare::CompareTarget::Version, pb::compare::TargetUnion::Version(0))
    } else {
        let value = expected.to_string().into_bytes().into();
        (pb::compare::CompareTarget::Value, pb::compare::TargetUnion::Value(value))
    };
    let compare = pb::Compare {
        key: Bytes::copy_from_slice(key.as_bytes()),
        target: target.into(),
        target_union: Some(union),
        ..pb::Compare::default()
    };
    let op = |request| pb::RequestOp { request: Some(request) };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Op::RequestPut(put(key, new)))],
        failure: vec![op(Op::RequestRange(get(key)))],
    }
}

fn number(value: &Bytes) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}
