//! What was found wrong in etcd in 2026 and before, so that it never is in Quorate.

use quorate_core::api::pb::etcdserverpb::request_op::Request as Op;
use quorate_core::api::pb::etcdserverpb::response_op::Response as Answer;

use super::*;

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn txn(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { success, failure, ..Default::default() }
}

fn delete(key: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() }
}

/// Ann may read and write "a", write "w" and read "r"; "z" is root's, with a value.
async fn people() -> (Rig, String, String) {
    let (rig, root) = Rig::guarded().await;
    rig.put(&root, "z", "hidden").await;
    rig.put(&root, "w", "unread").await;
    let may = [(Type::Readwrite, "a", ""), (Type::Write, "w", ""), (Type::Read, "r", "")];
    let ann = add_user(&rig.channel, &root, "ann", &may).await;
    (rig, root, ann)
}

async fn try_txn(rig: &Rig, token: &str, request: pb::TxnRequest) -> Refused {
    refused(rig.kv().txn(with(token, request)).await)
}

/// CVE-2026-33343: the operations of a txn within a txn were not checked.
#[tokio::test]
async fn a_nested_txn_gives_no_more_rights() {
    let (rig, root, ann) = people().await;
    for forbidden in [
        Op::RequestRange(get("z")),
        Op::RequestPut(put("z", "x")),
        Op::RequestDeleteRange(delete("z")),
    ] {
        for depth in 0..4 {
            let mut request = txn(vec![op(forbidden.clone())], Vec::new());
            for _ in 0..depth {
                request = txn(
                    vec![op(Op::RequestRange(get("a"))), op(Op::RequestTxn(request))],
                    Vec::new(),
                );
            }
            assert_eq!(try_txn(&rig, &ann, request).await, denied(), "{depth}: {forbidden:?}");
        }
    }
    let nested = pb::TxnRequest {
        compare: vec![pb::Compare { key: "z".into(), ..Default::default() }],
        ..Default::default()
    };
    let request = txn(vec![op(Op::RequestTxn(nested))], Vec::new());
    assert_eq!(try_txn(&rig, &ann, request).await, denied());
    let kept = rig.kv().range(with(&root, get("z"))).await.unwrap().into_inner();
    assert_eq!(&kept.kvs[0].value[..], b"hidden");
    rig.stop().await;
}

/// The branch that is not taken counts, too: which one is says something about the keys compared.
#[tokio::test]
async fn both_branches_of_a_txn_are_checked() {
    let (rig, _root, ann) = people().await;
    let allowed = || vec![op(Op::RequestPut(put("a", "x")))];
    let forbidden = || vec![op(Op::RequestRange(get("z")))];
    assert_eq!(try_txn(&rig, &ann, txn(allowed(), forbidden())).await, denied());
    assert_eq!(try_txn(&rig, &ann, txn(forbidden(), allowed())).await, denied());
    rig.kv().txn(with(&ann, txn(allowed(), allowed()))).await.unwrap();
    rig.stop().await;
}

/// CVE-2026-44283: a put within a txn showed the value before it, and hung keys on leases, without being asked.
#[tokio::test]
async fn a_put_shows_no_value_and_takes_no_lease_that_its_writer_may_not() {
    let (rig, root, ann) = people().await;
    let held = pb::LeaseGrantRequest { id: 7, ttl: 3600 };
    rig.lease().lease_grant(with(&root, held)).await.unwrap();
    rig.kv().put(with(&root, pb::PutRequest { lease: 7, ..put("z", "hidden") })).await.unwrap();
    let peek = pb::PutRequest { prev_kv: true, ..put("w", "x") };
    let hang = pb::PutRequest { lease: 7, ..put("a", "x") };
    for forbidden in [&peek, &hang] {
        assert_eq!(refused(rig.kv().put(with(&ann, forbidden.clone())).await), denied());
        let request = txn(vec![op(Op::RequestPut(forbidden.clone()))], Vec::new());
        assert_eq!(try_txn(&rig, &ann, request).await, denied());
        let nested = txn(Vec::new(), vec![op(Op::RequestPut(forbidden.clone()))]);
        let request = txn(vec![op(Op::RequestTxn(nested))], Vec::new());
        assert_eq!(try_txn(&rig, &ann, request).await, denied());
    }
    let peek = pb::DeleteRangeRequest { prev_kv: true, ..delete("w") };
    assert_eq!(refused(rig.kv().delete_range(with(&ann, peek.clone())).await), denied());
    let request = txn(vec![op(Op::RequestDeleteRange(peek))], Vec::new());
    assert_eq!(try_txn(&rig, &ann, request).await, denied());
    let seen = pb::PutRequest { prev_kv: true, ..put("a", "y") };
    rig.put(&ann, "a", "x").await;
    let answer = rig.kv().put(with(&ann, seen)).await.unwrap().into_inner();
    assert_eq!(&answer.prev_kv.unwrap().value[..], b"x");
    rig.stop().await;
}

/// Reading through an operation that may write is reading.
#[tokio::test]
async fn reading_and_writing_are_two_rights() {
    let (rig, root, ann) = people().await;
    rig.put(&root, "r", "1").await;
    rig.put(&ann, "w", "x").await;
    assert_eq!(refused(rig.kv().range(with(&ann, get("w"))).await), denied());
    rig.kv().range(with(&ann, get("r"))).await.unwrap();
    assert_eq!(refused(rig.kv().put(with(&ann, put("r", "2"))).await), denied());
    let request =
        txn(vec![op(Op::RequestRange(get("r"))), op(Op::RequestPut(put("a", "x")))], Vec::new());
    let answer = rig.kv().txn(with(&ann, request)).await.unwrap().into_inner();
    let Some(Answer::ResponseRange(range)) = &answer.responses[0].response else {
        panic!("a range")
    };
    assert_eq!(range.count, 1);
    rig.stop().await;
}

/// CVE-2026-33413: members, alarms and maintenance were open to who had no right to them. Every method has its row in
/// `every_method`; this is the path by which it was found.
#[tokio::test]
async fn operators_calls_are_not_for_users() {
    let (rig, _root, ann) = people().await;
    let mut maintenance = rig.maintenance();
    assert_eq!(refused(maintenance.hash(with(&ann, pb::HashRequest {})).await), denied());
    assert_eq!(refused(maintenance.hash(pb::HashRequest {}).await), user_empty());
    let hash = pb::HashKvRequest::default();
    assert_eq!(refused(maintenance.hash_kv(with(&ann, hash)).await), denied());
    let compact = pb::CompactionRequest { revision: 1, physical: false };
    assert_eq!(refused(rig.kv().compact(with(&ann, compact)).await), denied());
    assert_eq!(refused(rig.kv().compact(compact).await), user_empty());
    let status = maintenance.status(with(&ann, pb::StatusRequest {})).await.unwrap().into_inner();
    assert!(status.leader != 0);
    rig.stop().await;
}
