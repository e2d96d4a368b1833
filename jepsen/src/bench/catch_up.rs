//! Puts while a follower that was away for long is sent the whole state, against puts without.
//!
//! ```text
//!   three members ── one killed ── the others take --puts ── constant load at the leader ─────────────────────▶
//!                                                              │ without, half │    with    │ pause │ without, half │
//!                                                                              ▲            ▲
//!                                                                    it is started     it is level
//! ```
//!
//! A pair counts only if a whole state was received: by the metric of the member that was away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::load::{self, Shape, Until, Work};
use super::scrape::Scrape;
use super::servers::START_DEADLINE;
use super::steady::{Call, Steady, Timetable};
use super::window::{PAUSE, Side, WARM_UP, Window, without};
use super::{median, usage};
use crate::member::{Member, MemberSpec, Workspace};
use crate::verdict::Verdict;

const LEADS: &str = "etcd_server_is_leader";
const REVISION: &str = "etcd_debugging_mvcc_current_revision";
const RECEIVED: &str = "etcd_network_snapshot_receive_success";
const LEVEL_DEADLINE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server, ours or etcd's.
    #[arg(long)]
    server: std::path::PathBuf,
    /// Pairs of a run; the medians count.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Puts that the follower misses.
    #[arg(long, default_value_t = 200_000)]
    puts: u64,
    /// The highest median ratio of p99 that is valid.
    #[arg(long, default_value_t = 2.0)]
    ratio_max: f64,
    /// The most anonymous memory in MiB that the leader may take for it, at the median.
    #[arg(long, default_value_t = 64.0)]
    growth_max: f64,
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Puts a second, evenly spread.
    #[arg(long, default_value_t = 4000.0)]
    rate: f64,
    /// Seconds of load before the follower comes back.
    #[arg(long, default_value_t = 8.0)]
    before: f64,
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// More flags of the server.
    #[arg(long = "flag", allow_hyphen_values = true)]
    flags: Vec<String>,
}

/// Measures every pair and judges the medians.
pub(crate) fn catch_up(options: &Options) -> Result<Verdict> {
    ensure!(options.pairs > 0, "at least one pair");
    println!(
        "| pair | s until level | whole states | p50 µs with, without | p99 µs | ratio | max µs | leader's MiB before, most | growth | follower's most MiB |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let (mut ratios, mut growths, mut findings) = (Vec::new(), Vec::new(), Vec::new());
    for nth in 1..=options.pairs {
        let pair = pair(options, nth)?;
        pair.print(nth);
        if pair.received < 1.0 {
            findings.push(format!("pair {nth}: no whole state was received"));
        }
        ratios.push(pair.ratio());
        growths.push(pair.growth());
    }
    let (ratio, growth) = (median(&ratios), median(&growths));
    println!("medians: p99 ratio {ratio:.2}, growth of the leader {growth:.0} MiB");
    if ratio > options.ratio_max {
        findings.push(format!("the median ratio {ratio:.2} is above {:.2}", options.ratio_max));
    }
    if growth > options.growth_max {
        findings.push(format!("the leader grew by {growth:.0} MiB, not {:.0}", options.growth_max));
    }
    Ok(Verdict::of(findings))
}

struct Pair {
    seconds: f64,
    received: f64,
    with: Side,
    without: Side,
    /// Anonymous MiB of the leader: the most before, and the most while the follower caught up.
    leader_mib: (f64, f64),
    follower_mib: f64,
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.with.quantile(0.99) / self.without.quantile(0.99)
    }

    fn growth(&self) -> f64 {
        self.leader_mib.1 - self.leader_mib.0
    }

    fn print(&self, nth: usize) {
        let both = |quantile| {
            format!("{:.0}, {:.0}", self.with.quantile(quantile), self.without.quantile(quantile))
        };
        println!(
            "| {nth} | {:.1} | {:.0} | {} | {} | {:.2} | {} | {:.0}, {:.0} | {:.0} | {:.0} |",
            self.seconds,
            self.received,
            both(0.5),
            both(0.99),
            self.ratio(),
            both(1.0),
            self.leader_mib.0,
            self.leader_mib.1,
            self.growth(),
            self.follower_mib
        );
    }
}

/// Measures one pair on fresh directories.
fn pair(options: &Options, nth: usize) -> Result<Pair> {
    let workspace = Workspace::create("catch-up")?;
    let mut members = start(options, &workspace)?;
    let leader = leader(&members)?;
    let leader_at = members[leader].spec().endpoint();
    let follower = (leader + 1) % members.len();
    let away = members.remove(follower).kill()?;
    let leader = leader - usize::from(leader > follower);
    fill(options, &leader_at)?;
    let timetable = Timetable {
        clients: options.clients,
        connections: 8.min(options.clients),
        threads: 1,
        value_bytes: options.value_bytes,
        keys: options.puts,
        rate: Some(options.rate),
        seed: nth as u64,
    };
    let steady = Steady::begin(&leader_at, &timetable);
    thread::sleep(WARM_UP);
    let before = Peak::watch(members[leader].pid());
    thread::sleep(Duration::from_secs_f64(options.before));
    let before_mib = before.stop()?;
    let (during, from) = (Peak::watch(members[leader].pid()), steady.now());
    let mut back = away.launch()?;
    let of_follower = Peak::watch(back.pid());
    back.await_ready(START_DEADLINE)?;
    await_level(&back, &members[leader])?;
    let with = Window { from, to: steady.now() };
    let during_mib = during.stop()?;
    let (first, second) = without(with);
    thread::sleep((second.to + PAUSE).saturating_sub(steady.now()));
    let calls = steady.stop()?;
    let received = Scrape::of(&back.spec().endpoint())?.get(RECEIVED).unwrap_or(0.0);
    let follower_mib = of_follower.stop()?;
    drop((members, back));
    workspace.discard()?;
    let beside = |call: &&Call| first.holds(call) || second.holds(call);
    Ok(Pair {
        seconds: with.seconds(),
        received,
        with: Side::of(calls.iter().filter(|call| with.overlaps(call))),
        without: Side::of(calls.iter().filter(beside)),
        leader_mib: (before_mib, during_mib),
        follower_mib,
    })
}

fn start(options: &Options, workspace: &Workspace) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    for mut spec in MemberSpec::several(&options.server, workspace.path(), "m", 3)? {
        spec.extra.clone_from(&options.flags);
        members.push(spec.launch()?);
    }
    for member in &mut members {
        member.await_ready(START_DEADLINE)?;
    }
    Ok(members)
}

fn leader(members: &[Member]) -> Result<usize> {
    for (nth, member) in members.iter().enumerate() {
        if Scrape::of(&member.spec().endpoint())?.must(LEADS)? == 1.0 {
            return Ok(nth);
        }
    }
    bail!("all are ready, and nobody leads")
}

/// What the follower misses.
fn fill(options: &Options, endpoint: &str) -> Result<()> {
    let shape = Shape {
        work: Work::Put,
        clients: 256,
        connections: 8,
        threads: 1,
        value_bytes: options.value_bytes,
        keys: options.puts,
        until: Until::EachKey(0),
        seed: 1,
    };
    load::run(&[endpoint.to_owned()], &shape)?;
    Ok(())
}

/// Waits until the follower has what the leader had when it was asked, twice in a row within a second of the load.
fn await_level(back: &Member, leader: &Member) -> Result<()> {
    let asked = Instant::now();
    let revision = |member: &Member| Scrape::of(&member.spec().endpoint())?.must(REVISION);
    loop {
        let wanted = revision(leader)?;
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(200) {
            if revision(back)? >= wanted {
                return Ok(());
            }
            thread::sleep(LOOK);
        }
        ensure!(asked.elapsed() < LEVEL_DEADLINE, "not level after {LEVEL_DEADLINE:?}");
    }
}

/// The most anonymous memory of a process while it is looked at.
struct Peak {
    over: Arc<AtomicBool>,
    watcher: thread::JoinHandle<f64>,
}

impl Peak {
    fn watch(pid: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let watcher = thread::spawn(move || {
            let mut most = 0.0;
            while !stop.load(Ordering::Relaxed) {
                most = usage::resident_mib(pid).map_or(most, |(anonymous, _)| anonymous.max(most));
                thread::sleep(LOOK);
            }
            most
        });
        Self { over, watcher }
    }

    fn stop(self) -> Result<f64> {
        self.over.store(true, Ordering::Relaxed);
        match self.watcher.join() {
            Ok(most) => Ok(most),
            Err(_) => bail!("the watcher of the memory panicked"),
        }
    }
}
