//! A leader that stood still and goes on believes nothing that its clock has overtaken.

use std::sync::Arc;
use std::time::Duration;

use quorate::keyspace::Keyspace;
use quorate_core::api::ids::{LeaseId, MemberId};
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_sim::cluster::engine;
use quorate_sim::cluster::fleet::{Fleet, MEMBERS, Running};
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
    for seed in 1..9 {
        engine::run(seed, None, |fleet, _net| {
            quorate::consensus::seeded(seed, keep_alive_of_a_leader_that_stood_still(fleet))
        });
    }
}
