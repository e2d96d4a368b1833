//! Us beside etcd: same machine, same client, same flags, turn by turn.
//!
//! Ratios are ours over etcd's, from the medians of all rounds. A figure without the other server's from the same run
//! says nothing: both share the machine with the load client.

mod base;
mod counted;
mod load;
mod scrape;
mod steady;
mod store;
pub(crate) mod usage;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

pub(crate) use self::base::{Options as BaseOptions, base};
use self::load::{Measured, Shape, Until, Work};
pub(crate) use self::store::{Options as StoreOptions, store};
use crate::member::{Member, MemberSpec, Workspace};
use crate::verdict::Verdict;

const KEYS: u64 = 20_000;

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    ours: PathBuf,
    #[arg(long)]
    etcd: PathBuf,
    /// Seconds per measurement.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Measurements of each point; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Numbers of clients.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 512])]
    clients: Vec<usize>,
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Threads of the load client.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// More flags, for both servers.
    #[arg(long = "flag", allow_hyphen_values = true)]
    flags: Vec<String>,
}

/// One point of one server, over the rounds.
#[derive(Debug, Default)]
struct Samples {
    per_second: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    cpu_micros: Vec<f64>,
}

impl Samples {
    fn add(&mut self, measured: &Measured, cpu_seconds: f64) {
        self.per_second.push(measured.per_second());
        self.p50.push(measured.percentile(50));
        self.p99.push(measured.percentile(99));
        self.cpu_micros.push(cpu_seconds * 1e6 / measured.latencies.len() as f64);
    }
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measures every point and prints the table.
pub(crate) fn side_by_side(options: &Options) -> Result<Verdict> {
    ensure!(options.rounds > 0, "at least one round");
    let workspace = Workspace::create("bench")?;
    let start = |binary: &PathBuf, name: &str| -> Result<Member> {
        let mut spec = MemberSpec::single(binary, workspace.path(), name)?;
        spec.extra.clone_from(&options.flags);
        spec.start(Duration::from_secs(30))
    };
    let servers = [start(&options.ours, "ours")?, start(&options.etcd, "etcd")?];
    for server in &servers {
        let every_key = options.shape(Work::Put, 256, Until::EachKey(0), 0);
        load::run(&server.spec().endpoint(), &every_key)?;
    }
    println!(
        "| what | clients | ours /s | etcd /s | ratio | p50 µs | ratio | p99 µs | ratio | CPU µs/op | ratio |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for work in [Work::Put, Work::LinearizableGet] {
        for clients in &options.clients {
            let samples = options.point(&servers, work, *clients)?;
            print_row(work, *clients, &samples);
        }
    }
    drop(servers);
    workspace.discard()?;
    Ok(Verdict::Valid)
}

impl Options {
    fn shape(&self, work: Work, clients: usize, until: Until, seed: u64) -> Shape {
        Shape {
            work,
            clients,
            connections: self.connections.min(clients),
            threads: self.threads,
            value_bytes: self.value_bytes,
            keys: KEYS,
            until,
            seed,
        }
    }

    /// Turn by turn, and who begins changes with the round.
    fn point(&self, servers: &[Member; 2], work: Work, clients: usize) -> Result<[Samples; 2]> {
        let mut samples = [Samples::default(), Samples::default()];
        let time = Until::Elapsed(Duration::from_secs_f64(self.seconds));
        for round in 0..self.rounds {
            for turn in 0..2 {
                let nth = (round + turn) % 2;
                let server = &servers[nth];
                let before = usage::cpu_seconds(server.pid())?;
                let shape = self.shape(work, clients, time, round as u64 + 1);
                let measured = load::run(&server.spec().endpoint(), &shape)?;
                let cpu = usage::cpu_seconds(server.pid())? - before;
                samples[nth].add(&measured, cpu);
            }
        }
        Ok(samples)
    }
}

fn print_row(work: Work, clients: usize, [ours, etcd]: &[Samples; 2]) {
    let pair = |of: fn(&Samples) -> &Vec<f64>| {
        let (ours, etcd) = (median(of(ours)), median(of(etcd)));
        (ours, etcd, ours / etcd)
    };
    let rate = pair(|s| &s.per_second);
    let p50 = pair(|s| &s.p50);
    let p99 = pair(|s| &s.p99);
    let cpu = pair(|s| &s.cpu_micros);
    let what = match work {
        Work::Put => "put",
        Work::LinearizableGet => "linearizable get",
    };
    println!(
        "| {what} | {clients} | {:.0} | {:.0} | {:.2} | {:.0} / {:.0} | {:.2} | {:.0} / {:.0} | {:.2} | {:.1} / {:.1} | {:.2} |",
        rate.0, rate.1, rate.2, p50.0, p50.1, p50.2, p99.0, p99.1, p99.2, cpu.0, cpu.1, cpu.2
    );
}
