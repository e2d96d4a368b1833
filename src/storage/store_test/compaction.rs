use super::rig::{Member, Place, compact, delete, eventually, open, put};
use crate::storage::engine_sled::SledEngine;
use quorate_core::api::ids::Revision;

/// Sweeps the index as the keyspace does, and hands the dead to the store.
fn sweep(member: &mut Member) {
    let mut cursor = member.machine.compaction_begin();
    while let Some(at) = cursor {
        let step = member.machine.compaction_step(at, 7);
        member.store.drop_revisions(step.dead);
        cursor = step.next;
    }
}

fn stored(member: &Member) -> Vec<(Revision, bool)> {
    let history = member.snapshot().history;
    history.iter().map(|record| (record.revision, record.tombstone)).collect()
}

#[test]
fn dropped_revisions_leave_the_state_store_and_the_rest_stays_readable() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::files(folder.path());
    let mut member = open(&place);
    for round in 0..40u8 {
        for key in 0..20 {
            member.propose(vec![put(&format!("key-{key}"), &vec![round; 500])]);
        }
    }
    member.propose(vec![delete("key-3")]);
    member.propose(vec![put("key-4", b"last")]);
    let at = member.machine.revision();
    let size_before = member.store.db_size();
    let in_use_before = member.store.db_size_in_use();
    member.propose(vec![compact(at)]);
    sweep(&mut member);
    eventually(|| {
        member.store.run_upkeep().unwrap();
        stored(&member).len() == 19
    });
    assert_eq!(member.store.db_size(), size_before, "the size does not fall by a compaction");
    assert!(member.store.db_size_in_use() < in_use_before / 4);
    let before = member.snapshot();
    member.close();

    let member = open(&place);
    assert_eq!(member.rebuilt, None, "the content sum followed");
    assert_eq!(member.snapshot(), before);
    assert_eq!(member.store.db_size(), size_before);
    member.store.defragment();
    assert!(member.store.db_size() < size_before / 4);
    member.take_base();
    drop(member);
    std::fs::remove_dir_all(place.folder.join("state-0")).unwrap();
    assert_eq!(open(&place).snapshot(), before);
}

#[test]
fn a_compaction_cut_short_leaves_no_put_without_its_tombstone() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::files(folder.path());
    let mut member = open(&place);
    for round in 0..60u32 {
        for key in 0..10 {
            member.propose(vec![put(&format!("key-{key}"), &round.to_le_bytes().repeat(250))]);
        }
        if round % 3 == 2 {
            let deletes = (0..10).map(|key| delete(&format!("key-{key}"))).collect();
            member.propose(deletes);
        }
    }
    member.propose(vec![put("last", b"1")]);
    member.propose(vec![delete("last")]);
    member.propose(vec![put("live", b"1")]);
    member.settle();
    let at = member.machine.revision();
    member.propose(vec![compact(at)]);
    sweep(&mut member);
    // Whatever the pass has come to when the process dies:
    drop(member);

    let mut member = open(&place);
    let mut alive = std::collections::BTreeSet::new();
    for record in member.snapshot().history {
        match record.tombstone {
            true => alive.remove(&record.kv.key),
            false => alive.insert(record.kv.key.clone()),
        };
    }
    assert_eq!(alive.len(), 1, "came back to life: {alive:?}");
    sweep(&mut member);
    eventually(|| {
        member.store.run_upkeep().unwrap();
        stored(&member).len() == 1
    });
}

#[test]
fn a_base_written_during_a_compaction_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::files(folder.path());
    let mut member = open(&place);
    for round in 0..30u8 {
        for key in 0..10 {
            member.propose(vec![put(&format!("key-{key}"), &vec![round; 2000])]);
        }
        if round % 5 == 4 {
            let at = member.machine.revision();
            member.propose(vec![compact(at - 3)]);
            member.store.request_base();
            sweep(&mut member);
            member.purge().unwrap();
        }
    }
    member.take_base();
    eventually(|| {
        member.store.run_upkeep().unwrap();
        stored(&member).len() < 40
    });
    assert_eq!(member.store.stopped(), None);
    let readable = |member: &Member| {
        let floor = member.machine.compact_revision();
        let mut history = member.snapshot().history;
        history.retain(|record| record.revision.main > floor);
        (history, member.machine.rolling_hash())
    };
    let before = readable(&member);
    member.close();
    std::fs::remove_dir_all(place.folder.join("state-0")).unwrap();
    assert_eq!(readable(&open(&place)), before);
}

/// Bytes of the folders that hold state stores, by name.
fn folders(place: &Place) -> Vec<String> {
    let entries = std::fs::read_dir(&place.folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("state-")).collect();
    names.sort();
    names
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

#[test]
fn a_renewed_state_store_holds_the_same_in_less_room() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::files(folder.path());
    let mut member = bloated(&place);
    let before = member.store.figures().state_store_files_bytes;
    sweep(&mut member);
    member.store.request_renewal();
    // Two keys, and the tombstone at the compacted revision itself.
    eventually(|| {
        member.store.run_upkeep().unwrap();
        stored(&member).len() == 3 && folders(&place) == ["state-0.1"]
    });
    let after = member.store.figures().state_store_files_bytes;
    assert!(after < before / 2, "{before} bytes, then {after}");
    for round in 0..3u8 {
        member.propose(vec![put("key-1", &[round; 3000])]);
        member.store.request_renewal();
        let now = [format!("state-0.{}", round + 2)];
        eventually(|| {
            member.store.run_upkeep().unwrap();
            folders(&place) == now
        });
    }
    let before = member.snapshot();
    member.close();

    let member = open(&place);
    assert_eq!(member.rebuilt, None);
    assert_eq!(member.snapshot(), before);
    member.take_base();
    member.close();
    std::fs::remove_dir_all(place.folder.join("state-0.4")).unwrap();
    assert_eq!(open(&place).snapshot(), before);
    assert_eq!(folders(&place), ["state-0"]);
}

#[test]
fn a_renewal_cut_short_leaves_the_old_state_store_in_charge() {
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
