//! A leader that stood still and goes on believes nothing that its clock has overtaken.
//!
//! A failure prints its seed; `SEED=<seed> cargo test --test stood_still` in tests/sim replays it.

use std::sync::Arc;
use std::time::Duration;

use quorate::keyspace::Keyspace;
use quorate_core::api::ids::{LeaseId, MemberId};
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_sim::cluster::engine;
use quorate_sim::cluster::fleet::{Fleet, MEMBERS, Running};
use quorate_sim::seeds;
use tokio::time::{Instant, sleep};

async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "it does not come to pass");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Who leads, and believes so.
fn leader(fleet: &Fleet) -> Option<(u64, Running)> {
    let members = MEMBERS.into_iter().filter_map(|id| Some((id, fleet.member(id)?)));
    let mut leaders = members.filter(|(id, member)| {
        !member.stands_still() && member.keyspace.leader_view().leader() == Some(MemberId(*id))
    });
    leaders.next()
}

async fn on<T: Send + 'static, F>(member: &Running, call: impl FnOnce(Keyspace) -> F) -> T
where
    F: Future<Output = T> + Send + 'static,
{
    member.spawn(call(member.keyspace.clone())).await.expect("the process lives")
}

async fn is_there(member: &Running) -> bool {
    let request = pb::RangeRequest { key: "held".into(), ..pb::RangeRequest::default() };
    let found = on(member, |keyspace| async move { keyspace.range(request).await }).await;
    !found.expect("there is a quorum").kvs.is_empty()
}

/// A keep-alive that reached its socket meanwhile is answered at once, before any of its tasks has looked at the
/// time: another leader knows nothing of that renewal.
async fn keep_alive_of_a_leader_that_stood_still(fleet: Arc<Fleet>) {
    for id in MEMBERS {
        fleet.start(id, 100 + id);
    }
    let (old, member) = eventually(|| leader(&fleet)).await;
    let grant = pb::LeaseGrantRequest { id: 7, ttl: 8 };
    on(&member, |keyspace| async move { keyspace.lease_grant(grant).await }).await.unwrap();
    let put = pb::PutRequest { key: "held".into(), lease: 7, ..pb::PutRequest::default() };
    on(&member, |keyspace| async move { keyspace.put(put).await }).await.unwrap();

    fleet.set_still(old, true);
    let (_, next) = eventually(|| leader(&fleet).filter(|(id, _)| *id != old)).await;
    sleep(Duration::from_secs(4)).await;
    let asked = Instant::now();
    let keyspace = member.keyspace.clone();
    let kept = member.spawn(async move { keyspace.lease_keep_alive(LeaseId(7)).await });
    sleep(Duration::from_millis(50)).await;
    fleet.set_still(old, false);
    let ttl = kept.await.expect("the process lives").expect("it is answered");
    assert_eq!(ttl, 8);
    let promised = asked + Duration::from_secs(8);
    while Instant::now() + Duration::from_millis(50) < promised {
        assert!(is_there(&next).await, "it ended {:?} early", promised - Instant::now());
        sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn a_leader_that_stood_still_renews_no_lease_by_itself() {
    for seed in seeds(1..9) {
        println!("seed {seed}");
        engine::run(seed, None, |fleet, _net| {
            quorate::consensus::seeded(seed, keep_alive_of_a_leader_that_stood_still(fleet))
        });
    }
}

/// The longest time without a write that succeeds at `next`, over the next six seconds.
async fn longest_gap(next: &Running) -> Duration {
    let until = Instant::now() + Duration::from_secs(6);
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while Instant::now() < until {
        let put = pb::PutRequest { key: "k".into(), ..pb::PutRequest::default() };
        let written = on(next, |keyspace| async move { keyspace.put(put).await });
        match tokio::time::timeout(Duration::from_millis(500), written).await {
            Ok(Ok(_)) => {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            Ok(Err(_)) | Err(_) => {}
        }
        sleep(Duration::from_millis(10)).await;
    }
    longest.max(last.elapsed())
}

/// What it had not sent when it stopped holds the others' elections back when it goes on.
async fn a_leader_stands_still(fleet: Arc<Fleet>, still: Duration) -> Duration {
    for id in MEMBERS {
        fleet.start(id, 100 + id);
    }
    let (old, _) = eventually(|| leader(&fleet)).await;
    let next = MEMBERS.into_iter().find(|id| *id != old).expect("there are three");
    let next = fleet.member(next).expect("it runs");
    sleep(Duration::from_secs(2)).await;
    let stop = async {
        sleep(Duration::from_millis(500)).await;
        fleet.set_still(old, true);
        sleep(still).await;
        fleet.set_still(old, false);
    };
    let busy = async {
        let member = fleet.member(old).expect("it runs");
        for n in 0..120 {
            let put = pb::PutRequest { key: format!("{n}").into(), ..pb::PutRequest::default() };
            let keyspace = member.keyspace.clone();
            // Nobody waits for it.
            drop(member.spawn(async move { keyspace.put(put).await }));
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::join!(longest_gap(&next), stop, busy).0
}

#[test]
fn writes_go_on_soon_after_a_leader_stood_still_however_long() {
    for seed in seeds(1..41) {
        engine::run(seed, None, |fleet, _net| {
            quorate::consensus::seeded(seed, async move {
                let still = Duration::from_millis(1000 + 40 * seed);
                let gap = a_leader_stands_still(fleet, still).await;
                let told = format!("seed {seed}: {gap:?} without a write after {still:?}");
                assert!(gap < Duration::from_millis(2600), "{told}");
            })
        });
    }
}
