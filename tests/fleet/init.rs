//! Three nodes that stand for one lead: a cluster begun by `quorate init`, joined by tokens, and gone on with by
//! `quorate init` on every node. Each has a loopback address of its own, so that one `cluster.kat` holds for all.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use quorate::fleet::store::{StateStore as _, Store};
use quorate::service::remote::{RemoteSettings, open};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::Instant;

use super::daemon::{LONG, eventually, free_ports};
use super::process::Agent;

const TTL: Duration = Duration::from_secs(5);

/// One machine, as far as this test can tell.
struct Machine {
    name: String,
    dir: TempDir,
    host: String,
    ports: [u16; 4],
    node: Option<Agent>,
}

impl Machine {
    fn new(number: u8, [api, client, peer, _]: [u16; 4]) -> Machine {
        let dir = tempfile::tempdir().expect("a folder");
        let [plain, ..] = free_ports();
        let text = format!(
            "kind: ClusterConfiguration\nmetadata: {{name: three}}\nspec:\n  apiPort: {api}\n  clientPort: {client}\n  \
             peerPort: {peer}\n  plainClientPort: {plain}\n  dataDir: {}\n  leaseTTL: {}s\n",
            dir.path().join("data").display(),
            TTL.as_secs()
        );
        fs::write(dir.path().join("cluster.kat"), text).expect("it is written");
        let ports = [api, client, peer, plain];
        let (name, host) = (format!("n{number}"), format!("127.0.0.{number}"));
        Machine { name, dir, host, ports, node: None }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// It begins the cluster, or goes on with it.
    fn init(&mut self) {
        let file = self.dir.path().join("cluster.kat");
        let (file, name, host) = (file.to_string_lossy(), &*self.name, &*self.host);
        let words = ["init", "--config", &file, "--node-name", name, "--address", host];
        self.node = Some(Agent::run(&words));
    }

    fn node(&mut self) -> &mut Agent {
        self.node.as_mut().expect("it was started")
    }

    async fn end(&mut self, signal: Signal) {
        let node = self.node();
        node.signal(signal);
        node.ended().await;
    }

    /// Comes into the cluster as a daemon, and ends.
    async fn join(&self, token: &str) {
        let ports = self.ports.map(|port| port.to_string());
        let data = self.data().to_string_lossy().into_owned();
        let mut words = vec!["daemon", "--state-dir", &data, "--name", &self.name];
        words.extend(["--address", &self.host]);
        let flags = ["--api-port", "--client-port", "--peer-port", "--plain-client-port"];
        for (flag, port) in flags.iter().zip(&ports) {
            words.extend([*flag, port]);
        }
        let mut daemon = Agent::run(&words);
        eventually("its API is there", async || self.data().join("api.sock").exists()).await;
        command(&self.data(), &["join-cluster", token]);
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.ended().await, Some(0));
    }

    fn store(&self) -> Store {
        let endpoints = vec![format!("http://127.0.0.1:{}", self.ports[3])];
        open(RemoteSettings { endpoints, ..RemoteSettings::default() }).expect("a URL")
    }

    async fn uid(&self) -> Vec<u8> {
        let deadline = Instant::now() + LONG;
        loop {
            match self.store().get(b"/kat/config/cluster_uid").await {
                Ok(kv) => return kv.value.to_vec(),
                Err(why) => assert!(Instant::now() < deadline, "{why}"),
            }
        }
    }
}

/// A command of the program's against a node of this machine.
fn command(state: &Path, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.args(words).arg("--state-dir").arg(state).env_clear().stdin(Stdio::null());
    let output = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", words[0]);
    String::from_utf8(output.stdout).expect("it prints text")
}

/// Three that all campaign; the first leads.
async fn three() -> [Machine; 3] {
    let ports = free_ports();
    let mut machines = [1, 2, 3].map(|number| Machine::new(number, ports));
    machines[0].init();
    machines[0].node().says("Became leader: n1").await;
    for at in 1..3 {
        let name = machines[at].name.clone();
        let token = command(&machines[0].data(), &["get-join-token", &name]);
        machines[at].join(token.trim()).await;
        machines[at].init();
        machines[at].node().says("Going on with cluster three").await;
    }
    all_campaign(&machines).await;
    machines
}

async fn all_campaign(machines: &[Machine; 3]) {
    eventually("all three stand in the line", async || {
        let line = machines[0].store().list(b"/kat/leader/three/").await;
        line.is_ok_and(|line| line.len() == 3)
    })
    .await;
}

/// Ends the node that leads, and tells which one leads then and after how long, the end of the process not counted.
async fn take_over(machines: &mut [Machine; 3], leads: usize, signal: Signal) -> (usize, Duration) {
    let (one, other) = ((leads + 1) % 3, (leads + 2) % 3);
    machines[leads].node().signal(signal);
    let mut nodes = machines.iter_mut().map(|machine| machine.node.as_mut().expect("it runs"));
    let nodes: [&mut Agent; 3] = std::array::from_fn(|_| nodes.next().expect("there are three"));
    let mut nodes = nodes.map(Some);
    let (first, second) = (nodes[one].take(), nodes[other].take());
    let (first, second) = (first.expect("another"), second.expect("yet another"));
    let (next, took) = tokio::select! {
        took = first.says("Became leader: ") => (one, took),
        took = second.says("Became leader: ") => (other, took),
    };
    machines[leads].node().ended().await;
    (next, took)
}

/// A3.2 in one fleet: the first node leads the cluster and raft, too, so that with it goes whoever held the leases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_2_of_three_nodes_another_leads_when_the_leading_one_is_gone() {
    let mut machines = three().await;
    let uid = machines[2].uid().await;
    let mut leads = 0;
    let mut took = Vec::new();
    for (round, signal) in [Signal::KILL, Signal::KILL, Signal::TERM, Signal::TERM, Signal::KILL]
        .into_iter()
        .enumerate()
    {
        let (next, after) = take_over(&mut machines, leads, signal).await;
        took.push((signal, after));
        machines[leads].init();
        machines[leads].node().says("Going on with cluster three").await;
        all_campaign(&machines).await;
        assert_eq!(machines[leads].uid().await, uid, "restart {round}");
        leads = next;
    }
    for (signal, after) in &took {
        let limit = match *signal {
            Signal::KILL => TTL + Duration::from_secs(1),
            _asked_to_stop => Duration::from_millis(500),
        };
        assert!(*after <= limit, "{took:?}");
    }
    eprintln!("taken over: {took:?}");
    for machine in &mut machines {
        machine.end(Signal::TERM).await;
    }
}
