//! Watches: asked for when they begin.

use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::*;

struct Client {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Client {
    async fn open(rig: &Rig, token: &str) -> Client {
        let (requests, outbound) = mpsc::channel(10);
        let request = with(token, ReceiverStream::new(outbound));
        let responses = rig.watch().watch(request).await.unwrap().into_inner();
        Client { requests, responses }
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let message = tokio::time::timeout(LONG, self.responses.message()).await.expect("soon");
        message.unwrap().unwrap()
    }

    async fn create(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        let union = Some(RequestUnion::CreateRequest(request));
        self.requests.send(pb::WatchRequest { request_union: union }).await.unwrap();
        self.next().await
    }
}

fn key(key: &str, end: &str) -> pb::WatchCreateRequest {
    let (key, range_end) = (key.to_owned().into(), end.to_owned().into());
    pb::WatchCreateRequest { key, range_end, ..Default::default() }
}

fn assert_refused(response: &pb::WatchResponse, reason: &str) {
    assert!(response.created && response.canceled, "{response:?}");
    assert_eq!((response.watch_id, response.cancel_reason.as_str()), (-1, reason));
    assert!(response.header.unwrap().revision > 0);
}

const DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
const INVALID: &str = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
const EMPTY: &str = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";

#[tokio::test]
async fn a_watch_that_may_not_be_is_refused_in_its_stream_which_goes_on() {
    let (rig, root) = Rig::guarded().await;
    let ann = add_user(&rig.channel, &root, "ann", &[(Type::Read, "a", "c")]).await;
    let mut client = Client::open(&rig, &ann).await;
    for (from, end) in [("z", ""), ("a", "d"), ("a", "\0"), ("", ""), ("", "\0"), ("\0", "\0")] {
        assert_refused(&client.create(key(from, end)).await, DENIED);
    }
    // What is wrong with it comes first.
    let past = pb::WatchCreateRequest { start_revision: -1, ..key("z", "") };
    let reason = "etcdserver: mvcc: required revision has been compacted";
    assert_refused(&client.create(past).await, reason);
    let created = client.create(key("a", "c")).await;
    assert!(created.created && !created.canceled);
    assert_eq!(created.watch_id, 0, "a watch that was not made takes no id");
    rig.put(&root, "b", "1").await;
    assert_eq!(client.next().await.events.len(), 1);
    let mut nobody = Client::open(&rig, "").await;
    assert_refused(&nobody.create(key("a", "c")).await, EMPTY);
    let mut stranger = Client::open(&rig, "abcdefghijklmnop.3").await;
    assert_refused(&stranger.create(key("a", "c")).await, INVALID);
    drop((client, nobody, stranger));
    rig.stop().await;
}

/// GHSA-xg4h-6gfc-h4m8: who might watch one key was shown every later one.
#[tokio::test]
async fn a_watch_of_one_key_shows_that_key_alone() {
    let (rig, root) = Rig::guarded().await;
    let ann = add_user(&rig.channel, &root, "ann", &[(Type::Read, "b", "")]).await;
    let mut client = Client::open(&rig, &ann).await;
    let from_start = pb::WatchCreateRequest { start_revision: 1, ..key("b", "") };
    assert!(!client.create(from_start).await.canceled);
    assert!(!client.create(key("b", "")).await.canceled);
    for name in ["a", "b", "b\0", "ba", "c", "\u{7f}"] {
        rig.put(&root, name, name).await;
    }
    rig.put(&root, "b", "end").await;
    let mut seen = [0; 2];
    while seen != [2, 2] {
        let response = client.next().await;
        let watch = usize::try_from(response.watch_id).unwrap();
        for event in response.events {
            assert_eq!(&event.kv.unwrap().key[..], b"b");
            seen[watch] += 1;
        }
    }
    drop(client);
    rig.stop().await;
}

/// As in etcd: the right to watch is asked for once.
#[tokio::test]
async fn a_watch_outlives_the_right_to_it() {
    let (rig, root) = Rig::guarded().await;
    let ann = add_user(&rig.channel, &root, "ann", &[(Type::Read, "a", "")]).await;
    let mut client = Client::open(&rig, &ann).await;
    assert!(!client.create(key("a", "")).await.canceled);
    let delete = pb::AuthUserDeleteRequest { name: "ann".into() };
    rig.auth().user_delete(with(&root, delete)).await.unwrap();
    rig.put(&root, "a", "1").await;
    assert_eq!(client.next().await.events.len(), 1);
    // The stream's credentials are looked at anew for each watch.
    assert_refused(&client.create(key("a", "")).await, INVALID);
    drop(client);
    rig.stop().await;
}
