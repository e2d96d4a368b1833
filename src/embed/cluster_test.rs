//! Whole clusters in this process: real servers, real sockets, each with a directory of its own.

use std::time::Duration;

use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::etcdserverpb as pb;
use rand::Rng as _;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Server;
use crate::embed::Config;
use crate::keyspace::Keyspace;
use crate::service::pb::etcdserverpb::kv_client::KvClient;
use crate::support::urls::parse_list;

/// Far more than anything here takes on a busy machine.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// A cluster's settings, and those of its members that run.
pub(super) struct Cluster {
    _dir: TempDir,
    pub(super) configs: Vec<Config>,
    running: Vec<Option<Server>>,
}

/// Ports that nobody has now, and that the kernel gives nobody who dials: members may start late.
pub(in crate::embed) fn free_ports(count: usize) -> Vec<u16> {
    let bind = |_| {
        let ports = std::iter::repeat_with(|| rand::rng().random_range(22_000..32_000));
        let mut bound = ports.map(|port| std::net::TcpListener::bind(("127.0.0.1", port)));
        bound.find_map(Result::ok).expect("one of them is free")
    };
    let held: Vec<_> = (0..count).map(bind).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

pub(super) async fn eventually<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Cluster {
    pub(super) fn of(members: usize) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let ports = free_ports(members);
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        let listed: Vec<String> =
            ports.iter().enumerate().map(|(i, port)| format!("m{i}={}", url(port))).collect();
        let config = |(i, port): (usize, &u16)| {
            let mut config = Config::default();
            config.member.name = format!("m{i}");
            let data = dir.path().join(format!("m{i}"));
            config.member.data_dir = data.to_str().unwrap().to_owned();
            config.member.listen_client = parse_list("http://127.0.0.1:0").unwrap();
            config.member.listen_peer = parse_list(&url(port)).unwrap();
            config.member.advertise_peer = parse_list(&url(port)).unwrap();
            config.cluster.initial_cluster = listed.join(",");
            config.log.inherit = true;
            config
        };
        let configs = ports.iter().enumerate().map(config).collect();
        Cluster { _dir: dir, configs, running: (0..members).map(|_| None).collect() }
    }

    pub(super) async fn start(&mut self, member: usize) {
        let built = self.configs[member].clone().build().unwrap();
        self.running[member] = Some(Server::spawn(built).await.unwrap());
    }

    pub(super) async fn start_all(&mut self, order: &[usize]) {
        for member in order {
            self.start(*member).await;
        }
    }

    pub(super) async fn stop(&mut self, member: usize) {
        self.running[member].take().unwrap().stop().await.unwrap();
    }

    pub(super) async fn stop_all(mut self) {
        for member in 0..self.running.len() {
            if self.running[member].is_some() {
                self.stop(member).await;
            }
        }
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = (usize, &Server)> {
        self.running.iter().enumerate().filter_map(|(i, server)| Some((i, server.as_ref()?)))
    }

    /// The member that every running one takes for the leader.
    pub(super) async fn leader(&self, limit: Duration) -> usize {
        let running: Vec<usize> = self.servers().map(|(member, _)| member).collect();
        self.leader_of(&running, limit).await
    }

    /// The one of `members` that all of them take for the leader.
    pub(super) async fn leader_of(&self, members: &[usize], limit: Duration) -> usize {
        eventually(limit, "they name one leader among them", async || {
            let first = self.named_by(members[0])?;
            let agreed = members.iter().all(|member| self.named_by(*member) == Some(first));
            let leads = |member: &usize| self.keyspace(*member).config().member_id == first;
            members.iter().copied().find(leads).filter(|_| agreed)
        })
        .await
    }

    fn keyspace(&self, member: usize) -> &Keyspace {
        self.running[member].as_ref().unwrap().host.keyspace()
    }

    /// Whom a member takes for the leader.
    pub(super) fn named_by(&self, member: usize) -> Option<MemberId> {
        self.keyspace(member).leader_view().leader()
    }

    pub(super) async fn put(&self, member: usize, key: &str, value: &str) -> i64 {
        let server = self.running[member].as_ref().unwrap();
        tokio::time::timeout(LONG, server.ready())
            .await
            .expect("a member serves clients once there is a leader");
        let url = format!("http://{}", server.client_addresses()[0]);
        let request = pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        let answer = KvClient::connect(url).await.unwrap().put(request).await.unwrap();
        answer.into_inner().header.unwrap().revision
    }

    async fn fill(&self, member: usize, numbers: std::ops::Range<usize>, value: &str) {
        for n in numbers {
            let (key, value) = (format!("key{n}").into(), value.to_owned().into());
            let request = pb::PutRequest { key, value, ..Default::default() };
            self.keyspace(member).put(request).await.unwrap();
        }
    }

    async fn get(&self, member: usize, key: &str, serializable: bool) -> Option<String> {
        let request =
            pb::RangeRequest { key: key.to_owned().into(), serializable, ..Default::default() };
        let found = self.keyspace(member).range(request).await.unwrap();
        Some(String::from_utf8(found.kvs.first()?.value.to_vec()).unwrap())
    }

    pub(super) async fn everywhere(&self, key: &str, value: &str) {
        for (member, _) in self.servers() {
            eventually(LONG, &format!("{key} is on member {member}"), async || {
                (self.get(member, key, true).await? == value).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_elect_replicate_and_outlive_their_leader() {
    let mut cluster = Cluster::of(3);
    cluster.start_all(&[0, 1, 2]).await;
    let first = cluster.leader(LONG).await;
    cluster.put(first, "a", "1").await;
    assert_eq!(cluster.get(first, "a", false).await.as_deref(), Some("1"), "linearizable");
    cluster.everywhere("a", "1").await;

    // Every member takes writes and answers linearizable reads, whoever leads.
    for member in 0..3 {
        let key = format!("through {member}");
        cluster.put(member, &key, "1").await;
        for other in 0..3 {
            assert_eq!(cluster.get(other, &key, false).await.as_deref(), Some("1"), "{key}");
        }
    }

    // The leader goes: another takes over, with the data.
    cluster.stop(first).await;
    let began = Instant::now();
    let second = cluster.leader(Duration::from_secs(3)).await;
    eprintln!("takeover: {:?}", began.elapsed());
    assert_ne!(second, first);
    let revision = cluster.put(second, "b", "2").await;
    assert_eq!(cluster.get(second, "a", false).await.as_deref(), Some("1"));

    // It comes back and catches up.
    cluster.start(first).await;
    cluster.everywhere("b", "2").await;
    let found: Vec<i64> =
        cluster.servers().map(|(_, server)| server.host.keyspace().revision()).collect();
    assert_eq!(found, [revision; 3]);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_is_replaced_and_names_no_leader() {
    let mut cluster = Cluster::of(3);
    cluster.start_all(&[0, 1, 2]).await;
    let first = cluster.leader(LONG).await;
    cluster.put(first, "a", "1").await;
    cluster.everywhere("a", "1").await;

    // Every stream to and from it ends, while it runs on.
    cluster.running[first].as_ref().unwrap().host.peers().shutdown().await;
    let began = Instant::now();
    let others: Vec<usize> = (0..3).filter(|member| *member != first).collect();
    let second = cluster.leader_of(&others, Duration::from_secs(5)).await;
    let revision = cluster.put(second, "b", "2").await;
    eprintln!("written after {:?}", began.elapsed());
    eventually(LONG, "the old leader names none", async || {
        cluster.named_by(first).is_none().then_some(())
    })
    .await;

    cluster.stop(first).await;
    cluster.start(first).await;
    cluster.everywhere("b", "2").await;
    assert_eq!(cluster.keyspace(first).revision(), revision);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_members_start_in_any_order_and_lose_two() {
    let mut cluster = Cluster::of(5);
    // Two of them cannot do anything yet.
    cluster.start_all(&[4, 1]).await;
    assert_eq!((cluster.named_by(4), cluster.named_by(1)), (None, None));
    cluster.start_all(&[3, 0, 2]).await;
    let leader = cluster.leader(LONG).await;
    cluster.put(leader, "a", "1").await;
    cluster.everywhere("a", "1").await;
    let other = (leader + 1) % 5;
    cluster.stop(leader).await;
    cluster.stop(other).await;
    let leader = cluster.leader(LONG).await;
    cluster.put(leader, "a", "2").await;
    cluster.everywhere("a", "2").await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_comes_back_is_ready_once_it_has_found_the_leader() {
    let mut cluster = Cluster::of(3);
    cluster.start_all(&[0, 1, 2]).await;
    let leader = cluster.leader(LONG).await;
    cluster.put(leader, "a", "1").await;
    let follower = (leader + 1) % 3;
    cluster.stop(follower).await;
    cluster.put(leader, "a", "2").await;
    cluster.start(follower).await;
    let server = cluster.running[follower].as_ref().unwrap();
    tokio::time::timeout(LONG, server.ready()).await.unwrap();
    assert!(cluster.named_by(follower).is_some());
    assert_eq!(cluster.get(follower, "a", true).await.as_deref(), Some("2"));
    cluster.stop_all().await;
}

/// A client that takes its time holds up the end, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_hands_over_before_its_clients_are_done() {
    let mut cluster = Cluster::of(3);
    cluster.start_all(&[0, 1, 2]).await;
    let first = cluster.leader(LONG).await;
    cluster.put(first, "a", "1").await;
    let address = cluster.running[first].as_ref().unwrap().client_addresses()[0].clone();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\n").await.unwrap();
    let server = cluster.running[first].take().unwrap();
    let began = Instant::now();
    let stopped = tokio::spawn(async move { server.stop().await.map(|()| began.elapsed()) });
    let others: Vec<usize> = (0..3).filter(|member| *member != first).collect();
    cluster.leader_of(&others, Duration::from_secs(4)).await;
    let handed_over = began.elapsed();
    let stopped = stopped.await.unwrap().unwrap();
    assert!(handed_over < stopped, "{handed_over:?} {stopped:?}");
    drop(slow);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_directory_was_wiped_is_refused() {
    let mut cluster = Cluster::of(3);
    cluster.start_all(&[0, 1, 2]).await;
    let leader = cluster.leader(LONG).await;
    cluster.put(leader, "a", "1").await;
    let id = cluster.keyspace(leader).config().member_id;
    eventually(LONG, "the leader's client URLs are known to all", async || {
        let knows = |server: &Server| {
            let members = server.host.keyspace().members();
            members.iter().any(|m| m.id == id.0 && !m.client_ur_ls.is_empty())
        };
        cluster.servers().all(|(_, server)| knows(server)).then_some(())
    })
    .await;
    cluster.stop(leader).await;
    std::fs::remove_dir_all(&cluster.configs[leader].member.data_dir).unwrap();
    let built = cluster.configs[leader].clone().build().unwrap();
    let refused = Server::spawn(built).await.err().unwrap().to_string();
    assert_eq!(refused, format!("member {id} has already been bootstrapped"));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_stopped_before_it_voted_begins_with_all_the_others() {
    let mut cluster = Cluster::of(3);
    cluster.start(0).await;
    cluster.stop(0).await;
    // What the first start was told is in its log already: it is not asked for again.
    let mut other = cluster.configs[0].clone();
    other.cluster.initial_cluster = "x=http://127.0.0.1:1".to_owned();
    cluster.running[0] = Some(Server::spawn(other.build().unwrap()).await.unwrap());
    cluster.stop(0).await;
    cluster.start_all(&[0, 1, 2]).await;
    let leader = cluster.leader(LONG).await;
    cluster.put(leader, "a", "1").await;
    cluster.everywhere("a", "1").await;
    cluster.stop_all().await;
}

/// Everything that etcd's alert rules and dashboard ask for, on the leader and on a follower.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_that_etcds_mixin_names_is_there() {
    let mut cluster = Cluster::of(3);
    for config in &mut cluster.configs {
        config.member.extensive_metrics = true;
    }
    cluster.start_all(&[0, 1, 2]).await;
    let leader = cluster.leader(LONG).await;
    let follower = (leader + 1) % 3;
    let names = include_str!("../../tests/testdata/metrics/mixin.txt");
    let names: Vec<&str> = names.lines().filter(|line| !line.starts_with('#')).collect();
    for member in [leader, follower] {
        cluster.put(member, "a", "1").await;
        let address = cluster.running[member].as_ref().unwrap().client_addresses()[0].clone();
        eventually(LONG, "every name has a value", async || {
            let text = super::tests::http(&address, "GET /metrics HTTP/1.1").await;
            let has = |name: &&str| text.lines().any(|line| line.starts_with(*name));
            names.iter().all(has).then_some(())
        })
        .await;
    }
    cluster.stop_all().await;
}

/// Has every member keep little log, and make bases of little state.
fn keep_little(cluster: &mut Cluster) {
    for config in &mut cluster.configs {
        config.member.base_after_bytes = 256 << 10;
        config.cluster.snapshot_catchup_entries = 20;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_through_a_purge_comes_back_by_a_whole_state_while_writes_go_on() {
    let mut cluster = Cluster::of(3);
    keep_little(&mut cluster);
    cluster.start_all(&[0, 1, 2]).await;
    let leader = cluster.leader(LONG).await;
    cluster.put(leader, "first", "1").await;
    let away = (leader + 1) % 3;
    cluster.stop(away).await;
    let left_at = cluster.keyspace(leader).status().applied_index;
    let other = (leader + 2) % 3;
    let value = "x".repeat(20_000);
    cluster.fill(leader, 0..200, &value).await;
    let leader_id = cluster.keyspace(leader).config().member_id;
    let figures = cluster.keyspace(leader).snapshot_figures().clone();
    eventually(2 * LONG, "nobody waits for it any more", async || {
        let purged = cluster.keyspace(leader).raft_facts().purged;
        purged.filter(|purged| purged.index > left_at + 10)
    })
    .await;

    cluster.start(away).await;
    let away_id = cluster.keyspace(away).config().member_id;
    cluster.fill(leader, 200..300, &value).await;
    eventually(2 * LONG, "it is level", async || {
        let at = |member: usize| cluster.keyspace(member).status().applied_index;
        (at(away) == at(leader) && at(other) == at(leader)).then_some(())
    })
    .await;
    assert!(figures.successes(away_id).0 >= 1, "it was sent a whole state");
    let taken = cluster.keyspace(away).snapshot_figures().successes(leader_id).1;
    assert!(taken >= 1, "it has taken one");
    let hash = async |member: usize| cluster.keyspace(member).hash().await.unwrap().hash;
    assert_eq!(hash(away).await, hash(leader).await);
    assert_eq!(cluster.get(away, "key299", false).await.unwrap().len(), value.len());
    // It starts again from what it was sent.
    cluster.stop(away).await;
    cluster.start(away).await;
    cluster.put(away, "last", "1").await;
    assert_eq!(cluster.get(away, "first", false).await.as_deref(), Some("1"));
    cluster.stop_all().await;
}

#[path = "members_test.rs"]
mod members;
