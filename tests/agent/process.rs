//! One agent's process, and what it says.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use quorate::support::spawn::thread;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Far more than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Agent {
    child: Child,
    lines: mpsc::UnboundedReceiver<(Instant, String)>,
    reader: Option<JoinHandle<()>>,
}

impl Agent {
    /// An agent with the store at `endpoint`.
    pub(crate) fn start(endpoint: &str, config: &Path, node: &str) -> Agent {
        let config = config.to_string_lossy();
        Agent::run(&["agent", "--endpoints", endpoint, "--node-name", node, "--config", &config])
    }

    /// Any command that goes on until it is stopped.
    pub(crate) fn run(arguments: &[&str]) -> Agent {
        let mut child = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let said = BufReader::new(child.stderr.take().expect("it is piped"));
        let (tell, lines) = mpsc::unbounded_channel();
        let read = move || {
            for line in said.lines().map_while(Result::ok) {
                if tell.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        };
        let reader = thread("agent", read).expect("a thread");
        Agent { child, lines, reader: Some(reader) }
    }

    /// Waits for a line with `text`; how long after the call it was written.
    pub(crate) async fn says(&mut self, text: &str) -> Duration {
        let asked = Instant::now();
        let mut said = Vec::new();
        let found = async {
            while let Some((at, line)) = self.lines.recv().await {
                if line.contains(text) {
                    return Some(at);
                }
                said.push(line);
            }
            None
        };
        match timeout(LONG, found).await {
            Ok(Some(at)) => at.saturating_duration_since(asked),
            Ok(None) => panic!("it ended without {text:?}: {said:#?}"),
            Err(_) => panic!("it did not say {text:?}: {said:#?}"),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for its end; its exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let closed = async { while self.lines.recv().await.is_some() {} };
        timeout(LONG, closed).await.expect("it ends");
        self.child.wait().expect("it is waited for").code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
