//! Power cuts under load on a real process.
//!
//! ```text
//!  life n: mount the disk ▶ start ▶ check against the ledger ▶ load ▶ cut ▶ SIGKILL ▶ unmount
//!            ▲                                                                          │
//!            └── the disk that the cut left: synced, and a random part of the rest ◀────┘
//! ```
//!
//! The last life only starts and checks. A finding stops the run: the disk that the life started on, and the one
//! before its cut, are written to a folder, with the command that starts the member on it.
//!
//! **Invariant:** every random choice follows from the seed and the life's number; only the machine's own timing
//! differs between two runs of a seed, which is why the disk of a failure is kept.

mod check;
mod damage;
mod ledger;
mod life;
mod load;
mod plan;
mod tally;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::powerfs::image::NameSync;
use crate::powerfs::odds::NameSurvival;
use crate::verdict::Verdict;

use self::life::Run;

/// A signal that was sent together with what went wrong has come after so long.
const SIGNAL_DELAY: Duration = Duration::from_millis(100);

/// The command's.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server's binary.
    #[arg(long)]
    pub(crate) server: PathBuf,
    /// Further flags of the server, separated by spaces; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
    /// A variable of the server's environment, as NAME=VALUE; may be repeated.
    #[arg(long, value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// Power cuts to make.
    #[arg(long, default_value_t = 200)]
    pub(crate) cuts: u32,
    /// Decides everything but the machine's timing.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Writing clients.
    #[arg(long, default_value_t = 6)]
    pub(crate) clients: u32,
    /// The shortest time under load.
    #[arg(long, default_value_t = 150)]
    pub(crate) life_ms_min: u64,
    /// The longest time under load.
    #[arg(long, default_value_t = 1200)]
    pub(crate) life_ms_max: u64,
    /// A part of a path: cuts fall while files with it change; may be repeated.
    #[arg(long)]
    pub(crate) aim: Vec<String>,
    /// How many in 100 cuts are aimed, if there is something to aim at.
    #[arg(long, default_value_t = 50)]
    pub(crate) aim_percent: u32,
    /// An aimed cut falls within so many changes of such files.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) aim_calls_max: u64,
    /// An aimed cut waits so long for such a change.
    #[arg(long, default_value_t = 3000)]
    pub(crate) aim_ms_max: u64,
    /// How many in 100 cuts fall while the server starts.
    #[arg(long, default_value_t = 10)]
    pub(crate) startup_percent: u32,
    /// How unsynced directory operations survive.
    #[arg(long, value_enum, default_value = "either")]
    pub(crate) names: NameSurvival,
    /// What syncing a file does for names.
    #[arg(long, value_enum, default_value = "strict")]
    pub(crate) name_sync: NameSync,
    /// Breaks the disk on purpose: syncs of files with this in their path do nothing; empty is every file.
    #[arg(long)]
    pub(crate) ignore_sync: Vec<String>,
    /// Breaks the disk on purpose: syncs of directories do nothing.
    #[arg(long)]
    pub(crate) ignore_directory_syncs: bool,
    /// Pages survive whole or not at all.
    #[arg(long)]
    pub(crate) no_torn: bool,
    /// What a sync takes.
    #[arg(long, default_value_t = 300)]
    pub(crate) sync_latency_us: u64,
    /// How long a start may take.
    #[arg(long, default_value_t = 60)]
    pub(crate) start_seconds_max: u64,
    /// Damages a folder below the data directory that matches, before each start; half of the cuts are mere kills.
    #[arg(long)]
    pub(crate) state_glob: Option<String>,
    /// How many in 100 lives damage that folder also under the running server, while a base is being written.
    #[arg(long, default_value_t = 0)]
    pub(crate) live_percent: u32,
    /// What the names of files begin with that are only there while a base is being written.
    #[arg(long, default_value = "tmp-")]
    pub(crate) base_prefix: String,
    /// What the log line says with which the server tells that it rebuilt that folder.
    #[arg(long, default_value = "state store rebuilt")]
    pub(crate) rebuild_line: String,
}

impl Options {
    fn start_deadline(&self) -> Duration {
        Duration::from_secs(self.start_seconds_max)
    }

    /// The command that makes the same choices up to cut `cuts`.
    fn replay(&self, cuts: u32) -> String {
        let mut shortened = vec![format!("--cuts {cuts} --seed {}", self.seed)];
        let args = std::env::args().skip(1);
        let mut skip = false;
        for arg in args {
            let ours = ["--cuts", "--seed"].into_iter().find(|name| arg.starts_with(name));
            if let Some(name) = ours {
                skip = arg == name;
            } else if skip {
                skip = false;
            } else {
                shortened.push(format!("'{arg}'"));
            }
        }
        shortened.rotate_left(1);
        format!("quorate-jepsen {}", shortened.join(" "))
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("not of the form NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// SIGINT or SIGTERM came: the server must not outlive the run, nor the mount.
async fn interrupted() -> std::io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupt = ctrl_c() => interrupt,
        _ = terminated.recv() => Ok(()),
    }
}

fn interruption(signal: std::io::Result<()>, run: Run) -> Result<Verdict> {
    signal.context("cannot wait for signals")?;
    let verdict = Verdict::Unknown(format!("interrupted, {}", run.tally));
    run.discard()?;
    Ok(verdict)
}

/// Runs the cuts and judges.
///
/// # Errors
/// What hinders the harness: no FUSE, no binary.
pub(crate) async fn powercut(options: Options) -> Result<Verdict> {
    ensure!(options.server.is_file(), "no server at {}", options.server.display());
    let cuts = options.cuts;
    let mut run = Run::new(options.clone())?;
    let mut stop = std::pin::pin!(interrupted());
    for life in 0..=cuts {
        let findings = tokio::select! {
            biased;
            signal = &mut stop => return interruption(signal, run),
            findings = Box::pin(run.life(life, life == cuts)) => findings,
        };
        let findings = findings.with_context(|| format!("life {life}, {}", run.tally))?;
        if !findings.is_empty() {
            // A signal to the whole process group ends the server before it ends us.
            if let Ok(signal) = timeout(SIGNAL_DELAY, &mut stop).await {
                return interruption(signal, run);
            }
            run.report_failure(life)?;
            return Ok(Verdict::of(findings));
        }
        if life % 10 == 9 || life == cuts {
            println!("life {life}: {}", run.tally);
        }
    }
    let proved = run.tally.proves_something();
    run.discard()?;
    Ok(if proved { Verdict::Valid } else { Verdict::Unknown("nothing was acknowledged".into()) })
}
