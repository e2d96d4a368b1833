//! The power is cut at every sync point while a state is received, built, recorded and put in force.

use super::rig::{Member, Place, open, try_open};
use crate::storage::device::LogDevice;
use crate::storage::device::double::DoubleDevice;

const ENTRIES: u64 = 4;

/// The member whose state is installed: its log goes on where the receiver's would.
fn sender() -> (DoubleDevice, Member) {
    let disk = DoubleDevice::default();
    let mut member = open(&Place::double(&disk));
    member.write_randomly(50, 40, 3000);
    member.take_base();
    (disk, member)
}

/// What was acknowledged before the power went.
#[derive(Default)]
struct Told {
    /// Rolling hashes after each entry before the install.
    before: Vec<u64>,
    installed: bool,
    /// And after it.
    after: Vec<u64>,
}

fn write(member: &mut Member, disk: &DoubleDevice, seeds: std::ops::Range<u64>) -> Vec<u64> {
    let mut hashes = Vec::new();
    for seed in seeds {
        member.write_randomly(seed, 1, 2000);
        if disk.is_frozen() {
            break;
        }
        hashes.push(member.machine.rolling_hash());
    }
    hashes
}

fn run(disk: &DoubleDevice, from: &Member) -> Told {
    let mut told = Told::default();
    let Ok(mut member) = try_open(&Place::double(disk)) else {
        assert!(disk.is_frozen());
        return told;
    };
    told.before = write(&mut member, disk, 0..ENTRIES);
    // A base of its own, so that the log is purged and there is one to be replaced.
    member.store.request_base();
    let _frozen = member.store.run_upkeep();
    let _frozen = member.purge();
    let Ok(prepared) = member.receive_from(from, 7000) else {
        assert!(disk.is_frozen());
        return told;
    };
    told.installed = member.install(prepared);
    if !told.installed {
        assert!(disk.is_frozen());
        return told;
    }
    let _frozen = member.store.run_upkeep();
    told.after = write(&mut member, disk, 60..60 + ENTRIES);
    member.store.request_base();
    let _frozen = member.store.run_upkeep();
    let _frozen = member.purge();
    told
}

/// Replay one case: `CUT=<n> cargo test -p quorate --lib a_power_cut_at_any_sync_of_an_install`.
#[test]
fn a_power_cut_at_any_sync_of_an_install_leaves_one_state_or_the_other() {
    let (_there, from) = sender();
    let installed_at = from.store.base().unwrap().at.index + 1;
    let installed_hash = from.machine.rolling_hash();
    let whole = DoubleDevice::default();
    let all = run(&whole, &from);
    assert!(all.installed && all.after.len() as u64 == ENTRIES);
    let only: Option<u64> = std::env::var("CUT").ok().map(|cut| cut.parse().unwrap());
    let mut seen = [0; 2];
    for cut in 0..whole.syncs() {
        if only.is_some_and(|only| only != cut) {
            continue;
        }
        let disk = DoubleDevice::default();
        disk.freeze_at(cut);
        let told = run(&disk, &from);
        for seed in 0..4 {
            let case = format!("CUT={cut} seed {seed}");
            let after = disk.after_power_cut(seed);
            let mut member = open(&Place::double(&after));
            let applied = member.machine.applied().map_or(0, |at| at.index + 1);
            let is_new = member.store.generation() == 1;
            seen[usize::from(is_new)] += 1;
            assert!(is_new || !told.installed, "{case}: an installed state is gone");
            let (known, hash) = if is_new {
                let beyond = applied.checked_sub(installed_at).expect(&case) as usize;
                assert!(beyond >= told.after.len(), "{case}");
                (beyond, beyond.checked_sub(1).map_or(installed_hash, |last| all.after[last]))
            } else {
                let count = applied as usize;
                assert!(count >= told.before.len(), "{case}");
                (count, count.checked_sub(1).map_or(0, |last| all.before[last]))
            };
            assert_eq!(member.machine.rolling_hash(), hash, "{case}: after {known} entries");
            let kept = member.store.base().map(|base| base.file_name);
            let bases: Vec<_> =
                after.list().unwrap().into_iter().filter(|name| name.contains("group/")).collect();
            let named: Vec<_> = kept.iter().map(|name| format!("group/{name}")).collect();
            assert_eq!(bases, named, "{case}");
            member.snapshot();
            // Whatever it was, it can be brought up to the sender's state, or goes on from it.
            if !is_new {
                let prepared = member.receive_from(&from, 100_000).unwrap();
                assert!(member.install(prepared), "{case}");
                assert_eq!(member.snapshot(), from.snapshot(), "{case}");
            }
            member.goes_on(&after, seed + 9, &case);
        }
    }
    assert!(only.is_some() || seen.iter().all(|count| *count > 4), "{seen:?}");
}
