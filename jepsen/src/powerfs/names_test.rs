//! Bug guarded: a directory sync that loses a name, and cuts that no file system could leave.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};

use rand::Rng;
use rand::rngs::StdRng;

use super::names::{Change, Ino, Names, ROOT, Slot};
use super::odds::{Losses, NameSurvival, Odds};
use super::seeds::for_seeds;

const OTHER: Ino = 2;

fn slot(rng: &mut StdRng) -> Slot {
    let name = ["a", "b", "c", "tmp"][rng.random_range(0..4)];
    Slot::new(if rng.random_bool(0.5) { ROOT } else { OTHER }, OsStr::new(name))
}

/// A random operation that the names allow now.
fn change(rng: &mut StdRng, names: &Names, next: &mut Ino) -> Change {
    let (at, to) = (slot(rng), slot(rng));
    match names.lookup(at.dir, &at.name) {
        None => {
            *next += 1;
            Change::Create { at, ino: *next }
        }
        Some(ino) if rng.random_bool(0.3) || at == to => {
            Change::Remove { at, ino, directory: false }
        }
        Some(ino) => Change::Rename { from: at, to, ino },
    }
}

fn with_other_dir() -> (Names, u64) {
    let mut names = Names::default();
    let at = Slot::new(ROOT, OsStr::new("other"));
    names.change(1, Change::Create { at, ino: OTHER });
    names.sync_all(1);
    (names, 1)
}

fn tree(names: &Names) -> Vec<(Ino, OsString, Ino)> {
    let dir = |dir: Ino| names.entries(dir).map(move |(name, ino)| (dir, name.clone(), ino));
    dir(ROOT).chain(dir(OTHER)).collect()
}

fn odds(rng: &mut StdRng, names: NameSurvival) -> Odds {
    Odds::draw(rng, false, names)
}

#[test]
fn an_inode_has_at_most_one_name_after_a_cut() {
    for_seeds("an_inode_has_at_most_one_name_after_a_cut", 3000, |rng| {
        let (mut names, mut seq) = with_other_dir();
        let mut next = OTHER;
        for _ in 0..20 {
            seq += 1;
            if rng.random_bool(0.1) {
                names.sync_dir(if rng.random_bool(0.5) { ROOT } else { OTHER }, seq);
            }
            let change = change(rng, &names, &mut next);
            names.change(seq, change);
        }
        let odds = odds(rng, NameSurvival::Either);
        let left = names.survive(rng, &odds, &mut Losses::default());
        let mut places: HashMap<Ino, usize> = HashMap::new();
        for (_, _, ino) in tree(&left) {
            *places.entry(ino).or_default() += 1;
        }
        assert!(places.values().all(|count| *count == 1), "{left:?}");
    });
}

#[test]
fn a_synced_directory_keeps_its_names_and_moves_stay_whole() {
    for_seeds("a_synced_directory_keeps_its_names_and_moves_stay_whole", 2000, |rng| {
        let (mut names, mut seq) = with_other_dir();
        let mut next = OTHER;
        for _ in 0..15 {
            seq += 1;
            let change = change(rng, &names, &mut next);
            names.change(seq, change);
        }
        names.sync_dir(ROOT, seq);
        let odds = odds(rng, NameSurvival::Either);
        let left = names.survive(rng, &odds, &mut Losses::default());
        let root = |names: &Names| -> Vec<_> {
            names.entries(ROOT).map(|(name, ino)| (name.clone(), ino)).collect()
        };
        assert_eq!(root(&left), root(&names));
    });
}

#[test]
fn a_prefix_cut_leaves_a_state_that_was() {
    for_seeds("a_prefix_cut_leaves_a_state_that_was", 1000, |rng| {
        let (mut names, mut seq) = with_other_dir();
        let mut next = OTHER;
        let mut states = vec![tree(&names)];
        for _ in 0..15 {
            seq += 1;
            let change = change(rng, &names, &mut next);
            names.change(seq, change);
            states.push(tree(&names));
        }
        let odds = odds(rng, NameSurvival::Prefix);
        let left = names.survive(rng, &odds, &mut Losses::default());
        assert!(states.contains(&tree(&left)));
    });
}

#[test]
fn subsets_lose_an_earlier_name_and_keep_a_later_one() {
    let mut seen = [false; 4];
    for seed in 0..64 {
        let mut rng = rand::SeedableRng::seed_from_u64(seed);
        let mut names = Names::default();
        for (seq, name) in [(1, "a"), (2, "b")] {
            let at = Slot::new(ROOT, OsStr::new(name));
            names.change(seq, Change::Create { at, ino: seq + 1 });
        }
        let odds = Odds { name: 0.5, ..odds(&mut rng, NameSurvival::Subset) };
        let left = names.survive(&mut rng, &odds, &mut Losses::default());
        let has = |name| usize::from(left.lookup(ROOT, OsStr::new(name)).is_some());
        seen[has("a") + 2 * has("b")] = true;
    }
    assert_eq!(seen, [true; 4]);
}

#[test]
fn removing_a_directory_waits_for_what_was_moved_out_of_it() {
    let mut names = Names::default();
    let at = |dir, name: &str| Slot::new(dir, OsStr::new(name));
    names.change(1, Change::Create { at: at(ROOT, "d"), ino: OTHER });
    names.change(2, Change::Create { at: at(OTHER, "f"), ino: 3 });
    names.sync_all(2);
    names.change(3, Change::Rename { from: at(OTHER, "f"), to: at(ROOT, "f"), ino: 3 });
    names.change(4, Change::Remove { at: at(ROOT, "d"), ino: OTHER, directory: true });
    for_seeds("removing_a_directory_waits_for_what_was_moved_out_of_it", 200, |rng| {
        let odds = Odds { name: 0.5, ..odds(rng, NameSurvival::Subset) };
        let left = names.survive(rng, &odds, &mut Losses::default());
        assert!(left.reachable().contains(&3), "the file is nowhere: {left:?}");
    });
}
