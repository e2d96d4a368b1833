//! Members of either program, as processes on this host.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::Rng as _;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::paths::{Asked, ask};

/// Far more than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// What both programs are started with, beside addresses: quick passwords, and everything shown.
const FLAGS: [&str; 6] = [
    "--metrics=extensive",
    "--enable-pprof",
    "--log-level=debug",
    "--log-outputs=/dev/null",
    "--strict-reconfig-check=false",
    "--bcrypt-cost=4",
];

/// Requests then have 25 s, which no busy machine takes.
const PATIENT: [&str; 1] = ["--election-timeout=10000"];

/// What was missed is soon no longer in the log.
const FORGETFUL: [&str; 2] = ["--snapshot-count=10", "--snapshot-catchup-entries=5"];

/// One member and where it listens, as `host:port`.
pub(crate) struct Member {
    pub(crate) client: String,
    pub(crate) peer: String,
    pub(crate) metrics: String,
    command: Command,
    process: Option<Child>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Member {
    pub(crate) fn start(&mut self) {
        self.process = Some(self.command.spawn().expect("the program starts"));
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    _folder: TempDir,
}

impl Cluster {
    /// A new member, alone, that serves: nobody takes its leadership away.
    pub(crate) async fn of_one(program: &str) -> Cluster {
        Cluster::start(program, 1, &PATIENT).await
    }

    /// Three new members that serve and keep little log.
    pub(crate) async fn of_three(program: &str, more: &[&str]) -> Cluster {
        Cluster::start(program, 3, &[&FORGETFUL, more].concat()).await
    }

    async fn start(program: &str, count: usize, more: &[&str]) -> Cluster {
        let folder = tempfile::tempdir().expect("a folder");
        let ports = free_ports(count * 3);
        let address = |port: &u16| format!("127.0.0.1:{port}");
        let listed: Vec<String> =
            (0..count).map(|n| format!("m{n}=http://{}", address(&ports[n * 3 + 1]))).collect();
        let member = |n: usize| {
            let [client, peer, metrics] = [0, 1, 2].map(|which| address(&ports[n * 3 + which]));
            let mut command = Command::new(program);
            command.env_clear().current_dir(&folder).stdout(Stdio::null()).stderr(Stdio::null());
            command.args(FLAGS).args(more).args([
                format!("--name=m{n}"),
                format!("--data-dir=m{n}"),
                format!("--listen-client-urls=http://{client}"),
                format!("--advertise-client-urls=http://{client}"),
                format!("--listen-peer-urls=http://{peer}"),
                format!("--initial-advertise-peer-urls=http://{peer}"),
                format!("--listen-metrics-urls=http://{metrics}"),
                format!("--initial-cluster={}", listed.join(",")),
            ]);
            Member { client, peer, metrics, command, process: None }
        };
        let mut members: Vec<Member> = (0..count).map(member).collect();
        members.iter_mut().for_each(Member::start);
        let cluster = Cluster { members, _folder: folder };
        for member in &cluster.members {
            member.serves().await;
        }
        cluster
    }

    /// The member that leads.
    pub(crate) async fn leader(&self) -> usize {
        eventually("one member leads", async || {
            for (n, member) in self.members.iter().enumerate() {
                let metrics = ask(&member.client, &Asked::get("/metrics")).await?.body;
                if metrics.lines().any(|line| line == "etcd_server_is_leader 1") {
                    return Some(n);
                }
            }
            None
        })
        .await
    }
}

impl Member {
    /// Returns once it is ready.
    pub(crate) async fn serves(&self) {
        eventually("a member is ready", async || {
            let answer = ask(&self.client, &Asked::get("/readyz")).await?;
            (answer.status == 200).then_some(())
        })
        .await;
    }
}

/// Ports that nobody has now, and that the kernel gives nobody who dials.
fn free_ports(count: usize) -> Vec<u16> {
    let bind = |_| {
        let ports = std::iter::repeat_with(|| rand::rng().random_range(22_000..32_000));
        let mut bound = ports.map(|port| TcpListener::bind(("127.0.0.1", port)));
        bound.find_map(Result::ok).expect("one of them is free")
    };
    let held: Vec<_> = (0..count).map(bind).collect();
    held.iter().map(|held| held.local_addr().expect("it is bound").port()).collect()
}

pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
