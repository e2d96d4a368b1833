//! A0.9: three members of one build become members of the next, one by one, under load. Until all have, any of them may
//! go back; from then on the cluster knows more than the old build, which refuses to start with what it must not misread.
//!
//! ```text
//!   N N N ── N+1 N N ── N+1 N+1 N ── N N+1 N (back, and it serves) ── N+1 N+1 N+1 ── the level rises, for all
//!     puts, counters, leases, watches at all of them, all the time ──────────────────────┐
//!   one is started as N again: refused, with what to do ── as N+1: it serves ── judge <──┘
//! ```

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use parking_lot::RwLock;
use std::sync::Arc;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::sleep;

use super::conclude;
use crate::client::Client;
use crate::cluster::{START_DEADLINE, http};
use crate::member::{Member, MemberSpec, Workspace};
use crate::traffic::prober::{Probes, probe};
use crate::traffic::{Arena, Crowd, Traffic, judge};
use crate::verdict::Verdict;

/// What a member says of the level on its peer port.
const LEVEL_HEADER: &str = "x-quorate-cluster-level";
const MEMBERS: usize = 3;
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// The leader asks everyone what it understands every so often; then it is one entry.
const RISES_WITHIN: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(100);
/// What the old build says of an entry or a state that it does not know.
const REFUSAL: &str = "upgrade this member";
/// Fewer writes a second than this prove nothing.
const FEWEST_WRITES_PER_SECOND: u64 = 5;

const CROWD: Crowd =
    Crowd { puts: 3, counters: 2, rewrites: 1, registers: 0, leases: 2, watchers: 2 };

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The build that the members have at first.
    #[arg(long)]
    from: PathBuf,
    /// The build that they get: its cluster level is higher.
    #[arg(long)]
    to: PathBuf,
    /// Seconds of load between two steps.
    #[arg(long, default_value_t = 3.0)]
    every: f64,
    /// Seconds without a successful write that a step may cost.
    #[arg(long, default_value_t = 3.0)]
    gap_max: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// More flags for the server.
    #[arg(long = "flag", allow_hyphen_values = true)]
    flags: Vec<String>,
}

/// Upgrades under load, goes back where one may, and judges.
///
/// # Errors
/// What hinders the harness.
pub(crate) async fn upgrade(options: Options) -> Result<Verdict> {
    for binary in [&options.from, &options.to] {
        ensure!(binary.is_file(), "no server at {}", binary.display());
    }
    let workspace = Workspace::create("upgrade")?;
    let mut trial = Trial::begin(&options, &workspace)?;
    let ran = trial.run(&options).await;
    let mut findings = std::mem::take(&mut trial.findings);
    findings.extend(ran.err().map(|error| format!("{error:#}")));
    let enough = trial.judge(&options, &mut findings).await?;
    let members = trial.members.into_iter().flatten().collect();
    let again: Vec<_> = std::env::args().skip(1).collect();
    let again = format!("again: quorate-jepsen {}", again.join(" "));
    Ok(match conclude(workspace, members, findings, again)? {
        Verdict::Valid if !enough => Verdict::Unknown("too little was written".to_owned()),
        verdict => verdict,
    })
}

struct Trial {
    members: Vec<Option<Member>>,
    findings: Vec<String>,
    arena: Arena,
    traffic: Option<Traffic>,
    prober: Option<JoinHandle<Probes>>,
    /// What was done, from when to when.
    steps: Vec<(String, Duration, Duration)>,
}

impl Trial {
    fn begin(options: &Options, workspace: &Workspace) -> Result<Trial> {
        let mut members = Vec::new();
        for mut spec in MemberSpec::several(&options.from, workspace.path(), "m", MEMBERS)? {
            spec.extra.clone_from(&options.flags);
            members.push(spec.launch()?);
        }
        for member in &mut members {
            block_in_place(|| member.await_ready(START_DEADLINE))?;
        }
        let endpoints = members.iter().map(|member| member.spec().endpoint()).collect();
        let arena = Arena::new(Arc::new(RwLock::new(endpoints)));
        Ok(Trial {
            members: members.into_iter().map(Some).collect(),
            findings: Vec::new(),
            traffic: Some(Traffic::start(&arena, options.seed, CROWD)),
            prober: Some(tokio::spawn(probe(arena.clone()))),
            arena,
            steps: Vec::new(),
        })
    }

    async fn run(&mut self, options: &Options) -> Result<()> {
        let old = self.settled().await?;
        println!("cluster level {old}");
        for (nth, build) in [(0, true), (1, true), (0, false), (0, true)] {
            sleep(Duration::from_secs_f64(options.every)).await;
            self.replace(nth, options, build).await?;
            self.claim_level(old).await?;
        }
        sleep(Duration::from_secs_f64(options.every)).await;
        self.replace(2, options, true).await?;
        let new = self.risen(old).await?;
        println!("cluster level {new}");
        self.refused(2, options).await?;
        sleep(Duration::from_secs_f64(options.every)).await;
        Ok(())
    }

    fn spec(&self, nth: usize) -> Result<MemberSpec> {
        let member = self.members[nth].as_ref().with_context(|| format!("m{nth} is gone"))?;
        Ok(member.spec().clone())
    }

    /// The level that a member tells, if it can be asked.
    async fn level(&self, nth: usize) -> Result<u32> {
        let spec = self.spec(nth)?;
        let answer = http::get(&spec.peer_url(), "/members", PATIENCE).await?;
        let told = answer.header(LEVEL_HEADER);
        let told = told.with_context(|| format!("m{nth} tells no level:\n{}", answer.head))?;
        Ok(told.parse()?)
    }

    /// The level once it is the same everywhere and is not 0.
    async fn settled(&self) -> Result<u32> {
        let asked = Instant::now();
        loop {
            let mut levels = Vec::new();
            for nth in 0..MEMBERS {
                levels.push(self.level(nth).await?);
            }
            // A cluster begins at 0, and rises to what all understand.
            if levels[0] > 1 && levels.iter().all(|level| *level == levels[0]) {
                return Ok(levels[0]);
            }
            ensure!(asked.elapsed() < RISES_WITHIN, "the level does not settle: {levels:?}");
            sleep(AGAIN).await;
        }
    }

    async fn risen(&self, old: u32) -> Result<u32> {
        let asked = Instant::now();
        loop {
            let mut levels = Vec::new();
            for nth in 0..MEMBERS {
                levels.push(self.level(nth).await?);
            }
            if levels.iter().all(|level| *level > old) {
                return Ok(levels[0]);
            }
            let elapsed = asked.elapsed();
            ensure!(elapsed < RISES_WITHIN, "all are upgraded, and the level stays: {levels:?}");
            sleep(AGAIN).await;
        }
    }

    /// While one member is old, the level stays.
    async fn claim_level(&mut self, old: u32) -> Result<()> {
        for nth in 0..MEMBERS {
            let level = self.level(nth).await?;
            if level != old {
                let why = format!("m{nth} is at level {level} while an old member runs");
                self.findings.push(why);
            }
        }
        Ok(())
    }

    /// Stops a member in order and starts the other build over its data.
    async fn replace(&mut self, nth: usize, options: &Options, build: bool) -> Result<()> {
        let from = self.arena.now();
        let member = self.members[nth].take().with_context(|| format!("m{nth} is gone"))?;
        let (mut spec, status) = block_in_place(|| member.stop(STOP_DEADLINE))?;
        if !status.success() {
            self.findings.push(format!("m{nth} ended with {status} when it was asked to"));
        }
        spec.binary.clone_from(if build { &options.to } else { &options.from });
        let member = block_in_place(|| spec.start(START_DEADLINE))?;
        self.members[nth] = Some(member);
        let what = format!("m{nth} {}", if build { "is new" } else { "is old again" });
        let to = self.arena.now();
        println!("{:6.1} s {what}, {:.2?}", from.as_secs_f64(), to.saturating_sub(from));
        self.steps.push((what, from, to));
        Ok(())
    }

    /// The old build refuses the data, and says what to do; the new one takes them.
    async fn refused(&mut self, nth: usize, options: &Options) -> Result<()> {
        let from = self.arena.now();
        let member = self.members[nth].take().with_context(|| format!("m{nth} is gone"))?;
        let (mut spec, _) = block_in_place(|| member.stop(STOP_DEADLINE))?;
        spec.binary.clone_from(&options.from);
        let old = spec.launch()?;
        let asked = Instant::now();
        loop {
            let text = old.log_text()?;
            if text.contains(REFUSAL) {
                break;
            }
            if text.contains("ready to serve client requests") {
                bail!("the old build serves what it does not understand");
            }
            ensure!(asked.elapsed() < START_DEADLINE, "the old build says nothing: {text}");
            sleep(AGAIN).await;
        }
        let ended = block_in_place(|| old.await_end(STOP_DEADLINE));
        let (_, status) = ended.context("the old build refuses, and does not end")?;
        if status.success() {
            self.findings.push("the old build refuses, and ends with 0".to_owned());
        }
        println!("the old build is refused: {status}");
        spec.binary.clone_from(&options.to);
        // Its log has the refusal, which is an error of the old build's and no panic of the new one's.
        spec.log = spec.log.with_extension("after.log");
        self.members[nth] = Some(block_in_place(|| spec.start(START_DEADLINE))?);
        self.steps.push((format!("m{nth} was old for once"), from, self.arena.now()));
        Ok(())
    }

    /// Ends the load and holds everything that was told against the truth; whether enough was written.
    async fn judge(&mut self, options: &Options, findings: &mut Vec<String>) -> Result<bool> {
        let ran = self.arena.now();
        self.arena.end();
        let (Some(traffic), Some(prober)) = (self.traffic.take(), self.prober.take()) else {
            return Ok(false);
        };
        let told = traffic.finish(&self.arena).await?;
        let probes = prober.await?;
        let client = Client::connect(&self.spec(0)?.endpoint()).await?;
        let (found, summary) = judge::judge(&client, &told).await?;
        findings.extend(found);
        for (what, from, to) in &self.steps {
            let (gap, _) = probes.longest_gap(*from, *to, *to);
            println!("{what}: longest without a write {gap:.2?}");
            if gap.as_secs_f64() > options.gap_max {
                findings.push(format!("{what}: {gap:.2?} without a write"));
            }
        }
        for (from, to) in &probes.failed {
            findings.push(format!("a write from {from:.2?} to {to:.2?} was given up"));
        }
        println!("probes {}, {} retries; {summary}", probes.written.len(), probes.retries);
        Ok(summary.writes >= ran.as_secs() * FEWEST_WRITES_PER_SECOND)
    }
}
