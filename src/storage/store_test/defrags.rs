//! A state store is defragmented while it is written to, killed at every step, and left without room.

use std::path::Path;
use std::sync::Arc;

use futures::FutureExt as _;

use super::compaction::{stored, sweep};
use super::fixtures::copy;
use super::rig::{Member, Place, compact, delete, eventually, open, put};
use crate::storage::device::LogDevice;
use crate::storage::device::double::DoubleDevice;
use crate::storage::engine_sled::SledEngine;
use crate::storage::{DefragError, UpkeepRunner};

/// The folders that hold state stores.
fn folders(place: &Place) -> Vec<String> {
    let entries = std::fs::read_dir(&place.folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("state-")).collect();
    names.sort();
    names
}

/// Waits until these are all: an old one goes once nobody reads it.
fn await_folders(member: &Member, place: &Place, want: &[String]) {
    eventually(|| {
        member.store.run_upkeep().unwrap();
        folders(place) == want
    });
}

/// Much is written, nine tenths of it die.
fn bloated(place: &Place) -> Member {
    let mut member = open(place);
    for round in 0..30u8 {
        for key in 0..20 {
            member.propose(vec![put(&format!("key-{key}"), &vec![round; 20_000])]);
        }
    }
    for key in 2..20 {
        member.propose(vec![delete(&format!("key-{key}"))]);
    }
    member.settle();
    let at = member.machine.revision();
    member.propose(vec![compact(at)]);
    member
}

/// What can be read, and the hash over everything applied.
fn readable(member: &Member) -> impl PartialEq + std::fmt::Debug {
    let floor = member.machine.compact_revision();
    let mut history = member.snapshot().history;
    history.retain(|record| record.revision.main > floor);
    (history, member.machine.rolling_hash(), member.machine.revision())
}

#[test]
fn a_defragmented_state_store_holds_the_same_in_less_room() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::files(folder.path());
    let mut member = bloated(&place);
    let before = member.store.figures().state_store_files_bytes;
    sweep(&mut member);
    let size = member.store.db_size();
    member.defragment().unwrap();
    // Two keys, and the tombstone at the compacted revision itself.
    assert_eq!(stored(&member).len(), 3);
    await_folders(&member, &place, &["state-0.1".to_owned()]);
    let after = member.store.figures().state_store_files_bytes;
    assert!(after < before / 2, "{before} bytes, then {after}");
    assert!(member.store.db_size() < size / 4);
    assert!(member.store.db_size_in_use() <= member.store.db_size());
    for round in 0..3u8 {
        member.propose(vec![put("key-1", &[round; 3000])]);
        member.defragment().unwrap();
        await_folders(&member, &place, &[format!("state-0.{}", round + 2)]);
    }
    let (before, size) = (member.snapshot(), member.store.db_size());
    member.close();

    let mut member = open(&place);
    assert_eq!(member.rebuilt, None);
    assert_eq!(member.snapshot(), before);
    assert_eq!(member.store.db_size(), size, "it is not forgotten that it was defragmented");
    member.propose_blank();
    member.take_base();
    let before = member.snapshot();
    member.close();
    std::fs::remove_dir_all(place.folder.join("state-0.4")).unwrap();
    assert_eq!(open(&place).snapshot(), before);
    assert_eq!(folders(&place), ["state-0"]);
}

/// Opens what a process leaves that is killed now: what it wrote, without what it had not.
fn after_a_kill(from: &Path) -> (tempfile::TempDir, Place) {
    let image = tempfile::tempdir().unwrap();
    copy(from, image.path());
    let place = Place::files(image.path());
    (image, place)
}

#[test]
fn a_process_killed_at_any_step_of_a_defragmentation_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place { runner: UpkeepRunner::InPlace, ..Place::files(folder.path()) };
    let mut member = open(&place);
    for round in 0..2u8 {
        for key in 0..60 {
            member.propose(vec![put(&format!("key-{key}"), &vec![round; 20_000])]);
        }
    }
    member.settle();
    let at = member.machine.revision();
    member.propose(vec![compact(at - 30)]);
    sweep(&mut member);

    let asked = member.store.request_defragment();
    let mut steps = 0;
    assert!(member.store.defragmented(asked).now_or_never().is_none());
    let mut found = Vec::new();
    while member.store.defragmented(asked).now_or_never().is_none() {
        // Written on the way: to what is copied already, and to what is not. What is written is flushed first, so that
        // a step in between gets to the copy.
        if steps % 3 == 0 {
            member.write_randomly(steps, 1, 3000);
            member.propose(vec![put(&format!("key-{}", steps % 60), b"new"), delete("key-7")]);
        }
        if steps == 9 {
            let at = member.machine.revision();
            member.propose(vec![compact(at - 5)]);
            sweep(&mut member);
        }
        member.store.step_upkeep().unwrap();
        let (_image, place) = after_a_kill(folder.path());
        found.push(folders(&place));
        let after = open(&place);
        let same = readable(&after) == readable(&member);
        assert!(same, "killed after step {steps}: {:?}", after.snapshot());
        assert_eq!(folders(&place).len(), 1, "one of them is in force");
        after.close();
        steps += 1;
    }
    assert!(found.iter().any(|folders| folders.len() == 2), "both were there: {found:?}");
    await_folders(&member, &place, &["state-0.1".to_owned()]);
    let before = member.snapshot();
    member.close();
    let member = open(&Place { runner: UpkeepRunner::Threads, ..place.clone() });
    assert_eq!(member.rebuilt, None, "what was written meanwhile is in it, and its sum followed");
    assert_eq!(member.snapshot(), before);
}

#[test]
fn a_defragmentation_cut_short_leaves_the_old_state_store_in_charge() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::files(folder.path());
    let member = bloated(&place);
    member.settle();
    let before = member.snapshot();
    member.close();
    let begun = place.folder.join("state-0.1");
    drop(SledEngine::open(&begun, 1 << 20, None).unwrap());

    let member = open(&place);
    assert_eq!(member.rebuilt, None);
    assert_eq!(member.snapshot(), before);
    assert_eq!(folders(&place), ["state-0"]);
    member.close();

    // Both there, and the old one is not whole: the newer one was finished, or neither is believed.
    std::fs::create_dir(&begun).unwrap();
    std::fs::remove_file(place.folder.join("state-0/db")).unwrap();
    let member = open(&place);
    assert!(member.rebuilt.is_some());
    assert_eq!(member.snapshot(), before);
    assert_eq!(folders(&place), ["state-0"]);
}

/// What is written while a store is copied used to come first, and to be copied behind the rest: a load that wrote as
/// fast as the state store took it kept a defragmentation from ever ending.
#[test]
fn a_load_as_fast_as_the_state_store_starves_no_defragmentation() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place { runner: UpkeepRunner::InPlace, ..Place::files(folder.path()) };
    let mut member = open(&place);
    let write = |member: &mut Member, from: u32| {
        for key in from..from + 40 {
            member.propose(vec![put(&format!("key-{key}"), &[7; 20_000])]);
        }
    };
    for helping in 0..4 {
        write(&mut member, helping * 40);
    }
    member.settle();
    let asked = member.store.request_defragment();
    let mut steps = 0;
    // Three pieces' worth with each step: the tail is never empty, and the copy never level.
    while member.store.defragmented(asked).now_or_never().is_none() {
        steps += 1;
        assert!(steps < 100, "it does not end");
        write(&mut member, 1000 + steps * 40);
        member.store.step_upkeep().unwrap();
    }
    member.settle();
    let before = member.snapshot();
    await_folders(&member, &place, &["state-0.1".to_owned()]);
    member.close();
    let member = open(&place);
    assert_eq!(member.rebuilt, None, "what was written meanwhile is in it, and its sum followed");
    assert_eq!(member.snapshot(), before);
}

#[test]
fn readers_of_the_old_state_store_read_on() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::files(folder.path());
    let mut member = bloated(&place);
    let old = member.store.shared.engine();
    sweep(&mut member);
    member.defragment().unwrap();
    assert_eq!(folders(&place), ["state-0", "state-0.1"], "somebody reads it");
    assert!(old.size_on_disk() > 0);
    drop(old);
    await_folders(&member, &place, &["state-0.1".to_owned()]);
}

#[test]
fn without_room_it_is_refused_and_everything_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let disk = DoubleDevice::default();
    let place = Place { group: Arc::new(disk.clone()), ..Place::files(folder.path()) };
    let mut member = open(&place);
    member.write_randomly(1, 50, 3000);
    member.settle();
    let (before, size) = (member.snapshot(), member.store.db_size());
    let free = disk.free_space().unwrap();
    // Enough to go on with, not for a second store.
    disk.set_capacity(u64::MAX - free + (12 << 20) + 1000);
    assert_eq!(member.defragment(), Err(DefragError("no space left on device".to_owned())));
    assert_eq!(member.store.stopped(), None);
    assert_eq!((member.snapshot(), member.store.db_size()), (before, size));
    assert_eq!(folders(&place), ["state-0"]);
    disk.set_capacity(u64::MAX);
    member.write_randomly(2, 5, 300);
    member.defragment().unwrap();
    await_folders(&member, &place, &["state-0.1".to_owned()]);
}

#[test]
fn whoever_waits_hears_that_the_store_closes() {
    let disk = DoubleDevice::default();
    let mut member = open(&Place::double(&disk));
    member.write_randomly(1, 5, 300);
    member.defragment().unwrap();
    let asked = member.store.request_defragment();
    let store = &member.store;
    store.close();
    let told = store.defragmented(asked).now_or_never();
    assert_eq!(told, Some(Err(DefragError("the store is closed".to_owned()))));
}
