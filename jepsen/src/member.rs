//! One real member as a process: a data directory, two ports, a log, and the signals that hurt it.
//!
//! ```text
//! MemberSpec ── start ──▶ Member ── ready line in its log ──▶ clients
//!                           │ kill · pause · resume · stop
//!                           └── start again on the same directory and ports
//! ```
//!
//! Members of a cluster need each other to become ready: they are launched first, all of them, and awaited then.
//!
//! **Invariant:** a member's process never outlives its `Member`.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// etcd's and our log line that says: clients may come.
const READY: &str = "ready to serve client requests";

/// Below the range from which the kernel picks ports of outgoing connections.
pub(crate) const PORTS: std::ops::Range<u16> = 20_000..32_000;

static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// What a member is started with; the same on every start.
#[derive(Debug, Clone)]
pub(crate) struct MemberSpec {
    pub(crate) binary: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) client_port: u16,
    pub(crate) peer_port: u16,
    pub(crate) extra: Vec<String>,
    /// Variables besides PATH; nothing else is inherited.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) name: String,
    /// `--initial-cluster` of several members; empty: it is alone.
    pub(crate) initial_cluster: String,
    /// Where it lives, if not on the loopback.
    pub(crate) home: Option<Home>,
    /// Whether clients and members speak TLS with it; the flags for that are among `extra`.
    pub(crate) secure: bool,
}

/// A network namespace of a member's own. It listens on every address there, is known by its name, and is started by
/// variables alone.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    pub(crate) namespace: String,
    /// Where clients outside find it.
    pub(crate) address: Ipv4Addr,
}

impl MemberSpec {
    /// A single-member cluster below `root`, on ports nobody listens on.
    pub(crate) fn single(binary: &Path, root: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Self {
            binary: binary.to_owned(),
            data_dir: root.join(format!("{name}.data")),
            log: root.join(format!("{name}.log")),
            client_port: free_port()?,
            peer_port: free_port()?,
            extra: Vec::new(),
            environment: Vec::new(),
            name: "default".to_owned(),
            initial_cluster: String::new(),
            home: None,
            secure: false,
        })
    }

    /// The members of one cluster below `root`, all on the loopback.
    pub(crate) fn several(
        binary: &Path,
        root: &Path,
        name: &str,
        count: usize,
    ) -> Result<Vec<Self>> {
        let mut specs = Vec::new();
        for nth in 1..=count {
            let mut spec = Self::single(binary, root, &format!("{name}{nth}"))?;
            spec.name = format!("{name}{nth}");
            specs.push(spec);
        }
        let listed: Vec<_> =
            specs.iter().map(|spec| format!("{}={}", spec.name, spec.peer_url())).collect();
        for spec in &mut specs {
            spec.initial_cluster = listed.join(",");
        }
        Ok(specs)
    }

    /// Where this process's clients find it.
    pub(crate) fn endpoint(&self) -> String {
        let address = self.home.as_ref().map_or(Ipv4Addr::LOCALHOST, |home| home.address);
        format!("{}://{address}:{}", self.scheme(), self.client_port)
    }

    fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Where the other members find it.
    pub(crate) fn peer_url(&self) -> String {
        match self.home {
            Some(_) => format!("{}://{}:{}", self.scheme(), self.name, self.peer_port),
            None => format!("{}://127.0.0.1:{}", self.scheme(), self.peer_port),
        }
    }

    /// What it is told, by the names of the flags.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let at = |host: &str, port: u16| format!("{}://{host}:{port}", self.scheme());
        let (listen, known) = match self.home {
            Some(_) => ("0.0.0.0", self.name.as_str()),
            None => ("127.0.0.1", "127.0.0.1"),
        };
        let initial_cluster = match self.initial_cluster.as_str() {
            "" => format!("{}={}", self.name, self.peer_url()),
            several => several.to_owned(),
        };
        vec![
            ("name", self.name.clone()),
            ("data-dir", self.data_dir.display().to_string()),
            ("listen-client-urls", at(listen, self.client_port)),
            ("advertise-client-urls", at(known, self.client_port)),
            ("listen-peer-urls", at(listen, self.peer_port)),
            ("initial-advertise-peer-urls", self.peer_url()),
            ("initial-cluster", initial_cluster),
        ]
    }

    pub(crate) fn command(&self) -> Command {
        let mut command;
        if let Some(home) = &self.home {
            command = Command::new("ip");
            command.env_clear().args(["netns", "exec", &home.namespace]).arg(&self.binary);
            for (flag, value) in self.settings() {
                command.env(variable_of(flag), value);
            }
        } else {
            command = Command::new(&self.binary);
            command.env_clear();
            for (flag, value) in self.settings() {
                command.arg(format!("--{flag}")).arg(value);
            }
        }
        command.args(&self.extra).envs(self.environment.iter().cloned());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }

    /// Starts the process and waits for its ready line.
    ///
    /// # Errors
    /// When it exits first, or is not ready by the deadline; the end of its log is part of the error.
    pub(crate) fn start(&self, deadline: Duration) -> Result<Member> {
        let mut member = self.launch()?;
        member.await_ready(deadline)?;
        Ok(member)
    }

    /// Starts the process and waits for nothing.
    ///
    /// # Errors
    /// When the process cannot be started at all.
    pub(crate) fn launch(&self) -> Result<Member> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let log_start = log.metadata()?.len();
        let started = Instant::now();
        let child = self
            .command()
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        Ok(Member { spec: self.clone(), child, log_start, started, ready_after: Duration::ZERO })
    }
}

/// The variable that stands for a flag: `ETCD_DATA_DIR` for `data-dir`.
fn variable_of(flag: &str) -> String {
    format!("ETCD_{}", flag.replace('-', "_").to_uppercase())
}

/// A running member. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Member {
    spec: MemberSpec,
    child: Child,
    log_start: u64,
    started: Instant,
    ready_after: Duration,
}

impl Member {
    /// Waits for the ready line of this run of the process; the deadline counts from its start.
    ///
    /// # Errors
    /// When it exits first, or is not ready by the deadline; the end of its log is part of the error.
    pub(crate) fn await_ready(&mut self, deadline: Duration) -> Result<()> {
        loop {
            if self.log_text()?.contains(READY) {
                self.ready_after = self.started.elapsed();
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("member ended with {status}: {}", self.log_tail());
            }
            ensure!(
                self.started.elapsed() < deadline,
                "member not ready after {deadline:?}: {}",
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn spec(&self) -> &MemberSpec {
        &self.spec
    }

    pub(crate) fn ready_after(&self) -> Duration {
        self.ready_after
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id())?;
        let pid = Pid::from_raw(pid).context("a child has a pid above 0")?;
        Ok(kill_process(pid, signal)?)
    }

    /// How it ended, if it did, with the end of its log.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!("{status}: {}", self.log_tail()))
    }

    /// SIGKILL, and the process is gone when this returns.
    pub(crate) fn kill(mut self) -> Result<MemberSpec> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.spec.clone())
    }

    /// SIGSTOP.
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM, then waits for the process to end by itself.
    pub(crate) fn stop(self, deadline: Duration) -> Result<(MemberSpec, ExitStatus)> {
        self.signal(Signal::TERM)?;
        self.await_end(deadline).context("after SIGTERM")
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// When it runs at the deadline; it is killed then, and the end of its log is part of the error.
    pub(crate) fn await_end(mut self, deadline: Duration) -> Result<(MemberSpec, ExitStatus)> {
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok((self.spec.clone(), status));
            }
            ensure!(
                asked.elapsed() < deadline,
                "member still runs after {deadline:?}: {}",
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What this run of the process has logged so far.
    pub(crate) fn log_text(&self) -> Result<String> {
        let mut file = File::open(&self.spec.log)?;
        file.seek(SeekFrom::Start(self.log_start))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn log_tail(&self) -> String {
        let text = self.log_text().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(12);
        format!("\n{}", lines[from..].join("\n"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_reaped = self.child.wait();
    }
}

/// Lines of a log file that tell of a panic, Go's or Rust's.
pub(crate) fn panics_in(log: &Path) -> Result<Vec<String>> {
    let text = fs::read(log)?;
    Ok(String::from_utf8_lossy(&text)
        .lines()
        .filter(|line| {
            line.contains("panicked at")
                || line.starts_with("panic:")
                || line.contains("\"level\":\"panic\"")
                || line.contains("\"level\":\"fatal\"")
        })
        .map(str::to_owned)
        .collect())
}

/// A TCP port of the loopback nobody listens on now, and that this process has not given out before.
pub(crate) fn free_port() -> Result<u16> {
    let span = PORTS.end - PORTS.start;
    let base = (std::process::id().wrapping_mul(61) % u32::from(span)) as u16;
    for _ in 0..span {
        let offset = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (base.wrapping_add(offset) % span);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port in {PORTS:?}")
}

/// A fresh directory for one run; removed by [`Workspace::discard`], kept when something went wrong.
#[derive(Debug)]
pub(crate) struct Workspace(PathBuf);

impl Workspace {
    pub(crate) fn create(label: &str) -> Result<Self> {
        static SERIAL: AtomicU16 = AtomicU16::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("quorate-{label}-{}-{serial}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes everything below it.
    pub(crate) fn discard(self) -> Result<()> {
        Ok(fs::remove_dir_all(&self.0)?)
    }
}
