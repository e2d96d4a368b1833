//! The members of one side, one or several, and who of them a load is aimed at.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::scrape::Scrape;
use super::usage;
use crate::member::{Member, MemberSpec};

pub(crate) const START_DEADLINE: Duration = Duration::from_secs(60);
const LEADER_DEADLINE: Duration = Duration::from_secs(10);
const LEADS: &str = "etcd_server_is_leader";

/// Which members clients are connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Aim {
    All,
    Leader,
    Followers,
}

impl Aim {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Leader => "leader",
            Self::Followers => "followers",
        }
    }
}

/// A running cluster on the loopback.
#[derive(Debug)]
pub(super) struct Servers(Vec<Member>);

impl Servers {
    /// Starts `count` members and waits until all are ready.
    ///
    /// # Errors
    /// When one of them ends, or is not ready in time.
    pub(super) fn start(
        binary: &Path,
        root: &Path,
        name: &str,
        count: usize,
        flags: &[String],
    ) -> Result<Self> {
        ensure!(count > 0, "at least one member");
        let mut members = Vec::new();
        for mut spec in MemberSpec::several(binary, root, name, count)? {
            spec.extra = flags.to_vec();
            members.push(spec.launch()?);
        }
        for member in &mut members {
            member.await_ready(START_DEADLINE)?;
        }
        Ok(Self(members))
    }

    /// Seconds of CPU each member has spent, in the order they were made.
    ///
    /// # Errors
    /// When a member has gone.
    pub(super) fn cpu_seconds(&self) -> Result<Vec<f64>> {
        self.0.iter().map(|member| usage::cpu_seconds(member.pid())).collect()
    }

    /// Where clients connect.
    ///
    /// # Errors
    /// When nobody leads.
    pub(super) fn endpoints(&self, aim: Aim) -> Result<Vec<String>> {
        let leader = self.leader()?;
        let chosen = self.0.iter().enumerate().filter(|(nth, _)| match aim {
            Aim::All => true,
            Aim::Leader => *nth == leader,
            Aim::Followers => *nth != leader,
        });
        Ok(chosen.map(|(_, member)| member.spec().endpoint()).collect())
    }

    /// The number of the member that leads.
    ///
    /// # Errors
    /// When none does for a while.
    pub(super) fn leader(&self) -> Result<usize> {
        leader_of(&self.0)
    }
}

/// The number of the member that leads. Waits a while.
///
/// # Errors
/// When none does then.
pub(super) fn leader_of(members: &[Member]) -> Result<usize> {
    let asked = Instant::now();
    while asked.elapsed() < LEADER_DEADLINE {
        for (nth, member) in members.iter().enumerate() {
            if Scrape::of(&member.spec().endpoint())?.must(LEADS)? == 1.0 {
                return Ok(nth);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("nobody has led for {LEADER_DEADLINE:?}")
}
