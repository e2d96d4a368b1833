//! The power is cut at every sync point while bases are written, marked and the journal behind them is freed.

use super::rig::{Member, Place, eventually, open, put, try_open};
use crate::storage::device::LogDevice;
use crate::storage::device::double::DoubleDevice;

const ENTRIES: u64 = 20;

/// Writes entries and a base after every fifth, until the end or until the power goes; tells how many were
/// acknowledged, and the rolling hash after each.
fn run(disk: &DoubleDevice) -> (u64, Vec<u64>) {
    let Ok(mut member) = try_open(&Place::double(disk)) else {
        assert!(disk.is_frozen());
        return (0, Vec::new());
    };
    let mut hashes = Vec::new();
    for n in 0..ENTRIES {
        member.write_randomly(n, 1, 3000);
        if disk.is_frozen() {
            break;
        }
        hashes.push(member.machine.rolling_hash());
        if n % 5 == 4 {
            member.store.request_base();
            let worked = member.store.run_upkeep();
            assert!(worked.is_ok() || disk.is_frozen(), "{worked:?}");
            let purged = member.purge();
            assert!(purged.is_ok() || disk.is_frozen(), "{purged:?}");
        }
    }
    (hashes.len() as u64, hashes)
}

fn check(member: &Member, acknowledged: u64, hashes: &[u64], case: &str) {
    let applied = member.machine.applied().map_or(0, |at| at.index + 1);
    assert!(
        applied >= acknowledged,
        "{case}: {applied} entries of {acknowledged} acknowledged are there"
    );
    if applied > 0 {
        assert_eq!(member.machine.rolling_hash(), hashes[applied as usize - 1], "{case}");
    }
    member.snapshot();
}

/// Replay one case: `CUT=<n> cargo test -p quorate --lib a_power_cut_at_any_sync`.
#[test]
fn a_power_cut_at_any_sync_of_a_base_loses_nothing() {
    let whole = DoubleDevice::default();
    let (count, hashes) = run(&whole);
    assert_eq!(count, ENTRIES);
    let syncs = whole.syncs();
    let only: Option<u64> = std::env::var("CUT").ok().map(|cut| cut.parse().unwrap());
    for cut in 0..syncs {
        if only.is_some_and(|only| only != cut) {
            continue;
        }
        let disk = DoubleDevice::default();
        disk.freeze_at(cut);
        let (acknowledged, _) = run(&disk);
        for seed in 0..2 {
            let case = format!("CUT={cut} seed {seed}");
            let after = disk.after_power_cut(seed);
            let member = open(&Place::double(&after));
            check(&member, acknowledged, &hashes, &case);
            member.goes_on(&after, seed + 9, &case);
        }
    }
}

#[test]
fn a_base_for_which_there_is_no_room_is_tried_again() {
    let disk = DoubleDevice::default();
    let mut member = open(&Place::double(&disk));
    member.write_randomly(1, 60, 3000);
    let free = disk.free_space().unwrap();
    disk.set_capacity(u64::MAX - free + 20_000);
    member.store.request_base();
    member.store.run_upkeep().unwrap();
    assert_eq!(member.store.figures().bases, 0);
    assert_eq!(member.store.stopped(), None);
    assert!(!disk.list().unwrap().iter().any(|name| name.contains("tmp-base")));
    disk.set_capacity(u64::MAX);
    eventually(|| {
        member.store.run_upkeep().unwrap();
        member.store.figures().bases == 1
    });
    let before = member.snapshot();
    drop(member);
    assert_eq!(open(&Place::double(&disk.after_power_cut(3))).snapshot(), before);
}

#[test]
fn a_base_is_due_by_requests_once_they_outweigh_the_last_one() {
    let disk = DoubleDevice::default();
    let mut member = open(&Place { base_after_requests: 20, ..Place::double(&disk) });
    let mut written = Vec::new();
    for n in 0..200_u64 {
        member.propose(vec![put(&format!("key-{n}"), &[7; 100])]);
        eventually(|| {
            member.store.run_upkeep().unwrap();
            member.store.figures().tail_bytes == 0
        });
        let figures = member.store.figures();
        if figures.bases > written.len() as u64 {
            written.push((n + 1, figures.base_size_bytes));
        }
    }
    let [(first, _), (second, _), (third, size), ..] = written[..] else {
        panic!("three bases at least: {written:?}")
    };
    assert_eq!(first, 21, "{written:?}");
    assert!(second < 50 && third > second + 20, "as many bytes again: {written:?}");
    let bytes = third * 100;
    assert!(size > bytes && written.len() < 6, "{written:?}");
}

#[test]
fn old_bases_and_halves_of_new_ones_are_tidied_away() {
    let disk = DoubleDevice::default();
    let mut member = open(&Place::double(&disk));
    for n in 0..3 {
        member.write_randomly(n, 5, 300);
        member.take_base();
    }
    let bases = |disk: &DoubleDevice| {
        let names = disk.list().unwrap();
        names.into_iter().filter(|name| name.contains("base")).collect::<Vec<_>>()
    };
    assert_eq!(bases(&disk).len(), 1);
    drop(member);
    disk.create("group/tmp-base").unwrap();
    disk.create("group/base-0-1-1.qb").unwrap();
    let member = open(&Place::double(&disk));
    assert_eq!(bases(&disk), [format!("group/{}", member.store.base().unwrap().file_name)]);
}
