//! Clusters whose members come and go: real servers, told of each other as an operator tells them.

use quorate_core::api::pb::etcdserverpb::watch_request::RequestUnion;
use tonic::Code;
use tonic::transport::Channel;

use super::*;
use crate::service::pb::etcdserverpb::cluster_client::ClusterClient;
use crate::service::pb::etcdserverpb::lease_client::LeaseClient;
use crate::service::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::service::pb::etcdserverpb::watch_client::WatchClient;

impl Cluster {
    /// Of so many members, of which the first `begin` begin it; the others are to be added.
    fn growing(members: usize, begin: usize) -> Cluster {
        let mut cluster = Cluster::of(members);
        cluster.told(&(0..begin).collect::<Vec<_>>(), "new");
        for config in &mut cluster.configs {
            // Its five seconds are tried elsewhere.
            config.cluster.strict_reconfig_check = false;
        }
        cluster
    }

    /// Tells `members` of each other.
    fn told(&mut self, members: &[usize], state: &str) {
        let url = |member: &usize| {
            let member = &self.configs[*member].member;
            format!("{}={}", member.name, member.advertise_peer[0])
        };
        let initial: Vec<String> = members.iter().map(url).collect();
        for member in members {
            let config = &mut self.configs[*member].cluster;
            config.initial_cluster = initial.join(",");
            config.initial_state = state.to_owned();
        }
    }

    fn peer_url(&self, member: usize) -> String {
        self.configs[member].member.advertise_peer[0].to_string()
    }

    async fn channel(&self, member: usize) -> Channel {
        let server = self.running[member].as_ref().unwrap();
        let url = format!("http://{}", server.client_addresses()[0]);
        Channel::from_shared(url).unwrap().connect().await.unwrap()
    }

    async fn ready(&self, member: usize) {
        let server = self.running[member].as_ref().unwrap();
        tokio::time::timeout(LONG, server.ready()).await.expect("it is brought up");
    }

    /// Adds a member by asking another; its id.
    async fn add(&self, asked: usize, member: usize, is_learner: bool) -> u64 {
        let peer_ur_ls = vec![self.peer_url(member)];
        let request = pb::MemberAddRequest { peer_ur_ls, is_learner };
        let mut client = ClusterClient::new(self.channel(asked).await);
        let added = client.member_add(request).await.unwrap().into_inner();
        let header = added.header.unwrap();
        assert_eq!(header.revision, 0);
        let new = added.member.unwrap();
        assert!(added.members.contains(&new));
        new.id
    }

    async fn remove(&self, asked: usize, id: u64) {
        let mut client = ClusterClient::new(self.channel(asked).await);
        client.member_remove(pb::MemberRemoveRequest { id }).await.unwrap();
    }

    fn id(&self, member: usize) -> u64 {
        self.keyspace(member).config().member_id.0
    }

    async fn eventually_votes(&self, asked: usize, id: u64) {
        eventually(LONG, "it votes", async || {
            self.keyspace(asked).raft_facts().voters.contains(&MemberId(id)).then_some(())
        })
        .await;
    }

    async fn removed(&self, member: usize) {
        let server = self.running[member].as_ref().unwrap();
        tokio::time::timeout(LONG, server.removed()).await.expect("it hears of it");
    }

    /// A member that was removed goes by itself.
    async fn gone(&mut self, member: usize) {
        self.removed(member).await;
        self.running[member].take().unwrap().leave().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_becomes_two_and_writes_go_on_before_the_second_runs() {
    let mut cluster = Cluster::growing(2, 1);
    cluster.start(0).await;
    cluster.put(0, "a", "1").await;
    let id = cluster.add(0, 1, false).await;
    for n in 0..10 {
        cluster.put(0, "a", &n.to_string()).await;
    }
    let listed = cluster.keyspace(0).members();
    assert!(listed.iter().all(|member| !member.is_learner), "it counts as a voter at once");
    cluster.told(&[0, 1], "existing");
    cluster.start(1).await;
    cluster.ready(1).await;
    assert_eq!(cluster.id(1), id);
    cluster.eventually_votes(0, id).await;
    cluster.put(1, "a", "2").await;
    cluster.everywhere("a", "2").await;
    // It comes back from its directory, whatever the flags say.
    cluster.stop(1).await;
    cluster.told(&[0, 1], "new");
    cluster.start(1).await;
    cluster.put(1, "b", "1").await;
    cluster.everywhere("b", "1").await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_serves_little_and_is_promoted() {
    let mut cluster = Cluster::growing(2, 1);
    cluster.start(0).await;
    cluster.put(0, "a", "1").await;
    let id = cluster.add(0, 1, true).await;
    cluster.told(&[0, 1], "existing");
    cluster.start(1).await;
    cluster.ready(1).await;
    let (leader, learner) = (cluster.channel(0).await, cluster.channel(1).await);
    let get = |serializable| {
        let key = "a".into();
        let request = pb::RangeRequest { key, serializable, ..Default::default() };
        let mut client = KvClient::new(learner.clone());
        async move { client.range(request).await.map(|answer| answer.into_inner().kvs.len()) }
    };
    assert_eq!(get(true).await.unwrap(), 1);
    let status = MaintenanceClient::new(learner.clone()).status(pb::StatusRequest {}).await;
    assert!(status.unwrap().into_inner().is_learner);
    let put = pb::PutRequest { key: "b".into(), ..Default::default() };
    let refused = [
        get(false).await.err(),
        KvClient::new(learner.clone()).put(put).await.err(),
        ClusterClient::new(learner.clone())
            .member_list(pb::MemberListRequest::default())
            .await
            .err(),
        LeaseClient::new(learner.clone()).lease_leases(pb::LeaseLeasesRequest {}).await.err(),
        WatchClient::new(learner.clone()).watch(tokio_stream::pending()).await.err(),
    ];
    for refused in refused {
        let refused = refused.expect("a learner refuses it");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(refused.message(), "etcdserver: rpc not supported for learner");
    }
    let mut client = ClusterClient::new(leader);
    let promote = pb::MemberPromoteRequest { id };
    let promoted = promoted(&client, id).await;
    assert!(promoted.members.iter().all(|member| !member.is_learner));
    eventually(LONG, "it knows", async || (!cluster.keyspace(1).is_learner()).then_some(())).await;
    assert_eq!(get(false).await.unwrap(), 1);
    let again = client.member_promote(promote).await.unwrap_err();
    assert_eq!(again.message(), "etcdserver: can only promote a learner member");
    cluster.stop_all().await;
}

/// Promotes a learner as soon as it has enough of the log; what the leader knows of that may lag behind it.
async fn promoted(client: &ClusterClient<Channel>, id: u64) -> pb::MemberPromoteResponse {
    const BEHIND: &str =
        "etcdserver: can only promote a learner member which is in sync with leader";
    eventually(LONG, "it is in sync", async || {
        let asked = client.clone().member_promote(pb::MemberPromoteRequest { id }).await;
        let told = |why: &tonic::Status| assert_eq!(why.message(), BEHIND);
        asked.map(|answer| answer.into_inner()).inspect_err(told).ok()
    })
    .await
}

/// Puts numbered keys one after the other, each until it is acknowledged, by whoever of `asked` answers.
fn write(cluster: &Cluster, asked: &[usize]) -> tokio::task::JoinHandle<usize> {
    let keyspaces: Vec<Keyspace> =
        asked.iter().map(|member| cluster.keyspace(*member).clone()).collect();
    let ended = keyspaces[0].clone();
    tokio::spawn(async move {
        for n in 0.. {
            let value = n.to_string();
            for keyspace in keyspaces.iter().cycle() {
                let key = format!("k/{n:06}").into();
                let put = pb::PutRequest { key, value: value.clone().into(), ..Default::default() };
                if keyspace.put(put).await.is_ok() {
                    break;
                }
            }
            let stop = pb::RangeRequest { key: "stop".into(), ..Default::default() };
            if ended.range(stop).await.is_ok_and(|found| !found.kvs.is_empty()) {
                return n + 1;
            }
        }
        unreachable!()
    })
}

/// Watches `k/` on a member; the keys that were seen, once there are `count`.
async fn watch(channel: Channel) -> impl AsyncFnOnce(usize) -> Vec<String> {
    let create = pb::WatchCreateRequest {
        key: "k/".into(),
        range_end: "k0".into(),
        start_revision: 1,
        ..Default::default()
    };
    let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let (ask, asked) = tokio::sync::mpsc::channel(1);
    ask.send(create).await.unwrap();
    let asked = tokio_stream::wrappers::ReceiverStream::new(asked);
    let mut stream = WatchClient::new(channel).watch(asked).await.unwrap().into_inner();
    async move |count| {
        let _open = ask;
        let mut seen = Vec::new();
        while seen.len() < count {
            let next = tokio::time::timeout(LONG, stream.message()).await.unwrap().unwrap();
            let events = next.unwrap().events.into_iter();
            seen.extend(
                events.map(|event| String::from_utf8(event.kv.unwrap().key.to_vec()).unwrap()),
            );
        }
        seen
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_become_five_and_three_again_under_load_with_a_watch_open() {
    let mut cluster = Cluster::growing(5, 3);
    cluster.start_all(&[0, 1, 2]).await;
    let leader = cluster.leader(LONG).await;
    for member in 0..3 {
        cluster.ready(member).await;
    }
    // Of the first three, one stays: the writer and the watch are its.
    let stays = (leader + 1) % 3;
    let seen = watch(cluster.channel(stays).await).await;
    let written = write(&cluster, &[stays]);
    let mut listed = vec![0, 1, 2];
    for new in [3, 4] {
        let id = cluster.add(stays, new, new == 4).await;
        listed.push(new);
        cluster.told(&listed, "existing");
        cluster.start(new).await;
        cluster.ready(new).await;
        if new == 4 {
            let client = ClusterClient::new(cluster.channel(stays).await);
            promoted(&client, id).await;
        }
        cluster.eventually_votes(stays, id).await;
    }
    // The leader among them.
    for old in (0..3).filter(|member| *member != stays) {
        cluster.remove(stays, cluster.id(old)).await;
        cluster.gone(old).await;
    }
    cluster.put(stays, "stop", "1").await;
    let count = tokio::time::timeout(LONG, written).await.unwrap().unwrap();
    let seen = tokio::time::timeout(LONG, seen(count)).await.unwrap();
    let expected: Vec<String> = (0..count).map(|n| format!("k/{n:06}")).collect();
    assert_eq!(seen, expected, "every write once, in order");
    cluster.everywhere("stop", "1").await;
    let facts = cluster.keyspace(stays).raft_facts();
    assert_eq!((facts.voters.len(), facts.learners.len()), (3, 0));
    // They came after all that was purged or not, and can lead.
    let mut hashes = Vec::new();
    for (member, _) in cluster.servers() {
        cluster.get(member, "stop", false).await;
        hashes.push(cluster.keyspace(member).hash_kv(0).await.unwrap().hash);
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_answers_who_waits_and_goes() {
    let mut cluster = Cluster::growing(3, 3);
    cluster.start_all(&[0, 1, 2]).await;
    let leader = cluster.leader(LONG).await;
    let (goes, asked) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.ready(goes).await;
    let mut waiting = KvClient::new(cluster.channel(goes).await);
    cluster.remove(asked, cluster.id(goes)).await;
    cluster.removed(goes).await;
    let waiting = tokio::spawn(async move {
        let put = pb::PutRequest { key: b"a".to_vec().into(), ..Default::default() };
        waiting.put(put).await.unwrap_err()
    });
    let pending = async || (cluster.keyspace(goes).proposal_counts().pending() > 0).then_some(());
    eventually(LONG, "it waits", pending).await;
    let limit = cluster.keyspace(goes).config().request_timeout() / 2;
    tokio::time::timeout(limit, cluster.gone(goes)).await.expect("it waits for nobody");
    let refused = waiting.await.unwrap();
    let told = (refused.code(), refused.message());
    assert_eq!(told, (Code::Unavailable, "etcdserver: server stopped"));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_ends_by_itself_and_its_old_data_never_comes_back() {
    let mut cluster = Cluster::growing(3, 3);
    cluster.start_all(&[0, 1, 2]).await;
    let leader = cluster.leader(LONG).await;
    for member in 0..3 {
        cluster.ready(member).await;
    }
    let (asleep, asked) = ((leader + 1) % 3, (leader + 2) % 3);
    let id = cluster.id(asleep);
    // It is away when it is removed, and will never have heard of it.
    cluster.stop(asleep).await;
    cluster.remove(asked, id).await;
    let term = cluster.keyspace(leader).applied_term();
    for _ in 0..2 {
        cluster.start(asleep).await;
        cluster.gone(asleep).await;
    }
    cluster.put(asked, "a", "1").await;
    assert_eq!(cluster.keyspace(leader).applied_term(), term, "nobody has campaigned");
    // The others know it after a restart, too.
    cluster.stop(asked).await;
    cluster.start(asked).await;
    cluster.put(asked, "a", "2").await;
    cluster.start(asleep).await;
    cluster.gone(asleep).await;
    let mut client = ClusterClient::new(cluster.channel(leader).await);
    let again = client.member_remove(pb::MemberRemoveRequest { id }).await.unwrap_err();
    assert_eq!((again.code(), again.message()), (Code::NotFound, "etcdserver: member not found"));
    // Its place can be taken, by a member with an id of its own.
    std::fs::remove_dir_all(&cluster.configs[asleep].member.data_dir).unwrap();
    let new = cluster.add(leader, asleep, false).await;
    assert_ne!(new, id);
    cluster.told(&[0, 1, 2], "existing");
    cluster.start(asleep).await;
    cluster.ready(asleep).await;
    cluster.eventually_votes(leader, new).await;
    cluster.everywhere("a", "2").await;
    cluster.stop_all().await;
}

/// It was stopped before anybody reached it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_that_was_stopped_before_it_heard_anything_is_introduced_again() {
    let mut cluster = Cluster::growing(2, 1);
    cluster.start(0).await;
    cluster.put(0, "a", "1").await;
    cluster.add(0, 1, false).await;
    cluster.told(&[0, 1], "existing");
    cluster.start(1).await;
    cluster.stop(1).await;
    cluster.start(1).await;
    cluster.put(1, "a", "2").await;
    cluster.everywhere("a", "2").await;
    cluster.stop_all().await;
}

/// While one was away, all whom it knew were replaced: none of its log's members is left to dial.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_while_all_others_were_replaced_is_found_by_them() {
    let mut cluster = Cluster::growing(5, 3);
    cluster.start_all(&[0, 1, 2]).await;
    cluster.leader(LONG).await;
    for member in 0..3 {
        cluster.ready(member).await;
    }
    cluster.stop(1).await;
    let mut listed = vec![0, 1, 2];
    for new in [3, 4] {
        let id = cluster.add(0, new, false).await;
        listed.push(new);
        cluster.told(&listed, "existing");
        cluster.start(new).await;
        cluster.ready(new).await;
        cluster.eventually_votes(0, id).await;
    }
    for old in [0, 2] {
        cluster.remove(3, cluster.id(old)).await;
        cluster.gone(old).await;
    }
    cluster.put(3, "a", "1").await;
    cluster.start(1).await;
    cluster.ready(1).await;
    cluster.everywhere("a", "1").await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_fit_the_cluster_is_not_let_in() {
    let mut cluster = Cluster::growing(3, 1);
    cluster.start(0).await;
    cluster.put(0, "a", "1").await;
    let refused = async |cluster: &Cluster, member: usize| {
        let built = cluster.configs[member].clone().build().unwrap();
        Server::spawn(built).await.err().unwrap().to_string()
    };
    cluster.told(&[0, 1], "existing");
    let why = refused(&cluster, 1).await;
    assert!(why.starts_with("error validating peerURLs {ClusterID:"), "{why}");
    assert!(why.ends_with(": member count is unequal"), "{why}");
    cluster.add(0, 2, false).await;
    let why = refused(&cluster, 1).await;
    assert!(why.contains("PeerURLs: no match found for existing member ("), "{why}");
    // A member whose directory was wiped has lost its votes.
    cluster.told(&[0, 2], "existing");
    cluster.start(2).await;
    cluster.ready(2).await;
    let id = cluster.id(2);
    cluster.stop(2).await;
    std::fs::remove_dir_all(&cluster.configs[2].member.data_dir).unwrap();
    let why = refused(&cluster, 2).await;
    assert_eq!(why, format!("member {id:x} has already been bootstrapped"));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_goes_on_alone_with_the_data_and_the_others_are_out() {
    let mut cluster = Cluster::of(3);
    cluster.start_all(&[0, 1, 2]).await;
    cluster.put(0, "a", "1").await;
    cluster.everywhere("a", "1").await;
    let (id, of) = (cluster.id(0), cluster.keyspace(0).config().cluster_id);
    for member in 0..3 {
        cluster.stop(member).await;
    }
    // The first start makes it so, later ones find it so, with the flag or without.
    for force in [true, true, false] {
        cluster.configs[0].member.force_new_cluster = force;
        cluster.start(0).await;
        cluster.put(0, "b", &force.to_string()).await;
        assert_eq!(cluster.get(0, "a", false).await.as_deref(), Some("1"));
        let listed = cluster.keyspace(0).members();
        assert_eq!(listed.iter().map(|member| member.id).collect::<Vec<_>>(), [id]);
        assert_eq!(cluster.keyspace(0).raft_facts().voters, [MemberId(id)]);
        assert_eq!(cluster.keyspace(0).config().cluster_id, of, "it is the same cluster");
        if force {
            cluster.stop(0).await;
        }
    }
    cluster.start(1).await;
    cluster.gone(1).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_goes_on_alone_votes() {
    let mut cluster = Cluster::growing(2, 1);
    cluster.start(0).await;
    cluster.put(0, "a", "1").await;
    let learner = cluster.add(0, 1, true).await;
    cluster.told(&[0, 1], "existing");
    cluster.start(1).await;
    cluster.everywhere("a", "1").await;
    cluster.stop(0).await;
    cluster.stop(1).await;

    cluster.configs[1].member.force_new_cluster = true;
    cluster.start(1).await;
    cluster.put(1, "b", "1").await;
    assert_eq!(cluster.get(1, "a", false).await.as_deref(), Some("1"));
    let listed = cluster.keyspace(1).members();
    assert_eq!(listed.iter().map(|member| member.id).collect::<Vec<_>>(), [learner]);
    assert!(!listed[0].is_learner);
    cluster.stop_all().await;
}
