//! Leases end on time, in batches, after their leader was confirmed, and never early.

use quorate_core::api::ids::LeaseId;
use tokio::time::Instant;

use super::double::{Fate, Member, pass};

#[tokio::test(start_paused = true)]
async fn a_lease_ends_within_half_a_second_after_its_deadline() {
    let (member, _running) = Member::leading();
    let begun = Instant::now();
    member.grant(1, 5);
    member.grant(2, 7);

    pass(4.9).await;
    assert_eq!(member.alive(), [1, 2]);
    assert_eq!(member.confirmations(), 0, "nothing was due, nobody was asked");
    pass(0.7).await;
    assert_eq!(member.alive(), [2]);
    pass(10.0).await;

    for (id, at) in member.ended() {
        let ttl = if id == LeaseId(1) { 5.0 } else { 7.0 };
        let lived = (at - begun).as_secs_f64();
        assert!(lived >= ttl && lived <= ttl + 0.51, "{id} lived {lived}");
    }
    assert_eq!(member.lessor().counters().expired(), 2);
    assert_eq!(member.lessor().counters().granted(), 2);
    assert_eq!(member.lessor().counters().revoked(), 2);
}

#[tokio::test(start_paused = true)]
async fn many_leases_end_in_batches_of_a_thousand() {
    let (member, _running) = Member::leading();
    for id in 1..=12_345 {
        member.grant(id, 5);
    }
    pass(5.1).await;
    let batches: Vec<usize> = member.expiries().iter().map(|it| it.lease_ids.len()).collect();
    assert_eq!(batches, [1000; 2], "two batches in one look");
    pass(0.7).await;
    assert_eq!(member.alive(), [0; 0]);
    assert_eq!(member.expiries().last().unwrap().lease_ids.len(), 345);
}

#[tokio::test(start_paused = true)]
async fn nothing_ends_while_leadership_cannot_be_confirmed() {
    let (member, _running) = Member::leading();
    member.grant(1, 2);
    member.set_confirms(false);
    pass(30.0).await;
    assert_eq!(member.alive(), [1]);
    assert!(member.expiries().is_empty());

    member.set_confirms(true);
    pass(0.6).await;
    assert_eq!(member.alive(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_expiry_that_failed_is_proposed_again_after_the_request_timeout() {
    let (member, _running) = Member::leading();
    member.set_fate(Fate::Failed);
    member.grant(1, 2);
    pass(2.6).await;
    assert_eq!(member.expiries().len(), 1);
    pass(6.2).await;
    assert_eq!(member.expiries().len(), 1, "not before the request timeout of 7 s");
    member.set_fate(Fate::Applied);
    pass(1.0).await;
    assert_eq!(member.expiries().len(), 2);
    assert_eq!(member.alive(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_lease_is_not_proposed() {
    let (member, _running) = Member::leading();
    member.grant(1, 2);
    member.revoke(1);
    pass(10.0).await;
    assert!(member.expiries().is_empty());
}

#[tokio::test(start_paused = true)]
async fn long_leases_are_checkpointed_every_five_minutes_and_short_ones_never() {
    let (member, _running) = Member::leading();
    member.grant(1, 3600);
    member.grant(2, 300);
    member.grant(3, 301);
    pass(299.0).await;
    assert!(member.checkpoints().is_empty());
    pass(1.6).await;
    let rests: Vec<_> =
        member.checkpoints()[0].checkpoints.iter().map(|it| (it.id, it.remaining_ttl)).collect();
    assert_eq!(rests, [(1, 3300), (3, 1)]);
    pass(300.0).await;
    assert_eq!(member.checkpoints().len(), 2);
    assert_eq!(member.remaining(1), Some(3000));
}

#[tokio::test(start_paused = true)]
async fn the_run_ends_when_told_even_while_a_proposal_waits() {
    let member = Member::new();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async {
        let _ = stopped.await;
    };
    let running = tokio::spawn(member.lessor().run(stopped));
    member.lead(1);
    member.set_fate(Fate::Waits);
    member.grant(1, 2);
    pass(3.0).await;
    assert_eq!(member.expiries().len(), 1);
    stop.send(()).unwrap();
    running.await.unwrap();
}
