//! When and how the power goes in one life, all drawn from the run's seed and the life's number.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Options;
use crate::powerfs::trap::Armed;

/// The moment of a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum When {
    /// At a changing call since the process started: while it recovers.
    Startup(Armed),
    /// When the time under load is over.
    Time,
    /// At a changing call under load: between a write and its sync, say.
    Calls(Armed),
    /// After a while, at a changing call on a path with an aimed-at pattern, or soon after it.
    Aimed { after: Duration, trap: Armed },
}

/// One life's.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) when: When,
    /// The longest time under load.
    pub(crate) life: Duration,
    /// Between the cut and the kill: an answer given now is a lie.
    pub(crate) linger: Duration,
    /// That the power is really cut; otherwise the process is only killed and the disk keeps everything.
    pub(crate) power: bool,
    /// That the folder is also damaged under the running server.
    pub(crate) live: bool,
    pub(crate) rng: StdRng,
}

impl Plan {
    pub(crate) fn draw(options: &Options, life: u32) -> Self {
        let seed = mix(options.seed, u64::from(life));
        let mut rng = StdRng::seed_from_u64(seed);
        let longest = options.life_ms_max.max(options.life_ms_min + 1);
        let ms = rng.random_range(options.life_ms_min..longest);
        let when = when(options, &mut rng, ms);
        let aimed = matches!(when, When::Aimed { .. });
        Self {
            seed,
            when,
            life: Duration::from_millis(if aimed { ms.max(options.aim_ms_max) } else { ms }),
            linger: Duration::from_millis(rng.random_range(0..20)),
            power: options.state_glob.is_none() || rng.random_bool(0.5),
            live: options.state_glob.is_some() && rng.random_range(0..100) < options.live_percent,
            rng,
        }
    }
}

fn when(options: &Options, rng: &mut StdRng, life_ms: u64) -> When {
    if rng.random_range(0..100) < options.startup_percent {
        return When::Startup(any_call(rng, 8));
    }
    if !options.aim.is_empty() && rng.random_range(0..100) < options.aim_percent {
        let pattern = options.aim[rng.random_range(0..options.aim.len())].clone();
        let after = Duration::from_millis(rng.random_range(0..=life_ms / 2));
        let matching = rng.random_range(1..=options.aim_calls_max);
        let then = if rng.random_bool(0.5) { 0 } else { magnitude(rng, 5) };
        return When::Aimed { after, trap: Armed { pattern, matching, then } };
    }
    if rng.random_bool(0.5) {
        return When::Calls(any_call(rng, 11));
    }
    When::Time
}

fn any_call(rng: &mut StdRng, bits: u32) -> Armed {
    Armed { pattern: String::new(), matching: 0, then: magnitude(rng, bits) }
}

/// A number whose magnitude, below 2 to the `bits`, is drawn first: what servers do in a while differs that much.
fn magnitude(rng: &mut StdRng, bits: u32) -> u64 {
    let bits = rng.random_range(0..bits);
    rng.random_range(1..=1 << bits)
}

/// A seed for each life that has nothing to do with its neighbours' (splitmix64's finaliser).
fn mix(seed: u64, life: u64) -> u64 {
    let mut state = seed ^ life.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
