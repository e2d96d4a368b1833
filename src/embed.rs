//! Floor 8, start: a server inside another program.
//!
//! ```text
//!   Config ── build: check, set up the log ──> Built ── Server::spawn: open, bind, serve ──> Server ── stop
//! ```
//!
//! Several servers may run in one process; each has its own log, metrics and listeners. A server runs on the
//! runtime that spawned it.

mod banner;
mod bootstrap;
mod config;
mod discovery;
pub mod gates;
mod local_address;
pub mod managed;
mod secure;
mod server;
mod store;
mod validate;

use tracing::Dispatch;

use crate::support::telemetry;

pub use config::{
    ClusterSettings, Config, DEFAULT_INITIAL_CLUSTER, DEFAULT_LOG_ROTATION, DEFAULT_NAME,
    HOLDER_WAIT, LogSettings, MemberSettings, SecuritySettings,
};
pub use discovery::{DiscoveryError, DiscoverySettings, Fault as DiscoveryFault};
pub use server::{Server, StartError};
pub use validate::ADVERTISE_MISSING;

#[cfg(test)]
use server::free_ports;

/// Settings that were checked, and the logger they asked for.
#[derive(Clone, Debug)]
pub struct Built {
    config: Config,
    log: Dispatch,
}

/// Settings cannot be started with.
#[derive(Debug, thiserror::Error)]
#[error("{}", .faults.first().map_or("", String::as_str))]
pub struct BuildError {
    /// Everything that is wrong, first what etcd would name.
    pub faults: Vec<String>,
    /// The logger, if the settings got that far.
    pub log: Option<Dispatch>,
}

impl Config {
    /// Checks the settings and opens the log.
    pub fn build(self) -> Result<Built, BuildError> {
        let early = |why: String| BuildError { faults: vec![why], log: None };
        let plan = validate::log_plan(&self).map_err(early)?;
        let log = if self.log.inherit {
            tracing::dispatcher::get_default(Clone::clone)
        } else {
            telemetry::dispatch(plan.level, plan.format, &plan.outputs)
                .map_err(|why| early(format!("open sink: {why}")))?
        };
        let faults = tracing::dispatcher::with_default(&log, || validate::faults(&self));
        if !faults.is_empty() {
            return Err(BuildError { faults, log: Some(log) });
        }
        Ok(Built { config: self, log })
    }
}

impl Built {
    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Makes its logger the process's, for a program that runs one server and nothing else: tasks then need not
    /// carry it. A process that has a logger already keeps that one.
    pub fn log_for_process(mut self) -> Built {
        self.config.log.inherit = tracing::dispatcher::set_global_default(self.log.clone()).is_ok();
        self
    }

    /// Changes the settings after the fact; they are not checked again.
    pub(crate) fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Its logger.
    pub fn log(&self) -> &Dispatch {
        &self.log
    }
}

#[cfg(test)]
#[path = "embed/embed_test.rs"]
mod tests;
