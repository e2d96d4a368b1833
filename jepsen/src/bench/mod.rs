//! Us beside etcd: same machine, same client, same flags, turn by turn.
//!
//! Ratios are ours over etcd's, from the medians of all rounds. A figure without the other server's from the same run
//! says nothing: both share the machine with the load client. Of a cluster, CPU is that of all members together; beside
//! the sum stand the leader's and the followers' shares.

mod base;
mod catch_up;
mod counted;
mod defragment;
mod load;
mod scrape;
mod servers;
mod steady;
mod store;
pub(crate) mod usage;
mod window;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

pub(crate) use self::base::{Options as BaseOptions, base};
pub(crate) use self::catch_up::{Options as CatchUpOptions, catch_up};
pub(crate) use self::defragment::{Options as DefragmentOptions, defragment};
use self::load::{Measured, Shape, Until, Work};
pub(crate) use self::servers::START_DEADLINE;
use self::servers::{Aim, Servers};
pub(crate) use self::store::{Options as StoreOptions, store};
use crate::member::Workspace;
use crate::verdict::Verdict;

const KEYS: u64 = 20_000;

/// Options of the sub-command.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    ours: PathBuf,
    #[arg(long)]
    etcd: PathBuf,
    /// Members of each cluster.
    #[arg(long, default_value_t = 1)]
    members: usize,
    /// Whom clients are connected to, of several members.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Aim::All, Aim::Leader, Aim::Followers])]
    aim: Vec<Aim>,
    /// Puts, gets, or both.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Work::Put, Work::LinearizableGet])]
    work: Vec<Work>,
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
    /// Of that the leader's.
    leader_micros: Vec<f64>,
}

impl Samples {
    /// `cpu_seconds` of each member, and which of them led.
    fn add(&mut self, measured: &Measured, cpu_seconds: &[f64], leader: usize) {
        let micros = |seconds: f64| seconds * 1e6 / measured.latencies.len() as f64;
        self.per_second.push(measured.per_second());
        self.p50.push(measured.percentile(50));
        self.p99.push(measured.percentile(99));
        self.cpu_micros.push(micros(cpu_seconds.iter().sum()));
        self.leader_micros.push(micros(cpu_seconds.get(leader).copied().unwrap_or_default()));
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
    let start = |binary: &PathBuf, name: &str| {
        Servers::start(binary, workspace.path(), name, options.members, &options.flags)
    };
    let servers = [start(&options.ours, "ours")?, start(&options.etcd, "etcd")?];
    for server in &servers {
        let every_key = options.shape(Work::Put, 256, Until::EachKey(0), 0);
        load::run(&server.endpoints(Aim::All)?, &every_key)?;
    }
    let aims = if options.members == 1 { &[Aim::All][..] } else { &options.aim };
    println!(
        "| what | clients | ours /s | etcd /s | ratio | p50 µs | ratio | p99 µs | ratio | CPU µs/op | ratio |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for work in &options.work {
        for aim in aims {
            // Fewer clients than members are not connected to all.
            let fewest = if options.members > 1 && *aim == Aim::All { options.members } else { 1 };
            for clients in options.clients.iter().filter(|clients| **clients >= fewest) {
                let samples = options.point(&servers, *work, *aim, *clients)?;
                let mut what = work.name().to_owned();
                if options.members > 1 {
                    what += &format!(", to {}", aim.name());
                }
                print_row(&what, *clients, &samples, options.members > 1);
            }
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
    fn point(
        &self,
        servers: &[Servers; 2],
        work: Work,
        aim: Aim,
        clients: usize,
    ) -> Result<[Samples; 2]> {
        let mut samples = [Samples::default(), Samples::default()];
        let time = Until::Elapsed(Duration::from_secs_f64(self.seconds));
        for round in 0..self.rounds {
            for turn in 0..2 {
                let nth = (round + turn) % 2;
                let server = &servers[nth];
                let shape = self.shape(work, clients, time, round as u64 + 1);
                let endpoints = server.endpoints(aim)?;
                let leader = server.leader()?;
                let before = server.cpu_seconds()?;
                let measured = load::run(&endpoints, &shape)?;
                let spent: Vec<_> = server
                    .cpu_seconds()?
                    .iter()
                    .zip(&before)
                    .map(|(now, then)| now - then)
                    .collect();
                samples[nth].add(&measured, &spent, leader);
            }
        }
        Ok(samples)
    }
}

fn print_row(what: &str, clients: usize, [ours, etcd]: &[Samples; 2], shares: bool) {
    let pair = |of: fn(&Samples) -> &Vec<f64>| {
        let (ours, etcd) = (median(of(ours)), median(of(etcd)));
        (ours, etcd, ours / etcd)
    };
    let rate = pair(|s| &s.per_second);
    let p50 = pair(|s| &s.p50);
    let p99 = pair(|s| &s.p99);
    let cpu = pair(|s| &s.cpu_micros);
    let share = |samples: &Samples| {
        let (all, leader) = (median(&samples.cpu_micros), median(&samples.leader_micros));
        if shares {
            format!("{all:.1} ({leader:.1} + {:.1})", all - leader)
        } else {
            format!("{all:.1}")
        }
    };
    println!(
        "| {what} | {clients} | {:.0} | {:.0} | {:.2} | {:.0} / {:.0} | {:.2} | {:.0} / {:.0} | {:.2} | {} / {} | {:.2} |",
        rate.0,
        rate.1,
        rate.2,
        p50.0,
        p50.1,
        p50.2,
        p99.0,
        p99.1,
        p99.2,
        share(ours),
        share(etcd),
        cpu.2
    );
}
