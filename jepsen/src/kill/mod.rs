//! SIGKILL under load, again and again: what was acknowledged must be there, once.
//!
//! ```text
//! puts · counters · leases · watchers ──▶ member ◀── kill, start, kill, start …
//!        │ what each was told                 │ one more kill, then the whole history
//!        └──────────────▶ judge ◀─────────────┘
//! ```
//!
//! **Invariant:** no client sends a write twice. A write whose answer was lost stays open for ever: it may have happened
//! once or not at all.
//!
//! The seed fixes keys, values and the times of the kills; how clients interleave is the machine's.

mod judge;
mod leases;
mod load;
mod watchers;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use self::judge::Told;
use crate::client::Client;
use crate::member::{Member, MemberSpec, Workspace, panics_in};
use crate::verdict::Verdict;

const START_DEADLINE: Duration = Duration::from_secs(60);
/// Fewer acknowledged writes than this per second of run prove nothing.
const FEWEST_WRITES_PER_SECOND: u64 = 5;

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server under test.
    #[arg(long)]
    ours: PathBuf,
    /// Seconds between kills.
    #[arg(long, default_value_t = 5.0)]
    every: f64,
    /// Seconds of load.
    #[arg(long = "for", default_value_t = 120.0)]
    seconds: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop and continue the process now and then instead of killing it.
    #[arg(long)]
    pause: bool,
    /// More flags for the server.
    #[arg(long = "flag", allow_hyphen_values = true)]
    flags: Vec<String>,
}

/// Where the member is, and whether the load goes on.
#[derive(Debug, Clone)]
pub(super) struct Arena {
    endpoint: String,
    over: Arc<AtomicBool>,
}

impl Arena {
    pub(super) fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// A fresh connection, as soon as there is one to be had.
    pub(super) async fn client(&self) -> Option<Client> {
        while !self.over() {
            if let Ok(client) = Client::connect(&self.endpoint).await {
                return Some(client);
            }
            sleep(Duration::from_millis(20)).await;
        }
        None
    }
}

/// The clients, each with what it will have been told.
struct Load {
    puts: Vec<JoinHandle<load::Puts>>,
    counters: Vec<JoinHandle<load::Increments>>,
    rewrites: Vec<JoinHandle<load::Rewrites>>,
    leases: Vec<JoinHandle<leases::Held>>,
    watchers: Vec<JoinHandle<watchers::Seen>>,
}

impl Load {
    fn start(arena: &Arena, seed: u64) -> Self {
        Self {
            puts: (0..4).map(|n| tokio::spawn(load::puts(arena.clone(), seed, n))).collect(),
            counters: (0..3)
                .map(|n| tokio::spawn(load::increments(arena.clone(), seed, n)))
                .collect(),
            rewrites: (0..2).map(|n| tokio::spawn(load::rewrites(arena.clone(), n))).collect(),
            leases: (0..3).map(|n| tokio::spawn(leases::hold(arena.clone(), n))).collect(),
            watchers: (0..3).map(|n| tokio::spawn(watchers::watch(arena.clone(), n))).collect(),
        }
    }

    async fn finish(self) -> Result<Told> {
        async fn all<T>(handles: Vec<JoinHandle<T>>) -> Result<Vec<T>> {
            let mut results = Vec::new();
            for handle in handles {
                results.push(handle.await?);
            }
            Ok(results)
        }
        Ok(Told {
            puts: all(self.puts).await?,
            counters: all(self.counters).await?,
            rewrites: all(self.rewrites).await?,
            leases: all(self.leases).await?,
            watchers: all(self.watchers).await?,
        })
    }
}

/// Runs load and kills, then judges.
pub(crate) async fn kill(options: Options) -> Result<Verdict> {
    let workspace = Workspace::create("kill")?;
    let mut spec = MemberSpec::single(&options.ours, workspace.path(), "member")?;
    spec.extra.clone_from(&options.flags);
    let member = start(spec.clone()).await?;
    let arena = Arena { endpoint: spec.endpoint(), over: Arc::new(AtomicBool::new(false)) };
    let load = Load::start(&arena, options.seed);
    let (member, restarts) = hurt(member, &options).await?;
    arena.over.store(true, Ordering::Relaxed);
    let told = load.finish().await?;
    let member = restart(member).await?;
    let client = Client::connect(&spec.endpoint()).await?;
    let (mut findings, summary) = judge::judge(&client, &told).await?;
    drop(member);
    findings.extend(panics_in(&spec.log)?.into_iter().map(|line| format!("panic: {line}")));
    let slowest = restarts.iter().max().copied().unwrap_or_default();
    println!("kills {}, slowest restart {slowest:?}; {summary}", restarts.len());
    if !findings.is_empty() {
        findings.push(format!("kept: {}", workspace.path().display()));
        findings.push(options.replay());
        return Ok(Verdict::Invalid(findings));
    }
    workspace.discard()?;
    let enough = (options.seconds as u64).saturating_mul(FEWEST_WRITES_PER_SECOND);
    if summary.writes < enough || restarts.is_empty() {
        return Ok(Verdict::Unknown(format!("too little happened: {summary}")));
    }
    Ok(Verdict::Valid)
}

impl Options {
    fn replay(&self) -> String {
        format!(
            "again: cargo run -p quorate-jepsen -- kill --ours {} --seed {} --every {} --for {}{}",
            self.ours.display(),
            self.seed,
            self.every,
            self.seconds,
            if self.pause { " --pause" } else { "" }
        )
    }
}

async fn start(spec: MemberSpec) -> Result<Member> {
    spawn_blocking(move || spec.start(START_DEADLINE)).await?
}

async fn restart(member: Member) -> Result<Member> {
    let spec = spawn_blocking(move || member.kill()).await??;
    start(spec).await.context("after a SIGKILL")
}

/// Kills and restarts until the time is over; how long each restart took.
async fn hurt(mut member: Member, options: &Options) -> Result<(Member, Vec<Duration>)> {
    let mut rng = StdRng::seed_from_u64(options.seed);
    let begun = Instant::now();
    let mut restarts = Vec::new();
    while begun.elapsed().as_secs_f64() < options.seconds {
        sleep(Duration::from_secs_f64(options.every * rng.random_range(0.7..1.3))).await;
        if options.pause && rng.random_bool(0.3) {
            member.pause()?;
            sleep(Duration::from_secs_f64(rng.random_range(0.2..3.0))).await;
            member.resume()?;
            continue;
        }
        member = restart(member).await?;
        restarts.push(member.ready_after());
    }
    Ok((member, restarts))
}
