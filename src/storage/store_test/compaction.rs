use super::rig::{Member, Place, compact, delete, eventually, open, put};
use quorate_core::api::ids::Revision;

/// Sweeps the index as the keyspace does, and hands the dead to the store.
pub(super) fn sweep(member: &mut Member) {
    let mut cursor = member.machine.compaction_begin();
    while let Some(at) = cursor {
        let step = member.machine.compaction_step(at, 7);
        member.store.drop_revisions(step.dead);
        cursor = step.next;
    }
}

pub(super) fn stored(member: &Member) -> Vec<(Revision, bool)> {
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

    let mut member = open(&place);
    assert_eq!(member.rebuilt, None, "the content sum followed");
    assert_eq!(member.snapshot(), before);
    assert_eq!(member.store.db_size(), size_before);
    member.defragment().unwrap();
    assert!(member.store.db_size() < size_before / 4);
    member.propose_blank();
    member.take_base();
    let before = member.snapshot();
    drop(member);
    std::fs::remove_dir_all(place.folder.join("state-0.1")).unwrap();
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
