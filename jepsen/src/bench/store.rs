//! Many keys at rest: memory, disk, bytes written, and how long a restart takes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use super::load::{self, Shape};
use super::scrape::Scrape;
use super::usage;
use crate::member::{Member, MemberSpec, Workspace};
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
    let shape = Shape::fill(0..options.keys, options.value_bytes);
    let measured = load::run(&[spec.endpoint()], &shape)?;
    println!("{name}: {} puts, {:.0} /s", options.keys, measured.per_second());
    thread::sleep(Duration::from_secs_f64(options.rest));
    report(name, "after the load", member.pid())?;
    print_written(name, options, &member, measured.received)?;
    peak.stop()?.print(name);
    print_disk(name, "at rest", &usage::disk_mib(&spec.data_dir));
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

/// Parts that a server tells of itself: ours, and etcd's log. Each is a figure of its `/metrics`.
const TOLD: [(&str, &str); 4] = [
    ("journal", "quorate_journal_written_bytes_total"),
    ("new journal files filled", "quorate_journal_zeroed_bytes_total"),
    ("base", "quorate_base_written_bytes_total"),
    ("wal", "etcd_disk_wal_write_bytes_total"),
];

/// Bytes written per put, part by part; what no part tells of is the rest of the process's writes to files.
fn print_written(name: &str, options: &Options, member: &Member, sent: u64) -> Result<()> {
    let scrape = Scrape::of(&member.spec().endpoint())?;
    let written = usage::written_bytes(member.pid())?;
    let per_put = |bytes: f64| bytes / options.keys as f64;
    let own_journal = scrape.get(TOLD[0].1).is_some();
    let mut rest = written.by_calls as f64 - sent as f64;
    let mut parts = String::new();
    for (part, figure) in TOLD {
        // Ours tells of its journal by etcd's name, too.
        if own_journal && part == "wal" {
            continue;
        }
        if let Some(bytes) = scrape.get(figure) {
            parts += &format!("{part} {:.0}, ", per_put(bytes));
            rest -= bytes;
        }
    }
    let rest_is = match scrape.get("quorate_state_store_written_bytes_total") {
        Some(payload) => format!("state store, from {:.0} handed to it", per_put(payload)),
        None => "backend and the rest".to_owned(),
    };
    println!(
        "{name}: bytes written to files per put: {:.0} = {parts}{:.0} ({rest_is}); sent to clients {:.0}; \
         the kernel counts {:.0} of dirtied pages",
        per_put(written.by_calls as f64 - sent as f64),
        per_put(rest),
        per_put(sent as f64),
        per_put(written.by_pages as f64)
    );
    Ok(())
}

fn print_disk(name: &str, when: &str, parts: &Parts) {
    let listed: Vec<_> = parts.iter().map(|(part, mib)| format!("{part} {mib:.0}")).collect();
    println!("{name}: disk {when} {:.0} MiB: {}", total(parts), listed.join(", "));
}

fn total(parts: &Parts) -> f64 {
    parts.values().sum()
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

/// MiB of a data directory's parts.
type Parts = BTreeMap<String, f64>;

/// The most disk a directory has taken, and the most while a base was being written.
#[derive(Debug, Default)]
struct Most {
    ever: Parts,
    in_base: Option<Parts>,
}

impl Most {
    fn look(&mut self, parts: Parts) {
        if parts.keys().any(|part| part.ends_with(usage::BASE_IN_PROGRESS)) {
            let most = self.in_base.as_ref().map_or(0.0, total);
            if total(&parts) > most {
                self.in_base = Some(parts.clone());
            }
        }
        if total(&parts) > total(&self.ever) {
            self.ever = parts;
        }
    }

    fn print(&self, name: &str) {
        print_disk(name, "at its peak", &self.ever);
        if let Some(parts) = &self.in_base {
            print_disk(name, "at its peak while a base was written", parts);
        }
    }
}

/// Looks at a directory until it is stopped.
struct Peak {
    over: Arc<AtomicBool>,
    watcher: thread::JoinHandle<Most>,
}

impl Peak {
    fn watch(directory: &Path) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (stop, directory) = (Arc::clone(&over), directory.to_owned());
        let watcher = thread::spawn(move || {
            let mut most = Most::default();
            while !stop.load(Ordering::Relaxed) {
                most.look(usage::disk_mib(&directory));
                thread::sleep(Duration::from_millis(100));
            }
            most
        });
        Self { over, watcher }
    }

    fn stop(self) -> Result<Most> {
        self.over.store(true, Ordering::Relaxed);
        match self.watcher.join() {
            Ok(most) => Ok(most),
            Err(_) => bail!("the watcher of the disk panicked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_in_a_base_is_kept_apart() {
        let parts = |list: &[(&str, f64)]| {
            list.iter().map(|(part, mib)| ((*part).to_owned(), *mib)).collect::<Parts>()
        };
        let mut most = Most::default();
        most.look(parts(&[("journal", 5.0)]));
        assert!(most.in_base.is_none());
        most.look(parts(&[("journal", 4.0), ("groups/0/tmp-base", 3.0)]));
        most.look(parts(&[("journal", 3.0), ("groups/0/tmp-base", 3.5)]));
        most.look(parts(&[("journal", 8.0)]));
        assert_eq!(total(&most.ever), 8.0);
        assert_eq!(most.in_base.as_ref().map(total), Some(7.0));
    }
}
