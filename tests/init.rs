//! `quorate init` as a process: a cluster begun from `cluster.kat`, gone on with, and refused where it is another one.

#[path = "agent/process.rs"]
mod process;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use process::{Agent, LONG};
use quorate::fleet::store::{StateStore, Store, StoreError};
use quorate::service::remote::{self, RemoteSettings};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::timeout;

const UID: &[u8] = b"/kat/config/cluster_uid";
const CONFIG: &[u8] = b"/kat/config/cluster_config";

/// A file, and the directory that it names.
struct Rig {
    dir: TempDir,
    ports: [u16; 3],
}

impl Rig {
    fn new() -> Rig {
        let listeners: Vec<TcpListener> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let port = |n: usize| listeners[n].local_addr().expect("it is bound").port();
        let rig =
            Rig { dir: tempfile::tempdir().expect("a folder"), ports: [port(0), port(1), port(2)] };
        rig.write("10.100.0.0/16");
        rig
    }

    fn write(&self, networks: &str) {
        let [api, client, peer] = self.ports;
        let text = format!(
            "apiVersion: kat.dws.rip/v1alpha1\nkind: ClusterConfiguration\nmetadata: {{name: demo}}\nspec:\n  \
             clusterCIDR: {networks}\n  serviceCIDR: 10.200.0.0/16\n  apiPort: {api}\n  clientPort: {client}\n  \
             peerPort: {peer}\n  dataDir: {}\n  leaseTTL: 3s\n",
            self.data().display()
        );
        fs::write(self.file(), text).expect("it is written");
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("cluster.kat")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn start(&self) -> Agent {
        Agent::run(&["init", "--config", &self.file().to_string_lossy(), "--node-name", "n1"])
    }

    /// Tries, and is refused.
    fn refused(&self, node: &str) -> String {
        let file = self.file();
        let output = run(&["init", "--config", &file.to_string_lossy(), "--node-name", node]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The client port, which speaks both.
    fn plain(&self) -> String {
        format!("127.0.0.1:{}", self.ports[1])
    }

    /// A store for clients of this machine.
    fn store(&self) -> Store {
        let endpoints = vec![self.plain()];
        remote::open(RemoteSettings { endpoints, ..RemoteSettings::default() }).expect("endpoints")
    }

    async fn uid(&self) -> String {
        let uid = self.store().get(UID).await.expect("it is there").value;
        String::from_utf8_lossy(&uid).into_owned()
    }

    fn etcdctl(&self, arguments: &[&str]) -> Option<Output> {
        let program = Path::new(&std::env::var_os("ETCD_BIN")?).with_file_name("etcdctl");
        let mut command = Command::new(program);
        let output = command.args(["--endpoints", &self.plain()]).args(arguments).output();
        Some(output.expect("etcdctl runs"))
    }
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.env_clear().args(arguments).output().expect("it runs")
}

/// A3.1, with S3.13 and S3.14: the log lines, both keys and the election's, without TLS and with it, on one port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_1_a_file_becomes_a_cluster_whose_keys_clients_read() {
    let rig = Rig::new();
    let mut node = rig.start();
    node.says("Successfully initialized cluster demo").await;
    node.says("Became leader: n1").await;
    let uid = rig.uid().await;
    assert!(uuid::Uuid::parse_str(&uid).is_ok(), "{uid} is a UUID");
    let store = rig.store();
    let config = store.get(CONFIG).await.expect("it is there").value;
    let config = String::from_utf8_lossy(&config).into_owned();
    for field in [
        "\"clusterCIDR\":\"10.100.0.0/16\"",
        "\"serviceCIDR\":\"10.200.0.0/16\"",
        "\"agentPort\":6401",
        &format!("\"apiPort\":{}", rig.ports[0]),
    ] {
        assert!(config.contains(field), "{field} is not in {config}");
    }
    assert!(!config.contains(&*rig.data().to_string_lossy()), "no path of this machine");
    assert_eq!(store.get_leader("/kat/leader/demo").await, Ok(Some("n1".to_owned())));
    let denied = store.put(UID, b"another").await.expect_err("it is the fleet's");
    assert!(matches!(denied, StoreError::Denied(_)), "{denied:?}");

    let pki = |name: &str| rig.data().join("pki").join(name).to_string_lossy().into_owned();
    let tls = remote::tls(&pki("client.crt"), &pki("client.key"), &pki("ca.crt")).expect("files");
    let endpoints = vec![format!("127.0.0.1:{}", rig.ports[1])];
    let secure = remote::open(RemoteSettings { endpoints, tls, login: None }).expect("endpoints");
    let found = timeout(LONG, secure.get(UID)).await.expect("in time").expect("over TLS");
    assert_eq!(String::from_utf8_lossy(&found.value), uid);

    if let Some(said) = rig.etcdctl(&["get", "--prefix", "/kat/"]) {
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains(&uid) && said.contains("/kat/leader/demo/"), "{said}");
        assert!(said.contains(&config), "{said}");
    }
    node.signal(Signal::TERM);
    assert_eq!(node.ended().await, Some(0));
}

/// S3.15: the same file goes on with the same cluster; another file, or another name, is refused before anything runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_the_uid_and_another_beginning_is_refused() {
    let rig = Rig::new();
    let mut node = rig.start();
    node.says("Became leader: n1").await;
    let uid = rig.uid().await;
    for turn in 0..5 {
        node.signal(if turn % 2 == 0 { Signal::KILL } else { Signal::TERM });
        node.ended().await;
        node = rig.start();
        node.says("Going on with cluster demo").await;
        node.says("Became leader: n1").await;
        assert_eq!(rig.uid().await, uid, "start {turn}");
    }
    node.signal(Signal::TERM);
    assert_eq!(node.ended().await, Some(0));
    let why = rig.refused("n2");
    assert!(why.contains("the node's name is n2, and the cluster was begun with n1"), "{why}");
    rig.write("10.101.0.0/16");
    let why = rig.refused("n1");
    let text = "spec.clusterCIDR is 10.101.0.0/16, and the cluster was begun with 10.100.0.0/16";
    assert!(why.contains(text), "{why}");
    rig.write("10.100.0.0/16");
    let mut node = rig.start();
    node.says("Became leader: n1").await;
    assert_eq!(rig.uid().await, uid);
}

/// S3.17: another process observes; asked to stop, the node's lead is free before the node itself is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_observes_the_node_and_stands_behind_it() {
    let rig = Rig::new();
    let mut node = rig.start();
    node.says("Became leader: n1").await;
    let mut agent = Agent::start(&rig.plain(), &rig.file(), "watcher");
    agent.says("observing leader n1").await;
    node.signal(Signal::KILL);
    node.ended().await;
    // The store went with its only node. When it is back, whoever is first leads: one of the two, and both know.
    node = rig.start();
    node.says("Going on with cluster demo").await;
    let leader = async {
        let store = rig.store();
        loop {
            match store.get_leader("/kat/leader/demo").await {
                Ok(Some(leader)) => return leader,
                Ok(None) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(why) => assert!(why.is_transient(), "{why}"),
            }
        }
    };
    let leader = timeout(LONG, leader).await.expect("somebody leads");
    assert!(["n1", "watcher"].contains(&leader.as_str()), "{leader}");
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().await, Some(0));
    node.signal(Signal::TERM);
    assert_eq!(node.ended().await, Some(0));
}

/// A3.6: nothing is made of a file that is bad.
#[test]
fn a3_6_a_bad_file_makes_nothing() {
    let rig = Rig::new();
    for (networks, field) in [
        ("10.200.0.0/8", "spec.clusterCIDR"),
        ("10.0.0.0/8", "spec.serviceCIDR"),
        ("10.100.0.0/16\n  nonsense: 1", "spec.nonsense"),
    ] {
        rig.write(networks);
        let why = rig.refused("n1");
        assert!(why.contains(field), "{why}");
        assert!(!rig.data().exists(), "nothing was made");
    }
}
