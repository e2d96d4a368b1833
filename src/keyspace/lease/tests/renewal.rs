//! Keep-alives, and what they race against.

use std::time::Duration;

use quorate_core::api::ids::LeaseId;
use tokio::time::{Instant, timeout};

use super::double::{ELECTION, Fate, Member, pass};
use crate::keyspace::lease::{NotLeader, RenewError, TimeToLive};

#[tokio::test(start_paused = true)]
async fn a_renewal_starts_the_whole_ttl_again() {
    let (member, _running) = Member::leading();
    let begun = Instant::now();
    member.grant(1, 5);
    for _ in 0..4 {
        pass(3.0).await;
        assert_eq!(member.lessor().renew(LeaseId(1)).await, Ok(5));
    }
    pass(10.0).await;
    let [(_, at)] = member.ended()[..] else { panic!("it ended once") };
    let lived = (at - begun).as_secs_f64();
    assert!((17.0..17.6).contains(&lived), "{lived}");
    assert_eq!(member.lessor().counters().renewed(), 4);
    assert!(member.checkpoints().is_empty(), "a keep-alive writes nothing");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_lease_is_looked_for_once_more_and_not_found() {
    let (member, _running) = Member::leading();
    assert_eq!(member.lessor().renew(LeaseId(9)).await, Err(RenewError::NotFound));
    assert_eq!(member.confirmations(), 1);
    assert_eq!(member.lessor().time_to_live(LeaseId(9), true).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_does_not_lead_renews_nothing() {
    let member = Member::new();
    member.grant(1, 5);
    let not_leader = RenewError::NotLeader(NotLeader);
    assert_eq!(member.lessor().renew(LeaseId(1)).await, Err(not_leader.clone()));
    assert_eq!(member.lessor().time_to_live(LeaseId(1), false).await, Err(NotLeader));

    member.lead(2);
    assert_eq!(member.lessor().renew(LeaseId(1)).await, Ok(5), "it is confirmed");
    member.set_confirms(false);
    assert_eq!(member.lessor().renew(LeaseId(1)).await, Err(not_leader), "it is not");
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_that_took_long_is_asked_for_again() {
    let (member, _running) = Member::leading();
    member.grant(1, 5);
    member.delay_confirmations([ELECTION / 2 + Duration::from_millis(1), ELECTION / 2]);
    assert_eq!(member.lessor().renew(LeaseId(1)).await, Ok(5));
    assert_eq!(member.confirmations(), 2, "the first is too old to promise anything by");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_past_the_deadline_waits_for_the_end() {
    let (member, _running) = Member::leading();
    member.set_fate(Fate::Waits);
    member.grant(1, 2);
    pass(3.0).await;
    assert_eq!(member.expiries().len(), 1);
    let lessor = member.lessor();
    let renewal = tokio::spawn(async move { lessor.renew(LeaseId(1)).await });
    pass(3.0).await;
    assert!(!renewal.is_finished());

    member.set_fate(Fate::Applied);
    let renewed = timeout(Duration::from_millis(1), renewal).await;
    assert_eq!(renewed.expect("at once").unwrap(), Err(RenewError::NotFound));
    assert_eq!(member.alive(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_past_the_deadline_ends_with_leadership() {
    let (member, _running) = Member::leading();
    member.set_confirms(false);
    member.grant(1, 2);
    pass(3.0).await;
    let lessor = member.lessor();
    let renewal = tokio::spawn(async move { lessor.renew(LeaseId(1)).await });
    pass(3.0).await;
    member.follow();
    let renewed = timeout(Duration::from_millis(1), renewal).await;
    assert_eq!(renewed.expect("at once").unwrap(), Err(RenewError::NotLeader(NotLeader)));
    assert_eq!(member.alive(), [1], "whoever leads next decides");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_clears_a_checkpointed_rest_before_it_answers() {
    let (member, _running) = Member::leading();
    member.grant(1, 400);
    pass(301.0).await;
    assert_eq!(member.remaining(1), Some(100));

    assert_eq!(member.lessor().renew(LeaseId(1)).await, Ok(400));
    assert_eq!(member.remaining(1), Some(0));
    assert_eq!(member.checkpoints().len(), 2);
    assert_eq!(member.lessor().renew(LeaseId(1)).await, Ok(400));
    assert_eq!(member.checkpoints().len(), 2, "once is enough");

    pass(301.0).await;
    assert_eq!(member.remaining(1), Some(100), "checkpoints go on");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_waits_for_a_rest_that_is_on_its_way_and_clears_it() {
    for applied in [Fate::Applied, Fate::Failed] {
        let (member, _running) = Member::leading();
        member.grant(1, 400);
        member.set_fate(Fate::Waits);
        pass(301.0).await;
        let lessor = member.lessor();
        let renewal = tokio::spawn(async move { lessor.renew(LeaseId(1)).await });
        pass(0.1).await;
        assert!(!renewal.is_finished(), "another leader would give it 100 s");
        member.set_fate(applied);
        pass(0.1).await;
        member.set_fate(Fate::Applied);
        let renewed = match applied {
            Fate::Failed => member.lessor().renew(LeaseId(1)).await,
            Fate::Applied | Fate::Waits => renewal.await.unwrap(),
        };
        assert_eq!(renewed, Ok(400));
        assert_eq!(member.remaining(1), Some(0));
        let last = member.checkpoints().pop().unwrap();
        assert_eq!(last.checkpoints[0].remaining_ttl, 0, "the clearing comes last");
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_rest_cannot_be_cleared_renews_nothing() {
    let (member, _running) = Member::leading();
    member.grant(1, 310);
    pass(301.0).await;
    assert_eq!(member.remaining(1), Some(10));
    member.set_fate(Fate::Failed);
    let renewed = member.lessor().renew(LeaseId(1)).await;
    assert!(matches!(renewed, Err(RenewError::Failed(_))), "{renewed:?}");

    member.set_fate(Fate::Waits);
    let lessor = member.lessor();
    let renewal = tokio::spawn(async move { lessor.renew(LeaseId(1)).await });
    pass(12.0).await;
    assert_eq!(member.expiries().len(), 1, "it ran out while the rest was being cleared");
    member.set_fate(Fate::Applied);
    assert_eq!(renewal.await.unwrap(), Err(RenewError::NotFound));
}

#[tokio::test(start_paused = true)]
async fn time_to_live_is_rounded_down_and_stays_at_zero() {
    let (member, _running) = Member::leading();
    member.set_confirms(false);
    member.grant(0x1f, 5);
    let live = |ttl, keys: &[&'static str]| {
        let keys = keys.iter().map(|key| (*key).into()).collect();
        Ok(Some(TimeToLive { ttl, granted_ttl: 5, keys }))
    };
    let lessor = member.lessor();
    assert_eq!(lessor.time_to_live(LeaseId(0x1f), true).await, live(5, &["key of 1f"]));
    pass(0.1).await;
    assert_eq!(lessor.time_to_live(LeaseId(0x1f), false).await, live(4, &[]));
    pass(9.0).await;
    assert_eq!(lessor.time_to_live(LeaseId(0x1f), false).await, live(0, &[]));
}

#[tokio::test(start_paused = true)]
async fn leases_are_listed_by_what_is_left_of_them() {
    let member = Member::new();
    member.grant(3, 100);
    member.grant(1, 300);
    member.grant(2, 200);
    assert_eq!(member.lessor().leases(), [1, 2, 3].map(LeaseId), "a follower knows no deadlines");
    member.lead(2);
    assert_eq!(member.lessor().leases(), [3, 2, 1].map(LeaseId));
    pass(50.0).await;
    assert_eq!(member.lessor().renew(LeaseId(3)).await, Ok(100));
    member.grant(4, 120);
    assert_eq!(member.lessor().leases(), [3, 4, 2, 1].map(LeaseId));
}
