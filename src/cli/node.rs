//! `quorate daemon`: a managed node, which is told by its API what to be part of.
//!
//! ```text
//!   flags, QUORATE_* ── checked ── log ── Managed::start ── READY=1 ── signal ── stop ── exit 0
//!                                            └── fails: fatal line, exit 1     └── the node fails: the same
//! ```

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::daemon::{Signals, notify};
use super::environment::Environment;
use super::{EXIT_FAILED, EXIT_USAGE, parsed, say};
use crate::embed::LogSettings;
use crate::embed::managed::{Managed, open_log};
use crate::fleet::node::{ADDRESS_DEFAULT, NodeSettings, Timers};
use crate::support::listen::words;

/// What stopping may take beyond the member's own bound.
const STOP_SLACK: Duration = Duration::from_secs(10);

/// Run a managed node. It waits to be told, by `quorate bootstrap` or `quorate join-cluster`, what to be part of.
#[derive(Clone, Debug, Parser)]
#[command(name = "quorate daemon", bin_name = "quorate daemon", disable_version_flag = true)]
pub struct Flags {
    /// Everything the node keeps
    #[arg(long, value_name = "DIR", default_value = "/var/lib/quorate")]
    pub state_dir: PathBuf,
    /// The node's name where bootstrap or join give none; the host's if not given
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The host, without a port, by which other nodes reach this one
    #[arg(long, value_name = "HOST", default_value = ADDRESS_DEFAULT)]
    pub address: String,
    /// The IP address that listeners are bound to; that of --address if not given
    #[arg(long, value_name = "IP", default_value = "")]
    pub listen: String,
    /// Port of the API over TLS
    #[arg(long, value_name = "PORT", default_value_t = 6400)]
    pub api_port: u16,
    /// Port of etcd's clients over TLS, with client certificates of the cluster
    #[arg(long, value_name = "PORT", default_value_t = 2379)]
    pub client_port: u16,
    /// Port of members among themselves
    #[arg(long, value_name = "PORT", default_value_t = 2380)]
    pub peer_port: u16,
    /// Port of etcd's clients without TLS, on 127.0.0.1 alone; may be the client port
    #[arg(long, value_name = "PORT")]
    pub plain_client_port: Option<u16>,
    /// Further names and addresses for this node's certificates
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub extra_sans: Vec<String>,
    /// Milliseconds between two heartbeats of the leader
    #[arg(long, value_name = "MS", default_value_t = 100)]
    pub heartbeat_interval: u64,
    /// Milliseconds without a heartbeat before an election
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    pub election_timeout: u64,
    /// Seconds that a call may take which gives no timeout
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    pub call_timeout: u64,
    /// debug, info, warn, error
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
    /// json or console
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    pub log_format: String,
    /// stderr, stdout, or files
    #[arg(long, value_name = "OUTPUT", value_delimiter = ',', default_value = "default")]
    pub log_outputs: Vec<String>,
}

/// A managed node that was asked for.
#[derive(Debug)]
pub struct NodeDaemon {
    settings: NodeSettings,
    log: LogSettings,
}

/// Reads the command line (the program's name first, then `daemon`); otherwise the exit code, after all was said.
pub fn read(arguments: &[String]) -> Result<NodeDaemon, u8> {
    let flags: Flags = parsed(arguments)?;
    let settings = flags.settings();
    if let Some(fault) = settings.fault() {
        say(&mut io::stderr(), &format!("Error: {fault}\n"));
        return Err(EXIT_USAGE);
    }
    let log = LogSettings {
        level: flags.log_level,
        format: flags.log_format,
        outputs: flags.log_outputs,
        ..LogSettings::default()
    };
    Ok(NodeDaemon { settings, log })
}

impl Flags {
    /// The node's settings.
    pub fn settings(&self) -> NodeSettings {
        NodeSettings {
            state_dir: self.state_dir.clone(),
            name: self.name.clone().unwrap_or_else(host_name),
            host: self.address.clone(),
            listen: self.listen.clone(),
            api_port: self.api_port,
            client_port: self.client_port,
            peer_port: self.peer_port,
            plain_client_port: self.plain_client_port,
            extra_sans: self.extra_sans.clone(),
            timers: Timers {
                heartbeat_ms: self.heartbeat_interval,
                election_ms: self.election_timeout,
                call: Duration::from_secs(self.call_timeout.max(1)),
                ..Timers::default()
            },
        }
    }
}

/// The machine's name; one that has none is called `quorate`.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "quorate".to_owned() } else { name }
}

impl NodeDaemon {
    /// Runs until it is told to stop; the exit code.
    pub async fn run(self, environment: &Environment) -> u8 {
        let log = match open_log(self.log) {
            Ok(log) => log,
            Err(why) => {
                say(&mut io::stderr(), &format!("Error: {why}\n"));
                return EXIT_USAGE;
            }
        };
        // A process that has a logger already keeps that one.
        let _kept = tracing::dispatcher::set_global_default(log);
        run(self.settings, environment).await
    }
}

async fn run(settings: NodeSettings, environment: &Environment) -> u8 {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(why) => return fatal("cannot listen for signals", &words(&why)),
    };
    let stop_within = settings.timers.stop + STOP_SLACK;
    let started = tokio::select! {
        started = Managed::start(settings) => started,
        (name, number) = signals.next() => {
            tracing::info!(signal = name, "received signal before the node was ready");
            return 128 + number;
        }
    };
    let managed = match started {
        Ok(managed) => managed,
        Err(why) => return fatal("the node does not start", &why.to_string()),
    };
    notify(environment);
    let failed = tokio::select! {
        why = managed.failed() => Some(why),
        (name, _) = signals.next() => {
            tracing::info!(signal = name, "received signal; shutting down");
            None
        }
    };
    let stopped = match tokio::time::timeout(stop_within, managed.stop()).await {
        Ok(stopped) => stopped,
        Err(_elapsed) => Err("the node did not stop in time".to_owned()),
    };
    match (failed, stopped) {
        (Some(why), _) => fatal("the node failed", &why),
        (None, Err(why)) => fatal("stopping failed", &why),
        (None, Ok(())) => {
            tracing::info!("the node has stopped");
            0
        }
    }
}

fn fatal(what: &'static str, why: &str) -> u8 {
    tracing::error!(severity = "fatal", error = why, "{what}");
    EXIT_FAILED
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_line(line: &str) -> Result<NodeDaemon, u8> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        read(&words)
    }

    #[test]
    fn flags_become_settings_and_faults_are_told_before_anything_is_made() {
        let line = "quorate daemon --state-dir /s --name n1 --address 10.0.0.1 --client-port 3379 \
                    --plain-client-port 3378 --extra-sans a.example,b.example";
        let NodeDaemon { settings, .. } = read_line(line).unwrap();
        assert_eq!(settings.state_dir, PathBuf::from("/s"));
        assert_eq!((settings.client_port, settings.plain_client_port), (3379, Some(3378)));
        assert_eq!(settings.extra_sans, ["a.example", "b.example"]);
        assert_eq!(settings.api_address(""), "10.0.0.1:6400");
        assert_eq!(read_line("quorate daemon --nope").unwrap_err(), EXIT_USAGE);
        assert_eq!(read_line("quorate daemon --peer-port 2379").unwrap_err(), EXIT_USAGE);
        assert_eq!(read_line("quorate daemon --help").unwrap_err(), 0);
    }
}
