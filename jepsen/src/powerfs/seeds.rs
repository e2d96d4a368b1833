//! Random tests run over many seeds; the one that fails says how to run it alone.

use rand::SeedableRng;
use rand::rngs::StdRng;

const VARIABLE: &str = "POWERFS_SEED";

/// Runs `body` once for each seed below `count`, or only for the one in the environment.
pub(crate) fn for_seeds(test: &str, count: u64, body: impl Fn(&mut StdRng)) {
    let chosen = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
    for seed in chosen.map_or(0..count, |seed: u64| seed..seed + 1) {
        let _says_how = OnPanic { test, seed };
        body(&mut StdRng::seed_from_u64(seed));
    }
}

struct OnPanic<'a> {
    test: &'a str,
    seed: u64,
}

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { test, seed } = self;
            println!("replay: {VARIABLE}={seed} cargo test -p quorate-jepsen {test}");
        }
    }
}
