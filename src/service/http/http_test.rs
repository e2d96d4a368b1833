use std::collections::BTreeMap;

use http_body_util::{BodyExt as _, Empty};
use parking_lot::Mutex;
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::etcdserverpb::{AlarmMember, AlarmType};

use super::*;
use crate::service::metrics::JournalFigures;

#[derive(Default)]
struct Double {
    alarm: Option<AlarmType>,
    leaderless: bool,
    learner: bool,
    broken: Option<&'static str>,
    reads: Mutex<Vec<bool>>,
}

impl Probe for Double {
    fn alarms(&self) -> Vec<AlarmMember> {
        self.alarm.iter().map(|a| AlarmMember { member_id: 1, alarm: (*a).into() }).collect()
    }
    fn has_leader(&self) -> bool {
        !self.leaderless
    }
    fn is_learner(&self) -> bool {
        self.learner
    }
    fn read(&self, serializable: bool) -> BoxFuture<'_, Result<(), String>> {
        self.reads.lock().push(serializable);
        let broken = self.broken.filter(|_| !serializable);
        Box::pin(async move { broken.map_or(Ok(()), |why| Err(why.to_owned())) })
    }
    fn metrics(&self) -> String {
        "a 1\n".to_owned()
    }
    fn promote(&self, id: MemberId) -> BoxFuture<'_, Result<Vec<pb::Member>, KeyspaceError>> {
        use crate::keyspace::MemberRefusal as No;
        let refused = match id.0 {
            1 => Some(KeyspaceError::Members(No::NotFound)),
            2 => Some(KeyspaceError::Members(No::NotLearner)),
            3 => Some(KeyspaceError::Members(No::LearnerNotReady)),
            4 => Some(KeyspaceError::Members(No::NotEnoughStarted)),
            _ => None,
        };
        Box::pin(async move { refused.map_or_else(|| Ok(self.members().1), Err) })
    }
    fn cluster_level(&self) -> u32 {
        2
    }
    fn members(&self) -> (ClusterId, Vec<pb::Member>) {
        let peer_ur_ls = vec!["http://a:2380".to_owned()];
        let new = pb::Member { id: u64::MAX, peer_ur_ls, ..Default::default() };
        let told = pb::Member {
            name: "b".to_owned(),
            client_ur_ls: vec!["http://b:2379".to_owned()],
            is_learner: true,
            ..new.clone()
        };
        (ClusterId(0xab), vec![new, told])
    }
    fn hash_kv(&self, revision: i64) -> BoxFuture<'_, Result<pb::HashKvResponse, String>> {
        let header = Some(pb::ResponseHeader { revision: 9, ..Default::default() });
        let hash = pb::HashKvResponse {
            header,
            hash: u32::MAX,
            compact_revision: -1,
            hash_revision: revision,
        };
        let compacted = "mvcc: required revision has been compacted".to_owned();
        Box::pin(async move { if revision < 2 { Err(compacted) } else { Ok(hash) } })
    }
    fn auth_is_on(&self) -> bool {
        false
    }
    fn vars(&self) -> Vec<(&'static str, serde_json::Value)> {
        vec![("a", 1.into()), ("b", serde_json::json!({"c": "d"}))]
    }
}

async fn ask_by(
    door: Door,
    probe: Double,
    access: Access,
    request: http::request::Builder,
) -> (u16, String, HeaderMap) {
    let metrics =
        Arc::new(ServerMetrics::new(MemberId(1), &BTreeMap::new(), &JournalFigures::default()));
    let site = Site::new(Arc::new(probe), metrics, access);
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let answer = site.answer(door, request, &Afterwards::default()).await;
    let (parts, body) = answer.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), String::from_utf8(bytes.to_vec()).unwrap(), parts.headers)
}

use http::HeaderMap;

async fn get(probe: Double, path: &str) -> (u16, String) {
    let (status, text, _) =
        ask_by(Door::Client, probe, Access::default(), Request::get(path)).await;
    (status, text)
}

#[tokio::test]
async fn paths_answer_as_etcd_answers() {
    for (path, status, text) in [
        ("/health", 200, "{\"health\":\"true\",\"reason\":\"\"}"),
        ("/livez", 200, "ok\n"),
        ("/livez?verbose", 200, "[+]serializable_read ok\nok\n"),
        ("/livez/serializable_read", 200, "ok\n"),
        ("/readyz", 200, "ok\n"),
        (
            "/readyz?verbose&exclude=data_corruption&exclude=nonsense",
            200,
            "[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n",
        ),
        ("/readyz/non_learner?verbose", 200, "[+]non_learner ok\nok\n"),
        ("/readyz/foo", 404, "404 page not found\n"),
        ("/livez/linearizable_read", 404, "404 page not found\n"),
        ("/livezz", 404, "404 page not found\n"),
        ("/", 404, "404 page not found\n"),
        ("/metrics", 200, "a 1\n"),
        (
            "/version",
            200,
            "{\"etcdserver\":\"3.7.1\",\"etcdcluster\":\"3.7.0\",\"storage\":\"3.7.0\"}",
        ),
    ] {
        assert_eq!(get(Double::default(), path).await, (status, text.to_owned()), "{path}");
    }
}

#[tokio::test]
async fn health_tells_the_first_thing_that_is_wrong() {
    let alarm = |a| Double { alarm: Some(a), ..Default::default() };
    let no = |reason: &str| format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n");
    let nospace = || alarm(AlarmType::Nospace);
    assert_eq!(get(nospace(), "/health").await, (503, no("ALARM NOSPACE")));
    assert_eq!(get(nospace(), "/health?exclude=NOSPACE").await.0, 200);
    assert_eq!(get(nospace(), "/readyz").await.0, 200);
    assert_eq!(get(alarm(AlarmType::Corrupt), "/health").await, (503, no("ALARM CORRUPT")));
    let leaderless = || Double { leaderless: true, ..Default::default() };
    assert_eq!(get(leaderless(), "/health").await, (503, no("RAFT NO LEADER")));
    assert_eq!(get(leaderless(), "/health?serializable=true").await.0, 200);
    let broken = || Double { broken: Some("etcdserver: leader changed"), ..Default::default() };
    let reason = no("RANGE ERROR:etcdserver: leader changed");
    assert_eq!(get(broken(), "/health").await, (503, reason));
    let (status, text) = get(broken(), "/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains("[-]linearizable_read failed: etcdserver: leader changed\n"), "{text}");
    assert!(text.contains("[+]serializable_read ok\n"), "{text}");
    let (status, text) = get(alarm(AlarmType::Corrupt), "/readyz/data_corruption").await;
    assert_eq!(
        (status, text.as_str()),
        (503, "[-]data_corruption failed: alarm activated: CORRUPT\n\n")
    );
    let learner = Double { learner: true, ..Default::default() };
    let (_, text) = get(learner, "/readyz").await;
    assert!(text.contains("[-]non_learner failed: not supported for learner"), "{text}");
}

#[tokio::test]
async fn other_methods_are_refused_with_what_is_allowed() {
    for path in ["/health", "/livez", "/readyz/non_learner", "/version"] {
        let request = Request::post(path);
        let (status, text, headers) =
            ask_by(Door::Client, Double::default(), Access::default(), request).await;
        assert_eq!((status, text.as_str()), (405, "Method Not Allowed\n"), "{path}");
        assert_eq!(headers[header::ALLOW], "GET");
    }
}

#[tokio::test]
async fn answers_carry_cors_headers_and_options_are_allowed() {
    let request = Request::options("/nope");
    let (status, text, headers) =
        ask_by(Door::Client, Double::default(), Access::default(), request).await;
    assert_eq!((status, text.as_str()), (200, ""));
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_METHODS], "POST, GET, OPTIONS, PUT, DELETE");
    let access = || Access::new(Vec::new(), vec!["http://a".to_owned()]);
    let asked = Request::get("/version").header("origin", "http://a");
    let (_, _, headers) = ask_by(Door::Client, Double::default(), access(), asked).await;
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "http://a");
    let asked = Request::get("/version").header("origin", "http://b");
    let (_, _, headers) = ask_by(Door::Client, Double::default(), access(), asked).await;
    assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
}

#[tokio::test]
async fn a_host_that_is_not_ours_is_misdirected() {
    let access = || Access::new(vec!["good.example".to_owned()], Vec::new());
    let asked = Request::get("/version").header("host", "evil.example:2379");
    let (status, text, _) = ask_by(Door::Client, Double::default(), access(), asked).await;
    assert_eq!(status, 421);
    assert!(text.contains("etcd --host-whitelist \"evil.example\""), "{text}");
    let asked = Request::get("/version").header("host", "good.example");
    assert_eq!(ask_by(Door::Client, Double::default(), access(), asked).await.0, 200);
    let asked = Request::get("/metrics").header("host", "evil.example");
    assert_eq!(ask_by(Door::Metrics, Double::default(), access(), asked).await.0, 200);
}

#[tokio::test]
async fn each_door_has_its_own_paths() {
    let ask = |door, path: &'static str| async move {
        ask_by(door, Double::default(), Access::default(), Request::get(path)).await.0
    };
    assert_eq!(ask(Door::Metrics, "/readyz").await, 200);
    assert_eq!(ask(Door::Metrics, "/version").await, 404);
    assert_eq!(ask(Door::Peer, "/version").await, 200);
    assert_eq!(ask(Door::Peer, "/metrics").await, 404);
    assert_eq!(ask(Door::Client, "/v3/kv/range").await, 404, "without a gateway");
}

#[tokio::test]
async fn a_hash_is_asked_for_on_the_peer_port_as_etcd_asks() {
    let metrics =
        Arc::new(ServerMetrics::new(MemberId(1), &BTreeMap::new(), &JournalFigures::default()));
    let site = Site::new(Arc::new(Double::default()), metrics, Access::default());
    let ask = |cluster: &'static str, body: &'static str| {
        let request = Request::get("/members/hashkv").header("X-Etcd-Cluster-ID", cluster);
        let request = request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap();
        let site = site.clone();
        async move {
            let (parts, body) = site.peer_hash(request).await.into_parts();
            let text = body.collect().await.unwrap().to_bytes();
            (parts.status.as_u16(), String::from_utf8(text.to_vec()).unwrap(), parts.headers)
        }
    };
    let (status, text, heads) = ask("ab", "{\"revision\":7}").await;
    let want = "{\"header\":{\"revision\":9},\"hash\":4294967295,\"compact_revision\":-1,\"hash_revision\":7}";
    assert_eq!((status, text.as_str()), (200, want));
    assert_eq!(heads["x-etcd-cluster-id"], "ab");
    let (status, text, _) = ask("cd", "{\"revision\":7}").await;
    assert_eq!((status, text.as_str()), (412, "cluster ID mismatch\n"));
    let (status, text, _) = ask("", "{\"revision\":1}").await;
    assert_eq!((status, text.as_str()), (400, "mvcc: required revision has been compacted\n"));
    let (status, text, _) = ask("ab", "no").await;
    assert_eq!((status, text.as_str()), (400, "error unmarshalling request\n"));
}

#[tokio::test]
async fn nobody_can_be_downgraded_to() {
    let ask =
        |probe| ask_by(Door::Peer, probe, Access::default(), Request::get("/downgrade/enabled"));
    let (status, text, heads) = ask(Double::default()).await;
    assert_eq!((status, text.as_str()), (200, "false"));
    assert_eq!(heads["x-etcd-cluster-id"], "ab");
    assert_eq!(heads["content-type"], "text/plain");
    let (status, text, _) = ask(Double { broken: Some("late"), ..Double::default() }).await;
    assert_eq!((status, text.as_str()), (500, "failed linearized read: late\n"));
}

#[tokio::test]
async fn facts_are_shown_and_pprof_says_what_it_cannot() {
    let (status, text) = get(Double::default(), "/debug/vars").await;
    assert_eq!((status, text.as_str()), (200, "{\n\"a\": 1,\n\"b\": {\"c\":\"d\"}\n}\n"));
    for path in ["/debug/pprof/heap", "/debug/requests", "/debug/events"] {
        assert_eq!(get(Double::default(), path).await.0, 404, "{path}");
    }
    let metrics =
        Arc::new(ServerMetrics::new(MemberId(1), &BTreeMap::new(), &JournalFigures::default()));
    let site = Site::new(Arc::new(Double::default()), metrics, Access::default());
    let request = Request::get("/debug/pprof/heap").body(Empty::<Bytes>::new()).unwrap();
    let site = site.asked_for_pprof(true);
    let answer = site.answer(Door::Client, request, &Afterwards::default()).await;
    assert_eq!(answer.status(), StatusCode::NOT_IMPLEMENTED);
}

#[tokio::test]
async fn members_are_listed_on_the_peer_port_as_etcd_does() {
    let probe = Double::default();
    let request = Request::get("/members");
    let (status, text, heads) = ask_by(Door::Peer, probe, Access::default(), request).await;
    let want = "[{\"id\":18446744073709551615,\"peerURLs\":[\"http://a:2380\"]},\
                {\"id\":18446744073709551615,\"peerURLs\":[\"http://a:2380\"],\"isLearner\":true,\"name\":\"b\",\
                \"clientURLs\":[\"http://b:2379\"]}]\n";
    assert_eq!((status, text.as_str()), (200, want));
    assert_eq!(heads["x-etcd-cluster-id"], "ab");
    assert_eq!(heads["x-quorate-cluster-level"], "2");
    assert_eq!(get(Double::default(), "/members").await.0, 404, "on a client port");
    let post = Request::post("/members");
    assert_eq!(ask_by(Door::Peer, Double::default(), Access::default(), post).await.0, 405);
}

#[tokio::test]
async fn a_learner_is_promoted_on_the_peer_port_as_etcd_does() {
    let post = |id: &'static str| async move {
        let request = Request::post(format!("/members/promote/{id}"));
        ask_by(Door::Peer, Double::default(), Access::default(), request).await
    };
    let (status, text, headers) = post("5").await;
    assert_eq!((status, headers["x-etcd-cluster-id"].to_str().unwrap()), (200, "ab"));
    assert!(text.starts_with("[{\"id\":18446744073709551615,"), "{text}");
    for (id, status, text) in [
        ("1", 404, "membership: ID not found\n"),
        ("2", 412, "membership: can only promote a learner member\n"),
        ("3", 412, "etcdserver: can only promote a learner member which is in sync with leader\n"),
        ("4", 500, "{\"message\":\"Internal Server Error\"}"),
        ("x", 404, "member x not found in cluster\n"),
    ] {
        let answer = post(id).await;
        assert_eq!((answer.0, answer.1.as_str()), (status, text), "{id}");
    }
    let get = Request::get("/members/promote/5");
    let (status, _, headers) = ask_by(Door::Peer, Double::default(), Access::default(), get).await;
    assert_eq!((status, headers[header::ALLOW].to_str().unwrap()), (405, "POST"));
}
