//! A member that is made the only one of its cluster, with the power cut at every sync meanwhile.

use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::internal::ClusterLevel;
use quorate_core::api::pb::internal::command::Request;
use quorate_core::api::pb::internal::log_payload::Payload;
use quorate_core::state_machine::CLUSTER_LEVEL;

use super::rig::{GROUP, Member, Place, members, open, put, try_open};
use crate::storage::OpenError;
use crate::storage::device::double::DoubleDevice;
use crate::storage::journal::Vote;

const SELF: u64 = 7;

/// A member of several that is started as it was.
fn restarted(disk: &DoubleDevice) -> Place {
    Place { single_voter: false, ..Place::double(disk) }
}

/// The same, to go on alone.
fn forced(disk: &DoubleDevice) -> Place {
    Place { forced_voter: Some(MemberId(SELF)), ..restarted(disk) }
}

fn in_force(member: &Member) -> Option<(Vec<u64>, Vec<u64>)> {
    let membership = member.machine.membership().membership.as_ref()?;
    let [voters] = &membership.configs[..] else { panic!("no joint config") };
    Some((voters.member_ids.clone(), membership.nodes.iter().map(|node| node.member_id).collect()))
}

fn alone(member: &Member) -> bool {
    in_force(member) == Some((vec![SELF], vec![SELF]))
}

/// One of these members stops, with entries in its log of which it does not know that they are committed: two writes,
/// and a change of the members between them. The members have agreed on `level`.
fn stopped(disk: &DoubleDevice, level: u32, voters: &[u64], learners: &[u64]) -> u64 {
    let mut member = open(&restarted(disk));
    member.propose_members(voters, learners);
    member.propose(vec![Request::ClusterLevel(ClusterLevel { level })]);
    member.write_randomly(1, 5, 200);
    let known = member.propose(vec![put("known", b"1")]);
    member.receive(member.entry(vec![put("tail", b"1")]));
    member.receive(Payload::Membership(members(voters, &[learners, &[9]].concat())));
    member.receive(member.entry(vec![put("tail", b"2")]));
    known.index
}

fn newest(member: &Member, key: &str) -> Option<Vec<u8>> {
    let history = member.snapshot().history;
    let of_key = history.iter().rev().find(|record| record.kv.key == key.as_bytes())?;
    Some(of_key.kv.value.to_vec())
}

#[test]
fn a_member_goes_on_alone_with_everything_it_has() {
    for level in 0..=CLUSTER_LEVEL {
        goes_on_alone(level, &[1, SELF, 8], &[]);
        goes_on_alone(level, &[1, 2], &[SELF, 3]);
    }
}

fn goes_on_alone(level: u32, voters: &[u64], learners: &[u64]) {
    let disk = DoubleDevice::default();
    let known = stopped(&disk, level, voters, learners);
    let as_it_was = open(&restarted(&disk.after_kill()));
    assert_eq!(newest(&as_it_was, "tail"), None, "it does not know that it is committed");

    let member = open(&forced(&disk));
    assert!(alone(&member), "{:?}", in_force(&member));
    assert_eq!(newest(&member, "tail").unwrap(), b"2");
    let gone: Vec<u64> = member.machine.removed_members().iter().map(|id| id.0).collect();
    let mut others = [voters, learners, &[9]].concat();
    others.retain(|id| *id != SELF);
    others.sort_unstable();
    assert_eq!(gone, others, "they are known as removed, at level {level} before");
    assert_eq!(member.machine.cluster_level(), CLUSTER_LEVEL, "it understands itself");
    let state = member.journal.group(GROUP).state();
    assert_eq!(state.committed, state.last);
    let added = if level < CLUSTER_LEVEL { 2 } else { 1 };
    let last = state.last.unwrap();
    assert!(last.index == known + 3 + added && last.term.0 > 1, "{state:?}");
    let before = member.snapshot();
    drop(member);

    // Whatever it is started with from now on, and whether or not the power was cut.
    for place in [restarted, forced] {
        let after = disk.after_power_cut(5);
        let member = open(&place(&after));
        assert!(alone(&member));
        assert_eq!(member.snapshot(), before);
        assert_eq!(member.journal.group(GROUP).state().last, state.last, "nothing was added");
        member.goes_on(&after, 6, "alone");
    }
}

#[test]
fn a_power_cut_while_a_member_is_made_the_only_one_leaves_the_old_members_or_the_new() {
    for level in 0..=CLUSTER_LEVEL {
        cut_at_every_sync(level);
    }
}

fn cut_at_every_sync(level: u32) {
    let mut seen = [0; 2];
    for cut in 0.. {
        let disk = DoubleDevice::default();
        stopped(&disk, level, &[1, SELF, 8], &[]);
        disk.freeze_at(disk.syncs() + cut);
        drop(try_open(&forced(&disk)));
        let whole = !disk.is_frozen();
        for seed in 0..4 {
            let after = disk.after_power_cut(seed);
            let member = open(&restarted(&after));
            assert_eq!(newest(&member, "known").unwrap(), b"1", "CUT={cut} seed {seed}");
            let new = alone(&member);
            let old = in_force(&member) == Some((vec![1, SELF, 8], vec![1, SELF, 8]));
            assert!(new != old, "CUT={cut} seed {seed}: {:?}", in_force(&member));
            assert!(new || !whole, "CUT={cut} seed {seed}: it was told that it is alone");
            // All of the log belongs to the new membership, nothing above its commit index to the old one.
            assert_eq!(newest(&member, "tail").is_some(), new, "CUT={cut} seed {seed}");
            let log = member.journal.group(GROUP).state();
            assert_eq!(new, log.committed == log.last, "CUT={cut} seed {seed}: {log:?}");
            if !new {
                // Started as it was, it follows whom the others have elected meanwhile.
                let term = log.last.unwrap().term.0 + 1;
                let elected = Vote { term, voted_for: Some(MemberId(1)), committed: true };
                assert!(member.saves(elected), "CUT={cut} seed {seed}: {log:?}");
            }
            seen[usize::from(new)] += 1;
            drop(member);
            assert!(
                alone(&open(&forced(&after))),
                "CUT={cut} seed {seed}: asked again, it is done"
            );
        }
        if whole {
            break;
        }
    }
    assert!(seen.iter().all(|times| *times > 0), "both were seen: {seen:?}");
}

/// What was known to be committed left it a member.
#[test]
fn who_does_not_know_its_removal_to_be_committed_goes_on_alone() {
    for level in 0..=CLUSTER_LEVEL {
        let disk = DoubleDevice::default();
        let mut member = open(&restarted(&disk));
        member.propose_members(&[1, SELF, 8], &[]);
        member.propose(vec![Request::ClusterLevel(ClusterLevel { level })]);
        member.receive(member.entry(vec![put("tail", b"1")]));
        member.receive(Payload::Membership(members(&[1, 8], &[])));
        member.receive(member.entry(vec![put("tail", b"2")]));
        drop(member);

        let member = open(&forced(&disk));
        let gone = |member: &Member| -> Vec<u64> {
            member.machine.removed_members().iter().map(|id| id.0).collect()
        };
        assert!(alone(&member), "level {level}: {:?}", in_force(&member));
        assert_eq!(newest(&member, "tail").unwrap(), b"2", "level {level}");
        assert_eq!(gone(&member), [1, 8], "level {level}: it is none of those removed");
        let url = &member.machine.membership().membership.as_ref().unwrap().nodes[0].peer_urls;
        assert_eq!(url, &["http://7".to_owned()]);
        let before = member.snapshot();
        member.take_base();
        drop(member);
        for place in [restarted, forced] {
            let after = disk.after_power_cut(3);
            let member = open(&place(&after));
            assert!(alone(&member) && member.snapshot() == before, "level {level}");
            assert_eq!(gone(&member), [1, 8], "level {level}");
            member.goes_on(&after, 6, "alone");
        }
    }
}

/// Its log has brought it in, and no commit index with it yet.
#[test]
fn who_does_not_know_its_addition_to_be_committed_goes_on_alone() {
    let disk = DoubleDevice::default();
    let mut member = open(&restarted(&disk));
    member.propose_members(&[1, 8], &[]);
    member.receive(Payload::Membership(members(&[1, 8], &[SELF])));
    drop(member);
    assert!(alone(&open(&forced(&disk))));
}

#[test]
fn who_was_removed_makes_no_cluster_of_its_own() {
    let disk = DoubleDevice::default();
    let mut member = open(&restarted(&disk));
    member.propose_members(&[1, SELF, 8], &[]);
    member.propose_members(&[1, 8], &[]);
    // In order: the last commit index is written.
    member.close();
    let refused = try_open(&forced(&disk)).err();
    assert!(
        matches!(refused, Some(OpenError::NotAMember { member: MemberId(SELF) })),
        "{refused:?}"
    );
}

#[test]
fn a_member_that_has_never_begun_has_nothing_to_go_on_with() {
    let disk = DoubleDevice::default();
    let member = open(&forced(&disk));
    assert_eq!(member.journal.group(GROUP).state().last, None);
}
