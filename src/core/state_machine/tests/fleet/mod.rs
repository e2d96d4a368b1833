//! The fleet's records and the keys beside them. Bugs that these guard against: a used token that works again, a client
//! that writes what the fleet alone may, one who was elected once and still decides.

pub(crate) mod strategies;

use bytes::Bytes;

use crate::api::batch::Space;
use crate::api::ids::MemberId;
use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::request_op::Request as Op;
use crate::api::pb::internal::command::Request;
use crate::api::pb::internal::fleet_request::Ask;
use crate::api::pb::internal::log_payload::Payload;
use crate::api::pb::internal::{
    FleetAdmit, FleetAuthTokenIssue, FleetAuthority, FleetBootstrap, FleetFence, FleetKey,
    FleetNode, FleetRequest, FleetTokenIssue, LeaseExpiry, MemberNode, Membership, VoterSet,
};
use crate::api::refusal::{FleetRefusal, Refusal, ReservedPrefix};
use crate::api::reply::{FleetReply, Reply};
use crate::state_machine::fleet::node_key;

use super::member::{Member, TERM};

const HOUR_MS: i64 = 3_600_000;
const CONTROL_PLANE: i32 = 1;
const WORKER: i32 = 2;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn hash(letter: char) -> Bytes {
    letter.to_string().repeat(32).into()
}

fn fleet(ask: Ask) -> Request {
    Request::Fleet(FleetRequest { fence: None, ask: Some(ask) })
}

fn fenced(key: &str, create_revision: i64, ask: Ask) -> Request {
    let fence = Some(FleetFence { key: bytes(key), create_revision });
    Request::Fleet(FleetRequest { fence, ask: Some(ask) })
}

fn node(id: u64, name: &str, address: &str, role: i32) -> FleetNode {
    FleetNode {
        id,
        name: name.to_owned(),
        address: address.to_owned(),
        role,
        record: format!("{{\"name\":\"{name}\"}}").into(),
        ..FleetNode::default()
    }
}

fn authority(generation: u64) -> FleetAuthority {
    let certificates = vec![bytes("certificate")];
    FleetAuthority { generation, certificates, sealed_key: bytes("sealed") }
}

fn beginning() -> FleetBootstrap {
    FleetBootstrap {
        uid: "0a6b".to_owned(),
        schema_version: 1,
        node: Some(node(1, "n1", "a:1", CONTROL_PLANE)),
        authority: Some(authority(1)),
        keys: vec![FleetKey { key: bytes("/k8sd/config/v1alpha2"), value: bytes("{}") }],
    }
}

fn token(name: &str, role: i32, letter: char, expires_ms: i64) -> Ask {
    let (name, nonce) = (name.to_owned(), bytes("nonce"));
    Ask::TokenIssue(FleetTokenIssue { name, role, hash: hash(letter), nonce, expires_ms })
}

fn admit(token_hash: Bytes, node: FleetNode) -> Ask {
    Ask::Admit(FleetAdmit { token_hash, node: Some(node) })
}

fn put(key: &str, lease: i64) -> Request {
    let (key, value) = (bytes(key), bytes("v"));
    Request::Put(pb::PutRequest { key, value, lease, ..pb::PutRequest::default() })
}

fn delete(key: &str, range_end: &str) -> Request {
    let (key, range_end) = (bytes(key), bytes(range_end));
    Request::DeleteRange(pb::DeleteRangeRequest { key, range_end, prev_kv: false })
}

fn op(request: Request) -> pb::RequestOp {
    let op = match request {
        Request::Put(put) => Op::RequestPut(put),
        Request::DeleteRange(delete) => Op::RequestDeleteRange(delete),
        Request::Txn(txn) => Op::RequestTxn(txn),
        other => panic!("no operation: {other:?}"),
    };
    pb::RequestOp { request: Some(op) }
}

fn txn(success: Vec<Request>, failure: Vec<Request>) -> pb::TxnRequest {
    let ops = |requests: Vec<Request>| requests.into_iter().map(op).collect();
    pb::TxnRequest { compare: Vec::new(), success: ops(success), failure: ops(failure) }
}

/// A member of a fleet of one node, `n1` under id 1.
fn begun() -> Member {
    let mut member = Member::new(0);
    assert_eq!(asks(&mut member, Ask::Bootstrap(beginning())), Ok(FleetReply::Done));
    member
}

fn asks(member: &mut Member, ask: Ask) -> Result<FleetReply, Refusal> {
    match member.one(fleet(ask))? {
        Reply::Fleet(reply) => Ok(reply),
        other => panic!("an answer of another kind: {other:?}"),
    }
}

fn refused(member: &mut Member, ask: Ask) -> Option<FleetRefusal> {
    match asks(member, ask) {
        Ok(_) => None,
        Err(Refusal::Fleet(refusal)) => Some(refusal),
        Err(other) => panic!("refused for another reason: {other:?}"),
    }
}

/// The value of a key, if it is there.
fn value(member: &Member, key: &str) -> Option<Bytes> {
    let request = pb::RangeRequest { key: bytes(key), ..pb::RangeRequest::default() };
    member.range(&request, 1).unwrap().kvs.pop().map(|kv| kv.value)
}

fn fleet_records(member: &Member) -> usize {
    let is_fleets = |space| {
        matches!(space, Space::Fleet | Space::FleetNode | Space::JoinToken | Space::AuthToken)
    };
    member.machine.freeze().records.iter().filter(|record| is_fleets(record.space)).count()
}

#[test]
fn a_fleet_begins_in_one_revision_and_only_once() {
    let mut member = begun();
    assert_eq!(member.machine.revision(), 2);
    assert_eq!(value(&member, "/k8sd/schema_version"), Some(bytes("1")));
    assert_eq!(value(&member, "/kat/config/cluster_uid"), Some(bytes("0a6b")));
    assert_eq!(value(&member, "/k8sd/nodes/1"), Some(bytes("{\"name\":\"n1\"}")));
    assert_eq!(value(&member, "/k8sd/config/v1alpha2"), Some(bytes("{}")));
    let again = refused(&mut member, Ask::Bootstrap(beginning()));
    assert_eq!(again, Some(FleetRefusal::AlreadyBootstrapped));
    assert_eq!(member.machine.revision(), 2);
}

#[test]
fn a_beginning_that_lacks_something_leaves_nothing() {
    type Spoil = fn(&mut FleetBootstrap);
    let spoils: [(&str, Spoil); 12] = [
        ("no uid", |begin| begin.uid.clear()),
        ("no schema", |begin| begin.schema_version = 0),
        ("no node", |begin| begin.node = None),
        ("no id", |begin| begin.node.as_mut().unwrap().id = 0),
        ("no name", |begin| begin.node.as_mut().unwrap().name.clear()),
        ("no address", |begin| begin.node.as_mut().unwrap().address.clear()),
        ("a worker", |begin| begin.node.as_mut().unwrap().role = WORKER),
        ("no authority", |begin| begin.authority = None),
        ("generation 0", |begin| begin.authority = Some(authority(0))),
        ("no certificate", |begin| begin.authority.as_mut().unwrap().certificates.clear()),
        ("a client's key", |begin| begin.keys[0].key = bytes("a")),
        ("a key twice", |begin| begin.keys[0].key = bytes("/k8sd/nodes/1")),
    ];
    for (what, spoil) in spoils {
        let mut member = Member::new(0);
        let mut begin = beginning();
        spoil(&mut begin);
        let refusal = refused(&mut member, Ask::Bootstrap(begin));
        assert_eq!(refusal, Some(FleetRefusal::Malformed), "{what}");
        assert_eq!((member.machine.revision(), fleet_records(&member)), (1, 0), "{what}");
    }
}

#[test]
fn a_fleet_does_not_begin_over_keys_of_clients() {
    for (key, refusal) in [
        ("/k8sd/x", Some(FleetRefusal::PrefixInUse)),
        ("/kat/z", Some(FleetRefusal::PrefixInUse)),
        ("/kat/leader/x", None),
        ("/k8sd", None),
    ] {
        let mut member = Member::new(0);
        member.one(put(key, 0)).unwrap();
        assert_eq!(refused(&mut member, Ask::Bootstrap(beginning())), refusal, "{key}");
        if refusal.is_some() {
            member.one(delete(key, "")).unwrap();
            assert_eq!(refused(&mut member, Ask::Bootstrap(beginning())), None, "{key} is gone");
        }
    }
}

#[test]
fn without_a_fleet_nothing_is_reserved_and_nothing_is_kept() {
    let mut member = Member::new(0);
    member.one(put("/k8sd/x", 0)).unwrap();
    member.one(delete("/kat/", "/kat0")).unwrap();
    let before = member.machine.rolling_hash();
    for ask in [
        token("n2", CONTROL_PLANE, 'a', HOUR_MS),
        Ask::TokenRevoke(hash('a')),
        admit(hash('a'), node(2, "n2", "b:1", CONTROL_PLANE)),
        Ask::NodeRemove(1),
        Ask::CapiToken(hash('a')),
        Ask::Txn(txn(vec![put("b", 0)], Vec::new())),
    ] {
        assert_eq!(refused(&mut member, ask), Some(FleetRefusal::NotBootstrapped));
    }
    assert_eq!((member.machine.rolling_hash(), fleet_records(&member)), (before, 0));
}

/// S0.14: the registry is written by management commands, never by a client's put.
#[test]
fn s0_14_clients_write_no_key_of_the_fleets_in_any_way() {
    use ReservedPrefix::{K8sd, Kat};
    let inner = |request| Request::Txn(txn(vec![put("a", 0), request], Vec::new()));
    let other = |request| Request::Txn(txn(vec![put("a", 0)], vec![request]));
    #[rustfmt::skip]
    let table = [
        (put("/k8sd/nodes/1", 0),                            Some(K8sd)),
        (put("/kat/config/cluster_uid", 0),                  Some(Kat)),
        (put("/kat/leader/agent", 0),                        None),
        (put("/k8sd0", 0),                                   None),
        (delete("/k8sd/nodes/1", ""),                        Some(K8sd)),
        (delete("\0", "\0"),                                 Some(K8sd)),
        (delete("/kat/", "/kat/leader/"),                    Some(Kat)),
        (delete("/kat/leader/", "/kat/leader0"),             None),
        (inner(put("/k8sd/x", 0)),                           Some(K8sd)),
        (other(put("/k8sd/x", 0)),                           Some(K8sd)),
        (inner(inner(delete("/kat", "/kat/b"))),             Some(Kat)),
        (other(inner(put("/kat/x", 0))),                     Some(Kat)),
        (inner(put("b", 0)),                                 None),
    ];
    let mut member = begun();
    for (request, prefix) in table {
        let before = member.machine.revision();
        let told = format!("{request:?}");
        let answer = member.one(request);
        match prefix {
            Some(prefix) => {
                assert_eq!(answer, Err(Refusal::ReservedPrefix(prefix)), "{told}");
                assert_eq!(member.machine.revision(), before, "refused whole: {told}");
            }
            None => assert!(answer.is_ok(), "{told}"),
        }
    }
    assert!(value(&member, "/k8sd/nodes/1").is_some());
}

#[test]
fn a_lease_of_the_fleets_ends_when_it_runs_out_and_not_by_a_client() {
    let mut member = begun();
    member.one(Request::LeaseGrant(pb::LeaseGrantRequest { id: 7, ttl: 15 })).unwrap();
    assert!(member.machine.check_lease_is_free(crate::api::ids::LeaseId(7)).is_ok());
    let campaign = Ask::Txn(txn(vec![put("/k8sd/leader/7", 7)], Vec::new()));
    asks(&mut member, campaign).unwrap();

    let revoke = Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 7 });
    let refusal = Refusal::ReservedPrefix(ReservedPrefix::K8sd);
    assert_eq!(member.one(revoke), Err(refusal.clone()));
    let renew = member.machine.check_lease_is_free(crate::api::ids::LeaseId(7));
    assert_eq!(renew, Err(refusal));

    let expiry = Request::LeaseExpiry(LeaseExpiry { term: TERM, lease_ids: vec![7] });
    assert_eq!(member.one(expiry), Ok(Reply::Done));
    assert_eq!(value(&member, "/k8sd/leader/7"), None);

    member.one(Request::LeaseGrant(pb::LeaseGrantRequest { id: 8, ttl: 15 })).unwrap();
    let campaign = Ask::Txn(txn(vec![put("/k8sd/leader/8", 8)], Vec::new()));
    asks(&mut member, campaign).unwrap();
    assert_eq!(asks(&mut member, Ask::LeaseRevoke(8)), Ok(FleetReply::Done), "it resigns");
    assert_eq!(value(&member, "/k8sd/leader/8"), None);
    assert_eq!(asks(&mut member, Ask::LeaseRevoke(8)), Err(Refusal::LeaseNotFound));
}

/// Who stood still past its lease must not decide when it wakes, whatever it asks.
#[test]
fn a_late_fenced_write_is_refused_before_anything_else() {
    let mut member = begun();
    let campaign = |lease| Ask::Txn(txn(vec![put("/k8sd/leader/7", lease)], Vec::new()));
    asks(&mut member, campaign(0)).unwrap();
    let elected_at = member.machine.revision();
    let write = || Ask::Txn(txn(vec![put("/k8sd/x", 0)], Vec::new()));
    assert!(member.one(fenced("/k8sd/leader/7", elected_at, write())).is_ok());

    let lost = || Err(Refusal::Fleet(FleetRefusal::FenceLost));
    // A later put of the same holder does not matter; another key, revision or life of the key does.
    asks(&mut member, campaign(0)).unwrap();
    assert!(member.one(fenced("/k8sd/leader/7", elected_at, write())).is_ok());
    assert_eq!(member.one(fenced("/k8sd/leader/8", elected_at, write())), lost());
    assert_eq!(member.one(fenced("/k8sd/leader/7", elected_at + 1, write())), lost());
    assert_eq!(member.one(fenced("/k8sd/leader/8", 0, write())), lost(), "0 is no revision");
    let resign = Ask::Txn(txn(vec![delete("/k8sd/leader/7", "")], Vec::new()));
    asks(&mut member, resign).unwrap();
    assert_eq!(member.one(fenced("/k8sd/leader/7", elected_at, write())), lost());
    asks(&mut member, campaign(0)).unwrap();
    let before = member.machine.rolling_hash();
    for ask in [write(), Ask::NodeRemove(1), Ask::Bootstrap(beginning()), Ask::NodeRemove(99)] {
        assert_eq!(member.one(fenced("/k8sd/leader/7", elected_at, ask)), lost());
    }
    assert_eq!(member.machine.rolling_hash(), before);
}

/// S0.20: a token is used up in the very entry that enters the node, and by one node alone.
#[test]
fn s0_20_a_token_admits_one_node_once() {
    let mut member = begun();
    let expires_ms = HOUR_MS;
    let fresh = |fresh| {
        let nonce = bytes("nonce");
        Ok(FleetReply::Token { nonce, expires_ms, fresh })
    };
    let issue = || token("n2", CONTROL_PLANE, 'a', expires_ms);
    assert_eq!(asks(&mut member, issue()), fresh(true));
    // Asked for again, under another hash, it is that one.
    assert_eq!(asks(&mut member, token("n2", CONTROL_PLANE, 'b', 2 * HOUR_MS)), fresh(false));
    assert!(member.machine.fleet().join_token(&hash('b')).is_none());

    let come = |id| admit(hash('a'), node(id, "n2", "b:1", CONTROL_PLANE));
    let both = member.pack(vec![fleet(come(2)), fleet(come(3))]).replies;
    assert_eq!(both[0], Ok(Reply::Fleet(FleetReply::Done)));
    assert_eq!(both[1], Err(Refusal::Fleet(FleetRefusal::TokenUnknown)));
    assert_eq!(member.machine.fleet().node_named("n2").map(|node| node.id), Some(2));
    assert_eq!(value(&member, "/k8sd/nodes/2"), Some(bytes("{\"name\":\"n2\"}")));
    assert_eq!(member.machine.fleet().join_tokens().count(), 0);
}

/// S0.20: the answer may be lost on its way; who asks with the same again is known for a while, and nobody else is.
#[test]
fn s0_20_a_node_that_asks_again_with_the_same_is_known_until_its_time_is_up() {
    let mut member = begun();
    asks(&mut member, token("n2", CONTROL_PLANE, 'a', HOUR_MS)).unwrap();
    let asking = |asked: Bytes| FleetNode {
        asked,
        asked_until_ms: 2 * HOUR_MS,
        ..node(2, "n2", "b:1", CONTROL_PLANE)
    };
    let short = admit(hash('a'), asking(bytes("no hash")));
    assert_eq!(refused(&mut member, short), Some(FleetRefusal::Malformed));
    asks(&mut member, admit(hash('a'), asking(hash('k')))).unwrap();
    let known = |asked: &[u8], now_ms| {
        let fleet = member.machine.fleet();
        fleet.node_that_asked(asked, now_ms).map(|node| node.id)
    };
    assert_eq!(known(&hash('k'), HOUR_MS), Some(2));
    assert_eq!(known(&hash('k'), 2 * HOUR_MS), None, "its time is up");
    assert_eq!(known(&hash('a'), HOUR_MS), None, "the token alone is not enough");
    assert_eq!(known(b"", HOUR_MS), None, "who never asked is nobody");
    // It outlives a restart with the rest of the record, and goes with it.
    let bytes = member.machine.fleet().node(MemberId(2)).unwrap().asked.clone();
    assert_eq!(bytes, hash('k'));
    asks(&mut member, Ask::NodeRemove(2)).unwrap();
    assert!(member.machine.fleet().node_that_asked(&hash('k'), HOUR_MS).is_none());
}

#[test]
fn admissions_are_refused_by_the_first_thing_that_is_wrong() {
    use FleetRefusal as R;
    let fresh = || {
        let mut member = begun();
        asks(&mut member, token("n2", CONTROL_PLANE, 'a', 10 * HOUR_MS)).unwrap();
        asks(&mut member, token("", WORKER, 'w', 10 * HOUR_MS)).unwrap();
        asks(&mut member, token("old", CONTROL_PLANE, 'o', HOUR_MS)).unwrap();
        asks(&mut member, token("n1", CONTROL_PLANE, 'n', 10 * HOUR_MS)).unwrap();
        member.later_ms = 2 * HOUR_MS;
        member
    };
    #[rustfmt::skip]
    let table = [
        // token, id, name, address, role
        ('a', 2, "n2",  "b:1", CONTROL_PLANE,  None),
        ('w', 2, "w",   "",    WORKER,         None),
        ('w', 2, "w",   "b:1", WORKER,         None),
        ('?', 2, "n2",  "b:1", CONTROL_PLANE,  Some(R::TokenUnknown)),
        ('o', 2, "old", "b:1", CONTROL_PLANE,  Some(R::TokenExpired)),
        ('a', 2, "n2",  "b:1", WORKER,         Some(R::TokenRole)),
        ('w', 2, "w",   "b:1", CONTROL_PLANE,  Some(R::TokenRole)),
        ('a', 2, "n3",  "b:1", CONTROL_PLANE,  Some(R::TokenName)),
        ('n', 2, "n1",  "b:1", CONTROL_PLANE,  Some(R::NameTaken)),
        ('a', 2, "n2",  "a:1", CONTROL_PLANE,  Some(R::AddressTaken)),
        ('a', 1, "n2",  "b:1", CONTROL_PLANE,  Some(R::IdTaken)),
        ('a', 0, "n2",  "b:1", CONTROL_PLANE,  Some(R::Malformed)),
        ('a', 2, "",    "b:1", CONTROL_PLANE,  Some(R::Malformed)),
        ('a', 2, "n2",  "",    CONTROL_PLANE,  Some(R::Malformed)),
        ('a', 2, "n2",  "b:1", 0,              Some(R::Malformed)),
        ('a', 2, "n2",  "b:1", 9,              Some(R::Malformed)),
    ];
    for (letter, id, name, address, role, refusal) in table {
        let mut member = fresh();
        let before = member.machine.rolling_hash();
        let ask = admit(hash(letter), node(id, name, address, role));
        let row = format!("{letter} {id} {name} {address} {role}");
        assert_eq!(refused(&mut member, ask), refusal, "{row}");
        if refusal.is_some() {
            assert_eq!(member.machine.rolling_hash(), before, "nothing has changed: {row}");
        }
    }
}

#[test]
fn a_token_runs_out_by_the_hour_of_the_entry() {
    let mut member = begun();
    let expires_ms = HOUR_MS;
    asks(&mut member, token("n2", CONTROL_PLANE, 'a', expires_ms)).unwrap();
    member.later_ms = HOUR_MS;
    let come = || admit(hash('a'), node(2, "n2", "b:1", CONTROL_PLANE));
    assert_eq!(refused(&mut member, come()), Some(FleetRefusal::TokenExpired));
    let late = token("n3", CONTROL_PLANE, 'c', HOUR_MS);
    assert_eq!(refused(&mut member, late), Some(FleetRefusal::TokenExpired));

    // Asked for again, there is a new one, and the old one is gone.
    let reply = asks(&mut member, token("n2", CONTROL_PLANE, 'b', 9 * HOUR_MS)).unwrap();
    assert!(matches!(reply, FleetReply::Token { fresh: true, .. }));
    assert_eq!(refused(&mut member, come()), Some(FleetRefusal::TokenUnknown));

    // One that ran out more than a day ago is forgotten when another is made.
    member.later_ms = 40 * HOUR_MS;
    asks(&mut member, token("n3", CONTROL_PLANE, 'c', 50 * HOUR_MS)).unwrap();
    let hashes: Vec<&Bytes> =
        member.machine.fleet().join_tokens().map(|token| &token.hash).collect();
    assert_eq!(hashes, [&hash('c')]);
}

#[test]
fn a_node_leaves_with_its_key_and_the_tokens_of_its_name() {
    let mut member = begun();
    asks(&mut member, token("n2", CONTROL_PLANE, 'a', HOUR_MS)).unwrap();
    asks(&mut member, admit(hash('a'), node(0x1f, "n2", "b:1", CONTROL_PLANE))).unwrap();
    assert_eq!(node_key(MemberId(0x1f)), bytes("/k8sd/nodes/1f"));
    asks(&mut member, token("n2", CONTROL_PLANE, 'b', HOUR_MS)).unwrap();
    asks(&mut member, token("n2", WORKER, 'c', HOUR_MS)).unwrap();
    asks(&mut member, token("n3", CONTROL_PLANE, 'd', HOUR_MS)).unwrap();

    assert_eq!(asks(&mut member, Ask::NodeRemove(0x1f)), Ok(FleetReply::Done));
    assert_eq!(value(&member, "/k8sd/nodes/1f"), None);
    assert!(member.machine.fleet().node_named("n2").is_none());
    let names: Vec<&str> = member.machine.fleet().join_tokens().map(|token| &*token.name).collect();
    assert_eq!(names, ["n3"]);
    assert_eq!(refused(&mut member, Ask::NodeRemove(0x1f)), Some(FleetRefusal::NodeUnknown));
}

fn membership(ids: &[u64]) -> Payload {
    let node = |id: &u64| MemberNode { member_id: *id, ..MemberNode::default() };
    let configs = vec![VoterSet { member_ids: ids.to_vec() }];
    Payload::Membership(Membership { nodes: ids.iter().map(node).collect(), configs })
}

/// S0.13: who was removed does not come back under its old id, token or not.
#[test]
fn s0_13_the_id_of_a_removed_member_is_never_admitted_again() {
    let mut member = begun();
    let level = crate::api::pb::internal::ClusterLevel { level: 4 };
    member.one(Request::ClusterLevel(level)).unwrap();
    member.payload(membership(&[1, 2])).unwrap();
    member.payload(membership(&[1])).unwrap();
    asks(&mut member, token("n2", CONTROL_PLANE, 'a', HOUR_MS)).unwrap();
    let back = admit(hash('a'), node(2, "n2", "b:1", CONTROL_PLANE));
    assert_eq!(refused(&mut member, back), Some(FleetRefusal::IdTaken));
    let anew = admit(hash('a'), node(3, "n2", "b:1", CONTROL_PLANE));
    assert_eq!(refused(&mut member, anew), None, "the token was not used up by the refusal");
}

#[test]
fn a_member_that_came_another_way_is_entered_by_whoever_was_elected() {
    let mut member = begun();
    member.payload(membership(&[1, 2])).unwrap();
    let come = |id, role| admit(Bytes::new(), node(id, "other", "", role));
    assert_eq!(refused(&mut member, come(2, CONTROL_PLANE)), Some(FleetRefusal::Malformed));
    let key = "/k8sd/schema_version";
    let mut enter = |id, role| member.one(fenced(key, 2, come(id, role)));
    let malformed = Err(Refusal::Fleet(FleetRefusal::Malformed));
    assert_eq!(enter(2, WORKER), malformed);
    assert_eq!(enter(3, CONTROL_PLANE), Err(Refusal::Fleet(FleetRefusal::NodeUnknown)));
    assert_eq!(enter(2, CONTROL_PLANE), Ok(Reply::Fleet(FleetReply::Done)));
    assert_eq!(enter(2, CONTROL_PLANE), Err(Refusal::Fleet(FleetRefusal::IdTaken)));
}

/// One of the origin's defects: its tokens were kept by user alone.
#[test]
fn two_sets_of_groups_of_one_user_have_two_tokens() {
    let mut member = begun();
    let issue = |groups: &[&str], letter| {
        Ask::AuthTokenIssue(FleetAuthTokenIssue {
            username: "u".to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            hash: hash(letter),
            nonce: letter.to_string().into(),
        })
    };
    let given = |letter: &str, fresh| Ok(FleetReply::AuthToken { nonce: bytes(letter), fresh });
    assert_eq!(asks(&mut member, issue(&["g"], 'a')), given("a", true));
    assert_eq!(asks(&mut member, issue(&["g", "h"], 'b')), given("b", true));
    assert_eq!(asks(&mut member, issue(&[], 'c')), given("c", true));
    assert_eq!(asks(&mut member, issue(&["g"], 'd')), given("a", false));
    for groups in [&["h", "g"][..], &["g", "g"], &[""]] {
        let refusal = refused(&mut member, issue(groups, 'd'));
        assert_eq!(refusal, Some(FleetRefusal::Malformed), "{groups:?}");
    }
    let taken = refused(&mut member, issue(&["k"], 'a'));
    assert_eq!(taken, Some(FleetRefusal::Malformed), "one secret is one token's");

    assert_eq!(asks(&mut member, Ask::AuthTokenRevoke(hash('a'))), Ok(FleetReply::Done));
    assert!(member.machine.fleet().auth_token(&hash('a')).is_none());
    let again = refused(&mut member, Ask::AuthTokenRevoke(hash('a')));
    assert_eq!(again, Some(FleetRefusal::TokenUnknown));
}

#[test]
fn the_fleet_is_steered_without_space_and_only_cured_with_corrupt_data() {
    let mut member = begun();
    let alarm = |action, alarm| Request::Alarm(pb::AlarmRequest { action, member_id: 1, alarm });
    asks(&mut member, token("n2", CONTROL_PLANE, 'a', HOUR_MS)).unwrap();
    member.one(alarm(1, 1)).unwrap();
    assert_eq!(member.one(put("a", 0)), Err(Refusal::NoSpace));
    let write = || Ask::Txn(txn(vec![put("/k8sd/x", 0)], Vec::new()));
    assert!(asks(&mut member, write()).is_ok());
    let come = admit(hash('a'), node(2, "n2", "b:1", CONTROL_PLANE));
    assert_eq!(asks(&mut member, come), Ok(FleetReply::Done));

    member.one(alarm(1, 2)).unwrap();
    let corrupt = || Err(Refusal::CorruptCluster);
    assert_eq!(asks(&mut member, write()), corrupt());
    assert_eq!(asks(&mut member, token("n3", CONTROL_PLANE, 'b', HOUR_MS)), corrupt());
    assert_eq!(asks(&mut member, Ask::NodeRemove(2)), Ok(FleetReply::Done));
}
