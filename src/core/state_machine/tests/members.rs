//! Who is a member, and who was.

use std::collections::BTreeSet;

use crate::api::batch::Space;
use crate::api::ids::MemberId;
use crate::api::pb::internal::command::Request;
use crate::api::pb::internal::log_payload::Payload;
use crate::api::pb::internal::{ClusterLevel, MemberAttributes, MemberNode, Membership, VoterSet};
use crate::state_machine::{CLUSTER_LEVEL, Restorer};

use super::member::{Member, PROPOSER};

fn membership(ids: &[u64]) -> Payload {
    let node = |id: &u64| MemberNode { member_id: *id, ..MemberNode::default() };
    Payload::Membership(Membership {
        configs: vec![VoterSet { member_ids: ids.to_vec() }],
        nodes: ids.iter().map(node).collect(),
    })
}

fn removed(ids: &[u64]) -> BTreeSet<MemberId> {
    ids.iter().copied().map(MemberId).collect()
}

fn level(level: u32) -> Request {
    Request::ClusterLevel(ClusterLevel { level })
}

/// Members of the first level know no such record: their state would be another one.
#[test]
fn who_leaves_is_not_noted_while_a_member_of_an_older_level_is_there() {
    let mut member = Member::new(0);
    member.payload(membership(&[PROPOSER, 2, 3])).unwrap();
    member.one(level(1)).unwrap();
    let applied = member.payload(membership(&[PROPOSER, 2])).unwrap();
    let mut spaces = applied.batch.records.iter().map(|record| record.space);
    assert!(spaces.all(|space| space != Space::RemovedMember));
    assert!(member.machine.removed_members().is_empty());
    member.one(level(CLUSTER_LEVEL)).unwrap();
    member.payload(membership(&[PROPOSER])).unwrap();
    assert_eq!(member.machine.removed_members(), &removed(&[2]));
}

/// A member that is dead for good holds the level up, and is removed while nobody is noted: it must not be taken for a
/// stranger when it comes back.
#[test]
fn who_has_run_and_left_is_noted_when_the_level_is_reached() {
    for levels in [&[3][..], &[1, 3], &[2, 3], &[1, 2, 3]] {
        let mut member = Member::new(0);
        member.payload(membership(&[PROPOSER, 2, 3, 4])).unwrap();
        member.proposes(3);
        member.proposes(2);
        member.payload(membership(&[PROPOSER, 2])).unwrap();
        for to in levels {
            assert!(member.machine.removed_members().is_empty(), "{levels:?}");
            member.one(level(*to)).unwrap();
        }
        // Nobody knows of 4, which has never run.
        assert_eq!(member.machine.removed_members(), &removed(&[3]), "{levels:?}");
        let hash = member.machine.rolling_hash();
        member.one(level(3)).unwrap();
        assert_eq!(member.machine.rolling_hash(), hash, "it is reached once");
    }
}

/// Members of a lower level would keep the record.
#[test]
fn who_is_a_member_again_is_not_noted_as_removed() {
    for (at, noted) in [(2, &[2, 3][..]), (3, &[3])] {
        let mut member = Member::new(0);
        member.payload(membership(&[PROPOSER, 2, 3])).unwrap();
        member.one(level(at)).unwrap();
        member.payload(membership(&[PROPOSER])).unwrap();
        assert_eq!(member.machine.removed_members(), &removed(&[2, 3]));
        member.payload(membership(&[PROPOSER, 2])).unwrap();
        assert_eq!(member.machine.removed_members(), &removed(noted), "level {at}");
    }
}

#[test]
fn who_leaves_is_noted_for_ever() {
    let mut member = Member::new(0);
    let told = |id| {
        Request::MemberAttributes(MemberAttributes {
            member_id: id,
            name: "m".to_owned(),
            ..MemberAttributes::default()
        })
    };
    member.payload(membership(&[PROPOSER, 2, 3])).unwrap();
    member.one(level(CLUSTER_LEVEL)).unwrap();
    member.one(told(3)).unwrap();
    assert!(member.machine.removed_members().is_empty());
    let applied = member.payload(membership(&[PROPOSER, 2, 4])).unwrap();
    let spaces: Vec<Space> = applied.batch.records.iter().map(|record| record.space).collect();
    assert!(spaces.contains(&Space::RemovedMember) && spaces.contains(&Space::MemberAttributes));
    assert_eq!(member.machine.removed_members(), &removed(&[3]));
    member.one(told(3)).unwrap();
    assert_eq!(member.machine.member_attributes(MemberId(3)), None, "it has nothing to tell");
    member.payload(membership(&[PROPOSER])).unwrap();
    assert_eq!(member.machine.removed_members(), &removed(&[2, 3, 4]));

    let frozen = member.machine.freeze();
    let mut restorer = Restorer::new(0);
    for record in &frozen.records {
        restorer.record(record.space, &record.key, record.value.as_ref().unwrap()).unwrap();
    }
    let restored = restorer.finish(frozen.applied).unwrap();
    assert_eq!(restored.removed_members(), member.machine.removed_members());
}
