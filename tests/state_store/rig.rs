//! A store to try, and another way to the same keyspace.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quorate::embed::{Config, Server};
use quorate::fleet::store::{StateStore, Store, StoreError};
use quorate::keyspace::auth::Credentials;
use quorate::service::remote::{self, RemoteSettings};
use quorate::support::urls::parse_list;
use tempfile::TempDir;
use tokio::time::timeout;

/// Far more than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A keyspace, and how stores for it are made.
pub(crate) struct Rig {
    keyspace: Keyspace,
    pub(crate) address: String,
    in_process: bool,
    _dir: TempDir,
}

enum Keyspace {
    Ours(Box<Server>),
    Etcd { _process: Running },
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program of a real etcd, if there is one to try.
pub(crate) fn etcd() -> Option<PathBuf> {
    std::env::var_os("ETCD_BIN").map(PathBuf::from)
}

impl Rig {
    pub(crate) async fn in_process() -> Rig {
        Rig { in_process: true, ..Rig::remote().await }
    }

    pub(crate) async fn remote() -> Rig {
        let dir = tempfile::tempdir().expect("a folder");
        let mut config = Config::default();
        config.member.data_dir = dir.path().join("data").to_string_lossy().into_owned();
        config.member.listen_client = parse_list("http://127.0.0.1:0").expect("a URL");
        config.member.listen_peer = parse_list("http://127.0.0.1:0").expect("a URL");
        config.log.outputs = vec!["/dev/null".to_owned()];
        let server = Server::spawn(config.build().expect("it is well")).await.expect("it starts");
        timeout(LONG, server.ready()).await.expect("a lone member elects itself");
        let address = server.client_addresses()[0].clone();
        Rig { keyspace: Keyspace::Ours(Box::new(server)), address, in_process: false, _dir: dir }
    }

    /// A real etcd; none where `ETCD_BIN` names none.
    pub(crate) async fn etcd() -> Option<Rig> {
        let Some(program) = etcd() else {
            eprintln!("not tried: ETCD_BIN names no etcd");
            return None;
        };
        let dir = tempfile::tempdir().expect("a folder");
        let (client, peer) = (free_port(), free_port());
        let urls = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
        let child = Command::new(program)
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(["--listen-client-urls", &urls[0], "--advertise-client-urls", &urls[0]])
            .args(["--listen-peer-urls", &urls[1], "--initial-advertise-peer-urls", &urls[1]])
            .args(["--initial-cluster", &format!("default={}", urls[1])])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ETCD_BIN is a program");
        let address = format!("127.0.0.1:{client}");
        let keyspace = Keyspace::Etcd { _process: Running(child) };
        let rig = Rig { keyspace, address, in_process: false, _dir: dir };
        rig.until_served().await;
        Some(rig)
    }

    async fn until_served(&self) {
        let store = self.store();
        let served = async {
            while let Err(why) = store.list(b"nothing").await {
                assert!(why.is_transient(), "{why}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONG, served).await.expect("a lone member elects itself");
        store.close().await;
    }

    /// A store of its own for the keyspace.
    pub(crate) fn store(&self) -> Store {
        match &self.keyspace {
            Keyspace::Ours(server) if self.in_process => {
                server.store(&Credentials::default()).expect("nobody is refused")
            }
            Keyspace::Ours(_) | Keyspace::Etcd { .. } => self.remote_store(),
        }
    }

    fn remote_store(&self) -> Store {
        // The first one answers nobody: what comes second must do.
        let endpoints = vec![format!("127.0.0.1:{}", free_port()), self.address.clone()];
        remote::open(RemoteSettings { endpoints, ..RemoteSettings::default() }).expect("endpoints")
    }

    /// `etcdctl` beside etcd; none where `ETCD_BIN` names none.
    pub(crate) fn etcdctl(&self) -> Option<Command> {
        let program = etcd()?.parent().map_or_else(|| PathBuf::from("etcdctl"), beside);
        let mut command = Command::new(program);
        command.args(["--endpoints", &self.address]);
        Some(command)
    }
}

fn beside(folder: &Path) -> PathBuf {
    folder.join("etcdctl")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound").port()
}

/// Waits, not for ever.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(LONG, work).await.unwrap_or_else(|_| panic!("{what}: not in {LONG:?}"))
}

/// What must not be an error.
pub(crate) fn ok<T>(result: Result<T, StoreError>) -> T {
    result.unwrap_or_else(|why| panic!("{why:?}"))
}
