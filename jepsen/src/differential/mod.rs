//! The same random calls at a real etcd and at another server, every answer compared.
//!
//! ```text
//! seed ─▶ script ─▶ call ─┬─▶ ours ───▶ answer ┐
//!                         └─▶ oracle ─▶ answer ┴─▶ masked ─▶ equal? explained? finding
//! ```
//!
//! Watch streams are compared whenever the script settles: see [`streams`]. What needs servers with flags of their own is
//! played as [`scenes`], who may do what as [`auth`], JSON over HTTP as [`gateway`]. Each seed starts the servers anew, so a finding is replayed by its seed alone.

mod allowed;
mod answer;
mod auth;
mod call;
mod client;
mod crowd;
mod finding;
mod gateway;
mod generate;
mod members;
mod run;
mod scenes;
mod streams;
mod target;
mod told;
mod upkeep;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum as _;

use self::allowed::Release;
use self::finding::{Outcome, Report};
use self::run::Run;
use crate::verdict::Verdict;

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server under test.
    #[arg(long)]
    ours: PathBuf,
    /// The etcd that knows the right answers; $ETCD_BIN when left out.
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// How many seeds to run.
    #[arg(long, default_value_t = 2)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Calls per seed.
    #[arg(long, default_value_t = 2000)]
    calls: usize,
    /// After a finding, look for the shortest script that shows one.
    #[arg(long)]
    shrink: bool,
    /// Findings after which a part of a seed is left.
    #[arg(long, default_value_t = 10)]
    max_findings: usize,
    /// Only these parts of a seed; the script comes with its crowd.
    #[arg(long, value_enum, value_delimiter = ',')]
    part: Vec<Part>,
}

/// What a seed consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Script,
    Scenes,
    Members,
    /// With the first seed of a run alone: six servers.
    Cluster,
    Auth,
    Gateway,
}

impl Options {
    /// Plays one part of a seed, and prints what was found.
    async fn play(&self, part: Part, run: &Run, seed: u64) -> Result<Outcome> {
        let calls = self.calls;
        let played = match part {
            Part::Script => {
                let script = generate::script(seed, calls, run.release.dialect());
                let outcome = run.play(&script, &crowd::scripts(seed, calls / 4)).await?;
                if self.shrink && !outcome.findings.is_empty() {
                    finding::shrink(run, &script, &outcome).await?;
                }
                outcome
            }
            Part::Scenes => scenes::play(run, seed).await?.into(),
            Part::Members => scenes::members::play(run, seed).await?.into(),
            Part::Cluster => scenes::cluster::play(run).await?.into(),
            Part::Auth => auth::play(run, seed, calls).await?.into(),
            Part::Gateway => gateway::play(run, seed, calls / 2).await?.into(),
        };
        for finding in &played.findings {
            println!("seed {seed} {part:?} {finding}\n  replay: {}", self.replay(seed));
        }
        Ok(played)
    }

    fn replay(&self, seed: u64) -> String {
        let etcd = self.etcd.clone().unwrap_or_default();
        format!(
            "cargo run -p quorate-jepsen -- differential --ours {} --etcd {} --seed {seed} --seeds 1 --calls {}",
            self.ours.display(),
            etcd.display(),
            self.calls
        )
    }
}

/// Runs every seed and prints the findings as they come.
pub(crate) async fn differential(mut options: Options) -> Result<Verdict> {
    let Some(etcd) =
        options.etcd.take().or_else(|| std::env::var_os("ETCD_BIN").map(PathBuf::from))
    else {
        return Ok(Verdict::Unknown("no oracle: give --etcd or set ETCD_BIN".into()));
    };
    let release = release_of(&etcd)?;
    options.etcd = Some(etcd.clone());
    println!("oracle: {} {release:?}; ours: {}", etcd.display(), options.ours.display());
    let mut report = Report::default();
    for seed in options.seed..options.seed + options.seeds {
        let run = Run::new(&options.ours, &etcd, release, options.max_findings);
        let begun = std::time::Instant::now();
        let mut outcome = Outcome::default();
        for part in Part::value_variants() {
            let asked = options.part.is_empty() || options.part.contains(part);
            if asked && (*part != Part::Cluster || seed == options.seed) {
                outcome.join(Box::pin(options.play(*part, &run, seed)).await?);
            }
        }
        println!("seed {seed}: {} ({:.0?})", outcome.summary(), begun.elapsed());
        report.add(seed, outcome);
    }
    Ok(report.verdict())
}

fn release_of(binary: &std::path::Path) -> Result<Release> {
    let output = Command::new(binary)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Release::parse(&text).with_context(|| format!("no etcd version in: {text}"))
}
