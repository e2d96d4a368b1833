//! Looks fed by hand. Bugs that these guard against: a node given up on a reader's silence, a joiner taken for a stray,
//! a step planned for ever.

use super::*;

const NOW: Duration = Duration::from_secs(1000);

fn listed(id: u64, shown: Standing) -> Listed {
    Listed {
        id: MemberId(id),
        name: format!("n{id}"),
        address: format!("h{id}:6400"),
        is_worker: false,
        shown: Some(shown),
    }
}

fn member(id: u64, vote: Vote) -> Replica {
    let following = Following { has_answered: true, is_in_sync: false };
    Replica { id: MemberId(id), name: format!("n{id}"), vote, followed: Some(following) }
}

/// It was added, and nothing is heard of it; `None`: whoever looks cannot know.
fn silent(id: u64, has_answered: Option<bool>) -> Replica {
    let followed = has_answered.map(|has_answered| Following { has_answered, is_in_sync: false });
    Replica { name: String::new(), followed, ..member(id, Vote::Promised) }
}

fn seen(nodes: Vec<Listed>, members: Vec<Replica>) -> Seen {
    Seen { nodes, members, ..Seen::default() }
}

fn steps(decisions: Vec<Decision>) -> Vec<(Step, Reason)> {
    decisions.into_iter().map(|decision| (decision.step, decision.reason)).collect()
}

/// What is planned if the same is seen at once and after `waited`.
fn after(seen: &Seen, waited: Duration) -> Vec<(Step, Reason)> {
    let mut planner = Planner::default();
    planner.plan(seen, NOW);
    steps(planner.plan(seen, NOW + waited))
}

#[test]
fn a_fleet_in_order_is_left_alone() {
    let worker = Listed { is_worker: true, shown: None, ..listed(9, Standing::Voter) };
    let nodes = vec![listed(1, Standing::Voter), listed(2, Standing::StandBy), worker];
    let members = vec![member(1, Vote::Held), member(2, Vote::Promised)];
    let mut planner = Planner::default();
    assert_eq!(planner.plan(&seen(nodes, members), NOW), []);
    assert!(!planner.is_waiting());
}

#[test]
fn a_node_whose_member_was_removed_is_forgotten_at_once() {
    let nodes = vec![listed(1, Standing::Voter), listed(2, Standing::Voter)];
    let mut look = seen(nodes, vec![member(1, Vote::Held)]);
    look.removed.insert(MemberId(2));
    let expected = [(Step::Forget(MemberId(2)), Reason::WasRemoved)];
    assert_eq!(after(&look, Duration::ZERO), expected);
}

/// It is entered before it is added: between the two it must not be taken for one that is gone.
#[test]
fn a_node_that_is_just_being_let_in_is_waited_for() {
    let nodes = vec![listed(1, Standing::Voter), listed(2, Standing::Pending)];
    let look = seen(nodes, vec![member(1, Vote::Held)]);
    assert_eq!(after(&look, ADDED_WITHIN - Duration::from_millis(1)), []);
    let expected = [(Step::Forget(MemberId(2)), Reason::NeverAdded)];
    assert_eq!(after(&look, ADDED_WITHIN), expected);
}

#[test]
fn a_node_that_never_answered_is_expelled_after_a_minute_without_a_break() {
    let look = |has_answered| {
        let nodes = vec![listed(1, Standing::Voter), listed(2, Standing::Pending)];
        seen(nodes, vec![member(1, Vote::Held), silent(2, has_answered)])
    };
    let expel = [(Step::Expel(MemberId(2)), Reason::NeverAnswered)];
    assert_eq!(after(&look(Some(false)), ANSWERS_WITHIN), expel);
    assert_eq!(after(&look(Some(true)), ANSWERS_WITHIN * 10), []);

    let mut planner = Planner::default();
    planner.plan(&look(Some(false)), NOW);
    planner.plan(&look(Some(true)), NOW + ANSWERS_WITHIN / 2);
    assert_eq!(steps(planner.plan(&look(Some(false)), NOW + ANSWERS_WITHIN)), []);
    assert!(planner.is_waiting());
    let again = NOW + ANSWERS_WITHIN * 2;
    assert_eq!(steps(planner.plan(&look(Some(false)), again)), expel);
}

/// Unknown is not absent: who does not lead knows nothing of the others.
#[test]
fn nobody_is_expelled_by_one_who_cannot_know() {
    let nodes = vec![listed(1, Standing::Voter), listed(2, Standing::Pending)];
    let look = seen(nodes, vec![member(1, Vote::Held), silent(2, None)]);
    assert_eq!(after(&look, ANSWERS_WITHIN * 100), []);
}

#[test]
fn whoever_has_run_once_or_votes_or_came_another_way_is_never_expelled() {
    let gone = Some(Following { has_answered: false, is_in_sync: false });
    let ran = Replica { followed: gone, ..member(2, Vote::Promised) };
    let votes = Replica { vote: Vote::Held, ..silent(3, Some(false)) };
    let other = Listed { address: String::new(), ..listed(4, Standing::Pending) };
    let nodes = vec![listed(2, Standing::StandBy), listed(3, Standing::Voter), other];
    let look = seen(nodes, vec![ran, votes, silent(4, Some(false))]);
    assert_eq!(after(&look, ANSWERS_WITHIN * 100), []);
}

#[test]
fn a_member_that_came_another_way_is_entered_under_a_name_of_its_own() {
    let named = Replica { name: "other".to_owned(), ..member(0x2a, Vote::None) };
    let twin = Replica { name: "n1".to_owned(), ..member(0x2b, Vote::Held) };
    let nodes = vec![listed(1, Standing::Voter)];
    let look = seen(nodes.clone(), vec![member(1, Vote::Held), named, twin]);
    let adopt = |id, name: &str, standing| {
        let (id, name) = (MemberId(id), name.to_owned());
        (Step::Adopt { id, name, standing }, Reason::NotListed)
    };
    let expected = [adopt(0x2a, "other", Standing::Spare), adopt(0x2b, "2b", Standing::Voter)];
    assert_eq!(after(&look, Duration::ZERO), expected);

    // One that has told no name may be about to.
    let look = seen(nodes, vec![member(1, Vote::Held), silent(0x2a, None)]);
    assert_eq!(after(&look, NAMED_WITHIN - Duration::from_millis(1)), []);
    let expected = [adopt(0x2a, "2a", Standing::Pending)];
    assert_eq!(after(&look, NAMED_WITHIN), expected);
}

#[test]
fn a_learner_in_sync_is_promoted_and_one_that_will_be_anyway_is_not() {
    let in_sync = Some(Following { has_answered: true, is_in_sync: true });
    let learner = Replica { followed: in_sync, ..member(2, Vote::None) };
    let marked = Replica { followed: in_sync, ..member(3, Vote::Promised) };
    let behind = member(4, Vote::None);
    let unknown = Replica { followed: None, ..member(5, Vote::None) };
    let unseen = Replica { name: String::new(), ..learner.clone() };
    let nodes = vec![
        listed(2, Standing::Spare),
        listed(3, Standing::StandBy),
        listed(4, Standing::Spare),
        listed(5, Standing::Spare),
    ];
    let look = seen(nodes, vec![learner, marked, behind, unknown]);
    let expected = [(Step::Promote(MemberId(2)), Reason::InSync)];
    assert_eq!(after(&look, Duration::ZERO), expected);
    let look = seen(vec![listed(2, Standing::Pending)], vec![unseen]);
    assert_eq!(after(&look, Duration::ZERO), []);
}

#[test]
fn a_record_says_what_its_node_has_become() {
    #[rustfmt::skip]
    let table = [
        (member(2, Vote::Held),            Standing::Voter),
        (member(2, Vote::Promised),        Standing::StandBy),
        (silent(2, Some(true)),            Standing::Pending),
        (member(2, Vote::None),            Standing::Spare),
        (Replica { vote: Vote::Held, ..silent(2, None) }, Standing::Voter),
    ];
    for (member, standing) in table {
        for shown in [None, Some(Standing::Pending), Some(Standing::Voter)] {
            let node = Listed { shown, ..listed(2, standing) };
            let planned = after(&seen(vec![node], vec![member.clone()]), Duration::ZERO);
            let show = (Step::Show(MemberId(2), standing), Reason::Differs);
            let expected = if shown == Some(standing) { vec![] } else { vec![show] };
            assert_eq!(planned, expected, "{member:?} shown as {shown:?}");
        }
    }
}

#[test]
fn words_of_standings_read_back() {
    for standing in [Standing::Voter, Standing::StandBy, Standing::Spare, Standing::Pending] {
        assert_eq!(Standing::of_word(standing.as_str()), Some(standing));
    }
    assert_eq!(Standing::of_word("unknown"), None);
}

#[test]
fn a_certificate_is_renewed_when_less_than_a_third_of_its_time_is_left() {
    #[rustfmt::skip]
    let table = [
        // from, until, now
        (0,   900, 599, Renewal::Keep { until: 600 }),
        (0,   900, 600, Renewal::Renew),
        (0,   900, 950, Renewal::Renew),
        (100, 400, 99,  Renewal::Keep { until: 300 }),
        (500, 400, 450, Renewal::Renew),
    ];
    for (from, until, now, expected) in table {
        assert_eq!(renewal(from, until, now), expected, "{from} {until} {now}");
    }
}

#[test]
fn the_authorities_take_their_next_step_and_who_is_late_is_waited_for() {
    let with = |turn| Seen { authority: Some(turn), ..seen(Vec::new(), Vec::new()) };
    let mut planner = Planner::default();
    let late = with(Turn::Wait(vec!["n2".to_owned()]));
    assert_eq!(planner.plan(&late, NOW), []);
    assert!(planner.is_waiting(), "looked at again soon");
    let promote = steps(planner.plan(&with(Turn::Promote), NOW));
    assert_eq!(promote, [(Step::Succeed, Reason::AllTrust)]);
    let retire = steps(planner.plan(&with(Turn::Retire), NOW));
    assert_eq!(retire, [(Step::Retire, Reason::AllFollow)]);
    assert_eq!(planner.plan(&with(Turn::Rest), NOW), []);
    assert!(!planner.is_waiting());
}
