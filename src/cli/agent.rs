//! `quorate agent`: observes who leads a cluster described by `cluster.kat`, stands for it, and leads when its turn comes.
//!
//! ```text
//!   flags, file ── checked ── remote store ── Agent ── signal ── lead or place given up ── exit 0
//!        └── bad: told, exit 1 or 2                └── refused by the store: told, exit 1
//! ```
//!
//! It holds no data and opens no port. A store that is away is waited for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{CommandFactory as _, Parser};
use tracing::instrument::WithSubscriber as _;

use super::daemon::{Signals, notify};
use super::environment::Environment;
use super::{EXIT_FAILED, parsed, say};
use crate::fleet::kat;
use crate::fleet::kat::{ClusterConfiguration, Ledger};
use crate::fleet::store::{StateStore, Store};
use crate::service::remote::{self, Login, RemoteSettings};
use crate::support::listen::words;
use crate::support::telemetry::{self, Format, Output, Severity};

/// Names the user, and its password, where the flag does not.
const USER_VARIABLE: &str = "QUORATE_AGENT_USER";

/// Observes who leads a cluster and takes over from it.
#[derive(Clone, Debug, Parser)]
#[command(name = "quorate agent", disable_version_flag = true)]
struct Line {
    /// Endpoints of the store, parted by commas.
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// The cluster's configuration.
    #[arg(long, default_value = "cluster.kat")]
    config: PathBuf,
    /// Under which this agent leads: the host's name if it is not given.
    #[arg(long, default_value = "")]
    node_name: String,
    /// Certificate file to show to the store.
    #[arg(long, default_value = "")]
    cert: String,
    /// Key file of the certificate.
    #[arg(long, default_value = "")]
    key: String,
    /// CA file with which the store is verified.
    #[arg(long, default_value = "")]
    cacert: String,
    /// A file that holds NAME:PASSWORD; the variable QUORATE_AGENT_USER does the same.
    #[arg(long)]
    user_file: Option<PathBuf>,
    /// A file to which each lead is written, from when to when by the machine's monotonic clock, with the outcome of a
    /// fenced write at its begin and of another one after its end.
    #[arg(long)]
    holds_file: Option<PathBuf>,
}

/// Its arguments, for completions and manual pages.
pub(super) fn command() -> clap::Command {
    Line::command()
}

/// An agent that was asked for.
#[derive(Debug)]
pub struct Agent(Line);

/// Reads the command line (the program's name first, then `agent`); otherwise the exit code, after all was said.
pub fn read(arguments: &[String]) -> Result<Agent, u8> {
    parsed(arguments).map(Agent)
}

impl Agent {
    /// Observes and campaigns until a signal comes; the exit code.
    pub async fn run(self, environment: &Environment) -> u8 {
        let set_up = self.set_up(environment).and_then(|set_up| {
            let log = telemetry::dispatch(Severity::Info, Format::Json, &[Output::Stderr]);
            log.map(|log| (set_up, log)).map_err(|why| words(&why))
        });
        let ((config, store), log) = match set_up {
            Ok(ready) => ready,
            Err(why) => {
                say(&mut io::stderr(), &format!("{why}\n"));
                return EXIT_FAILED;
            }
        };
        let node = node_name(&self.0.node_name);
        let agent = kat::Agent::new(Arc::new(store.clone()), &config, &node);
        let agent = match self.ledger() {
            Ok(Some(ledger)) => Ok(agent.with_ledger(ledger)),
            Ok(None) => Ok(agent),
            Err(why) => Err(why),
        };
        let served = async {
            let mut signals = Signals::listen().map_err(|why| words(&why))?;
            tracing::info!(cluster = config.name, node, ttl = ?config.lease_ttl, "Agent started");
            notify(environment);
            serve(agent?, store, &mut signals).await
        };
        match served.with_subscriber(log).await {
            Ok(()) => 0,
            Err(why) => {
                say(&mut io::stderr(), &format!("{why}\n"));
                EXIT_FAILED
            }
        }
    }

    fn set_up(&self, environment: &Environment) -> Result<(ClusterConfiguration, Store), String> {
        let Line { endpoints, config, cert, key, cacert, user_file, .. } = &self.0;
        let config = read_config(config)?;
        let settings = RemoteSettings {
            endpoints: endpoints.clone(),
            tls: remote::tls(cert, key, cacert)?,
            login: login(user_file.as_deref(), environment)?,
        };
        Ok((config, remote::open(settings)?))
    }

    fn ledger(&self) -> Result<Option<Ledger>, String> {
        let Some(path) = &self.0.holds_file else { return Ok(None) };
        let opened = Ledger::open(path);
        opened.map(Some).map_err(|why| format!("open {}: {}", path.display(), words(&why)))
    }
}

async fn serve(agent: kat::Agent, store: Store, signals: &mut Signals) -> Result<(), String> {
    let ended = tokio::select! {
        (signal, _) = signals.next() => {
            tracing::info!(signal, "Resigning and stopping");
            Ok(())
        }
        ended = agent.run() => Err(ended.to_string()),
    };
    store.close().await;
    tracing::info!("Agent stopped");
    ended
}

/// A file's text, read as a cluster's configuration; every fault with the file's name.
pub(super) fn read_config(path: &Path) -> Result<ClusterConfiguration, String> {
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|why| format!("open {shown}: {}", words(&why)))?;
    ClusterConfiguration::read(&text).map_err(|bad| {
        let lines: Vec<String> = bad.0.iter().map(|fault| format!("{shown}: {fault}")).collect();
        lines.join("\n")
    })
}

fn login(file: Option<&Path>, environment: &Environment) -> Result<Option<Login>, String> {
    let set = environment.iter().find(|(name, _)| name == USER_VARIABLE);
    let (from, text) = match (file, set) {
        (Some(path), _) => {
            let shown = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .map_err(|why| format!("open {shown}: {}", words(&why)))?;
            (shown, text)
        }
        (None, Some((name, value))) => (name.clone(), value.clone()),
        (None, None) => return Ok(None),
    };
    let login = Login::read(text.trim_end_matches(['\r', '\n']));
    login.map(Some).ok_or_else(|| format!("{from} is not of the form NAME:PASSWORD"))
}

/// What was given, else the host's name, else one that says that nobody knows.
pub(super) fn node_name(given: &str) -> String {
    if !given.is_empty() {
        return given.to_owned();
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match host.trim() {
        "" => "kat-node".to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_comes_from_the_file_before_the_variable_and_bad_ones_are_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("user");
        std::fs::write(&path, "a:b:c\n").unwrap();
        let set = vec![(USER_VARIABLE.to_owned(), "nonsense-secret".to_owned())];
        let read = format!("{:?}", login(Some(&path), &set).unwrap().unwrap());
        assert!(read.contains("\"a\"") && !read.contains("b:c"), "{read}");
        let why = login(None, &set).unwrap_err();
        assert_eq!(why, "QUORATE_AGENT_USER is not of the form NAME:PASSWORD");
        assert!(login(None, &Vec::new()).unwrap().is_none());
    }

    #[test]
    fn every_fault_of_a_file_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.kat");
        let missing = read_config(&path).unwrap_err();
        assert_eq!(missing, format!("open {}: no such file or directory", path.display()));
        std::fs::write(
            &path,
            "kind: ClusterConfiguration\nmetadata: {name: c}\nspec: {x: 1, y: 2}",
        )
        .unwrap();
        let why = read_config(&path).unwrap_err();
        let shown = path.display();
        let there_is_none = "there is no such field";
        assert_eq!(
            why,
            format!("{shown}: spec.x: {there_is_none}\n{shown}: spec.y: {there_is_none}")
        );
    }
}
