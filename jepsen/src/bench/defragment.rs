//! Puts while a member that holds much is defragmented, against puts without.
//!
//! ```text
//!   three members ── filled ── for each member and way, pair by pair:
//!      compacted ── constant load, through that member or another ──────────────────────────────▶
//!                     │ without, half │        with        │ its base │ without, half │
//!                                     ▲                    ▲
//!                              Defragment asked        answered
//! ```
//!
//! Every pair moves the whole state again: nothing has to be spoilt first. The base that a defragmented store makes is
//! shown by itself: `bench-base` judges bases. At last puts come as fast as they are taken, and a defragmentation has
//! to end all the same.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::runtime::Runtime;

use super::load::{self, Shape};
use super::median;
use super::scrape::Scrape;
use super::servers::{START_DEADLINE, leader_of};
use super::steady::{Call, Steady, Timetable};
use super::usage;
use super::window::{PAUSE, Side, WARM_UP, Window};
use crate::client::Client;
use crate::member::{Member, MemberSpec, Workspace};
use crate::pb::etcdserverpb::{CompactionRequest, DefragmentRequest, StatusRequest};
use crate::verdict::Verdict;

const LOOK: Duration = Duration::from_millis(20);
/// Behind a compaction, what it left is dropped in the background; behind a defragmentation, a base is made.
const SETTLED_BY: Duration = Duration::from_secs(300);
/// A member that is at rest for so long has nothing left to do.
const REST: Duration = Duration::from_secs(2);
/// The share of the rate that must be answered without it for a pair to count.
const KEPT_UP: f64 = 0.95;

/// Who is defragmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Whom {
    Leader,
    Follower,
}

/// Through which member the load goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Through {
    Same,
    Other,
}

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The server, ours or etcd's.
    #[arg(long)]
    server: std::path::PathBuf,
    #[arg(long, default_value_t = 3)]
    members: usize,
    /// Whom to defragment.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Whom::Leader, Whom::Follower])]
    whom: Vec<Whom>,
    /// Whom the load is sent to: the member that is defragmented, or another.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Through::Same, Through::Other])]
    through: Vec<Through>,
    /// Pairs of each; the median of their ratios counts.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// The highest median ratio of p99 that is valid.
    #[arg(long, default_value_t = 2.0)]
    ratio_max: f64,
    /// What members hold, in MiB of values.
    #[arg(long, default_value_t = 1024)]
    fill_mib: u64,
    /// Bytes of a value that fills.
    #[arg(long, default_value_t = 1024)]
    fill_value_bytes: usize,
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Puts a second, evenly spread.
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// The most seconds on either side that count as without.
    #[arg(long, default_value_t = 30.0)]
    beside: f64,
    /// Seconds by which a defragmentation ends while puts come as fast as they are taken; 0 leaves that out.
    #[arg(long, default_value_t = 600)]
    flood_max: u64,
    /// More flags of the server.
    #[arg(long = "flag", allow_hyphen_values = true)]
    flags: Vec<String>,
}

/// Measures all pairs and judges each way by its median.
pub(crate) fn defragment(options: &Options) -> Result<Verdict> {
    ensure!(options.pairs > 0, "at least one pair");
    let workspace = Workspace::create("defragment")?;
    let bench = Bench::start(options, &workspace)?;
    println!(
        "| defragmented, load to | pair | MiB in use | s | p50 µs with, without | p99 µs | ratio | p99.9 µs | max µs | its cores | its base: s, p99 µs |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let mut findings = Vec::new();
    let mut void = 0;
    for whom in &options.whom {
        for through in &options.through {
            if options.members == 1 && (*whom, *through) != (Whom::Leader, Through::Same) {
                continue;
            }
            let mut ratios = Vec::new();
            for nth in 1..=options.pairs {
                let pair = bench.pair(*whom, *through, nth)?;
                let counts = pair.kept_up(options.rate);
                pair.print(&format!("{whom:?}, {through:?}"), nth, counts);
                ratios.extend(counts.then(|| pair.ratio()));
            }
            void += options.pairs - ratios.len();
            let ratio = median(&ratios);
            println!("{whom:?}, load to {through:?}: median ratio of p99 {ratio:.2}");
            if ratio > options.ratio_max {
                let limit = options.ratio_max;
                findings.push(format!(
                    "{whom:?}, {through:?}: {ratio:.2} is above {limit:.2}: {ratios:.2?}"
                ));
            }
        }
    }
    if options.flood_max > 0 {
        findings.extend(bench.flood()?);
    }
    drop(bench);
    workspace.discard()?;
    if findings.is_empty() && void > 0 {
        return Ok(Verdict::Unknown(format!("{void} pairs were not kept up with: lower --rate")));
    }
    Ok(Verdict::of(findings))
}

struct Bench<'a> {
    options: &'a Options,
    runtime: Runtime,
    members: Vec<Member>,
    keys: u64,
}

/// What one pair measured.
struct Pair {
    in_use_mib: f64,
    with: Side,
    without: Side,
    seconds: f64,
    without_seconds: f64,
    cores: f64,
    base: Side,
    base_seconds: f64,
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.with.quantile(0.99) / self.without.quantile(0.99)
    }

    fn kept_up(&self, rate: f64) -> bool {
        self.without.0.len() as f64 / self.without_seconds >= KEPT_UP * rate
    }

    fn print(&self, way: &str, nth: usize, counts: bool) {
        let both = |quantile| {
            format!("{:.0}, {:.0}", self.with.quantile(quantile), self.without.quantile(quantile))
        };
        println!(
            "| {way} | {nth} | {:.0} | {:.1} | {} | {} | {} | {} | {} | {:.2} | {:.1}, {:.0} |",
            self.in_use_mib,
            self.seconds,
            both(0.5),
            both(0.99),
            if counts { format!("{:.2}", self.ratio()) } else { "void".to_owned() },
            both(0.999),
            both(1.0),
            self.cores,
            self.base_seconds,
            self.base.quantile(0.99)
        );
    }
}

impl<'a> Bench<'a> {
    fn start(options: &'a Options, workspace: &Workspace) -> Result<Self> {
        let mut members = Vec::new();
        for mut spec in
            MemberSpec::several(&options.server, workspace.path(), "m", options.members)?
        {
            spec.extra = vec!["--quota-backend-bytes=8589934592".to_owned()];
            spec.extra.extend(options.flags.iter().cloned());
            members.push(spec.launch()?);
        }
        for member in &mut members {
            member.await_ready(START_DEADLINE)?;
        }
        let keys = (options.fill_mib << 20) / options.fill_value_bytes as u64;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let bench = Self { options, runtime, members, keys };
        let begun = Instant::now();
        let endpoint = bench.members[bench.leader()?].spec().endpoint();
        load::run(&[endpoint], &Shape::fill(0..keys, options.fill_value_bytes))?;
        println!("{keys} keys written in {:.0?}", begun.elapsed());
        Ok(bench)
    }

    fn leader(&self) -> Result<usize> {
        leader_of(&self.members)
    }

    /// The member to defragment, and the one to send the load to.
    fn roles(&self, whom: Whom, through: Through) -> Result<(usize, usize)> {
        let (leader, count) = (self.leader()?, self.members.len());
        let subject = match whom {
            Whom::Leader => leader,
            Whom::Follower => (leader + 1) % count,
        };
        let entrance = match through {
            Through::Same => subject,
            Through::Other => (subject + 1) % count,
        };
        Ok((subject, entrance))
    }

    fn pair(&self, whom: Whom, through: Through, nth: usize) -> Result<Pair> {
        let (subject, entrance) = self.roles(whom, through)?;
        self.compact()?;
        self.settle()?;
        let subject = &self.members[subject];
        let timetable = self.timetable(Some(self.options.rate), self.options.value_bytes, nth);
        let steady = Steady::begin(&self.members[entrance].spec().endpoint(), &timetable);
        let beside = Duration::from_secs_f64(self.options.beside);
        thread::sleep(WARM_UP + beside);
        let (from, spent) = (steady.now(), usage::cpu_seconds(subject.pid())?);
        self.ask_defragment(subject, SETTLED_BY)?;
        let with = Window { from, to: steady.now() };
        let cores = (usage::cpu_seconds(subject.pid())? - spent) / with.seconds();
        let base = self.await_base(&steady, subject)?;
        thread::sleep(PAUSE);
        let rest = beside.min(Duration::from_secs_f64(with.seconds()));
        let after = Window { from: steady.now(), to: steady.now() + rest };
        thread::sleep(rest + PAUSE);
        let calls = steady.stop()?;
        let before = Window { from: from.saturating_sub(rest).max(WARM_UP), to: from };
        let in_use = self.status(subject)?.db_size_in_use;
        let beside = |call: &&Call| before.holds(call) || after.holds(call);
        Ok(Pair {
            in_use_mib: in_use as f64 / 1048576.0,
            with: Side::of(calls.iter().filter(|call| with.overlaps(call))),
            without: Side::of(calls.iter().filter(beside)),
            seconds: with.seconds(),
            without_seconds: before.seconds() + after.seconds(),
            cores,
            base: Side::of(calls.iter().filter(|call| base.overlaps(call))),
            base_seconds: base.seconds(),
        })
    }

    fn timetable(&self, rate: Option<f64>, value_bytes: usize, nth: usize) -> Timetable {
        Timetable {
            clients: self.options.clients,
            connections: 8.min(self.options.clients),
            threads: 1,
            value_bytes,
            keys: self.keys,
            rate,
            seed: nth as u64,
        }
    }

    fn ask_defragment(&self, subject: &Member, patience: Duration) -> Result<()> {
        let endpoint = subject.spec().endpoint();
        self.runtime.block_on(async {
            let mut client = Client::connect(&endpoint).await?;
            let asked = client.maintenance.defragment(DefragmentRequest {});
            let answered = tokio::time::timeout(patience, asked).await;
            answered.with_context(|| format!("no answer in {patience:?}"))??;
            Ok(())
        })
    }

    fn status(&self, member: &Member) -> Result<crate::pb::etcdserverpb::StatusResponse> {
        let endpoint = member.spec().endpoint();
        self.runtime.block_on(async {
            let mut client = Client::connect(&endpoint).await?;
            Ok(client.maintenance.status(StatusRequest {}).await?.into_inner())
        })
    }

    /// What the load has left is compacted, so that every pair moves the same.
    fn compact(&self) -> Result<()> {
        let leader = &self.members[self.leader()?];
        let revision = self.status(leader)?.header.context("a header")?.revision;
        let endpoint = leader.spec().endpoint();
        self.runtime.block_on(async {
            let mut client = Client::connect(&endpoint).await?;
            let request = CompactionRequest { revision, physical: true };
            match client.kv.compact(request).await {
                Err(status) if !status.message().ends_with("has been compacted") => bail!(status),
                Ok(_) | Err(_) => Ok(()),
            }
        })
    }

    /// Waits until nobody writes a base, and nobody spends more than an idle member does.
    fn settle(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let before: Vec<f64> = self.spent()?;
            thread::sleep(REST);
            let spent: f64 = self.spent()?.iter().zip(&before).map(|(now, then)| now - then).sum();
            let idle = spent < 0.1 * REST.as_secs_f64() * self.members.len() as f64;
            let mut bases = 0.0;
            for member in &self.members {
                bases += base_in_progress(member)?;
            }
            if idle && bases == 0.0 {
                return Ok(());
            }
            ensure!(begun.elapsed() < SETTLED_BY, "members do not come to rest");
        }
    }

    fn spent(&self) -> Result<Vec<f64>> {
        self.members.iter().map(|member| usage::cpu_seconds(member.pid())).collect()
    }

    /// Waits for the end of the base that a defragmented store makes, if it makes one.
    fn await_base(&self, steady: &Steady, subject: &Member) -> Result<Window> {
        let from = steady.now();
        thread::sleep(PAUSE);
        let begun = Instant::now();
        while base_in_progress(subject)? > 0.0 {
            ensure!(begun.elapsed() < SETTLED_BY, "its base does not end");
            thread::sleep(LOOK);
        }
        Ok(Window { from, to: steady.now() })
    }

    /// Puts as fast as they are taken, large ones: a defragmentation ends all the same.
    fn flood(&self) -> Result<Option<String>> {
        let leader = &self.members[self.leader()?];
        self.settle()?;
        let timetable = self.timetable(None, self.options.fill_value_bytes, 0);
        let steady = Steady::begin(&leader.spec().endpoint(), &timetable);
        thread::sleep(WARM_UP);
        let limit = Duration::from_secs(self.options.flood_max);
        let from = steady.now();
        let ended = self.ask_defragment(leader, limit);
        let with = Window { from, to: steady.now() };
        let calls = steady.stop()?;
        let side = Side::of(calls.iter().filter(|call| with.overlaps(call)));
        println!(
            "under {:.0} puts of {} bytes a second: {:.1} s, p99 {:.0} µs",
            side.0.len() as f64 / with.seconds(),
            self.options.fill_value_bytes,
            with.seconds(),
            side.quantile(0.99)
        );
        Ok(ended.err().map(|why| format!("a defragmentation of the leader under a flood: {why:#}")))
    }
}

/// 1 while a member writes a base; another server's has none.
fn base_in_progress(member: &Member) -> Result<f64> {
    Ok(Scrape::of(&member.spec().endpoint())?.get("quorate_base_in_progress").unwrap_or(0.0))
}
