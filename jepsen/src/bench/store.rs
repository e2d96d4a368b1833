//! Many keys at rest: memory, disk, bytes written, and how long a restart takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use super::load::{self, Shape, Until, Work};
use super::usage;
use crate::member::{MemberSpec, Workspace};
use crate::verdict::Verdict;

const RESTART_DEADLINE: Duration = Duration::from_secs(300);

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    ours: PathBuf,
    #[arg(long)]
    etcd: Option<PathBuf>,
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Seconds between the last put and the figures at rest.
    #[arg(long, default_value_t = 10.0)]
    rest: f64,
    /// Directories with names that start so are derived from the others: a third start goes without them.
    #[arg(long, default_value = "state-")]
    derived: String,
    /// More flags, for both servers.
    #[arg(long = "flag", allow_hyphen_values = true)]
    flags: Vec<String>,
}

/// Loads each server alone, one after the other, and prints its figures.
pub(crate) fn store(options: &Options) -> Result<Verdict> {
    one(options, &options.ours, "ours")?;
    if let Some(etcd) = &options.etcd {
        one(options, etcd, "etcd")?;
    }
    Ok(Verdict::Valid)
}

fn one(options: &Options, binary: &Path, name: &str) -> Result<()> {
    let workspace = Workspace::create("store")?;
    let mut spec = MemberSpec::single(binary, workspace.path(), name)?;
    spec.extra.clone_from(&options.flags);
    let member = spec.start(Duration::from_secs(30))?;
    let peak = Peak::watch(&spec.data_dir);
    let shape = Shape {
        work: Work::Put,
        clients: 256,
        connections: 8,
        threads: 1,
        value_bytes: options.value_bytes,
        keys: options.keys,
        until: Until::EachKey,
        seed: 1,
    };
    let measured = load::run(&spec.endpoint(), &shape)?;
    println!("{name}: {} puts, {:.0} /s", options.keys, measured.per_second());
    thread::sleep(Duration::from_secs_f64(options.rest));
    report(name, "after the load", member.pid())?;
    let written = usage::written_bytes(member.pid())? as f64 / options.keys as f64;
    let (peak, parts) = (peak.stop()?, usage::disk_mib(&spec.data_dir));
    println!(
        "{name}: written {written:.0} bytes per put; disk at rest {:.0} MiB, peak {peak:.0} MiB {parts:.0?}",
        parts.values().sum::<f64>()
    );
    let spec = member.kill()?;
    let member = spec.start(RESTART_DEADLINE)?;
    println!("{name}: restart after SIGKILL {:.2?}", member.ready_after());
    thread::sleep(Duration::from_secs_f64(options.rest / 2.0));
    report(name, "after the restart", member.pid())?;
    let spec = member.kill()?;
    if forget(&spec.data_dir, &options.derived)? {
        let member = spec.start(RESTART_DEADLINE)?;
        println!("{name}: restart with what is derived rebuilt {:.2?}", member.ready_after());
        report(name, "after the rebuild", member.pid())?;
        member.kill()?;
    }
    workspace.discard()
}

fn report(name: &str, when: &str, pid: u32) -> Result<()> {
    let (anonymous, file) = usage::resident_mib(pid)?;
    println!(
        "{name}: {when}: resident {:.0} MiB ({anonymous:.0} anonymous, {file:.0} file)",
        anonymous + file
    );
    Ok(())
}

/// Removes the directories with names that start with `prefix`; whether there were any.
fn forget(directory: &Path, prefix: &str) -> Result<bool> {
    let mut any = false;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            fs::remove_dir_all(entry.path())?;
            any = true;
        } else {
            any |= forget(&entry.path(), prefix)?;
        }
    }
    Ok(any)
}

/// The most disk a directory has taken since.
struct Peak {
    over: Arc<AtomicBool>,
    watcher: thread::JoinHandle<f64>,
}

impl Peak {
    fn watch(directory: &Path) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (stop, directory) = (Arc::clone(&over), directory.to_owned());
        let watcher = thread::spawn(move || {
            let mut most = 0.0_f64;
            while !stop.load(Ordering::Relaxed) {
                most = most.max(usage::disk_mib(&directory).values().sum());
                thread::sleep(Duration::from_millis(100));
            }
            most
        });
        Self { over, watcher }
    }

    fn stop(self) -> Result<f64> {
        self.over.store(true, Ordering::Relaxed);
        match self.watcher.join() {
            Ok(most) => Ok(most),
            Err(_) => bail!("the watcher of the disk panicked"),
        }
    }
}
