use super::rig::{Place, eventually, open, put, try_open};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn a_restart_in_good_order_finds_everything_in_the_state_store() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::files(folder.path());
    let mut member = open(&place);
    member.write_randomly(1, 200, 300);
    member.propose_blank();
    let before = member.snapshot();
    member.close();

    let member = open(&place);
    assert_eq!(member.rebuilt, None);
    assert_eq!(member.replayed, 0);
    assert_eq!(member.snapshot(), before);
}

#[test]
fn a_restart_after_a_crash_applies_what_the_state_store_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::files(folder.path());
    for round in 0..5 {
        let mut member = open(&place);
        member.write_randomly(round, 50, 300);
        if round % 2 == 0 {
            member.settle();
        }
        let before = member.snapshot();
        drop(member);

        let member = open(&place);
        assert_eq!(member.snapshot(), before, "round {round}");
        member.close();
    }
}

#[test]
fn a_restart_from_a_base_and_the_journal_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::files(folder.path());
    let mut member = open(&place);
    member.write_randomly(3, 200, 300);
    member.take_base();
    let log = member.journal.group(super::rig::GROUP);
    assert_eq!(log.state().purged, log.state().base.map(|base| base.at));
    member.write_randomly(4, 100, 300);
    let before = member.snapshot();
    member.close();
    fs::remove_dir_all(place.folder.join("state-0")).unwrap();

    let member = open(&place);
    assert_eq!(member.rebuilt.as_ref().unwrap().reason, "there was none");
    assert!(member.replayed <= 100, "only what the base lacks is applied");
    assert_eq!(member.snapshot(), before);
    member.close();
    assert_eq!(open(&place).rebuilt, None);
}

#[test]
fn values_longer_than_a_block_survive_restart_and_rebuild() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place { segment_bytes: 4 << 20, ..Place::files(folder.path()) };
    let mut member = open(&place);
    for n in 0..20u8 {
        member.propose(vec![put(&format!("key-{n}"), &vec![n; 400_000]), put("small", &[n])]);
    }
    member.take_base();
    let before = member.snapshot();
    member.close();
    let blobs = fs::read_dir(place.folder.join("state-0/blobs")).unwrap().count();
    assert_eq!(blobs, 0, "sled moved a page to an unsynced file");

    let member = open(&place);
    assert_eq!(member.snapshot(), before);
    drop(member);
    fs::remove_dir_all(place.folder.join("state-0")).unwrap();
    assert_eq!(open(&place).snapshot(), before);
}

/// What may happen to sled's folder while nobody looks.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Deleted,
    Flipped,
    Truncated,
    RolledBack,
    FileMissing,
    Zeroed,
}

const DAMAGES: [Damage; 6] = [
    Damage::Deleted,
    Damage::Flipped,
    Damage::Truncated,
    Damage::RolledBack,
    Damage::FileMissing,
    Damage::Zeroed,
];

fn damage(kind: Damage, state: &Path, older: &Path, rng: &mut StdRng) {
    let files = files_of(state);
    let file = files[rng.random_range(0..files.len())].clone();
    let mut bytes = fs::read(&file).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |at| at + 1);
    match kind {
        Damage::Deleted => fs::remove_dir_all(state).unwrap(),
        Damage::FileMissing => fs::remove_file(&file).unwrap(),
        Damage::RolledBack => {
            fs::remove_dir_all(state).unwrap();
            copy(older, state);
        }
        Damage::Truncated => {
            bytes.truncate(rng.random_range(0..used));
            fs::write(&file, bytes).unwrap();
        }
        Damage::Flipped if !bytes.is_empty() => {
            bytes[rng.random_range(0..used)] ^= 1 << rng.random_range(0..8);
            fs::write(&file, bytes).unwrap();
        }
        Damage::Zeroed if !bytes.is_empty() => {
            let at = rng.random_range(0..used) / 512 * 512;
            let end = (at + 512).min(bytes.len());
            bytes[at..end].fill(0);
            fs::write(&file, bytes).unwrap();
        }
        Damage::Flipped | Damage::Zeroed => {}
    }
}

fn files_of(state: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Replay one case: `SEED=<n> cargo test -p quorate --lib a_damaged_state_store`.
#[test]
fn a_damaged_state_store_is_found_out_and_rebuilt() {
    let only: Option<u64> = std::env::var("SEED").ok().map(|seed| seed.parse().unwrap());
    let mut rebuilt = 0;
    for seed in 0..60 {
        if only.is_some_and(|only| only != seed) {
            continue;
        }
        let kind = DAMAGES[seed as usize % DAMAGES.len()];
        rebuilt += usize::from(survives(seed, kind));
    }
    assert!(only.is_some() || rebuilt >= 30, "only {rebuilt} of 60 damages were noticed");
}

/// A base copies what sled holds: damage to it must never become part of the truth.
#[test]
fn no_base_is_made_from_a_damaged_state_store() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::files(folder.path());
    let state = place.folder.join("state-0");
    let mut member = open(&place);
    member.write_randomly(1, 60, 20_000);
    let before = member.snapshot();
    member.close();
    let mut found_out = 0;
    for seed in 0..8 {
        let mut rng = StdRng::seed_from_u64(seed);
        damage(Damage::Zeroed, &state, folder.path(), &mut rng);
        let member = open(&place);
        if member.rebuilt.is_none() {
            // The damage, if it is to a value, shows only now.
            member.store.request_base();
            eventually(|| {
                let _refused = member.store.run_upkeep();
                member.store.figures().bases > 0 || member.store.stopped().is_some()
            });
            found_out += usize::from(member.store.stopped().is_some());
        }
        drop(member);
        let member = open(&place);
        assert_eq!(member.snapshot(), before, "seed {seed}");
        member.close();
    }
    println!("{found_out} of 8 damages were found while a base was written");
}

/// Whether the state store was rebuilt. Either way everything must be there.
fn survives(seed: u64, kind: Damage) -> bool {
    println!("SEED={seed} {kind:?}");
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let older = tempfile::tempdir().unwrap();
    let place = Place::files(folder.path());
    let state = place.folder.join("state-0");

    let mut member = open(&place);
    member.write_randomly(seed, 25, 5000);
    member.close();
    copy(&state, older.path());
    let mut member = open(&place);
    member.write_randomly(seed + 1000, 12, 5000);
    if rng.random_bool(0.5) {
        member.take_base();
    }
    member.write_randomly(seed + 2000, 12, 5000);
    let before = member.snapshot();
    member.close();
    damage(kind, &state, older.path(), &mut rng);

    let mut member = open(&place);
    let was_rebuilt = member.rebuilt.is_some();
    if !was_rebuilt {
        // Values are not read at a start: damage to them shows when they are read, or when a base is made.
        let damaged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| member.snapshot()));
        match damaged {
            Ok(after) => assert_eq!(after, before, "SEED={seed} {kind:?}"),
            Err(_) => {
                assert!(member.store.stopped().is_some(), "SEED={seed} {kind:?}");
                drop(member);
                member = open(&place);
                assert!(member.rebuilt.as_ref().unwrap().reason.starts_with("damage noted"));
            }
        }
    }
    assert_eq!(member.snapshot(), before, "SEED={seed} {kind:?}");
    member.close();
    let member = open(&place);
    assert_eq!(member.rebuilt, None, "SEED={seed} {kind:?}");
    assert_eq!(member.snapshot(), before, "SEED={seed} {kind:?}");
    was_rebuilt
}

#[test]
fn a_damaged_or_missing_base_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::files(folder.path());
    let mut member = open(&place);
    member.write_randomly(3, 20, 300);
    member.take_base();
    let base = place.folder.join(member.store.base().unwrap().file_name);
    member.close();
    fs::remove_dir_all(place.folder.join("state-0")).unwrap();
    let good = fs::read(&base).unwrap();

    let refusal = || match try_open(&place) {
        Ok(_) => panic!("a damaged base was believed"),
        Err(error) => error.to_string(),
    };
    let mut rng = StdRng::seed_from_u64(5);
    for _ in 0..20 {
        let mut bad = good.clone();
        let at = rng.random_range(0..bad.len());
        bad[at] ^= 1 << rng.random_range(0..8);
        fs::write(&base, bad).unwrap();
        assert!(refusal().contains("restore a backup"), "byte {at}");
    }
    fs::write(&base, &good[..good.len() - 1]).unwrap();
    assert!(refusal().contains("bytes long instead of"));
    fs::remove_file(&base).unwrap();
    assert!(refusal().contains("join under a new id"));
    fs::write(&base, good).unwrap();
    open(&place).close();
}
