//! Election and Lock of a whole server, over gRPC.

use std::time::Duration;

use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use quorate_core::api::pb::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::Server;
use super::tests::{config, start};
use crate::service::pb::etcdserverpb::kv_client::KvClient;
use crate::service::pb::etcdserverpb::lease_client::LeaseClient;
use crate::service::pb::v3electionpb::election_client::ElectionClient;
use crate::service::pb::v3lockpb::lock_client::LockClient;

/// Far more than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);

struct Rig {
    server: Server,
    channel: Channel,
    _dir: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let server = start(config(&dir)).await;
        let url = format!("http://{}", server.client_addresses()[0]);
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        Rig { server, channel, _dir: dir }
    }

    fn lock(&self) -> LockClient<Channel> {
        LockClient::new(self.channel.clone())
    }

    fn election(&self) -> ElectionClient<Channel> {
        ElectionClient::new(self.channel.clone())
    }

    async fn lease(&self, id: i64) {
        let request = pb::LeaseGrantRequest { id, ttl: 600 };
        LeaseClient::new(self.channel.clone()).lease_grant(request).await.unwrap();
    }

    async fn revoke(&self, id: i64) {
        let request = pb::LeaseRevokeRequest { id };
        LeaseClient::new(self.channel.clone()).lease_revoke(request).await.unwrap();
    }

    /// The keys below a prefix that ends in `/`, oldest first.
    async fn keys(&self, prefix: &str) -> Vec<String> {
        let request = pb::RangeRequest {
            key: prefix.to_owned().into(),
            range_end: prefix.replace('/', "0").into(),
            sort_target: pb::range_request::SortTarget::Create.into(),
            sort_order: pb::range_request::SortOrder::Ascend.into(),
            ..Default::default()
        };
        let found = KvClient::new(self.channel.clone()).range(request).await.unwrap();
        let keys = found.into_inner().kvs.into_iter();
        keys.map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect()
    }

    async fn until_keys_are(&self, prefix: &str, want: &[&str]) {
        let wait = async {
            while self.keys(prefix).await != want {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.expect("the keys come and go in time");
    }

    /// A caller of its own that waits for the lock.
    fn locking(
        &self,
        name: &str,
        lease: i64,
    ) -> JoinHandle<Result<Response<LockResponse>, Status>> {
        let (mut client, name) = (self.lock(), name.to_owned().into());
        tokio::spawn(async move { client.lock(LockRequest { name, lease }).await })
    }

    fn campaigning(
        &self,
        lease: i64,
        value: &str,
    ) -> JoinHandle<Result<Response<CampaignResponse>, Status>> {
        let (mut client, value) = (self.election(), value.to_owned().into());
        let request = CampaignRequest { name: "e".into(), lease, value };
        tokio::spawn(async move { client.campaign(request).await })
    }

    async fn stop(self) {
        drop(self.channel);
        self.server.stop().await.unwrap();
    }
}

async fn soon<T>(task: JoinHandle<Result<Response<T>, Status>>) -> Result<T, Status> {
    let answered = tokio::time::timeout(LONG, task).await.expect("an answer in time").unwrap();
    answered.map(Response::into_inner)
}

fn unknown(text: &str) -> (Code, &str) {
    (Code::Unknown, text)
}

#[tokio::test]
async fn a_lock_goes_from_one_to_the_next_in_the_order_of_coming() {
    let rig = Rig::start().await;
    for lease in [1, 2, 3] {
        rig.lease(lease).await;
    }
    let first = rig.lock().lock(LockRequest { name: "l".into(), lease: 1 }).await.unwrap();
    let first = first.into_inner();
    assert_eq!(first.key, "l/1");
    assert_eq!(first.header.unwrap().revision, 2, "the key's own revision");
    let again = rig.lock().lock(LockRequest { name: "l".into(), lease: 1 }).await.unwrap();
    assert_eq!(again.into_inner().key, "l/1", "the same lease is the same holder");
    let second = rig.locking("l", 2);
    rig.until_keys_are("l/", &["l/1", "l/2"]).await;
    let third = rig.locking("l", 3);
    rig.until_keys_are("l/", &["l/1", "l/2", "l/3"]).await;
    assert!(!second.is_finished() && !third.is_finished());
    rig.lock().unlock(UnlockRequest { key: first.key }).await.unwrap();
    let second = soon(second).await.unwrap();
    assert_eq!(second.key, "l/2");
    assert!(!third.is_finished());
    rig.revoke(2).await;
    assert_eq!(soon(third).await.unwrap().key, "l/3");
    rig.stop().await;
}

#[tokio::test]
async fn a_lock_without_a_lease_gets_one_of_a_minute() {
    let rig = Rig::start().await;
    let got = rig.lock().lock(LockRequest { name: "l".into(), lease: 0 }).await.unwrap();
    let key = String::from_utf8(got.into_inner().key.to_vec()).unwrap();
    let id = i64::from_str_radix(key.strip_prefix("l/").unwrap(), 16).unwrap();
    let request = pb::LeaseTimeToLiveRequest { id, keys: true };
    let lives = LeaseClient::new(rig.channel.clone()).lease_time_to_live(request).await.unwrap();
    let lives = lives.into_inner();
    assert_eq!((lives.granted_ttl, lives.keys), (60, vec![key.into()]));
    rig.stop().await;
}

#[tokio::test]
async fn whoever_stops_waiting_leaves_the_line() {
    let rig = Rig::start().await;
    for lease in [1, 2, 3, 4] {
        rig.lease(lease).await;
    }
    rig.lock().lock(LockRequest { name: "l".into(), lease: 1 }).await.unwrap();
    let gone = rig.locking("l", 2);
    rig.until_keys_are("l/", &["l/1", "l/2"]).await;
    let third = rig.locking("l", 3);
    rig.until_keys_are("l/", &["l/1", "l/2", "l/3"]).await;
    gone.abort();
    rig.until_keys_are("l/", &["l/1", "l/3"]).await;
    let mut hurried = Request::new(LockRequest { name: "l".into(), lease: 4 });
    hurried.set_timeout(Duration::from_millis(300));
    let code = rig.lock().lock(hurried).await.unwrap_err().code();
    assert!(matches!(code, Code::DeadlineExceeded | Code::Cancelled), "{code:?}");
    rig.until_keys_are("l/", &["l/1", "l/3"]).await;
    rig.revoke(1).await;
    assert_eq!(soon(third).await.unwrap().key, "l/3");
    let leader = rig.campaigning(1, "lost");
    assert_eq!(soon(leader).await.unwrap_err().code(), Code::Unknown);
    rig.stop().await;
}

#[tokio::test]
async fn a_lease_that_ran_out_while_waiting_is_told() {
    let rig = Rig::start().await;
    rig.lease(1).await;
    rig.lease(2).await;
    rig.lock().lock(LockRequest { name: "l".into(), lease: 1 }).await.unwrap();
    let second = rig.locking("l", 2);
    rig.until_keys_are("l/", &["l/1", "l/2"]).await;
    rig.revoke(2).await;
    rig.until_keys_are("l/", &["l/1"]).await;
    rig.revoke(1).await;
    let why = soon(second).await.unwrap_err();
    assert_eq!((why.code(), why.message()), unknown("mutex: session is expired"));
    rig.stop().await;
}

/// The key of a waiter was deleted and made again, behind somebody else: its place in the line is gone.
#[tokio::test]
async fn a_key_made_anew_is_not_taken_for_the_lock() {
    let rig = Rig::start().await;
    rig.lease(1).await;
    rig.lease(2).await;
    rig.lock().lock(LockRequest { name: "l".into(), lease: 1 }).await.unwrap();
    let second = rig.locking("l", 2);
    rig.until_keys_are("l/", &["l/1", "l/2"]).await;
    rig.lock().unlock(UnlockRequest { key: "l/2".into() }).await.unwrap();
    let put = pb::PutRequest { key: "l/2".into(), ..Default::default() };
    KvClient::new(rig.channel.clone()).put(put).await.unwrap();
    rig.revoke(1).await;
    let why = soon(second).await.unwrap_err();
    assert_eq!((why.code(), why.message()), unknown("mutex: session is expired"));
    assert_eq!(rig.keys("l/").await, ["l/2"], "another's key is left alone");
    rig.stop().await;
}

#[tokio::test]
async fn refusals_of_the_store_come_as_unknown() {
    let rig = Rig::start().await;
    let why = rig.lock().lock(LockRequest { name: "l".into(), lease: 99 }).await.unwrap_err();
    let text = "etcdserver: requested lease not found";
    assert_eq!((why.code(), why.message()), unknown(text));
    let why = rig.lock().unlock(UnlockRequest::default()).await.unwrap_err();
    assert_eq!((why.code(), why.message()), unknown("etcdserver: key is not provided"));
    rig.lock().unlock(UnlockRequest { key: "nobody's".into() }).await.unwrap();
    let mut election = rig.election();
    let request = LeaderRequest { name: "e".into() };
    let why = election.leader(request).await.unwrap_err();
    assert_eq!((why.code(), why.message()), unknown("election: no leader"));
    let text = "\"leader\" field must be provided";
    let why = election.proclaim(ProclaimRequest::default()).await.unwrap_err();
    assert_eq!((why.code(), why.message()), unknown(text));
    let why = election.resign(ResignRequest::default()).await.unwrap_err();
    assert_eq!((why.code(), why.message()), unknown(text));
    rig.stop().await;
}

#[tokio::test]
async fn leaders_are_elected_observed_and_followed() {
    let rig = Rig::start().await;
    rig.lease(1).await;
    rig.lease(2).await;
    let mut election = rig.election();
    let observed = election.observe(LeaderRequest { name: "e".into() }).await.unwrap();
    let mut observed = observed.into_inner();
    let mut value = async || {
        let next = tokio::time::timeout(LONG, observed.message()).await.expect("in time");
        let told = next.unwrap().unwrap();
        assert_ne!(told.header.unwrap().cluster_id, 0);
        String::from_utf8(told.kv.unwrap().value.to_vec()).unwrap()
    };
    let first = soon(rig.campaigning(1, "one")).await.unwrap().leader.unwrap();
    let want = LeaderKey { name: "e".into(), key: "e/1".into(), rev: 2, lease: 1 };
    assert_eq!(first, want);
    assert_eq!(value().await, "one");
    let second = rig.campaigning(2, "two");
    rig.until_keys_are("e/", &["e/1", "e/2"]).await;
    let proclaimed = ProclaimRequest { leader: Some(first.clone()), value: "one, still".into() };
    election.proclaim(proclaimed.clone()).await.unwrap();
    assert_eq!(value().await, "one, still");
    let again = soon(rig.campaigning(1, "one, again")).await.unwrap().leader.unwrap();
    assert_eq!(again, first, "the same lease is the same candidate");
    assert_eq!(value().await, "one, again");
    assert!(!second.is_finished());
    election.resign(ResignRequest { leader: Some(first.clone()) }).await.unwrap();
    assert_eq!(soon(second).await.unwrap().leader.unwrap().lease, 2);
    assert_eq!(value().await, "two");
    let leader = election.leader(LeaderRequest { name: "e".into() }).await.unwrap().into_inner();
    assert_eq!(leader.kv.unwrap().key, "e/2");
    let why = election.proclaim(proclaimed).await.unwrap_err();
    assert_eq!((why.code(), why.message()), unknown("election: not leader"));
    election.resign(ResignRequest { leader: Some(first) }).await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn a_candidate_whose_lease_ran_out_while_waiting_does_not_lead() {
    let rig = Rig::start().await;
    rig.lease(1).await;
    rig.lease(2).await;
    soon(rig.campaigning(1, "one")).await.unwrap();
    let second = rig.campaigning(2, "two");
    rig.until_keys_are("e/", &["e/1", "e/2"]).await;
    rig.revoke(2).await;
    rig.until_keys_are("e/", &["e/1"]).await;
    rig.revoke(1).await;
    let why = soon(second).await.unwrap_err();
    assert_eq!((why.code(), why.message()), unknown("election: not leader"));
    rig.stop().await;
}
