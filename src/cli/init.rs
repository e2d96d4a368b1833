//! `quorate init`: a managed node in the foreground, which begins the cluster that `cluster.kat` describes, and is its
//! first agent.
//!
//! ```text
//!   flags, file ── checked, compared with what was begun before ── Managed::start ── begun, or gone on with
//!        └── bad: told, nothing made                                      └── Agent ── signal ── resigned, stopped
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory as _, Parser};
use tokio::time::timeout;

use super::agent::{node_name, read_config};
use super::daemon::{Signals, notify};
use super::environment::Environment;
use super::{EXIT_FAILED, EXIT_USAGE, parsed, say};
use crate::embed::LogSettings;
use crate::embed::managed::{Managed, open_log};
use crate::fleet::kat::{Agent, Initiated, Initiation};
use crate::fleet::node::ADDRESS_DEFAULT;
use crate::fleet::store::{StateStore as _, Store};
use crate::support::listen::words;

/// What stopping may take beyond the member's own bound.
const STOP_SLACK: Duration = Duration::from_secs(10);

/// Begins a cluster of one node, which others may join, and leads it until another one does.
#[derive(Clone, Debug, Parser)]
#[command(name = "quorate init", bin_name = "quorate init", disable_version_flag = true)]
struct Flags {
    /// The cluster's configuration
    #[arg(long, value_name = "FILE", default_value = "cluster.kat")]
    config: PathBuf,
    /// The node's name; the host's if not given
    #[arg(long, value_name = "NAME", default_value = "")]
    node_name: String,
    /// The host, without a port, by which other nodes reach this one
    #[arg(long, value_name = "HOST", default_value = ADDRESS_DEFAULT)]
    address: String,
    /// The IP address that listeners are bound to; that of --address if not given
    #[arg(long, value_name = "IP", default_value = "")]
    listen: String,
    /// debug, info, warn, error
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// json or console
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    log_format: String,
    /// stderr, stdout, or files
    #[arg(long, value_name = "OUTPUT", value_delimiter = ',', default_value = "default")]
    log_outputs: Vec<String>,
}

/// Its arguments, for completions and manual pages.
pub(super) fn command() -> clap::Command {
    Flags::command()
}

/// A cluster that is to be begun, or gone on with.
#[derive(Debug)]
pub struct Init {
    initiation: Initiation,
    log: LogSettings,
}

/// Reads the command line (the program's name first, then `init`) and the file; otherwise the exit code, after all was
/// said. Nothing is made.
pub fn read(arguments: &[String]) -> Result<Init, u8> {
    let flags: Flags = parsed(arguments)?;
    flags.initiation().map_err(|why| {
        say(&mut io::stderr(), &format!("{why}\n"));
        EXIT_FAILED
    })
}

impl Flags {
    fn initiation(self) -> Result<Init, String> {
        let config = read_config(&self.config)?;
        let name = node_name(&self.node_name);
        let initiation = Initiation::new(config, &name, &self.address, &self.listen);
        initiation.check().map_err(|why| why.to_string())?;
        let log = LogSettings {
            level: self.log_level,
            format: self.log_format,
            outputs: self.log_outputs,
            ..LogSettings::default()
        };
        Ok(Init { initiation, log })
    }
}

impl Init {
    /// Runs until it is told to stop; the exit code.
    pub async fn run(self, environment: &Environment) -> u8 {
        let log = match open_log(self.log) {
            Ok(log) => log,
            Err(why) => {
                say(&mut io::stderr(), &format!("{why}\n"));
                return EXIT_USAGE;
            }
        };
        // A process that has a logger already keeps that one.
        let _kept = tracing::dispatcher::set_global_default(log);
        match run(&self.initiation, environment).await {
            Ok(code) => code,
            Err(why) => {
                tracing::error!(severity = "fatal", error = why, "the cluster was not initialized");
                // Also for who looks at no log.
                say(&mut io::stderr(), &format!("{why}\n"));
                EXIT_FAILED
            }
        }
    }
}

async fn run(initiation: &Initiation, environment: &Environment) -> Result<u8, String> {
    let mut signals = Signals::listen().map_err(|why| words(&why))?;
    let started = tokio::select! {
        started = Managed::start(initiation.settings().clone()) => started,
        (signal, number) = signals.next() => {
            tracing::info!(signal, "received signal before the node was ready");
            return Ok(128 + number);
        }
    };
    let managed = started.map_err(|why| why.to_string())?;
    let limit = initiation.settings().timers.call;
    let taken = tokio::select! {
        taken = initiation.take_up(managed.node(), limit) => taken.map_err(|why| why.to_string()),
        (signal, _) = signals.next() => Err(format!("received signal {signal} before the cluster was ready")),
    };
    let ended = match taken {
        Ok(initiated) => {
            tell(initiation, &initiated);
            notify(environment);
            lead(initiation, initiated.store, &managed, &mut signals).await
        }
        Err(why) => Err(why),
    };
    let stop_within = initiation.settings().timers.stop + STOP_SLACK;
    let stopped = match timeout(stop_within, managed.stop()).await {
        Ok(stopped) => stopped,
        Err(_elapsed) => Err("the node did not stop in time".to_owned()),
    };
    ended.and(stopped)?;
    tracing::info!("the node has stopped");
    Ok(0)
}

fn tell(initiation: &Initiation, initiated: &Initiated) {
    let (cluster, uid) = (&initiation.config().name, &initiated.uid);
    let data_dir = initiation.settings().state_dir.display();
    match initiated.fresh {
        true => tracing::info!(uid, %data_dir, "Successfully initialized cluster {cluster}"),
        false => tracing::info!(uid, %data_dir, "Going on with cluster {cluster}"),
    }
}

/// Campaigns until a signal comes; the lead is given up before the node stops.
async fn lead(
    initiation: &Initiation,
    store: Store,
    managed: &Managed,
    signals: &mut Signals,
) -> Result<(), String> {
    let name = &initiation.settings().name;
    let agent = Agent::new(Arc::new(store.clone()), initiation.config(), name);
    let phases = managed.node().phases();
    let ended = tokio::select! {
        (signal, _) = signals.next() => {
            tracing::info!(signal, "Resigning and stopping");
            Ok(())
        }
        ended = agent.run() => Err(ended.to_string()),
        why = managed.failed() => Err(why),
        phase = phases => Err(format!("this node is no part of the cluster any more: {phase:?}")),
    };
    store.close().await;
    ended
}
