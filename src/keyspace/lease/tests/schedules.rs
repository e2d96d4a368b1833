//! Random schedules of grants, keep-alives, revokes, lost leadership and failing proposals: no lease ends before the
//! time it was promised, and every lease ends once nothing stands in its way.
//!
//! Replay one seed: `QUORATE_SEED=<n> cargo test -p quorate --lib keyspace::lease::tests::schedules`

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::api::ids::{LeaseId, Term};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, timeout};

use super::double::{Fate, Member, pass};

/// Until when the lease is promised.
fn grant(random: &mut StdRng, member: &Member, id: i64) -> Instant {
    let ttl = random.random_range(2..20);
    member.grant(id, ttl);
    Instant::now() + Duration::from_secs(ttl as u64)
}

async fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let (member, running) = Member::leading();
    let mut term = 1;
    let mut leads = true;
    // Since when nobody has promised anything.
    let mut silent = Instant::now();
    // The earliest that each lease may end: what its holder was promised.
    let mut promised: BTreeMap<LeaseId, Instant> = BTreeMap::new();
    let mut revoked = Vec::new();
    for id in 1..300 {
        pass(random.random_range(0.0..1.0)).await;
        match random.random_range(0..100) {
            0..40 => {
                promised.insert(LeaseId(id), grant(&mut random, &member, id));
                if !leads {
                    // By another leader, which is heard with it.
                    silent = Instant::now();
                }
            }
            40..80 => {
                let alive = member.alive();
                if let Some(id) = alive.get(random.random_range(0..alive.len().max(1))) {
                    let lessor = member.lessor();
                    let renewal = lessor.renew(LeaseId(*id));
                    let renewal = timeout(Duration::from_millis(1), renewal);
                    if let Ok(Ok(ttl)) = renewal.await {
                        let until = Instant::now() + Duration::from_secs(ttl as u64);
                        promised.insert(LeaseId(*id), until - Duration::from_millis(2));
                    }
                }
            }
            80..85 => {
                if let Some(id) = member.alive().first() {
                    member.revoke(*id);
                    revoked.push(LeaseId(*id));
                }
            }
            85..90 => {
                let fates = [Fate::Applied, Fate::Applied, Fate::Failed, Fate::Waits];
                member.set_fate(fates[random.random_range(0..4)]);
            }
            90..94 => member.set_confirms(random.random_bool(0.7)),
            _ if leads => {
                member.follow();
                leads = false;
                silent = Instant::now();
            }
            _ => {
                term += 1;
                member.lessor().leads(Some(Term(term)));
                if random.random_bool(0.5) {
                    // By another leader, which did not live to commit it.
                    promised.insert(LeaseId(id), grant(&mut random, &member, id));
                }
                member.begin(term);
                leads = true;
                if random.random_bool(0.7) {
                    member.lessor().last_heard(Term(term), silent);
                }
            }
        }
    }
    member.set_confirms(true);
    member.set_fate(Fate::Applied);
    member.lead(term + 1);
    pass(60.0).await;
    assert_eq!(member.alive(), [0; 0], "seed {seed}: what is due ends");
    for (id, at) in member.ended() {
        assert!(revoked.contains(&id) || at >= promised[&id], "seed {seed}: {id} ended early");
    }
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn no_schedule_ends_a_lease_early_or_keeps_one_for_ever() {
    let seeds: Vec<u64> = match std::env::var("QUORATE_SEED") {
        Ok(seed) => vec![seed.parse().expect("QUORATE_SEED is a number")],
        Err(_) => (1..=100).collect(),
    };
    for seed in seeds {
        run(seed).await;
    }
}
