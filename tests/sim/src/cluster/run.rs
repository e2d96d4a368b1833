//! One run of three members: load and faults for a while, then everything is healed and must serve again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::api::pb::etcdserverpb as pb;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::checker::is_linearizable;
use super::clients::{Client, REGISTERS, World, get, register_key};
use super::member::MEMBERS;
use super::nemesis::Nemesis;
use super::net::{Bug, Net};
use super::watchman;
use crate::life;
use crate::trace::Trace;

/// How long harm is done, in simulated time.
const LENGTH: Duration = Duration::from_secs(60);
/// Clients of registers and unique keys, and holders of leases.
const CLIENTS: u64 = 6;
const HOLDERS: u64 = 2;
/// Once healed, every member serves within this.
const RECOVERY: Duration = Duration::from_secs(20);

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Everything that happened.
    pub trace: String,
    /// What must not be; empty as a rule.
    pub violations: Vec<String>,
    /// How often each kind of fault took effect.
    pub coverage: BTreeMap<&'static str, u64>,
    /// Faults that were made.
    pub faults: usize,
    /// Calls of clients.
    pub operations: usize,
    /// Unique keys that were acknowledged, and those in doubt.
    pub unique: (usize, usize),
}

/// Runs `seed`, with a bug put back in or without.
pub fn run(seed: u64, bug: Option<Bug>) -> Outcome {
    life::live(seed, whole(seed, bug))
}

async fn whole(seed: u64, bug: Option<Bug>) -> Outcome {
    let trace = Trace::default();
    let net = Net::new(seed.rotate_left(8), bug);
    let (end, over) = watch::channel(false);
    let world = World::new(Arc::clone(&net), trace.clone(), over);
    let mut nemesis = Nemesis::new(&world, seed.rotate_left(16));
    nemesis.start_all().await;
    serve_again(&world).await;

    let watchman = tokio::spawn(watchman::watch(Arc::clone(&world)));
    let mut clients = Vec::new();
    for id in 0..CLIENTS {
        let client = Client::new(&world, id, seed ^ (id + 1).rotate_left(32));
        clients.push(tokio::spawn(client.run()));
    }
    for id in CLIENTS..CLIENTS + HOLDERS {
        let client = Client::new(&world, id, seed ^ (id + 1).rotate_left(32));
        clients.push(tokio::spawn(client.hold_leases()));
    }
    nemesis.run(LENGTH).await;
    net.heal();
    nemesis.start_all().await;
    serve_again(&world).await;
    end.send_replace(true);
    for client in clients {
        if client.await.is_err() {
            world.violation("a client panicked".to_owned());
        }
    }
    check_state(&world).await;
    for differs in watchman::compare_logs(&nemesis.logs) {
        world.violation(differs);
    }
    watchman.abort();
    for id in MEMBERS {
        // A member holds the network and the network holds the member: nothing of this run may outlive it.
        drop(net.detach(id));
    }
    check_registers(&world);
    let told = world.told();
    Outcome {
        trace: trace.text(),
        violations: told.violations.clone(),
        coverage: net.coverage(),
        faults: nemesis.faults,
        operations: told.operations,
        unique: (told.acknowledged.len(), told.in_doubt),
    }
}

/// Every member answers a linearizable read.
async fn serve_again(world: &World) {
    let began = Instant::now();
    for id in MEMBERS {
        let serves = async {
            loop {
                if let Some((_, keyspace)) = world.net.member(id)
                    && keyspace.range(get("x")).await.is_ok()
                {
                    return;
                }
                // A member that has failed answers at once.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if timeout(RECOVERY, serves).await.is_err() {
            world.violation(format!("member {id} does not serve {RECOVERY:?} after the harm"));
        }
    }
    world.line(&format!("all serve after {:?}", began.elapsed()));
}

/// Every acknowledged key is there on every member, no key was written twice, and all members are the same.
async fn check_state(world: &World) {
    let mut states = Vec::new();
    for id in MEMBERS {
        let Some((_, keyspace)) = world.net.member(id) else { continue };
        let request = pb::RangeRequest {
            key: Bytes::from_static(b"unique/"),
            range_end: Bytes::from_static(b"unique0"),
            ..pb::RangeRequest::default()
        };
        let found = match keyspace.range(request).await {
            Ok(found) => found,
            Err(error) => {
                world.violation(format!("member {id} does not read: {error}"));
                continue;
            }
        };
        let versions: BTreeMap<_, _> =
            found.kvs.iter().map(|kv| (kv.key.as_ref(), kv.version)).collect();
        let acknowledged = world.told().acknowledged.clone();
        for key in &acknowledged {
            if !versions.contains_key(key.as_bytes()) {
                world.violation(format!("{key} was acknowledged and is not on member {id}"));
            }
        }
        if let Some((key, version)) = versions.iter().find(|(_, version)| **version != 1) {
            let key = String::from_utf8_lossy(key);
            world.violation(format!("{key} was written once and has version {version} on {id}"));
        }
        states.push((id, keyspace));
    }
    let level = async {
        loop {
            let at: Vec<_> = states.iter().map(|(_, one)| one.status().applied_index).collect();
            if at.iter().all(|index| *index == at[0]) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(RECOVERY, level).await.is_err() {
        world.violation("members do not come level".to_owned());
        return;
    }
    let mut hashes = Vec::new();
    for (id, keyspace) in &states {
        let whole = keyspace.hash().await.map(|hash| hash.hash);
        let kv = keyspace.hash_kv(0).await.map(|hash| (hash.hash, hash.hash_revision));
        hashes.push((*id, whole.ok(), kv.ok()));
    }
    let first = hashes.first().map(|one| (one.1, one.2));
    if hashes.iter().any(|one| Some((one.1, one.2)) != first) {
        world.violation(format!("members differ at the end: {hashes:?}"));
    }
}

fn check_registers(world: &World) {
    for register in 0..REGISTERS {
        let history = world.told().registers.get(&register).cloned().unwrap_or_default();
        if !is_linearizable(&history) {
            let key = register_key(register);
            world.violation(format!("{key} is not linearizable over {} calls", history.len()));
        }
    }
}
