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

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::client::Client;
use crate::member::{Member, MemberSpec, Workspace, panics_in};
use crate::traffic::{Arena, Crowd, Traffic, judge};
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

const CROWD: Crowd =
    Crowd { puts: 4, counters: 3, rewrites: 2, registers: 0, leases: 3, watchers: 3 };

/// Runs load and kills, then judges.
pub(crate) async fn kill(options: Options) -> Result<Verdict> {
    let workspace = Workspace::create("kill")?;
    let mut spec = MemberSpec::single(&options.ours, workspace.path(), "member")?;
    spec.extra.clone_from(&options.flags);
    let member = start(spec.clone()).await?;
    let arena = Arena::alone(spec.endpoint());
    let traffic = Traffic::start(&arena, options.seed, CROWD);
    let (member, restarts) = hurt(member, &options).await?;
    arena.end();
    let told = traffic.finish(&arena).await?;
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
