//! May the members be changed like this? etcd's rules (etcd `server/etcdserver/server.go`, `mayAddMember` and its like;
//! `api/membership/cluster.go`, `IsReadyTo…` and `ValidateConfigurationChange`).
//!
//! ```text
//!   where the request came in   --strict-reconfig-check: enough started? this member well connected?
//!   at the leader               known, unknown, URLs taken, too many learners, in sync?  and for a promotion: enough started?
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::etcdserverpb as pb;

use crate::consensus::Progress;
use crate::keyspace::error::MemberRefusal;

/// A connection counts once it has held for so long (etcd's `HealthInterval`).
pub(super) const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// A learner gets a vote when it has so much of the leader's log, in percent (etcd's `readyPercentThreshold`).
const READY_PERCENT: u64 = 90;

/// The cluster as one of its members sees it.
pub(super) struct Seen<'a, F> {
    /// Who is a member, as applied here.
    pub(super) members: &'a [pb::Member],
    /// Who looks.
    pub(super) own: MemberId,
    /// A connection counts once it has held for longer.
    pub(super) healthy_after: Duration,
    /// For how long it has been connected to another; `None` while it is not.
    pub(super) connected_for: F,
}

fn quorum(members: usize) -> usize {
    members / 2 + 1
}

/// A member that has started once has told its name.
fn is_started(member: &pb::Member) -> bool {
    !member.name.is_empty()
}

fn voters(members: &[pb::Member]) -> impl Iterator<Item = &pb::Member> {
    members.iter().filter(|member| !member.is_learner)
}

impl<F: Fn(MemberId) -> Option<Duration>> Seen<'_, F> {
    /// Voters that this member has been connected to for long enough, itself among them.
    fn healthy(&self) -> usize {
        let healthy = |member: &&pb::Member| {
            let id = MemberId(member.id);
            let connected =
                || (self.connected_for)(id).is_some_and(|since| since > self.healthy_after);
            id == self.own || connected()
        };
        voters(self.members).filter(healthy).count()
    }

    /// Adding a member must leave a quorum of those that run, even if the new one never does.
    pub(super) fn may_add(&self, is_learner: bool) -> Result<(), MemberRefusal> {
        let count = voters(self.members).count();
        let started = voters(self.members).filter(|member| is_started(member)).count();
        let first_beside_one = started == 1 && count == 1;
        if !is_learner && !first_beside_one && started < quorum(count + 1) {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        if count > 1 && self.healthy() < quorum(count + 1) {
            return Err(MemberRefusal::Unhealthy);
        }
        Ok(())
    }

    /// Removing a voter must leave a quorum of the others; one that is out of reach may always go.
    pub(super) fn may_remove(&self, id: MemberId) -> Result<(), MemberRefusal> {
        if self.members.iter().any(|member| member.id == id.0 && member.is_learner) {
            return Ok(());
        }
        let others: Vec<_> = voters(self.members).filter(|member| member.id != id.0).collect();
        let started = others.iter().filter(|member| is_started(member)).count();
        if started < quorum(others.len()) {
            return Err(MemberRefusal::NotEnoughStarted);
        }
        if id != self.own && (self.connected_for)(id).is_none() {
            return Ok(());
        }
        let count = voters(self.members).count();
        if self.healthy() < 2 + count.saturating_sub(1) / 2 {
            return Err(MemberRefusal::Unhealthy);
        }
        Ok(())
    }
}

/// With the learner's vote there must be a quorum of members that have started; the learner has.
pub(super) fn may_promote(members: &[pb::Member]) -> Result<(), MemberRefusal> {
    let count = voters(members).count();
    let started = voters(members).filter(|member| is_started(member)).count();
    if started + 1 < quorum(count + 1) {
        return Err(MemberRefusal::NotEnoughStarted);
    }
    Ok(())
}

/// The learner has nearly all of the leader's log.
pub(super) fn is_in_sync(progress: Progress) -> bool {
    let percent = u128::from(progress.entries) * 100;
    percent >= u128::from(progress.of) * u128::from(READY_PERCENT)
}

fn is_url_of_another(members: &[pb::Member], id: MemberId, peer_urls: &[String]) -> bool {
    let others = members.iter().filter(|member| member.id != id.0);
    let mut taken = others.flat_map(|member| &member.peer_ur_ls);
    taken.any(|url| peer_urls.contains(url))
}

/// Whoever is to vote has its vote.
pub(super) fn nobody_is_on_its_way(
    members: &[pb::Member],
    voting: &BTreeSet<MemberId>,
) -> Result<(), MemberRefusal> {
    match voters(members).all(|member| voting.contains(&MemberId(member.id))) {
        true => Ok(()),
        false => Err(MemberRefusal::NotEnoughStarted),
    }
}

/// A new member is new, and nobody is reached where it is.
pub(super) fn is_new(
    members: &[pb::Member],
    removed: &BTreeSet<MemberId>,
    id: MemberId,
    peer_urls: &[String],
) -> Result<(), MemberRefusal> {
    if removed.contains(&id) {
        return Err(MemberRefusal::NotFound);
    }
    if members.iter().any(|member| member.id == id.0) {
        return Err(MemberRefusal::IdExists);
    }
    if is_url_of_another(members, id, peer_urls) {
        return Err(MemberRefusal::PeerUrlExists);
    }
    Ok(())
}

/// There may be another learner.
pub(super) fn fits_learner(members: &[pb::Member], most: i64) -> Result<(), MemberRefusal> {
    let learners = members.iter().filter(|member| member.is_learner).count();
    match i64::try_from(learners) {
        Ok(learners) if learners < most => Ok(()),
        Ok(_) | Err(_) => Err(MemberRefusal::TooManyLearners),
    }
}

/// The member is known, and nobody else is reached where it is to be.
pub(super) fn may_move(
    members: &[pb::Member],
    id: MemberId,
    peer_urls: &[String],
) -> Result<(), MemberRefusal> {
    if !members.iter().any(|member| member.id == id.0) {
        return Err(MemberRefusal::NotFound);
    }
    if is_url_of_another(members, id, peer_urls) {
        return Err(MemberRefusal::PeerUrlExists);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u64 = 1;

    /// One member a letter: `v`, `l` a voter or learner that has started, `V`, `L` one that has not. Ids from 1.
    fn members(text: &str) -> Vec<pb::Member> {
        let member = |(id, kind): (u64, char)| pb::Member {
            id,
            name: if kind.is_lowercase() { format!("m{id}") } else { String::new() },
            peer_ur_ls: vec![format!("http://m{id}:1")],
            is_learner: kind.eq_ignore_ascii_case(&'l'),
            ..pb::Member::default()
        };
        (1..).zip(text.chars()).map(member).collect()
    }

    /// For how long the member of each id is connected to the first: seconds, `-` if it is not.
    fn seen<'a>(
        members: &'a [pb::Member],
        connected: &'a str,
    ) -> Seen<'a, impl Fn(MemberId) -> Option<Duration> + use<'a>> {
        let connected_for = move |id: MemberId| {
            let seconds = connected.chars().nth(id.0 as usize - 1)?.to_digit(10)?;
            Some(Duration::from_secs(seconds.into()))
        };
        Seen { members, own: MemberId(OWN), healthy_after: HEALTHY_AFTER, connected_for }
    }

    const OK: Result<(), MemberRefusal> = Ok(());
    const FEW: Result<(), MemberRefusal> = Err(MemberRefusal::NotEnoughStarted);
    const SICK: Result<(), MemberRefusal> = Err(MemberRefusal::Unhealthy);

    #[test]
    fn a_voter_is_added_where_a_quorum_stays_without_it() {
        for (cluster, connected, expected) in [
            ("v", "-", OK),
            ("V", "-", FEW),
            ("vv", "-9", OK),
            ("vv", "-5", SICK),
            ("vv", "--", SICK),
            ("vV", "--", FEW),
            ("vvv", "-99", OK),
            ("vvv", "-9-", SICK),
            ("vvV", "-9-", FEW),
            ("vvvv", "-99-", OK),
            ("vvvV", "-99-", OK),
            ("vvvVV", "-99--", FEW),
            ("vl", "-0", OK),
        ] {
            let members = members(cluster);
            assert_eq!(seen(&members, connected).may_add(false), expected, "{cluster} {connected}");
        }
    }

    #[test]
    fn a_learner_is_added_where_this_member_is_well_connected() {
        for (cluster, connected, expected) in
            [("v", "-", OK), ("vV", "--", SICK), ("vV", "-9", OK), ("vvv", "-1-", SICK)]
        {
            let members = members(cluster);
            assert_eq!(seen(&members, connected).may_add(true), expected, "{cluster} {connected}");
        }
    }

    #[test]
    fn a_voter_is_removed_where_a_quorum_of_the_others_stays() {
        for (cluster, connected, id, expected) in [
            ("v", "-", 1, FEW),
            ("vv", "-9", 2, OK),
            ("vv", "-9", 1, OK),
            ("vv", "-1", 1, SICK),
            ("vv", "--", 2, OK),
            ("vV", "--", 2, OK),
            ("vV", "--", 1, FEW),
            ("vvv", "-99", 1, OK),
            ("vvv", "-9-", 2, SICK),
            ("vvv", "-9-", 3, OK),
            ("vvV", "-9-", 3, OK),
            ("vvV", "-9-", 2, FEW),
            ("vl", "--", 2, OK),
            ("vv", "-9", 7, OK),
        ] {
            let members = members(cluster);
            let outcome = seen(&members, connected).may_remove(MemberId(id));
            assert_eq!(outcome, expected, "{cluster} {connected} without {id}");
        }
    }

    #[test]
    fn a_learner_is_promoted_where_enough_have_started() {
        for (cluster, expected) in [("vl", OK), ("vVl", OK), ("vVVl", FEW), ("vvVl", OK)] {
            assert_eq!(may_promote(&members(cluster)), expected, "{cluster}");
        }
    }

    #[test]
    fn nine_tenths_of_the_log_are_in_sync() {
        for (entries, of, expected) in
            [(0, 1, false), (89, 100, false), (90, 100, true), (100, 100, true), (0, 0, true)]
        {
            assert_eq!(is_in_sync(Progress { entries, of }), expected, "{entries} of {of}");
        }
    }

    #[test]
    fn ids_and_urls_are_used_once() {
        let members = members("vvl");
        let removed = BTreeSet::from([MemberId(8)]);
        let urls = |id: u64| vec![format!("http://m{id}:1")];
        let new = |id, url| is_new(&members, &removed, MemberId(id), &urls(url));
        assert_eq!(new(4, 4), OK);
        assert_eq!(new(2, 4), Err(MemberRefusal::IdExists));
        assert_eq!(new(4, 2), Err(MemberRefusal::PeerUrlExists));
        assert_eq!(new(8, 4), Err(MemberRefusal::NotFound));
        let moves = |id, url| may_move(&members, MemberId(id), &urls(url));
        assert_eq!((moves(2, 2), moves(2, 9)), (OK, OK));
        assert_eq!(moves(2, 3), Err(MemberRefusal::PeerUrlExists));
        assert_eq!(moves(9, 9), Err(MemberRefusal::NotFound));
        assert_eq!(fits_learner(&members, 1), Err(MemberRefusal::TooManyLearners));
        assert_eq!(fits_learner(&members, 2), OK);
    }
}
