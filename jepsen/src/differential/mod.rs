//! The same random calls at a real etcd and at another server, every answer compared.
//!
//! ```text
//! seed ─▶ script ─▶ call ─┬─▶ ours ───▶ answer ┐
//!                         └─▶ oracle ─▶ answer ┴─▶ masked ─▶ equal? explained? finding
//! ```
//!
//! Watch streams are compared whenever the script settles: see [`streams`]. What needs servers with flags of their own is
//! played as [`scenes`]. Each seed starts the servers anew, so a finding is replayed by its seed alone.

mod allowed;
mod answer;
mod call;
mod crowd;
mod finding;
mod generate;
mod run;
mod scenes;
mod streams;
mod target;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use self::allowed::Release;
use self::finding::Report;
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
    /// Findings after which a seed is left.
    #[arg(long, default_value_t = 10)]
    max_findings: usize,
}

impl Options {
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
        let script = generate::script(seed, options.calls, release.dialect());
        let run = run::Run::new(&options.ours, &etcd, release, options.max_findings);
        let crowd = crowd::scripts(seed, options.calls / 4);
        let begun = std::time::Instant::now();
        let mut outcome = run.play(&script, &crowd).await?;
        let scenes = Box::pin(scenes::play(&run, seed)).await?;
        outcome.calls += scenes.calls;
        outcome.findings.extend(scenes.findings);
        println!("seed {seed}: {} ({:.0?})", outcome.summary(), begun.elapsed());
        for finding in &outcome.findings {
            println!("seed {seed} {finding}\n  replay: {}", options.replay(seed));
        }
        if options.shrink && !outcome.findings.is_empty() {
            finding::shrink(&run, &script, &outcome).await?;
        }
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
