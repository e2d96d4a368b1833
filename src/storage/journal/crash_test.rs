//! Crashes anywhere: guards against every way in which a power cut or a kill could take back an acknowledged change.

use super::model_test::{random_lives, stopped_at};

fn replay(seed: u64) -> String {
    format!("JOURNAL_SEED={seed} cargo test -p quorate --lib storage::journal::crash_test")
}

/// The seeds to run: one when JOURNAL_SEED names it, more when JOURNAL_SEEDS says how many.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("JOURNAL_SEED") {
        Ok(seed) => vec![seed.parse().expect("JOURNAL_SEED is a number")],
        Err(_) => {
            let more = std::env::var("JOURNAL_SEEDS").ok();
            (0..more.map_or(count, |n| n.parse().expect("JOURNAL_SEEDS is a number"))).collect()
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_at_any_sync_point() {
    for seed in seeds(4) {
        let bursts = 40;
        let syncs = stopped_at(seed, bursts, u64::MAX - 1000);
        let syncs = syncs.unwrap_or_else(|why| panic!("seed {seed}: {why}: {}", replay(seed)));
        for at in 0..syncs {
            if let Err(why) = stopped_at(seed, bursts, at) {
                panic!("seed {seed}, power cut at sync {at}: {why}: {}", replay(seed));
            }
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_over_many_lives() {
    for seed in seeds(80) {
        if let Err(why) = random_lives(seed, None, 6) {
            panic!("seed {seed}: {why}: {}", replay(seed));
        }
    }
}
