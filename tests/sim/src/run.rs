//! One run: several lives of one member on the same disks, the power going at a random sync in each.

use std::time::Duration;

use quorate_core::api::pb::etcdserverpb as pb;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::life::{self, Disks, Member};
use crate::load::{Acknowledged, Client};
use crate::trace::Trace;

const LIVES: u64 = 4;
const CLIENTS: u64 = 4;
const CALLS: usize = 150;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Everything that happened.
    pub trace: String,
    /// Writes that clients were told had happened.
    pub acknowledged: usize,
    /// Times the power went in the middle of the load.
    pub cuts: usize,
}

/// Runs `seed` to its end; panics with the seed when something acknowledged is gone.
pub fn run(seed: u64) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed);
    let trace = Trace::kept();
    let mut disks = Disks::default();
    let mut acknowledged = Acknowledged::new();
    let mut cuts = 0;
    for number in 0..LIVES {
        let life_seed = rng.random();
        let syncs = disks.journal.syncs();
        disks.journal.freeze_at(syncs + rng.random_range(40..500));
        let told = life::live(
            life_seed,
            one_life(disks.clone(), life_seed, number, acknowledged.clone(), trace.clone()),
        )
        .unwrap_or_else(|error| panic!("seed {seed}, life {number}: {error}"));
        acknowledged.extend(told);
        if disks.journal.is_frozen() {
            cuts += 1;
        }
        disks = disks.after_power_cut(rng.random());
    }
    Outcome { trace: trace.text(), acknowledged: acknowledged.len(), cuts }
}

async fn one_life(
    disks: Disks,
    seed: u64,
    number: u64,
    before: Acknowledged,
    trace: Trace,
) -> Result<Acknowledged, String> {
    let member = match life::open(&disks, seed).await {
        Ok(member) => member,
        // The power went while it opened.
        Err(_) if disks.journal.is_frozen() => return Ok(Acknowledged::new()),
        Err(error) => return Err(error),
    };
    let ready = tokio::time::timeout(Duration::from_secs(60), member.keyspace.ready()).await;
    match ready {
        Ok(Ok(())) => {}
        _ if disks.journal.is_frozen() => return Ok(Acknowledged::new()),
        Ok(Err(error)) => return Err(format!("not ready: {error:?}")),
        Err(_) => return Err("no leader within 60 simulated seconds".to_owned()),
    }
    check(&member, &before, &trace).await.or_else(|lost| match disks.journal.is_frozen() {
        true => Ok(()),
        false => Err(lost),
    })?;
    Ok(load(&member, seed, number, &trace).await)
}

/// Everything acknowledged in earlier lives is there, once.
async fn check(member: &Member, before: &Acknowledged, trace: &Trace) -> Result<(), String> {
    for (key, (revision, value)) in before {
        let request =
            pb::RangeRequest { key: key.as_bytes().to_vec().into(), ..Default::default() };
        let answer = member.keyspace.range(request).await.map_err(|e| format!("{key}: {e:?}"))?;
        let kv = answer.kvs.first().ok_or_else(|| format!("{key}, acknowledged, is lost"))?;
        if (kv.version, kv.mod_revision, &kv.value) != (1, *revision, value) {
            return Err(format!("{key}: acknowledged at {revision}, now at {}", kv.mod_revision));
        }
    }
    let at = member.keyspace.revision();
    trace.line(Duration::ZERO, || format!("{} keys are there, revision {at}", before.len()));
    Ok(())
}

async fn load(member: &Member, seed: u64, number: u64, trace: &Trace) -> Acknowledged {
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let name = format!("life{number}/client{client}");
            let client = Client { name, seed: seed ^ (client + 1).rotate_left(32), calls: CALLS };
            tokio::spawn(client.run(member.keyspace.clone(), trace.clone()))
        })
        .collect();
    let mut acknowledged = Acknowledged::new();
    for client in clients {
        acknowledged.extend(client.await.expect("a client does not panic"));
    }
    acknowledged
}
