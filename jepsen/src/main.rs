//! Starts real members, hurts them, and judges what clients saw.
//!
//! Exit codes: 0 valid, 1 invalid, 2 unknown.
#![expect(clippy::print_stdout, reason = "a command line tool reports on its standard output")]

mod abuse;
mod acceptance;
mod bench;
mod client;
mod cluster;
mod damage;
mod differential;
mod disk;
mod faults;
mod full_disk;
mod kill;
mod member;
mod pb;
mod portrait;
mod powercut;
mod powerfs;
mod tls;
mod traffic;
mod transcripts;
mod verdict;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::verdict::Verdict;

#[derive(Debug, Parser)]
#[command(name = "quorate-jepsen", about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The same random calls at a real etcd and at us, every answer compared.
    Differential(differential::Options),
    /// Cuts the power of a real process under load, on a disk that keeps a random part of what was not synced.
    Powercut(powercut::Options),
    /// SIGKILL every few seconds under load: nothing acknowledged may be lost or happen twice.
    Kill(kill::Options),
    /// Three or five members in network namespaces, hurt one way or another under load from every one of them; A1.3 is
    /// `--fault kill-leader --every 10 --for 100`.
    Faults(faults::Options),
    /// A1.1: a cluster by variables alone, in random start orders, and the nine checks.
    Starts(acceptance::StartsOptions),
    /// A1.2: a registry's devices under leases, five of a user at most, known by watches; one gateway dies.
    Presence(acceptance::PresenceOptions),
    /// A1.4: probes while members stop, the quorum goes, the leader stands still, a disk is full.
    Probes(acceptance::ProbesOptions),
    /// A1.7: etcdctl's check perf against three members.
    CheckPerf(acceptance::CheckPerfOptions),
    /// A1.8: a small quota filled at three members, and freed.
    Quota(acceptance::QuotaOptions),
    /// A1.10: members that keep their names and change their addresses.
    Addresses(acceptance::AddressesOptions),
    /// A1.11: TLS and users by etcdctl, names in certificates, the JSON gateway.
    Rbac(acceptance::RbacOptions),
    /// Certificates and authorities replaced under load; then everyone who should be refused.
    Rotation(acceptance::RotationOptions),
    /// A1.5: members join and leave under load, with a watch open.
    Grow(acceptance::GrowOptions),
    /// A3.4: agents stand for one lead, and whoever leads is stopped past its TTL: no two lead at once.
    Campaign(acceptance::CampaignOptions),
    /// A0.9: one build becomes the next, member by member, under load; back while one may; refused when not.
    Upgrade(acceptance::UpgradeOptions),
    /// A small disk that fills up: growth is refused, deletes and compaction are not, and it recovers.
    FullDisk(full_disk::Options),
    /// One flip or truncation in a stopped member's files: refused, or served intact.
    Damage(damage::Options),
    /// What nobody should do to a member: refused clearly, nothing lost, nothing hung.
    Abuse(abuse::Options),
    /// Sessions of etcdctl, as text.
    Transcripts(transcripts::Options),
    /// Throughput, latency and CPU beside etcd's.
    Bench(bench::Options),
    /// Memory, disk and restart with many keys, beside etcd's.
    BenchStore(bench::StoreOptions),
    /// Latency of puts while a base is written, against without.
    BenchBase(bench::BaseOptions),
    /// Latency of puts and memory while a follower that was away is sent the whole state, against without.
    BenchCatchUp(bench::CatchUpOptions),
    /// Latency of puts while a member is defragmented, against without.
    BenchDefragment(bench::DefragmentOptions),
}

async fn run(command: Command) -> Result<Verdict> {
    match command {
        Command::Differential(options) => differential::differential(options).await,
        Command::Powercut(options) => powercut::powercut(options).await,
        Command::Kill(options) => kill::kill(options).await,
        Command::Faults(options) => faults::faults(options).await,
        Command::Starts(options) => acceptance::starts(options).await,
        Command::Addresses(options) => acceptance::addresses(options).await,
        Command::Campaign(options) => acceptance::campaign(options).await,
        Command::CheckPerf(options) => {
            tokio::task::spawn_blocking(move || acceptance::check_perf(&options)).await?
        }
        Command::Presence(options) => acceptance::presence(options).await,
        Command::Upgrade(options) => acceptance::upgrade(options).await,
        Command::Quota(options) => acceptance::quota(options).await,
        Command::Rbac(options) => acceptance::rbac(options).await,
        Command::Rotation(options) => acceptance::rotation(options).await,
        Command::Probes(options) => acceptance::probes(options).await,
        Command::Grow(options) => acceptance::grow(options).await,
        Command::FullDisk(options) => full_disk::full_disk(options).await,
        Command::Abuse(options) => abuse::abuse(&options).await,
        Command::Damage(options) => damage::damage(options).await,
        Command::Transcripts(options) => {
            tokio::task::spawn_blocking(move || transcripts::transcripts(&options)).await?
        }
        Command::Bench(options) => {
            tokio::task::spawn_blocking(move || bench::side_by_side(&options)).await?
        }
        Command::BenchStore(options) => {
            tokio::task::spawn_blocking(move || bench::store(&options)).await?
        }
        Command::BenchCatchUp(options) => {
            tokio::task::spawn_blocking(move || bench::catch_up(&options)).await?
        }
        Command::BenchDefragment(options) => {
            tokio::task::spawn_blocking(move || bench::defragment(&options)).await?
        }
        Command::BenchBase(options) => {
            tokio::task::spawn_blocking(move || bench::base(&options)).await?
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let verdict = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(cli.command)));
    verdict.unwrap_or_else(|error| Verdict::Unknown(format!("{error:#}"))).report()
}
