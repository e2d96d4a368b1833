//! Puts while a base is written, against puts without: does the background work show in the latency?
//!
//! ```text
//!   fill ── file system synced ── rest ── constant load ──────────────────────────────────────────▶
//!                                            │ without, half │   with   │ pause │ without, half │
//!                                                            ▲          ▲
//!                                                 tmp-base appears      gone, marked, the journal behind it freed
//! ```
//!
//! One pair is one process, filled anew to just below `--base-after-bytes`, so that its first base begins by itself
//! under the load and is as large as the store. A call belongs to the base if any part of it overlaps; the two halves
//! without are as long together, and so a drift of the machine falls on both sides.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::load::{self, Shape};
use super::scrape::Scrape;
use super::steady::{Call, Steady, Timetable};
use super::window::{PAUSE, Side, Window, without};
use super::{median, usage};
use crate::member::{Member, MemberSpec, Workspace};
use crate::verdict::Verdict;

/// Freeing the journal behind the base still belongs to it.
const AFTERMATH: Duration = Duration::from_millis(100);
/// How often the data directory is asked whether a base is being written.
const LOOK: Duration = Duration::from_millis(5);
/// The share of the rate that must be answered without a base for a pair to count.
const KEPT_UP: f64 = 0.95;
const BASE_DEADLINE: Duration = Duration::from_secs(300);

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    ours: std::path::PathBuf,
    /// Pairs of a run; the median of their ratios counts.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// The highest median ratio that is valid.
    #[arg(long, default_value_t = 2.0)]
    ratio_max: f64,
    /// The base begins when so many MiB are stored, and is about as large.
    #[arg(long, default_value_t = 256)]
    base_mib: u64,
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Puts a second, evenly spread; 0: each client as fast as it is answered.
    #[arg(long, default_value_t = 4000.0)]
    rate: f64,
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Threads of the load client.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Seconds of load, about, before the base begins.
    #[arg(long, default_value_t = 10.0)]
    before: f64,
    /// More flags of the server.
    #[arg(long = "flag", allow_hyphen_values = true)]
    flags: Vec<String>,
}

/// What the server has spent at one moment.
#[derive(Debug, Clone, Copy)]
struct Spent {
    cpu_seconds: f64,
    syncs: f64,
    sync_seconds: f64,
}

impl Spent {
    fn of(member: &Member) -> Result<Self> {
        let scrape = Scrape::of(&member.spec().endpoint())?;
        Ok(Self {
            cpu_seconds: usage::cpu_seconds(member.pid())?,
            syncs: scrape.must("etcd_disk_wal_fsync_duration_seconds_count")?,
            sync_seconds: scrape.must("etcd_disk_wal_fsync_duration_seconds_sum")?,
        })
    }

    /// Cores of CPU over `time`, and microseconds of a sync of the journal.
    fn until(self, later: Self, time: Duration) -> (f64, f64) {
        let cores = (later.cpu_seconds - self.cpu_seconds) / time.as_secs_f64();
        let sync = (later.sync_seconds - self.sync_seconds) / (later.syncs - self.syncs).max(1.0);
        (cores, sync * 1e6)
    }
}

/// Measures every pair and judges the median ratio of their p99.
pub(crate) fn base(options: &Options) -> Result<Verdict> {
    ensure!(options.pairs > 0, "at least one pair");
    println!(
        "| pair | base MiB | s | puts/s with, without | p50 µs | p99 µs | ratio | p99.9 µs | max µs | server's cores | fdatasync µs |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let mut ratios = Vec::new();
    for nth in 1..=2 * options.pairs {
        let pair = pair(options, nth)?;
        let counts = pair.kept_up(options.rate);
        pair.print(nth, counts);
        ratios.extend(counts.then(|| pair.ratio()));
        if ratios.len() == options.pairs {
            break;
        }
    }
    if ratios.len() < options.pairs {
        let kept = format!("only {} of {} pairs were kept up with", ratios.len(), options.pairs);
        return Ok(Verdict::Unknown(format!("{kept} even without a base: lower --rate")));
    }
    let median = median(&ratios);
    println!("p99 of puts while a base is written, against without: median ratio {median:.2}");
    let limit = options.ratio_max;
    let over = format!("the median ratio {median:.2} is above {limit:.2}: {ratios:.2?}");
    Ok(Verdict::of(if median <= limit { Vec::new() } else { vec![over] }))
}

/// What one pair measured.
struct Pair {
    base_mib: f64,
    seconds: f64,
    with: Side,
    without: Side,
    /// Seconds of the windows without.
    without_seconds: f64,
    /// Cores and microseconds of a sync, with and without.
    spent: [(f64, f64); 2],
}

impl Pair {
    /// Whether the machine keeps up with `rate` without a base. Where it does not, a backlog grows from one window to
    /// the next, and latencies are its alone.
    fn kept_up(&self, rate: f64) -> bool {
        self.without.0.len() as f64 / self.without_seconds >= KEPT_UP * rate
    }

    fn ratio(&self) -> f64 {
        self.with.quantile(0.99) / self.without.quantile(0.99)
    }

    fn print(&self, nth: usize, counts: bool) {
        let both = |quantile| {
            format!("{:.0}, {:.0}", self.with.quantile(quantile), self.without.quantile(quantile))
        };
        let [with, without] = self.spent;
        println!(
            "| {nth} | {:.0} | {:.1} | {:.0}, {:.0} | {} | {} | {} | {} | {} | {:.2}, {:.2} | {:.0}, {:.0} |",
            self.base_mib,
            self.seconds,
            self.with.0.len() as f64 / self.seconds,
            self.without.0.len() as f64 / self.without_seconds,
            both(0.5),
            both(0.99),
            if counts { format!("{:.2}", self.ratio()) } else { "void".to_owned() },
            both(0.999),
            both(1.0),
            with.0,
            without.0,
            with.1,
            without.1
        );
    }
}

/// Measures one pair.
fn pair(options: &Options, nth: usize) -> Result<Pair> {
    let workspace = Workspace::create("base")?;
    let mut spec = MemberSpec::single(&options.ours, workspace.path(), "base")?;
    spec.extra.push(format!("--base-after-bytes={}", options.base_mib << 20));
    spec.extra.extend(options.flags.iter().cloned());
    let member = spec.start(Duration::from_secs(30))?;
    let filled = fill(options, &member)?;
    sync_file_system(&workspace)?;
    thread::sleep(Duration::from_secs(2));
    let timetable = Timetable {
        clients: options.clients,
        connections: options.connections.min(options.clients),
        threads: options.threads,
        value_bytes: options.value_bytes,
        keys: filled.keys,
        rate: (options.rate > 0.0).then_some(options.rate),
        seed: nth as u64,
    };
    let steady = Steady::begin(&spec.endpoint(), &timetable);
    let (with, spent_in_it) = await_base(&steady, &member)?;
    let (before, after) = without(with);
    ensure!(before.seconds() > 1.0, "the base began too soon after the load: {before:?}");
    thread::sleep((with.to + PAUSE).saturating_sub(steady.now()));
    let (paused, from) = (Spent::of(&member)?, steady.now());
    thread::sleep((after.to + PAUSE).saturating_sub(steady.now()));
    let spent_beside = paused.until(Spent::of(&member)?, steady.now() - from);
    let calls = steady.stop()?;
    let base_bytes = Scrape::of(&spec.endpoint())?.must("quorate_base_size_bytes")?;
    member.kill()?;
    workspace.discard()?;
    let beside = |call: &&Call| before.holds(call) || after.holds(call);
    Ok(Pair {
        base_mib: base_bytes / 1048576.0,
        seconds: with.seconds(),
        with: Side::of(calls.iter().filter(|call| with.overlaps(call))),
        without: Side::of(calls.iter().filter(beside)),
        without_seconds: before.seconds() + after.seconds(),
        spent: [spent_in_it, spent_beside],
    })
}

struct Filled {
    /// Keys written, from the first on.
    keys: u64,
}

/// Fills the store until the base lacks no more than what the load brings before it.
fn fill(options: &Options, member: &Member) -> Result<Filled> {
    let endpoint = member.spec().endpoint();
    let wanted = (options.base_mib << 20) as f64;
    let mut keys = 0;
    // A put's key, value and share of its entry's records; soon measured.
    let mut put_bytes = options.value_bytes as f64 + 80.0;
    let mut rate = options.rate;
    loop {
        let grown = stored(&endpoint)?;
        let lacking = wanted - grown - put_bytes * rate * options.before;
        let more = (lacking / put_bytes) as u64;
        if lacking < 0.01 * wanted || more == 0 {
            ensure!(keys > 0, "--base-mib is too little for --before seconds of this load");
            return Ok(Filled { keys });
        }
        // In two or three steps, because what a put takes depends on how many share an entry.
        let upto = keys + if keys == 0 { more / 2 } else { more * 9 / 10 }.max(1000);
        let shape = Shape::fill(keys..upto, options.value_bytes);
        let measured = load::run(std::slice::from_ref(&endpoint), &shape)?;
        put_bytes = (stored(&endpoint)? - grown) / (upto - keys) as f64;
        keys = upto;
        if options.rate <= 0.0 {
            rate = measured.per_second();
        }
    }
}

/// Bytes stored towards the base, once all that was put has been.
fn stored(endpoint: &str) -> Result<f64> {
    let asked = Instant::now();
    loop {
        let scrape = Scrape::of(endpoint)?;
        let begun =
            scrape.must("quorate_base_in_progress")? + scrape.must("quorate_bases_total")?;
        ensure!(begun == 0.0, "a base began while the store was filled");
        if scrape.must("quorate_store_tail_bytes")? == 0.0 {
            return scrape.must("quorate_since_base_bytes");
        }
        ensure!(asked.elapsed() < BASE_DEADLINE, "the state store does not catch up");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Waits for the base to begin and to end; when it was under way, and what the server spent on average meanwhile.
fn await_base(steady: &Steady, member: &Member) -> Result<(Window, (f64, f64))> {
    let directory = &member.spec().data_dir;
    let wait_until = |under_way: bool| {
        let asked = Instant::now();
        while usage::holds_base_in_progress(directory) != under_way {
            if asked.elapsed() > BASE_DEADLINE {
                bail!("no base began or ended in {BASE_DEADLINE:?}");
            }
            thread::sleep(LOOK);
        }
        Ok(steady.now())
    };
    let from = wait_until(true)?;
    let before = Spent::of(member)?;
    wait_until(false)?;
    let endpoint = member.spec().endpoint();
    loop {
        let scrape = Scrape::of(&endpoint)?;
        if scrape.must("quorate_base_in_progress")? == 0.0 {
            ensure!(scrape.must("quorate_bases_total")? == 1.0, "the base came to nothing");
            let to = steady.now() + AFTERMATH;
            return Ok((Window { from, to }, before.until(Spent::of(member)?, to - from)));
        }
        thread::sleep(LOOK);
    }
}

/// Writes out what filling left dirty, which would else be written during one window or the other.
fn sync_file_system(workspace: &Workspace) -> Result<()> {
    let folder = std::fs::File::open(workspace.path())?;
    rustix::fs::syncfs(&folder).context("syncing the file system")
}
