//! Leadership comes and goes.

use quorate_core::api::ids::{LeaseId, LogId, Term};
use tokio::time::Instant;

use super::double::{Fate, Member, pass};
use crate::keyspace::lease::{NotLeader, RenewError};

#[tokio::test(start_paused = true)]
async fn deadlines_begin_when_the_terms_first_entry_is_applied() {
    let member = Member::new();
    let _running = tokio::spawn(member.lessor().run(std::future::pending()));
    member.grant(1, 5);
    let ttl = || async { member.lessor().time_to_live(LeaseId(1), false).await };

    member.lessor().leads(Some(Term(2)));
    assert_eq!(ttl().await, Err(NotLeader), "led, but nothing of the term applied");
    pass(60.0).await;
    member.begin(2);
    assert_eq!(ttl().await.unwrap().unwrap().ttl, 6, "the TTL and an election timeout");

    member.begin(3);
    member.lessor().leads(Some(Term(4)));
    assert_eq!(ttl().await, Err(NotLeader), "a term between: nothing is kept");
    member.lessor().leads(Some(Term(3)));
    assert_eq!(ttl().await.unwrap().unwrap().ttl, 6, "applied first, told second");
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_gives_every_lease_its_time_again() {
    let (member, _running) = Member::leading();
    member.grant(1, 5);
    pass(4.0).await;
    member.follow();
    pass(100.0).await;
    assert_eq!(member.alive(), [1], "a follower ends nothing");

    let begun = Instant::now();
    member.lead(2);
    pass(20.0).await;
    let [(_, at)] = member.ended()[..] else { panic!("it ended once") };
    let lived = (at - begun).as_secs_f64();
    assert!((6.0..6.6).contains(&lived), "{lived}");
    assert_eq!(member.expiries()[0].term, 2);
}

/// Its entry was committed by the new leader only, and whoever asked for it is told then.
#[tokio::test(start_paused = true)]
async fn a_lease_whose_grant_was_applied_after_the_silence_has_its_whole_time() {
    let (member, _running) = Member::leading();
    let silent = Instant::now();
    member.follow();
    pass(4.0).await;
    member.lessor().leads(Some(Term(2)));
    member.grant(1, 5);
    let granted = Instant::now();
    member.begin(2);
    member.lessor().last_heard(Term(2), silent);
    pass(10.0).await;
    let [(_, at)] = member.ended()[..] else { panic!("it ended once") };
    let lived = (at - granted).as_secs_f64();
    assert!((5.0..5.2).contains(&lived), "{lived}");
}

/// Else whoever takes over from a node that led raft, too, waits for its lease longer by the election and two timeouts.
#[tokio::test(start_paused = true)]
async fn a_new_leader_counts_from_when_the_one_before_fell_silent() {
    let (member, _running) = Member::leading();
    member.grant(1, 5);
    member.grant(2, 5);
    let silent = Instant::now();
    member.follow();
    pass(2.0).await;
    member.lessor().leads(Some(Term(2)));
    member.lessor().last_heard(Term(2), silent);
    member.begin(2);
    pass(1.0).await;
    let renewed = Instant::now();
    assert_eq!(member.lessor().renew(LeaseId(2)).await, Ok(5));
    // Told twice, also after a promise of its own.
    member.lessor().last_heard(Term(2), silent);
    pass(10.0).await;
    let [(first, first_at), (second, second_at)] = member.ended()[..] else { panic!("both end") };
    assert_eq!((first, second), (LeaseId(1), LeaseId(2)));
    let lived = (first_at - silent).as_secs_f64();
    assert!(
        (5.5..5.7).contains(&lived),
        "a promise was made at most half a timeout later: {lived}"
    );
    let lived = (second_at - renewed).as_secs_f64();
    assert!((5.0..5.2).contains(&lived), "{lived}");
}

#[tokio::test(start_paused = true)]
async fn what_was_promised_in_the_same_term_is_not_counted_from_before_it() {
    let (member, _running) = Member::leading();
    member.grant(1, 5);
    let silent = Instant::now();
    member.follow();
    member.lead(2);
    pass(4.0).await;
    assert_eq!(member.lessor().renew(LeaseId(1)).await, Ok(5));
    // Out of touch, and back in the same term: that promise is forgotten, and holds.
    member.follow();
    member.lead(2);
    member.lessor().last_heard(Term(2), silent);
    pass(4.5).await;
    assert_eq!(member.alive(), [1]);
}

/// A look at who leads that finds the same as before asks the others once more.
#[tokio::test(start_paused = true)]
async fn a_rest_that_was_checkpointed_in_this_term_counts_from_its_checkpoint_only() {
    let (member, _running) = Member::leading();
    member.grant(1, 400);
    let silent = Instant::now();
    member.follow();
    member.lead(2);
    member.lessor().last_heard(Term(2), silent);
    pass(301.0).await;
    assert_eq!(member.remaining(1), Some(101), "the rest up to the deadline, rounded up");
    member.lessor().last_heard(Term(2), silent);
    pass(90.0).await;
    assert_eq!(member.alive(), [1], "it is due at 400 s");
    pass(11.0).await;
    let [(_, at)] = member.ended()[..] else { panic!("it ended once") };
    let lived = (at - silent).as_secs_f64();
    assert!((400.0..401.2).contains(&lived), "{lived}");
}

/// A renewal may still be answered while the word of the next term is on its way to the lessor.
#[tokio::test(start_paused = true)]
async fn what_this_member_promised_in_an_earlier_term_stands_whatever_others_tell() {
    let (member, _running) = Member::leading();
    member.grant(1, 5);
    let told = Instant::now();
    pass(4.0).await;
    assert_eq!(member.lessor().renew(LeaseId(1)).await, Ok(5));
    let renewed = Instant::now();
    member.lead(2);
    member.lessor().last_heard(Term(2), told);
    pass(10.0).await;
    let [(_, at)] = member.ended()[..] else { panic!("it ended once") };
    let lived = (at - renewed).as_secs_f64();
    assert!((5.0..5.7).contains(&lived), "{lived}");
}

/// It was out of touch while they were applied, and those who asked have long had their answers.
#[tokio::test(start_paused = true)]
async fn what_was_granted_in_the_same_term_is_not_counted_from_before_it() {
    let (member, _running) = Member::leading();
    let silent = Instant::now();
    member.follow();
    member.lead(2);
    member.lessor().last_heard(Term(2), silent);
    member.follow();
    pass(2.0).await;
    member.grant(1, 20);
    pass(8.0).await;
    member.grant(2, 20);
    member.lead(2);
    member.lessor().last_heard(Term(2), silent);
    pass(11.5).await;
    assert_eq!(member.alive(), [1, 2], "of the first, half a second is left");
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_goes_on_from_the_checkpointed_rest() {
    let (member, _running) = Member::leading();
    member.grant(1, 400);
    pass(301.0).await;
    member.follow();
    member.lead(2);
    let live = member.lessor().time_to_live(LeaseId(1), false).await;
    assert_eq!(live.unwrap().unwrap().ttl, 101);
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leaders_late_expiry_names_its_own_term() {
    let (member, _running) = Member::leading();
    member.set_fate(Fate::Waits);
    member.grant(1, 2);
    pass(3.0).await;
    assert_eq!(member.expiries()[0].term, 1);

    // Another member led term 2 meanwhile, and we lead again: the late entry of term 1 ends nothing.
    member.follow();
    member.lead(3);
    member.set_fate(Fate::Applied);
    assert_eq!(member.lessor().renew(LeaseId(1)).await, Ok(2));
    pass(1.5).await;
    assert_eq!(member.alive(), [1]);
    pass(1.0).await;
    assert_eq!(member.alive(), [0; 0], "its own expiry, of term 3, does");
    assert_eq!(member.expiries().last().unwrap().term, 3);
}

/// The simulation's find: a leader that was cut off leads the same term again, with the expiry still in its log.
#[tokio::test(start_paused = true)]
async fn a_lease_whose_end_was_proposed_is_not_renewed_in_that_term() {
    let (member, _running) = Member::leading();
    member.set_fate(Fate::Waits);
    member.grant(1, 2);
    pass(3.0).await;
    assert_eq!(member.expiries().len(), 1);

    for _ in 0..2 {
        member.follow();
        pass(1.0).await;
        member.lead(1);
    }
    let renewing = tokio::spawn({
        let lessor = member.lessor();
        async move { lessor.renew(LeaseId(1)).await }
    });
    pass(1.0).await;
    assert!(!renewing.is_finished(), "nothing may be promised: the entry may yet be committed");

    member.set_fate(Fate::Applied);
    assert_eq!(renewing.await.unwrap(), Err(RenewError::NotFound));
}

#[tokio::test(start_paused = true)]
async fn a_restored_member_reads_its_leases_anew() {
    let (member, _running) = Member::leading();
    member.grant(1, 50);
    pass(40.0).await;
    member.lessor().restored(LogId::new(1, 99));
    let live = member.lessor().time_to_live(LeaseId(1), false).await;
    assert_eq!(live.unwrap().unwrap().ttl, 51);
    member.lessor().restored(LogId::new(2, 100));
    assert_eq!(member.lessor().time_to_live(LeaseId(1), false).await, Err(NotLeader));
}
