//! A base of one member becomes the state of another.

use std::sync::Arc;

use quorate_core::api::view::View as _;

use super::rig::{Member, Place, compact, eventually, history, open};
use crate::storage::InstallError;
use crate::storage::base::BaseError;
use crate::storage::device::LogDevice;
use crate::storage::device::double::DoubleDevice;

const PIECE: usize = 10_000;

/// A member with `entries` entries and a base behind them.
fn sender(disk: &DoubleDevice, entries: usize) -> Member {
    let mut member = open(&Place::double(disk));
    member.write_randomly(1, entries, 2000);
    member.take_base();
    member
}

/// Files that only a transfer makes.
fn of_transfers(member: &Member) -> Vec<String> {
    let of_transfer = |name: &String| name.contains("install") || name.starts_with("base-1-");
    member.files().into_iter().filter(of_transfer).collect()
}

fn assert_same_from_now_on(one: &mut Member, other: &mut Member) {
    assert_eq!(one.snapshot(), other.snapshot());
    for member in [&mut *one, &mut *other] {
        member.write_randomly(99, 30, 2000);
        let revision = member.machine.revision();
        member.propose(vec![compact(revision - 10)]);
    }
    assert_eq!(one.snapshot(), other.snapshot());
}

#[test]
fn an_installed_state_is_the_senders_and_goes_on_as_its_does() {
    let (there, here) = (DoubleDevice::default(), DoubleDevice::default());
    let mut from = sender(&there, 120);
    let mut to = open(&Place::double(&here));
    to.write_randomly(2, 30, 500);
    to.take_base();
    let prepared = to.receive_from(&from, PIECE).unwrap();
    assert_ne!(to.snapshot(), from.snapshot(), "nothing is in force yet");
    assert!(to.install(prepared));
    assert_same_from_now_on(&mut from, &mut to);
    to.store.run_upkeep().unwrap();
    let base = to.store.base().unwrap().file_name;
    assert!(base.starts_with("base-1-"), "{base}");
    assert_eq!(to.files(), [base], "the state before it is gone");
    let before = to.snapshot();
    drop(to);
    assert_eq!(open(&Place::double(&here.after_power_cut(5))).snapshot(), before);
}

#[test]
fn on_files_and_with_threads_the_old_state_goes_when_nobody_reads_it() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut from = open(&Place::files(there.path()));
    let mut to = open(&Place::files(here.path()));
    from.write_randomly(1, 300, 2000);
    from.take_base();
    to.write_randomly(2, 100, 2000);
    to.settle();
    let (old, old_history) = (to.store.view(), to.snapshot().history);
    let prepared = to.receive_from(&from, PIECE).unwrap();
    assert!(to.install(prepared));
    assert_same_from_now_on(&mut from, &mut to);
    to.settle();
    assert_eq!(history(&old), old_history, "a view keeps what it was taken of");
    assert!(to.files().contains(&"state-0".to_owned()));
    drop(old);
    eventually(|| !to.files().contains(&"state-0".to_owned()));
    let mut left = to.files();
    left.retain(|name| !name.starts_with("base-1-"));
    assert_eq!(left, ["state-1"]);
    let before = to.snapshot();
    to.close();
    let to = open(&Place::files(here.path()));
    assert_eq!(to.rebuilt, None, "its state store is believed");
    assert_eq!(to.snapshot(), before);
    from.close();
    to.close();
}

#[test]
fn state_after_state_is_installed_and_only_the_last_is_kept() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut from = open(&Place::files(there.path()));
    let mut to = open(&Place::files(here.path()));
    let mut views = Vec::new();
    for n in 1..=4 {
        from.write_randomly(n, 50, 1000);
        from.take_base();
        views.push((to.store.view(), to.snapshot().history));
        let prepared = to.receive_from(&from, PIECE).unwrap();
        assert!(to.install(prepared));
        assert_eq!(to.store.generation(), n);
        assert_eq!(to.snapshot(), from.snapshot());
        to.write_randomly(100 + n, 5, 100);
        from.write_randomly(100 + n, 5, 100);
    }
    for (view, told) in views {
        assert_eq!(history(&view), told);
    }
    let mut kept = vec![to.store.base().unwrap().file_name, "state-4".to_owned()];
    kept.sort();
    eventually(|| to.files() == kept);
    assert_eq!(to.store.figures().installs, 4);
    assert_eq!(to.snapshot(), from.snapshot());
}

#[test]
fn a_base_under_way_neither_stops_an_install_nor_outlives_it() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut from = open(&Place::files(there.path()));
    from.write_randomly(1, 200, 2000);
    from.take_base();
    let mut to = open(&Place::files(here.path()));
    to.write_randomly(2, 100, 100_000);
    to.settle();
    let prepared = to.receive_from(&from, PIECE).unwrap();
    to.store.request_base();
    eventually(|| to.store.figures().base_in_progress || to.store.base().is_some());
    assert!(to.install(prepared));
    let mut kept = vec![to.store.base().unwrap().file_name, "state-1".to_owned()];
    kept.sort();
    eventually(|| to.files() == kept);
    assert_eq!(to.store.stopped(), None);
    assert_same_from_now_on(&mut from, &mut to);
    let before = to.snapshot();
    to.close();
    assert_eq!(open(&Place::files(here.path())).snapshot(), before);
}

#[test]
fn a_source_outlives_its_base() {
    let disk = DoubleDevice::default();
    let mut member = sender(&disk, 50);
    let mut told = member.store.bases();
    let source = member.store.newest_base().unwrap();
    assert_eq!(*told.borrow_and_update(), Some(source.label().at));
    let whole = source.read(0, usize::MAX).unwrap();
    assert_eq!(whole.len() as u64, source.label().len);
    member.write_randomly(2, 50, 2000);
    member.take_base();
    assert_ne!(member.store.newest_base().unwrap().label(), source.label());
    assert!(told.has_changed().unwrap());
    assert_eq!(source.read(0, usize::MAX).unwrap(), whole);
    assert_eq!(source.read(source.label().len - 3, 10).unwrap(), whole[whole.len() - 3..]);
}

#[test]
fn a_source_is_there_again_after_a_restart() {
    let disk = DoubleDevice::default();
    let member = sender(&disk, 20);
    let label = member.store.newest_base().unwrap().label().clone();
    drop(member);
    let member = open(&Place::double(&disk.after_power_cut(1)));
    assert_eq!(*member.store.newest_base().unwrap().label(), label);
    assert_eq!(*member.store.bases().borrow(), Some(label.at));
}

#[test]
fn damage_anywhere_in_what_was_received_is_refused_and_leaves_nothing() {
    let (there, here) = (DoubleDevice::default(), DoubleDevice::default());
    let mut from = sender(&there, 30);
    let mut to = open(&Place::double(&here));
    to.write_randomly(2, 10, 500);
    let (before, files) = (to.snapshot(), to.files());
    let source = from.store.newest_base().unwrap();
    let whole = source.read(0, usize::MAX).unwrap();
    let places = (0..64).chain((64..whole.len()).step_by(613)).chain(whole.len() - 40..whole.len());
    for place in places {
        let mut damaged = whole.to_vec();
        damaged[place] ^= 1 << (place % 8);
        let receiving = to.store.receive(source.label().clone()).unwrap();
        assert_eq!(receiving.received(), 0, "byte {place}");
        receiving.write(&damaged).unwrap();
        let refused = receiving.prepare(&|| false);
        assert!(matches!(refused, Err(InstallError::Base(_))), "byte {place}: {refused:?}");
        assert_eq!(to.files(), files, "byte {place}");
    }
    assert_eq!(to.snapshot(), before);
    let prepared = to.receive_from(&from, PIECE).unwrap();
    assert!(to.install(prepared));
    assert_same_from_now_on(&mut from, &mut to);
}

#[test]
fn a_label_that_is_not_the_files_is_refused() {
    let (there, here) = (DoubleDevice::default(), DoubleDevice::default());
    let from = sender(&there, 30);
    let to = open(&Place::double(&here));
    let source = from.store.newest_base().unwrap();
    let whole = source.read(0, usize::MAX).unwrap();
    let right = source.label();
    let mut wrong = vec![right.clone(); 4];
    wrong[0].at.index += 1;
    wrong[1].hash ^= 1;
    wrong[2].membership.membership = Some(Default::default());
    wrong[3].len -= 1;
    for label in wrong {
        let receiving = to.store.receive(label.clone()).unwrap();
        receiving.write(&whole[..label.len as usize]).unwrap();
        let refused = receiving.prepare(&|| false);
        assert!(matches!(refused, Err(InstallError::Base(_))), "{refused:?}");
        assert_eq!(of_transfers(&to), Vec::<String>::new());
    }
}

#[test]
fn a_transfer_goes_on_where_it_broke_off() {
    let (there, here) = (DoubleDevice::default(), DoubleDevice::default());
    let mut from = sender(&there, 60);
    let mut to = open(&Place::double(&here));
    let source = from.store.newest_base().unwrap();
    let label = source.label().clone();
    let first = to.store.receive(label.clone()).unwrap();
    first.write(&source.read(0, 20_000).unwrap()).unwrap();
    let second = to.store.receive(label.clone()).unwrap();
    assert_eq!(second.received(), 20_000);
    let late = first.write(b"a piece that was on its way");
    assert!(matches!(late, Err(InstallError::Superseded)), "{late:?}");
    let short = to.receive_from(&from, PIECE).unwrap();
    assert!(matches!(second.write(b"x"), Err(InstallError::Superseded)));
    assert!(to.install(short));
    assert_same_from_now_on(&mut from, &mut to);

    from.take_base();
    let source = from.store.newest_base().unwrap();
    // Ahead of both, so that it is newer than what is here.
    from.write_randomly(7, 5, 100);
    from.take_base();
    assert!(matches!(to.store.receive(label), Err(InstallError::NotNewer { .. })));
    drop(source);
    let next = from.store.newest_base().unwrap();
    let begun = to.store.receive(next.label().clone()).unwrap();
    begun.write(&next.read(0, 5000).unwrap()).unwrap();
    drop(begun);
    let before = to.snapshot();
    drop(to);
    let to = open(&Place::double(&here.after_kill()));
    assert_eq!(of_transfers(&to).len(), 1, "its base: {:?}", to.files());
    assert_eq!(to.store.receive(next.label().clone()).unwrap().received(), 0);
    assert_eq!(to.snapshot(), before);
}

#[test]
fn another_label_takes_the_place_of_what_was_begun() {
    let (there, here) = (DoubleDevice::default(), DoubleDevice::default());
    let mut from = sender(&there, 60);
    let to = open(&Place::double(&here));
    let old = from.store.newest_base().unwrap();
    let begun = to.store.receive(old.label().clone()).unwrap();
    begun.write(&old.read(0, 5000).unwrap()).unwrap();
    from.write_randomly(3, 5, 100);
    from.take_base();
    let new = from.store.newest_base().unwrap();
    let receiving = to.store.receive(new.label().clone()).unwrap();
    assert_eq!(receiving.received(), 0);
    assert_eq!(of_transfers(&to).len(), 1);
    assert!(matches!(begun.write(b"x"), Err(InstallError::Superseded)));
    let incomplete = receiving.prepare(&|| false);
    assert!(matches!(incomplete, Err(InstallError::Incomplete { .. })), "{incomplete:?}");
    assert_eq!(of_transfers(&to), Vec::<String>::new());
    let whole = new.read(0, usize::MAX).unwrap();
    let receiving = to.store.receive(new.label().clone()).unwrap();
    receiving.write(&whole).unwrap();
    assert!(matches!(receiving.write(b"x"), Err(InstallError::TooLong { .. })));
}

#[test]
fn a_prepared_state_that_nobody_wants_is_removed() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut from = open(&Place::files(there.path()));
    from.write_randomly(1, 100, 1000);
    from.take_base();
    let mut to = open(&Place::files(here.path()));
    to.write_randomly(2, 20, 100);
    let before = to.snapshot();
    let prepared = to.receive_from(&from, PIECE).unwrap();
    assert!(to.files().iter().any(|name| name == "state-1"));
    drop(prepared);
    // The very same again, at once.
    let prepared = to.receive_from(&from, PIECE).unwrap();
    assert_eq!(to.files().iter().filter(|name| name.starts_with("state-")).count(), 2);
    drop(prepared);
    eventually(|| to.files() == ["state-0"]);
    let receiving = to.store.receive(from.store.newest_base().unwrap().label().clone()).unwrap();
    let whole = from.store.newest_base().unwrap().read(0, usize::MAX).unwrap();
    receiving.write(&whole).unwrap();
    let called_off = receiving.prepare(&|| true);
    assert!(matches!(called_off, Err(InstallError::Base(BaseError::Cancelled))), "{called_off:?}");
    assert_eq!(to.files(), ["state-0"]);
    assert_eq!(to.snapshot(), before);
    let prepared = to.receive_from(&from, PIECE).unwrap();
    assert!(to.install(prepared));
    assert_same_from_now_on(&mut from, &mut to);
}

#[test]
fn a_full_disk_refuses_a_state_and_harms_nothing() {
    let (there, here) = (DoubleDevice::default(), DoubleDevice::default());
    let mut from = sender(&there, 60);
    let mut to = open(&Place::double(&here));
    to.write_randomly(2, 10, 500);
    let before = to.snapshot();
    let used = u64::MAX - here.free_space().unwrap();
    let len = from.store.newest_base().unwrap().label().len;
    let reserve = 2 * (128 << 10);
    here.set_capacity(used + reserve + len - 1);
    let refused = to.receive_from(&from, PIECE);
    assert!(matches!(refused, Err(InstallError::NoRoom { .. })), "{refused:?}");
    assert_eq!(of_transfers(&to), Vec::<String>::new());
    // It fills up on the way.
    here.set_capacity(u64::MAX);
    let source = from.store.newest_base().unwrap();
    let receiving = to.store.receive(source.label().clone()).unwrap();
    receiving.write(&source.read(0, 20_000).unwrap()).unwrap();
    here.set_capacity(u64::MAX - here.free_space().unwrap() + 100);
    let full = receiving.write(&source.read(20_000, 20_000).unwrap());
    assert!(matches!(full, Err(InstallError::Io(_))), "{full:?}");
    assert_eq!(of_transfers(&to), Vec::<String>::new());
    assert_eq!(to.store.stopped(), None);
    here.set_capacity(u64::MAX);
    assert_eq!(to.snapshot(), before);
    let prepared = to.receive_from(&from, PIECE).unwrap();
    assert!(to.install(prepared));
    assert_same_from_now_on(&mut from, &mut to);
}

#[test]
fn an_installed_base_is_sent_on() {
    let disks: Vec<_> = (0..3).map(|_| DoubleDevice::default()).collect();
    let mut first = sender(&disks[0], 60);
    let mut second = open(&Place::double(&disks[1]));
    let mut third = open(&Place::double(&disks[2]));
    let told = second.store.bases();
    let prepared = second.receive_from(&first, PIECE).unwrap();
    assert!(second.install(prepared));
    assert_eq!(*told.borrow(), first.store.base().map(|base| base.at), "the channel goes on");
    let label = |member: &Member| member.store.newest_base().unwrap().label().clone();
    assert_eq!(label(&second), label(&first));
    let prepared = third.receive_from(&second, PIECE).unwrap();
    assert!(third.install(prepared));
    assert_same_from_now_on(&mut first, &mut third);
    let view = Arc::new(third.store.view());
    view.scan(Default::default(), 1).unwrap();
}
