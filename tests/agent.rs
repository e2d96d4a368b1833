//! `quorate agent` as processes beside a server: who leads, who observes, and how long it takes to take over.

#[path = "agent/process.rs"]
mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use process::{Agent, LONG};
use quorate::embed::{Config, Server};
use quorate::fleet::store::StateStore as _;
use quorate::keyspace::auth::Credentials;
use quorate::support::urls::parse_list;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::timeout;

const TTL: Duration = Duration::from_secs(3);

fn config_file(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("cluster.kat");
    let text = format!(
        "kind: ClusterConfiguration\nmetadata: {{name: c}}\nspec: {{leaseTTL: {}s}}\n",
        TTL.as_secs()
    );
    fs::write(&path, text).expect("it is written");
    path
}

async fn serve(data: &Path, client: &str) -> Server {
    let mut config = Config::default();
    config.member.data_dir = data.to_string_lossy().into_owned();
    config.member.listen_client = parse_list(client).expect("a URL");
    config.member.listen_peer = parse_list("http://127.0.0.1:0").expect("a URL");
    config.log.outputs = vec!["/dev/null".to_owned()];
    let server = Server::spawn(config.build().expect("it is well")).await.expect("it starts");
    timeout(LONG, server.ready()).await.expect("a lone member elects itself");
    server
}

/// A3.2: whoever observes takes over: from one that was killed once its TTL has run out, from one that was asked to
/// stop at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_2_a_second_agent_observes_and_takes_over() {
    let dir = tempfile::tempdir().expect("a folder");
    let server = serve(&dir.path().join("data"), "http://127.0.0.1:0").await;
    let (file, address) = (config_file(&dir), server.client_addresses()[0].clone());

    let mut one = Agent::start(&address, &file, "one");
    one.says("Became leader: one").await;
    let mut two = Agent::start(&address, &file, "two");
    two.says("observing leader one").await;
    let store = server.store(&Credentials::default()).expect("nobody is refused");
    let leader = async || store.get_leader("/kat/leader/c").await.expect("it is asked");
    assert_eq!(leader().await.as_deref(), Some("one"));

    one.signal(Signal::KILL);
    let took = two.says("Became leader: two").await;
    assert!(took <= TTL + Duration::from_secs(1), "killed: {took:?}");
    assert!(took >= Duration::from_millis(1), "{took:?}");
    assert_eq!(leader().await.as_deref(), Some("two"));

    let mut three = Agent::start(&address, &file, "three");
    three.says("observing leader two").await;
    // It stands in the line by the time that it is told of: else nobody would take over.
    timeout(LONG, async {
        while store.list(b"/kat/leader/c/").await.expect("it is asked").len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it campaigns");
    two.signal(Signal::TERM);
    let took = three.says("Became leader: three").await;
    assert!(took < Duration::from_millis(500), "asked to stop: {took:?}");
    assert_eq!(two.ended().await, Some(0));
    store.close().await;
    server.stop().await.expect("it stops");
}

/// The store goes and comes back: the agent loses the lead by its own clock, says so, and leads again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_outlives_its_store() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let server = serve(&data, "http://127.0.0.1:0").await;
    let (file, address) = (config_file(&dir), server.client_addresses()[0].clone());
    let mut agent = Agent::start(&address, &file, "one");
    agent.says("Became leader: one").await;
    server.stop().await.expect("it stops");
    let took = agent.says("Lost leadership: one").await;
    assert!(took < TTL, "by its own clock it ends before its TTL: {took:?}");
    let server = serve(&data, &format!("http://{address}")).await;
    agent.says("Became leader: one").await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().await, Some(0));
    let store = server.store(&Credentials::default()).expect("nobody is refused");
    assert_eq!(store.get_leader("/kat/leader/c").await.expect("it is asked"), None);
    store.close().await;
    server.stop().await.expect("it stops");
}

fn agent(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.env_clear().arg("agent").args(arguments).output().expect("it runs")
}

#[test]
fn a_bad_start_says_why_and_has_its_exit_code() {
    let dir = tempfile::tempdir().expect("a folder");
    let bad = dir.path().join("bad.kat");
    fs::write(&bad, "kind: ClusterConfiguration\nmetadata: {name: c}\nspec: {apiPort: 0}")
        .expect("written");
    let bad = bad.to_string_lossy().into_owned();
    let said = |output: Output| {
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let text = format!("{bad}: spec.apiPort: 0 is no port: a whole number from 1 to 65535 is\n");
    assert_eq!(said(agent(&["--config", &bad])), (Some(1), text));
    let (code, text) = said(agent(&["--nope"]));
    assert_eq!(code, Some(2));
    assert!(text.contains("--nope"), "{text}");
    let (code, text) = said(agent(&["--config", "/nonexistent"]));
    assert_eq!((code, text.as_str()), (Some(1), "open /nonexistent: no such file or directory\n"));
    assert_eq!(agent(&["--help"]).status.code(), Some(0));
}
