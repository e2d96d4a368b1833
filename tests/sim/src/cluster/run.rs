//! One run of three members, or of as many as come and go: load and faults for a while, then everything is healed and must serve again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::bug::Bug;
use super::changes::Changes;
use super::checker::is_linearizable;
use super::clients::{Client, REGISTERS, get, get_prefix, register_key};
use super::engine;
use super::fleet::Fleet;
use super::leases;
use super::nemesis::Nemesis;
use super::net::Net;
use super::watchers::{self, Seen, Watcher};
use super::watchman;
use super::world::{Heard, World};
use crate::trace::Trace;

/// How long harm is done, in simulated time.
const LENGTH: Duration = Duration::from_secs(60);
/// And how often at least.
const FAULTS_MIN: usize = 12;
/// Clients of registers and unique keys, and holders of leases.
const CLIENTS: u64 = 6;
const HOLDERS: u64 = 4;
/// What watchers watch: everything, twice, and some keys.
const WATCHED: [&str; 4] = ["", "", "register/", "lease/"];
/// Frames of whole states at which sender or receiver dies, in a thousand.
const SABOTAGE: u32 = 60;
/// Once healed, every member serves within this.
const RECOVERY: Duration = Duration::from_secs(20);
/// A call of the checks; it is bounded by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Everything that happened, if it was to be kept.
    pub trace: String,
    /// What must not be; empty as a rule.
    pub violations: Vec<String>,
    /// How often each kind of fault took effect.
    pub coverage: BTreeMap<&'static str, u64>,
    /// How often something was looked at or compared.
    pub looks: BTreeMap<&'static str, u64>,
    /// Faults that were made.
    pub faults: usize,
    /// Calls of clients.
    pub operations: usize,
    /// Unique keys that were acknowledged, and those in doubt.
    pub unique: (usize, usize),
    /// Simulated time, all in all.
    pub length: Duration,
    /// From the end of all harm until every member served.
    pub recovery: Duration,
}

/// Runs `seed`, with a bug put back in or without; keeps a trace if asked to.
pub fn run(seed: u64, bug: Option<Bug>, traced: bool) -> Outcome {
    engine::run(seed, bug, move |fleet, net| {
        quorate::consensus::seeded(seed, whole(seed, fleet, net, false, traced))
    })
}

/// Runs `seed` with members that come and go.
pub fn run_with_changes(seed: u64, traced: bool) -> Outcome {
    engine::run(seed, None, move |fleet, net| {
        quorate::consensus::seeded(seed, whole(seed, fleet, net, true, traced))
    })
}

async fn whole(
    seed: u64,
    fleet: Arc<Fleet>,
    net: Arc<Net>,
    changes: bool,
    traced: bool,
) -> Outcome {
    let trace = if traced { Trace::kept() } else { Trace::default() };
    let (end, over) = watch::channel(false);
    let world = World::new(fleet, Arc::clone(&net), trace.clone(), over);
    let mut nemesis = Nemesis::new(&world, seed.rotate_left(16));
    nemesis.start_all();
    serve_again(&world).await;

    let watchman = tokio::spawn(watchman::watch(Arc::clone(&world)));
    let seen = Seen::default();
    let own = |id: u64| seed ^ (id + 1).rotate_left(32);
    let clients: Vec<_> = (0..CLIENTS + HOLDERS)
        .map(|id| {
            let client = Client::new(&world, id, own(id));
            match id < CLIENTS {
                true => tokio::spawn(client.run()),
                false => tokio::spawn(client.hold_leases()),
            }
        })
        .collect();
    let watching: Vec<_> = (100..)
        .zip(WATCHED)
        .map(|(id, prefix)| tokio::spawn(Watcher::new(&world, &seen, own(id), prefix).run()))
        .collect();
    let changes = changes.then(|| Changes::new(&world, seed.rotate_left(24)));
    harm(&world, &mut nemesis, changes).await;
    let recovery = serve_again(&world).await;
    end.send_replace(true);
    for client in clients {
        if client.await.is_err() {
            world.violation("a client panicked".to_owned());
        }
    }
    let mut stretches = Vec::new();
    for watcher in watching {
        match watcher.await {
            Ok(more) => stretches.extend(more),
            Err(_) => world.violation("a watcher panicked".to_owned()),
        }
    }
    if watchman.await.is_err() {
        world.violation("the watchman panicked".to_owned());
    }
    for words in watchers::compare(&seen, &stretches) {
        world.violation(words);
    }
    leases::check_ended(&world).await;
    check_state(&world).await;
    check_registers(&world);
    let told = world.told();
    Outcome {
        trace: trace.text(),
        violations: told.violations.clone(),
        coverage: net.coverage(),
        looks: told.looks.clone(),
        faults: nemesis.faults,
        operations: told.operations,
        unique: (told.acknowledged.len(), told.in_doubt),
        length: world.start.elapsed(),
        recovery,
    }
}

/// Does harm for a while, then ends it all.
async fn harm(world: &Arc<World>, nemesis: &mut Nemesis, changes: Option<Changes>) {
    let (stop, stopped) = watch::channel(false);
    let changes = changes.map(|changes| tokio::spawn(changes.run(stopped)));
    world.net.sabotage(SABOTAGE);
    nemesis.run(LENGTH, FAULTS_MIN).await;
    world.net.sabotage(0);
    nemesis.heal();
    nemesis.start_all();
    stop.send_replace(true);
    if let Some(changes) = changes {
        match changes.await {
            Ok(mut changes) => changes.settle(nemesis).await,
            Err(_) => world.violation("the changes panicked".to_owned()),
        }
    }
}

/// Every member answers a linearizable read.
async fn serve_again(world: &World) -> Duration {
    let began = Instant::now();
    for id in world.fleet.cast() {
        let serves = async {
            loop {
                let read = |keyspace: quorate::keyspace::Keyspace| async move {
                    keyspace.range(get("x")).await
                };
                if let Heard::Told(Ok(_)) = world.call(id, PATIENCE, false, read).await {
                    return;
                }
                // A member that has failed answers at once.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(RECOVERY, serves).await.is_err() {
            let facts = world.fleet.member(id).map(|member| {
                let keyspace = member.keyspace;
                (keyspace.leader_view(), keyspace.raft_facts())
            });
            let words =
                format!("member {id} does not serve {RECOVERY:?} after the harm: {facts:?}");
            world.violation(words);
        }
    }
    world.line(|| format!("all serve after {:?}", began.elapsed()));
    began.elapsed()
}

/// Every acknowledged key is there on every member, no key was written twice, and all members are the same.
async fn check_state(world: &World) {
    let cast = world.fleet.cast();
    for id in cast.clone() {
        check_unique(world, id).await;
    }
    let level = async {
        loop {
            let members = cast.iter().filter_map(|id| world.fleet.member(*id));
            let at: Vec<_> = members.map(|one| one.keyspace.status().applied_index).collect();
            if at.len() == cast.len() && at.iter().all(|index| *index == at[0]) {
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
    for id in cast.clone() {
        let Some(member) = world.fleet.member(id) else { continue };
        let keyspace = member.keyspace.clone();
        let hash = member.spawn(async move {
            let whole = keyspace.hash().await.map(|hash| hash.hash);
            let kv = keyspace.hash_kv(0).await.map(|hash| (hash.hash, hash.hash_revision));
            (whole.ok(), kv.ok())
        });
        hashes.push((id, hash.await.ok()));
    }
    let first = hashes.first().map(|one| one.1);
    if first.flatten().is_none() || hashes.iter().any(|one| Some(one.1) != first) {
        world.violation(format!("members differ at the end: {hashes:?}"));
    }
}

async fn check_unique(world: &World, id: u64) {
    let request = get_prefix("unique/");
    let read = |keyspace: quorate::keyspace::Keyspace| async move { keyspace.range(request).await };
    let Heard::Told(Ok(found)) = world.call(id, PATIENCE, false, read).await else {
        return world.violation(format!("member {id} does not read"));
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
