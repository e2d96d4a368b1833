//! Leases: whoever may end one ends its keys, so that it takes the right to them.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

/// Lease 7 holds "z", which is root's; 8 holds "a"; 9 nothing. Ann may read and write "a", ben only read it.
async fn people() -> (Rig, String, String, String) {
    let (rig, root) = Rig::guarded().await;
    for (id, held) in [(7, Some("z")), (8, Some("a")), (9, None)] {
        let grant = pb::LeaseGrantRequest { id, ttl: 3600 };
        rig.lease().lease_grant(with(&root, grant)).await.unwrap();
        if let Some(held) = held {
            let put = pb::PutRequest { lease: id, ..put(held, "") };
            rig.kv().put(with(&root, put)).await.unwrap();
        }
    }
    let ann = add_user(&rig.channel, &root, "ann", &[(Type::Readwrite, "a", "")]).await;
    let ben = add_user(&rig.channel, &root, "ben", &[(Type::Read, "a", "")]).await;
    (rig, root, ann, ben)
}

async fn keep_alive(rig: &Rig, token: &str, id: i64) -> Result<i64, Refused> {
    let (requests, outbound) = mpsc::channel(1);
    requests.send(pb::LeaseKeepAliveRequest { id }).await.unwrap();
    let request = with(token, ReceiverStream::new(outbound));
    let mut answers = rig.lease().lease_keep_alive(request).await.unwrap().into_inner();
    match answers.message().await {
        Ok(answer) => Ok(answer.unwrap().ttl),
        Err(status) => Err((status.code(), status.message().to_owned())),
    }
}

#[tokio::test]
async fn keeping_a_lease_alive_takes_writing_its_keys() {
    let (rig, root, ann, ben) = people().await;
    for (token, id, want) in [
        (&root, 7, Ok(3600)),
        (&ann, 7, Err(denied())),
        (&ann, 8, Ok(3600)),
        (&ann, 9, Ok(3600)),
        (&ann, 77, Ok(0)),
        (&ben, 8, Err(denied())),
        (&ben, 9, Ok(3600)),
        (&String::new(), 9, Err(user_empty())),
    ] {
        assert_eq!(keep_alive(&rig, token, id).await, want, "{id}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_streams_credentials_are_looked_at_for_each_request() {
    let (rig, root, ann, _ben) = people().await;
    let (requests, outbound) = mpsc::channel(1);
    let request = with(&ann, ReceiverStream::new(outbound));
    requests.send(pb::LeaseKeepAliveRequest { id: 8 }).await.unwrap();
    let mut answers = rig.lease().lease_keep_alive(request).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().ttl, 3600);
    let delete = pb::AuthUserDeleteRequest { name: "ann".into() };
    rig.auth().user_delete(with(&root, delete)).await.unwrap();
    requests.send(pb::LeaseKeepAliveRequest { id: 8 }).await.unwrap();
    let status = answers.message().await.unwrap_err();
    assert_eq!((status.code(), status.message().to_owned()), invalid_token());
    rig.stop().await;
}

#[tokio::test]
async fn revoking_and_reading_leases_take_their_keys() {
    let (rig, root, ann, ben) = people().await;
    let mut lease = rig.lease();
    let revoke = |id| pb::LeaseRevokeRequest { id };
    assert_eq!(refused(lease.lease_revoke(with(&ann, revoke(7))).await), denied());
    assert_eq!(refused(lease.lease_revoke(with(&ben, revoke(8))).await), denied());
    assert_eq!(refused(lease.lease_revoke(revoke(9)).await), user_empty());
    let lives = |id, keys| pb::LeaseTimeToLiveRequest { id, keys };
    assert_eq!(refused(lease.lease_time_to_live(with(&ann, lives(7, true))).await), denied());
    let told = lease.lease_time_to_live(with(&ann, lives(7, false))).await.unwrap().into_inner();
    assert!(told.granted_ttl == 3600 && told.keys.is_empty());
    let told = lease.lease_time_to_live(with(&ben, lives(8, true))).await.unwrap().into_inner();
    assert_eq!(told.keys, [&b"a"[..]]);
    let told = lease.lease_time_to_live(with(&ben, lives(77, true))).await.unwrap().into_inner();
    assert_eq!(told.ttl, -1);
    assert_eq!(refused(lease.lease_leases(with(&ann, pb::LeaseLeasesRequest {})).await), denied());
    let told =
        lease.lease_leases(with(&root, pb::LeaseLeasesRequest {})).await.unwrap().into_inner();
    assert_eq!(told.leases.len(), 3);
    lease.lease_revoke(with(&root, revoke(7))).await.unwrap();
    let told =
        lease.lease_leases(with(&ben, pb::LeaseLeasesRequest {})).await.unwrap().into_inner();
    assert_eq!(told.leases.len(), 2);
    lease.lease_revoke(with(&ann, revoke(8))).await.unwrap();
    lease.lease_revoke(with(&ben, revoke(9))).await.unwrap();
    rig.stop().await;
}

/// A signed token that is older than the last change of users or roles: keys look at its revision, a lease looks at the
/// user, and at the revision only where it has keys.
#[tokio::test]
async fn an_old_signed_token_is_good_for_leases_without_keys() {
    let rig = Rig::start_with(super::login::jwt("5m")).await;
    let root = enable(&rig.channel).await;
    let ann = add_user(&rig.channel, &root, "ann", &[(Type::Readwrite, "a", "")]).await;
    let root = login(&rig.channel, "root", "secret").await.unwrap();
    let mut lease = rig.lease();
    for id in [8, 9] {
        lease.lease_grant(with(&root, pb::LeaseGrantRequest { id, ttl: 3600 })).await.unwrap();
    }
    let held = pb::PutRequest { lease: 8, ..put("a", "") };
    rig.kv().put(with(&root, held)).await.unwrap();
    rig.auth().user_add(with(&root, user_add("ben", "x"))).await.unwrap();

    let lives = |id| pb::LeaseTimeToLiveRequest { id, keys: true };
    let all = pb::LeaseLeasesRequest {};
    for id in [8, 9] {
        assert_eq!(keep_alive(&rig, &root, id).await, Ok(3600));
        let told = lease.lease_time_to_live(with(&root, lives(id))).await.unwrap().into_inner();
        assert_eq!((told.granted_ttl, told.keys.len()), (3600, usize::from(id == 8)));
    }
    assert_eq!(lease.lease_leases(with(&root, all)).await.unwrap().into_inner().leases.len(), 2);
    assert_eq!(keep_alive(&rig, &ann, 9).await, Ok(3600));
    assert_eq!(
        lease.lease_time_to_live(with(&ann, lives(9))).await.unwrap().into_inner().keys.len(),
        0
    );
    assert_eq!(keep_alive(&rig, &ann, 8).await, Err(old_revision()));
    assert_eq!(refused(lease.lease_time_to_live(with(&ann, lives(8))).await), old_revision());
    assert_eq!(refused(lease.lease_leases(with(&ann, all)).await), old_revision());
    lease.lease_revoke(with(&root, pb::LeaseRevokeRequest { id: 8 })).await.unwrap();
    assert_eq!(lease.lease_leases(with(&ann, all)).await.unwrap().into_inner().leases.len(), 1);
    rig.stop().await;
}

/// No user ends leases that run out: the members do, whoever may write the keys.
#[tokio::test]
async fn leases_run_out_while_auth_is_on() {
    let (rig, root) = Rig::guarded().await;
    let grant = pb::LeaseGrantRequest { id: 7, ttl: 1 };
    let granted = rig.lease().lease_grant(with(&root, grant)).await.unwrap().into_inner();
    let put = pb::PutRequest { lease: granted.id, ..put("a", "") };
    rig.kv().put(with(&root, put)).await.unwrap();
    let deadline = tokio::time::Instant::now() + LONG;
    while rig.kv().range(with(&root, get("a"))).await.unwrap().into_inner().count > 0 {
        assert!(tokio::time::Instant::now() < deadline, "the lease goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rig.stop().await;
}
