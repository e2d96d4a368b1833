//! The builder against inserts one by one.

use std::hash::{BuildHasher, RandomState};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::api::ids::Revision;

/// A new seed each run; a failure prints it with the command that replays it.
fn config(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig { cases, failure_persistence: None, ..Default::default() };
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(cases),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    println!("replay: PROPTEST_RNG_SEED={seed} cargo test -p quorate-core --lib rebuild");
    config
}

/// Keys that share much, end within a word, or hold zeros as padding does.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let front = prop::sample::select(vec![
        &b""[..],
        b"\0",
        b"\0\0\0\0\0\0\0\0",
        b"/registry/pods/default/pod-",
        b"/registry/pods/default/pod-of-another-name-",
        b"/registry/services/",
    ]);
    let back = vec(prop::sample::select(vec![0, 1, b'a', b'b', 0xff]), 0..12);
    (front, back).prop_map(|(front, back)| [front, &back].concat())
}

type Keys = BTreeMap<Box<[u8]>, KeyIndex>;

fn one_by_one(rows: &[(Vec<u8>, Packed, i64)]) -> Keys {
    let mut keys = Keys::new();
    for (key, packed, lease) in rows {
        match keys.get_mut(key.as_slice()) {
            Some(index) => index.push(*packed, *lease, None),
            None => {
                let index = KeyIndex::new(*packed, packed.main(), 7, *lease, None);
                keys.insert(key.as_slice().into(), index);
            }
        }
    }
    keys
}

fn built(helping_rows: usize, rows: &[(Vec<u8>, Packed, i64)]) -> Keys {
    let mut builder = Builder::with_helpings(helping_rows);
    for (key, packed, lease) in rows {
        // For all but the first revision of a key these two are wrong, and do not count.
        builder.push(key, *packed, packed.main(), 7, *lease);
    }
    builder.finish()
}

fn assert_same(built: &Keys, expected: &Keys, newest: i64) {
    assert!(built.keys().eq(expected.keys()));
    for ((key, built), (_, expected)) in built.iter().zip(expected) {
        let facts = |index: &KeyIndex| (index.newest(), index.lease(), index.get_newest());
        assert_eq!(facts(built), facts(expected), "{}", key.escape_ascii());
        for at in 0..=newest {
            assert_eq!(built.get(at), expected.get(at), "{} at {at}", key.escape_ascii());
        }
    }
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn helpings_of_any_size_build_what_inserts_build(
        pool in vec(key(), 1..80),
        picks in vec((any::<prop::sample::Index>(), any::<bool>(), 0..3i64), 0..400),
        helping_rows in prop::sample::select(vec![1, 5, 40, 1000]),
    ) {
        let row = |(main, (key, tombstone, lease)): (usize, &(prop::sample::Index, bool, i64))| {
            let revision = Revision::new(2 + main as i64 / 2, main as i64 % 2);
            (key.get(&pool).clone(), Packed::new(revision, *tombstone), *lease)
        };
        let rows: Vec<_> = picks.iter().enumerate().map(row).collect();
        assert_same(&built(helping_rows, &rows), &one_by_one(&rows), 2 + picks.len() as i64 / 2);
    }
}

/// Each word tells one key from all others, far beyond the depth where comparing takes over.
#[test]
fn keys_that_each_differ_one_word_further_are_sorted() {
    let key = |words: usize| [vec![b'k'; 8 * words], vec![b'x']].concat();
    let row = |n: usize| {
        let packed = Packed::new(Revision::new(2 + n as i64, 0), false);
        (key(n * 389 % 1000), packed, 0)
    };
    let rows: Vec<_> = (0..1000).map(row).collect();
    let keys: Vec<Vec<u8>> = built(1000, &rows).keys().map(|key| key.to_vec()).collect();
    assert_eq!(keys, (0..1000).rev().map(key).collect::<Vec<_>>());
}
