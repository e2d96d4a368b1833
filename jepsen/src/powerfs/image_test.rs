//! Bug guarded: calls that are answered after the cut, and the classic mistakes that a cut must punish.

use std::ffi::OsStr;

use super::file::PAGE;
use super::image::{Image, Lies, NameSync, Refused};
use super::names::{Ino, ROOT, Slot};
use super::odds::{NameSurvival, Odds};
use super::trap::Armed;

const ALL_LOST: Odds =
    Odds { page: 0.0, torn: 0.0, size: 0.0, name: 0.0, names: NameSurvival::Subset, mixed: false };
const NAMES_KEPT: Odds = Odds { name: 1.0, ..ALL_LOST };

fn os(name: &str) -> &OsStr {
    OsStr::new(name)
}

fn create(image: &mut Image, dir: Ino, name: &str) -> Ino {
    image.create(dir, os(name), false, 0o600).unwrap().ino
}

fn sync(image: &mut Image, ino: Ino) {
    let sync = image.begin_sync(ino, true).unwrap();
    image.finish_sync(sync).unwrap();
}

fn cut(image: &Image, odds: &Odds) -> Image {
    image.cut(&mut rand::SeedableRng::seed_from_u64(7), odds).0
}

fn content(image: &Image, name: &str) -> Result<Vec<u8>, Refused> {
    let stat = image.lookup(ROOT, os(name))?;
    image.read(stat.ino, 0, stat.size as usize)
}

#[test]
fn a_synced_file_without_a_synced_name_is_lost_when_strict_and_kept_when_journalled() {
    for (rule, kept) in [(NameSync::Strict, false), (NameSync::Journalled, true)] {
        let mut image = Image::new(rule, Lies::default());
        let file = create(&mut image, ROOT, "a");
        image.write(file, 0, b"x").unwrap();
        sync(&mut image, file);
        assert_eq!(content(&cut(&image, &ALL_LOST), "a").is_ok(), kept, "{rule:?}");
    }
}

#[test]
fn a_synced_name_without_synced_bytes_leaves_an_empty_file() {
    let mut image = Image::new(NameSync::Strict, Lies::default());
    let file = create(&mut image, ROOT, "a");
    image.write(file, 0, b"x").unwrap();
    sync(&mut image, ROOT);
    assert_eq!(content(&cut(&image, &ALL_LOST), "a").unwrap(), b"");
}

#[test]
fn a_rename_over_a_file_without_syncing_the_new_one_shows_an_empty_file() {
    let mut image = Image::new(NameSync::Strict, Lies::default());
    let old = create(&mut image, ROOT, "a");
    image.write(old, 0, b"old").unwrap();
    sync(&mut image, old);
    sync(&mut image, ROOT);
    let new = create(&mut image, ROOT, "tmp");
    image.write(new, 0, b"new").unwrap();
    image.rename(&Slot::new(ROOT, os("tmp")), &Slot::new(ROOT, os("a")), false).unwrap();
    assert_eq!(content(&cut(&image, &ALL_LOST), "a").unwrap(), b"old");
    assert_eq!(content(&cut(&image, &NAMES_KEPT), "a").unwrap(), b"");
    sync(&mut image, new);
    assert_eq!(content(&cut(&image, &NAMES_KEPT), "a").unwrap(), b"new");
}

#[test]
fn a_file_below_a_directory_whose_name_is_lost_is_lost() {
    let mut image = Image::new(NameSync::Strict, Lies::default());
    let dir = image.create(ROOT, os("d"), true, 0o700).unwrap().ino;
    let file = create(&mut image, dir, "f");
    image.write(file, 0, b"x").unwrap();
    sync(&mut image, file);
    sync(&mut image, dir);
    assert_eq!(cut(&image, &ALL_LOST).list(ROOT).unwrap(), []);
    sync(&mut image, ROOT);
    let left = cut(&image, &ALL_LOST);
    assert_eq!(left.read(left.lookup(dir, os("f")).unwrap().ino, 0, 9).unwrap(), b"x");
}

#[test]
fn after_the_freeze_everything_is_refused_also_a_sync_in_flight() {
    let mut image = Image::new(NameSync::Strict, Lies::default());
    let file = create(&mut image, ROOT, "a");
    sync(&mut image, ROOT);
    image.write(file, 0, &[1; PAGE]).unwrap();
    let in_flight = image.begin_sync(file, true).unwrap();
    image.freeze();
    assert_eq!(image.finish_sync(in_flight).unwrap_err(), Refused::PowerIsOff);
    assert_eq!(image.write(file, 0, b"x").unwrap_err(), Refused::PowerIsOff);
    assert_eq!(image.read(file, 0, 1).unwrap_err(), Refused::PowerIsOff);
    assert_eq!(image.lookup(ROOT, os("a")).unwrap_err(), Refused::PowerIsOff);
    let left = cut(&image, &ALL_LOST);
    assert_eq!(content(&left, "a").unwrap(), b"", "powered again, the write in flight lost");
}

#[test]
fn a_trap_springs_so_many_calls_after_one_on_a_path_with_its_pattern() {
    let mut image = Image::new(NameSync::Strict, Lies::default());
    let dir = image.create(ROOT, os("base"), true, 0o700).unwrap().ino;
    let (inside, outside) = (create(&mut image, dir, "f"), create(&mut image, ROOT, "g"));
    image.arm(Armed { pattern: "base/f".to_owned(), matching: 1, then: 2 });
    for _ in 0..9 {
        image.write(outside, 0, b"x").unwrap();
    }
    image.write(inside, 0, b"x").unwrap();
    image.write(outside, 0, b"y").unwrap();
    assert_eq!(image.write(outside, 0, b"z").unwrap_err(), Refused::PowerIsOff);
    assert!(image.is_frozen());
}

#[test]
fn the_same_seed_leaves_the_same_disk() {
    let mut image = Image::new(NameSync::Strict, Lies::default());
    for index in 0..20u8 {
        let file = create(&mut image, ROOT, &format!("f{index}"));
        image.write(file, 0, &[index; 3 * PAGE]).unwrap();
    }
    let disk = |seed| {
        let mut rng = rand::SeedableRng::seed_from_u64(seed);
        let odds = Odds { page: 0.5, size: 0.5, name: 0.5, torn: 0.5, ..ALL_LOST };
        let (left, losses) = image.cut(&mut rng, &odds);
        let names = left.list(ROOT).unwrap();
        let bytes: Vec<_> =
            names.iter().map(|(_, s)| left.read(s.ino, 0, s.size as usize).unwrap()).collect();
        (names, bytes, losses)
    };
    assert_eq!(disk(3), disk(3));
    assert_ne!(disk(3), disk(4));
}

#[test]
fn an_ignored_sync_answers_and_keeps_nothing() {
    for (lies, a, b) in [
        (Lies::default(), "x", "x"),
        (Lies { files: vec!["a".to_owned()], directories: false }, "", "x"),
        (Lies { files: vec![String::new()], directories: false }, "", ""),
    ] {
        let mut image = Image::new(NameSync::Strict, lies);
        for name in ["a", "b"] {
            let file = create(&mut image, ROOT, name);
            image.write(file, 0, b"x").unwrap();
            sync(&mut image, file);
        }
        sync(&mut image, ROOT);
        let left = cut(&image, &ALL_LOST);
        assert_eq!(content(&left, "a").unwrap(), a.as_bytes());
        assert_eq!(content(&left, "b").unwrap(), b.as_bytes());
    }
    let mut image = Image::new(NameSync::Strict, Lies { files: vec![], directories: true });
    create(&mut image, ROOT, "a");
    sync(&mut image, ROOT);
    assert_eq!(content(&cut(&image, &ALL_LOST), "a").unwrap_err(), Refused::NotFound);
}
