//! Clients of all members: registers, unique keys, compactions.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate::keyspace::{Keyspace, KeyspaceError};
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::etcdserverpb::request_op::Request as Op;
use quorate_core::api::pb::etcdserverpb::response_op::Response;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::checker::{Call, Operation};
use super::world::{Heard, World};

pub const REGISTERS: u64 = 4;

/// How a call ended, as far as a client may conclude.
pub enum Ended<T> {
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
    pub member: u64,
    /// How often it does not wait for an answer.
    pub hurry: f64,
    /// The newest that was seen of each register on each life of a member.
    seen: BTreeMap<(u64, u64, u64), i64>,
}

impl Client {
    pub fn new(world: &Arc<World>, id: u64, seed: u64) -> Client {
        let rng = StdRng::seed_from_u64(seed);
        let member = 1 + id % 3;
        Client { world: Arc::clone(world), id, rng, member, hurry: 0.05, seen: BTreeMap::new() }
    }

    fn move_on(&mut self) {
        let cast = self.world.fleet.cast();
        self.member = cast[self.rng.random_range(0..cast.len())];
    }

    pub async fn think(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(10..250))).await;
    }

    /// Has the member answer.
    pub async fn ask<T, F>(&mut self, call: impl FnOnce(Keyspace) -> F) -> Ended<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, KeyspaceError>> + Send + 'static,
    {
        let patience = match self.rng.random_bool(self.hurry) {
            true => Duration::from_millis(self.rng.random_range(1..1500)),
            false => Duration::from_secs(20),
        };
        let abandon = self.rng.random_bool(0.5);
        let heard = self.world.call(self.member, patience, abandon, call).await;
        if !matches!(heard, Heard::Told(Ok(_))) {
            self.move_on();
        }
        match heard {
            Heard::Told(Ok(answer)) => Ended::Told(answer),
            Heard::NotSent
            | Heard::Told(Err(
                KeyspaceError::Refused(_)
                | KeyspaceError::DeadlineExceeded
                | KeyspaceError::TooManyRequests
                | KeyspaceError::RequestTooLarge,
            )) => Ended::Refused,
            Heard::Told(Err(_)) | Heard::Nothing => Ended::InDoubt,
        }
    }

    /// Reads, writes and swaps registers, and puts keys of its own, until the faults are over.
    pub async fn run(mut self) {
        while !self.world.is_over() {
            self.think().await;
            match self.rng.random_range(0..100) {
                0..25 => self.read().await,
                25..32 => self.read_serializable().await,
                32..50 => self.write().await,
                50..68 => self.swap().await,
                68..71 => self.compact().await,
                _ => self.put_unique().await,
            }
            self.world.told().operations += 1;
        }
    }

    fn record(&self, register: u64, call: Call, invoked: u64, completed: Option<u64>) {
        self.world.line(|| {
            let at = completed.map_or("in doubt".to_owned(), |at| format!("done at {at}"));
            format!("client {} r{register} {call:?} from {invoked} {at}", self.id)
        });
        let operation = Operation { client: self.id, call, invoked, completed };
        self.world.told().registers.entry(register).or_default().push(operation);
    }

    fn learns(&self, header: &Option<pb::ResponseHeader>) {
        self.world.knows(header.as_ref().map_or(0, |header| header.revision));
    }

    async fn range(&mut self, key: &str) -> Ended<pb::RangeResponse> {
        let request = get(key);
        let known = self.world.known();
        let member = self.member;
        let ended = self.ask(|keyspace| async move { keyspace.range(request).await }).await;
        if let Ended::Told(found) = &ended {
            let at = found.header.as_ref().map_or(0, |header| header.revision);
            if at < known {
                let words = format!("a read on member {member} is of {at}, known was {known}");
                self.world.violation(words);
            }
            self.learns(&found.header);
        }
        ended
    }

    async fn read(&mut self) {
        let register = self.rng.random_range(0..REGISTERS);
        let invoked = self.world.event();
        if let Ended::Told(found) = self.range(&register_key(register)).await {
            let seen = found.kvs.first().map_or(0, |kv| number(&kv.value));
            let completed = Some(self.world.event());
            self.record(register, Call::Read(seen), invoked, completed);
        }
    }

    /// Of whatever the member has applied: never back, while it lives.
    async fn read_serializable(&mut self) {
        let register = self.rng.random_range(0..REGISTERS);
        let request = pb::RangeRequest { serializable: true, ..get(&register_key(register)) };
        let member = self.member;
        let Some(life) = self.world.fleet.life(member) else { return self.move_on() };
        let ended = self.ask(|keyspace| async move { keyspace.range(request).await }).await;
        let Ended::Told(found) = ended else { return };
        let at = found.kvs.first().map_or(0, |kv| kv.mod_revision);
        let newest = self.seen.entry((member, life, register)).or_insert(at);
        if at < *newest {
            let words = format!("register {register} went back on member {member}: {newest}, {at}");
            self.world.violation(words);
        }
        *newest = at;
    }

    async fn write(&mut self) {
        let register = self.rng.random_range(0..REGISTERS);
        let new = self.world.unique();
        let invoked = self.world.event();
        let request = put(&register_key(register), new);
        let ended = self.ask(|keyspace| async move { keyspace.put(request).await }).await;
        let completed = match ended {
            Ended::Told(answer) => {
                self.learns(&answer.header);
                Some(self.world.event())
            }
            Ended::InDoubt => None,
            Ended::Refused => return,
        };
        self.record(register, Call::Write(new), invoked, completed);
    }

    /// Compare and swap; one that fails reads what was there instead.
    async fn swap(&mut self) {
        let register = self.rng.random_range(0..REGISTERS);
        let key = register_key(register);
        let Ended::Told(found) = self.range(&key).await else { return };
        let expected = found.kvs.first().map_or(0, |kv| number(&kv.value));
        let new = self.world.unique();
        let invoked = self.world.event();
        let request = swap(&key, expected, new);
        let ended = self.ask(|keyspace| async move { keyspace.txn(request).await }).await;
        let (call, completed) = match ended {
            Ended::Told(answer) if answer.succeeded => {
                self.learns(&answer.header);
                (Call::Swap(expected, new, true), Some(self.world.event()))
            }
            Ended::Told(answer) => {
                let seen = match answer.responses.first().and_then(|one| one.response.as_ref()) {
                    Some(Response::ResponseRange(found)) => {
                        found.kvs.first().map_or(0, |kv| number(&kv.value))
                    }
                    _ => 0,
                };
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
        if let Ended::Told(answer) = &ended {
            self.learns(&answer.header);
        }
        let mut told = self.world.told();
        match ended {
            Ended::Told(_) => told.acknowledged.push(key),
            Ended::InDoubt => told.in_doubt += 1,
            Ended::Refused => {}
        }
    }

    async fn compact(&mut self) {
        let back = self.rng.random_range(5..100);
        let revision = self.world.known() - back;
        if revision < 1 {
            return;
        }
        let physical = self.rng.random_bool(0.2);
        let request = pb::CompactionRequest { revision, physical };
        let ended = self.ask(|keyspace| async move { keyspace.compact(request).await }).await;
        if matches!(ended, Ended::Told(_)) {
            self.world.looked("compactions", 1);
        }
    }
}

pub fn register_key(register: u64) -> String {
    format!("register/{register}")
}

pub fn put(key: &str, value: u64) -> pb::PutRequest {
    pb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value_of(value),
        ..pb::PutRequest::default()
    }
}

pub fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..pb::RangeRequest::default() }
}

pub fn get_prefix(prefix: &str) -> pb::RangeRequest {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("a prefix is not empty") += 1;
    pb::RangeRequest { range_end: end.into(), ..get(prefix) }
}

fn swap(key: &str, expected: u64, new: u64) -> pb::TxnRequest {
    let (target, union) = if expected == 0 {
        (pb::compare::CompareTarget::Version, pb::compare::TargetUnion::Version(0))
    } else {
        let value = value_of(expected);
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

/// The number, and as many more bytes as it wants: up to a few thousand, few as a rule for 1.
fn value_of(number: u64) -> Bytes {
    let mut value = number.to_string().into_bytes();
    if number > 1 {
        let more = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 51;
        value.resize(value.len() + usize::try_from(more).expect("13 bits"), b'.');
    }
    value.into()
}

fn number(value: &Bytes) -> u64 {
    let text = std::str::from_utf8(value).unwrap_or_default();
    text.trim_end_matches('.').parse().unwrap_or(u64::MAX)
}
