//! One `quorate daemon` as a process, and the commands that are given to it.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use base64::Engine as _;
use parking_lot::Mutex;
use quorate::fleet::store::Store;
use quorate::service::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate::service::remote::{RemoteSettings, open, tls};
use quorate::support::http_client::{HttpClient, HttpError, Target};
use quorate_core::api::pb::etcdserverpb::StatusRequest;
use rand::Rng as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

/// Far more than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

const PROGRAM: &str = env!("CARGO_BIN_EXE_quorate");

pub(crate) struct Daemon {
    pub(crate) name: String,
    dir: TempDir,
    /// API, clients over TLS, peers, clients without it.
    ports: [u16; 4],
    /// Of `daemon`, beyond those that all have.
    flags: Vec<String>,
    child: Mutex<Child>,
}

/// Ports that nobody has now, that no other test of this process gets, and that the kernel gives nobody who dials.
pub(crate) fn free_ports() -> [u16; 4] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Where each process begins is chance: several may run at once.
    let begin = rand::rng().random_range(22_000..31_000);
    let _first = NEXT.compare_exchange(0, begin, Ordering::Relaxed, Ordering::Relaxed);
    std::array::from_fn(|_| {
        let mut ports = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed));
        let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        ports.find(free).expect("one of them is free")
    })
}

impl Daemon {
    pub(crate) fn start(name: &str) -> Daemon {
        Daemon::start_with(name, &[])
    }

    pub(crate) fn start_with(name: &str, flags: &[&str]) -> Daemon {
        let dir = tempfile::tempdir().expect("a folder");
        let ports = free_ports();
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let child = Mutex::new(run(name, &dir, &ports, &flags));
        let daemon = Daemon { name: name.to_owned(), dir, ports, flags, child };
        daemon.wait_for_socket();
        daemon
    }

    /// Starts it anew, as it was.
    pub(crate) fn restart(&self) {
        *self.child.lock() = run(&self.name, &self.dir, &self.ports, &self.flags);
        self.wait_for_socket();
    }

    fn wait_for_socket(&self) {
        let deadline = Instant::now() + LONG;
        while std::os::unix::net::UnixStream::connect(self.state("api.sock")).is_err() {
            assert!(Instant::now() < deadline, "{}", self.log());
            quorate::support::spawn::rest(Duration::from_millis(20));
        }
    }

    /// A file or folder of its state directory.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.dir.path().join("state").join(name)
    }

    /// Everything that it keeps, and its log.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).expect("a log")
    }

    pub(crate) fn api_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// Of etcd's clients over TLS.
    pub(crate) fn client_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[1])
    }

    /// Of members.
    pub(crate) fn peer_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[2])
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(words).arg("--state-dir").arg(self.state("")).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn output(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("the program runs")
    }

    /// Begins a command, and does not wait for it.
    pub(crate) fn begins(&self, words: &[&str]) -> Child {
        self.command(words).spawn().expect("the program runs")
    }

    /// A command that is to succeed; what it printed.
    pub(crate) fn does(&self, words: &[&str]) -> String {
        let output = self.output(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{} {}: {said}\n{}", self.name, words[0], self.log());
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// A command that is to fail; what it said.
    pub(crate) fn fails(&self, words: &[&str]) -> String {
        let output = self.output(words);
        assert!(!output.status.success(), "{} {}", self.name, words[0]);
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub(crate) fn token(&self, name: &str) -> String {
        self.does(&["get-join-token", name]).trim().to_owned()
    }

    pub(crate) fn worker_token(&self, name: &str) -> String {
        self.does(&["get-join-token", name, "--worker"]).trim().to_owned()
    }

    /// Etcd's calls on its port without TLS.
    pub(crate) fn store(&self) -> Store {
        let endpoints = vec![format!("http://127.0.0.1:{}", self.ports[3])];
        open(RemoteSettings { endpoints, ..RemoteSettings::default() }).expect("a URL")
    }

    /// How etcd's calls reach its port over TLS, with the node's own certificate as it is at each handshake.
    pub(crate) fn secure(&self) -> RemoteSettings {
        let pki = |file: &str| self.state("pki").join(file).display().to_string();
        let tls = tls(&pki("client.crt"), &pki("client.key"), &pki("ca.crt"));
        RemoteSettings {
            endpoints: vec![format!("https://{}", self.client_address())],
            tls: tls.expect("the files are good"),
            ..RemoteSettings::default()
        }
    }

    pub(crate) fn socket(&self) -> HttpClient {
        HttpClient::new(Target::Unix(self.state("api.sock")))
    }

    /// HTTP status and envelope.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        told(self.socket().get(path).send(LONG).await)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        told(self.socket().post(path).json(body).send(LONG).await)
    }

    pub(crate) async fn try_status(&self) -> Option<Value> {
        let (code, mut envelope) = self.get("/1.0/k8sd/cluster").await;
        (code == 200).then(|| envelope["metadata"]["status"].take())
    }

    /// The same of a node that may not even be there.
    pub(crate) async fn reached_status(&self) -> Option<Value> {
        let answer = self.socket().get("/1.0/k8sd/cluster").send(LONG).await.ok()?;
        Some(answer.json::<Value>().ok()?["metadata"]["status"].take())
    }

    /// What it keeps of where it stands.
    pub(crate) fn noted(&self) -> String {
        fs::read_to_string(self.state("node.json")).unwrap_or_default()
    }

    pub(crate) async fn status(&self) -> Value {
        self.try_status().await.expect("it is a node of a fleet")
    }

    /// How many have a vote; nobody may be without one.
    pub(crate) async fn voters(&self) -> usize {
        let status = self.status().await;
        let nodes = status["membership"]["nodes"].as_array().expect("a list").clone();
        let voters = nodes.iter().filter(|node| node["raft"] == "voter").count();
        let replicas = nodes.iter().filter(|node| node["registry"] != "worker").count();
        assert_eq!(voters, replicas, "{status}");
        voters
    }

    /// Raft's term, as etcd's status tells it.
    pub(crate) async fn term(&self) -> u64 {
        let channel =
            tonic::transport::Endpoint::from_shared(format!("http://127.0.0.1:{}", self.ports[3]));
        let channel = channel.expect("a URL").connect().await.expect("it serves");
        let mut client = MaintenanceClient::new(channel);
        client.status(StatusRequest {}).await.expect("it answers").into_inner().raft_term
    }

    /// It is part of nothing, and nothing of a fleet is left.
    pub(crate) fn is_reset(&self) -> bool {
        let gone = |name: &str| !self.state(name).exists();
        let noted = self.noted();
        let apart = noted.is_empty() || noted.contains("\"uninitialised\"");
        apart && ["member", "pki", "fleet.key", "node-token"].into_iter().all(gone)
    }

    pub(crate) fn kill(&self) {
        let mut child = self.child.lock();
        child.kill().expect("it runs");
        child.wait().expect("it is waited for");
    }

    /// Ends it in order; its exit code.
    pub(crate) async fn terminate(&self) -> Option<i32> {
        let pid = Pid::from_child(&self.child.lock());
        kill_process(pid, Signal::TERM).expect("it runs");
        let deadline = Instant::now() + LONG;
        loop {
            if let Some(status) = self.child.lock().try_wait().expect("it is waited for") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already gone is as good.
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn run(name: &str, dir: &TempDir, ports: &[u16; 4], more: &[String]) -> Child {
    let log = File::options().create(true).append(true).open(dir.path().join("log"));
    let flags = ["--api-port", "--client-port", "--peer-port", "--plain-client-port"];
    let mut command = Command::new(PROGRAM);
    command.args(["daemon", "--name", name, "--state-dir"]).arg(dir.path().join("state"));
    for (flag, port) in flags.iter().zip(ports) {
        command.arg(flag).arg(port.to_string());
    }
    command.args(more).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(log.expect("a log")).spawn().expect("the program starts")
}

pub(crate) fn told(
    answer: Result<quorate::support::http_client::Answer, HttpError>,
) -> (u16, Value) {
    match answer {
        Ok(answer) => (answer.status, answer.json().expect("an envelope")),
        Err(HttpError::Status { status, body, .. }) => {
            (status, serde_json::from_slice(&body).expect("an envelope"))
        }
        Err(why) => panic!("{why}"),
    }
}

/// The name of the node that leads.
pub(crate) async fn leader_of(nodes: &[Daemon]) -> String {
    let status = nodes[0].status().await;
    let membership = &status["membership"];
    let listed = membership["nodes"].as_array().expect("a list");
    let leads = listed.iter().find(|node| node["id"] == membership["leader"]);
    leads.expect("somebody leads")["name"].as_str().expect("a name").to_owned()
}

/// An authority that is no fleet's yet: its certificate and its key, in PEM.
pub(crate) fn authority() -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "an authority of our own");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

/// What a token's holder shows.
pub(crate) fn secret_in(token: &str) -> String {
    let json = base64::engine::general_purpose::STANDARD.decode(token).expect("base64");
    let token: Value = serde_json::from_slice(&json).expect("JSON");
    token["secret"].as_str().expect("a secret").to_owned()
}

/// Waits until `holds`.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    eventually_within(LONG, what, holds).await;
}

/// The same, at most for `limit`.
pub(crate) async fn eventually_within(limit: Duration, what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
